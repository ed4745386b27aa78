"""Writes a study in its committed form, which `results.packed` reads."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.packed_examples import FOLDER, Molecules, examples_file, packed_facts
from results.runs import PACKED_RUN, PACKED_STUDY, ResultsError, Run
from results.settings import machine_of

if TYPE_CHECKING:
    from collections.abc import Container

    from results.packed import StudyOnFile

FORMAT = 1
"""Raised when packed files begin to mean something else."""

DIGITS = 6
"""Significant digits of scores and gains: enough that no figure of a table changes, and half the size of all."""

_LINES = 200  # of a stage's log of losses; curves are drawn from no more
_MANIFEST = (
    *("train_id", "cell_id", "stage_ids", "data", "examples", "rejected", "llm", "files", "pretrained", "features"),
    *("generation", "scored_weights"),
)
_SESSION = (
    *("molgraft", "git", "packages", "python", "platform", "processor", "cores", "threads", "accelerator", "time"),
    "limits",
)


def pack(study: StudyOnFile, folder: Path, *, predictions: bool = False, molecules: Molecules = "shown") -> list[Path]:
    """Writes a study into a folder in its committed form; packing the same study again gives the same bytes.

    What is left out: checkpoints, logs, who ran it and on which host. Scores, what metrics are made of, and gains of
    log-likelihood are rounded to `DIGITS` significant digits; the figures of `result.json` are not.

    Args:
        study: with its runs.
        folder: of the packed study; runs that an earlier packing left there are removed.
        predictions: keep questions and answers too, of which data sets' licences may not allow the publication.
        molecules: what is kept of the examples' molecules, once for all runs that were asked the same: `none`; `plain`:
            SMILES, sizes, functional groups and novelty; `shown`: also depictions of the examples that a report shows;
            `all`: every depiction.

    Returns:
        The files, `study.json` first.

    Raises:
        ResultsError: there is no run, or the folder cannot be written.
    """
    if not study.runs:
        raise ResultsError(f"study {study.name} has no run yet, so there is nothing to pack")
    rows: list[dict[str, Any]] = []
    files = []
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        for run in study.runs:
            name = f"{run.folder.name.removesuffix(PACKED_RUN)}{PACKED_RUN}"
            content = packed_bytes(run, predictions=predictions)
            files.append(_write(folder / "runs" / name, content))
            digest = hashlib.sha256(content).hexdigest()
            rows.append({"cell": run.name, "seed": run.seed, "file": f"runs/{name}", "sha256": digest})
        rows += [{"cell": cell, "seed": seed, "file": None} for cell, seed in study.missing]
        examples: list[dict[str, Any]] = []
        for name, content in _examples(study, tuple(files), molecules):
            (folder / FOLDER).mkdir(exist_ok=True)
            files.append(_write(folder / FOLDER / name, content))
            examples.append({"file": f"{FOLDER}/{name}", "sha256": hashlib.sha256(content).hexdigest()})
        for stale in {*folder.glob(f"runs/*{PACKED_RUN}"), *folder.glob(f"{FOLDER}/*.json.gz")} - set(files):
            stale.unlink()
        described = _described(study, rows) | ({"examples": examples} if examples else {})
        text = json.dumps(described, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        return [_write(folder / PACKED_STUDY, text.encode()), *files]
    except OSError as error:
        raise ResultsError(f"{folder}: cannot be written: {error}") from None


def packed_bytes(run: Run, *, predictions: bool = False) -> bytes:
    """A run's packed file."""
    columns = _Columns()
    files: dict[str, Any] = {}
    if run.summary:
        files["result.json"] = run.summary
    if run.manifest:
        files["manifest.json"] = _essential(run.manifest, ("prompts",) if predictions else ())
    if run.config:
        files["config.yaml"] = run.config
    for entry in run.summary.get("evaluations", ()):
        for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
            files |= _scores(run, score, columns)
        files |= _reliance(run, entry, columns)
        if predictions:
            files |= _answers(run, entry)
    for position, stage in enumerate(run.summary.get("stages", ())):
        path = f"stages/{position}-{stage.get('name')}/metrics.jsonl"
        if lines := run.lines(path):
            files[path] = _thinned(lines)
    known = ("name", "cell", "seed", "state", "error", "message")
    about = {key: getattr(run, key) for key in known}
    content = {"format": FORMAT, "run": about, "files": files, "columns": columns.all}
    # In the order in which they came, by which tables order metrics; it is the same every time.
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def _examples(study: StudyOnFile, runs: Sequence[Path], molecules: Molecules) -> Iterator[tuple[str, bytes]]:
    """For each set of examples that runs were asked, a file's name and its content; nothing of those unknown."""
    if molecules == "none":
        return
    from results.facts import example_facts, example_novelty, names_of_novelty
    from results.tables.gather import Answer

    asked: dict[str, list[Answer]] = {}
    for run in study.runs:
        for entry in run.summary.get("evaluations", ()):
            asked.setdefault(str(entry.get("examples_id")), []).append(Answer(run, entry, {}))
    shown = _shown(study, runs) if molecules == "shown" else {}
    for identity, answers in sorted(asked.items()):
        name = examples_file(identity)
        facts = example_facts(answers)
        by_file = {
            file: example_novelty([answer for answer in answers if answer.entry.get("novelty") == file])
            for file in names_of_novelty([answer.entry for answer in answers])
        }
        novelty = {file: known for file, known in by_file.items() if known}
        if name is not None and (facts or novelty):
            depicted: Container[str] = facts if molecules == "all" else shown.get(identity, ())
            yield name, packed_facts(facts, novelty, depicted)


def _shown(study: StudyOnFile, files: Sequence[Path]) -> Mapping[str, Container[str]]:
    """The examples that a report of the packed study will show, from the runs as they are packed."""
    from results.packed import read_packed_run
    from results.report.chosen import shown_examples

    runs = tuple(replace(read_packed_run(file), name=run.name) for file, run in zip(files, study.runs, strict=True))
    return shown_examples(replace(study, runs=runs))


class _Columns:
    """Columns of values, equal ones once: examples of all scores, n-gram counts of several BLEUs."""

    def __init__(self) -> None:
        self.all: list[list[Any]] = []
        self._places: dict[tuple[Any, ...], int] = {}

    def place(self, values: Sequence[Any]) -> int:
        """Where a column of rounded values stands."""
        column = [_rounded(value) for value in values]
        key = tuple(column)
        if key not in self._places:
            self._places[key] = len(self.all)
            self.all.append(column)
        return self._places[key]


def _scores(run: Run, score: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
    from results.scores import example_scores

    found = example_scores(run, score)
    if found is None:
        return {}
    basis: dict[str, Any] = {}
    for name, made_of in found.basis.items():
        if made_of.formula == "mean" and made_of.groups is None:  # of which the values themselves are all there is
            basis[name] = {"formula": "mean"}
            continue
        places = [columns.place(made_of.rows[:, column].tolist()) for column in range(made_of.rows.shape[1])]
        groups = None if made_of.groups is None else columns.place(made_of.groups)
        basis[name] = {"formula": made_of.formula, "columns": places, "groups": groups}
    return {
        f"scores/{score['score_id']}.json": {
            "example_ids": columns.place(found.example_ids),
            "per_example": {name: columns.place(values.tolist()) for name, values in found.values.items()},
            "basis": basis,
            "invalid": found.invalid,
        }
    }


def _reliance(run: Run, entry: Mapping[str, Any], columns: _Columns) -> dict[str, Any]:
    path = f"reliance/{entry.get('reliance', {}).get('reliance_id')}.jsonl"
    rows = run.lines(path)
    if not rows:
        return {}
    gains = [row["gain"] if "gain" in row else (row["real"] - row["swapped"]) / row["tokens"] for row in rows]
    kept = {"gain": columns.place(gains)}
    for name in ("example_id", "counts", "tokens", "atoms", "swapped_atoms"):
        if all(name in row for row in rows):
            kept[name] = columns.place([row[name] for row in rows])
    return {path: {"rows": kept}}


def _answers(run: Run, entry: Mapping[str, Any]) -> dict[str, Any]:
    asked = entry.get("predict_id")
    paths = [f"predictions/{asked}.jsonl", f"predictions/{asked}.questions.jsonl"]
    if run.packed is not None:
        paths += [path for path in run.packed if path.endswith(".answers.jsonl")]
    else:
        swapped = sorted((run.folder / "reliance").glob("*.answers.jsonl"))
        paths += [file.relative_to(run.folder).as_posix() for file in swapped]
    return {path: rows for path in paths if (rows := run.lines(path))}


def _essential(manifest: Mapping[str, Any], further: Sequence[str]) -> dict[str, Any]:
    """What makes a run comprehensible, without who ran it where; a prompt of it holds a question and its answer."""
    sessions = [
        {key: session[key] for key in _SESSION if key in session}
        | {"end": {key: session["end"].get(key) for key in ("time", "reason")} if session.get("end") else None}
        for session in manifest.get("sessions", ())
    ]
    return {**{key: manifest[key] for key in (*_MANIFEST, *further) if key in manifest}, "sessions": sessions}


def _thinned(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All validation losses of a stage's log and evenly spaced others, the last among them."""
    others = [number for number, line in enumerate(lines) if "validation_loss" not in line]
    step = max(1, math.ceil(len(others) / _LINES))
    kept = set(others[::-1][::step])
    return [
        {key: _rounded(value) for key, value in line.items()}
        for number, line in enumerate(lines)
        if number in kept or "validation_loss" in line
    ]


def _rounded(value: Any) -> Any:
    if not isinstance(value, float) or isinstance(value, bool):
        return value
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.{DIGITS}g}")


def _finite(value: Any) -> Any:
    """JSON has no NaN; a stage that came to one is told by its state."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _described(study: StudyOnFile, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "study": study.name,
        "question": study.question,
        **study.about,
        "provenance": study.about.get("provenance") or _provenance(study.runs),
        "tables": [request.to_mapping() for request in study.requests],
        "cells": list(study.cells),
        "runs": list(rows),
    }


def _provenance(runs: Sequence[Run]) -> dict[str, list[str]]:
    """With what the runs of a study were made, each fact once."""
    facts: dict[str, dict[str, None]] = {}
    for name, text in (
        fact for run in runs for session in run.manifest.get("sessions", ()) for fact in _facts(session)
    ):
        facts.setdefault(name, {})[text] = None
    return {name: sorted(texts) for name, texts in facts.items()}


def _facts(session: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    commit = (session.get("git") or {}).get("commit")
    known = {
        "molgraft": session.get("molgraft"),
        "commit": f"{commit}{', with changes' if (session.get('git') or {}).get('uncommitted_changes') else ''}",
        "torch": (session.get("packages") or {}).get("torch"),
        "python": session.get("python"),
        "hardware": machine_of(session),
        "days": str(session.get("time"))[:10],
    }
    yield from ((name, str(text)) for name, text in known.items() if text)


def _write(path: Path, content: bytes) -> Path:
    """The file, whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}", delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o644)
    Path(file.name).replace(path)
    return path
