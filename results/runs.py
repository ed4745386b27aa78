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
        name: the alias of its cell.
        cell: what runs must share to be averaged.
        seed: its seed, where it is known.
        state: `done`, or where it stands.
        summary: what `result.json` says; empty for a run that is not done.
        error: the class of a failure.
    """

    folder: Path
    name: str
    cell: str
    seed: int | None
    state: str
    summary: Mapping[str, Any]
    error: str | None = None


def read_runs(sources: Sequence[Path], names: Mapping[Path, str] | None = None) -> list[Run]:
    """All runs in folders of runs, or in run directories themselves, by name and seed; each once.

    Args:
        sources: folders.
        names: aliases of single run directories, where a run is known by another one than it was made under.

    Raises:
        ResultsError: a source does not exist, or there is no run in any.
    """
    folders: dict[Path, Path] = {}
    for source in sources:
        if not source.is_dir():
            raise ResultsError(f"{source}: no such folder of runs")
        below = sorted(status.parent for status in source.glob("*/status.json"))
        found = [source] if (source / "status.json").exists() else below
        folders |= {folder.resolve(): folder for folder in found if folder.resolve() not in folders}
    if not folders:
        raise ResultsError(f"{', '.join(map(str, sources))}: holds no run; `molgraft run` makes one")
    runs = [_read(folder, (names or {}).get(folder)) for folder in folders.values()]
    return sorted(runs, key=lambda run: (run.name, run.seed if run.seed is not None else -1))


def evaluations_of(run: Run, split: str) -> list[Mapping[str, Any]]:
    """A run's evaluations on a split, one for each way of asking: the complete one before a limited one."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for entry in run.summary.get("evaluations", ()):
        earlier = chosen.get(entry["evaluation_id"])
        # Fewer examples count as more limited.
        if entry["split"] == split and (earlier is None or entry["n"] > earlier["n"]):
            chosen[entry["evaluation_id"]] = entry
    return list(chosen.values())


def score_of(entry: Mapping[str, Any], protocol: str) -> Mapping[str, Any] | None:
    """An evaluation's scores under a protocol, named with or without its version."""
    for score in entry["scores"]:
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


def _read(folder: Path, alias: str | None) -> Run:
    try:
        status = _json(folder / "status.json")
    except ResultsError:  # torn by a full disk or a power cut; the next session of the run writes it anew
        status = {}
    result, manifest = folder / "result.json", folder / "manifest.json"
    summary = _json(result) if result.exists() else {}
    made_from = _json(manifest) if manifest.exists() else {}
    name, _, rest = folder.name.rpartition("-s")
    return Run(
        folder=folder,
        name=alias or summary.get("name") or name,
        cell=str(made_from.get("cell_id", folder.name)),
        seed=summary.get("seed", int(rest.partition("-")[0]) if rest.partition("-")[0].isdigit() else None),
        state=status.get("state", "interrupted"),
        summary=summary,
        error=status.get("error"),
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ResultsError(f"{path}: holds no JSON object")
    return loaded


def _json_lines(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
