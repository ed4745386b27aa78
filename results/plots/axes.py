"""What several plots need of their axes: scales for costs, numbers, rows of names, panels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

from results.formats import counted, number, typeset
from results.plots.style import SMALL, Theme, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DECADE = 10.0
_COLUMN_GAP = 9.0


def is_number(value: float | None) -> TypeGuard[float]:
    """Whether there is a finite value to draw."""
    return value is not None and math.isfinite(value)


def as_float(value: float | None) -> float:
    """The value, NaN where there is none."""
    return math.nan if value is None else float(value)


def short_number(value: float, _: object = None) -> str:
    """`0`, `850`, `21.7k`, `1.2M`, `7B`: three digits, and the letters that counts of parameters go by."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return typeset(f"{value:.3g}")


def signed(value: float, digits: int = 3) -> str:
    """`+0.012`, with a minus sign that is as wide as the plus; 0 has no sign."""
    return typeset(number(value, digits, sign=True))


def digits_for(values: Sequence[float]) -> int:
    """Decimals that tell three figures of the largest of these values: 3 for scores from 0 to 1."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0)
    return 3 if largest == 0 else min(6, max(0, 2 - math.floor(math.log10(largest))))


def scale_costs(axes: Axes, costs: Sequence[float]) -> str:
    """Gives the horizontal axis a scale that fits these costs, and says in a word or two what it is.

    Within one decade it is linear. Beyond, it is logarithmic; where a cost is 0, which no logarithm has, the axis is
    linear from 0 to the power of ten below the least other one, so that 0 stands where 0 is.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator, SymmetricalLogLocator

    above = [cost for cost in costs if cost > 0]
    if not above or (max(above) < _DECADE * min(above) and len(above) == len(costs)):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        return ""
    if len(above) == len(costs):
        axes.set_xscale("log")
        few = math.log10(max(above) / min(above)) < 2
        axes.xaxis.set_minor_formatter(FuncFormatter(_at_2_and_5) if few else NullFormatter())
    else:
        threshold = 10.0 ** math.floor(math.log10(min(above)))
        axes.set_xscale("symlog", linthresh=threshold, linscale=0.4)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=threshold))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    return "log scale" if len(above) == len(costs) else "log scale with 0"


def _at_2_and_5(value: float, _: object = None) -> str:
    mantissa = value / 10 ** math.floor(math.log10(value) + 1e-9)
    return short_number(value) if round(mantissa, 6) in (2.0, 5.0) else ""


def room(axes: Axes, values: Sequence[float], *, axis: str = "y", share: float = 0.08) -> None:
    """Limits that leave room around values on a linear axis, also where all are equal."""
    low, high = min(values), max(values)
    gap = (high - low) * share or max(abs(low), 1.0) * share
    (axes.set_ylim if axis == "y" else axes.set_xlim)(low - gap, high + gap)


def name_rows(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    """One row for each name, the first at the top, with a hairline between rows."""
    axes.set_yticks(range(len(names)), labels=list(names))
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for place in range(len(names) - 1):
        axes.axhline(place + 0.5, color=theme.grid, linewidth=0.5, zorder=0)


def write_columns(axes: Axes, columns: Mapping[str, Sequence[str]], theme: Theme) -> None:
    """Columns of text right of the axes, a heading above each; cells stand at the heights of rows 0, 1, 2 and so on."""
    right = 0.0
    for heading, cells in columns.items():
        # In points from the edge of the axes, not in shares of their width, which the layout changes to make room.
        right += _COLUMN_GAP + 72 * max(map(width_of, (heading, *cells)))
        for row, text in ((-0.72, heading), *enumerate(cells)):
            axes.annotate(
                text, (1, row), (right, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                ha="right", va="center_baseline", fontsize=SMALL, color=theme.dim if text is heading else theme.ink,
                annotation_clip=False,
            )  # fmt: skip


def panels(figure: Figure, count: int, columns: int) -> list[Axes]:
    """A grid of panels that share their axes, as many as asked for; the last row may be shorter."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten().tolist()
    for place, unused in enumerate(grid[count:], start=count):
        unused.remove()
        # The panel above the gap is now the lowest of its column.
        grid[place - columns].tick_params(axis="x", labelbottom=True)
    return list(grid[:count])


def legend(figure: Figure, axes: Axes) -> None:
    """The legend above all panels, in as many columns as fit the width."""
    handles, names = axes.get_legend_handles_labels()
    if not names:
        return
    room = figure.get_figwidth() - 0.2
    fitting = next((count for count in range(len(names), 1, -1) if _legend_width(names, count) <= room), 1)
    figure.legend(handles, names, loc="outside upper left", ncols=fitting, columnspacing=1.4)


def _legend_width(names: Sequence[str], columns: int) -> float:
    """Inches; a legend is filled column by column."""
    rows = math.ceil(len(names) / columns)
    widest = [max(map(width_of, names[start : start + rows])) for start in range(0, len(names), rows)]
    return sum(widest) + 0.5 * len(widest)


def left_out(number: int, one: str, many: str) -> list[str]:
    """A sentence on what has no value to draw; none where all has."""
    return [f"Not drawn: {counted(number, one, many)}."] if number else []
