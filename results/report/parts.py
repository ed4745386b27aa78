"""One way of asking of a report: its tables, comparisons, plots, reliance and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.facts import example_facts, example_novelty
from results.metrics import direction_of
from results.packed import StudyOnFile
from results.report import figures
from results.report.answers import CellAnswers, read_answers, reasons_of
from results.report.comparisons import compare_all
from results.report.content import Invalid, Part
from results.report.examples import MOST_BYTES, PER_LIST, browser
from results.report.reliance import reliance_of
from results.report.sentences import Standing, caveats
from results.report.tabulated import Tabulated, tabulate
from results.runs import ResultsError
from results.tables.gather import Group
from results.tables.request import TableRequest
from results.tables.significance import PerExample, value_of_group


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a part: its name as the table shows it, and its answers."""

    name: str
    group: Group


def build_part(
    study: StudyOnFile, request: TableRequest, *, metric: str | None, per_list: int | None, share: float
) -> Part:
    """All that is shown of one table of a study.

    Args:
        study: with its runs.
        request: the table.
        metric: that decides, where this table has it; None for the table's first.
        per_list: examples of each list of each cell; None for the default.
        share: of a page's room for examples.

    Raises:
        ResultsError: there are no such scores, or a file cannot be read.
    """
    found = tabulate(study, request)
    cells = [Cell(name, group) for name, group in zip(found.names, found.groups, strict=True)]
    decides = _deciding(found, request, metric, study)
    smaller = direction_of(decides) == "smaller"
    scores = PerExample()
    standings = tuple(_standings(cells, decides, scores, smaller))
    reference = next((cell for cell in cells if cell.group.alias == request.reference), None)
    against = reference.name if reference else standings[0].cell if standings else None
    compared = compare_all(
        cells_by_name(cells),
        against,
        decides,
        scores,
        of_table=found.versus(decides) if reference else None,
        tests_of_table=found.differences_tested,
    )
    answers = [read_answers(cell.name, cell.group.answers) for cell in cells]
    asked = [answer for cell in cells for answer in cell.group.answers]
    facts = example_facts(asked)
    reliance = reliance_of(cells_by_name(cells))
    drawn = figures.Material(cells_by_name(cells), answers, compared, against, decides, smaller, reliance)
    first = cells[0].group.first.entry
    limited = int(first["n"]) if first["limited"] else None
    about = set(request.cells or study.cells)  # other cells of the study are asked something else
    left = sum(run.name in about for runs in found.unanswered.values() for run in runs)
    left += sum(cell in about for cell, _ in study.missing)
    told = caveats(
        standings,
        compared,
        reference=reference.name if reference else None,
        split=request.split,
        limited=limited,
        missing=left,
    )
    return Part(
        title=found.title,
        tables=(found.html,),
        metric=decides,
        standings=standings,
        compared=compared,
        reference=reference.name if reference else None,
        caveats=tuple(told),
        plots=figures.of_results(drawn),
        reliance=reliance,
        reliance_plots=figures.of_reliance(drawn),
        examples=browser(
            answers,
            _ordering(answers, decides),
            facts,
            example_novelty(asked),
            smaller_is_better=direction_of(_ordering(answers, decides)) == "smaller",
            per_list=PER_LIST if per_list is None else per_list,
            most_bytes=int(MOST_BYTES * share),
        ),
        invalid=tuple(_invalid(cell, known) for cell, known in zip(cells, answers, strict=True)),
    )


def cells_by_name(cells: Sequence[Cell]) -> dict[str, Group]:
    """Groups by the names under which they are shown."""
    return {cell.name: cell.group for cell in cells}


def _deciding(found: Tabulated, request: TableRequest, metric: str | None, study: StudyOnFile) -> str:
    """The metric that decides: the one asked for, the one that the study selects by, or the table's first."""
    known = list(found.metrics)
    if not known:
        raise ResultsError(f"{study.name}: no metric of {found.title} has a value")
    select = study.about.get("select")
    by = str(select.get("metric", "")).rpartition("/")[2] if isinstance(select, Mapping) else ""
    wanted = [metric, *request.metrics[:1], by, *known]
    return next(name for name in wanted if name in known)


def _standings(cells: Sequence[Cell], metric: str, scores: PerExample, smaller: bool) -> list[Standing]:
    found = []
    for cell in cells:
        value = value_of_group(cell.group, metric, scores)
        if value is not None:
            found.append(Standing(cell.name, value.mean, value.ci95, cell.group.first.n, value.n))
    return sorted(found, key=lambda standing: standing.value if smaller else -standing.value)


def _ordering(answers: Sequence[CellAnswers], metric: str) -> str:
    """The metric by which examples are good or bad: the deciding one, if single examples have it."""
    known = dict.fromkeys(name for cell in answers for name in cell.scores)
    return metric if metric in known or not known else next(iter(known))


def _invalid(cell: Cell, known: CellAnswers) -> Invalid:
    answers = cell.group.answers
    return Invalid(
        cell=cell.name,
        n=sum(answer.n for answer in answers),
        invalid=sum(int(answer.score.get("n_invalid") or 0) for answer in answers),
        ended_by_length=sum(int(answer.entry.get("ended_by_length") or 0) for answer in answers),
        reasons=tuple(reasons_of(known)),
    )
