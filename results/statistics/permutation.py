"""The permutation test of two cells on the same examples: of cells that are alike, each example's rows may be swapped.

The null distribution depends on the two cells' rows only as unordered pairs. They are brought into one order first, so
that p depends neither on the order of examples nor on which cell is called the first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from results.statistics.formulas import (
    Additive,
    Areas,
    Basis,
    Ranked,
    contributions,
    formula_of,
    group_codes,
    in_sums,
    mean_of_defined,
    mean_of_terms,
    parts_of,
)
from results.statistics.resampling import RESAMPLES, SEED, FloatArray, all_swaps, random_swaps

Codes = npt.NDArray[np.intp]

_ROUNDING = 1e-12  # of the larger of the two values: differences that are closer than this count as equal


def permutation_test(
    a: Sequence[Basis], b: Sequence[Basis], values: tuple[float, float], resamples: int = RESAMPLES, seed: int = SEED
) -> tuple[float, str]:
    """Two-sided p of the difference between two cells' metrics (means over seeds), and how it was found.

    An example's rows are swapped as a whole, those of all seeds together: seeds share what makes an example easy. With
    unequal numbers of seeds, rows of seed i of one cell change places with those of seed i of the other, counted round.
    Where at most 13 or so examples differ, all ways to swap them are tried and p is exact. Of a ROC curve it is ranks
    that are swapped, not scores (Venkatraman and Begg 1996): two models' probabilities need not be on one scale.

    Args:
        a, b: one basis for each seed of each cell, over the same examples in the same order.
        values: the metric of `a` and of `b` over all examples, each a mean over its seeds.
        resamples: how many random ways to swap are tried where there are more.
        seed: of these.

    Returns:
        p, which is never 0 (the observed way is one of those counted), and a name of the test for notes.
    """
    formula = formula_of(a[0])
    low, high, codes, moving = _in_one_order(a, b)
    n = int(moving.sum())
    if n == 0:
        return 1.0, "permutation (no example differs)"
    ways = 1 << (n - 1)  # the other half gives the same differences with the other sign
    is_exact = n < 60 and 2 * ways <= resamples
    swaps: Iterator[FloatArray] = all_swaps(n) if is_exact else random_swaps(n, resamples, seed)
    difference = _swapped(formula, low, high, codes, moving)

    least = abs(values[0] - values[1])
    least -= _ROUNDING * max(map(abs, values)) + 1e-9 * least
    extreme = defined = 0
    for block in swaps:
        found = difference(block)
        known = ~np.isnan(found)
        extreme += int((np.abs(found[known]) >= least).sum())
        defined += int(known.sum())
    if is_exact:
        return extreme / max(1, defined), f"permutation (all {2 * ways:,})"
    return (extreme + 1) / (defined + 1), f"permutation ({resamples:,} drawn)"


def _in_one_order(
    a: Sequence[Basis], b: Sequence[Basis]
) -> tuple[FloatArray, FloatArray, Codes, npt.NDArray[np.bool_]]:
    """Both cells' rows `(n, s, k)`, of each example the smaller first; groups; and which examples differ at all.

    Examples are ordered by group, then by their rows. There are as many `s` as both numbers of seeds go into.
    """
    codes = group_codes(a)
    seeds = math.lcm(len(a), len(b))
    of_seeds = [[_exchangeable(basis, codes) for basis in cell] for cell in (a, b)]
    first, second = (np.stack([cell[i % len(cell)] for i in range(seeds)], axis=1) for cell in of_seeds)
    n = len(first)
    lowest = np.finfo(np.float64).min
    keys = [np.where(np.isnan(rows), lowest, rows).reshape(n, -1) + 0.0 for rows in (first, second)]  # -0.0 is 0.0
    unequal = keys[0] != keys[1]
    moving = unequal.any(axis=1)
    where = np.arange(n), unequal.argmax(axis=1)
    is_larger = keys[0][where] > keys[1][where] if n else np.zeros(0, dtype=np.bool_)
    low_key, high_key = (np.where(is_larger[:, None], keys[1 - i], keys[i]) for i in (0, 1))
    low, high = (np.where(is_larger[:, None, None], (second, first)[i], (first, second)[i]) for i in (0, 1))
    order = np.lexsort((*high_key.T[::-1], *low_key.T[::-1], codes))
    return low[order], high[order], codes[order], moving[order]


def _exchangeable(basis: Basis, codes: Codes) -> FloatArray:
    """Rows that mean the same in both cells: scores as ranks within their group, ties as the mean of theirs."""
    if not isinstance(formula_of(basis), Ranked):
        return basis.rows
    from scipy.stats import rankdata

    rows = basis.rows.copy()
    for part in parts_of(codes):
        of_group = rows[part]
        known = ~np.isnan(of_group).any(axis=1)
        of_group[known, 0] = rankdata(of_group[known, 0])
        rows[part] = of_group
    return rows


def _swapped(
    formula: Additive | Ranked, low: FloatArray, high: FloatArray, codes: Codes, moving: npt.NDArray[np.bool_]
) -> Callable[[FloatArray], FloatArray]:
    """From `(R, n moving)` swaps to `(R,)` differences of the mean over seeds."""
    if isinstance(formula, Ranked):
        return _swapped_ranks(low, high, codes, moving)
    return _swapped_sums(formula, low, high, codes, moving)


def _swapped_sums(
    formula: Additive, low: FloatArray, high: FloatArray, codes: Codes, moving: npt.NDArray[np.bool_]
) -> Callable[[FloatArray], FloatArray]:
    seeds = low.shape[1]
    both = contributions(formula, np.concatenate([low, high], axis=1))
    first, second = both[:, :seeds], both[:, seeds:]
    moves = (second - first)[moving]
    totals = [(first[part].sum(axis=0), second[part].sum(axis=0)) for part in parts_of(codes)]
    # Examples stand by group, and so do those of them that move.
    ends = np.searchsorted(codes[moving], np.unique(codes), side="right").tolist()
    parts = [slice(*both) for both in itertools.pairwise([0, *ends])]

    def difference(swaps: FloatArray) -> FloatArray:
        values: tuple[list[FloatArray], list[FloatArray]] = ([], [])
        for part, (of_first, of_second) in zip(parts, totals, strict=True):
            moved = in_sums(swaps[:, part], moves[part])
            values[0].append(formula.terms(of_first + moved))
            values[1].append(formula.terms(of_second - moved))
        means = [mean_of_terms(np.stack(of_groups, axis=2)).mean(axis=1) for of_groups in values]
        return np.asarray(means[0] - means[1])

    return difference


def _swapped_ranks(
    low: FloatArray, high: FloatArray, codes: Codes, moving: npt.NDArray[np.bool_]
) -> Callable[[FloatArray], FloatArray]:
    """The same for areas: all rows of both cells are ranked once, and weights say which of them are in a cell."""
    groups = []
    for code in np.unique(codes):
        here = codes == code
        pooled = np.concatenate([low[here & ~moving], low[here & moving], high[here & moving]])
        areas = [Areas(pooled[:, seed]) for seed in range(low.shape[1])]
        groups.append((int((here & ~moving).sum()), np.flatnonzero(codes[moving] == code), areas))

    def difference(swaps: FloatArray) -> FloatArray:
        values: tuple[list[FloatArray], list[FloatArray]] = ([], [])
        for still, places, areas in groups:
            swapped = swaps[:, places]
            stays = np.ones((len(swaps), still))
            for cell, of_groups in zip(((1 - swapped), swapped), values, strict=True):
                weights = np.concatenate([stays, cell, 1 - cell], axis=1)
                of_groups.append(np.stack([area(weights) for area in areas], axis=1))
        means = [mean_of_defined(np.stack(of_groups, axis=2)).mean(axis=1) for of_groups in values]
        return np.asarray(means[0] - means[1])

    return difference
