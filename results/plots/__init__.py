"""Plots of results, as SVG and PNG: `docs/plots.md` shows how each is called.

Each plot is drawn from plain rows, so that it works on anyone's numbers; `results.plots.rows` and `results.plots.parts`
make the rows from runs. What has nothing to draw raises `ResultsError`, which says why.
"""

from results.plots.breakdown import PartRow, breakdown
from results.plots.confusion import AnswerRow, confusion
from results.plots.cost import CostRow, pareto_front, score_against_cost
from results.plots.forest import DifferenceRow, forest
from results.plots.gates import GateRow, gate_heat_map
from results.plots.learning import LossRow, learning_curves
from results.plots.output import described, page_css, png, svg, svg_file, write
from results.plots.ranks import RankRow, critical_difference_diagram
from results.plots.reliance import RelianceRow, reliance_per_example
from results.plots.style import DARK, LIGHT, THEMES, Theme

__all__ = [
    "DARK",
    "LIGHT",
    "THEMES",
    "AnswerRow",
    "CostRow",
    "DifferenceRow",
    "GateRow",
    "LossRow",
    "PartRow",
    "RankRow",
    "RelianceRow",
    "Theme",
    "breakdown",
    "confusion",
    "critical_difference_diagram",
    "described",
    "forest",
    "gate_heat_map",
    "learning_curves",
    "page_css",
    "pareto_front",
    "png",
    "reliance_per_example",
    "score_against_cost",
    "svg",
    "svg_file",
    "write",
]
