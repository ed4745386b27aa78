"""The tables of a study: those that it requests, or one for each task that it asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from results.runs import NothingScoredError, ResultsError, Run
from results.tables.build import requested_table
from results.tables.model import Table
from results.tables.request import TableRequest

if TYPE_CHECKING:
    from results.packed import StudyOnFile


def study_tables(
    study: StudyOnFile,
    *,
    reference: str | None = None,
    tests: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Table]:
    """All tables of a study, each with a name of its own.

    Args:
        study: with its runs.
        reference: alias of the cell that all others are compared with, in place of what the tables request.
        tests: whether rows are tested against each other.
        tell: is told what is being done; tests of thousands of examples take seconds each.

    Raises:
        ResultsError: nothing was scored, or a table requests what there is not.
    """
    return list(_tables(study, reference, tests, tell))


def _tables(study: StudyOnFile, reference: str | None, tests: bool, tell: Callable[[str], None]) -> Iterator[Table]:
    requests = study.requests or tuple(default_requests(study.runs))
    if not requests:
        done = sum(run.state == "done" for run in study.runs)
        raise ResultsError(f"study {study.name}: {done} of its runs are done, and none has scores yet: no table")
    names: set[str] = set()
    lacking: list[NothingScoredError] = []
    for request in requests:
        name = request.name or _slug("-".join(filter(None, (request.task, request.data))) or study.name)
        if name in names:
            name = next(f"{name}-{number}" for number in range(2, len(requests) + 2) if f"{name}-{number}" not in names)
        names.add(name)
        if reference is not None:
            request = TableRequest.from_mapping({**request.to_mapping(), "reference": reference})
        try:
            table = requested_table(
                study.runs,
                request,
                order=study.cells,
                missing=study.missing,
                about=study.about,
                name=name,
                tests=tests,
                tell=tell,
            )
        except NothingScoredError as error:  # others of the study may have theirs already
            lacking.append(error)
            tell(f"no table {name} yet: {error}")
            continue
        yield table
    if len(lacking) == len(requests):
        raise lacking[0]


def default_requests(runs: Sequence[Run]) -> Iterator[TableRequest]:
    """A table for each task, data set and split that runs were asked, with all protocols that scored them."""
    protocols: dict[tuple[str, str, str], dict[str, None]] = {}
    for entry in (entry for run in runs for entry in run.summary.get("evaluations", ())):
        found = protocols.setdefault((entry["task"], entry["data"], entry["split"]), {})
        found |= {score["protocol"].partition("@")[0]: None for score in entry["scores"]}
    splits = {split for *_, split in protocols}
    for (task, data, split), names in protocols.items():
        if names:
            name = _slug(f"{task}-{data}" + (f"-{split}" if len(splits) > 1 else ""))
            yield TableRequest(name=name, task=task, data=data, split=split, protocols=tuple(names))


def _slug(text: str) -> str:
    """A name that files may have: a data set may be named by the path of its file."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.rpartition("/")[2].lower()).strip("-._") or "table"
