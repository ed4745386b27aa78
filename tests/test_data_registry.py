"""Every data set of the registry on real data: counts, hashes, the traps of the files, and the check of whole roots."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from typer.testing import CliRunner

from bench.command_data import app
from tasks import data_files, locations
from tasks.base import SPLITS, TaskError
from tasks.data import Catalogue, DataSet, Row
from tasks.data_assets import ASSETS, check_assets, check_further, described_files
from tasks.data_rows import bucket
from tasks.data_set import SMILES_ROLES

# Rows of training, validation and test as they are at hand; None where the split is not there or only described.
ROWS: dict[str, tuple[int | None, int | None, int | None]] = {
    "bace": (1210, 151, 152),
    "bace-llm4sd": (1210, 151, 152),
    "bbbp": (1631, 204, 204),
    "bbbp-llm4sd": (1631, 204, 204),
    "bundled": (600, 100, 100),
    "bundled-dialogues": (160, 20, 20),
    "caption-pool": (8072, None, None),
    "chebi20": (10917, 3301, 3300),
    "chebi20-mm": (None, 3300, 3300),
    "chebi20-molecules": (26409, None, None),
    "chebi20-original": (1135, None, None),
    "chebi20-partial": (5443, None, None),
    "chembl-qa": (None, None, 12976),
    "chemllmbench-names": (500, None, 100),
    "clintox": (1184, 148, 148),
    "clintox-llm4sd": (1182, 148, 148),
    "esol": (902, 113, 113),
    "esol-llm4sd": (902, 113, 113),
    "freesolv": (513, 64, 65),
    "freesolv-llm4sd": (513, 64, 65),
    "gitmol": (3610, 451, 451),
    "hiv": (32896, 4112, 4112),
    "hiv-llm4sd": (32901, 4113, 4113),
    "iupac2struct": (40136, None, None),
    "lipophilicity": (3360, 420, 420),
    "lipophilicity-llm4sd": (3360, 420, 420),
    "lpm24-properties": (160560, None, None),
    "pcdes": (None, 1500, 3000),
    "pubchem324k-caption": (15236, 1000, 2000),
    "pubchem324k-iupac": (11981, 998, 1999),
    "pubchem324k-molecules": (12000, 1000, 2000),
    "qm9-frontier": (20826, 2603, 2603),
    "qm9-frontier-ev": (20826, 2603, 2603),
    "qm9-homo": (110000, 10000, 12477),
    "sider": (1141, 143, 143),
    "sider-llm4sd": (30807, 3861, 3861),
    "tox21": (6258, 782, 783),
    "tox21-llm4sd": (62353, 7793, 7800),
    "uspto-full": (None, 96092, 96027),
    "uspto-mit": (27028, 2972, 40000),
    "uspto15k": (10500, 1500, 3000),
    "uspto50k": (40029, 5004, 5004),
    "uspto50k-gln": (None, 5001, 5007),
}
UNREADABLE = {"bbbp": 11, "clintox": 4, "hiv": 7, "tox21": 8}  # SMILES that RDKit cannot parse
TAKES_LONG = {"hiv"}  # its scaffolds; `hiv@random` and `hiv-llm4sd` are read here


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, data_folder: Path, session_cache: Path) -> Catalogue:
    monkeypatch.setenv(locations.DATA_VARIABLE, str(data_folder))
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(session_cache))
    return Catalogue()


@pytest.fixture
def manifest(data_folder: Path) -> dict[str, dict[str, object]]:
    if not (data_folder / "manifest.json").exists():
        pytest.skip("the folder of real data has no manifest.json")
    listed = json.loads((data_folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return {each["path"]: each for each in listed}


@pytest.fixture
def own(tmp_path, monkeypatch) -> Callable[..., DataSet]:
    """Writes files and a YAML file, and gives the data set."""
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))

    def write(files: dict[str, str | bytes], **keys: object) -> DataSet:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys))
        return Catalogue().get(tmp_path / "mine.yaml")

    return write


def message(call: Callable[[], object]) -> str:
    with pytest.raises(TaskError) as caught:
        call()
    return str(caught.value)


def raw(folder: Path, file: str) -> list[dict[str, str]]:
    """The rows as the csv module reads them, past molgraft's own reader."""
    with gzip.open(folder / file, "rt", encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def everything(dataset: DataSet) -> list[Row]:
    return [row for split in dataset.splits for row in dataset.rows(split)[0]]


# The registry as a whole


def test_every_data_set_is_counted_here():
    assert Catalogue().names() == sorted(ROWS)


@pytest.mark.parametrize("name", sorted(ROWS.keys() - TAKES_LONG))
def test_rows(real, name):
    dataset = real.get(name)
    counts, left_out = [], 0
    for split in SPLITS:
        here = split in dataset.splits and dataset.present(split) is not None
        rows, rejections = dataset.rows(split) if here else ([], [])
        counts.append(len(rows) or None)
        left_out += len(rejections)
        assert len({row.id for row in rows}) == len(rows)
        assert not any("\\\\" in row.values.get(role, "") for row in rows for role in SMILES_ROLES)
    assert tuple(counts) == ROWS[name]
    assert left_out == UNREADABLE.get(name, 0)


@pytest.mark.parametrize("name", sorted(ROWS))
def test_descriptions_are_complete(name):
    """Every file has a hash, and every address names a commit, so what is downloaded is what was read."""
    dataset = Catalogue().get(name)
    description = dataset.description
    assert description.summary
    assert description.licence
    assert description.task
    assert set(description.units) <= set(description.questions)
    for sources in description.splits.values():
        for source in sources:
            assert source.sha256 or source.git_blob or name.startswith("bundled")
            assert source.rows or source.url or "molecul" in source.note or source.where, source.file
            if source.url is not None:
                assert re.match(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", source.url)
                assert source.git_blob is not None
    if description.task.startswith("property"):
        labels = set(description.columns) - {"id", "smiles", "task", "label"}
        if "task" not in description.columns and name != "lpm24-properties":
            assert labels == set(description.questions)


def test_descriptions_agree_with_the_manifest(manifest):
    """Hash, bytes and rows as the manifest of the data counts them."""
    seen = set()
    for name in Catalogue().names():
        for sources in Catalogue().get(name).description.splits.values():
            for source in sources:
                if source.file not in manifest:
                    continue
                seen.add(source.file)
                listed = manifest[source.file]
                assert (source.sha256, source.bytes) == (listed["sha256"], listed["bytes"])
                if not source.where and not source.fold:
                    assert source.rows == listed["rows"]
    assert len(seen) > 40


def test_every_file_of_the_manifest_is_described(manifest):
    assets = {asset.file: asset for asset in ASSETS}
    assert set(manifest) == set(manifest) & (assets.keys() | described_files(Catalogue()))
    for file, asset in assets.items():
        assert (asset.sha256, asset.bytes) == (manifest[file]["sha256"], manifest[file]["bytes"])
        assert asset.licence
        assert asset.what


def test_the_table_of_the_documentation():
    done = CliRunner().invoke(app, ["list", "--markdown"])
    written = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    assert done.stdout.strip() in written, "docs/data.md: paste the output of `molgraft data list --markdown`"


def test_substitutes_say_so(real):
    """A file that stands in for an official one says it in the listing and in a run's manifest."""
    marked = set()
    for name in real.names():
        for split, sources in real.get(name).description.splits.items():
            for source in sources:
                if source.substitute:
                    marked.add((name, split))
                    assert "substitute" in source.note or "biased part" in source.note or "one tenth" in source.note
    assert {("chebi20", "train"), ("pubchem324k-caption", "train"), ("uspto-mit", "train")} <= marked
    assert not any(split == "test" for _, split in marked)


# The traps of the files


@pytest.mark.parametrize(
    ("name", "split", "file", "column", "count"),
    [
        ("chebi20", "test", "chebi20/test.csv.gz", "SMILES", 484),
        ("chebi20", "validation", "chebi20/validation.csv.gz", "SMILES", 502),
        ("chebi20-molecules", "train", "chebi20/train_cid_smiles.csv.gz", "SMILES", 3979),
        ("chebi20-mm", "test", "chebi20_mm/test.csv.gz", "SMILES", 484),
        ("chebi20-partial", "train", "chebi20/train_partial.csv.gz", "SMILES", 546),
        ("gitmol@random", "train", "gitmol/captions.csv.gz", "isosmiles", 104),
        ("iupac2struct", "train", "iupac/iupac2struct.csv.gz", "smiles", 402),
        ("clintox@random", "train", "moleculenet/clintox.csv.gz", "smiles", 5),
    ],
)
def test_doubled_backslashes_are_read_as_one(real, data_folder, name, split, file, column, count):
    """The files write one backslash of a cis/trans bond twice; `test_rows` holds that no data set gives two on."""
    assert sum("\\\\" in row[column] for row in raw(data_folder, file)) == count
    held = [row.values["smiles"] for row in real.get(name).rows(split)[0]]
    assert any("\\" in smiles for smiles in held)
    assert not any("\\\\" in smiles for smiles in held)


def test_esol_labels_are_measured(real, data_folder):
    """The published split files are labelled with a model's prediction, which must never be read as the label."""
    predicted, measured = "ESOL predicted log solubility in mols per litre", "measured log solubility in mols per litre"
    table = raw(data_folder, "moleculenet/esol.csv.gz")
    published = raw(data_folder, "moleculenet/scaffold_split/esol.csv.gz")
    by_smiles = {row["smiles"]: row for row in table}
    assert all(float(row[predicted]) == pytest.approx(float(by_smiles[row["smiles"]][predicted])) for row in published)
    assert not any(row[predicted] == by_smiles[row["smiles"]][measured] for row in published)
    dataset = real.get("esol-llm4sd")
    rows = everything(dataset)
    assert len(rows) == 1128
    assert Counter(row.values["log_solubility"] for row in rows) == Counter(row[measured] for row in table)
    in_test = {row["smiles"].strip() for row in published if row["split"] == "test"}
    assert {row.values["smiles"] for row in dataset.rows("test")[0]} == in_test
    assert "from moleculenet/esol.csv.gz" in dataset.source("test").note


def test_tox21_has_a_split_for_each_assay(real):
    """182 molecules are in training for one assay and in test for another; `tox21` has one split for all."""
    from rdkit import Chem

    dataset = real.get("tox21-llm4sd")
    held: dict[str, set[str]] = {}
    spelt: dict[str, str] = {}
    for split in SPLITS:
        rows = dataset.rows(split)[0]
        assert {row.values["label"] for row in rows} == {"0", "1"}  # 0.0 and 1.0 in the file
        assert {row.values["task"] for row in rows} == set(dataset.description.questions)
        for smiles in {row.values["smiles"] for row in rows} - spelt.keys():
            molecule = Chem.MolFromSmiles(smiles)
            spelt[smiles] = Chem.MolToSmiles(molecule) if molecule is not None else smiles  # eight cannot be parsed
        held[split] = {spelt[row.values["smiles"]] for row in rows}
    assert len(held["train"] & held["test"]) == 182
    together = {split: {row.id for row in real.get("tox21").rows(split)[0]} for split in SPLITS}
    assert not together["train"] & together["test"]


def test_tox21_missing_labels_stay_empty(real):
    dataset = real.get("tox21@random")
    labels = [row.values[role] for row in everything(dataset) for role in dataset.description.questions]
    assert set(labels) == {"", "0", "1"}
    assert round(100 * labels.count("") / len(labels), 2) == 17.05


def test_sider_has_one_split_for_all_classes(real):
    held = {}
    for split in SPLITS:
        by_task: dict[str, set[str]] = {}
        for row in real.get("sider-llm4sd").rows(split)[0]:
            by_task.setdefault(row.values["task"], set()).add(row.values["smiles"])
        assert len(by_task) == 27
        assert len({frozenset(each) for each in by_task.values()}) == 1
        held[split] = next(iter(by_task.values()))
    assert not held["train"] & held["test"]


def test_hiv_labels_are_whole(real):
    rows = real.get("hiv-llm4sd").rows("test")[0]
    assert {row.values["HIV_active"] for row in rows} == {"0", "1"}
    at_random = everything(real.get("hiv@random"))
    assert len(at_random) == 41127
    assert round(100 * sum(row.values["HIV_active"] == "1" for row in at_random) / 41127, 2) == 3.51


@pytest.mark.slow
def test_the_two_splits_of_uspto50k_do_not_mix(real):
    """Most test products of GLN's split are in training of Liu's, so the two have names of their own.

    The manifest of the data counts 3,969: products written once after their atom maps were taken off, a spelling that
    is not always the canonical one. Read and written once more, 3,995 are found.
    """
    from rdkit import Chem

    def unmapped(smiles: str) -> str:
        molecule = Chem.MolFromSmiles(smiles)
        for atom in molecule.GetAtoms():
            atom.SetAtomMapNum(0)
        return Chem.MolToSmiles(molecule)

    reactions = [row.values["reaction"] for row in real.get("uspto50k-gln").rows("test")[0]]
    once = {unmapped(reaction.split(">")[-1]) for reaction in reactions}
    liu = {Chem.CanonSmiles(row.values["product"]) for row in real.get("uspto50k").rows("train")[0]}
    assert (len(once), len(once & liu)) == (5003, 3969)
    assert len({Chem.CanonSmiles(smiles) for smiles in once} & liu) == 3995
    assert not {"product", "reactants"} & real.get("uspto50k-gln").roles  # no task takes one for the other by accident


def test_uspto_mit_training_is_cut_from_validation_by_product(real, data_folder):
    rows = {split: real.get("uspto-mit").rows(split)[0] for split in SPLITS}
    products = {split: {row.values["product"] for row in rows[split]} for split in SPLITS}
    assert not products["train"] & products["validation"]
    table = raw(data_folder, "reactions/uspto_mit_forward.csv.gz")
    official = [row["product"] for row in table if row["split"] == "valid"]
    assert len(rows["train"]) + len(rows["validation"]) == len(official) == 30_000
    assert sum(bucket(each, 10) == 9 for each in official) == len(rows["validation"])
    assert sum(bool(row.values["reagents"]) for split in SPLITS for row in rows[split]) == 61_726
    assert sum(not row.values["product"] for split in SPLITS for row in rows[split]) == 1
    assert "sha256) into bucket 9 of 10" in real.get("uspto-mit").source("validation").note


def test_nitro_groups_of_reactions_can_be_parsed(real):
    """The separated MIT files of bigchem write O=N(O), which RDKit refuses; the files at hand must not."""
    from rdkit import Chem

    rows = real.get("uspto-mit").rows("test")[0]
    nitro = [row.values["product"] for row in rows if "[N+](=O)[O-]" in row.values["product"]]
    assert len(nitro) > 1000
    assert not any("O=N(O)" in row.values["product"] for row in rows)
    assert all(Chem.MolFromSmiles(smiles) is not None for smiles in nitro[:300])


def test_products_of_uspto15k_carry_no_maps(real):
    """So reagents cannot be told from reactants, and the data set offers no such columns."""
    rows = real.get("uspto15k").rows("test")[0]
    assert not any(re.search(r":\d+\]", row.values["reaction"].split(">")[-1]) for row in rows)
    assert all(re.search(r":\d+\]", row.values["reaction"].split(">")[0]) for row in rows)
    assert not {"reagents", "reactants", "product"} & real.get("uspto15k").roles


def test_chebi20_molecules_hold_two_more_than_published(real):
    """33,010 of MolReGPT's list against 33,008 published; validation and test are not among them."""
    numbers = {row.id for row in real.get("chebi20-molecules").rows("train")[0]}
    assert len(numbers) == 26_407 + 2
    held_out = {row.id for split in ("validation", "test") for row in real.get("chebi20").rows(split)[0]}
    assert not numbers & held_out
    assert {row.id for row in real.get("chebi20-partial").rows("train")[0]} <= numbers


def test_names_that_are_none_stay_in_the_file(real):
    dataset = real.get("pubchem324k-iupac")
    none = [sum(row.values["iupac"] == "None" for row in dataset.rows(split)[0]) for split in SPLITS]
    assert none == [124, 15, 13]


def test_wording_of_captions(real):
    """ChEBI-20 says `derives from`, later PubChem texts `is functionally related to`; only one part has the former."""
    original = real.get("chebi20-original").rows("train")[0]
    assert sum("functionally related" in row.values["caption"] for row in original) == 0
    partial = real.get("chebi20-partial").rows("train")[0]
    assert sum("functionally related" in row.values["caption"] for row in partial) > 300


def test_qm9_units(real):
    hartree = everything(real.get("qm9-frontier"))
    electronvolt = {row.id: row for row in everything(real.get("qm9-frontier-ev"))}
    assert len(hartree) == 26_032
    for row in hartree[::500]:
        for label in ("homo", "lumo", "gap"):
            in_ev = float(electronvolt[row.id].values[label])
            assert float(row.values[label]) == pytest.approx(in_ev / 27.211386245988, abs=1e-6)


# The check of whole roots


def test_verify_everything(real, data_folder, manifest):
    """All files of the manifest are as described, none is unknown, and the last line counts them."""
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == 0, done.stdout
    lines = done.stdout.splitlines()
    ok = {line.split(": ")[0].split()[-1] for line in lines if line.startswith("ok ")}
    assert set(manifest) <= ok | {"moleculenet/scaffold_split/esol.csv.gz"}
    assert not [line for line in lines if line.startswith(("failed", "unknown"))]
    assert re.match(r"\d+ checks; files: \d+ as described, ", lines[-1])


def test_verify_names_what_differs_and_what_is_unknown(data_folder, tmp_path, monkeypatch):
    root = tmp_path / "data"
    (root / "oracle_predictions").mkdir(parents=True)
    (root / "scibert_scivocab_uncased").mkdir()
    name = "scibert_scivocab_uncased/vocab.txt"
    shutil.copy(data_folder / name, root / name)
    (root / "oracle_predictions/t5_tokenizer.json.gz").write_bytes(b"not it")
    (root / "strange.bin").write_bytes(b"123")
    (root / "listed.csv").write_bytes(b"a\n")
    wrong = {"path": "listed.csv", "sha256": "0" * 64}
    (root / "manifest.json").write_text(json.dumps({"files": [wrong]}))
    monkeypatch.setenv(locations.DATA_VARIABLE, str(root))
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    assets = {check.file: check.status for check in check_assets()}
    assert assets[name] == "ok"
    assert assets["oracle_predictions/t5_tokenizer.json.gz"] == "failed"
    assert assets["nltk_data/corpora/wordnet.zip"] == "absent"
    further = {check.file: check.status for check in check_further(Catalogue())}
    assert further == {"listed.csv": "failed", "strange.bin": "unknown"}
    done = CliRunner().invoke(app, ["verify"])
    assert done.exit_code == 1
    assert "unknown strange.bin: 3 bytes" in done.stdout
    assert "2 NOT as described" in done.stdout.splitlines()[-1]
    done = CliRunner().invoke(app, ["verify", "--json"])
    statuses = Counter(each["status"] for each in json.loads(done.stdout))
    assert statuses["failed"] == 2
    (root / "manifest.json").write_text("[")
    assert {check.status for check in check_further(Catalogue())} == {"unknown"}


# The command line


def test_list_is_one_line_for_each(real):
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    assert len(lines) == len(ROWS) + 3
    assert max(map(len, lines)) <= 120
    by_name = {line.split()[0]: line for line in lines[1:-2]}
    assert by_name.keys() == ROWS.keys()
    assert "10,917* / 3,301 / 3,300" in by_name["chebi20"] or "+" in by_name["chebi20"]
    assert "scaffold split" in by_name["bace"]
    assert "part" in by_name["pcdes"] or "yes" in by_name["pcdes"]
    assert "SUBSTITUTE" in lines[-2]


def test_list_in_json(real):
    listed = {each["name"]: each for each in json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)}
    assert listed["uspto-mit"]["splits"]["train"]["substitute"]
    assert not listed["uspto-mit"]["splits"]["test"]["substitute"]
    assert (listed["bace"]["split_method"], listed["bace"]["rows"]) == ("scaffold", 1513)
    assert listed["bace"]["units"] == {"pIC50": ""}
    assert listed["bbbp"]["questions"] == {"p_np": "cross the blood-brain barrier"}


def test_show(real):
    said = CliRunner().invoke(app, ["show", "esol-llm4sd", "--rows", "1"]).stdout
    for part in ("measured log solubility", "[log mol/L]", "Apache-2.0", "train row train-1, line 2", "-2.06"):
        assert part in said
    shown = json.loads(CliRunner().invoke(app, ["show", "bace@random-5", "--json"]).stdout)
    assert (shown["name"], shown["split_method"], len(shown["first_rows"])) == ("bace@random-5", "random-5", 3)
    assert "label       nr-ar: activate" in CliRunner().invoke(app, ["show", "tox21-llm4sd", "--rows", "0"]).stdout
    failed = CliRunner().invoke(app, ["show", "bcae"])
    assert "did you mean 'bace'?" in str(failed.exception)


def test_show_without_data(tmp_path, monkeypatch):
    monkeypatch.delenv(locations.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path))
    done = CliRunner().invoke(app, ["show", "bace"])
    assert done.exit_code == 0
    assert "not here; molgraft data get bace" in done.stdout


# What a user's own file may state


def test_header_of_a_file_without_one(own):
    source = {"file": "mine.tsv", "header": ["SMILES", "number", "name"]}
    dataset = own({"mine.tsv": "C\t1\tmethane\nCC\t2\tethane\n"}, columns={"smiles": "SMILES"}, splits={"test": source})
    assert [(row.line, row.values["smiles"]) for row in dataset.rows("test")[0]] == [(1, "C"), (2, "CC")]
    short = own({"mine.tsv": "C\t1\n"}, columns={"smiles": "SMILES"}, splits={"test": source})
    assert "mine.tsv:1: 2 fields where the header has 3" in message(lambda: short.rows("test"))


def test_columns_of_another_file(own):
    files = {"mine.csv": "S,part\nC,test\nCC,test\nO,test\nN,test\n", "labels.csv": "S,y\nC,1\nCC,2\nCC,3\nN,4\nN,4\n"}
    join = {"file": "labels.csv", "by": "S", "columns": ["y"]}
    source = {"file": "mine.csv", "join": join, "rows": 4}
    dataset = own(files, columns={"smiles": "S", "y": "y"}, splits={"test": source})
    rows, rejections = dataset.rows("test")
    assert [(row.values["smiles"], row.values["y"]) for row in rows] == [("C", "1"), ("N", "4")]
    assert [(each.line, each.reason.split(" the S")[0]) for each in rejections] == [
        (3, "labels.csv has two values for"),
        (4, "labels.csv has no row for"),
    ]
    assert "y from labels.csv (sha256 " in dataset.source("test").note
    assert [check.message for check in dataset.verify()] == ["2 rows, 2 left out"]
    absent = own(
        {"mine.csv": "S\nC\n"},
        columns={"smiles": "S", "y": "y"},
        splits={"test": source | {"join": {**join, "file": "far.csv"}}},
    )
    assert "expected mine.csv with far.csv" in message(lambda: absent.rows("test"))


def test_a_fold_keeps_equal_values_together(own):
    lines = "".join(f"{'C' * (1 + number % 40)},{number}\n" for number in range(200))
    splits = {
        "train": {"file": "mine.csv", "fold": {"by": "S", "of": 4, "keep": [0, 1, 2]}},
        "test": {"file": "mine.csv", "fold": {"by": "S", "of": 4, "keep": [3]}},
    }
    dataset = own({"mine.csv": "S,n\n" + lines}, columns={"smiles": "S"}, splits=splits)
    held = {split: {row.values["smiles"] for row in dataset.rows(split)[0]} for split in dataset.splits}
    assert not held["train"] & held["test"]
    assert len(held["train"] | held["test"]) == 40


def test_questions_and_units(own):
    keys = {"columns": {"smiles": "S", "y": "y"}, "splits": {"test": "mine.csv"}}
    dataset = own({"mine.csv": "S,y\nC,1\n"}, **keys, questions={"y": "melting point"}, units={"y": "K"})
    assert (dataset.description.questions, dataset.description.units) == ({"y": "melting point"}, {"y": "K"})
    assert "units.z: no such role" in message(lambda: own({}, **keys, units={"z": "K"}))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "base: &b {smiles: S}\ncolumns:\n  <<: *b\nsplits: {test: a.csv}\n",
            [":3:", "merge keys (<<)", "write the keys out"],
        ),
        ("<<: [1]\ncolumns: {smiles: S}\n", [":1:", "merge keys"]),
        ("columns: {smiles: S}\nsplits: &a\n  test: *a\n", ["splits.test"]),
        ("columns: " + "[" * 5000, ["nested too deeply"]),
    ],
)
def test_yaml_that_is_not_plain(tmp_path, text, parts):
    (tmp_path / "mine.yaml").write_text(text)
    said = message(lambda: Catalogue().get(tmp_path / "mine.yaml"))
    for part in parts:
        assert part in said
    assert len(said) < 400


# Files that cannot be data


def test_a_file_that_would_fill_the_memory(own, tmp_path):
    dataset = own({}, columns={"smiles": "S"}, splits={"test": "mine.csv"})
    with (tmp_path / "mine.csv").open("wb") as file:
        file.truncate(2**30)  # a gigabyte that takes no room on the disk
    for call in (lambda: dataset.rows("test"), lambda: dataset.source("test")):
        said = message(call)
        assert "holds 1,073,741,824 bytes, more than the 536,870,912 that are read" in said
    assert [check.status for check in dataset.verify()] == ["failed"]


def test_a_packed_file_that_would_fill_the_memory(own, monkeypatch):
    packed = gzip.compress(b"S\n" + b"C\n" * 50_000)
    assert len(packed) < 1_000
    dataset = own({"mine.csv.gz": packed}, columns={"smiles": "S"}, splits={"test": "mine.csv.gz"})
    assert len(dataset.rows("test")[0]) == 50_000
    monkeypatch.setattr(data_files, "LIMIT", 50_000)
    assert "when unpacked" in message(lambda: dataset.rows("test"))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("S,t\nC,ä\n".encode() + "O,ö\n".encode("latin-1"), "mine.csv:3: byte 0xf6 is not UTF-8"),
        ("S,t\nC,ä\n".encode() + "O,ö\n".encode("utf-16-le"), "mine.csv:3: a NUL byte"),
        (b"S,t\n" + b"\0" * 100, "mine.csv:2: a NUL byte"),
        (bytes(range(1, 256)) * 10, "is not UTF-8"),
        (b"S;t\nC;a\n", "no column 'S'; there are 'S;t'"),
    ],
)
def test_files_of_another_kind(own, content, part):
    dataset = own({"mine.csv": content}, columns={"smiles": "S"}, splits={"test": "mine.csv"})
    said = message(lambda: dataset.rows("test"))
    assert part in said
    assert len(said) < 500


def test_real_folder_is_only_read(data_folder):
    """Nothing that these tests do may write where the real data are."""
    assert not list(data_folder.rglob("*.lock")) + list(data_folder.rglob("*.part"))
    assert os.fspath(data_folder)
