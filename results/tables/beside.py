"""Published numbers beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.tables.model import Published, Value

if TYPE_CHECKING:
    from results.published import PublishedFigure
    from results.tables.gather import Gathered
    from results.tables.request import TableRequest


@dataclass(frozen=True, slots=True)
class Beside:
    """The published numbers that a table shows.

    Args:
        source: paper and table, in words.
        figures: by row of the published table and by metric.
        reasons: why they do not compare with ours, a clause each.
        notes: what marks mean, and what is wrong with the published table.
        place: of the table's protocols that scored anything, the number of the one that they stand beside.
    """

    source: str
    figures: Mapping[tuple[str, str], PublishedFigure]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    place: int

    def numbers(self, row: str | None, values: Mapping[str, Value | None]) -> dict[str, Published]:
        """The published numbers of a row, by metric, and how far ours are from them."""
        found = {}
        for metric, value in values.items():
            figure = self.figures.get((row or "", metric))
            if figure is not None and figure.value is not None:
                # Seeds that lack the metric may be the worse ones: the mean of the others is compared with nothing.
                difference = None if value is None or value.counted else value.mean - figure.value
                found[metric] = Published(figure.value, figure.shown, difference)
        return found


def beside_of(request: TableRequest, metrics: Sequence[str], gathered: Sequence[Gathered]) -> Beside | None:
    """The published numbers that a request names; None where it names none.

    They stand beside our numbers by the protocol that is nearest to theirs, where the table has it; else by the first.

    Args:
        request: of the table.
        metrics: its columns.
        gathered: what there is, by each of its protocols that scored anything.
    """
    if request.published is None:
        return None
    from results.published import differences, figure, has_figure, legend, published

    table = published(request.published)
    first = next(iter(gathered[0].groups.values()))[0].first
    task, data = str(first.entry["task"]), str(first.entry["data"])
    figures = {}
    for row in request.published_rows.values():
        for metric in metrics:
            if has_figure(request.published, row, metric, task=task, dataset=data):
                figures[row, metric] = figure(request.published, row, metric, task=task, dataset=data)
    ours = [next(iter(found.groups.values()))[0].first for found in gathered]
    protocols = [str(answer.score["protocol"]) for answer in ours]
    fitting = [sum(found.protocol == name.partition("@")[0] for found in figures.values()) for name in protocols]
    place = fitting.index(max(fitting))
    reasons = [
        reason
        for found in figures.values()
        for reason in differences(found, dataset=data, split=request.split, n=ours[place].n, protocol=protocols[place])
    ]
    suspect = [f"{row}, {metric}: {found.suspect}" for (row, metric), found in figures.items() if found.suspect]
    return Beside(
        source=f"{table.paper}, {table.table}",
        figures=figures,
        reasons=tuple(dict.fromkeys(reasons)),
        notes=tuple(dict.fromkeys([*legend(list(figures.values())), *suspect, *table.defects])),
        place=place,
    )
