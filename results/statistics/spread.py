"""Means, spreads and intervals, over seeds and over examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

FEWEST_SEEDS = 3
"""Below this many seeds nothing is said of their spread: of two values it is hardly better than a guess."""

FEWEST_EXAMPLES = 10
"""Below this many examples no interval is shown: a bootstrap of so few is far too narrow."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Values over seeds.

    Args:
        mean: their mean.
        sd: sample standard deviation (ddof 1); None below 3 values, where it says nothing.
        n: how many there are.
    """

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its 95% interval, over `n` examples or seeds; the interval is None where there are too few."""

    mean: float
    ci95: tuple[float, float] | None
    n: int


def over_seeds(values: Sequence[float]) -> Spread | None:
    """The spread of a metric over runs of one cell, which differ in their seed only. None without values."""
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) >= FEWEST_SEEDS else None
    return Spread(float(np.mean(values)), sd, len(values))


def seed_interval(values: Sequence[float]) -> Interval | None:
    """Mean over seeds and its interval by Student's t, of the mean that infinitely many seeds would have.

    Assumes that seeds are independent draws and that a metric is about normal over seeds, which three values cannot
    show. The test set is taken as fixed: over other examples `over_examples` speaks. None without values; no interval
    below 3 of them.
    """
    if not values:
        return None
    mean = float(np.mean(values))
    if len(values) < FEWEST_SEEDS:
        return Interval(mean, None, len(values))
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean, (mean - half, mean + half), len(values))


def averaged_per_example(runs: Sequence[Mapping[str, float]]) -> list[float]:
    """Each example's value averaged over runs, for the examples that all runs have.

    Seeds of one cell answer the same examples, so their values are not independent; averaging first keeps one value per
    example, and an interval over examples then does not count the same example once per seed.
    """
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    return [float(np.mean([run[example] for run in runs])) for example in sorted(shared)]
