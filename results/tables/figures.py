"""How numbers are written: as many digits as mean something, the same in all of a column."""

from __future__ import annotations

import math
from collections.abc import Sequence

from results.tables.model import Bounds

NO_VALUE = "n/a"

_DIGITS = 3
_LARGEST, _MOST_DECIMALS = 1e6, 6


def decimals_of(values: Sequence[float], *, share: bool) -> int:
    """How many decimals a column gets.

    Args:
        values: of the column.
        share: whether it is a share of 1, which always gets three; of others the smallest gets three digits.
    """
    sizes = [abs(value) for value in values if value != 0 and math.isfinite(value)]
    if share or not sizes:
        return _DIGITS
    return min(_MOST_DECIMALS, max(0, _DIGITS - 1 - math.floor(math.log10(min(sizes)))))


def number(value: float, decimals: int = _DIGITS, *, sign: bool = False) -> str:
    """A number; one that is too large for so many digits, or vanishes in as many decimals as there may be, by its power
    of ten."""
    if not math.isfinite(value):
        return NO_VALUE
    plus = "+" if sign else ""
    if abs(value) >= _LARGEST or (decimals == _MOST_DECIMALS and 0 < abs(value) < 0.5 * 10**-_MOST_DECIMALS):
        return f"{value:{plus}.2e}"
    written = f"{value:{plus}.{decimals}f}"
    return written.lstrip("+-") if float(written) == 0 else written  # no sign of nothing


def bounds(interval: Bounds | None, decimals: int = _DIGITS, *, sign: bool = False) -> str:
    """An interval in brackets; empty where there is none."""
    if interval is None:
        return ""
    low, high = (number(bound, decimals, sign=sign) for bound in interval)
    return f"[{low}, {high}]"


def probability(p: float | None) -> str:
    """A p value."""
    if p is None:
        return "no test"
    return "p<0.001" if p < 0.001 else f"p={p:.3f}"
