"""How much likelier each gold answer is with its own graph than with another: reliance, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import digits_for, is_number, left_out, name_rows, signed, write_columns
from results.plots.output import describe, foot
from results.plots.style import LIGHT, Theme, drawing, labels
from results.runs import ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    FloatArray = npt.NDArray[np.float64]

MOST_POINTS = 150
"""Examples of a cell that are drawn as points; of more, the outline of their distribution is drawn."""

_SHOWN = (0.5, 99.5)
_BINS = 60
_FEWEST_FOR_QUARTERS = 8


@dataclass(frozen=True, slots=True)
class RelianceRow:
    """One cell.

    Args:
        name: of the cell.
        gains: of each example that counts, the log-likelihood of the gold answer with its own graph less that with
            another molecule's, nats per token; averaged over seeds.
        low, high: 95% interval of their mean; None where there is none.
    """

    name: str
    gains: tuple[float, ...]
    low: float | None = None
    high: float | None = None


def reliance_per_example(rows: Sequence[RelianceRow], *, theme: Theme = LIGHT) -> Figure:
    """A row for each cell: its examples as points or as an outline, the middle half as a bar, the mean as a diamond.

    Right of 0 the own graph helped. The axis ends where 99% of all examples are shown; how many lie beyond is said.

    Raises:
        ResultsError: no cell has a gain.
    """
    import numpy as np

    gains = {place: np.array([g for g in row.gains if is_number(g)]) for place, row in enumerate(rows)}
    drawn = [(row, gains[place]) for place, row in enumerate(rows) if len(gains[place])]
    if not drawn:
        raise ResultsError(f"reliance per example: none of {counted(len(rows), 'cell')} has examples that count")
    with drawing(theme, height=1.05 + 0.42 * len(drawn)) as figure:
        axes = figure.add_subplot()
        name_rows(axes, labels([row.name for row, _ in drawn]), theme)
        low, high = _limits(drawn)
        axes.set_xlim(low, high)
        for place, (row, values) in enumerate(drawn):
            _draw(axes, place, row, values, (low, high), theme)
        axes.axvline(0, color=theme.ink, linewidth=0.9, zorder=1)
        axes.set_xlabel("gain of the gold answer's log-likelihood from its own graph, nats per token")
        digits = digits_for([values.mean() for _, values in drawn])
        write_columns(axes, {
            "mean": [signed(float(values.mean()), digits) for _, values in drawn],
            "> 0": [f"{np.mean(values > 0):.0%}" for _, values in drawn],
            "n": [f"{len(values):,}" for _, values in drawn],
        }, theme)  # fmt: skip
        foot(figure, _notes(rows, drawn, (low, high)))
        describe(figure, "Reliance on the graph, nats per token. " + " ".join(
            f"{row.name}: mean {values.mean():+.4g} over {counted(len(values), 'example')}." for row, values in drawn
        ))  # fmt: skip
    return figure


def _limits(drawn: Sequence[tuple[RelianceRow, FloatArray]]) -> tuple[float, float]:
    """Where the axis ends: around 0, all intervals, and all examples; of many all but half a percent at each end."""
    import numpy as np

    values = np.concatenate([values for _, values in drawn])
    ends = [end for row, _ in drawn for end in (row.low, row.high) if is_number(end)]
    shown = _SHOWN if len(values) > MOST_POINTS else (0.0, 100.0)
    lowest, highest = (float(q) for q in np.percentile(values, shown))
    low, high = min(0.0, lowest, *ends), max(0.0, highest, *ends)
    gap = 0.04 * (high - low) or 0.01
    return low - gap, high + gap


def _draw(
    axes: Axes, place: int, row: RelianceRow, values: FloatArray, limits: tuple[float, float], theme: Theme
) -> None:
    import numpy as np

    if len(values) <= MOST_POINTS:
        axes.plot(
            values, place - 0.19 + _spread(len(values), values), linestyle="none", marker=".", markersize=5.5,
            color=theme.colours[0], alpha=0.7, markeredgewidth=0, zorder=2, gid=f"examples-{place}",
        )  # fmt: skip
    else:
        # 0 is in the middle of a bin: controls have gains of exactly 0, which belong to neither side.
        width = (limits[1] - limits[0]) / _BINS
        edges = (np.arange(np.floor(limits[0] / width), np.ceil(limits[1] / width) + 1) - 0.5) * width
        counts, _ = np.histogram(values, bins=edges)
        heights = 0.46 * counts / max(1, counts.max())
        axes.stairs(
            place - heights, edges, baseline=place, fill=True, facecolor=theme.colours[0], alpha=0.55, linewidth=0,
            zorder=2, gid=f"examples-{place}",
        )  # fmt: skip
    if len(values) >= _FEWEST_FOR_QUARTERS:
        quarter, half, three = (float(q) for q in np.percentile(values, (25, 50, 75)))
        below = place + 0.16
        axes.plot((quarter, three), (below, below), color=theme.ink, linewidth=3.2, solid_capstyle="butt", zorder=3)
        axes.plot((half, half), (below - 0.09, below + 0.09), color=theme.ink, linewidth=1.2, zorder=3)
    if is_number(row.low) and is_number(row.high):
        axes.plot((row.low, row.high), (place + 0.34,) * 2, color=theme.colours[4], linewidth=1.3, zorder=3)
    axes.plot(
        [float(values.mean())], [place + 0.34], marker="D", markersize=4, color=theme.colours[4], linestyle="none",
        zorder=4, gid=f"mean-{place}",
    )  # fmt: skip


def _spread(count: int, values: FloatArray) -> FloatArray:
    """Heights that keep neighbours apart: the golden ratio's multiples, by rank, so that equal data look equal."""
    import numpy as np

    ranks = np.empty(count)
    ranks[np.argsort(values, kind="stable")] = np.arange(count)
    return (ranks * 0.6180339887 % 1.0 - 0.5) * 0.36


def _notes(
    rows: Sequence[RelianceRow], drawn: Sequence[tuple[RelianceRow, FloatArray]], limits: tuple[float, float]
) -> list[str]:
    outside = sum(int(((values < limits[0]) | (values > limits[1])).sum()) for _, values in drawn)
    many = any(len(values) > MOST_POINTS for _, values in drawn)
    notes = [
        "Examples as points, or as an outline where there are more than 150." if many else "Points: examples.",
        *(
            ["Thick bar: middle half, with the median."]
            if any(len(v) >= _FEWEST_FOR_QUARTERS for _, v in drawn)
            else []
        ),
        "Diamond: mean, with its 95% interval." if any(is_number(row.low) for row, _ in drawn) else "Diamond: mean.",
    ]
    if outside:
        notes.append(f"Beyond the axis: {counted(outside, 'example')}.")
    return notes + left_out(len(rows) - len(drawn), "cell without reliance", "cells without reliance")
