"""Each cell against the one that all are compared with, corrected for how many there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from results.report.sentences import Compared
from results.seeds import difference
from results.statistics import FEWEST_EXAMPLES, PairedResult
from results.tables.gather import Group
from results.tables.model import Versus
from results.tables.reference import reference_of
from results.tables.significance import PerExample


@dataclass(frozen=True, slots=True)
class Criterion:
    """By what cells are compared.

    Args:
        metric: its name.
        smaller_is_better: whether a small value is good.
    """

    metric: str
    smaller_is_better: bool


def compared_with_reference(
    cells: Mapping[str, Group],
    reference: str,
    label: str,
    by: Criterion,
    scores: PerExample,
    of_table: Mapping[str, Versus],
    tests_of_table: int,
) -> tuple[Compared, ...]:
    """Differences of all cells from the one that the study names, as its table has them.

    They are corrected by Holm over all differences of the table, of all its metrics, and the report says the same. Of a
    cell of reference that was asked in several ways, each cell is compared with the answers that were asked as its own.

    Args:
        cells: by name.
        reference: alias of the cell that the others are compared with.
        label: what it is called.
        by: what they are compared by.
        scores: of the cells.
        of_table: the differences that the table shows, by name of the cell.
        tests_of_table: how many the table has, of all metrics.
    """
    how = f"Holm over the table's {tests_of_table} differences" if tests_of_table > 1 else ""
    called = {id(group): name for name, group in cells.items()}
    found = []
    for name, group in cells.items():
        other = reference_of(group, list(cells.values()), reference)
        if other is None or not group.over(by.metric).values:
            continue
        if isinstance(other, str):
            found.append(_untested(name, label, by, group, None, other))
            continue
        p = of_table[name].adjusted if name in of_table else None
        result = scores.compared(group, other, by.metric)
        found.append(_compared(name, called[id(other)], by, result, p, (group, other), tests_of_table, how))
    return tuple(found)


def compared_with_best(
    cells: Mapping[str, Group], best: str | None, by: Criterion, scores: PerExample
) -> tuple[Compared, ...]:
    """Differences of all cells from the one that came out best.

    That choice was made by the same numbers; p values are multiplied by the number of all pairs of cells (Bonferroni),
    which holds whichever pairs are looked at afterwards.

    Args:
        cells: by name.
        best: its name; None where no cell has a value in all of its seeds.
        by: what they are compared by.
        scores: of the cells.
    """
    if best is None:
        return ()
    others = [name for name, group in cells.items() if name != best and group.over(by.metric).values]
    pairs = (len(others) + 1) * len(others) // 2
    how = f"for all {pairs} pairs of cells" if pairs > 1 else ""
    return tuple(_against_best(cells, others, best, by, scores, pairs, how))


def _against_best(
    cells: Mapping[str, Group], others: list[str], best: str, by: Criterion, scores: PerExample, pairs: int, how: str
) -> Iterator[Compared]:
    for name in others:
        result = scores.compared(cells[name], cells[best], by.metric)
        raw = result.p if isinstance(result, PairedResult) else None
        p = None if raw is None else min(1.0, raw * pairs)
        yield _compared(name, best, by, result, p, (cells[name], cells[best]), pairs, how)


def _compared(
    name: str,
    other: str,
    by: Criterion,
    result: PairedResult | str,
    p: float | None,
    groups: tuple[Group, Group],
    tests: int,
    correction: str,
) -> Compared:
    if isinstance(result, str):
        return _untested(name, other, by, groups[0], groups[1], result)
    return Compared(
        cell=name,
        other=other,
        metric=by.metric,
        smaller_is_better=by.smaller_is_better,
        difference=None if math.isnan(result.difference) else result.difference,
        ci95=result.ci95 if result.n >= FEWEST_EXAMPLES else None,
        p=p,
        n=result.n,
        seeds=result.seeds,
        detectable=result.detectable_after(tests),
        test=result.test,
        reason=result.note,
        correction=correction,
    )


def _untested(name: str, other: str, by: Criterion, ours: Group, theirs: Group | None, reason: str) -> Compared:
    """Two cells without a test; their difference is told where both have the metric in all of their seeds."""
    return Compared(
        cell=name,
        other=other,
        metric=by.metric,
        smaller_is_better=by.smaller_is_better,
        difference=None if theirs is None else difference(ours.over(by.metric), theirs.over(by.metric)),
        ci95=None,
        p=None,
        n=ours.first.n,
        seeds=(len(ours.answers), len(theirs.answers) if theirs is not None else 0),
        detectable=None,
        reason=reason.removeprefix("no test: ").removeprefix("no difference: "),
    )
