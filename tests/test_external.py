"""Predictions of other systems among the runs, beside a real run; and boards out of an MLflow store."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from bench.cli import _status
from bench.errors import UserError
from bench.experiment import run as run_experiment
from bench.external_questions import questions_of_data, questions_of_file, rows_by_id, rows_by_reference
from bench.preset import load_config
from bench.runtime import Runtime
from bench.tracking import synchronise
from bench.tracking.reading import read_tracked
from results.leaderboard import Leaderboard, as_html, build
from results.runs import read_runs
from tasks.base import TaskError
from tasks.metrics.base import RowFacts
from tasks.scoring import Pairing, pair
from tasks.table_files import read_table

HOSTILE = "<img src=x onerror=alert(1)>"
DATA = Path(os.environ.get("MOLGRAFT_DATA") or Path(__file__).parent.parent.parent / "shared" / "data")
ORACLES = DATA / "oracle_predictions"


def board_of(runs: Path, **options: Any) -> Leaderboard:
    return build(read_runs([runs]), **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    runtime = Runtime(runs=tmp_path_factory.mktemp("runs"), cache=session_cache, progress=False, tracking="none")
    run_experiment(load_config("demo", [*QUICK, "evaluation.reliance=null"]), runtime)
    return runtime.runs


def questions(runs: Path) -> tuple[Path, list[dict[str, Any]]]:
    (folder,) = [run.folder for run in read_runs([runs]) if not run.external]
    (file,) = folder.glob("predictions/*.questions.jsonl")
    return folder, [json.loads(line) for line in file.read_text().splitlines()]


def entered(runs: Path, name: str) -> Any:
    (run,) = [run for run in read_runs([runs]) if run.name == name]
    return run


def test_external_predictions_stand_beside_a_run_of_the_same_examples(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, asked = questions(runs)
    lines = [{"id": row["example_id"], "output": row["reference"]} for row in reversed(asked)]
    file = tmp_path / "perfect.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["score", str(file), "--task", "caption", "--protocol", "strict", "--runs", str(runs)]
    command += ["--enter", HOSTILE, "--like", str(folder), "--join", "id"]
    assert _status(command) == 0
    assert "meteor 1.0000" in capsys.readouterr().out
    assert _status([*command, "--json"]) == 0  # again: nothing changes
    assert json.loads(capsys.readouterr().out)[0]["scores"][0]["metrics"]["bleu-2"]["value"] == 1.0
    run = entered(runs, HOSTILE)
    assert run.external
    assert run.seed is None
    assert HOSTILE not in run.folder.name
    (board,) = board_of(runs).boards
    assert (board.rows[0].name, board.rows[0].external) == (HOSTILE, True)
    assert len(board.rows) == 2
    assert board.test_metric == "meteor"
    assert board.rows[0].examples is not None
    assert board.rows[1].examples is not None
    assert _status(["score", str(run.folder), "--protocol", "facts"]) == 0  # scored again like any run
    capsys.readouterr()
    facts = [board for board in board_of(runs).boards if board.protocol.startswith("facts")]
    assert [[row.name for row in board.rows] for board in facts] == [[HOSTILE]]
    lines[0]["output"] = "another answer"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert _status(command) == 2
    assert "holds other predictions of that name" in capsys.readouterr().err


def test_a_store_gives_the_boards_of_the_runs_that_it_mirrors(runs: Path, tmp_path: Path) -> None:
    own = tmp_path / "runs"
    own.mkdir()
    (folder,) = [run.folder for run in read_runs([runs]) if not run.external]
    shutil.copytree(folder, own / folder.name)
    store = f"sqlite:///{own / 'mlflow.db'}"
    assert synchronise(Runtime(runs=own, tracking=store, progress=False)).created == 1
    live = board_of(own).boards[0]
    for prefer_folders in (True, False):
        (board,) = build(read_tracked(store, own, prefer_folders=prefer_folders)).boards
        assert (board.identity, board.n, board.ranked) == (live.identity, live.n, True)
        assert board.rows[0].metrics == live.rows[0].metrics
        assert (board.test_metric is not None) == prefer_folders  # values by example are not in a store
    shutil.rmtree(own / "mlflow-artifacts")
    leaderboard = build(read_tracked(store, own, prefer_folders=False))
    (board,) = leaderboard.boards
    assert (board.task, board.data, board.split, board.protocol) == (live.task, live.data, live.split, live.protocol)
    assert (board.n, board.ranked, board.ranks) == (0, False, [None])
    (row,), (known,) = board.rows, live.rows
    assert (row.name, row.encoder, row.projector, row.seeds) == (
        known.name,
        known.encoder,
        known.projector,
        known.seeds,
    )
    for name, figure in known.metrics.items():
        found = row.metrics[name]
        assert (found and found.mean) == (figure and figure.mean)
        assert not (found and found.ci95)
    assert "it is not known which examples" in as_html(leaderboard)
    with pytest.raises(UserError, match="no run"):
        read_tracked(empty_store(tmp_path), own)


def empty_store(folder: Path) -> str:
    from mlflow import MlflowClient

    address = f"sqlite:///{folder / 'empty.db'}"
    MlflowClient(address).search_experiments()
    return address


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[:-1], "without a row"),
        (lambda rows: [*rows, {**rows[0], "id": "new"}], "rows that are no example"),
        (lambda rows: [*rows, rows[0]], "stands in two rows"),
    ],
)
def test_rows_that_are_not_the_examples_are_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, why: str
) -> None:
    folder, asked = questions(runs)
    rows = change([{"id": row["example_id"], "output": "x"} for row in asked])
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["score", str(file), "--task", "caption", "--protocol", "strict", "--runs", str(tmp_path / "runs")]
    assert _status([*command, "--enter", "x", "--like", str(folder), "--join", "id"]) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_gold_answers_in_any_order_find_their_examples(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, asked = questions(runs)
    file = tmp_path / "shuffled.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("smiles", "reference", "prediction"))
        for row in sorted(asked, key=lambda row: row["reference"]):
            writer.writerow((row["molecules"][0], f" {row['reference']} ", f"answer to {row['example_id']}"))
    command = ["score", str(file), "--task", "caption", "--protocol", "strict", "--runs", str(tmp_path / "runs")]
    assert _status([*command, "--enter", "shuffled", "--like", str(folder)]) == 0
    (answers,) = [
        f for f in entered(tmp_path / "runs", "shuffled").folder.glob("predictions/*") if "quest" not in f.name
    ]
    found = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [(row["example_id"], row["text"]) for row in found] == [
        (row["example_id"], f"answer to {row['example_id']}") for row in asked
    ]
    capsys.readouterr()


def test_a_file_of_its_own_examples_shares_a_board_with_another_of_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, shift in (("one", 0.3), ("two", 0.0), ("three", 0.1)):
        with gzip.open(tmp_path / f"{name}.csv.gz", "wt") as out:
            out.write("prediction,reference,p\n")
            for number in range(24):
                label = "Yes" if number % 3 == 0 else "No"
                reference = "No" if name == "three" and number == 0 else label
                out.write(f"{label if number % 4 else 'No'},{reference},{number / 40 + shift}\n")
        command = ["score", str(tmp_path / f"{name}.csv.gz"), "--task", "classification", "--protocol", "strict"]
        command += ["--probability-column", "p", "--enter", name, "--runs", str(tmp_path / "runs")]
        assert _status(command) == 0
    capsys.readouterr()
    boards = board_of(tmp_path / "runs").boards
    assert sorted(sorted(row.name for row in board.rows) for board in boards) == [["one", "two"], ["three"]]
    (shared,) = [board for board in boards if len(board.rows) == 2]
    assert shared.rank_by == "roc-auc"
    one, two = (next(row for row in shared.rows if row.name == name).metrics["roc-auc"] for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert one.mean == pytest.approx(two.mean)  # a shift changes no order of probabilities


def test_mistakes_in_entering_are_user_errors(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prediction,reference\nx,y\n")
    start = ["score", str(file), "--task", "caption", "--protocol", "strict", "--runs", str(tmp_path / "runs")]
    for wrong, why in (
        (["--data", "bundled"], "give --enter NAME"),
        (["--enter", " "], "a name is needed"),
        (["--enter", "x", "--like", str(tmp_path)], "is no finished run"),
        (["--enter", "x", "--data", "no-such-data"], "no-such-data"),
        (["--enter", "x", "--data", "bundled", "--split", "tests"], "is one of train, validation, test"),
        (["--enter", "x", "--split", "test"], "of which data set"),
        (["--enter", "x", "--data", "bundled"], "without a row of the same gold answer"),
        (["--enter", "x", "--rows", str(tmp_path / "r.csv")], "goes without"),
    ):
        assert _status([*start, *wrong]) == 2, wrong
        assert why in capsys.readouterr().err
    assert _status(["score", str(runs), "--protocol", "strict", "--enter", "x"]) == 2
    assert "a file of predictions is entered" in capsys.readouterr().err


@pytest.mark.skipif(not ORACLES.is_dir(), reason=f"no oracle predictions: {ORACLES} (see $MOLGRAFT_DATA)")
def test_published_files_find_the_examples_of_their_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(DATA))
    questions = questions_of_data("caption", "chebi20", "test")
    assert len(questions.ids) == 3300
    source = ORACLES / "molt5-small-smiles2caption.txt.gz"
    found = pair(read_table(source))
    rows = rows_by_reference(found, questions)
    assert sorted(rows) == list(range(3300))
    assert [found.references[row] for row in rows] == list(questions.references)
    table = read_table(ORACLES / "molregpt-gpt4-0314-test.txt.gz")
    rows = rows_by_id(table.column("CID"), questions, "CID")
    assert [table.column("CID")[row] for row in rows] == list(questions.ids)


def test_gold_answers_that_stand_twice_are_told_apart_by_molecules_or_not_at_all() -> None:
    asked = pair_of(("Yes", "No", "Yes", "Yes"), ("C", "CC", "CCC", "C"))
    questions = questions_of_file(asked, "classification", "own", "test")
    other = pair_of(("No", "Yes", "Yes", "Yes"), ("CC", "CCC", "C", "C"))
    assert rows_by_reference(other, questions) == [2, 0, 1, 3]
    assert rows_by_reference(pair_of(("Yes", "No", "Yes", "Yes"), None), questions) == [0, 1, 2, 3]
    for answers, molecules, why in (
        (("No", "Yes", "Yes", "Yes"), None, "--molecule-column"),
        (("No", "Yes", "Yes", "Yes"), ("CC", "CCC", "C", "CO"), "row-4"),
        (
            ("No", "Yes", "Yes", "Yes", "No"),
            ("CC", "CCC", "C", "C", "CC"),
            "rows that are no example of own test: line 5",
        ),
    ):
        with pytest.raises(TaskError, match=why):
            rows_by_reference(pair_of(answers, molecules), questions)


def pair_of(references: tuple[str, ...], molecules: tuple[str, ...] | None) -> Pairing:
    facts = RowFacts(molecules=None if molecules is None else [(smiles,) for smiles in molecules])
    return Pairing([None] * len(references), list(references), facts)
