"""What a study's states come to, in words: counts, the best cell so far, and what has happened since a last look."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.selection import Selection
from bench.study_states import RunState
from bench.time_left import in_words

_LONGEST = 300  # characters of a message


@dataclass(frozen=True, slots=True)
class Counts:
    """How many runs are where.

    Args:
        failed: by the class of the failure.
        interrupted: begun and held by nobody; a start goes on with them.
        waiting: not begun.
    """

    done: int
    running: int
    failed: Mapping[str, int]
    interrupted: int
    waiting: int

    @property
    def total(self) -> int:
        """All runs."""
        return self.done + self.running + sum(self.failed.values()) + self.interrupted + self.waiting

    @property
    def parts(self) -> list[str]:
        """In words."""
        classes = ", ".join(f"{count} {kind}" for kind, count in self.failed.items())
        parts = [
            f"{self.done} of {self.total} done",
            f"{self.running} running" if self.running else "",
            f"{sum(self.failed.values())} failed ({classes})" if self.failed else "",
            f"{self.interrupted} interrupted" if self.interrupted else "",
            f"{self.waiting} waiting" if self.waiting else "",
        ]
        return [part for part in parts if part]

    def __str__(self) -> str:
        return ", ".join(self.parts)


def count(states: Sequence[RunState]) -> Counts:
    """How many runs are where."""
    found = Counter(state.state for state in states)
    failed = Counter(state.error or "error" for state in states if state.state == "failed")
    return Counts(found["done"], found["running"], dict(sorted(failed.items())), found["interrupted"], found["planned"])


def best_so_far(states: Sequence[RunState], rule: Selection) -> str:
    """The best cell by the mean over its finished seeds, in words; empty while no run has a figure.

    Only cells with the largest number of finished seeds are compared, since a mean over fewer is another quantity; in
    the end these are the cells of which `bench.selection.selected` chooses.
    """
    figures: dict[str, list[float]] = {}
    for state in states:
        if state.figure is not None:
            figures.setdefault(state.planned.cell, []).append(state.figure)
    most = max(map(len, figures.values()), default=0)
    means = {cell: fmean(found) for cell, found in figures.items() if len(found) == most}
    if not means:
        return ""
    best = next(iter(means))
    for cell, mean in means.items():
        if rule.better(mean, means[best]):
            best = cell
    seeds = len({state.planned.seed for state in states})
    of = f", {most} of {seeds} seeds" if most < seeds else f", mean of {seeds} seeds" if seeds > 1 else ""
    return f"{printable(best)} {means[best]:.4g} ({rule.described}{of})"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run.

    Args:
        when: seconds since 1970.
        state: as it is since.
        text: in words.
    """

    when: float
    state: RunState
    text: str

    @property
    def is_failure(self) -> bool:
        """Whether a person may have to do something."""
        return self.state.state == "failed" or self.state.error is not None

    @property
    def is_end(self) -> bool:
        """Whether nobody is at the run any more."""
        return self.state.state != "running"

    def __str__(self) -> str:
        return f"{time.strftime('%H:%M:%S', time.localtime(self.when))} {self.text}"


def events_between(before: Sequence[RunState] | None, now: Sequence[RunState]) -> Iterator[Event]:
    """Runs that began, ended, failed or were interrupted between two looks; at a first look, the failures there are."""
    for position, state in enumerate(now):
        if before is None:
            if state.state == "failed":
                yield Event(state.updated, state, ended(state))
            continue
        earlier = before[position].state
        if state.state == earlier:
            continue
        if state.state == "running":
            went_on = "goes on" if earlier == "interrupted" else "tried again" if earlier == "failed" else "begins"
            yield Event(state.updated, state, f"{title(state)} {went_on} ({place(state)})")
        elif state.state != "planned":
            yield Event(state.updated, state, ended(state))


def newest(events: Sequence[Event], room: int) -> list[Event]:
    """The newest events, oldest first; failures give way to what ends well only while they have less than half."""
    if room <= 0:
        return []
    latest = list(events[-room:])
    missed = [event for event in events[:-room] if event.is_failure]
    keep = max(0, min(len(missed), room // 2 - sum(event.is_failure for event in latest)))
    for _ in range(keep):
        latest.remove(next(event for event in latest if not event.is_failure))
    return [*missed[len(missed) - keep :], *latest]


def ended(state: RunState) -> str:
    """How a run ended, in words."""
    if state.state == "done":
        figure = "" if state.figure is None else f", {state.figure:.4g}"
        return f"{title(state)} done in {in_words(state.seconds)}{figure}"
    kind = f" ({state.error})" if state.error else ""
    during = f"in {printable(state.phase)}" if state.phase else ""
    if state.message:  # first, since a line may be cut
        return f"{title(state)} {state.state}{kind}: {printable(state.message)}{f' ({during})' if during else ''}"
    return f"{title(state)} {state.state}{kind} {during}".rstrip()


def title(state: RunState) -> str:
    """A run as people call it."""
    return f"{printable(state.planned.cell)} seed {state.planned.seed}"


def place(state: RunState) -> str:
    """Which process is at a run, and where."""
    return f"{printable(state.host)}:{state.pid}"


def losses(state: RunState) -> str:
    """The newest losses."""
    named = (("loss", state.loss), ("val", state.validation))
    return ", ".join(f"{name} {value:.3g}" for name, value in named if value is not None)


def doing(state: RunState) -> tuple[str, int, int | None]:
    """What a run does now, how much of it is done, and how much there is to do where that is known."""
    for stage in state.stages:
        if state.phase == f"stage {stage.name}":
            return printable(stage.name), stage.steps_done, stage.steps_total
    if state.phase == "generating":
        answered = state.answers_total is not None and state.answers_done >= state.answers_total
        return "measuring" if answered else "answering", state.answers_done, state.answers_total
    return printable(state.phase), 0, None


def share_done(state: RunState) -> float | None:
    """The share of a run's training that is done; None while its steps are not known."""
    if not state.steps_total:
        return None
    return state.steps_done / state.steps_total


def printable(text: str) -> str:
    """Text that cannot move the cursor, change colours or turn the direction of writing, and is not endless."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: _LONGEST + 1])
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"
