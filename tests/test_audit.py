"""The audit: keys, defects, leakage as published for the data at hand, its files, and scores without leaked rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from conftest import REPOSITORY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from typer.testing import CliRunner

from bench.command_audit import audit as command
from tasks import audit_keys, locations
from tasks.audit import audit
from tasks.audit_contents import Selection, parse_selection
from tasks.audit_keys import Keys, KeyStore
from tasks.audit_picture import draw
from tasks.audit_report import grids, markdown
from tasks.base import TaskError
from tasks.data import Catalogue
from tasks.decontamination import decontaminate, leaked, rows_of


@pytest.fixture(scope="module")
def store(session_cache: Path) -> Iterator[KeyStore]:
    """One store for all tests of this file, so that its processes start once."""
    with KeyStore(session_cache / "audit-tests", workers=2, limit=20.0) as opened:
        yield opened


@pytest.fixture
def real(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setenv(locations.DATA_VARIABLE, str(data_folder))
    return Catalogue()


def data_set(folder: Path, columns: str, name: str = "mine", **splits: Sequence[Sequence[str]]) -> Path:
    """A data set of the user's own: a CSV file for each split, whose first row is the header, and its YAML."""
    for split, rows in splits.items():
        lines = [",".join(f'"{cell}"' for cell in row) for row in rows]
        (folder / f"{name}-{split}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    described = "".join(f"  {split}: {name}-{split}.csv\n" for split in splits)
    path = folder / f"{name}.yaml"
    path.write_text(f"columns: {columns}\nsplits:\n{described}", encoding="utf-8")
    return path


def message(error: pytest.ExceptionInfo[TaskError]) -> str:
    return str(error.value)


# Keys


def test_what_one_molecule_is_compared_by(store: KeyStore) -> None:
    found = store.keys(["OCC", "C(O)C", "[CH3:2][CH2:1][OH:7]", "F[C@H](Cl)c1ccccc1", "F[C@@H](Cl)c1ccccc1"])
    assert len({found[text] for text in ("OCC", "C(O)C", "[CH3:2][CH2:1][OH:7]")}) == 1
    ethanol, one, other = found["OCC"], found["F[C@H](Cl)c1ccccc1"], found["F[C@@H](Cl)c1ccccc1"]
    assert (ethanol.canonical, ethanol.first_block, ethanol.scaffold) == ("CCO", "LFQSCWFLJHTTHZ", "")
    assert ethanol.at("scaffold") is None, "no ring, no scaffold to share"
    assert one.canonical != other.canonical
    assert one.first_block == other.first_block
    assert one.at("scaffold") == other.at("scaffold") == "c1ccccc1"


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("C", {"atoms": 1, "fragments": 1, "salt": False}),
        ("CCO.O", {"fragments": 2, "salt": False}),
        ("[Na+].[Cl-]", {"fragments": 2, "salt": True}),
        ("CCN.Cl", {"fragments": 2, "salt": True}),
        ("C[NH3+]", {"fragments": 1, "salt": False}),
        ("[2H]C", {"isotopes": True}),
        ("[13CH4]", {"isotopes": True}),
        ("*CC", {"first_block": None, "canonical": "*CC"}),
    ],
)
def test_what_is_noted_of_a_molecule(smiles: str, expected: dict[str, Any], store: KeyStore) -> None:
    keys = store.keys([smiles])[smiles]
    assert {name: getattr(keys, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("smiles", "why"),
    [
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5"),
        ("c1cccc1", "kekulize"),
        ("not a molecule", "not SMILES"),
        ("C1CC", "not SMILES"),
        ("", "empty"),
        ("  ", "empty"),
        ("(" * 5000, "not SMILES"),
        ("C\ud800", "UnicodeEncodeError"),
    ],
)
def test_what_cannot_be_read_says_why(smiles: str, why: str, store: KeyStore) -> None:
    keys = store.keys([smiles])[smiles]
    assert why in str(keys.problem)
    assert keys.canonical is None


def test_a_molecule_that_hangs_or_crashes_costs_itself_alone(tmp_path: Path) -> None:
    """RDKit needs minutes, or the whole stack, to write a chain of 100,000 atoms."""
    chain = "C" * 100_000
    with KeyStore(tmp_path, workers=1, limit=3.0) as store:
        found = store.keys(["CCO", chain, "CCN"])
    assert found["CCO"].canonical == "CCO"
    assert found["CCN"].canonical == "CCN"
    assert found[chain].problem in {"RDKit does not finish with it in time", "RDKit crashes on it"}
    with KeyStore(tmp_path, workers=1) as store:
        assert store._kept([chain, "CCN"], full=True).keys() == {"CCN"}, "another machine may have more time"


def test_keys_are_kept_and_belong_to_one_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smiles = ["CCO", "c1ccccc1", "C(C)(C)(C)(C)C"]
    with KeyStore(tmp_path, workers=1) as store:
        first = store.keys(smiles)
    with monkeypatch.context() as patched:
        patched.setattr(KeyStore, "_derived", lambda *_: pytest.fail("was worked out a second time"))
        with KeyStore(tmp_path) as store:
            assert store.keys(smiles) == first
            assert store.keys(smiles, full=False) == first
    monkeypatch.setattr(audit_keys, "VERSION", audit_keys.VERSION + 1)
    with KeyStore(tmp_path, workers=1) as store:
        assert store._kept(smiles, full=True) == {}


def test_canonical_alone_is_completed_when_more_is_asked_for(tmp_path: Path) -> None:
    with KeyStore(tmp_path, workers=1) as store:
        assert store.keys(["OCC"], full=False)["OCC"].first_block is None
        assert store.keys(["OCC"])["OCC"].first_block == "LFQSCWFLJHTTHZ"


def test_a_folder_that_cannot_be_written_is_a_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(TaskError, match="MOLGRAFT_CACHE"):
        KeyStore(tmp_path / "file" / "audit")


# Parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chebi20", ("chebi20", (), ())),
        ("chebi20/test", ("chebi20", ("test",), ())),
        ("pcdes/test+validation", ("pcdes", ("validation", "test"), ())),
        ("bace@scaffold/valid", ("bace@scaffold", ("validation",), ())),
        ("uspto50k/train:product+reactants", ("uspto50k", ("train",), ("product", "reactants"))),
        ("folder/mine.yaml", ("folder/mine.yaml", (), ())),
        ("folder/mine.yaml/test", ("folder/mine.yaml", ("test",), ())),
        ("folder/mine.yaml@random-3/test:smiles", ("folder/mine.yaml@random-3", ("test",), ("smiles",))),
    ],
)
def test_parts_by_name(text: str, expected: tuple[Any, ...]) -> None:
    assert parse_selection(text) == Selection(text, *expected)


def test_misspelt_parts_are_refused(tmp_path: Path, store: KeyStore) -> None:
    path = data_set(tmp_path, "{smiles: s}", train=[["s"], ["C"]], test=[["s"], ["CC"]])
    for part, said in [
        ("bundled/tset", "no split 'tset'"),
        ("bundled/train+tset", "did you mean 'test'"),
        (f"{path}/validation", "it has rows in train, test"),
        (f"{path}/test:product", "it has them under smiles"),
        ("bundeld/test", "did you mean 'bundled'"),
        ("/test", "no data set '/test'"),
        (":smiles", "is expected"),
    ]:
        with pytest.raises(TaskError) as error:
            audit([], Catalogue(), store, evaluate=[part], against=["bundled/train"])
        assert said in message(error), part


# Inside a data set

DEFECTS = [
    ["molecule", "label", "text"],
    ["OCC", "1", "an alcohol"],
    ["C(O)C", "0", "an alcohol"],  # the molecule of line 2 with another label, and its text
    ["C(C)(C)(C)(C)C", "1", "five bonds"],
    ["CCN.Cl", "", "a salt"],
    ["F/C=C\\\\F", "1", "twice the bond"],
    ["[H]C([H])([H])[H]", "0", "None"],
    ["[13CH4]", "0", "labelled"],
    ["F[C@H](Cl)Br", "1", "one"],
    ["F[C@@H](Cl)Br", "0", "its mirror image"],
    ["", "1", "nothing"],
    ["nonsense", "1", "no molecule"],
]


@pytest.fixture
def defective(tmp_path: Path, store: KeyStore) -> dict[str, Any]:
    path = data_set(tmp_path, "{smiles: molecule, label: label, caption: text}", train=DEFECTS)
    return audit([str(path)], Catalogue(), store)


def places(report: dict[str, Any], defect: str, role: str, file: str = "mine-train.csv") -> list[int]:
    (data,) = report["data"]
    found = [place for place in data["places"] if (place["defect"], place["role"]) == (defect, role)]
    assert data["counts"].get(f"{defect}, {role}", 0) == len(found)
    assert all(place["file"] == file for place in found)
    return [place["line"] for place in found]


def test_defects_of_molecules_with_file_and_line(defective: dict[str, Any]) -> None:
    found = defective["data"][0]["molecules"]["smiles"]
    assert defective["data"][0]["rows"] == 11
    assert places(defective, "unparsable", "smiles") == [4, 12]
    assert places(defective, "empty", "smiles") == [11]
    assert places(defective, "doubled backslash", "smiles") == [6]
    assert places(defective, "explicit hydrogens", "smiles") == [7]
    assert (found["unparsable"], found["empty"]) == (2, 1)
    # methane labelled with an isotope is another molecule of the same first block
    assert found["unique"] == {"canonical": 7, "inchikey": 5, "scaffold": 0}
    assert found["duplicates"] == {"canonical": 1, "inchikey": 3}
    assert (found["several_fragments"], found["salts"], found["single_atoms"], found["isotopes"]) == (1, 1, 2, 1)
    assert found["without_rings"] == 8
    reasons = {
        each["line"]: each["detail"] for each in defective["data"][0]["places"] if each["defect"] == "unparsable"
    }
    assert "Explicit valence" in reasons[4]
    assert "not SMILES" in reasons[12]


def test_defects_of_labels_and_texts(defective: dict[str, Any]) -> None:
    labels = defective["data"][0]["labels"]
    assert places(defective, "label conflict", "label") == [2]
    assert labels["label"]["conflicts"] == {"canonical": 1, "inchikey": 2}
    assert not labels["label"]["text"]
    assert places(defective, "empty", "label") == [5]
    assert labels["caption"]["text"]
    assert places(defective, "repeated text", "caption") == [3]
    assert places(defective, "no value", "caption") == [7]
    assert labels["caption"]["conflicts"] == {"canonical": 0, "inchikey": 1}
    (conflict,) = (each for each in defective["data"][0]["places"] if each["defect"] == "label conflict")
    assert (conflict["value"], conflict["detail"]) == ("1", "0 on line 3; smiles OCC")


def test_labels_of_other_questions_and_other_spellings_do_not_conflict(tmp_path: Path, store: KeyStore) -> None:
    rows = [["s", "t", "l"], ["CC", "a", "1"], ["CC", "b", "0"], ["CC", "a", "1.0"], ["CC", "c", "0"], ["CC", "c", "1"]]
    path = data_set(tmp_path, "{smiles: s, task: t, label: l}", train=rows)
    report = audit([str(path)], Catalogue(), store)
    assert report["data"][0]["labels"]["label"]["conflicts"]["canonical"] == 1
    assert places(report, "label conflict", "label") == [5]


def test_a_leak_made_by_hand_is_found(tmp_path: Path, store: KeyStore) -> None:
    train = [["s"], ["OCC"], ["c1ccccc1C[C@H](N)O"], ["CCCC"]]
    test = [["s"], ["C(C)O"], ["OC(N)Cc1ccccc1"], ["Clc1ccccc1"], ["CCCCC"]]
    path = data_set(tmp_path, "{smiles: s}", train=train, test=test)
    report = audit([str(path)], Catalogue(), store)
    ((pair,), (cell,)) = (report["data"][0]["splits"], report["leakage"])
    assert pair["splits"] == ["train", "test"]
    assert pair["shared"] == cell["shared"] == {"canonical": 1, "inchikey": 2, "scaffold": 1}
    assert cell["unique"] == {"canonical": 4, "inchikey": 4, "scaffold": 1}


def test_reactions(tmp_path: Path, store: KeyStore) -> None:
    header = ["r", "a", "p"]
    train = [header, ["CCO.CC(=O)O", "[H+]", "CCOC(C)=O"], ["CC(=O)O.OCC", "O", "CCOC(=O)C"], ["C.CCO", "", "OCC"]]
    test = [header, ["CC(O)=O.OCC", "[H+]", "CC(=O)OCC"], ["CCCl", "", "CCO"], ["CCN.Cl", "", "Cl.NCC"]]
    columns = "{reactants: r, reagents: a, product: p}"
    report = audit([str(data_set(tmp_path, columns, train=train, test=test))], Catalogue(), store)
    (data,) = report["data"]
    assert data["reactions"]["product_among_reactants_within_train"] == 1
    assert places(report, "product among reactants", "product", file="mine-train.csv") == [4]
    assert places(report, "parts of product among reactants", "product", file="mine-test.csv") == [4]
    assert data["reactions"]["duplicates_reactants_product_within_train"] == 1
    assert data["reactions"]["duplicates_whole_reactions_within_train"] == 0
    shared = {each["what"]: each["shared"]["canonical"] for each in data["splits"]}
    assert report["leakage"][0]["shared"]["canonical"] == 2
    assert shared == {"product": 2, "reactants_product": 1, "whole_reactions": 1}
    path = tmp_path / "mine.yaml"
    corpora = [f"{path}/train:reactants+product", f"{path}/train"]
    reactions, products = audit([], Catalogue(), store, evaluate=[f"{path}/test:product+reactants"], against=corpora)[
        "leakage"
    ]
    assert reactions["shared"] == {"canonical": 1, "inchikey": None, "scaffold": None}
    assert products["shared"]["canonical"] is None, "a reaction is no molecule"


def test_a_mapped_reaction_in_one_column_is_taken_apart(tmp_path: Path, store: KeyStore) -> None:
    mapped = "[CH3:1][C:2](=[O:3])[OH:9].[OH:4][CH3:5]>>[CH3:1][C:2](=[O:3])[O:4][CH3:5]"
    other = data_set(tmp_path, "{product: p}", name="plain", test=[["p"], ["COC(C)=O"]])
    path = data_set(tmp_path, "{reaction: rxn}", train=[["rxn"], [mapped], ["no reaction"]])
    report = audit([str(path)], Catalogue(), store, evaluate=[f"{other}/test"])
    assert places(report, "unparsable", "product") == [3]
    assert report["leakage"][0]["shared"]["canonical"] == 1


def test_splits_dealt_out_anew(tmp_path: Path, store: KeyStore) -> None:
    rows = [["s"], *([f"{'C' * size}O"] for size in range(1, 41)), ["nonsense"]]
    path = data_set(tmp_path, "{smiles: s}", train=rows)
    report = audit([f"{path}@random-3"], Catalogue(), store)
    (data,) = report["data"]
    assert data["rows"] == 41
    assert data["rows_by_split"] == {"train": 32, "validation": 4, "test": 5}
    assert "random split, seed 3" in data["files"][0]["note"]
    assert [each["shared"]["canonical"] for each in data["splits"]] == [0, 0, 0]
    assert {each["evaluation"] for each in report["leakage"]} == {
        f"{path}@random-3/validation",
        f"{path}@random-3/test",
    }


# Invariance

MOLECULES = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "F/C=C\\F",
    "[Na+].[Cl-]",
    "CN1CCC[C@H]1c1cccnc1",
    "OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O",
    "C",
    "CCO.O",
    "c1ccc2c(c1)[nH]c1ccccc12",
]


def counts(folder: Path, train: Sequence[str], test: Sequence[str], store: KeyStore) -> dict[str, Any]:
    splits = {"train": [["s"], *([each] for each in train)], "test": [["s"], *([each] for each in test)]}
    report = audit([str(data_set(folder, "{smiles: s}", **splits))], Catalogue(), store)
    (data,) = report["data"]
    return {
        "molecules": data["molecules"],
        "splits": data["splits"],
        "leakage": [each["shared"] for each in report["leakage"]],
    }


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    train=st.lists(st.sampled_from(MOLECULES), min_size=1, max_size=8),
    test=st.lists(st.sampled_from(MOLECULES), min_size=1, max_size=8),
    seed=st.integers(1, 2**31 - 1),
)
def test_the_order_of_atoms_and_rows_changes_no_count(
    train: list[str], test: list[str], seed: int, tmp_path: Path, store: KeyStore
) -> None:
    def permuted(smiles: str) -> str:
        return str(Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(smiles), 1, seed)[0])

    plain = counts(tmp_path, train, test, store)
    assert counts(tmp_path, [permuted(each) for each in reversed(train)], list(map(permuted, test)), store) == plain
    assert leaked([[permuted(each)] for each in test], train, "canonical", store=store) == [
        each in train for each in test
    ]


# Published counts

# canonical SMILES / first block of the InChIKey, of the evaluation set and of what each corpus holds of it
CORPORA = ("chebi20/validation", "gitmol")
PUBLISHED = {
    "chebi20/test": [(3300, 3155), (0, 232), (141, 276)],
    "pubchem324k-caption/validation": [(1000, 982), (73, 137), (34, 81)],
    "chemllmbench-names": [(599, 599), (0, 0), (0, 0)],
    "bace-llm4sd/test": [(152, 152), (0, 0), (0, 0)],
    "bace": [(1513, 1466), (0, 0), (0, 0)],
    "esol-llm4sd/test": [(113, 113), (2, 7), (5, 8)],
    "esol": [(1117, 1115), (40, 59), (40, 53)],
    "freesolv-llm4sd/test": [(65, 65), (3, 4), (2, 3)],
    "freesolv": [(642, 639), (31, 36), (19, 29)],
    "chembl-qa": [(390, 389), (14, 17), (4, 11)],
}


def test_leakage_counts_as_published(real: Catalogue, store: KeyStore) -> None:
    report = audit([], real, store, evaluate=list(PUBLISHED), against=CORPORA)
    found = {each["name"]: [_pair(each["unique"])] for each in report["evaluations"]}
    for cell in report["leakage"]:
        found[cell["evaluation"]].append(_pair(cell["shared"]))
    assert found == PUBLISHED


def _pair(counted: dict[str, int]) -> tuple[int, int]:
    return counted["canonical"], counted["inchikey"]


def test_splits_and_defects_as_published(real: Catalogue, store: KeyStore) -> None:
    report = audit(["bace-llm4sd", "gitmol", "chebi20-mm"], real, store)
    found = {each["data"]: each for each in report["data"]}
    overlap = {
        name: {"&".join(pair["splits"]): _pair(pair["shared"]) for pair in each["splits"]}
        for name, each in found.items()
    }
    assert overlap["bace-llm4sd"] == {"train&validation": (0, 0), "train&test": (0, 13), "validation&test": (0, 2)}
    assert overlap["gitmol"] == {"train&validation": (0, 26), "train&test": (0, 24), "validation&test": (0, 1)}
    assert _pair(found["bace-llm4sd"]["molecules"]["smiles"]["duplicates"] | {"scaffold": 0}) == (0, 47)
    assert found["gitmol"]["molecules"]["smiles"]["duplicates"] == {"canonical": 0, "inchikey": 180}
    mixed = found["chebi20-mm"]["molecules"]["smiles"]
    assert mixed["doubled_backslashes"] == 484 + 502, "as the files have them, though they are mended when read"
    assert mixed["several_fragments"] == 163 + 159, "the validation molecule that ChEBI-20-MM lacks is one of the 160"
    assert mixed["single_atoms"] == 11 + 8
    labels = found["chebi20-mm"]["labels"]
    assert [labels[role]["empty"] for role in ("xlogp", "selfies", "iupac")] == [199 + 204, 487 + 506, 8 + 9]


# What is written


@pytest.fixture
def written(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(session_cache))
    train = [["s", "y"], ["OCC", "1"], ["C(O)C", "0"], ["a|b`c", "1"]]
    path = data_set(tmp_path, "{smiles: s, label: y}", train=train, test=[["s", "y"], ["CCO", "1"], ["CCC", "0"]])
    app = typer.Typer()
    app.command()(command)
    return path, lambda *words: CliRunner().invoke(app, [*words, "--workers", "1"])


def test_the_command_writes_tables_and_a_picture(written: tuple[Path, Any], tmp_path: Path) -> None:
    path, run = written
    done = run(str(path), "-o", str(tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == report
    assert report["leakage"][0]["shared"] == {"canonical": 1, "inchikey": 1, "scaffold": 0}
    assert re.fullmatch("[0-9a-f]{64}", report["data"][0]["files"][0]["sha256"])
    text = (tmp_path / "out" / "audit.md").read_text()
    assert "| mine | 5 | 1 | 0 | 2 / 2 |" in text
    assert "- mine-train.csv:4: `a|b'c` (RDKit cannot parse it: not SMILES)" in text
    assert "- mine-train.csv:2: `1` (0 on line 3; smiles OCC)" in text
    assert str(tmp_path / "mine-train") not in text, "a report says the same on every machine"
    assert f"RDKit {report['keys']['rdkit']}" in text
    svg = ElementTree.parse(tmp_path / "out" / "audit.svg")
    drawn = [each.text for each in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"1 / 1", "50.0 %", f"{path}/test", f"{path}/train"} <= set(drawn)
    assert (tmp_path / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")
    assert not list((tmp_path / "out").glob(".*")), "nothing unfinished is left"


def test_the_command_prints_the_tables(written: tuple[Path, Any]) -> None:
    path, run = written
    done = run(str(path))
    assert done.exit_code == 0, done.output
    for title in ("Molecules", "Labels and texts", "Splits of one data set", "Leakage"):
        assert title in done.stdout
    assert "comparing" in done.stderr, "progress goes where it disturbs no program"
    assert run(str(path), "--quiet").stderr == ""


def test_equal_reports_give_equal_files(defective: dict[str, Any], tmp_path: Path) -> None:
    report = {**defective, "evaluations": defective["corpora"], "leakage": _square(defective)}
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        contents.append([path.read_bytes() for path in draw(report, tmp_path / name)])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2
    assert markdown(report) == markdown(report)


def _square(report: dict[str, Any]) -> list[dict[str, Any]]:
    (corpus,) = report["corpora"]
    return [
        {"evaluation": corpus["name"], "corpus": corpus["name"], "shared": corpus["unique"], "unique": corpus["unique"]}
    ]


def test_no_matrix_no_picture(defective: dict[str, Any], tmp_path: Path) -> None:
    assert draw(defective, tmp_path) == []
    assert [grid.title for grid in grids(defective)] == ["Molecules", "Labels and texts"]


def test_a_substitute_is_marked(real: Catalogue, store: KeyStore) -> None:
    report = audit([], real, store, evaluate=["bundled/test"], against=["chebi20-original", "bundled/train"])
    (grid,) = grids(report)
    assert grid.columns[2:] == ("chebi20-original*", "bundled/train")
    assert "substitute" in grid.title


def test_the_library_is_light() -> None:
    """Neither RDKit nor matplotlib is needed to read a report or to decide what to audit."""
    code = (
        "import sys, tasks.audit, tasks.decontamination, tasks.audit_report, tasks.audit_picture, bench.command_audit;"
    )
    code += "print(sorted({'torch', 'rdkit', 'matplotlib', 'transformers'} & {n.split('.')[0] for n in sys.modules}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Scores without leaked rows


def test_levels_of_leakage_contain_each_other(store: KeyStore) -> None:
    train = ["OCC", "C[C@H](N)C(=O)O", "c1ccccc1O", "CCCC"]
    test = [["C(C)O"], ["C[C@@H](N)C(=O)O"], ["Clc1ccccc1"], ["CCCCC"], []]
    assert leaked(test, train, "canonical", store=store) == [True, False, False, False, False]
    assert leaked(test, train, "inchikey", store=store) == [True, True, False, False, False]
    assert leaked(test, train, "scaffold", store=store) == [True, True, True, False, False]


def test_molecules_without_a_key_are_compared_by_what_they_have(store: KeyStore) -> None:
    assert leaked([["CC*"], ["CCC*"]], ["*CC"], "inchikey", store=store) == [True, False], "no InChI"
    assert leaked([["nonsense"], ["rubbish"], [" "]], ["nonsense ", ""], "scaffold", store=store) == [
        True,
        False,
        False,
    ]


def test_any_or_all_molecules_of_a_row(store: KeyStore) -> None:
    rows = [["CCO", "CCN"], ["OCC", "O"]]
    assert leaked(rows, ["CCO", "O"], "canonical", store=store) == [True, True]
    assert leaked(rows, ["CCO", "O"], "canonical", match="all", store=store) == [False, True]


def test_decontamination_says_what_it_depends_on(tmp_path: Path, store: KeyStore) -> None:
    path = data_set(tmp_path, "{smiles: s}", train=[["s"], ["OCC"], ["CCCC"]], test=[["s"], ["CO"]])
    assert rows_of([f"{path}/train", f"{path}/test"], Catalogue()) == ["OCC", "CCCC", "CO"]
    found = decontaminate([["CCO"], ["CO"], ["nonsense"]], [f"{path}/train"], Catalogue(), store=store)
    assert found.leaked == [True, False, False]
    said = json.loads(json.dumps(found.description))
    assert (said["by"], said["match"], said["n"], said["n_left"], said["n_unreadable"]) == ("inchikey", "any", 3, 2, 1)
    (corpus,) = said["against"]
    assert (corpus["data"], corpus["rows"]) == (f"{path}/train", 2)
    (file,) = corpus["files"]
    assert (file["file"], len(file["sha256"])) == ("mine-train.csv", 64)
    assert found.identity == {
        "without": f"{path}/train (mine-train.csv sha256 {file['sha256'][:16]})",
        "leaked by": f"inchikey, any of a row's molecules, RDKit {said['rdkit']}",
        "left": "2 of 3",
    }
    (tmp_path / "mine-train.csv").write_text("s\nCO\n")
    again = decontaminate([["CCO"], ["CO"]], [f"{path}/train"], Catalogue(), store=store)
    assert again.leaked == [False, True]
    assert again.description["against"][0]["files"][0]["sha256"] != file["sha256"]


def test_decontamination_agrees_with_the_audit(real: Catalogue, store: KeyStore) -> None:
    """232 skeletons of ChEBI-20 test stand in its validation split; some of them in several test rows."""
    smiles = rows_of(["chebi20/test"], real)
    mask = leaked([[each] for each in smiles], rows_of(["chebi20/validation"], real), "inchikey", store=store)
    keys = store.keys(smiles)
    assert len({keys[each].first_block for each, hit in zip(smiles, mask, strict=True) if hit}) == 232
    assert not any(leaked([[each] for each in smiles], rows_of(["chebi20/validation"], real), "canonical", store=store))


def test_mistakes_in_asking_are_refused(tmp_path: Path, store: KeyStore) -> None:
    path = data_set(tmp_path, "{reactants: r, product: p}", train=[["r", "p"], ["C", "CC"]])
    assert rows_of([f"{path}/train"], Catalogue()) == ["CC"], "of a reaction the product"
    assert rows_of([f"{path}/train:reactants"], Catalogue()) == ["C"]
    with pytest.raises(TaskError, match="did you mean 'inchikey'"):
        leaked([["C"]], ["C"], "inchi", store=store)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="any or all"):
        leaked([["C"]], ["C"], "canonical", match="some", store=store)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="name at least one part"):
        decontaminate([["C"]], [], Catalogue(), store=store)
    with pytest.raises(TaskError, match="one role is expected"):
        rows_of([f"{path}/train:product+reactants"], Catalogue())


def test_keys_of_nothing_are_told_apart() -> None:
    assert Keys(problem="empty").at("canonical") is None


def test_a_store_that_was_interrupted_works_again(tmp_path: Path) -> None:
    smiles = [f"{'C' * left}O{'C' * right}" for left in range(20) for right in range(left + 1)]

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with KeyStore(tmp_path, workers=1, report=interrupt) as store:
        with pytest.raises(KeyboardInterrupt):
            store.keys(smiles)
        kept = store._kept(smiles, full=True)
        assert 0 < len(kept) < len(smiles), "what was done is kept"
        store.report = None
        assert {text: keys.atoms for text, keys in store.keys(smiles).items()} == {text: len(text) for text in smiles}


def test_a_damaged_store_is_told_as_such(tmp_path: Path) -> None:
    with KeyStore(tmp_path):
        (path,) = tmp_path.glob("keys-*.sqlite")
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(TaskError, match="delete that file"):
        KeyStore(tmp_path)


def test_of_all_data_sets_a_broken_one_is_skipped_and_named(tmp_path: Path, store: KeyStore) -> None:
    good = data_set(tmp_path, "{smiles: s}", name="good", test=[["s"], ["C"]])
    broken = data_set(tmp_path, "{smiles: s}", name="broken", test=[["s"], ["C", "D"]])

    class Two(Catalogue):
        def names(self) -> list[str]:
            return ["good", "broken"]

    catalogue = Two([good, broken])
    report = audit([], catalogue, store)
    assert [each["data"] for each in report["data"]] == ["good"]
    ((skipped),) = report["skipped"]
    assert (skipped["data"], skipped["broken"]) == ("broken", True)
    assert "broken-test.csv:2" in skipped["reason"]
    with pytest.raises(TaskError, match=r"broken-test\.csv:2"):
        audit(["broken"], catalogue, store)
