"""Reads finished and unfinished runs from their folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


class ResultsError(ValueError):
    """A folder or file that holds no results; the message is meant for the user."""

    is_user_error: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Run:
    """One run as its folder tells it.

    Args:
        folder: the run directory.
        state: `done`, or where it stands.
        summary: what `result.json` says; empty for a run that is not done.
        error: the class of a failure.
    """

    folder: Path
    state: str
    summary: Mapping[str, Any]
    error: str | None = None

    @property
    def name(self) -> str:
        """The cell's alias."""
        return str(self.summary.get("name") or self.folder.name.rsplit("-s", 1)[0])

    @property
    def cell(self) -> str:
        """What runs must share to be averaged."""
        return str(self.summary.get("cell_id") or self.folder.name)

    @property
    def seed(self) -> int | None:
        """The run's seed, where it is known."""
        return self.summary.get("seed")


def read_runs(sources: Sequence[Path]) -> list[Run]:
    """All runs in folders of runs, or in run directories themselves, by name and seed.

    Raises:
        ResultsError: a source does not exist, or there is no run in any.
    """
    folders: list[Path] = []
    for source in sources:
        if not source.is_dir():
            raise ResultsError(f"{source}: no such folder of runs")
        if (source / "status.json").exists():
            folders.append(source)
        folders += sorted(path.parent for path in source.glob("*/status.json"))
    if not folders:
        raise ResultsError(f"{', '.join(map(str, sources))}: holds no run; `molgraft run` makes one")
    runs = [_read(folder) for folder in folders]
    return sorted(runs, key=lambda run: (run.name, run.seed if run.seed is not None else -1))


def evaluation_of(run: Run, split: str, task: str | None = None) -> Mapping[str, Any] | None:
    """A run's evaluation on a split, the complete one before a limited one; None where it has none."""
    found = [
        entry
        for entry in run.summary.get("evaluations", ())
        if entry["split"] == split and (task is None or entry["task"] == task)
    ]
    return min(found, key=lambda entry: entry["limited"], default=None)


def score_of(entry: Mapping[str, Any] | None, protocol: str) -> Mapping[str, Any] | None:
    """An evaluation's scores under a protocol, named with or without its version."""
    for score in (entry or {}).get("scores", ()):
        if protocol in (score["protocol"], score["protocol"].partition("@")[0]):
            found: Mapping[str, Any] = score
            return found
    return None


def reliance_gains(run: Run, entry: Mapping[str, Any]) -> dict[str, float]:
    """Per example, how much likelier the gold answer is with its own graph, in nats per token."""
    identity = entry["reliance"].get("reliance_id")
    if identity is None:
        return {}
    rows = _json_lines(run.folder / "reliance" / f"{identity}.jsonl")
    return {row["example_id"]: (row["real"] - row["swapped"]) / row["tokens"] for row in rows if row["counts"]}


def _read(folder: Path) -> Run:
    status = _json(folder / "status.json")
    result = folder / "result.json"
    summary = _json(result) if result.exists() and status["state"] == "done" else {}
    return Run(folder, status["state"], summary, status.get("error"))


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path}: not readable as JSON: {error}") from None
    return loaded


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
