"""A finished study by hand: its answers are made up, its scores and the facts about its examples are not."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.facts import Asked, write_facts
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.scores import score_predictions
from tasks.metrics.protocols import Strict

IMAGE = "<img src=x onerror=alert(1)>"
HOSTILE = f"{IMAGE}</script><script>alert(2)</script>'\"&{{{{7*7}}}}${{7*7}}`\u2028\u202e"
HOSTILE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10" onload="alert(3)"><script>alert(4)</script>'
    '<image href="http://example.invalid/x.png"/><a href="javascript:alert(5)"><path d="M 0 0"/></a>'
    "<style>@import url(http://example.invalid/x.css);</style><foreignObject><b>bold</b></foreignObject>"
    '<path d="M 1.23456,2 L 8,8" style="fill:none;stroke:currentColor;background:url(http://example.invalid/y)"/></svg>'
)
_CHARACTERS = "ACGHNOSabcdefghijklmnopqrstuvwxyz"


@dataclass
class Written:
    """A study to be written.

    Args:
        cells: alias -> share of the reference's words that an answer keeps.
        seeds: of every cell.
        n: examples; of the bundled molecules.
        extra: example id -> what to put in the place of its molecule, question, reference and answer.
        gains: alias -> mean gain from the own graph; cells that are not here were not measured.
        tables: of the plan.
        question: of the plan.
    """

    cells: Mapping[str, float]
    seeds: Sequence[int] = (0, 1, 2)
    n: int = 40
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gains: Mapping[str, float] = field(default_factory=dict)
    tables: Sequence[Mapping[str, Any]] = ()
    question: str = "Is the better cell better?"
    name: str = "made-up"
    facts: bool = True


def write_study(runs: Path, study: Written) -> list[Path]:
    """Writes the runs of a study with their plan; returns their folders."""
    questions = _questions(study)
    examples_id = hashlib.sha256(json.dumps(questions).encode()).hexdigest()[:16]
    names: dict[str, str | None] = {"facts": None, "novelty": None}
    if study.facts:
        names = _facts(runs / ".examples", examples_id, questions)
    planned, folders = [], []
    for place, (cell, kept) in enumerate(study.cells.items()):
        for seed in study.seeds:
            train_id = hashlib.sha256(f"{cell} {seed}".encode()).hexdigest()[:16]
            folder = runs / f"c{place}-s{seed}-{train_id}"
            config = _config(cell, seed, width=16 + place)
            planned.append(
                {"cell": cell, "cell_id": f"id of {cell}", "train_id": train_id, "stage_ids": [], "config": config}
            )
            entry = {**_entry(questions, examples_id), **names}
            _write_run(
                folder, cell, seed, train_id, config, entry, _answers(questions, kept, seed), study.gains.get(cell)
            )
            folders.append(folder)
    plan = {
        "study": study.name,
        "question": study.question,
        "select": {"metric": "loss", "mode": None, "task": None},
        "tables": list(study.tables),
        "scale": "smoke",
        "fidelity": "",
        "work": {},
        "runs": planned,
    }
    _write(runs / ".studies" / study.name / "plan.json", json.dumps(plan))
    return folders


def _questions(study: Written) -> list[dict[str, Any]]:
    file = Path(__file__).resolve().parents[1] / "tasks" / "bundled" / "molecules.csv"
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))[: study.n]
    found = []
    for row in rows:
        question = {
            "example_id": row["id"],
            "molecules": [row["smiles"]],
            "prompt": "<graph:0>\nDescribe the molecule.\n",
            "reference": row["description"],
            "candidates": [],
            "meta": {"task": "caption"},
        }
        changed = dict(study.extra.get(row["id"], {}))
        found.append(question | changed)
    return found


def _answers(questions: Sequence[Mapping[str, Any]], kept: float, seed: int) -> list[dict[str, Any]]:
    """Each word of the reference is kept with a probability, and another is put in its place otherwise."""
    drawn = random.Random(f"{kept} {seed}")
    rows = []
    for question in questions:
        words = [
            word if drawn.random() < kept else "".join(drawn.choices(_CHARACTERS, k=5))
            for word in question["reference"].split()
        ]
        text = question.get("answer", " ".join(words))
        rows.append(
            {
                "example_id": question["example_id"],
                "prompt_sha": "0",
                "raw": text,
                "text": text,
                "tokens": 9,
                "stop": "length" if drawn.random() < 0.1 else "eos",
            }
        )
    return rows


def _entry(questions: Sequence[Mapping[str, Any]], examples_id: str) -> dict[str, Any]:
    return {
        "task": "caption",
        "answer": "caption",
        "data": "bundled",
        "split": "test",
        "n": len(questions),
        "limited": False,
        "evaluation_id": "asked",
        "examples_id": examples_id,
        "graph_input": {"name": "real"},
        "text_input": None,
        "prompt": None,
        "generation": {"beams": 1, "max_new_tokens": 64},
        "predict_id": "p",
        "generated_tokens": 9 * len(questions),
        "ended_by_length": 3,
        "scores": [],
        "observed": {},
        "reliance": {"value": None, "reason": "not measured: evaluation.reliance is not set"},
        "questions": list(questions),
    }


def _write_run(
    folder: Path,
    cell: str,
    seed: int,
    train_id: str,
    config: Mapping[str, Any],
    entry: dict[str, Any],
    answers: Sequence[Mapping[str, Any]],
    gain: float | None,
) -> None:
    questions = entry.pop("questions")
    _lines(folder / "predictions" / "p.questions.jsonl", questions)
    _lines(folder / "predictions" / "p.jsonl", answers)
    if gain is not None:
        entry["reliance"] = _reliance(folder, answers, gain, seed)
    entry["scores"] = [score_predictions(RunDirectory(folder), "p", "caption", Strict())]
    summary = {
        "name": cell,
        "seed": seed,
        "cell_id": f"id of {cell}",
        "train_id": train_id,
        "encoder": "gin",
        "projector": "linear",
        "llm": "tiny",
        "graph_input": {"train": "real", "test": "real"},
        "parameters": {"trained_sum": 1000 * config["encoder"]["width"]},
        "stages": [{"name": "tune", "validation": {"0": 2.0, "10": 1.5}, "kept_step": 10}],
        "scored_weights": "last of stage tune",
        "evaluations": [entry],
        "training_seconds": 10.0 + seed,
        "seconds": 12.0,
    }
    session = {
        "molgraft": "0.1.0",
        "git": {"commit": "c" * 40, "uncommitted_changes": None},
        "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
        "python": "3.11.7",
        "platform": "Linux",
        "processor": "a processor",
        "cores": 2,
        "threads": 1,
        "host": "a-secret-host",
        "accelerator": None,
        "command": ["molgraft", "study", "/home/somebody/secret.yaml"],
        "time": "2026-11-21T19:45:50+00:00",
    }
    manifest = {
        "cell_id": f"id of {cell}",
        "train_id": train_id,
        "data": {"bundled/test": {"file": "molecules.csv", "sha256": "d" * 64}},
        "llm": {"origin": "tiny", "identity": "1234", "weights": "pretrained", "quantisation": "none"},
        "files": {"encoder": [], "projector": []},
        "prompts": [{"task": "caption", "example_id": "m001", "prompt": "Describe.\n", "answer": "It is a molecule."}],
        "sessions": [session],
    }
    _write(folder / "config.yaml", json.dumps(config))  # which is YAML too
    _write(folder / "manifest.json", json.dumps(manifest))
    _write(folder / "result.json", json.dumps(summary))
    _write(folder / "status.json", json.dumps({"state": "done", "error": None, "message": None}))


def _reliance(folder: Path, answers: Sequence[Mapping[str, Any]], gain: float, seed: int) -> dict[str, Any]:
    drawn = random.Random(f"{gain} {seed}")
    rows = [
        {
            "example_id": row["example_id"],
            "real": -20.0,
            "swapped": -20.0 - 10 * drawn.gauss(gain, 0.05),
            "tokens": 10,
            "atoms": 9,
            "swapped_atoms": 9,
            "counts": place % 4 != 0,
        }
        for place, row in enumerate(answers)
    ]
    _lines(folder / "reliance" / "r.jsonl", rows)
    counted = {row["example_id"] for row in rows if row["counts"]}
    swapped = [{**row, "raw": f"{row['raw']} swapped"} for row in answers if row["example_id"] in counted]
    _lines(folder / "reliance" / "a.answers.jsonl", swapped)
    changes = {"strict@1": {"bleu-2": {"value": 0.01, "ci95": None, "n": len(counted)}}}
    return {
        "value": gain,
        "unit": "nats per token",
        "swap": "shuffled",
        "n": len(counted),
        "left_out": len(rows) - len(counted),
        "reliance_id": "r",
        "answers_id": "a",
        "metrics": changes,
    }


def _facts(folder: Path, examples_id: str, questions: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    asked = [Asked(row["example_id"], tuple(row["molecules"]), "Describe the molecule.") for row in questions]
    facts = write_facts(folder, examples_id, asked, Runtime(progress=False))
    novelty = {
        row["example_id"]: {"scaffold_seen": place % 2 == 0, "molecule_seen": False, "nearest": place / len(questions)}
        for place, row in enumerate(questions)
    }
    _write(folder / f"{examples_id}.key.json", json.dumps(novelty))
    return {"facts": facts, "novelty": f"{examples_id}.key.json"}


def _config(cell: str, seed: int, width: int) -> dict[str, Any]:
    return {
        "name": cell,
        "encoder": {"name": "gin", "layers": 2, "width": width},
        "projector": {"name": "linear", "level": "atom"},
        "llm": {"name": "tiny"},
        "stages": [{"name": "tune", "steps": 10, "optimiser": {"lr": 0.001}}],
        "seed": seed,
        "origin": None,
    }


def _lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    _write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
