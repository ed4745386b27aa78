"""Which answers are given where which would be right: confusion of a classification's answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.formats import counted
from results.plots.axes import panels
from results.plots.heatmap import colour_bar, shade_fields, turn_names
from results.plots.output import describe, foot, name_axes
from results.plots.style import LIGHT, SMALL, WIDTH, Theme, drawing, labels, width_of
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNREADABLE = "(none)"
OTHERS = "(others)"
MOST_LABELS = 10
_MOST_CELLS = 24
_BESIDE, _HIGH = 1.9, 0.36
"""Inches: beside all fields, and the height of a field."""


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """How often one cell gave one answer where another was right.

    Args:
        name: of the cell.
        gold: the right answer.
        answer: the given one; None where none could be read.
        count: how often, over all seeds.
    """

    name: str
    gold: str
    answer: str | None
    count: int = 1


def confusion(rows: Sequence[AnswerRow], *, theme: Theme = LIGHT) -> Figure:
    """A panel for each cell: gold answers down, given answers across, shaded by the share of each gold answer.

    Unreadable answers have a column of their own. Beyond the 10 most frequent answers the others are one.

    Raises:
        ResultsError: there is nothing to count, or there are more than 24 cells.
    """
    counts: dict[str, Counter[tuple[str, str]]] = {}
    for row in rows:
        if row.count > 0:
            given = UNREADABLE if row.answer is None else row.answer
            counts.setdefault(row.name, Counter())[row.gold, given] += row.count
    if not counts:
        raise ResultsError("confusion: there are no answers to count; packed studies hold them only on request")
    if len(counts) > _MOST_CELLS:
        raise ResultsError(f"confusion: {len(counts)} cells, and {_MOST_CELLS} at most have room; choose some of them")
    gold, answers = _answers(counts)
    columns = min(len(counts), 1 if len(gold) > 6 else 3)
    down = -(-len(counts) // columns)
    width = min(WIDTH, max(3.6, _BESIDE + 0.85 * columns * len(answers)))
    side = (width - _BESIDE) / columns / len(answers)
    turned = max(map(width_of, labels(answers, 18))) + 0.06 > side
    height = 0.75 + down * (0.35 + _HIGH * len(gold)) + 0.6 * turned
    with drawing(theme, height=height, width=width) as figure:
        grid = panels(figure, len(counts), columns)
        for place, (axes, (name, found)) in enumerate(zip(grid, counts.items(), strict=True)):
            table = _table(found, gold, answers)
            shares = [[c / sum(row) if sum(row) else None for c in row] for row in table]
            shade_fields(axes, shares, _writer(table, shares), (0.0, 1.0), theme, (side, _HIGH), place)
            axes.set_yticks(range(len(gold)), labels=labels(gold, 18))
            turn_names(axes, labels(answers, 18), turned=turned)
            axes.set_title(labels([name], 30)[0], fontsize=SMALL + 0.5, loc="left")
        colour_bar(figure, grid, (0.0, 1.0), "share of the row", theme)
        notes = ["Shares of each row, and counts over all seeds."]
        if UNREADABLE in answers:
            notes.append(f"{UNREADABLE}: answers that could not be read.")
        foot(figure, notes)
        name_axes(figure, "given answer", "right answer")
        describe(figure, "Confusion of answers. " + " ".join(map(_said, counts.items())))
    return figure


def _answers(counts: Mapping[str, Counter[tuple[str, str]]]) -> tuple[list[str], list[str]]:
    """The rows and the columns: all gold answers by frequency, and all that were given."""
    gold: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for found in counts.values():
        for (right, answer), count in found.items():
            gold[right] += count
            given[answer] += count
    unreadable = [UNREADABLE] if given.pop(UNREADABLE, 0) else []
    known = sorted(gold, key=lambda name: (-gold[name], name))
    strange = sorted((name for name in given if name not in gold), key=lambda name: (-given[name], name))
    kept = known[:MOST_LABELS]
    across = [*kept, *strange[: MOST_LABELS - len(kept)]]
    others = [OTHERS] if len(across) < len(known) + len(strange) else []
    return kept + ([OTHERS] if len(kept) < len(known) else []), across + others + unreadable


def _table(found: Counter[tuple[str, str]], gold: Sequence[str], answers: Sequence[str]) -> list[list[int]]:
    table = [[0] * len(answers) for _ in gold]
    rows, columns = {name: r for r, name in enumerate(gold)}, {name: c for c, name in enumerate(answers)}
    for (right, answer), count in found.items():
        table[rows.get(right, len(gold) - 1)][columns.get(answer, columns.get(OTHERS, 0))] += count
    return table


def _writer(table: Sequence[Sequence[int]], shares: Sequence[Sequence[float | None]]) -> Callable[[int, int], str]:
    def written(r: int, c: int) -> str:
        share = shares[r][c]
        return "" if share is None else f"{share:.0%}\n{table[r][c]:,}"

    return written


def _said(cell: tuple[str, Counter[tuple[str, str]]]) -> str:
    name, found = cell
    right = sum(count for (gold, answer), count in found.items() if gold == answer)
    return f"{name}: {right:,} of {counted(sum(found.values()), 'answer')} right."
