"""Leaderboards: runs of any studies ranked where they may be, as a page, as JSON and as CSV.

>>> as_html(build(read_runs([Path("runs")]), Filter(task="caption")))
"""

from results.leaderboard.board import BUDGETS, Board, Figure, Filter, Leaderboard, Row, budget_of
from results.leaderboard.building import build
from results.leaderboard.export import as_csv, as_json
from results.leaderboard.html import as_html

__all__ = [
    "BUDGETS",
    "Board",
    "Figure",
    "Filter",
    "Leaderboard",
    "Row",
    "as_csv",
    "as_html",
    "as_json",
    "budget_of",
    "build",
]
