"""Which studies a run belongs to: those whose plan has it, those under which it was run, else one of its own name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.run_store import RunDirectory, read_json, write_json

PLANS = Path(".studies")
"""Where, in a folder of runs, each study has a folder with its plan."""

_FILE = "studies.json"


@dataclass(frozen=True, slots=True)
class PlannedStudy:
    """What a plan says that a reader of its runs may want to know.

    Args:
        name: of the study.
        runs: the identities of its runs.
        question: what it is to answer; empty where that is not said.
        select: its selection rule.
    """

    name: str
    runs: frozenset[str]
    question: str
    select: Mapping[str, Any]


class Memberships:
    """Studies by run, read from a folder of runs; a plan is read again when it has changed.

    Args:
        runs: the folder.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._read: dict[Path, tuple[int, PlannedStudy | None]] = {}

    def planned(self) -> dict[str, PlannedStudy]:
        """All planned studies, by name."""
        files = sorted((self._runs / PLANS).glob("*/plan.json"))
        plans = [plan for file in files if (plan := self._plan(file)) is not None]
        return {plan.name: plan for plan in plans}

    def of(self, directory: RunDirectory, train_id: str, name: str) -> tuple[str, ...]:
        """The studies of a run, sorted.

        Args:
            directory: of the run.
            train_id: its identity.
            name: its alias, under which it stands where nothing else is known.
        """
        found = {plan.name for plan in self.planned().values() if train_id in plan.runs}
        return tuple(sorted(found | set(_noted(directory)))) or (name,)

    def note(self, directory: RunDirectory, study: str, train_id: str) -> None:
        """Writes down that a run is run for a study, where no plan says so. Call it while holding the run's lock."""
        plan = self.planned().get(study)
        noted = _noted(directory)
        if study not in noted and (plan is None or train_id not in plan.runs):
            write_json(directory.path / _FILE, [*noted, study])

    def _plan(self, file: Path) -> PlannedStudy | None:
        try:
            changed = file.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._read.get(file, (0, None))[0] != changed:
            self._read[file] = (changed, _planned(file))
        return self._read[file][1]


def _planned(file: Path) -> PlannedStudy | None:
    """What a plan says; None of one that cannot be read, which its study tells the user, not the tracker."""
    try:
        plan = read_json(file)
        runs = frozenset(str(run["train_id"]) for run in plan["runs"])
    except (UserError, KeyError, TypeError):
        return None
    return PlannedStudy(plan["study"], runs, str(plan.get("question") or ""), plan.get("select") or {})


def _noted(directory: RunDirectory) -> list[str]:
    file = directory.path / _FILE
    names: list[str] = read_json(file) if file.exists() else []
    return names


def run_directories(runs: Path) -> Iterator[RunDirectory]:
    """All runs below a folder, those of pretrainings too, that have said what they are made from."""
    for folder in sorted((*runs.glob("*"), *runs.glob("pretraining/*"))):
        directory = RunDirectory(folder)
        if directory.manifest_file.is_file() and directory.config_file.is_file():
            yield directory
