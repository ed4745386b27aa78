"""How open the gate of each level stands, by cell and task: a heat map of what projectors observe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import is_number, left_out
from results.plots.heatmap import colour_bar, shade_fields, turn_names
from results.plots.output import describe, foot
from results.plots.style import LIGHT, Theme, drawing, labels
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class GateRow:
    """One cell, or one task of a cell.

    Args:
        name: of the row.
        levels: what is gated, such as `atom`, `motif`, `graph`.
        means: of each level over molecules; `gates` have a mean of 1 over levels, `weights` a sum of 1.
        sds: over molecules; empty where they are unknown.
    """

    name: str
    levels: tuple[str, ...]
    means: tuple[float | None, ...]
    sds: tuple[float | None, ...] = ()


def gate_heat_map(rows: Sequence[GateRow], *, quantity: str = "gate", theme: Theme = LIGHT) -> Figure:
    """A field for each row and level, with the mean and, small beside it, the standard deviation over molecules.

    Levels that a row does not have are hatched.

    Args:
        rows: drawn in their order from the top.
        quantity: what the means are.
        theme: light or dark.

    Raises:
        ResultsError: no row has a mean, or a row has not as many means (or deviations) as levels.
    """
    uneven = [row.name for row in rows if len(row.means) != len(row.levels) or len(row.sds) not in (0, len(row.means))]
    if uneven:
        raise ResultsError(f"heat map of gates: {labels(uneven)[0]} has not as many values as levels")
    drawn = [row for row in rows if any(is_number(mean) for mean in row.means)]
    if not drawn:
        raise ResultsError(
            f"heat map of gates: none of {counted(len(rows), 'row')} has any; "
            "the projectors `dynamic` and `fusion` (with learned weights) observe them"
        )
    levels = list(dict.fromkeys(level for row in drawn for level in row.levels))
    means = [[dict(zip(row.levels, row.means, strict=True)).get(level) for level in levels] for row in drawn]
    sds = [[dict(zip(row.levels, row.sds, strict=False)).get(level) for level in levels] for row in drawn]
    known = [mean for row in means for mean in row if is_number(mean)]
    limits = (min(0.0, *known), max(1.0, *known))

    def written(r: int, c: int) -> str:
        mean, sd = means[r][c], sds[r][c]
        if not is_number(mean):
            return ""
        return f"{mean:.2f} ± {sd:.2f}" if is_number(sd) else f"{mean:.2f}"

    height = 0.9 + 0.3 * len(drawn)
    with drawing(theme, height=max(height, 1.7)) as figure:
        axes = figure.add_subplot()
        shade_fields(axes, means, written, limits, theme, (4.4 / len(levels), 0.3))
        axes.set_yticks(range(len(drawn)), labels=labels([row.name for row in drawn]))
        turn_names(axes, labels(levels, 16), turned=len(levels) > 6)
        axes.set_xlabel("level")
        colour_bar(figure, axes, limits, quantity, theme)
        notes = ["Hatched: levels that a row does not have."] if any(m is None for row in means for m in row) else []
        if any(row.sds for row in drawn):
            notes.insert(0, f"Mean of the {quantity} ± standard deviation over molecules.")
        foot(figure, notes + left_out(len(rows) - len(drawn), "row without values", "rows without values"))
        describe(figure, f"{quantity} by level. " + " ".join(
            f"{row.name}: " + ", ".join(f"{level} {mean:.3g}" for level, mean in zip(row.levels, row.means, strict=True)
                                         if is_number(mean)) + "." for row in drawn
        ))  # fmt: skip
    return figure
