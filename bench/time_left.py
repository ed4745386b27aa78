"""How long a study will still take, from what its runs took so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from bench.study_states import RunState, StageState

K = TypeVar("K")


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """A forecast.

    Args:
        seconds: until all runs are done that have not failed.
        is_least: it may well take longer, since something is not known yet: what a run does beside training before one
            is done, or how many steps a stage has.
    """

    seconds: float
    is_least: bool = False

    def __str__(self) -> str:
        return f"{'more than' if self.is_least else 'about'} {in_words(self.seconds)}"


def time_left(states: Sequence[RunState], workers: int | None = None) -> TimeLeft | None:
    """How long the runs still take that are neither done nor failed; None where nothing is known or nobody works.

    Work is counted in optimiser steps, each at the pace of its own run, else of its cell, else of all stages of its
    name, and in what a run does beside training, such as answering. What is typical of several is their median, for a
    worker's first run also loads what later ones find loaded. A stage that several runs have in common counts
    once. Work is shared evenly by the workers, but none of it ends before its longest run.

    Args:
        states: of all runs of a study.
        workers: that run at the same time; None for as many as there are runs going on.
    """
    left = [state for state in states if state.state not in ("done", "failed")]
    if not left:
        return TimeLeft(0.0)
    hands = min(workers or sum(state.state == "running" for state in left), len(left))
    paces, beside = _Paces(states), _beside_training(states)
    finished = {stage.stage_id for state in states for stage in state.stages if stage.finished is not None}
    begun: dict[str, int] = {}
    for stage in (stage for state in left for stage in state.stages):
        begun[stage.stage_id] = max(stage.steps_done, begun.get(stage.stage_id, 0))
    if not hands or not (paces.known or beside):
        return None
    is_least, counted, each = not beside, set(finished), []
    for state in sorted(left, key=lambda state: -state.steps_done):  # who is ahead trains what others wait for
        seconds = 0.0
        for stage in state.stages:
            if stage.stage_id in counted:
                continue
            counted.add(stage.stage_id)
            pace = paces.of(state, stage)
            if stage.steps_total is None or pace is None:
                is_least = True
            else:
                seconds += pace * max(0, stage.steps_total - begun[stage.stage_id])
        each.append(seconds + _beside(state, beside))
    return TimeLeft(max(sum(each) / hands, max(each)), is_least)


def in_words(seconds: float) -> str:
    """A length of time as people say it, in two units at most: `40 s`, `14 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 100:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(round(minutes / 10) * 10 if minutes >= 600 else minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


class _Paces:
    """Seconds per optimiser step of stages: of a cell, of a name, of all."""

    def __init__(self, states: Iterable[RunState]) -> None:
        found: dict[str, tuple[str, StageState]] = {}  # a stage that others took counts once
        for state in states:
            for stage in state.stages:
                if stage.pace is not None:
                    found.setdefault(stage.stage_id, (state.planned.cell_id, stage))
        self.known = bool(found)
        self._typical = _typical(
            (key, stage.pace or 0.0)
            for cell, stage in found.values()
            for key in ((cell, stage.name), ("", stage.name), ("", ""))
        )

    def of(self, state: RunState, stage: StageState) -> float | None:
        """The pace at which a stage will go on."""
        if stage.pace is not None:
            return stage.pace
        keys = (state.planned.cell_id, stage.name), ("", stage.name), ("", "")
        return next((self._typical[key] for key in keys if key in self._typical), None)


def _beside_training(states: Sequence[RunState]) -> Mapping[tuple[str, ...], float]:
    """Seconds that a finished run took beside the stages that it trained itself: of a cell, and of all.

    A stage that a run took from another is told by its later report.
    """
    first: dict[str, float] = {}
    for state in states:
        for stage in state.stages:
            if stage.finished is not None:
                first[stage.stage_id] = min(stage.finished, first.get(stage.stage_id, stage.finished))
    rows = []
    for state in states:
        if state.state == "done":
            own = sum(
                (stage.pace or 0.0) * stage.steps_done
                for stage in state.stages
                if stage.finished == first.get(stage.stage_id)
            )
            beside = max(0.0, state.seconds - own)
            rows += [((state.planned.cell_id,), beside), ((), beside)]
    return _typical(rows)


def _beside(state: RunState, known: Mapping[tuple[str, ...], float]) -> float:
    """What is left to be done beside training."""
    whole = known.get((state.planned.cell_id,), known.get((), 0.0))
    return whole * (1 - state.answers_done / state.answers_total) if state.answers_total else whole


def _typical(rows: Iterable[tuple[K, float]]) -> dict[K, float]:
    values: dict[K, list[float]] = {}
    for key, value in rows:
        values.setdefault(key, []).append(value)
    return {key: median(found) for key, found in values.items()}
