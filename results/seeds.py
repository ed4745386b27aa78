"""One metric over the runs of one cell, some of which may lack it: one rule for tables, comparisons, ranks and reports.

A metric may be undefined in one seed, as R2 where a model gave no answer that is a number. The mean of the other seeds
is then one over the luckier part of the runs. Wherever it is shown, `counted` stands beside it ("2 of 3 seeds") and
`why` in a note; it is never marked as the best, has no rank, and takes part in no test: all of that asks `is_complete`
first, and `NOT_ALL_SEEDS` is what to say where a test is missing because of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from results.runs import Run

NOT_ALL_SEEDS = "no test: undefined in some of its seeds"
"""Why a cell that lacks the metric in some runs is not tested."""


class Scored(Protocol):
    """A run's scores under one protocol; `results.tables.gather.Answer` is one, and a leaderboard's answer."""

    @property
    def run(self) -> Run:
        """Whose they are."""

    @property
    def score(self) -> Mapping[str, Any]:
        """Its scores, as `results.runs.score_of` gives them."""


@dataclass(frozen=True, slots=True)
class OverRuns:
    """A metric in the runs of a cell.

    Args:
        values: of the runs that have one, in their order.
        runs: how many there are.
        lacking: the runs that have none, as "seed 3", each with its reason.
    """

    values: tuple[float, ...]
    runs: int
    lacking: tuple[tuple[str, str], ...]

    @property
    def mean(self) -> float | None:
        """Over the runs that have a value; to be shown only with `counted`. None where none has."""
        return fmean(self.values) if self.values else None

    @property
    def is_complete(self) -> bool:
        """Whether every run has a value, so that the cell may be ranked, tested and marked."""
        return bool(self.values) and not self.lacking

    @property
    def is_partial(self) -> bool:
        """Whether some runs have a value and some have none."""
        return bool(self.values) and bool(self.lacking)

    @property
    def counted(self) -> str:
        """`2 of 3 seeds` where the mean is not of all of them; else empty."""
        return f"{len(self.values)} of {self.runs} seeds" if self.is_partial else ""

    @property
    def why(self) -> str:
        """Which runs lack the metric, and why: `seed 3: no answer is a number`; empty where none does.

        Where all of them lack it for one reason, it is that reason alone.
        """
        reasons: dict[str, list[str]] = {}
        for seed, reason in self.lacking:
            reasons.setdefault(reason, []).append(seed)
        if not self.values and len(reasons) == 1:
            return next(iter(reasons))
        return "; ".join(f"{_together(seeds)}: {reason}" for reason, seeds in reasons.items())


def over_runs(answers: Sequence[Scored], metric: str) -> OverRuns:
    """A metric in each of a cell's runs.

    Args:
        answers: the cell's runs with their scores, by seed.
        metric: its name; a score that has no such metric lacks it too.
    """
    values: list[float] = []
    lacking: list[tuple[str, str]] = []
    for answer in answers:
        estimate = answer.score["metrics"].get(metric)
        value = None if estimate is None else estimate.get("value")
        if value is not None and math.isfinite(value):
            values.append(float(value))
        else:
            lacking.append((_seed(answer.run), reason_of(estimate)))
    return OverRuns(tuple(values), len(answers), tuple(lacking))


def difference(a: OverRuns, b: OverRuns) -> float | None:
    """The first cell's mean less the second's; None unless both are of all seeds, since others may not be compared."""
    if a.mean is None or b.mean is None or not (a.is_complete and b.is_complete):
        return None
    return a.mean - b.mean


def reason_of(estimate: Mapping[str, Any] | None) -> str:
    """Why a score's metric has no value, without what was known of the machine alone, and without a full stop."""
    if estimate is None:
        return "not scored"
    # What follows a colon is where it was looked for: that machine's matter.
    return str(estimate.get("reason") or "undefined").split(": ")[0].rstrip(".")


def _seed(run: Run) -> str:
    return run.name if run.seed is None else f"seed {run.seed}"


def _together(seeds: Sequence[str]) -> str:
    """`seed 1`, `seeds 1 and 3`; names of runs that have no seed are listed as they are."""
    numbers = [seed.removeprefix("seed ") for seed in seeds]
    if len(seeds) < 2:
        return "".join(seeds)
    listed = f"{', '.join(numbers[:-1])} and {numbers[-1]}"
    return f"seeds {listed}" if all(seed.startswith("seed ") for seed in seeds) else listed
