"""About how long the rest of a study takes: from its finished runs where there are some, else from arithmetic.

A run's time has two parts: each of its stages, which only the first run that needs a stage spends, and all else. Both
are taken, in this order, from finished runs of the same cell; from finished runs of other cells in the same folder,
scaled by what there is to compute; or from arithmetic alone, which is rough.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.errors import UserError
from bench.estimate import Machine, Work, asking_seconds, stage_seconds
from bench.plan import Plan, PlannedRun
from bench.run_store import RunDirectory, read_json
from bench.runtime import Runtime
from bench.study_states import RunState

Source = Literal["same cell", "other cells", "arithmetic"]

SOURCES: Mapping[Source, str] = {
    "same cell": "finished runs of the same cell",
    "other cells": "finished runs of other cells, scaled by steps and tokens",
    "arithmetic": "steps, tokens, parameters and the speed of this machine; rough, it may be wrong by a factor of 5",
}

# A stage that another run of this folder has trained was not paid for by the run that took it (`bench.experiment`).
_TAKEN = re.compile(r"stage (\S+): taken from ")


@dataclass(frozen=True, slots=True)
class RunCost:
    """About what a run costs.

    Args:
        stages: seconds of each of its stages, should it train them itself.
        rest: seconds of all else.
        source: what this was taken from.
    """

    stages: tuple[float, ...]
    rest: float
    source: Source


@dataclass(frozen=True, slots=True)
class Estimate:
    """About how long a plan takes.

    Args:
        runs: seconds of each run that is to be done, by train_id, stages that it takes from others left out.
        seconds: of all of them, one after the other.
        elapsed: seconds by the clock with so many workers.
        workers: that were counted with; never more than can compute at once.
        sources: what the runs' seconds were taken from, and for how many runs.
    """

    runs: Mapping[str, float]
    seconds: float
    elapsed: float
    workers: int
    sources: Mapping[Source, int]


@dataclass(slots=True)
class Finished:
    """What finished runs have cost.

    Args:
        stages: seconds of stages, by cell and position.
        rest: seconds of all but training, by cell.
        train_rate, rest_rate: measured seconds over those of arithmetic, of other cells' runs.
    """

    stages: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    rest: dict[str, list[float]] = field(default_factory=dict)
    train_rates: list[float] = field(default_factory=list)
    rest_rates: list[float] = field(default_factory=list)

    def cost(self, run: PlannedRun, work: Work, machine: Machine) -> RunCost:
        """What a run is likely to cost."""
        by_arithmetic = [stage_seconds(work, stage, machine) for stage in work.stages]
        own = [self.stages.get((run.cell_id, position)) for position in range(len(work.stages))]
        if run.cell_id in self.rest and all(own):
            return RunCost(tuple(median(s) for s in own if s), median(self.rest[run.cell_id]), "same cell")
        rest = asking_seconds(work, machine)
        if self.rest_rates and (self.train_rates or not work.stages):
            # Medians: the first run of a process takes longer, since it reads what later ones find in memory.
            train_rate, rest_rate = median(self.train_rates or [1.0]), median(self.rest_rates)
            return RunCost(tuple(s * train_rate for s in by_arithmetic), rest * rest_rate, "other cells")
        return RunCost(tuple(by_arithmetic), rest, "arithmetic")


def estimate(
    plan: Plan,
    states: Sequence[RunState],
    runtime: Runtime,
    machine: Machine,
    *,
    workers: int = 1,
    retry_failed: bool = False,
) -> Estimate:
    """About how long what is left of a plan takes.

    Args:
        plan: with the work of each cell.
        states: of its runs, in order.
        runtime: where finished runs are.
        machine: the speed of the machine that computes.
        workers: processes that take runs.
        retry_failed: whether failed runs count among what is left.
    """
    finished = finished_runs(plan, runtime, machine)
    costs = {run.train_id: finished.cost(run, plan.work[run.cell], machine) for run in plan.runs}
    over = ("done",) if retry_failed else ("done", "failed")
    left = [state.planned for state in states if state.state not in over]
    trained = {
        stage.stage_id
        for state in states
        for stage in state.stages
        if stage.finished is not None or (stage.steps_total is not None and stage.steps_done >= stage.steps_total)
    }
    share = {state.planned.train_id: _shares_left(state) for state in states}
    seconds: dict[str, float] = {}
    claimed: set[str] = set(trained)
    for run in left:
        cost = costs[run.train_id]
        own = sum(
            stage * part
            for stage, identity, part in zip(cost.stages, run.stage_ids, share[run.train_id], strict=True)
            if identity not in claimed
        )
        claimed.update(run.stage_ids)
        seconds[run.train_id] = own + cost.rest
    workers = at_once(workers, runtime)
    sources = [costs[run.train_id].source for run in left]
    return Estimate(
        seconds,
        sum(seconds.values()),
        _elapsed([run.train_id for run in left], seconds, _waits_for(left, trained), workers),
        workers,
        {source: sources.count(source) for source in SOURCES if source in sources},
    )


def finished_runs(plan: Plan, runtime: Runtime, machine: Machine) -> Finished:
    """What the finished runs in the folder say: of the plan's cells with any seed."""
    cells = {run.cell_id: run for run in plan.runs}
    found = Finished()
    for file in sorted(runtime.runs.glob("*/result.json")):
        directory = RunDirectory(file.parent)
        try:
            summary = read_json(file)
            if summary["cell_id"] not in cells or directory.status().state != "done":
                continue
            run = cells[summary["cell_id"]]
            _add(found, run, plan.work[run.cell], summary, directory.status().seconds, _taken(directory.path), machine)
        except (UserError, KeyError, TypeError, ValueError):
            continue  # a result that cannot be read tells nothing; the study itself will say what is wrong with it
    return found


def at_once(workers: int, runtime: Runtime) -> int:
    """How many workers compute at the same time here: on CPUs, no more than there are cores for their threads."""
    if runtime.device not in ("cpu", "auto"):
        return workers
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(workers, available // max(1, runtime.threads or 1)))


def _add(
    found: Finished,
    run: PlannedRun,
    work: Work,
    summary: Mapping[str, Any],
    seconds: float,
    taken: Iterable[str],
    machine: Machine,
) -> None:
    stages = [float(stage["seconds"]) for stage in summary["stages"]]
    taken = set(taken)
    own = sum(s for s, stage in zip(stages, work.stages, strict=True) if stage.name not in taken)
    rest = max(0.0, seconds - own)
    for position, trained in enumerate(stages):
        found.stages.setdefault((run.cell_id, position), []).append(trained)
    found.rest.setdefault(run.cell_id, []).append(rest)
    if stages and sum(stages) > 0:
        found.train_rates.append(sum(stages) / sum(_arithmetic(work, machine)))
    found.rest_rates.append(rest / asking_seconds(work, machine))


def _arithmetic(work: Work, machine: Machine) -> list[float]:
    return [stage_seconds(work, stage, machine) for stage in work.stages]


def _taken(folder: Path) -> list[str]:
    """The stages that a run took from another one."""
    try:
        return _TAKEN.findall((folder / "log.txt").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


def _shares_left(state: RunState) -> tuple[float, ...]:
    """The share of each stage's steps that is still to be done."""
    if not state.stages:
        return (1.0,) * len(state.planned.stage_ids)
    return tuple(1 - s.steps_done / s.steps_total if s.steps_total else 1.0 for s in state.stages)


def _waits_for(left: Sequence[PlannedRun], trained: set[str]) -> dict[str, str]:
    """The run that trains the stage which another one takes, by train_id: the last of them, if there are several."""
    owner: dict[str, str] = {}
    waits: dict[str, str] = {}
    for run in left:
        for identity in run.stage_ids:
            if identity in trained:
                continue
            if identity in owner:
                waits[run.train_id] = owner[identity]
            else:
                owner[identity] = run.train_id
    return waits


def _elapsed(order: Sequence[str], seconds: Mapping[str, float], waits: Mapping[str, str], workers: int) -> float:
    """When the last run ends, if each free worker takes the next run that need not wait for another's stage.

    A run that others take a stage from is counted whole before they begin, which is a little too long.
    """
    waiting, ended, now = list(order), set[str](), 0.0
    busy: list[tuple[float, str]] = []
    while waiting or busy:
        ready = next((name for name in waiting if waits.get(name) is None or waits[name] in ended), None)
        if ready is not None and len(busy) < workers:
            waiting.remove(ready)
            heapq.heappush(busy, (now + seconds[ready], ready))
            continue
        now, name = heapq.heappop(busy)
        ended.add(name)
    return now
