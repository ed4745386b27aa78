"""One way of asking of a report: its tables, comparisons, plots, reliance and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.facts import example_facts
from results.packed import StudyOnFile
from results.report import figures
from results.report.answers import CellAnswers, read_answers, reasons_of
from results.report.chosen import deciding, ordering
from results.report.comparisons import Criterion, compared_with_best, compared_with_reference
from results.report.content import Invalid, Part
from results.report.examples import MOST_BYTES, PER_LIST, browser
from results.report.reliance import reliance_of
from results.report.sentences import Standing, caveats
from results.report.tabulated import tabulate
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
    decides = deciding(found, request, metric, study)
    smaller = study.directions.better(decides) == "smaller"
    criterion = Criterion(decides, smaller)
    scores = PerExample()
    standings = tuple(_standings(cells, decides, scores, smaller))
    reference = _reference(cells, request)
    if reference is not None and request.reference is not None:
        compared = compared_with_reference(
            cells_by_name(cells),
            request.reference,
            reference,
            criterion,
            scores,
            found.versus(decides),
            found.table.differences_tested,
        )
        against: str | None = reference
    else:
        against = next((standing.cell for standing in standings if not standing.counted), None)
        compared = compared_with_best(cells_by_name(cells), against, criterion, scores)
    answers = [read_answers(cell.name, cell.group.answers) for cell in cells]
    asked = [answer for cell in cells for answer in cell.group.answers]
    by = ordering(answers, decides)
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
        reference=reference,
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
        reference=reference,
        caveats=tuple(told),
        plots=figures.of_results(drawn),
        reliance=reliance,
        reliance_plots=figures.of_reliance(drawn),
        examples=browser(
            answers,
            by,
            example_facts(asked),
            smaller_is_better=study.directions.better(by) == "smaller",
            per_list=PER_LIST if per_list is None else per_list,
            most_bytes=int(MOST_BYTES * share),
        ),
        invalid=tuple(_invalid(cell, known) for cell, known in zip(cells, answers, strict=True)),
    )


def cells_by_name(cells: Sequence[Cell]) -> dict[str, Group]:
    """Groups by the names under which they are shown."""
    return {cell.name: cell.group for cell in cells}


def _standings(cells: Sequence[Cell], metric: str, scores: PerExample, smaller: bool) -> list[Standing]:
    found = []
    for cell in cells:
        value = value_of_group(cell.group, metric, scores)
        if value is not None:
            found.append(
                Standing(cell.name, value.mean, value.ci95, cell.group.first.n, value.n, value.counted, value.lacking)
            )
    # One that is undefined in some seeds is over the luckier ones, and never the best.
    return sorted(found, key=lambda standing: (bool(standing.counted), standing.value if smaller else -standing.value))


def _reference(cells: Sequence[Cell], request: TableRequest) -> str | None:
    """What the cell of reference is called; where it was asked in several ways, without what tells its rows apart."""
    named = [cell.name for cell in cells if cell.group.alias == request.reference]
    if len(named) < 2 or request.reference is None:
        return named[0] if named else None
    return request.label_of(request.reference)


def _invalid(cell: Cell, known: CellAnswers) -> Invalid:
    answers = cell.group.answers
    return Invalid(
        cell=cell.name,
        n=sum(answer.n for answer in answers),
        invalid=sum(int(answer.score.get("n_invalid") or 0) for answer in answers),
        ended_by_length=sum(int(answer.entry.get("ended_by_length") or 0) for answer in answers),
        reasons=tuple(reasons_of(known)),
    )
