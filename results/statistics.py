"""Means, spreads and intervals. scipy does the mathematics; each function says what it assumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 9999
SEED = 20


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
    """A mean over examples and its 95% interval; the interval is None below 2 examples."""

    mean: float
    ci95: tuple[float, float] | None
    n: int


def over_seeds(values: Sequence[float]) -> Spread | None:
    """The spread of a metric over runs of one cell, which differ in their seed only. None without values."""
    if not values:
        return None
    sd = float(np.std(values, ddof=1)) if len(values) >= 3 else None
    return Spread(float(np.mean(values)), sd, len(values))


def mean_over_examples(values: Sequence[float]) -> Interval | None:
    """Mean and percentile bootstrap interval. Assumes that examples are independent draws; None without values."""
    if not values:
        return None
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return Interval(float(array.mean()), None, len(array))
    from scipy.stats import bootstrap

    found = bootstrap(
        (array,),
        np.mean,
        method="percentile",
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(array)),
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(array.mean()), (float(found.low), float(found.high)), len(array))


def averaged_per_example(runs: Sequence[Mapping[str, float]]) -> list[float]:
    """Each example's value averaged over runs, for the examples that all runs have.

    Seeds of one cell answer the same examples, so their values are not independent; averaging first keeps one value per
    example, and an interval over examples then does not count the same example once per seed.
    """
    shared = set.intersection(*(set(run) for run in runs)) if runs else set()
    return [float(np.mean([run[example] for run in runs])) for example in sorted(shared)]
