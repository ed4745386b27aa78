"""How the rows of a board compare with its first one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from results.leaderboard.board import Against, Row
from results.metrics import Directions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

_FEW = 13  # differing examples up to which all 2^n ways to swap them are tried, as `results.statistics.paired` does
_MANY = 200  # differing examples from which on the distribution of their sum is taken for the normal one it tends to
_MOST_AT_ONCE = 500  # rows whose differences are held as float64 together: some 13 MB of 3,300 examples


def against_first(rows: Sequence[Row], metric: str, directions: Directions) -> list[Against | None]:
    """For each row its paired test with the first, two-sided at 5% with Holm's correction over the board.

    Test and means are over the examples that both have: of a row that lacks hard examples, its own mean says nothing
    against the first's. The test is the permutation test that swaps the two rows' values example by example. Its
    distribution of the sum of differences has mean 0 and the variance of the sum of their squares: from 200 differing
    examples on it is taken for normal; of fewer, 9,999 swaps are drawn, or all are tried where there are no more.

    Args:
        rows: best first, by the mean of `Row.examples`.
        metric: of which these are the values.
        directions: which of them are better.

    Returns:
        None for the first row itself, and where values by example are not known or no example is in both.
    """
    from results.statistics import holm
    from results.statistics.power import LEVEL

    found: list[Against | None] = [None] * len(rows)
    known = [place for place, row in enumerate(rows) if row.examples is not None]
    if not known or known[0] != 0:
        return found
    tested = list(_tests(rows, known[1:]))
    for (place, test), p in zip(tested, holm([test.p for _, test in tested]), strict=True):
        apart: Literal["ahead", "behind"] = "ahead" if directions.is_better(metric, test.own, test.first) else "behind"
        found[place] = replace(test, p=p, state="level" if p >= LEVEL else apart)
    return found


def _tests(rows: Sequence[Row], places: Sequence[int]) -> Iterator[tuple[int, Against]]:
    """Each row that shares an example with the first, with its test as if it were the only one."""
    import numpy as np

    assert rows[0].examples is not None
    first = rows[0].examples.astype(np.float64)
    for start in range(0, len(places), _MOST_AT_ONCE):
        some = places[start : start + _MOST_AT_ONCE]
        others = [examples for place in some if (examples := rows[place].examples) is not None]
        values = np.stack(others).astype(np.float64)
        differences = first - values
        shared = ~np.isnan(differences)
        counts = shared.sum(axis=1)
        with np.errstate(invalid="ignore"):  # 0 / 0 where there are none
            own, theirs = (np.where(shared, some_values, 0.0).sum(axis=1) / counts for some_values in (values, first))
        ps = _p_values(np.where(shared, differences, 0.0))
        for place, n, mean, of_first, p in zip(some, counts, own, theirs, ps, strict=True):
            if n:  # values are float32, so that means have six digits
                yield place, Against(int(n), float(f"{mean:.6g}"), float(f"{of_first:.6g}"), float(p))


def _p_values(differences: FloatArray) -> FloatArray:
    """p of each row of `(rows, n)` differences. An example without a difference is the same whether swapped or not."""
    import numpy as np

    from results.statistics.resampling import RESAMPLES, SEED, all_swaps, random_swaps

    moving = (differences != 0).sum(axis=1)
    ps = np.empty(len(differences))
    many, few = moving >= _MANY, moving <= _FEW
    ps[many] = _of_normal(differences[many])
    if few.any():
        ps[few] = _share(_compact(differences[few], _FEW), all_swaps(_FEW), seen=0)
    if (some := ~many & ~few).any():
        ps[some] = _share(_compact(differences[some], _MANY), random_swaps(_MANY, RESAMPLES, SEED), seen=1)
    return ps


def _of_normal(differences: FloatArray) -> FloatArray:
    import numpy as np
    from scipy.special import ndtr

    deviation = np.sqrt((differences**2).sum(axis=1))
    return np.asarray(2 * ndtr(-np.abs(differences.sum(axis=1)) / deviation))


def _compact(differences: FloatArray, width: int) -> FloatArray:
    """`(rows, width)`: each row's differences that are not 0, side by side, so that few swaps serve many rows."""
    import numpy as np

    row, column = np.nonzero(differences)
    starts = np.searchsorted(row, np.arange(len(differences)))
    compact = np.zeros((len(differences), width))
    compact[row, np.arange(len(row)) - starts[row]] = differences[row, column]
    return compact


def _share(differences: FloatArray, swaps: Iterable[FloatArray], *, seen: int) -> FloatArray:
    """Of ways to swap, the share under which a row's sum is as far from 0 as observed; `seen`: observed ones to add."""
    import numpy as np

    least = np.abs(differences.sum(axis=1)) - 1e-9 * np.abs(differences).sum(axis=1)
    as_far, tried = np.full(len(differences), float(seen)), seen
    for block in swaps:
        as_far += (np.abs((1 - 2 * block) @ differences.T) >= least).sum(axis=0)
        tried += len(block)
    return np.asarray(as_far / tried)
