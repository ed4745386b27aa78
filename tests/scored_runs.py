"""Finished runs made by hand, with values by example: what a leaderboard reads."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

IDENTITY = {"metrics": "bleu-2@1 meteor@1", "tokenizer": "words", "tokenizer-sha256": "d69df8", "numpy": "2.4.6"}


def scored_run(
    runs: Path,
    name: str,
    values: Mapping[str, Sequence[float | None]],
    *,
    seed: int = 0,
    cell: str | None = None,
    protocol: str = "strict@1",
    corpus: Mapping[str, float | None] | None = None,
    ids: Sequence[str] | None = None,
    identity: Mapping[str, str] = IDENTITY,
    entry: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    without: Mapping[str, Any] | None = None,
) -> Path:
    """A run's folder.

    Args:
        values: by metric, each example's; the metric is their mean.
        corpus: metrics of the whole set, which are not the mean of what the score file says of examples; None where one
            is undefined.
        entry, summary: what the evaluation and the result say otherwise.
        without: what is left out, for a decontaminated score.
    """
    cell = cell or f"cell of {name}"
    key = hashlib.sha256(f"{name} {seed} {cell} {protocol} {without}".encode()).hexdigest()[:16]
    folder = next(runs.glob(f"*-s{seed}-{_plain(cell)}"), runs / f"{_plain(name)}-s{seed}-{_plain(cell)}")
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    undefined = {"value": None, "ci95": None, "reason": "no answer is a number: 7 of 7"}
    metrics: dict[str, dict[str, Any]] = {
        metric: undefined if value is None else {"value": value, "ci95": [value - 0.01, value + 0.01]}
        for metric, value in (corpus or {}).items()
    }
    for metric, column in values.items():
        known = [value for value in column if value is not None]
        if metric not in metrics:
            mean = math.fsum(known) / len(known)
            metrics[metric] = {"value": mean, "ci95": [mean - 0.02, mean + 0.02]}
    n = len(next(iter(values.values())))
    score: dict[str, Any] = {"protocol": protocol, "score_id": key, "n": n, "n_invalid": 1, "metrics": metrics}
    score |= {"identity": dict(identity), **({"without": dict(without)} if without else {})}
    names = list(ids or (f"m{number}" for number in range(n)))
    parts = {"summary": score, "example_ids": names, "per_example": {k: list(v) for k, v in values.items()}}
    basis = {metric: {"formula": "mean"} for metric in values if metric not in (corpus or {})}
    lines = ",\n".join(
        f'"{name}": {json.dumps(part)}' for name, part in {**parts, "basis": basis, "invalid": {}}.items()
    )
    (folder / "scores" / f"{key}.json").write_text(f"{{\n{lines}\n}}\n")
    result_file = folder / "result.json"
    if result_file.exists():  # a further score of the same run
        result = json.loads(result_file.read_text())
    else:
        asked = {
            "task": "caption", "answer": "caption", "data": "bundled", "split": "test", "n": n, "limited": False,
            "evaluation_id": "asked", "examples_id": "these", "graph_input": {"name": "real"},
            "generation": {"beams": 1}, "scores": [], "reliance": {"value": 0.01 * seed},
        }  # fmt: skip
        result = {
            "name": name, "seed": seed, "cell_id": cell, "encoder": "gin", "projector": "linear", "llm": "tiny",
            "text_input": "none", "parameters": {"total": {"llm": 100, "projector": 50}, "trained_sum": 50},
            "stages": [{"name": "tune", "steps": 20, "tokens": 500, "validation": {"20": 1.0}, "kept_step": 20}],
            "training_seconds": 30.0, "evaluations": [{**asked, **(entry or {})}], **(summary or {}),
        }  # fmt: skip
    kept = "decontaminated" if without else "scores"
    result["evaluations"][0].setdefault(kept, []).append(score)
    result_file.write_text(json.dumps(result))
    (folder / "manifest.json").write_text(json.dumps({"cell_id": cell, "train_id": key}))
    (folder / "status.json").write_text(json.dumps({"state": "done", "error": None, "message": None}))
    return folder


def random_values(n: int, seed: int, skill: float = 0.0) -> list[float]:
    """Values of examples whose difficulty all runs share."""
    difficulty = np.random.default_rng(1).beta(4, 3, n)
    noise = np.random.default_rng(seed + 100).normal(skill, 0.1, n)
    values: list[float] = np.clip(difficulty + noise, 0, 1).tolist()
    return values


def _plain(text: str) -> str:
    return "".join(character if character.isalnum() else "-" for character in text)[:40]
