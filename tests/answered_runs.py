"""Run folders whose scores are real: answers are given, and molgraft's own protocols score them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.identity import content_hash
from bench.registry import registry
from bench.run_store import RunDirectory, append_jsonl, write_json
from bench.scores import score_predictions
from tasks.base import AnswerKind
from tasks.metrics.base import Protocol


def protocol_of(name: str, **settings: Any) -> Protocol:
    """A protocol by its name."""
    made: Protocol = registry().get("protocol", name)(**settings)
    return made


def answered_run(
    runs: Path,
    name: str,
    seed: int,
    references: Sequence[str],
    answers: Sequence[str | None],
    *,
    kind: AnswerKind = "caption",
    protocols: Sequence[Protocol] | None = None,
    split: str = "test",
    config: Mapping[str, Any] | None = None,
    gains: Sequence[float] = (),
    data: str = "bundled",
    task: str = "caption",
    cell: str | None = None,
    groups: Sequence[str] = (),
) -> Path:
    """The folder of a finished run that gave these answers.

    Args:
        runs: the folder of runs.
        name, seed: of the run.
        references, answers: gold and given answers, in the order of examples; None for one that could not be parsed.
        kind: of the answers.
        protocols: that score them; `strict` where none are given.
        split, data, task: what was asked.
        config: settings, as its `config.yaml` has them.
        gains: of reliance, for the first examples.
        cell: identity of the cell; made of the name where it is not given.
        groups: of each example, over which metrics are averaged.
    """
    cell = cell or content_hash(name)[:16]
    folder = runs / f"{name}-s{seed}-{content_hash([name, cell, seed])[:16]}"
    run, predicted = RunDirectory(folder), content_hash([cell, seed, split, len(references)])[:16]
    ids = [f"m{place}" for place in range(len(references))]
    questions = [
        {"example_id": i, "molecules": ["C"], "reference": r, "meta": {"group": groups[place]} if groups else {}}
        for place, (i, r) in enumerate(zip(ids, references, strict=True))
    ]
    append_jsonl(run.questions_file(predicted), questions, durable=False)
    given = [{"example_id": i, "text": text} for i, text in zip(ids, answers, strict=True)]
    append_jsonl(run.predictions_file(predicted), given, durable=False)
    scores = [score_predictions(run, predicted, kind, p) for p in protocols or [protocol_of("strict")]]
    reliance: dict[str, Any] = {"value": None, "reason": "not measured"}
    if gains:
        rows = [
            {"example_id": i, "real": -1.0 + 2 * gain, "swapped": -1.0, "tokens": 2, "counts": True}
            for i, gain in zip(ids, gains, strict=False)
        ]
        append_jsonl(run.reliance_file("r"), rows, durable=False)
        reliance = {"value": sum(gains) / len(gains), "reliance_id": "r", "swap": "shuffled", "n": len(gains)}
    entry = {
        "task": task,
        "answer": kind,
        "data": data,
        "split": split,
        "limited": False,
        "n": len(references),
        "evaluation_id": content_hash([task, data, split])[:16],
        "examples_id": content_hash(list(references))[:16],
        "predict_id": predicted,
        "graph_input": {"name": "real"},
        "generation": {"beams": 1},
        "scores": scores,
        "reliance": reliance,
    }
    stage = {"name": "tune", "validation": {"5": 1.0}, "kept_step": 5, "steps": 5, "kept": "last"}
    summary = {
        "name": name,
        "seed": seed,
        "cell_id": cell,
        "train_id": folder.name.rpartition("-")[2],
        "parameters": {"trained_sum": 12_345},
        "stages": [stage],
        "scored_weights": "last of stage tune",
        "evaluations": [entry],
        "training_seconds": 10.0 + seed,
    }
    write_json(folder / "result.json", summary)
    session = {
        "molgraft": "0.1.0",
        "git": {"commit": "abc"},
        "packages": {"torch": "2"},
        "host": "whose-host",
        "pid": 7,
    }
    session |= {"processor": "Some CPU", "cores": 2, "threads": 1, "time": "2026-01-01T00:00:00+00:00"}
    manifest = {"cell_id": cell, "train_id": summary["train_id"], "sessions": [session]}
    write_json(folder / "manifest.json", manifest)
    (folder / "config.yaml").write_text(json.dumps({"name": name, "seed": seed, **(config or {})}))
    write_json(folder / "status.json", {"state": "done", "error": None})
    return folder


def plan_file(
    runs: Path, name: str, cells: Mapping[str, Sequence[Path | None]], *, tables: Sequence[Mapping[str, Any]] = ()
) -> Path:
    """The plan of a study of these run folders; None for a run that was not begun.

    Args:
        runs: the folder of runs.
        name: of the study.
        cells: folders by alias, one for each seed from 0 on.
        tables: that it wants.
    """
    rows = [
        {
            "cell": cell,
            "cell_id": cell,
            "train_id": folder.name.rpartition("-")[2] if folder else f"{cell}{seed}",
            "stage_ids": [],
            "config": {"name": cell, "seed": seed},
        }
        for cell, folders in cells.items()
        for seed, folder in enumerate(folders)
    ]
    plan = {"study": name, "question": "Which is better?", "select": {"metric": "loss"}, "scale": "", "fidelity": ""}
    file = runs / ".studies" / name / "plan.json"
    write_json(file, {**plan, "tables": [dict(table) for table in tables], "work": {}, "runs": rows})
    return file
