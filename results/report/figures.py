"""The plots of a report: rows that `results.plots` makes of runs, and those of the report's own comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from results.page import Markup
from results.plots.rows import Cells, Cost
from results.report.answers import CellAnswers
from results.report.content import Plot, Reliance
from results.report.sentences import Compared
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from results.plots.parts import By

_MOST_CURVES = 16
"""Cells in a plot of learning curves; more would be a page of their own."""

_FEWEST_BLOCKS, _FEWEST_RANKED = 3, 3
"""Ways of asking over which ranks are averaged, and cells that have ranks; fewer say nothing."""


@dataclass(frozen=True, slots=True)
class Material:
    """What plots of one part are drawn from.

    Args:
        cells: their answers, by name.
        answers: the same example by example.
        compared: their differences from `against`.
        against: the cell that all are compared with, as it is called.
        metric: that decides.
        smaller_is_better: whether a small value is good.
        reliance: gains of the cells.
    """

    cells: Cells
    answers: Sequence[CellAnswers]
    compared: Sequence[Compared]
    against: str | None
    metric: str
    smaller_is_better: bool
    reliance: Sequence[Reliance]


Wanted = Sequence[tuple[str, Callable[[], "Figure | None"]]]
"""Titles, and what draws each; None for what would say nothing."""


def of_results(material: Material) -> tuple[Plot, ...]:
    """Differences, costs, learning curves, gates, answers of classifications, parts of the examples."""
    metric = material.metric
    return _drawn(
        [
            ("Differences", lambda: _forest(material)),
            (f"{metric} against trained parameters", lambda: _against_cost(material, "trained parameters")),
            (f"{metric} against seconds of training", lambda: _against_cost(material, "seconds of training")),
            ("Learning curves", lambda: _learning(material)),
            ("Gates of the projectors", lambda: _gates(material)),
            ("Answers and what was right", lambda: _confusion(material)),
            (f"{metric} by size", lambda: _parts(material, "heavy atoms")),
            (f"{metric} by functional group", lambda: _parts(material, "functional group")),
            (f"{metric} by novelty of the scaffold", lambda: _parts(material, "scaffold")),
            (f"{metric} by similarity to training", lambda: _parts(material, "similarity to training molecules")),
            ("Length of answers by size", lambda: _parts(material, "heavy atoms", "words")),
            ("Length of answers by functional group", lambda: _parts(material, "functional group", "words")),
            ("Length of answers by novelty of the scaffold", lambda: _parts(material, "scaffold", "words")),
            ("Invalid answers by size", lambda: _parts(material, "heavy atoms", "invalid")),
            ("Invalid answers by functional group", lambda: _parts(material, "functional group", "invalid")),
            ("Invalid answers by novelty of the scaffold", lambda: _parts(material, "scaffold", "invalid")),
        ]
    )


def of_reliance(material: Material) -> tuple[Plot, ...]:
    """Gains of single examples."""
    return _drawn([("Gain from the own graph, example by example", lambda: _gains(material))])


def of_ranks(blocks: Sequence[Mapping[str, float]], names: Sequence[str]) -> tuple[Plot, ...]:
    """Mean ranks of cells over several ways of asking, where all have a value.

    Args:
        blocks: of each way, the values of its cells, larger ones better.
        names: of cells.
    """
    return _drawn([("Ranks of the cells over all that was asked", lambda: _ranks(blocks, names))])


def _drawn(wanted: Wanted) -> tuple[Plot, ...]:
    from results.plots import svg

    found = []
    for title, draw in wanted:
        try:
            figure = draw()
        except ResultsError:  # there is nothing to draw of this kind, as of most kinds in most studies
            continue
        if figure is not None:
            found.append(Plot(title, Markup(svg(figure))))
    return tuple(found)


def _forest(material: Material) -> Figure | None:
    from results.plots import DifferenceRow, forest

    if not material.compared or material.against is None:
        return None
    rows = [
        DifferenceRow(c.cell, c.difference, *_ends(c), p=c.p, n=c.n, detectable=c.detectable) for c in material.compared
    ]
    correction = next((item.correction for item in material.compared if item.correction), "")
    return forest(
        rows,
        metric=material.metric,
        reference=material.against,
        higher_is_better=not material.smaller_is_better,
        p_means=f"corrected: {correction}" if correction else "one test",
    )


def _against_cost(material: Material, cost: Cost) -> Figure | None:
    from results.plots import score_against_cost
    from results.plots.rows import cost_rows

    rows = cost_rows(material.cells, material.metric, cost)
    if sum(row.cost is not None and row.value is not None for row in rows) < 2:
        return None
    return score_against_cost(rows, metric=material.metric, cost=cost, higher_is_better=not material.smaller_is_better)


def _learning(material: Material) -> Figure | None:
    from results.plots import learning_curves
    from results.plots.rows import loss_rows, stage_order

    shown = list(material.cells.values())[:_MOST_CURVES]
    runs = {answer.run.folder: answer.run for group in shown for answer in group.answers}
    labels: dict[str, list[str]] = {}
    for name, group in material.cells.items():
        labels.setdefault(group.alias, []).append(name)
    # A run that was asked in several ways has several rows in the table and one curve, which keeps its alias.
    called = {alias: names[0] for alias, names in labels.items() if len(names) == 1}
    rows = [replace(row, name=called.get(row.name, row.name)) for row in loss_rows(list(runs.values()))]
    return learning_curves(rows, stages=stage_order(list(runs.values())))


def _gates(material: Material) -> Figure | None:
    from results.plots import gate_heat_map
    from results.plots.rows import gate_rows

    gates = gate_rows(material.cells)
    if gates:
        return gate_heat_map(gates)
    return gate_heat_map(gate_rows(material.cells, "weights"), quantity="weight")


def _confusion(material: Material) -> Figure | None:
    from results.plots import confusion
    from results.plots.rows import answer_rows

    return confusion(answer_rows(material.cells))


def _parts(material: Material, by: By, quantity: str = "") -> Figure | None:
    from results.plots.parts import breakdown_plot, reference_lengths

    first = next(iter(material.cells.values()))
    references = reference_lengths(first, by) if quantity == "words" else ()
    return breakdown_plot(material.cells, quantity or material.metric, by, rows=references)


def _gains(material: Material) -> Figure | None:
    from results.plots import RelianceRow, reliance_per_example

    ends = {row.cell: row.ci95 or (None, None) for row in material.reliance}
    rows = [
        RelianceRow(cell.cell, tuple(cell.gains.values()), *ends.get(cell.cell, (None, None)))
        for cell in material.answers
        if cell.gains
    ]
    return reliance_per_example(rows)


def _ranks(blocks: Sequence[Mapping[str, float]], names: Sequence[str]) -> Figure | None:
    from results.plots import RankRow, critical_difference_diagram
    from results.statistics import friedman

    shared = [name for name in names if all(name in block for block in blocks)]
    if len(blocks) < _FEWEST_BLOCKS or len(shared) < _FEWEST_RANKED:
        return None
    found = friedman([[block[name] for name in shared] for block in blocks])
    return critical_difference_diagram(
        [RankRow(name, rank) for name, rank in zip(shared, found.mean_ranks, strict=True)],
        found.critical_difference,
        blocks=found.blocks,
        test=f"Friedman: p = {found.p:.3g} (Iman and Davenport: p = {found.p_f:.3g}).",
    )


def _ends(item: Compared) -> tuple[float | None, float | None]:
    return item.ci95 if item.ci95 is not None else (None, None)
