"""Two cells example by example: where only one is right (McNemar), and how often each is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from results.runs import ResultsError

Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class McNemar:
    """McNemar's test of two cells that are right or wrong on the same examples.

    Args:
        p: two-sided, from the binomial distribution; 1 where the two are right on the same examples.
        only_a: examples on which only the first is right.
        only_b: examples on which only the second is right.
    """

    p: float
    only_a: int
    only_b: int

    exact: ClassVar[bool] = True  # no approximation by chi-squared, whatever the number of examples


@dataclass(frozen=True, slots=True)
class Wins:
    """On how many examples the first cell has the larger value, the second has, and both have the same."""

    a: int
    b: int
    ties: int


def mcnemar(a: Values, b: Values) -> McNemar:
    """Whether two cells are right equally often, from one answer each to the same examples.

    Examples on which both are right or both are wrong say nothing about it; of the others, each is as likely to be the
    one's as the other's if the two are equally good. Assumes independent examples and takes the trained models as they
    are; for several seeds of a cell `paired` is the test, or this one for each seed.

    Args:
        a, b: 1 (right) or 0 for each example, in the same order; an example that is NaN in either has no part.

    Raises:
        ResultsError: other values, or different numbers of them.
    """
    first, second = _both(a, b)
    if not np.isin([first, second], (0.0, 1.0)).all():
        raise ResultsError("McNemar's test is of right (1) and wrong (0) answers; there are other values")
    only_a, only_b = int((first > second).sum()), int((first < second).sum())
    if only_a == only_b:
        return McNemar(1.0, only_a, only_b)
    from scipy.stats import binom

    p = 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)
    return McNemar(min(1.0, float(p)), only_a, only_b)


def wins(a: Values, b: Values) -> Wins:
    """On how many examples each of two cells has the larger value; an example that is NaN in either has no part.

    Raises:
        ResultsError: different numbers of examples.
    """
    first, second = _both(a, b)
    return Wins(int((first > second).sum()), int((first < second).sum()), int((first == second).sum()))


def _both(a: Values, b: Values) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ResultsError(f"one value for each of the same examples is needed: {first.shape} and {second.shape}")
    known = ~(np.isnan(first) | np.isnan(second))
    return first[known], second[known]
