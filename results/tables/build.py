"""Tables from runs: which rows there are, what is averaged, and what is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from results.metrics import HIDDEN, Directions
from results.reliance import gains_of
from results.runs import ResultsError, Run, loss_of
from results.settings import left_out
from results.statistics import over_seeds
from results.tables.beside import Beside, beside_of
from results.tables.gather import Gathered, Group, gather
from results.tables.model import Part, Published, Row, Table, Value
from results.tables.names import names_of
from results.tables.notes import Noted, notes_of
from results.tables.reference import published_rows
from results.tables.request import TableRequest
from results.tables.significance import PerExample, mark_best, value_of_group

_NOTHING: Mapping[str, Any] = {}


def build_table(
    runs: Sequence[Run],
    protocol: str,
    split: str = "test",
    data: str | None = None,
    *,
    task: str | None = None,
    metrics: Sequence[str] = (),
    reference: str | None = None,
    tests: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Table:
    """The table of these runs under one protocol.

    Runs are grouped by cell, which is their identity without the seed: two cells never share a row, whatever their
    aliases. Rows of other examples, or from which examples were left out, get a part of their own.

    Args:
        runs: of one or several cells.
        protocol: name, with or without version.
        split: that was asked.
        data: the data set or the task, where runs were asked several.
        task: the task, where runs were asked several about the same data.
        metrics: columns, in this order; all that a plain table shows where empty.
        reference: alias of a cell that all others are compared with.
        tests: whether rows are tested against each other, which reads the scores of all examples.
        tell: is told what is being done.

    Raises:
        ResultsError: no run was scored by the protocol on the split, several tasks or data sets were asked, or a
            metric or the cell of reference is not there.
    """
    request = TableRequest(
        task=task, data=data, split=split, protocols=(protocol,), metrics=tuple(metrics), reference=reference
    )
    return requested_table(runs, request, tests=tests, tell=tell)


def requested_table(
    runs: Sequence[Run],
    request: TableRequest,
    *,
    order: Sequence[str] = (),
    missing: Sequence[tuple[str, int]] = (),
    about: Mapping[str, Any] = _NOTHING,
    name: str = "table",
    tests: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Table:
    """A table as a study requests it.

    Args:
        runs: of the study, named by the aliases of its cells.
        request: what the table is to show.
        order: aliases of all cells, in the order of the rows; others follow by name.
        missing: cell and seed of runs that nobody has begun.
        about: what else the study's plan says, for the notes.
        name: of the table's files.
        tests: as in `build_table`.
        tell: is told what is being done; tests of thousands of examples take seconds each.

    Raises:
        ResultsError: as `build_table`.
    """
    _check_reference(request.reference, [*(run.name for run in runs), *order])
    directions = Directions.of(runs)
    if request.cells:
        runs, order = [run for run in runs if run.name in request.cells], request.cells
        missing = [(cell, seed) for cell, seed in missing if cell in request.cells]
    gathered = list(_gathered(runs, request))
    metrics = _columns([found for found, _ in gathered], request.metrics)
    beside = beside_of(request, metrics, [found for found, _ in gathered])
    scores = PerExample(tell)
    rows: list[tuple[tuple[Group, ...], list[dict[str, Value | None]]]] = []
    stands = 0  # the part that has the published numbers
    for number, (found, _) in enumerate(gathered):
        if beside is not None and number == beside.place:
            stands = len(rows)
        for groups in found.groups.values():
            ordered = _ordered(groups, order)
            rows.append(
                (ordered, [{m: value_of_group(g, m, scores, intervals=tests) for m in metrics} for g in ordered])
            )
    tested = mark_best(rows, metrics, directions, scores, request.reference) if tests else None
    parts: list[Part] = []
    for place, (groups, values) in enumerate(rows):
        made = _Rows(request, groups, beside if place == stands else None)
        told = place in (0, stands)
        unfinished = _Unfinished(gathered[0][0].unanswered, missing) if told else _Unfinished({}, ())
        parts.append(_part(made.rows(values, metrics, unfinished, order), groups, request))
    noted = Noted(
        request=request,
        groups=[group for groups, _ in rows for group in groups],
        parts=parts,
        tests=tested,
        beside=beside,
        about=about,
        absent=[name for name in request.protocols if name not in {wanted for _, wanted in gathered}],
    )
    entry = rows[0][0][0].first.entry
    return Table(
        title=request.title,
        asked=gathered[0][0].asked,
        split=request.split,
        metrics=tuple(metrics),
        parts=tuple(parts),
        notes=tuple(notes_of(noted)),
        name=name,
        task=str(entry["task"]),
        data=str(entry["data"]),
        directions=directions,
    )


def _gathered(runs: Sequence[Run], request: TableRequest) -> Iterator[tuple[Gathered, str]]:
    """What there is for each protocol; those after the first may be absent."""
    for place, protocol in enumerate(request.protocols):
        try:
            yield gather(runs, protocol, request.split, request.task, request.data), protocol
        except ResultsError:
            if place == 0:
                raise


def _columns(gathered: Sequence[Gathered], wanted: Sequence[str]) -> list[str]:
    answers = [a for found in gathered for groups in found.groups.values() for g in groups for a in g.answers]
    offered = list(dict.fromkeys(name for answer in answers for name in answer.score["metrics"]))
    if not wanted:
        return [name for name in offered if name not in HIDDEN]
    for name in wanted:
        if name not in offered:
            raise ResultsError(f"metric {name!r}: the runs have none of that name; they have {', '.join(offered)}")
    return list(wanted)


def _check_reference(reference: str | None, cells: Sequence[str]) -> None:
    if reference is not None and reference not in cells:
        known = ", ".join(dict.fromkeys(cells))
        raise ResultsError(f"reference {reference!r}: no run is of a cell of that name; there are {known}")


def _ordered(groups: Sequence[Group], order: Sequence[str]) -> tuple[Group, ...]:
    place = {alias: number for number, alias in enumerate(order)}
    return tuple(sorted(groups, key=lambda group: (place.get(group.alias, len(place)), group.alias)))


@dataclass(frozen=True, slots=True)
class _Unfinished:
    """Runs that have nothing to show: begun ones by cell, and cell and seed of those that are not."""

    begun: Mapping[str, tuple[Run, ...]]
    missing: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Makes the rows of one part."""

    request: TableRequest
    groups: Sequence[Group]
    beside: Beside | None

    def rows(
        self,
        values: Sequence[Mapping[str, Value | None]],
        metrics: Sequence[str],
        unfinished: _Unfinished,
        order: Sequence[str],
    ) -> list[Row]:
        """Finished cells with the states of their other runs, and cells that have none that is finished."""
        states = self._states(unfinished)
        names = names_of(self.groups, self.request.label_of)
        rows = []
        shown = set()
        for group, name, row in zip(self.groups, names, values, strict=True):
            # Of a cell that was asked in several ways, the first row tells how its other runs stand.
            own = [] if group.alias in shown else states.pop(group.alias, [])
            shown.add(group.alias)
            rows.append(self._row(group, name, row, own))
        for alias, left in states.items():
            label = self.request.label_of(alias)
            label = f"{label} (unfinished)" if label in names else label
            nothing: dict[str, Value | None] = dict.fromkeys(metrics)
            published = self._published(alias, nothing)
            rows.append(Row(label, alias, (), nothing, None, None, None, None, None, tuple(left), published=published))
        place = {alias: number for number, alias in enumerate(order)}
        return sorted(rows, key=lambda row: place.get(row.cell, len(place)))  # stable

    def _states(self, unfinished: _Unfinished) -> dict[str, list[str]]:
        """How runs without a score stand, by the alias of the row in which that is told."""
        by_cell = {group.first.run.cell: group.alias for group in reversed(self.groups)}
        aliases = {group.alias for group in self.groups}
        states: dict[str, list[str]] = {}
        for cell, runs in unfinished.begun.items():
            for run in runs:
                # A run that failed before it wrote its manifest is known by its name alone.
                unknown = cell == run.folder.name and run.name in aliases
                alias = run.name if unknown else by_cell.get(cell, run.name)
                states.setdefault(alias, []).append(_state(run))
        for cell, _ in unfinished.missing:
            states.setdefault(cell, []).append("not begun")
        return states

    def _row(self, group: Group, name: str, values: Mapping[str, Value | None], states: Sequence[str]) -> Row:
        summaries = [answer.run.summary for answer in group.answers]
        losses = [loss for summary in summaries if (loss := loss_of(summary)) is not None]
        seconds = [float(spent) for summary in summaries if (spent := summary.get("training_seconds")) is not None]
        gains = gains_of(group.answers)
        is_beside = published_rows(self.groups)[group.alias] is group
        return Row(
            name=name,
            cell=group.alias,
            seeds=group.seeds,
            metrics=values,
            loss=over_seeds(losses),
            reliance=gains.interval,
            trained=(summaries[0].get("parameters") or {}).get("trained_sum"),
            seconds=over_seeds(seconds),
            invalid=fmean(answer.score.get("n_invalid", 0) for answer in group.answers),
            states=tuple(states),
            external=any(answer.run.external for answer in group.answers),
            published=self._published(group.alias, values) if is_beside else {},
            reliance_counted=gains.counted,
            lacking={
                name: group.over(name).why
                for name, value in values.items()
                if value is None and any(name in answer.score["metrics"] for answer in group.answers)
            },
        )

    def _published(self, alias: str, values: Mapping[str, Value | None]) -> dict[str, Published]:
        if self.beside is None:
            return {}
        return self.beside.numbers(self.request.published_rows.get(alias), values)


def _part(rows: Sequence[Row], groups: Sequence[Group], request: TableRequest) -> Part:
    first = groups[0].first
    reference = next((group.alias for group in groups if group.alias == request.reference), "")
    return Part(
        protocol=first.score["protocol"],
        n=first.n,
        examples=first.entry["examples_id"],
        limited=bool(first.entry["limited"]),
        without=left_out(first.score),
        rows=tuple(rows),
        reference=reference,
        reference_name=request.label_of(reference) if reference else "",
    )


def _state(run: Run) -> str:
    if run.state == "done":
        return "not scored so"
    return run.error or run.state
