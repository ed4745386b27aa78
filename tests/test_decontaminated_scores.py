"""Scores without the examples whose molecules the training data hold: of files and of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import QUICK

from bench.cli import _status
from bench.experiment import run
from bench.preset import load_config
from bench.run_store import read_json
from bench.runtime import Runtime
from bench.scores import Without, rescore
from tasks.metrics.protocols import Strict

# Ethanol is in the training data below, spelt in another way; benzene and methane are not.
ROWS = "SMILES\toutput\treference\nC(O)C\tan alcohol\tan alcohol\nc1ccccc1\ta ring\ta ring\nC\tan acid\ta gas\n"


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("SMILES,text\nOCC,an alcohol\nCCCC,butane\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ncolumns: {smiles: SMILES, caption: text}\nsplits: {train: train.csv}\n"
    )
    path = tmp_path / "predictions.tsv"
    path.write_text(ROWS)
    return path


def score(*arguments: str) -> int:
    return _status(["score", "predictions.tsv", "--task", "caption", "--protocol", "strict", *arguments])


def test_a_file_is_scored_without_molecules_of_the_training_data(
    predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score("--without", "own.yaml/train", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    expected = Strict().score("caption", ["a ring", "an acid"], ["a ring", "a gas"]).metrics["rouge-1"].value
    assert found["n"] == 2
    assert found["metrics"]["rouge-1"]["value"] == expected
    assert (found["without"]["n"], found["without"]["n_left"], found["without"]["by"]) == (3, 2, "inchikey")
    assert found["without"]["against"][0]["data"] == "own.yaml/train"


def test_what_was_left_out_is_said(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score("--without", "own.yaml/train") == 0
    assert "1 of 3 rows are left out, whose molecules own.yaml/train holds" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--without", "own.yaml/train", "--by", "name"), "--by name: unknown; it is one of canonical, inchikey"),
        (("--without", "nothing/train"), "no data set 'nothing'"),
        (("--without", "own.yaml/test"), "test"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...], message: str, predictions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_without_molecules_is_refused(predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions.write_text(ROWS.replace("SMILES", "what"))
    assert score("--without", "own.yaml/train") == 2
    assert "name their column with --molecule-column" in capsys.readouterr().err


def test_a_run_is_scored_without_what_it_was_trained_on(tmp_path: Path, session_cache: Path) -> None:
    for split, smiles in (("train", ["CO", "CCO", "CCCO"] * 8), ("validation", ["CCN"]), ("test", ["OCC", "CN", "CS"])):
        lines = [f"{molecule},an example {number}" for number, molecule in enumerate(smiles)]
        (tmp_path / f"{split}.csv").write_text("SMILES,text\n" + "\n".join(lines) + "\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ncolumns: {smiles: SMILES, caption: text}\n"
        "splits: {train: train.csv, validation: validation.csv, test: test.csv}\n"
    )
    config = load_config("demo", [*QUICK, f"task.data={tmp_path / 'own.yaml'}"])
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")
    folder = run(config, runtime).run.path
    before = read_json(folder / "result.json")["evaluations"][0]["scores"]
    for _ in range(2):  # the second time replaces the first
        (entry,) = rescore(folder, [Strict()], Without(("training",)))
    assert entry["scores"] == before
    (kept,) = entry["decontaminated"]
    assert (kept["n"], kept["without"]["n"]) == (2, 3)
    assert kept["without"]["against"][0]["data"].endswith("own.yaml/train")
    assert kept["score_id"] != before[0]["score_id"]
    again = run(config, runtime)
    assert again.summary["evaluations"][0]["decontaminated"] == [kept]
