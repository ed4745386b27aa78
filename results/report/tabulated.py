"""A study's table with the answers behind its rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from results.packed import StudyOnFile
from results.page import Markup
from results.runs import Run
from results.tables import as_text, requested_table
from results.tables.gather import Group, gather
from results.tables.model import Table, Versus
from results.tables.names import names_of
from results.tables.request import TableRequest


@dataclass(frozen=True, slots=True)
class Tabulated:
    """A table, and what stands behind the rows of its first part.

    Args:
        title: what the study calls it, or else task, data set, split and protocol.
        table: as it is built for all forms.
        html: the same for a page.
        names: of the rows that have answers.
        groups: their answers.
        unanswered: runs without a score, by cell.
    """

    title: str
    table: Table
    html: Markup
    names: tuple[str, ...]
    groups: tuple[Group, ...]
    unanswered: Mapping[str, tuple[Run, ...]]

    @property
    def metrics(self) -> list[str]:
        """The columns in which a row has a value."""
        rows = self.table.parts[0].rows
        return [name for name in self.table.metrics if any(row.metrics.get(name) is not None for row in rows)]

    def versus(self, metric: str) -> dict[str, Versus]:
        """By name of the row, its difference from the cell of reference, as the table shows it."""
        found = {}
        for row in self.table.parts[0].rows:
            value = row.metrics.get(metric)
            if value is not None and value.versus is not None:
                found[row.name] = value.versus
        return found


def tabulate(study: StudyOnFile, request: TableRequest, *, tests: bool = True) -> Tabulated:
    """The table that a study wants.

    Args:
        study: with its runs.
        request: the table.
        tests: whether rows are tested against each other, which reads the scores of all examples.

    Raises:
        ResultsError: no run has such scores.
    """
    table = requested_table(
        study.runs, request, order=study.cells, missing=study.missing, about=study.about, tests=tests
    )
    gathered = gather(study.runs, request.protocols[0], request.split, request.task, request.data)
    groups = next(iter(gathered.groups.values()))
    place = {alias: number for number, alias in enumerate(request.cells or study.cells)}
    if request.cells:
        groups = tuple(group for group in groups if group.alias in place)
    groups = tuple(sorted(groups, key=lambda group: (place.get(group.alias, len(place)), group.alias)))
    # The table's caption has both; a heading is to be short.
    title = table.title.rstrip(".") or f"{table.asked}, {table.split} split, protocol {table.protocol}"
    return Tabulated(
        title=title,
        table=table,
        html=Markup(as_text(table, "html")),
        names=tuple(names_of(groups, request.label_of)),
        groups=groups,
        unanswered=gathered.unanswered,
    )
