"""Which rows of a board are not told apart from the first one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from results.leaderboard.board import Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

LEVEL = 0.05

_MANY = 200  # examples from which on the permutation distribution of a sum is taken for the normal one that it tends to
_MOST_AT_ONCE = 500  # rows whose differences are held as float64 together: some 13 MB of 3,300 examples


def level_with_first(rows: Sequence[Row]) -> list[bool | None]:
    """For each row whether its difference to the first is not significant: paired, at 5%, Holm over the board.

    The test is the permutation test that swaps the two rows' values example by example, two-sided. Its distribution of
    the sum of differences has mean 0 and the variance of the sum of their squares; from 200 examples on it is taken for
    normal, below 9,999 swaps are drawn. The first row itself is level; None where values by example are not known.

    Args:
        rows: best first, by the mean of `Row.examples`.
    """
    if not rows or rows[0].examples is None:
        return [None] * len(rows)
    tested = [place for place, row in enumerate(rows) if place and row.examples is not None]
    ps: list[float] = []
    for start in range(0, len(tested), _MOST_AT_ONCE):
        ps += _against(rows[0], [rows[place] for place in tested[start : start + _MOST_AT_ONCE]])
    found: list[bool | None] = [None] * len(rows)
    found[0] = True
    if tested:
        from results.statistics import holm

        for place, p in zip(tested, holm(ps), strict=True):
            found[place] = p >= LEVEL
    return found


def _against(first: Row, others: Sequence[Row]) -> list[float]:
    import numpy as np

    assert first.examples is not None
    own = first.examples.astype(np.float64)
    values = np.stack([row.examples for row in others if row.examples is not None]).astype(np.float64)
    differences = np.nan_to_num(own - values)  # an example that one of the two lacks says nothing
    normal = differences.shape[1] >= _MANY
    return [float(p) for p in (_of_normal(differences) if normal else _of_swaps(differences))]


def _of_normal(differences: FloatArray) -> FloatArray:
    """p of each row of `(rows, n)` differences."""
    import numpy as np
    from scipy.special import ndtr

    deviation = np.sqrt((differences**2).sum(axis=1))
    reach = np.abs(differences.sum(axis=1)) / np.where(deviation > 0, deviation, 1.0)
    return np.asarray(np.where(deviation > 0, 2 * ndtr(-reach), 1.0))


def _of_swaps(differences: FloatArray) -> FloatArray:
    import numpy as np

    from results.statistics.resampling import RESAMPLES, SEED, random_swaps

    least = np.abs(differences.sum(axis=1)) - 1e-9 * np.abs(differences).sum(axis=1)
    as_far = np.zeros(len(differences))
    for swaps in random_swaps(differences.shape[1], RESAMPLES, SEED):
        as_far += (np.abs((1 - 2 * swaps) @ differences.T) >= least).sum(axis=0)
    return np.asarray((as_far + 1) / (RESAMPLES + 1))
