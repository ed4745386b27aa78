"""A quantity over parts of a test set: by molecule size, scaffold novelty, functional group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import as_float, digits_for, is_number, left_out, legend, room
from results.plots.heatmap import colour_bar, shade_fields, turn_names
from results.plots.output import describe, foot
from results.plots.style import LIGHT, WIDTH, Theme, drawing, labels, look
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOGETHER = 6
"""Cells as points beside each other; more are a heat map."""

_MOST_UPRIGHT = 8
"""Parts beside each other; more stand below each other, as long names do."""


@dataclass(frozen=True, slots=True)
class PartRow:
    """One cell on one part of the test set.

    Args:
        name: of the cell.
        part: such as `11 to 20` heavy atoms, or `seen` scaffold.
        value: of the quantity over the part's examples.
        low, high: its 95% interval; None where there is none.
        n: examples of the part that have a value.
    """

    name: str
    part: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


def breakdown(
    rows: Sequence[PartRow],
    *,
    quantity: str,
    by: str,
    ordered: bool = True,
    lower_is_better: bool = False,
    note: str = "",
    theme: Theme = LIGHT,
) -> Figure:
    """Points with intervals for each part and cell; a heat map from 7 cells on.

    Args:
        rows: parts are drawn in the order in which rows name them.
        quantity: what `value` is, such as `bleu-2` or `words of the answer`.
        by: what divides the parts, such as `heavy atoms`.
        ordered: whether parts follow each other, so that a line joins them.
        lower_is_better: said beside the quantity.
        note: on how values and intervals were made, for the foot.
        theme: light or dark.

    Raises:
        ResultsError: no row has a value.
    """
    drawn = [row for row in rows if is_number(row.value)]
    if not drawn:
        raise ResultsError(f"{quantity} by {by}: none of {counted(len(rows), 'part')} has a value")
    names = list(dict.fromkeys(row.name for row in drawn))
    parts = list(dict.fromkeys(row.part for row in rows if any(row.part == other.part for other in drawn)))
    titled = f"{quantity} (lower is better)" if lower_is_better else quantity
    sizes = [_size(drawn, part) for part in parts]
    many = len(names) > MOST_TOGETHER
    slot = max(1.1, 0.068 * max(map(len, parts)))
    upright = not many and len(parts) <= _MOST_UPRIGHT and slot * len(parts) <= WIDTH - 0.6
    height = 1.5 + 0.24 * len(names) if many else 3.4 if upright else 1.3 + (0.16 + 0.11 * len(names)) * len(parts)
    width = max(4.4, min(WIDTH, 0.9 + slot * len(parts))) if upright else WIDTH
    with drawing(theme, height=height, width=width) as figure:
        axes = figure.add_subplot()
        if many:
            _fields(figure, axes, drawn, names, parts, sizes, titled, theme)
            axes.set_xlabel(by)
        else:
            _points(axes, drawn, names, parts, theme, upright=upright, joined=ordered and len(parts) > 1)
            _parts(axes, parts, sizes, theme, upright=upright)
            (axes.set_xlabel if upright else axes.set_ylabel)(by)
            (axes.set_ylabel if upright else axes.set_xlabel)(titled)
            legend(figure, axes)
        foot(figure, _notes(rows, drawn, note))
        describe(figure, f"{titled} by {by}. " + " ".join(
            f"{row.name}, {row.part}: {as_float(row.value):.4g} (n = {row.n:,})." for row in drawn
        ))  # fmt: skip
    return figure


def _size(drawn: Sequence[PartRow], part: str) -> str:
    counts = sorted({row.n for row in drawn if row.part == part})
    return f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"


def _points(
    axes: Axes,
    drawn: Sequence[PartRow],
    names: Sequence[str],
    parts: Sequence[str],
    theme: Theme,
    *,
    upright: bool,
    joined: bool,
) -> None:
    places = {part: place for place, part in enumerate(parts)}
    step = 0.7 / max(len(names), 4)
    for place, (name, shown) in enumerate(zip(names, labels(names), strict=True)):
        looks = look(place, theme)
        aside = (place - (len(names) - 1) / 2) * step
        rows = sorted((row for row in drawn if row.name == name), key=lambda row: places[row.part])
        across = [places[row.part] + aside for row in rows]
        for x, row in zip(across, rows, strict=True):
            if is_number(row.low) and is_number(row.high):
                line = ((x, x), (row.low, row.high)) if upright else ((row.low, row.high), (x, x))
                axes.plot(*line, color=looks.colour, linewidth=1.1, zorder=2)
        values = [as_float(row.value) for row in rows]
        axes.plot(
            *((across, values) if upright else (values, across)), color=looks.colour, marker=looks.marker,
            markersize=5, linestyle=looks.dashes if joined else "none", linewidth=0.9, zorder=3, label=shown,
            gid=f"parts-{place}",
        )  # fmt: skip
    ends = [end for row in drawn for end in (row.value, row.low, row.high) if is_number(end)]
    room(axes, ends, axis="y" if upright else "x")


def _parts(axes: Axes, parts: Sequence[str], sizes: Sequence[str], theme: Theme, *, upright: bool) -> None:
    """The axis of parts: each with its number of examples, and a hairline between neighbours."""
    between = "\n" if upright else "   "
    named = [f"{name}{between}{size}" for name, size in zip(labels(parts, 30), sizes, strict=True)]
    axis = axes.xaxis if upright else axes.yaxis
    axis.set_ticks(range(len(parts)), labels=named)
    axes.tick_params(axis="x" if upright else "y", length=0)
    for place in range(len(parts) - 1):
        (axes.axvline if upright else axes.axhline)(place + 0.5, color=theme.grid, linewidth=0.5, zorder=0)
    if upright:
        axes.set_xlim(-0.55, len(parts) - 0.45)
    else:
        axes.set_ylim(len(parts) - 0.45, -0.55)
    axes.grid(True, axis="y" if upright else "x")


def _fields(
    figure: Figure,
    axes: Axes,
    drawn: Sequence[PartRow],
    names: Sequence[str],
    parts: Sequence[str],
    sizes: Sequence[str],
    titled: str,
    theme: Theme,
) -> None:
    found = {(row.name, row.part): row.value for row in drawn}
    values = [[found.get((name, part)) for part in parts] for name in names]
    known = [value for row in values for value in row if is_number(value)]
    limits = (min(known), max(known))
    digits = digits_for(known)

    def written(r: int, c: int) -> str:
        value = values[r][c]
        return f"{value:.{digits}f}" if is_number(value) else ""

    shade_fields(axes, values, written, limits, theme, ((WIDTH - 3.2) / len(parts), 0.24))
    axes.set_yticks(range(len(names)), labels=labels(names))
    turned = len(parts) > 6 or max(map(len, parts)) > 12
    named = [f"{part}, {size}" if turned else f"{part}\n{size}"
             for part, size in zip(labels(parts, 24), sizes, strict=True)]  # fmt: skip
    turn_names(axes, named, turned=turned)
    colour_bar(figure, axes, limits, titled, theme)


def _notes(rows: Sequence[PartRow], drawn: Sequence[PartRow], note: str) -> list[str]:
    notes = [note] if note else []
    return notes + left_out(len(rows) - len(drawn), "part without a value", "parts without a value")
