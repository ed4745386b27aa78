"""The built-in data sets: real rows where the data are at hand, their descriptions, and the command line."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.command_data import app
from tasks import locations
from tasks.base import TaskError
from tasks.data import Catalogue
from tasks.data_files import digest

BUILT_IN = Path(__file__).parent.parent / "tasks" / "datasets"


def real_data() -> Path | None:
    chosen = os.environ.get(locations.DATA_VARIABLE)
    places = [Path(chosen).expanduser()] if chosen else []
    places.append(Path(__file__).resolve().parents[2] / "shared" / "data")
    return next((place for place in places if (place / "chebi20").is_dir()), None)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    found = real_data()
    if found is None:
        pytest.skip("no real data: set MOLGRAFT_DATA to a folder that holds chebi20/ and caption_pool/")
    monkeypatch.setenv(locations.DATA_VARIABLE, str(found))
    return Catalogue()


@pytest.fixture
def empty_roots(tmp_path, monkeypatch) -> Path:
    """A machine on which nothing is at hand."""
    monkeypatch.delenv(locations.DATA_VARIABLE, raising=False)
    monkeypatch.setenv(locations.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def message(call: Callable[[], object]) -> str:
    with pytest.raises(TaskError) as caught:
        call()
    return str(caught.value)


# Real data


def test_chebi20_counts(real):
    dataset = real.get("chebi20")
    counts = {split: len(dataset.rows(split)[0]) for split in dataset.splits}
    train = 26407 if "official" in dataset.source("train").note.split(" for ")[0] else 10917
    assert counts == {"train": train, "validation": 3301, "test": 3300}
    assert all(check.status in ("ok", "absent") for check in dataset.verify())


def test_chebi20_backslashes_are_undoubled(real):
    with gzip.open(real_data() / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        raw = [row["SMILES"] for row in csv.DictReader(file)]
    assert sum("\\\\" in smiles for smiles in raw) == 484
    for split in ("train", "validation", "test"):
        rows, rejections = real.get("chebi20").rows(split)
        assert not rejections
        assert not any("\\\\" in row.values["smiles"] for row in rows)
    assert [row.values["smiles"].replace("\\", "") for row in rows] == [smiles.replace("\\", "") for smiles in raw]


def test_no_evaluation_molecule_in_substitute_training(real):
    """By the rule that made the flags (canonical SMILES or first block of the InChIKey), checked without the flags."""
    with gzip.open(real_data() / "caption_pool" / "caption_pool.csv.gz", "rt", encoding="utf-8", newline="") as file:
        pool = list(csv.DictReader(file))
    for name, source in [("chebi20", "ChEBI-20"), ("pubchem324k-caption", "PubChem324k")]:
        if "substitute" not in real.get(name).source("train").note:
            pytest.skip("the official training file is here")
        held_out = [row for row in pool if row["source"] == source]
        canonical = {row["canonical_smiles"] for row in held_out} - {""}
        skeletons = {row["inchikey_block1"] for row in held_out} - {""}
        rows, _ = real.get(name).rows("train")
        taken = {int(row.id.removeprefix("train-")) for row in rows}
        assert len(taken) == len(rows) > 10_000
        for number, row in enumerate(pool, start=1):
            if number in taken:
                assert row["canonical_smiles"] not in canonical
                assert row["inchikey_block1"] not in skeletons


def test_the_other_real_sets(real):
    pubchem = real.get("pubchem324k-caption")
    assert [len(pubchem.rows(split)[0]) for split in ("validation", "test")] == [1000, 2000]
    assert len(real.get("caption-pool").rows("train")[0]) == 8072


def test_line_numbers_of_real_rows(real):
    """The pool holds a text that runs over a line break, so its lines and rows differ."""
    rows, _ = real.get("caption-pool").rows("train")
    with gzip.open(rows[0].file, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        assert row.values["smiles"].replace("\\", "") in lines[row.line - 1].replace("\\", "")


def test_another_official_training_file_is_refused(real, tmp_path, monkeypatch):
    (tmp_path / "chebi20").mkdir()
    (tmp_path / "chebi20" / "train.txt").write_text("CID\tSMILES\tdescription\n1\tC\tmethane\n")
    monkeypatch.setenv(locations.DATA_VARIABLE, str(tmp_path))
    said = message(lambda: real.get("chebi20").rows("train"))
    assert "c1b42b82fdc8fb5287614e159196e25370763aac" in said
    assert digest((tmp_path / "chebi20" / "train.txt").read_bytes()).git_blob in said


# Built-in descriptions, without data


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.yaml")), ids=lambda path: path.stem)
def test_built_in_descriptions(path):
    dataset = Catalogue().get(path.stem)
    assert dataset.name == path.stem
    assert dataset.description.summary
    assert dataset.description.licence
    for sources in dataset.description.splits.values():
        assert all(source.sha256 or source.git_blob or path.stem.startswith("bundled") for source in sources)
        assert all(re.search(r"/[0-9a-f]{40}/", source.url) for source in sources if source.url)  # a commit


def test_blob_hash_is_git_s(tmp_path):
    (tmp_path / "file").write_bytes(b"what is up, doc?")
    assert digest(b"what is up, doc?").git_blob == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the Git book's example


def test_missing_data_says_what_where_and_how(empty_roots):
    said = message(lambda: Catalogue().get("chebi20").rows("test"))
    for part in ("chebi20/test.csv.gz or chebi20/test.txt", str(empty_roots), "molgraft data get chebi20"):
        assert part in said
    assert "$MOLGRAFT_DATA is not set" in said
    said = message(lambda: Catalogue().get("caption-pool").rows("train"))
    assert "no public address" in said
    assert "set MOLGRAFT_DATA" in said


def test_unknown_names():
    assert "did you mean 'chebi20'?" in message(lambda: Catalogue().get("chebi-20"))
    assert "bundled, bundled-dialogues, caption-pool, chebi20," in message(lambda: Catalogue().get("zzz"))
    assert "no file nowhere.yaml" in message(lambda: Catalogue().get("nowhere.yaml"))
    assert "no split 'validation'" in message(lambda: Catalogue().get("caption-pool").rows("validation"))


def test_import_is_light():
    heavy = ["torch", "pandas", "numpy", "rdkit", "rich", "transformers", "filelock"]
    code = f"import sys, tasks.data as d; d.Catalogue().names(); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The command line


def test_command_list(real):
    done = CliRunner().invoke(app, ["list", "--json"])
    listed = {each["name"]: each for each in json.loads(done.stdout)}
    assert listed["bundled"]["present"]
    assert listed["chebi20"]["splits"]["test"]["rows"] == 3300
    assert listed["chebi20"]["splits"]["test"]["downloadable"]
    assert not listed["caption-pool"]["splits"]["train"]["downloadable"]
    assert "chebi20: ChEBI-20" in CliRunner().invoke(app, ["list", "--long"]).stdout


def test_command_list_without_data(empty_roots):
    done = CliRunner().invoke(app, ["list", "--long"])
    assert done.exit_code == 0
    assert "not here; molgraft data get chebi20" in done.stdout


def test_command_verify(empty_roots, tmp_path):
    run = CliRunner().invoke
    assert run(app, ["verify"]).exit_code == 0  # what is not here does not differ
    assert run(app, ["verify", "bundled"]).exit_code == 0
    done = run(app, ["verify", "chebi20", "--json"])
    assert done.exit_code == 1
    assert {each["status"] for each in json.loads(done.stdout)} == {"missing"}
    (tmp_path / "mine.csv").write_text("SMILES,text\nC\n")
    (tmp_path / "mine.yaml").write_text("columns: {smiles: SMILES}\nsplits: {test: mine.csv}\n")
    done = run(app, ["verify", str(tmp_path / "mine.yaml")])
    assert done.exit_code == 1
    assert "mine.csv:2" in done.stdout


def test_command_get(empty_roots):
    assert "bundled: everything is here" in CliRunner().invoke(app, ["get", "bundled"]).stdout
    failed = CliRunner().invoke(app, ["get", "chebi2"])
    assert isinstance(failed.exception, TaskError)
