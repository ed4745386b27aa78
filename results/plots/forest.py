"""Differences from a reference with their intervals: a forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted, p_value
from results.plots.axes import as_float, digits_for, is_number, left_out, name_rows, signed, write_columns
from results.plots.output import describe, foot
from results.plots.style import LIGHT, SMALL, Theme, drawing, label, labels
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class DifferenceRow:
    """One cell less the reference.

    Args:
        name: of the cell.
        difference: of the metric; positive says that the cell's value is higher.
        low, high: its 95% interval.
        p: of the paired test, corrected for the number of tests where that was done; None without a test.
        n: examples that both were asked.
        detectable: the least difference that these examples would have shown with a power of 80%.
    """

    name: str
    difference: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None
    detectable: float | None = None


def forest(
    rows: Sequence[DifferenceRow],
    *,
    metric: str,
    reference: str,
    higher_is_better: bool = True,
    level: float = 0.05,
    p_means: str = "Holm-corrected",
    theme: Theme = LIGHT,
) -> Figure:
    """A row for each cell: difference, interval, p, and how small a difference could have been seen.

    A filled square has p below `level`; an open one has not, or no test. The grey band of a row reaches from minus to
    plus the detectable difference.

    Args:
        rows: the cells, drawn in their order from the top.
        metric: what differs.
        reference: the cell that all are compared with.
        higher_is_better: False for errors and losses.
        level: of significance.
        p_means: how p was corrected, for the foot.
        theme: light or dark.

    Raises:
        ResultsError: no row has a difference.
    """
    drawn = [row for row in rows if is_number(row.difference)]
    if not drawn:
        raise ResultsError(f"differences in {metric}: none of {counted(len(rows), 'cell')} has one")
    against = label(reference, 40)
    with drawing(theme, height=1.15 + 0.235 * len(drawn)) as figure:
        axes = figure.add_subplot()
        name_rows(axes, labels([row.name for row in drawn]), theme)
        for place, row in enumerate(drawn):
            _draw(axes, place, row, level, theme)
        axes.axvline(0, color=theme.ink, linewidth=0.9, zorder=1)
        _limits(axes, drawn)
        _columns(axes, drawn, theme)
        better, worse = ("better", "worse") if higher_is_better else ("worse", "better")
        for place, side, text in ((0, "left", f"← {worse}"), (1, "right", f"{better} →")):
            axes.text(
                place, -0.72, text, transform=axes.get_yaxis_transform(), ha=side, va="center_baseline", fontsize=SMALL,
                color=theme.dim,
            )  # fmt: skip
        axes.set_xlabel(f"difference in {metric} from {against}")
        foot(figure, _notes(rows, drawn, level, p_means))
        describe(figure, f"Differences in {metric} from {reference}. " + " ".join(map(_said, drawn)))
    return figure


def is_significant(row: DifferenceRow, level: float = 0.05) -> bool:
    """Whether a row's test says so."""
    return is_number(row.p) and row.p < level


def _draw(axes: Axes, place: int, row: DifferenceRow, level: float, theme: Theme) -> None:
    significant = is_significant(row, level)
    colour = theme.colours[0] if significant else theme.dim
    if is_number(row.detectable):
        axes.barh(place, 2 * row.detectable, left=-row.detectable, height=0.62, color=theme.band, zorder=0)
    if is_number(row.low) and is_number(row.high):
        axes.plot((row.low, row.high), (place, place), color=colour, linewidth=1.5, zorder=2, gid=f"interval-{place}")
    axes.plot(
        [as_float(row.difference)], [place], marker="s", color=colour, markersize=5.5, markeredgewidth=1.3, zorder=3,
        markerfacecolor=colour if significant else theme.paper, linestyle="none", gid=f"difference-{place}",
    )  # fmt: skip


def _limits(axes: Axes, drawn: Sequence[DifferenceRow]) -> None:
    """Room for all intervals and for 0; bands of little power may run out of it, since they are no estimates."""
    from matplotlib.ticker import MaxNLocator

    ends = [end for row in drawn for end in (row.difference, row.low, row.high) if is_number(end)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    gap = 0.06 * (high - low) or 0.1
    axes.set_xlim(low - gap, high + gap)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))


def _columns(axes: Axes, drawn: Sequence[DifferenceRow], theme: Theme) -> None:
    digits = digits_for([as_float(row.difference) for row in drawn])
    heading = "difference [95% interval]" if any(is_number(row.low) for row in drawn) else "difference"
    columns = {heading: [_estimate(row, digits) for row in drawn]}
    if any(row.p is not None for row in drawn):
        columns["p"] = [p_value(row.p) for row in drawn]
    write_columns(axes, columns, theme)


def _estimate(row: DifferenceRow, digits: int) -> str:
    text = signed(as_float(row.difference), digits)
    if not (is_number(row.low) and is_number(row.high)):
        return text
    return f"{text} [{signed(row.low, digits)}, {signed(row.high, digits)}]"


def _notes(rows: Sequence[DifferenceRow], drawn: Sequence[DifferenceRow], level: float, p_means: str) -> list[str]:
    counts = sorted({row.n for row in drawn if row.n is not None})
    notes = []
    if counts:
        several = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        notes.append(f"Paired over {several} examples.")
    if any(row.p is not None for row in drawn):
        notes.append(f"Filled squares: p < {level:g}{f' ({p_means})' if p_means else ''}.")
    if any(is_number(row.detectable) for row in drawn):
        notes.append("Grey bands: differences too small to be found with a power of 80%.")
    return notes + left_out(len(rows) - len(drawn), "cell without a difference", "cells without a difference")


def _said(row: DifferenceRow) -> str:
    p = "" if row.p is None else f", p {p_value(row.p)}"
    return f"{row.name}: {_estimate(row, 4)}{p}."
