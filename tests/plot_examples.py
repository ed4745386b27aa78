"""Figures of every plot from realistic rows, small and large, friendly and hostile: what tests of plots draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from results import plots

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}$\\alpha$]]>--><script>\n\x00\u202egnol"
SIZES = ("1 to 10", "11 to 20", "21 to 30", "31 to 40", "41 to 60", "over 60")
GROUPS = ("carboxylic acid", "ester", "amide", "alcohol", "amine", "halogen", "nitro", "ketone", "phosphate", "ether")


def names(count: int, *, long: bool = False) -> list[str]:
    parts = [f"{encoder}-{projector}" for encoder in ("gin", "gat", "gcn", "tree") for projector in "abcdefghij"]
    return [f"{part}-with-all-that-its-settings-say-of-it-{part}" if long else part for part in parts[:count]]


def draws(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def cost_rows(count: int, *, long: bool = False, zeros: bool = False) -> list[plots.CostRow]:
    random = draws()
    rows = []
    for place, name in enumerate(names(count, long=long)):
        cost, value = float(10 ** random.uniform(4, 9)), float(random.uniform(0.2, 0.5))
        cost = 0.0 if zeros and place % 5 == 0 else cost
        rows.append(
            plots.CostRow(name, cost, value, value - 0.01, value + 0.012, "95% interval", name.partition("-")[0])
        )
    return rows


def difference_rows(count: int, *, long: bool = False) -> list[plots.DifferenceRow]:
    random = draws()
    found = []
    for name in names(count, long=long):
        difference = float(random.normal(0.005, 0.01))
        found.append(
            plots.DifferenceRow(
                name, difference, difference - 0.012, difference + 0.011, random.uniform(0, 0.1), 3300, 0.012
            )
        )
    return found


def loss_rows(count: int, *, long: bool = False) -> list[plots.LossRow]:
    random = draws()
    return [
        plots.LossRow(
            name, stage, step, float(3 * math.exp(-step / 900) + random.normal(0, 0.02)), seed, kept=step == 1000
        )
        for name in names(count, long=long)
        for stage in ("align", "tune")
        for seed in range(3)
        for step in range(0, 1001, 100)
    ]


def reliance_rows(count: int, examples: int, *, long: bool = False) -> list[plots.RelianceRow]:
    random = draws()
    return [
        plots.RelianceRow(name, tuple(random.normal(0.03, 0.05, examples).tolist()), 0.028, 0.032)
        for name in names(count, long=long)
    ]


def gate_rows(count: int, *, long: bool = False) -> list[plots.GateRow]:
    random = draws()
    rows = []
    for place, name in enumerate(names(count, long=long)):
        levels = ("atom", "motif", "graph")[: 2 + place % 2]
        gates = random.dirichlet(np.ones(len(levels))) * len(levels)
        rows.append(plots.GateRow(name, levels, tuple(gates.tolist()), (0.1,) * len(levels)))
    return rows


def answer_rows(cells: int, labels: list[str]) -> list[plots.AnswerRow]:
    random = draws()
    return [
        plots.AnswerRow(name, gold, answer, int(random.integers(5, 40)) * (9 if gold == answer else 1))
        for name in names(cells)
        for gold in labels
        for answer in [*labels, None]
    ]


def part_rows(count: int, parts: tuple[str, ...], *, long: bool = False) -> list[plots.PartRow]:
    random = draws()
    return [
        plots.PartRow(name, part, value := float(random.uniform(0.2, 0.6)), value - 0.03, value + 0.03, 100 + 7 * place)
        for name in names(count, long=long)
        for place, part in enumerate(parts)
    ]


def rank_rows(count: int, *, long: bool = False) -> list[plots.RankRow]:
    ranks = draws().permutation(count) + 1
    return [plots.RankRow(name, float(rank)) for name, rank in zip(names(count, long=long), ranks, strict=True)]


def _cost(rows: list[plots.CostRow], theme: plots.Theme) -> Any:
    return plots.score_against_cost(rows, metric="bleu-2", cost="trained parameters", theme=theme)


def _forest(rows: list[plots.DifferenceRow], theme: plots.Theme) -> Any:
    return plots.forest(rows, metric="bleu-2", reference="gin-linear", theme=theme)


def _parts(rows: list[plots.PartRow], theme: plots.Theme, *, ordered: bool = True) -> Any:
    return plots.breakdown(
        rows, quantity="bleu-2", by="heavy atoms" if ordered else "group", ordered=ordered, theme=theme
    )


FIGURES: dict[str, Callable[[plots.Theme], Any]] = {
    "cost": lambda theme: _cost(cost_rows(16), theme),
    "cost of one": lambda theme: _cost(cost_rows(1), theme),
    "cost of many": lambda theme: _cost(cost_rows(40, long=True, zeros=True), theme),
    "cost, hostile": lambda theme: _cost(
        [plots.CostRow(HOSTILE, 5.0, 0.3, group=HOSTILE), plots.CostRow("b", 4.0, 0.2)], theme
    ),
    "forest": lambda theme: _forest(difference_rows(8), theme),
    "forest of one": lambda theme: _forest([plots.DifferenceRow("a", 0.0)], theme),
    "forest of many": lambda theme: _forest(difference_rows(40, long=True), theme),
    "forest, hostile": lambda theme: plots.forest(
        [plots.DifferenceRow(HOSTILE, 0.1, 0.0, 0.2, 0.01)],
        metric="rmse",
        reference=HOSTILE,
        higher_is_better=False,
        theme=theme,
    ),
    "learning": lambda theme: plots.learning_curves(loss_rows(4), theme=theme),
    "learning of one": lambda theme: plots.learning_curves([plots.LossRow("a", "tune", 0, 2.0)], theme=theme),
    "learning of many": lambda theme: plots.learning_curves(loss_rows(14, long=True), theme=theme),
    "learning, hostile": lambda theme: plots.learning_curves([plots.LossRow(HOSTILE, HOSTILE, 0, 2.0)], theme=theme),
    "reliance": lambda theme: plots.reliance_per_example(reliance_rows(4, 900), theme=theme),
    "reliance of one": lambda theme: plots.reliance_per_example([plots.RelianceRow("a", (0.01,))], theme=theme),
    "reliance of many": lambda theme: plots.reliance_per_example(reliance_rows(40, 60, long=True), theme=theme),
    "reliance, hostile": lambda theme: plots.reliance_per_example(
        [plots.RelianceRow(HOSTILE, (0.0, 0.0))], theme=theme
    ),
    "gates": lambda theme: plots.gate_heat_map(gate_rows(6), theme=theme),
    "gates of one": lambda theme: plots.gate_heat_map([plots.GateRow("a", ("atom",), (1.0,))], theme=theme),
    "gates of many": lambda theme: plots.gate_heat_map(gate_rows(40, long=True), theme=theme),
    "gates, hostile": lambda theme: plots.gate_heat_map(
        [plots.GateRow(HOSTILE, (HOSTILE, "b"), (1.0, None))], theme=theme
    ),
    "ranks": lambda theme: plots.critical_difference_diagram(
        rank_rows(7), 1.9, blocks=9, test="Friedman.", theme=theme
    ),
    "ranks of two": lambda theme: plots.critical_difference_diagram(rank_rows(2), None, theme=theme),
    "ranks of many": lambda theme: plots.critical_difference_diagram(rank_rows(40, long=True), 6.0, theme=theme),
    "ranks, hostile": lambda theme: plots.critical_difference_diagram(
        [plots.RankRow(HOSTILE, 1.0), plots.RankRow("b", 2.0)], 5.0, test=HOSTILE, theme=theme
    ),
    "confusion": lambda theme: plots.confusion(answer_rows(4, ["Yes", "No"]), theme=theme),
    "confusion of one": lambda theme: plots.confusion([plots.AnswerRow("a", "Yes", "Yes")], theme=theme),
    "confusion of many": lambda theme: plots.confusion(answer_rows(2, [f"class {n}" for n in range(14)]), theme=theme),
    "confusion, hostile": lambda theme: plots.confusion([plots.AnswerRow(HOSTILE, HOSTILE, None)], theme=theme),
    "sizes": lambda theme: _parts(part_rows(4, SIZES), theme),
    "sizes of one": lambda theme: _parts([plots.PartRow("a", "1 to 10", 0.3, n=1)], theme),
    "groups": lambda theme: _parts(part_rows(3, GROUPS), theme, ordered=False),
    "groups of many": lambda theme: _parts(part_rows(40, GROUPS, long=True), theme, ordered=False),
    "sizes, hostile": lambda theme: _parts([plots.PartRow(HOSTILE, HOSTILE, 0.3, n=2)], theme),
}


def drawn(name: str, theme: plots.Theme = plots.LIGHT) -> Any:
    return FIGURES[name](theme)
