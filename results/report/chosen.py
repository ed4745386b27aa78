"""What a report is about: the tables that a study wants, the metric that decides, and the examples that are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from results.packed import StudyOnFile
from results.report.answers import CellAnswers, read_answers
from results.report.examples import PER_LIST, choose
from results.report.tabulated import Tabulated, tabulate
from results.runs import ResultsError
from results.tables.studies import default_requests

if TYPE_CHECKING:
    from results.tables.request import TableRequest

_SPLITS = {"test": 0, "validation": 1, "train": 2}


def requests_of(study: StudyOnFile) -> list[TableRequest]:
    """The tables that a study wants; where it wants none, one for each way of asking, answers on test first."""
    if study.requests:
        return list(study.requests)
    found = sorted(default_requests(study.runs), key=lambda request: _SPLITS.get(request.split, len(_SPLITS)))
    # One protocol gives the answer; where nobody has chosen, it is the one that counts every fault.
    return [replace(r, protocols=tuple(sorted(r.protocols, key=lambda name: name != "strict"))) for r in found]


def deciding(found: Tabulated, request: TableRequest, metric: str | None, study: StudyOnFile) -> str:
    """The metric that decides: the one asked for, the one that the study selects by, or the table's first.

    Raises:
        ResultsError: no metric has a value.
    """
    known = list(found.metrics)
    if not known:
        raise ResultsError(f"{study.name}: no metric of {found.title} has a value")
    select = study.about.get("select")
    by = str(select.get("metric", "")).rpartition("/")[2] if isinstance(select, Mapping) else ""
    wanted = [metric, *request.metrics[:1], by, *known]
    return next(name for name in wanted if name in known)


def ordering(answers: Sequence[CellAnswers], metric: str) -> str:
    """The metric by which examples are good or bad: the deciding one, if single examples have it."""
    known = dict.fromkeys(name for cell in answers for name in cell.scores)
    return metric if metric in known or not known else next(iter(known))


def shown_examples(study: StudyOnFile, per_list: int = PER_LIST) -> dict[str, set[str]]:
    """By the identity of the examples that were asked, those that a report shows if nothing else is asked for.

    Args:
        study: with its runs.
        per_list: examples of each list of each cell.
    """
    shown: dict[str, set[str]] = {}
    for identity, names in _shown(study, per_list):
        shown.setdefault(identity, set()).update(names)
    return shown


def _shown(study: StudyOnFile, per_list: int) -> Iterator[tuple[str, list[str]]]:
    for request in requests_of(study):
        try:
            found = tabulate(study, request, tests=False)
            metric = deciding(found, request, None, study)
        except ResultsError:  # a table that there is not shows nothing
            continue
        answers = [read_answers(name, group.answers) for name, group in zip(found.names, found.groups, strict=True)]
        by = ordering(answers, metric)
        lists = choose(answers, by, smaller_is_better=study.directions.better(by) == "smaller", per_list=per_list)
        identity = str(found.groups[0].first.entry.get("examples_id"))
        yield identity, [name for by_list in lists.values() for names in by_list.values() for name in names]
