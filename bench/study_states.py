"""Where the runs of a study stand, read from their directories alone: for any engine, from any machine, by anyone.

Nothing is written and no lock is taken that a worker could miss, so that any number of views may look at one study.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from bench.identity import evaluation_id
from bench.run_store import ErrorClass, State, Status, is_held
from bench.selection import figure_of

if TYPE_CHECKING:
    from bench.config import RunConfig, Stage
    from bench.plan import Plan, PlannedRun
    from bench.runtime import Runtime

T = TypeVar("T")
_Stamp = tuple[int, int, int] | None  # by which a file that has changed is told; None where there is none

_TAIL = 1 << 14  # bytes at the end of a log of steps: some 200 lines
_NOTHING: Mapping[str, Any] = {}
_NO_REPORT: tuple[Mapping[str, Any], float] = (_NOTHING, 0.0)
_NO_STEP: tuple[int, float | None] = (0, None)
_NO_LOSSES: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True)
class StageState:
    """Where one training stage of a run stands.

    Args:
        name, stage_id: which stage.
        steps_done: optimiser steps, of all sessions.
        steps_total: None while the number of training examples is not known.
        pace: seconds per optimiser step, of late or of all; None where no step is known.
        finished: when its report was written (seconds since 1970); None while it is not finished. A stage that was
            taken from another run has a later report than that one's.
    """

    name: str
    stage_id: str
    steps_done: int = 0
    steps_total: int | None = None
    pace: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class RunState:
    """Where one run stands.

    Args:
        planned: which run.
        directory: None while nobody has begun it.
        state: as `RunDirectory.status` has it, but that a finished run which is now asked something else is `planned`.
        phase, error, message: what it was doing last, and how it failed.
        seconds: working time of all sessions, up to now.
        figure: the study's selection rule, of a finished run.
        stages: of its training, in order; those that were taken from another run count as done.
        answers_done, answers_total: examples that were asked; None where their number is not known yet.
        loss, validation: the newest losses (nats per token).
        pid, host, updated: who is, or was, at it, and the last sign of life (seconds since 1970).
    """

    planned: PlannedRun
    directory: Path | None
    state: State
    phase: str = ""
    error: ErrorClass | None = None
    message: str | None = None
    seconds: float = 0.0
    figure: float | None = None
    stages: tuple[StageState, ...] = ()
    answers_done: int = 0
    answers_total: int | None = None
    loss: float | None = None
    validation: float | None = None
    pid: int = 0
    host: str = ""
    updated: float = 0.0

    @property
    def steps_done(self) -> int:
        """Optimiser steps over all stages."""
        return sum(stage.steps_done for stage in self.stages)

    @property
    def steps_total(self) -> int | None:
        """Optimiser steps over all stages; None while it is not known how many one has."""
        totals = [stage.steps_total for stage in self.stages]
        return None if any(total is None for total in totals) else sum(total or 0 for total in totals)


def states_of(plan: Plan, runtime: Runtime) -> list[RunState]:
    """Where all runs of a plan stand now, in the plan's order. Who asks again and again keeps a `StudyStates`."""
    return StudyStates(plan, runtime).now()


class StudyStates:
    """Reads where the runs of a plan stand; asked again, it reads only the files that have changed.

    Args:
        plan: the runs.
        runtime: where they are.
    """

    def __init__(self, plan: Plan, runtime: Runtime) -> None:
        self._plan = plan
        self._runs = runtime.runs
        self._files = _Files()
        self._ended: dict[str, tuple[tuple[_Stamp, _Stamp], RunState]] = {}
        self._asked = {run.train_id: _asked(run.config) for run in plan.runs}

    def now(self) -> list[RunState]:
        """One state per planned run, in order."""
        folders = run_folders(self._runs)
        sizes = self._training_sizes(folders)
        return [self._known_or_read(run, folders.get(run.train_id), sizes) for run in self._plan.runs]

    def _known_or_read(self, run: PlannedRun, folder: Path | None, sizes: Mapping[str, tuple[int, ...]]) -> RunState:
        """A run's state; that of one which is at its end is not read again while nothing of it changes."""
        if folder is None:
            return self._state(run, folder, sizes)
        stamps = _stamp(f"{folder}/status.json"), _stamp(f"{folder}/result.json")
        known = self._ended.get(run.train_id)
        if known is not None and known[0] == stamps and known[1].directory == folder:
            return known[1]
        state = self._state(run, folder, sizes)
        if state.state in ("done", "failed"):
            self._ended[run.train_id] = stamps, state
        else:
            self._ended.pop(run.train_id, None)
        return state

    def _training_sizes(self, folders: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
        """Training examples per stage, by cell: they do not depend on the seed, so any run of a cell tells them."""
        sizes: dict[str, tuple[int, ...]] = {}
        for run in self._plan.runs:
            if run.cell_id not in sizes and (folder := folders.get(run.train_id)) is not None:
                examples = self._examples(folder)
                if examples is not None:
                    sizes[run.cell_id] = tuple(examples["training"])
        return sizes

    def _examples(self, folder: Path) -> Mapping[str, Any] | None:
        """How many examples a run's manifest counts in which part."""
        manifest = self._files.read(folder / "manifest.json", _json, _NOTHING)
        found: Mapping[str, Any] | None = manifest.get("examples")
        return found

    def _state(self, run: PlannedRun, folder: Path | None, sizes: Mapping[str, tuple[int, ...]]) -> RunState:
        totals = _steps_of(run.config, sizes.get(run.cell_id, ()))
        if folder is None:
            return RunState(run, None, "planned", stages=_untouched(run, totals))
        status = self._status(folder)
        summary = self._files.read(folder / "result.json", _json, _NOTHING) if status.state == "done" else _NOTHING
        state = status.state
        if state == "done" and not _has_answers(summary, run.config, self._asked[run.train_id]):
            state = "planned"
        stages = tuple(
            self._stage(folder / "stages" / f"{position}-{stage.name}", stage.name, identity, total)
            for position, (stage, identity, total) in enumerate(
                zip(run.config.stages, run.stage_ids, totals, strict=True)
            )
        )
        loss, validation = self._losses(folder, stages) if state == "running" else (None, None)
        done, total = self._answers(folder, run.config, complete=state == "done")
        return RunState(
            run,
            folder,
            state,
            "to be asked something else" if state != status.state and status.state == "done" else status.phase,
            status.error,
            status.message,
            status.seconds + (max(0.0, time.time() - status.updated) if state == "running" else 0.0),
            figure_of(summary, self._plan.select, asked=self._asked[run.train_id]) if state == "done" else None,
            stages,
            done,
            total,
            loss,
            validation,
            status.pid,
            status.host,
            status.updated,
        )

    def _status(self, folder: Path) -> Status:
        """The written state, but `interrupted` where it says `running` and nobody holds the run."""
        written = self._files.read(folder / "status.json", _status, Status("planned"))
        if written.state != "running" or is_held(folder / "lock"):
            return written
        # Between the two looks the run may have ended well.
        written = self._files.read(folder / "status.json", _status, Status("planned"))
        if written.state != "running":
            return written
        return replace(written, state="interrupted")

    def _stage(self, folder: Path, name: str, identity: str, total: int | None) -> StageState:
        report, written = self._files.read(folder / "stage.json", _report, _NO_REPORT)
        if report.get("stage_id") == identity:
            outcome = report["outcome"]
            steps = int(outcome["steps"])
            return StageState(name, identity, steps, steps, outcome["seconds"] / steps if steps else None, written)
        step, pace = self._files.read(folder / "steps.jsonl", _last_step, _NO_STEP)
        return StageState(name, identity, step if total is None else min(step, total), total, pace)

    def _losses(self, folder: Path, stages: tuple[StageState, ...]) -> tuple[float | None, float | None]:
        """The newest training and validation loss of the stage that is trained now, or was last."""
        for position, stage in reversed(list(enumerate(stages))):
            if stage.steps_done:
                file = folder / "stages" / f"{position}-{stage.name}" / "metrics.jsonl"
                return self._files.read(file, _last_losses, _NO_LOSSES)
        return _NO_LOSSES

    def _answers(self, folder: Path, config: RunConfig, *, complete: bool) -> tuple[int, int | None]:
        """Examples asked and to be asked; the newest files count, one per task, since a run may have older answers."""
        examples = self._examples(folder)
        total = sum(examples["evaluation"]) if examples is not None else None
        if complete:
            return total or 0, total
        named = _entries(folder / "predictions")  # ID.jsonl, beside what was asked and files that are being written
        files = [entry for entry in named if entry.name.endswith(".jsonl") and entry.name.count(".") == 1]
        newest = sorted(files, key=lambda entry: entry.stat().st_mtime, reverse=True)[: len(config.evaluation_tasks())]
        found = sum(self._files.count_lines(Path(entry.path)) for entry in newest)
        return (found if total is None else min(found, total)), total


class _Files:
    """What files say, kept for as long as they stay as they are."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[_Stamp, Any]] = {}
        self._lines: dict[Path, tuple[int, int, int]] = {}

    def read(self, path: Path, parse: Callable[[Path], T], absent: T) -> T:
        """What `parse` makes of a file; `absent` where there is none, or none that can be read."""
        stamp = _stamp(path)
        if stamp is None:
            self._known.pop(path, None)
            return absent
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            try:
                known = stamp, parse(path)
            except (OSError, ValueError, TypeError, KeyError):  # gone, or not what molgraft writes
                return absent
            self._known[path] = known
        value: T = known[1]
        return value

    def count_lines(self, path: Path) -> int:
        """Whole lines of a file that only grows; only what was added is read."""
        try:
            with path.open("rb") as file:
                facts = os.fstat(file.fileno())
                inode, place, count = self._lines.get(path, (facts.st_ino, 0, 0))
                if inode != facts.st_ino or place > facts.st_size:
                    place, count = 0, 0
                file.seek(place)
                added = file.read()
        except OSError:
            return 0
        whole = added.rfind(b"\n") + 1
        count += added.count(b"\n")
        self._lines[path] = (facts.st_ino, place + whole, count)
        return count


def _stamp(path: str | Path) -> _Stamp:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def run_folders(runs: Path) -> dict[str, Path]:
    """Run directories by the identity in their names; of several the first, as `bench.experiment` has it."""
    found: dict[str, Path] = {}
    for name in sorted((entry.name for entry in _entries(runs)), reverse=True):
        found[name.rpartition("-")[2]] = runs / name
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _asked(config: RunConfig) -> dict[str, frozenset[str]]:
    """What a configuration asks, by identity, and the protocols by which answers are scored."""
    return {
        evaluation_id(config, task): frozenset(
            f"{protocol.name}@{protocol.version}"
            for protocol in config.evaluation.protocols
            if task.answer in protocol.metrics()
        )
        for task in config.evaluation_tasks()
    }


def _has_answers(summary: Mapping[str, Any], config: RunConfig, asked: Mapping[str, frozenset[str]]) -> bool:
    """Whether a result has the scores that are asked for now, as far as it can be told without the data."""
    scored: dict[str, set[str]] = {}
    for entry in summary.get("evaluations", ()):
        if _asked_as_many(entry, config):
            scored.setdefault(entry["evaluation_id"], set()).update(score["protocol"] for score in entry["scores"])
    return all(protocols <= scored.get(identity, set()) for identity, protocols in asked.items())


def _asked_as_many(entry: Mapping[str, Any], config: RunConfig) -> bool:
    """Whether an evaluation was of as many examples as are asked for; a data set may have fewer than a limit says."""
    evaluation, count = config.evaluation, int(entry["n"])
    if evaluation.ids:
        return count == len(evaluation.ids)
    if evaluation.limit is not None:
        return count == evaluation.limit or (count < evaluation.limit and not entry["limited"])
    return not entry["limited"]


def _steps_of(config: RunConfig, sizes: tuple[int, ...]) -> tuple[int | None, ...]:
    """Optimiser steps per stage; None where they depend on a number of examples that is not known yet."""
    known = sizes if len(sizes) == len(config.stages) else (None,) * len(config.stages)
    return tuple(steps_of(stage, size) for stage, size in zip(config.stages, known, strict=True))


def steps_of(stage: Stage, examples: int | None) -> int | None:
    """Optimiser steps of a stage, as transformers' `Trainer` counts them; None where they cannot be known.

    Args:
        stage: with `steps`, or `epochs`.
        examples: that it trains on. Those whose prompt alone is too long are left out when they are tokenised, so that
            a few steps less may be done.
    """
    if stage.steps is not None or stage.epochs is None or examples is None:
        return stage.steps
    batches = math.ceil(examples / stage.batch_size)
    return math.ceil(stage.epochs * max(1, math.ceil(batches / stage.accumulation)))


def _untouched(run: PlannedRun, totals: tuple[int | None, ...]) -> tuple[StageState, ...]:
    return tuple(
        StageState(stage.name, identity, steps_total=total)
        for stage, identity, total in zip(run.config.stages, run.stage_ids, totals, strict=True)
    )


def _json(path: Path) -> Mapping[str, Any]:
    found = json.loads(path.read_bytes())
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: no JSON object")
    return found


def _status(path: Path) -> Status:
    found = Status.parse(path.read_text(encoding="utf-8", errors="replace"))
    if found.state in get_args(State):
        return found
    return replace(found, state="interrupted", message=f"its state {found.state!r} is not known here")


def _report(path: Path) -> tuple[Mapping[str, Any], float]:
    return _json(path), path.stat().st_mtime


def _last_step(path: Path) -> tuple[int, float | None]:
    """The last optimiser step in a log, and the mean seconds of the steps before it."""
    rows = list(_last_rows(path))
    if not rows:
        return 0, None
    return int(rows[-1]["step"]), sum(float(row["seconds"]) for row in rows) / len(rows)


def _last_losses(path: Path) -> tuple[float | None, float | None]:
    loss = validation = None
    for row in _last_rows(path):
        loss, validation = row.get("loss", loss), row.get("validation_loss", validation)
    return loss, validation


def _last_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The whole lines at the end of a JSONL file; a first one that is cut and a torn last one are left out."""
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
        file.seek(start)
        lines = file.read().split(b"\n")[:-1]
    for line in lines[1:] if start else lines:
        yield json.loads(line)
