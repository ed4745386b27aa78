"""A score against what it costs, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import as_float, is_number, left_out, legend, room, scale_costs
from results.plots.labelling import Named, place_names
from results.plots.output import describe, foot
from results.plots.style import LIGHT, SMALL, Theme, drawing, label, labels, look
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMED = 20
"""Points; of more, only those on the front are named."""

_MOST_GROUPS = 11
"""Markers that the eye tells apart; with more groups all points look alike, and names tell them apart."""


@dataclass(frozen=True, slots=True)
class CostRow:
    """One cell.

    Args:
        name: of the cell.
        cost: what it costs; 0 is a cost.
        value: its score.
        low, high: ends of a bar around the score; None where there is none.
        spread: what `low` and `high` are, such as `range over 2 seeds`.
        group: what points share their colour and marker by, such as the encoder.
    """

    name: str
    cost: float | None
    value: float | None
    low: float | None = None
    high: float | None = None
    spread: str = ""
    group: str = ""


def pareto_front(rows: Sequence[CostRow], *, higher_is_better: bool = True) -> list[CostRow]:
    """The rows than which no other is as good and cheaper, or as cheap and better; by cost.

    Rows that are equal in both are all on the front. Rows without a finite cost and score are not.
    """
    sign = 1 if higher_is_better else -1
    valid = [row for row in rows if is_number(row.cost) and is_number(row.value)]
    front: list[CostRow] = []
    for row in sorted(valid, key=lambda row: (as_float(row.cost), -sign * as_float(row.value))):
        if not front or _is_better(row, front[-1], sign) or _is_equal(row, front[-1]):
            front.append(row)
    return front


def score_against_cost(
    rows: Sequence[CostRow],
    *,
    metric: str,
    cost: str,
    higher_is_better: bool = True,
    theme: Theme = LIGHT,
) -> Figure:
    """Points of cells; those on the Pareto front are filled, named first, and joined by a step line.

    Names are placed where they cover nothing; one that has no such place is left out, and the figure says how many
    are. Of more than 20 points only those on the front have names.

    Args:
        rows: the cells.
        metric: what `value` is; the label of the vertical axis.
        cost: what `cost` is, such as `trained parameters`.
        higher_is_better: False for errors and losses.
        theme: light or dark.

    Raises:
        ResultsError: no row has both a cost and a score, or a cost is below 0.
    """
    drawn = [row for row in rows if is_number(row.cost) and is_number(row.value)]
    if not drawn:
        raise ResultsError(f"{metric} against {cost}: none of {counted(len(rows), 'cell')} has both")
    negative = [row.name for row in drawn if as_float(row.cost) < 0]
    if negative:
        raise ResultsError(f"{metric} against {cost}: a cost is 0 or more; below that is {label(negative[0])}")
    front = pareto_front(drawn, higher_is_better=higher_is_better)
    with drawing(theme, height=4.2) as figure:
        axes = figure.add_subplot()
        scale = scale_costs(axes, [as_float(row.cost) for row in drawn])
        axes.set_xlabel(f"{cost} ({scale})" if scale else cost)
        axes.set_ylabel(metric if higher_is_better else f"{metric} (lower is better)")
        axes.grid(True)
        _front_line(axes, front, drawn, theme)
        _points(axes, drawn, front, theme)
        axes.margins(x=0.08)
        bars = [end for row in drawn for end in (row.low, row.high) if is_number(end)]
        room(axes, [*(as_float(row.value) for row in drawn), *bars], share=0.12)
        legend(figure, axes)
        foot(figure, _notes(rows, drawn))
        unnamed = _name_points(figure, axes, drawn, front)
        if unnamed:
            named = "off the front not named" if len(drawn) > _MOST_NAMED else "not named, for want of room"
            axes.text(
                1, 1.01, f"{counted(unnamed, 'point')} {named}", transform=axes.transAxes,
                ha="right", va="bottom", fontsize=SMALL, color=theme.dim,
            )  # fmt: skip
        best = ", ".join(f"{row.name} ({as_float(row.value):.4g} at {as_float(row.cost):,.4g})" for row in front)
        describe(figure, f"{metric} of {counted(len(drawn), 'cell')} against {cost}. On the Pareto front: {best}.")
    return figure


def _is_better(row: CostRow, other: CostRow, sign: int) -> bool:
    return sign * as_float(row.value) > sign * as_float(other.value)


def _is_equal(row: CostRow, other: CostRow) -> bool:
    return (row.cost, row.value) == (other.cost, other.value)


def _front_line(axes: Axes, front: Sequence[CostRow], drawn: Sequence[CostRow], theme: Theme) -> None:
    axes.plot(
        *zip(*_front_steps(front, drawn), strict=True), color=theme.dim, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1,
        label="Pareto front (filled)", gid="front",
    )  # fmt: skip


def _front_steps(front: Sequence[CostRow], drawn: Sequence[CostRow]) -> list[tuple[float, float]]:
    """Corners of the line that says, for each cost, what score can be had for it; it ends at the highest cost."""
    steps = [(as_float(front[0].cost), as_float(front[0].value))]
    for row in front[1:]:
        steps += [(as_float(row.cost), steps[-1][1]), (as_float(row.cost), as_float(row.value))]
    return [*steps, (max(as_float(row.cost) for row in drawn), steps[-1][1])]


def _points(axes: Axes, drawn: Sequence[CostRow], front: Sequence[CostRow], theme: Theme) -> None:
    groups = list(dict.fromkeys(row.group for row in drawn))
    if len(groups) > _MOST_GROUPS:
        groups = [""]
    for place, group in enumerate(groups):
        looks = look(place, theme)
        named = labels(groups)[place] if len(groups) > 1 else None
        members = [row for row in drawn if row.group == group or len(groups) == 1]
        for row in members:
            if is_number(row.low) and is_number(row.high):
                ends = (row.low, row.high)
                axes.plot([as_float(row.cost)] * 2, ends, color=looks.colour, linewidth=1, alpha=0.75, zorder=2)
        for filled in (True, False):
            part = [row for row in members if (row in front) is filled]
            costs, values = [as_float(row.cost) for row in part], [as_float(row.value) for row in part]
            axes.plot(
                costs, values, linestyle="none", marker=looks.marker, color=looks.colour, markersize=6.5,
                markerfacecolor=looks.colour if filled else theme.paper, markeredgewidth=1.3,
                zorder=4 if filled else 3, gid=f"points-{place}-{'front' if filled else 'rest'}",
            )  # fmt: skip
        if named is not None:
            axes.plot([], [], linestyle="none", marker=looks.marker, color=looks.colour, label=named)


def _name_points(figure: Figure, axes: Axes, drawn: Sequence[CostRow], front: Sequence[CostRow]) -> int:
    shown = dict(zip((id(row) for row in drawn), labels([row.name for row in drawn], 28), strict=True))
    ordered = [*(row for row in drawn if row in front), *(row for row in drawn if row not in front)]
    named = [Named(shown[id(row)], as_float(row.cost), as_float(row.value), row in front) for row in ordered]
    lines = [
        ((as_float(row.cost), row.low), (as_float(row.cost), row.high))
        for row in drawn
        if row.low is not None and row.high is not None
    ]
    steps = _front_steps(front, drawn)
    lines += pairwise(steps)
    wanted = len(named) if len(named) <= _MOST_NAMED else len(front)
    return place_names(figure, axes, named, lines, wanted)


def _notes(rows: Sequence[CostRow], drawn: Sequence[CostRow]) -> list[str]:
    spreads = list(dict.fromkeys(row.spread for row in drawn if row.spread and is_number(row.low)))
    notes = [f"Bars: {'; '.join(spreads)}."] if spreads else []
    return notes + left_out(len(rows) - len(drawn), "cell without a score or a cost", "cells without a score or a cost")
