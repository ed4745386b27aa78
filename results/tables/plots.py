"""The plots that belong to a table: score against cost, differences, learning curves, reliance, gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from results.metrics import direction_of
from results.runs import ResultsError, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from results.tables.gather import Group
    from results.tables.model import Table


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

    for name, draw in _plots(table, runs).items():
        try:
            yield from write(draw(), folder / f"{table.name}-{name}")
        except ResultsError as error:
            yield f"no plot {name}: {error}"
        except OSError as error:
            raise ResultsError(f"{folder}: cannot be written: {error}") from None


def _plots(table: Table, runs: Sequence[Run]) -> Mapping[str, Callable[[], Figure]]:
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
    higher = direction_of(metric) != "smaller"
    reference = labels.get(part.reference) or _best(cells, metric)
    return {
        "parameters": lambda: plots.score_against_cost(
            rows.cost_rows(cells, metric, "trained parameters"),
            metric=metric,
            cost="trained parameters",
            higher_is_better=higher,
        ),
        "seconds": lambda: plots.score_against_cost(
            rows.cost_rows(cells, metric, "seconds of training"),
            metric=metric,
            cost="seconds of training",
            higher_is_better=higher,
        ),
        "differences": lambda: plots.forest(
            rows.difference_rows(cells, metric, reference), metric=metric, reference=reference, higher_is_better=higher
        ),
        "learning": lambda: plots.learning_curves(rows.loss_rows(chosen)),
        "reliance": lambda: plots.reliance_per_example(rows.reliance_rows(cells)),
        "gates": lambda: plots.gate_heat_map(rows.gate_rows(cells)),
    }


def _metric(table: Table) -> str:
    """The first metric of which any row has a value."""
    rows = table.parts[0].rows
    found = next((name for name in table.metrics if any(row.metrics.get(name) is not None for row in rows)), None)
    if found is None:
        raise ResultsError(f"{table.asked}: no metric has a value, so there is nothing to draw")
    return found


def _best(cells: Mapping[str, Group], metric: str) -> str:
    means = {name: fmean(values) for name, group in cells.items() if (values := group.values(metric))}
    return (min if direction_of(metric) == "smaller" else max)(means, key=means.__getitem__)
