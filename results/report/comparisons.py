"""Each cell against the one that all are compared with, corrected for how many there are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from results.metrics import direction_of
from results.report.sentences import Compared
from results.statistics import PairedResult, detectable_difference
from results.tables.gather import Group
from results.tables.model import Versus
from results.tables.significance import FEWEST_EXAMPLES, PerExample

_POWER, _LEVEL = 0.8, 0.05


def compare_all(
    cells: Mapping[str, Group],
    against: str | None,
    metric: str,
    scores: PerExample,
    *,
    of_table: Mapping[str, Versus] | None,
    tests_of_table: int,
) -> tuple[Compared, ...]:
    """Differences of all cells from one.

    Where the study names the cell that the others are compared with, the table has these differences too, corrected by
    Holm over all of its metrics, and the report says the same. Where it is the one that came out best, that choice was
    made by the same numbers; p values are then multiplied by the number of all pairs of cells (Bonferroni), which holds
    whichever pairs are looked at afterwards.

    Args:
        cells: by name.
        against: the name of the one; None where no cell has a value.
        metric: by which they are compared.
        scores: of the cells.
        of_table: the differences that the table shows; None where `against` is the best and no cell of reference.
        tests_of_table: how many the table has, of all metrics.
    """
    if against is None:
        return ()
    others = [name for name in cells if name != against and cells[name].values(metric)]
    results = {name: scores.compared(cells[name], cells[against], metric) for name in others}
    pairs = (len(others) + 1) * len(others) // 2
    tests = pairs if of_table is None else tests_of_table
    how = f"for all {pairs} pairs of cells" if of_table is None else f"Holm over the table's {tests} differences"
    found = []
    for name, result in results.items():
        raw = result.p if isinstance(result, PairedResult) else None
        p = None if raw is None else min(1.0, raw * pairs)
        if of_table is not None:
            p = of_table[name].adjusted if name in of_table else None
        groups = (cells[name], cells[against])
        found.append(_compared(name, against, metric, result, p, groups, tests, how if tests > 1 else ""))
    return tuple(found)


def _compared(
    name: str,
    against: str,
    metric: str,
    result: PairedResult | str,
    p: float | None,
    groups: tuple[Group, Group],
    tests: int,
    correction: str,
) -> Compared:
    smaller = direction_of(metric) == "smaller"
    seeds = (len(groups[0].answers), len(groups[1].answers))
    if isinstance(result, str):
        ours, theirs = (group.values(metric) for group in groups)
        # One of them may have no value at all, as the errors of a model that states no number.
        difference = sum(ours) / len(ours) - sum(theirs) / len(theirs) if ours and theirs else None
        return Compared(
            name, against, metric, smaller, difference, None, None, groups[0].first.n, seeds, None, reason=result
        )
    return Compared(
        cell=name,
        other=against,
        metric=metric,
        smaller_is_better=smaller,
        difference=None if math.isnan(result.difference) else result.difference,
        ci95=result.ci95 if result.n >= FEWEST_EXAMPLES else None,
        p=p,
        n=result.n,
        seeds=result.seeds,
        detectable=detectable_after(result, tests),
        test=result.test,
        reason=result.note,
        correction=correction,
    )


def detectable_after(result: PairedResult, tests: int) -> float | None:
    """The difference that would have been found with 80% power where the level is shared by so many tests."""
    if result.detectable is None or result.n < 2 or not math.isfinite(result.detectable):
        return None
    shared = detectable_difference(1.0, result.n, _POWER, _LEVEL / max(1, tests))
    return result.detectable * shared / detectable_difference(1.0, result.n, _POWER, _LEVEL)
