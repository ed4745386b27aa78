"""Mean ranks of cells over tasks, and which of them do not differ: a critical-difference diagram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import as_float, is_number, left_out
from results.plots.output import describe, foot
from results.plots.style import LIGHT, SMALL, WIDTH, Theme, drawing, labels, width_of
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW, _LAYER = 0.2, 0.1
"""Inches from one name to the next, and from one thick line to the next."""


@dataclass(frozen=True, slots=True)
class RankRow:
    """One cell and its mean rank over blocks (tasks, data sets or metrics); 1 is best."""

    name: str
    mean_rank: float | None


def critical_difference_diagram(
    rows: Sequence[RankRow],
    critical_difference: float | None,
    *,
    blocks: int | None = None,
    test: str = "",
    theme: Theme = LIGHT,
) -> Figure:
    """Demšar's diagram (JMLR 7, 2006): an axis of ranks, the better half of cells named left, the other half right.

    Thick lines join cells that do not differ at the level of the test.

    Args:
        rows: the cells.
        critical_difference: of mean ranks, by Nemenyi's test; None draws no lines.
        blocks: over how many tasks, data sets or metrics ranks were averaged.
        test: the result of Friedman's test in words, for the foot.
        theme: light or dark.

    Raises:
        ResultsError: fewer than two cells have a rank.
    """
    drawn = sorted((row for row in rows if is_number(row.mean_rank)), key=lambda row: as_float(row.mean_rank))
    if len(drawn) < 2:
        raise ResultsError(f"critical-difference diagram: it compares two cells or more, and {len(drawn)} has a rank")
    joined = _joined(drawn, critical_difference) if is_number(critical_difference) else []
    layers = _layers(joined)
    top = 0.42 + _LAYER * (max(layers, default=-1) + 1) + 0.14
    left = (len(drawn) + 1) // 2
    height = top + _ROW * left
    with drawing(theme, height=height) as figure:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_xlim(0, WIDTH)
        axes.set_ylim(height, 0)  # inches from the top
        shown = labels([row.name for row in drawn], 28)
        reach = 0.75 + max(map(width_of, shown))
        at = _axis(axes, reach, len(drawn), theme)
        for place, (row, name) in enumerate(zip(drawn, shown, strict=True)):
            best_half = place < left
            depth = top + _ROW * (place if best_half else len(drawn) - 1 - place)
            _name(axes, name, at(as_float(row.mean_rank)), depth, reach if best_half else WIDTH - reach, row, theme)
        for place, ((first, last), layer) in enumerate(zip(joined, layers, strict=True)):
            ends = [at(as_float(drawn[first].mean_rank)) - 0.04, at(as_float(drawn[last].mean_rank)) + 0.04]
            depth = 0.42 + _LAYER * (layer + 0.8)
            axes.plot(ends, [depth] * 2, color=theme.ink, linewidth=3, solid_capstyle="butt", gid=f"joined-{place}")
        if is_number(critical_difference):
            _critical(axes, at, critical_difference, len(drawn), theme)
        foot(figure, [*_notes(blocks, critical_difference, test), *left_out(
            len(rows) - len(drawn), "cell without a rank", "cells without a rank")])  # fmt: skip
        describe(figure, "Mean ranks. " + " ".join(f"{row.name}: {row.mean_rank:.3g}." for row in drawn))
    return figure


def _joined(drawn: Sequence[RankRow], critical_difference: float) -> list[tuple[int, int]]:
    """The first and the last place of each stretch of cells, in the order of ranks, that do not differ."""
    from results.statistics import cliques

    found = cliques([as_float(row.mean_rank) for row in drawn], critical_difference)
    return [(clique[0], clique[-1]) for clique in found]


def _layers(joined: Sequence[tuple[int, int]]) -> list[int]:
    """For each stretch, how far down its line stands, so that no two lines touch."""
    ends: list[int] = []
    layers = []
    for first, last in joined:
        layer = next((place for place, end in enumerate(ends) if end < first), len(ends))
        ends[layer : layer + 1] = [last]
        layers.append(layer)
    return layers


def _axis(axes: Axes, reach: float, cells: int, theme: Theme) -> Callable[[float], float]:
    """Draws the axis of ranks; returns where on it a rank stands, in inches."""

    def at(rank: float) -> float:
        return reach + 0.15 + (rank - 1) / (cells - 1) * (WIDTH - 2 * reach - 0.3)

    axes.plot([at(1), at(cells)], [0.42] * 2, color=theme.ink, linewidth=0.9)
    every = max(1, -(-cells // 12))
    for rank in {*range(1, cells + 1, every), cells} if every == 1 else range(1, cells + 1, every):
        axes.plot([at(rank)] * 2, [0.42, 0.36], color=theme.ink, linewidth=0.9)
        axes.text(at(rank), 0.32, str(rank), ha="center", va="bottom", fontsize=SMALL)
    return at


def _name(axes: Axes, name: str, x: float, depth: float, edge: float, row: RankRow, theme: Theme) -> None:
    """A cell's name at the edge, and the line that leads to it from its rank."""
    axes.plot([x, x, edge], [0.42, depth, depth], color=theme.dim, linewidth=0.8, zorder=1)
    axes.plot([x], [0.42], marker="o", markersize=3.5, color=theme.colours[0], zorder=3)
    side = "right" if edge < WIDTH / 2 else "left"
    gap = -0.05 if side == "right" else 0.05
    text = f"{name}   {row.mean_rank:.2f}" if side == "right" else f"{row.mean_rank:.2f}   {name}"
    axes.text(edge + gap, depth, text, ha=side, va="center_baseline", fontsize=SMALL, in_layout=False)


def _critical(axes: Axes, at: Callable[[float], float], critical_difference: float, cells: int, theme: Theme) -> None:
    """The critical difference as a length above the axis, where it is not longer than that."""
    start, end = at(1), at(1 + critical_difference)
    said = f"critical difference {critical_difference:.2f}"
    if critical_difference > cells - 1:
        axes.text(start, 0.1, f"{said}, more than any ranks differ by", va="center_baseline", fontsize=SMALL)
        return
    axes.plot([start, end], [0.1] * 2, color=theme.ink, linewidth=1)
    for x in (start, end):
        axes.plot([x, x], [0.06, 0.14], color=theme.ink, linewidth=1)
    axes.text(end + 0.06, 0.1, said, va="center_baseline", fontsize=SMALL)


def _notes(blocks: int | None, critical_difference: float | None, test: str) -> list[str]:
    notes = [f"Ranks averaged over {counted(blocks, 'block')}; 1 is best." if blocks else "Rank 1 is best."]
    if is_number(critical_difference):
        notes.append("Thick lines join cells that differ by less than is critical (Nemenyi's test, 5%).")
    return [*notes, test] if test else notes
