"""Facts that stand beside scores: what they say of molecules, and that they are written once, whole, and by any run."""

from __future__ import annotations

import gzip
import json
import math
import re
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from bench.experiment import run
from bench.facts import FOLDER, Asked, asked_of, training_molecules, write_facts, write_novelty
from bench.preset import load_config
from bench.run_store import read_json, read_jsonl, write_json
from bench.runtime import Runtime
from bench.scores import rescore
from tasks.audit_keys import KeyStore
from tasks.base import Example, Turn, slot
from tasks.data import Catalogue
from tasks.depiction import as_svg, read_molecule
from tasks.example_facts import compact, facts_of_molecule, novelty_of, question_of
from tasks.reaction_retrosynthesis import Retrosynthesis

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
STEROID = "C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O"
BUNDLED = (ASPIRIN, "C[C@H](N)C(=O)O", "CCCCO", "c1ccc2ccccc2c1", "[Na+].[Cl-]", "C1CC")


def quiet(tmp_path: Path, **changes: Any) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=tmp_path / "cache", progress=False, **changes)


def facts_in(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


def asked(molecules: Sequence[str]) -> list[Asked]:
    return [Asked(f"e{place}", (smiles,)) for place, smiles in enumerate(molecules)]


# Molecules


def test_what_is_told_of_a_molecule() -> None:
    facts = facts_of_molecule(ASPIRIN)
    assert {**facts, "svg": ""} == {
        "smiles": ASPIRIN,
        "atoms": 13,
        "scaffold": "c1ccccc1",
        "groups": ["carboxylic acid", "ester", "aromatic ring"],
        "svg": "",
    }
    assert facts_of_molecule("CCCCO")["scaffold"] == ""
    mapped = facts_of_molecule("[cH:1]1[cH:2][cH:3][cH:4][cH:5][c:6]1[CH3:7]")
    assert mapped["scaffold"] == "c1ccccc1"


@pytest.mark.parametrize(
    "smiles",
    ["", "   ", "C1CC", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\0CC", "c1ccccc1>>C", "\ud800"],
)
def test_what_is_no_molecule_has_no_facts(smiles: str) -> None:
    facts = facts_of_molecule(smiles)
    assert [facts[name] for name in ("atoms", "scaffold", "groups", "svg")] == [None] * 4
    assert facts["problem"]


def test_no_molecule_hangs_or_ends_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGRAFT_RDKIT_SECONDS", "5")
    nobody_draws_it = facts_of_molecule("C" * 700)
    assert (nobody_draws_it["atoms"], nobody_draws_it["svg"]) == (700, None)
    for strange in ("[U]" + "(C)" * 60, "C" * 200_000, "C1" * 3000, "(" * 50_000):
        facts_of_molecule(strange)
    assert facts_of_molecule("CO")["atoms"] == 2


@pytest.mark.parametrize("smiles", [*BUNDLED[:5], "*C", "[CH3]", "[13CH4]", "C[Fe](C)(C)", "CC(C)C |$<b>;;R$|"])
def test_pictures_hold_paths_and_nothing_that_a_page_could_run_or_fetch(smiles: str) -> None:
    svg = facts_of_molecule(smiles)["svg"]
    if "|" in smiles:  # labels behind a blank are no part of a structure, and are not drawn
        assert svg is None
        return
    root = ElementTree.fromstring(svg)
    assert {element.tag.partition("}")[2] for element in root.iter()} <= {"svg", "path"}
    names = {name for element in root.iter() for name in element.attrib}
    assert names <= {"viewBox", "role", "aria-label", "d", "fill", "stroke", "stroke-width"}
    assert svg.count("<path") < 20


def test_compact_pictures_have_every_line_of_the_original() -> None:
    for smiles in (*BUNDLED[:5], STEROID):
        original = as_svg(read_molecule(smiles), embedded=True)
        small = compact(original)
        lines = [sorted(" ".join(re.findall(r" d=['\"]([^'\"]*)", svg)).split()) for svg in (original, small)]
        assert lines[0] == lines[1]
        assert len(small) < len(original)
    assert len(small) < 0.6 * len(original)


def test_hydrogens_of_stereocentres_stand_beside_their_atoms() -> None:
    """A steroid's ring hydrogens once lay on top of the carbon atoms that bear them."""
    drawn = as_svg(read_molecule(STEROID), embedded=True)
    carbons = range(Chem.MolFromSmiles(STEROID).GetNumAtoms())
    hydrogens = 0
    for number, letter in re.findall(r"<path class='atom-(\d+)' d='([^']*)' fill=", drawn):
        if int(number) in carbons:
            continue
        hydrogens += 1
        outline = points(letter)
        x, y = (sum(values) / len(outline) for values in zip(*outline, strict=True))
        bonds = re.findall(r"<path class='bond-\d+ atom-(\d+) atom-(\d+)' d='([^']*)'", drawn)
        ends = [end for one, other, d in bonds if int(one) in carbons and int(other) in carbons for end in points(d)]
        assert min(math.dist((x, y), end) for end in ends) > 6
    assert hydrogens


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+)[ ,](-?[\d.]+)", path)]


def test_a_question_in_words() -> None:
    answer = Turn("assistant", "yes", supervised=True)
    one = Example("a", (ASPIRIN,), (Turn("system", "You know."), Turn("user", f"{slot(0)}\nWhat is it?"), answer))
    two = Example("b", ("CC", "CO"), (Turn("user", f"{slot(0, 'graph')} or {slot(1)}?"), answer))
    assert question_of(one) == "[molecule]\nWhat is it?"
    assert question_of(two) == "[molecule 1] or [molecule 2]?"
    assert question_of(Example("c", (), (answer,))) == ""


# Novelty


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KeyStore:
    return KeyStore(tmp_path_factory.mktemp("keys"), workers=1)


def test_how_new_molecules_are(store: KeyStore) -> None:
    training = ["OC(=O)c1ccccc1", "C[C@@H](N)C(=O)O", "CCO"]
    examples = {
        "known": ["c1ccc(cc1)C(O)=O"],
        "its mirror image": ["C[C@H](N)C(=O)O"],
        "known scaffold": ["Cc1ccccc1"],
        "new scaffold": ["c1ccc2ccccc2c1"],
        "new and without rings": ["CCCCCC"],
        "none": ["C1CC"],
        "two, one new": ["OCC", "CCCCCC"],
        "two known": ["OCC", "OC(=O)c1ccccc1"],
        "no molecule": [],
    }
    found = novelty_of(examples, training, store, lambda molecules, what: molecules)
    seen = {name: (novelty.scaffold_seen, novelty.molecule_seen) for name, novelty in found.items()}
    assert seen == {
        "known": (True, True),
        "its mirror image": (True, True),
        "known scaffold": (True, False),
        "new scaffold": (False, False),
        "new and without rings": (False, False),
        "none": (False, False),
        "two, one new": (False, False),
        "two known": (True, True),
        "no molecule": (False, False),
    }
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    bits = {smiles: generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in ("Cc1ccccc1", *training)}
    alike = [DataStructs.TanimotoSimilarity(bits["Cc1ccccc1"], bits[smiles]) for smiles in training]
    assert found["known scaffold"].nearest == max(alike)
    assert found["known"].nearest == found["two known"].nearest == 1.0
    assert found["two, one new"].nearest == found["new and without rings"].nearest
    assert (found["none"].nearest, found["no molecule"].nearest) == (None, None)


# Files


def test_facts_are_written_once_and_the_same_each_time(tmp_path: Path) -> None:
    runtime = quiet(tmp_path)
    folder = tmp_path / "a"
    examples = [*asked(BUNDLED), Asked("r", ("CCO", ASPIRIN), "from [molecule 1]?")]
    name = write_facts(folder, "abc", examples, runtime)
    assert name == "abc.jsonl.gz"
    rows = facts_in(folder / name)
    assert [row["example_id"] for row in rows] == [*(f"e{place}" for place in range(6)), "r"]
    assert [molecule["atoms"] for molecule in rows[-1]["molecules"]] == [3, 13]
    assert (rows[-1]["question"], "question" in rows[0]) == ("from [molecule 1]?", False)
    (unread,) = rows[5]["molecules"]
    assert unread == {**dict.fromkeys(unread), "smiles": "C1CC", "problem": "cannot be parsed by RDKit"}
    assert sorted(path.suffix for path in folder.iterdir()) == [".gz", ".lock"]
    written = (folder / name).stat().st_mtime_ns
    write_facts(folder, "abc", asked(["CCC"]), runtime)
    assert (folder / name).stat().st_mtime_ns == written
    again = write_facts(tmp_path / "b", "abc", examples, runtime)
    assert (tmp_path / "b" / again).read_bytes() == (folder / name).read_bytes()


def test_molecules_that_cannot_be_read_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_facts(tmp_path, "abc", asked(BUNDLED), replace(quiet(tmp_path), progress=True))
    assert "1 of 6 molecules cannot be read and have no facts" in capsys.readouterr().err


_KILLED = """
import os, signal, sys
from pathlib import Path
import bench.facts
from bench.runtime import Runtime
bench.facts._SAVE_EVERY = 0.0
done = 0
def heartbeat():
    global done
    done += 1
    if done > 20:
        os.kill(os.getpid(), signal.SIGKILL)
molecules = ["C" * size for size in range(1, 41)]
asked = [bench.facts.Asked(str(place), (smiles,)) for place, smiles in enumerate(molecules)]
bench.facts.write_facts(Path(sys.argv[1]), "abc", asked, Runtime(progress=False, heartbeat=heartbeat))
"""


def test_a_kill_in_the_middle_leaves_nothing_torn_and_costs_little(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "facts")]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == -signal.SIGKILL
    partial = tmp_path / "facts" / "abc.part.jsonl"
    assert not (tmp_path / "facts" / "abc.jsonl.gz").exists()
    assert len(read_jsonl(partial)) == 20
    with partial.open("ab") as file:
        file.write(b'{"smiles": "CCCCCCCCCCCCCCC')  # as a power cut leaves it
    beats: list[None] = []
    molecules = ["C" * size for size in range(1, 41)]
    runtime = quiet(tmp_path, heartbeat=lambda: beats.append(None))
    name = write_facts(tmp_path / "facts", "abc", asked(molecules), runtime)
    assert len(beats) == 20, "what the killed process did is not done again"
    assert not partial.exists()
    whole = write_facts(tmp_path / "whole", "abc", asked(molecules), quiet(tmp_path))
    assert (tmp_path / "facts" / name).read_bytes() == (tmp_path / "whole" / whole).read_bytes()


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    beats: list[None] = []

    def heartbeat() -> None:
        beats.append(None)
        if len(beats) > 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_facts(tmp_path, "abc", asked(["C" * size for size in range(1, 11)]), quiet(tmp_path, heartbeat=heartbeat))
    assert len(read_jsonl(tmp_path / "abc.part.jsonl")) == 7
    assert not (tmp_path / "abc.jsonl.gz").exists()


def test_of_several_processes_one_writes_and_the_others_wait(tmp_path: Path) -> None:
    beats: list[int] = []
    molecules = ["C" * size for size in range(1, 31)]

    def work(number: int) -> None:
        runtime = quiet(tmp_path, heartbeat=lambda: beats.append(number))
        assert write_facts(tmp_path / "facts", "abc", asked(molecules), runtime) == "abc.jsonl.gz"

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(beats.count(number) for number in range(3)) >= 30
    assert sum(beats.count(number) >= 30 for number in range(3)) == 1
    assert len(facts_in(tmp_path / "facts" / "abc.jsonl.gz")) == 30


def test_novelty_is_named_by_the_training_molecules(tmp_path: Path) -> None:
    runtime = quiet(tmp_path)
    one = write_novelty(tmp_path, "abc", asked(["CCO"]), ["OCC", "CC"], runtime)
    assert one == write_novelty(tmp_path, "abc", asked(["CCO"]), ["CC", "OCC", "CC"], runtime)
    other = write_novelty(tmp_path, "abc", asked(["CCO"]), ["CC"], runtime)
    assert re.fullmatch(r"abc\.[0-9a-f]{16}\.json", one)
    assert read_json(tmp_path / one) == {"e0": {"scaffold_seen": True, "molecule_seen": True, "nearest": 1.0}}
    assert read_json(tmp_path / other)["e0"]["molecule_seen"] is False
    assert other != one


def test_reactions_have_the_facts_of_all_their_molecules(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    examples, _ = Retrosynthesis(data="uspto50k").examples("test", Catalogue())
    for example in asked_of(examples[:20]):
        assert example.question
        assert "\ufffc" not in example.question
        for smiles in example.molecules:
            assert facts_of_molecule(smiles)["atoms"]


# Runs


def test_a_run_writes_facts_once_for_all_and_an_older_one_gets_them_later(tmp_path: Path, session_cache: Path) -> None:
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")
    config = load_config("demo", QUICK)
    result = run(config, runtime)
    (entry,) = result.summary["evaluations"]
    folder = runtime.runs / FOLDER
    assert entry["facts"] == f"{entry['examples_id']}.jsonl.gz"
    questions = read_jsonl(result.run.questions_file(entry["predict_id"]))
    rows = facts_in(folder / entry["facts"])
    assert [row["example_id"] for row in rows] == [row["example_id"] for row in questions]
    assert [[m["smiles"] for m in row["molecules"]] for row in rows] == [row["molecules"] for row in questions]
    assert all(row["question"].startswith("[molecule]") for row in rows)
    novelty = read_json(folder / entry["novelty"])
    assert list(novelty) == [row["example_id"] for row in rows]
    assert all(0 <= each["nearest"] <= 1 for each in novelty.values())

    # A run of an older version: the same, without facts.
    file = result.run.result_file
    older = read_json(file)
    for known in older["evaluations"]:
        del known["facts"], known["novelty"]
    write_json(file, older)
    kept = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}
    for path in folder.iterdir():
        path.unlink()
    (again,) = rescore(result.run.path, None, runtime=runtime)
    assert (again["facts"], again["novelty"]) == (entry["facts"], entry["novelty"])
    assert read_json(file) == result.summary
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"} == kept

    # Data that are not there any more, and a folder that cannot be written: scores stand, facts say what they can.
    for path in folder.iterdir():
        path.unlink()
    written = result.run.config_file.read_text()
    result.run.config_file.write_text(written.replace("data: bundled", "data: /nowhere.yaml"))
    (without,) = rescore(result.run.path, None, runtime=runtime)
    assert (without["facts"], without["novelty"]) == (entry["facts"], None)
    assert [row["molecules"] for row in facts_in(folder / entry["facts"])] == [row["molecules"] for row in rows]
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    (without,) = rescore(result.run.path, None, runtime=runtime)
    assert (without["facts"], without["novelty"]) == (None, None)
    assert without["scores"] == entry["scores"]


def test_training_molecules_are_those_of_all_stages() -> None:
    turns = (Turn("user", "?"), Turn("assistant", "x", supervised=True))
    examples = [Example(str(place), (smiles,), turns) for place, smiles in enumerate(("C", "CC", "C"))]
    assert training_molecules([examples[:1], examples]) == ["C", "CC"]
