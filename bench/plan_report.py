"""The plan of a study before it starts: what there is, what is done, what is shared, and about what the rest costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.cost import SOURCES, Estimate, estimate
from bench.estimate import Machine, Work, measured_speed
from bench.identity import content_hash
from bench.plan import Plan
from bench.runtime import Runtime
from bench.study_states import RunState, states_of
from bench.time_left import in_words

_WIDE = 160  # columns of the table where it goes to a file


def show_plan(plan: Plan, runtime: Runtime, *, workers: int = 1, retry_failed: bool = False) -> dict[str, Any]:
    """Shows the plan on the runtime's console; returns it for programs, as `describe_plan` does."""
    states = states_of(plan, runtime)
    described = describe_plan(plan, states, runtime, workers=workers, retry_failed=retry_failed)
    console = runtime.console
    if not console.is_terminal:  # a pipe or a file has no width, and would be given a narrow one
        console = Console(file=console.file, width=_WIDE, quiet=console.quiet)
    console.print(_table(described))
    for line in plan_lines(described):
        runtime.say(line)
    return described


def describe_plan(
    plan: Plan,
    states: Sequence[RunState],
    runtime: Runtime,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    machine: Machine | None = None,
) -> dict[str, Any]:
    """All that can be said of a plan before it starts, as JSON has it.

    Args:
        plan: of the study.
        states: of its runs, in order.
        runtime: where they are, and on what they are computed.
        workers: processes that take runs.
        retry_failed: whether failed runs are to be tried again.
        machine: its speed; measured now if it is not known.
    """
    machine = machine or measured_speed(runtime)
    cost = estimate(plan, states, runtime, machine, workers=workers, retry_failed=retry_failed)
    counts = Counter(state.state for state in states)
    failed = Counter(state.error or "error" for state in states if state.state == "failed")
    return {
        "study": plan.study,
        "runs_folder": str(runtime.runs),
        "runs": len(plan.runs),
        "seeds": list(plan.seeds),
        "done": counts["done"],
        "running": counts["running"],
        "to_resume": counts["interrupted"],
        "failed": dict(sorted(failed.items())),
        "to_do": len(cost.runs),
        "retry_failed": retry_failed,
        "select": plan.select.described,
        "shared": _shared(plan),
        "cells": [_cell(plan, cell, states, cost) for cell in plan.cells],
        "estimate": {
            "seconds": round(cost.seconds, 1),
            "elapsed": round(cost.elapsed, 1),
            "workers": workers,
            "at_once": cost.workers,
            "sources": dict(cost.sources),
            "is_rough": "arithmetic" in cost.sources,
        },
    }


def plan_lines(described: Mapping[str, Any]) -> Iterator[str]:
    """The plan in lines, but for its table of cells."""
    cells, seeds = len(described["cells"]), len(described["seeds"])
    whole = cells * seeds == described["runs"]
    product = f"{_number(cells, 'cell')} x {_number(seeds, 'seed')} = " if whole else f"{_number(cells, 'cell')}, "
    yield f"study {described['study']}: {product}{_number(described['runs'], 'run')} in {described['runs_folder']}"
    failed = ", ".join(f"{count} {kind}" for kind, count in described["failed"].items())
    again = "" if described["retry_failed"] else "; --retry-failed tries them again"
    stand = [
        f"{described['done']} done",
        f"{described['running']} running now" if described["running"] else "",
        f"{described['to_resume']} to resume" if described["to_resume"] else "",
        f"{sum(described['failed'].values())} failed ({failed}{again})" if failed else "",
        f"{described['to_do']} to do",
    ]
    yield "runs: " + ", ".join(part for part in stand if part)
    yield from _shared_lines(described["shared"])
    yield f"selection: {described['select']}, mean over seeds"
    if described["to_do"]:
        yield from _cost_lines(described["estimate"])


def _cost_lines(cost: Mapping[str, Any]) -> Iterator[str]:
    about = "roughly " if cost["is_rough"] else "about "
    line = f"estimate: {about}{in_words(cost['seconds'])} of computing"
    if cost["workers"] > 1:
        line += f", {about}{in_words(cost['elapsed'])} with {cost['workers']} workers"
    if cost["at_once"] < cost["workers"]:
        line += f", of which this machine computes {cost['at_once']} at a time"
    yield line
    for source, count in cost["sources"].items():
        yield f"  {_number(count, 'run')} by {SOURCES[source]}"


def _shared_lines(shared: Mapping[str, Any]) -> Iterator[str]:
    for stage in shared["stages"]:
        if stage["trained"] < stage["runs"]:
            yield f"shared: stage {stage['name']} is trained {stage['trained']} times for {stage['runs']} runs"
    features, models = shared["features"], shared["language_models"]
    if features["cells"] > 1:
        yield f"shared: {_number(features['schemes'], 'set')} of features for {features['cells']} cells, made once"
    yield f"shared: {_number(models, 'language model')} for all runs"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _shared(plan: Plan) -> dict[str, Any]:
    """What several runs have in common, and is made once."""
    stages: dict[str, list[str]] = {}
    for run in plan.runs:
        for stage, identity in zip(run.config.stages, run.stage_ids, strict=True):
            stages.setdefault(stage.name, []).append(identity)
    first = {run.cell: run.config for run in reversed(plan.runs)}
    reading = [config for config in first.values() if config.projector.places_tokens]
    return {
        "stages": [{"name": name, "runs": len(ids), "trained": len(set(ids))} for name, ids in stages.items()],
        "features": {
            "schemes": len({content_hash(scheme) for config in reading for scheme in config.encoder.features()}),
            "cells": len(reading),
        },
        "language_models": len({content_hash([c.llm.name, c.llm.revision, c.llm.tiny]) for c in first.values()}),
    }


def _cell(plan: Plan, cell: str, states: Sequence[RunState], cost: Estimate) -> dict[str, Any]:
    mine = [state for state in states if state.planned.cell == cell]
    config, work = mine[0].planned.config, plan.work.get(cell)
    left = [cost.runs[state.planned.train_id] for state in mine if state.planned.train_id in cost.runs]
    return {
        "cell": cell,
        "cell_id": mine[0].planned.cell_id,
        "encoder": config.encoder.name,
        "projector": config.projector.name,
        "parameters": None if work is None else _parameters(work),
        "steps": None if work is None else [stage.steps for stage in work.stages],
        "done": sum(state.state == "done" for state in mine),
        "states": dict(Counter(_state(state) for state in mine)),
        "seconds_per_run": round(fmean(left), 1) if left else None,
    }


def _parameters(work: Work) -> dict[str, int]:
    return {
        "trained": work.trained,
        "encoder": work.encoder,
        "projector": work.projector,
        "llm": work.llm,
        "adapters": work.adapters,
    }


def _state(state: RunState) -> str:
    return f"failed ({state.error or 'error'})" if state.state == "failed" else state.state


def _table(described: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("cell", "encoder", "projector"):
        table.add_column(name, overflow="fold")
    for name in ("trained", "in projector", "steps", "time of a run"):
        table.add_column(name, justify="right")
    table.add_column("runs", overflow="fold")
    for cell in described["cells"]:
        parameters = cell["parameters"] or {}
        steps = [str(steps) if steps is not None else "?" for steps in cell["steps"] or ()]
        seconds = cell["seconds_per_run"]
        table.add_row(
            cell["cell"],
            cell["encoder"],
            cell["projector"],
            f"{parameters['trained']:,}" if parameters else "?",
            f"{parameters['projector']:,}" if parameters else "?",
            " + ".join(steps) or "none",
            "" if seconds is None else in_words(seconds),
            ", ".join(f"{count} {state}" for state, count in cell["states"].items()),
        )
    return table
