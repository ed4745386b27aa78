"""A leaderboard for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from results.leaderboard.board import BUDGETS, Board, Figure, Leaderboard, Row
from results.metrics import direction_of

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a text for a formula
_ASKED = ("task", "data", "split", "protocol", "n", "limited", "without", "ranked")
_KNOWN = ("name", "external", "encoder", "projector", "llm", "text_input")


def as_json(leaderboard: Leaderboard) -> str:
    """All boards as one JSON object: `{"boards": [{..., "rows": [...]}], "unscored": [...]}`."""
    import orjson

    value = {
        "boards": [_board(board) for board in leaderboard.boards],
        "unscored": [{"run": name, "state": state} for name, state in leaderboard.unscored],
    }
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"


def as_csv(leaderboard: Leaderboard) -> str:
    """One line per row and board; metrics of all boards side by side, with `METRIC low` and `METRIC high`.

    A text that a spreadsheet would take for a formula gets a `'` before it.
    """
    metrics = list(dict.fromkeys(name for board in leaderboard.boards for name in board.metrics))
    ends = [f"{name} {end}".rstrip() for name in metrics for end in ("", "sd", "low", "high")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "board",
        *_ASKED,
        "rank_by",
        "rank",
        "level_with_first",
        *_KNOWN,
        "seeds",
        "n_invalid",
        *ends,
        "reliance",
        *BUDGETS,
        "runs",
    )
    writer.writerow(head)
    for board in leaderboard.boards:
        asked = [board.identity, *(getattr(board, name) for name in _ASKED), board.rank_by]
        for rank, level, row in zip(board.ranks, board.level, board.rows, strict=True):
            known = [getattr(row, name) for name in _KNOWN]
            figures = [number for name in metrics for number in _numbers(row.metrics.get(name))]
            budget = [row.budget[name] for name in BUDGETS]
            seeds, folders = " ".join(map(str, row.seeds)), " ".join(row.folders)
            cells = [*asked, rank, level, *known, seeds, row.n_invalid, *figures, row.reliance, *budget, folders]
            writer.writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _board(board: Board) -> dict[str, Any]:
    return {
        "board": board.identity,
        **{name: getattr(board, name) for name in _ASKED},
        "metrics": [{"name": name, "better": direction_of(name)} for name in board.metrics],
        "rank_by": board.rank_by,
        "test_metric": board.test_metric,
        "notes": board.notes,
        "rows": [_row(*places) for places in zip(board.ranks, board.level, board.rows, strict=True)],
    }


def _row(rank: int | None, level: bool | None, row: Row) -> dict[str, Any]:
    return {
        "rank": rank,
        "level_with_first": level,
        **{name: getattr(row, name) for name in _KNOWN},
        "seeds": row.seeds,
        "n_invalid": row.n_invalid,
        "metrics": {
            name: None if figure is None else {"mean": figure.mean, "sd": figure.sd, "ci95": figure.ci95}
            for name, figure in row.metrics.items()
        },
        "reliance": row.reliance,
        **row.budget,
        "runs": row.folders,
    }


def _numbers(figure: Figure | None) -> tuple[float | None, ...]:
    return (None,) * 4 if figure is None else (figure.mean, figure.sd, *(figure.ci95 or (None, None)))


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
