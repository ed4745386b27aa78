"""Numbers, p values and intervals as text: for tables, reports, plots and the screen, everywhere in one way.

Two kinds of places want two kinds of numbers. A column has as many decimals in every cell (`decimals_of`, `number`,
`bounds`); a number within a sentence stands alone and gets the digits that it needs (`plain`, `signed`). Programs read
columns, so that their minus is a hyphen; `typeset` makes it a minus sign where people alone read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

NO_VALUE = "n/a"
"""What stands where there is no number."""

NO_TEST = "no test"
"""What stands where there is no p value."""

MINUS = "\N{MINUS SIGN}"

Bounds = tuple[float, float]

_DIGITS = 3
_LARGEST, _MOST_DECIMALS = 1e6, 6
_LEAST_P = 0.001


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


def number(value: float | None, decimals: int = _DIGITS, *, sign: bool = False) -> str:
    """A number of a column; one that is too large for so many digits, or vanishes in as many decimals as there may be,
    by its power of ten. `NO_VALUE` for none."""
    if value is None or not math.isfinite(value):
        return NO_VALUE
    plus = "+" if sign else ""
    if abs(value) >= _LARGEST or (decimals == _MOST_DECIMALS and 0 < abs(value) < 0.5 * 10**-_MOST_DECIMALS):
        return f"{value:{plus}.2e}"
    written = f"{value:{plus}.{decimals}f}"
    return written.lstrip("+-") if float(written) == 0 else written  # no sign of nothing


def bounds(interval: Bounds | None, decimals: int = _DIGITS, *, sign: bool = False) -> str:
    """An interval of a column, in brackets; empty where there is none."""
    if interval is None:
        return ""
    low, high = (number(bound, decimals, sign=sign) for bound in interval)
    return f"[{low}, {high}]"


def p_value(p: float | None) -> str:
    """A p value where a heading says that it is one: `<0.001`, `0.013`; `NO_VALUE` for none."""
    if p is None or math.isnan(p):
        return NO_VALUE
    return f"<{_LEAST_P}" if p < _LEAST_P else f"{p:.3f}"


def probability(p: float | None) -> str:
    """A p value that says what it is: `p < 0.001`, `p = 0.013`; `NO_TEST` for none."""
    if p is None or math.isnan(p):
        return NO_TEST
    return f"p < {_LEAST_P}" if p < _LEAST_P else f"p = {p:.3f}"


def plain(value: float, *, sign: bool = False) -> str:
    """A number of a sentence: three decimals; a small one with two digits that say something, a large one whole."""
    size = abs(value)
    if size == 0 or 0.00995 <= size < 100:
        text = f"{size:.3f}"
    elif size >= 100:
        text = f"{size:,.0f}"
    elif size < 1e-7:
        text = f"{size:.1e}"
    else:
        text = f"{size:.{1 - math.floor(math.log10(size))}f}"
    return (MINUS if value < 0 else "+" if sign and value > 0 else "") + typeset(text)


def signed(value: float) -> str:
    """A difference of a sentence, with its sign."""
    return plain(value, sign=True)


def interval(bounds_: Bounds | None, *, sign: bool = False) -> str:
    """An interval of a sentence: `95% interval 0.100 to 0.200`; empty where there is none."""
    if bounds_ is None:
        return ""
    low, high = (plain(bound, sign=sign) for bound in bounds_)
    return f"95% interval {low} to {high}"


def counted(n: int, one: str, many: str = "") -> str:
    """A number of things: `1 cell`, `1,200 cells`; `many` where it is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def typeset(text: str) -> str:
    """A written number with minus signs, which are as wide as a plus, in the place of hyphens."""
    return text.replace("-", MINUS)
