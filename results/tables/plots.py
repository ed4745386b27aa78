"""The plots that belong to a table: costs, differences, learning curves, reliance, gates, parts of the examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from results.formats import counted
from results.runs import ResultsError, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from results.plots.parts import By
    from results.plots.rows import Cells, Cost
    from results.tables.model import Table

_PARTS: Mapping[str, By] = {"size": "heavy atoms", "scaffold": "scaffold", "group": "functional group"}
"""By what a test set is divided, and how its plots' files are called."""


def write_plots(table: Table, runs: Sequence[Run], folder: Path) -> Iterator[Path | str]:
    """Writes the plots of a table's first part as SVG and PNG; yields each file, or why there is no such plot.

    Args:
        table: whose plots.
        runs: from which it was made.
        folder: where the files go, named by the table and the plot.

    Raises:
        ResultsError: the folder cannot be written.
    """
    from results.plots import write

    left_out: dict[str, list[str]] = {}
    for name, draw in plots_of(table, runs).items():
        try:
            yield from write(draw(), folder / f"{table.name}-{name}")
        except ResultsError as error:
            left_out.setdefault(str(error), []).append(name)
        except OSError as error:
            raise ResultsError(f"{folder}: cannot be written: {error}") from None
    yield from (f"no plot {', '.join(names)}: {why}" for why, names in left_out.items())


def plots_of(table: Table, runs: Sequence[Run]) -> Mapping[str, Callable[[], Figure]]:
    """What draws each plot of a table's first part, by name; drawing raises `ResultsError` where there is nothing.

    Args:
        table, runs: as for `write_plots`.

    Raises:
        ResultsError: no metric has a value.
    """
    from results import plots
    from results.plots import rows
    from results.plots.rows import cells_of

    part = table.parts[0]
    shown = {row.cell for row in part.rows}
    chosen = [run for run in runs if run.name in shown]
    labels = {row.cell: row.name for row in part.rows}
    found = cells_of(chosen, part.protocol, table.split, table.task or None, table.data or None)
    aliases = [group.alias for group in found.values()]
    cells = {labels[group.alias] if aliases.count(group.alias) == 1 else name: group for name, group in found.items()}
    metric = _metric(table)
    return {
        "parameters": lambda: _against_cost(table, cells, metric, "trained parameters"),
        "seconds": lambda: _against_cost(table, cells, metric, "seconds of training"),
        "differences": lambda: _differences(table, cells, metric),
        "learning": lambda: plots.learning_curves(rows.loss_rows(chosen), stages=rows.stage_order(chosen)),
        "reliance": lambda: plots.reliance_per_example(rows.reliance_rows(cells)),
        "gates": lambda: plots.gate_heat_map(rows.gate_rows(cells)),
        **{
            f"{quantity}-by-{name}": partial(_by, cells, metric if quantity == "score" else quantity, by)
            for quantity in ("score", "words", "invalid")
            for name, by in _PARTS.items()
        },
    }


def _against_cost(table: Table, cells: Cells, metric: str, cost: Cost) -> Figure:
    from results.plots import score_against_cost
    from results.plots.rows import cost_rows

    higher = table.directions.better(metric) != "smaller"
    return score_against_cost(cost_rows(cells, metric, cost), metric=metric, cost=cost, higher_is_better=higher)


def _differences(table: Table, cells: Cells, metric: str) -> Figure:
    """From the cell of reference with the p values that the table has; where it has none, from the best cell."""
    from results.plots import forest
    from results.plots.rows import all_pairs, difference_rows, table_rows

    higher = table.directions.better(metric) != "smaller"
    part = table.parts[0]
    if part.reference:
        tests = table.differences_tested
        return forest(
            table_rows(table, metric),
            metric=metric,
            reference=part.reference_name,
            higher_is_better=higher,
            p_means=f"Holm over the table's {counted(tests, 'difference')}",
        )
    best = _best(table, cells, metric)
    rows = difference_rows(cells, metric, best, chosen=True)
    pairs = all_pairs(1 + sum(row.p is not None for row in rows))
    said = f"corrected for all {counted(pairs, 'pair')} of cells, since the best was chosen by the same numbers"
    return forest(rows, metric=metric, reference=best, higher_is_better=higher, p_means=said)


def _by(cells: Cells, quantity: str, by: By) -> Figure:
    from results.plots.parts import breakdown_plot, reference_lengths

    references = reference_lengths(next(iter(cells.values())), by) if quantity == "words" else ()
    return breakdown_plot(cells, quantity, by, rows=references)


def _metric(table: Table) -> str:
    """The first metric of which any row has a value."""
    rows = table.parts[0].rows
    found = next((name for name in table.metrics if any(row.metrics.get(name) is not None for row in rows)), None)
    if found is None:
        raise ResultsError(f"{table.asked}: no metric has a value, so there is nothing to draw")
    return found


def _best(table: Table, cells: Cells, metric: str) -> str:
    """The best of the cells whose value is of all seeds."""
    over = {name: group.over(metric) for name, group in cells.items()}
    means = {name: found.mean for name, found in over.items() if found.is_complete and found.mean is not None}
    if not means:
        raise ResultsError(f"differences in {metric}: no cell has a value in all of its seeds")
    return (min if table.directions.better(metric) == "smaller" else max)(means, key=means.__getitem__)
