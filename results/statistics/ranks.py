"""Many comparisons at once: Holm over the tests of a table, and ranks of cells over many tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from results.runs import ResultsError


@dataclass(frozen=True, slots=True)
class Friedman:
    """Friedman's test of cells over blocks, with what a critical-difference diagram needs.

    Args:
        statistic: chi-squared, corrected for ties.
        p: from the chi-squared distribution, as scipy's.
        mean_ranks: of each cell over blocks; 1 is the best.
        critical_difference: of mean ranks by Nemenyi at 5%: cells that are closer are not told apart.
        p_f: from Iman and Davenport's F statistic, which is less conservative with few blocks.
        blocks: how many were used, those without all values left out.
    """

    statistic: float
    p: float
    mean_ranks: tuple[float, ...]
    critical_difference: float
    p_f: float
    blocks: int


def holm(ps: Sequence[float]) -> list[float]:
    """p values of a family of tests, adjusted so that below 5% the chance of any false one is 5% (Holm 1979).

    Valid whatever the dependence between the tests; a family is all comparisons that a table marks.

    Raises:
        ValueError: one is no probability (a test that has no p is no member of the family).
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"p values are between 0 and 1, not {[p for p in ps if not 0 <= p <= 1]}")
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def friedman(
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating[Any]],
    *,
    higher_is_better: bool = True,
    alpha: float = 0.05,
) -> Friedman:
    """Whether cells differ over blocks (tasks, data sets), by their ranks within each block.

    Assumes that blocks are independent; metrics of different scales may be mixed, since only ranks count. Seeds of one
    task are no blocks: average them first.

    Args:
        scores: `(blocks, cells)`; a block with a NaN is left out.
        higher_is_better: whether rank 1 goes to the largest value.
        alpha: of the critical difference.

    Raises:
        ResultsError: fewer than 2 cells, or fewer than 2 blocks that have all values.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ResultsError(f"ranks need at least 2 cells; the scores have the shape {table.shape}")
    table = table[~np.isnan(table).any(axis=1)]
    blocks, cells = table.shape
    if blocks < 2:
        raise ResultsError(f"ranks need at least 2 tasks on which all cells have a value; there are {blocks}")
    from scipy.stats import chi2, f, rankdata

    ranks = rankdata(-table if higher_is_better else table, axis=1)
    means = ranks.mean(axis=0)
    spread = float(((means - (cells + 1) / 2) ** 2).sum())
    # Ties shrink the variance of ranks within a block; without any it is (k^2 - 1) / 12.
    within = float(((ranks - (cells + 1) / 2) ** 2).sum()) / (blocks * (cells - 1))
    statistic = blocks * spread / within if within > 0 else 0.0
    most = blocks * (cells - 1)
    p_f = 0.0
    if statistic < most * (1 - 1e-12):
        p_f = float(f.sf((blocks - 1) * statistic / (most - statistic), cells - 1, (cells - 1) * (blocks - 1)))
    return Friedman(
        statistic=statistic,
        p=float(chi2.sf(statistic, cells - 1)),
        mean_ranks=tuple(means.tolist()),
        critical_difference=critical_difference(cells, blocks, alpha),
        p_f=p_f,
        blocks=blocks,
    )


def critical_difference(cells: int, blocks: int, alpha: float = 0.05) -> float:
    """By how much two mean ranks must differ to be told apart, all pairs compared (Nemenyi; Demsar 2006, eq. 6).

    Raises:
        ResultsError: fewer than 2 cells or no block.
    """
    if cells < 2 or blocks < 1:
        raise ResultsError(f"a critical difference needs 2 cells and a block, not {cells} and {blocks}")
    return _studentized_range(cells, alpha) / math.sqrt(2) * math.sqrt(cells * (cells + 1) / (6 * blocks))


@lru_cache(maxsize=256)
def _studentized_range(cells: int, alpha: float) -> float:
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(1 - alpha, cells, math.inf))


def cliques(mean_ranks: Sequence[float], critical: float) -> list[tuple[int, ...]]:
    """The largest sets of cells that are not told apart: the bars of a critical-difference diagram.

    Args:
        mean_ranks: of each cell.
        critical: the critical difference.

    Returns:
        Sets of two or more places in `mean_ranks`, each by rank; none lies within another.
    """
    order = sorted(range(len(mean_ranks)), key=lambda place: mean_ranks[place])
    found: list[tuple[int, ...]] = []
    end = 0
    for start, first in enumerate(order):
        reach = sum(mean_ranks[place] - mean_ranks[first] <= critical for place in order[start:]) + start
        if reach > max(end, start + 1):
            found.append(tuple(order[start:reach]))
            end = reach
    return found
