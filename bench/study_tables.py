"""The tables of a study: which of those that its file declares there can be, and what each shows."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.config import RunConfig
from bench.errors import ConfigError, UserError, is_user_error
from bench.registry import Registry
from results.tables.request import TableRequest, check_request
from tasks.base import AnswerKind
from tasks.metrics.base import Protocol


@dataclass(slots=True)
class _Asked:
    """What cells are asked in one way: answers that may stand in one table.

    Args:
        cells: aliases, in order.
        protocols: those that score such answers, by name.
    """

    task: str
    data: str
    split: str
    answer: AnswerKind
    cells: list[str] = field(default_factory=list)
    protocols: dict[str, Protocol] = field(default_factory=dict)

    @property
    def named(self) -> str:
        return f"{self.task} on {self.data}"


def tables_in_force(
    declared: Sequence[TableRequest],
    cells: Mapping[str, RunConfig],
    known: Collection[str],
    components: Registry,
) -> tuple[tuple[TableRequest, ...], tuple[str, ...]]:
    """The tables of a study, each with the task, data set, split, cells and protocols that it comes to.

    A study that declares none has one for everything that its cells are asked. One whose task no cell is asked is left
    out: a study asks less at a small scale than at a large one.

    Args:
        declared: by the study's file.
        cells: configurations by alias, as they will run.
        known: aliases of all cells, whether they are wanted or not.
        components: where protocols and tasks are looked up.

    Returns:
        The tables, and what was left out, in words.

    Raises:
        ConfigError: a table names a task, cell, metric, published table or row that there is not, or does not say which
            of several tasks it is about.
    """
    asked = _asked(cells)
    tables: list[TableRequest] = []
    left_out: list[str] = []
    for number, request in enumerate(declared):
        path = f"tables[{number}]"
        about = _about(request, asked, path, components)
        if about is None:
            what = " on ".join(part for part in (request.task, request.data) if part)
            left_out.append(f"no table {request.name or number + 1}: at this scale no cell is asked {what}")
            continue
        try:
            check_request(request, known)
        except Exception as error:
            if not is_user_error(error):
                raise
            raise ConfigError(path, str(error)) from None
        tables.append(_fitted(request, about, path, components))
    if not declared:
        tables = [_made_of(each) for each in asked]
    return tuple(_named_apart(tables)), tuple(left_out)


def _asked(cells: Mapping[str, RunConfig]) -> list[_Asked]:
    found: dict[tuple[str, str, str], _Asked] = {}
    for alias, config in cells.items():
        for task in config.evaluation_tasks():
            key = (task.name, task.data, config.evaluation.split)
            entry = found.setdefault(key, _Asked(*key, task.answer))
            if alias not in entry.cells:
                entry.cells.append(alias)
            for protocol in config.evaluation.protocols:
                if task.answer in protocol.metrics():
                    entry.protocols.setdefault(protocol.name, protocol)
    return list(found.values())


def _about(request: TableRequest, asked: Sequence[_Asked], path: str, components: Registry) -> _Asked | None:
    """What a table is about; None where no cell is asked it."""
    if request.task is not None:
        try:
            components.get("task", request.task)
        except UserError as error:
            raise ConfigError(f"{path}.task", str(error)) from None
    fitting = [each for each in asked if request.task in (None, each.task) and request.data in (None, each.data)]
    if not fitting:
        return None
    several = {each.named for each in fitting}
    if len(several) > 1:
        raise ConfigError(
            path, f"may be about {', '.join(sorted(several))}; a table has one of them: say which by `task` or `data`"
        )
    return next((each for each in fitting if each.split == request.split), fitting[0])


def _fitted(request: TableRequest, about: _Asked, path: str, components: Registry) -> TableRequest:
    cells = [cell for cell in request.cells or about.cells if cell in about.cells]
    protocols = [name for name in request.protocols if name in about.protocols]
    notes = list(request.notes)
    if not protocols:  # beside a published table, the table itself says by which protocol that was made
        protocols = list(about.protocols)
    if about.split != request.split:
        notes.append(f"Answers are of the {about.split} split, not of {request.split}.")
    return replace(
        request,
        task=about.task,
        data=about.data,
        split=about.split,
        protocols=tuple(protocols),
        metrics=_metrics(request, about, protocols, path, components),
        cells=tuple(cells),
        reference=request.reference if request.reference in cells else None,
        rows={cell: row for cell, row in request.rows.items() if cell in cells},
        notes=tuple(notes),
    )


def _metrics(
    request: TableRequest, about: _Asked, protocols: Sequence[str], path: str, components: Registry
) -> tuple[str, ...]:
    """The metrics that the protocols in force have; one that no protocol of the table has is a mistake."""
    offered = list(dict.fromkeys(_offered((about.protocols[name] for name in protocols), about.answer)))
    others = []
    for name in request.protocols:
        try:
            others.append(components.get("protocol", name)())
        except UserError as error:
            raise ConfigError(f"{path}.protocols", str(error)) from None
    known = list(dict.fromkeys([*offered, *_offered(others, about.answer)]))
    for metric in request.metrics:
        if metric not in known:
            near = difflib.get_close_matches(metric, known, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{path}.metrics",
                f"{metric!r} is no metric of {', '.join(request.protocols)} for {about.task}.{suggestion} There are: "
                f"{', '.join(known)}.",
            )
    return tuple(metric for metric in request.metrics if metric in offered)


def _offered(protocols: Collection[Protocol] | Iterator[Protocol], answer: AnswerKind) -> Iterator[str]:
    for protocol in protocols:
        yield from (metric.name for metric in protocol.metrics().get(answer, ()))


def _made_of(asked: _Asked) -> TableRequest:
    return TableRequest(
        task=asked.task,
        data=asked.data,
        split=asked.split,
        protocols=tuple(asked.protocols),
        cells=tuple(asked.cells),
    )


def _named_apart(tables: Sequence[TableRequest]) -> Iterator[TableRequest]:
    """Several tables are named, since files are named by them."""
    if len(tables) == 1:
        yield from tables
        return
    taken: set[str] = {table.name for table in tables if table.name is not None}
    for table in tables:
        if table.name is not None:
            yield table
            continue
        parts = (str(table.task), str(table.data), table.split)
        names = (_slug("-".join(parts[:length])) for length in (1, 2, 3))
        name = next((name for name in names if name not in taken), _slug("-".join((*parts, str(len(taken))))))
        taken.add(name)
        yield replace(table, name=name)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
