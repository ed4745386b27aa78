"""Every task with the small language model on real data, by the command line: dry run, training, answers, scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from bench.cli import _status

needs_data = pytest.mark.skipif("MOLGRAFT_DATA" not in os.environ, reason="needs $MOLGRAFT_DATA: real data sets")
pytestmark = needs_data

STAGE = "{steps: 2, batch_size: 4, name: tune, trains: {encoder: full, projector: full, llm: full}}"
SETTINGS = (
    *QUICK,
    "limits={train: 24, validation: 4}",
    "text_input={name: smiles, max_characters: 60}",
    "llm.max_length=480",
    "evaluation.limit=6",
    "evaluation.generation={max_new_tokens: 6, batch_size: 6}",
    "evaluation.protocols=[strict]",
    f"stages=[{STAGE}]",
)
# Name of the task, its settings, and the metrics that its answers get.
MOLECULES = {"exact", "bleu", "levenshtein", "maccs", "rdk", "morgan", "validity"}
CAPTIONS = {"bleu-2", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "meteor"}
TASKS: dict[str, tuple[str, set[str]]] = {
    "caption": ("data: pubchem324k-caption", CAPTIONS),
    "design": ("data: gitmol, format: selfies", MOLECULES),
    "iupac": ("data: pubchem324k-iupac", CAPTIONS),
    "property-classification": ("data: tox21, labels: all", {"roc-auc", "accuracy", "f1"}),
    "property-regression": ("data: qm9-frontier, labels: all", {"mae", "rmse", "r2", "parse-rate"}),
    "descriptor": ("data: gitmol, labels: [rings, tpsa, charge]", {"mae", "rmse", "r2", "parse-rate"}),
    "canonical-smiles": ("data: gitmol, share: 0.5, max_characters: 90", MOLECULES),
    "functional-group": ("data: gitmol, labels: [ester, ketone]", {"roc-auc", "accuracy", "f1"}),
    "forward": ("data: uspto-mit", MOLECULES),
    "retrosynthesis": ("data: uspto50k", MOLECULES),
    "reagent": ("data: uspto-mit, output: selfies", MOLECULES),
    "instruction": ("data: chembl-qa@random", CAPTIONS),
}


def command(name: str, what: str, task: str, runs: Path) -> list[str]:
    settings = [f"task={{name: {task}, {TASKS[task][0]}}}", *SETTINGS]
    options = [part for setting in settings for part in ("--set", setting)]
    return [what, "demo", *options, *(["--runs", str(runs), "--tracking", "none", "--quiet"] if what == "run" else [])]


def test_every_task_is_tried_here() -> None:
    from bench.registry import Registry

    assert set(TASKS) == set(Registry().all("task"))


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_trained_asked_and_scored(
    task: str,
    tmp_path: Path,
    session_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    assert _status([*command(task, "check", task, tmp_path), "--json"]) == 0
    dry = json.loads(capsys.readouterr().out)
    (found,) = dry["tasks"]
    assert found["task"] == task
    assert len(found["prompts"]) == 3
    assert all(prompt["text"] for prompt in found["prompts"])
    assert _status(command(task, "run", task, tmp_path)) == 0
    (folder,) = tmp_path.glob("demo-*")
    (entry,) = json.loads((folder / "result.json").read_text())["evaluations"]
    assert entry["n"] == 6
    (score,) = entry["scores"]
    assert TASKS[task][1] <= set(score["metrics"])
    assert score["n"] == 6
    for metric in score["metrics"].values():
        assert metric["value"] is not None or metric["reason"]
    check_answers(task, folder)


def check_answers(task: str, folder: Path) -> None:
    """Gold answers are read as answers are; labels have likelihoods."""
    (questions,) = folder.glob("predictions/*.questions.jsonl")
    rows: list[dict[str, Any]] = [json.loads(line) for line in questions.read_text().splitlines()]
    assert all(row["reference"] for row in rows)
    assert all(row["meta"]["line"] > 0 for row in rows)
    likelihoods = list(folder.glob("predictions/*.candidates.jsonl"))
    assert bool(likelihoods) == (task in ("property-classification", "functional-group"))
    for file in likelihoods:
        assert all(max(json.loads(line)["likelihoods"]) < 0 for line in file.read_text().splitlines())


GRAPH_ONLY = "stages=[{steps: 6, batch_size: 2, name: align, trains: {projector: full}}]"


def test_a_stage_that_would_train_nothing_on_questions_without_molecules_is_refused(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    assert _status([*command("design", "run", "design", tmp_path), "--set", GRAPH_ONLY]) == 2
    assert "stage 'align' trains the encoder or the projector only" in capsys.readouterr().err


def test_a_batch_without_molecules_is_passed_over_by_a_stage_that_trains_what_reads_graphs(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    mixture = "[{task: {name: design, data: bundled}, weight: 5}, {task: {name: caption, data: bundled}}]"
    stage = GRAPH_ONLY.replace("name: align", f"name: align, tasks: {mixture}")
    settings = [*SETTINGS, stage, "evaluation.tasks=[{name: caption, data: bundled}, {name: design, data: bundled}]"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert _status(["run", "demo", *options, "--runs", str(tmp_path), "--tracking", "none", "--quiet"]) == 0
    (folder,) = tmp_path.glob("demo-*")
    result = json.loads((folder / "result.json").read_text())
    reliance = {entry["task"]: entry["reliance"] for entry in result["evaluations"]}
    assert reliance["design"]["value"] is None
    assert reliance["design"]["reason"] == "no question holds a molecule"
    assert result["stages"][0]["steps"] == 6
