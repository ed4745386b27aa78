"""A leaderboard for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from results.leaderboard.board import BUDGETS, Against, Board, Figure, Leaderboard, Row

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet takes a text for a formula
_ASKED = ("task", "data", "split", "protocol", "n", "limited", "without", "ranked")
_TESTED = ("state", "shared n", "shared mean", "shared first", "p")
_OF_FIGURE = ("sd", "low", "high", "seeds")
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
    """One line per row and board; metrics of all boards side by side, with `METRIC sd`, `low`, `high` and `seeds`.

    `METRIC seeds` is `2 of 3 seeds` where the mean is not of all of them. `shared n`, `shared mean` and
    `shared first` are of the test with the first row, on the examples that both have, and `p` is its p after Holm's
    correction; `state` is `level`, `behind` or `ahead`.

    A text that a spreadsheet would take for a formula gets a `'` before it.
    """
    metrics = list(dict.fromkeys(name for board in leaderboard.boards for name in board.metrics))
    ends = [f"{name} {end}".rstrip() for name in metrics for end in ("", *_OF_FIGURE)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = (
        "board",
        *_ASKED,
        "rank_by",
        "rank",
        "level_with_first",
        *_TESTED,
        *_KNOWN,
        "seeds",
        "n_invalid",
        *ends,
        "reliance",
        "reliance seeds",
        *BUDGETS,
        "runs",
    )
    writer.writerow(head)
    for board in leaderboard.boards:
        asked = [board.identity, *(getattr(board, name) for name in _ASKED), board.rank_by]
        places = zip(board.ranks, board.level, board.against, board.rows, strict=True)
        for rank, level, against, row in places:
            tested = _test(against).values() if against else [None] * len(_TESTED)
            known = [getattr(row, name) for name in _KNOWN]
            figures = [number for name in metrics for number in _numbers(row.metrics.get(name))]
            budget = [row.budget[name] for name in BUDGETS]
            seeds, folders = " ".join(map(str, row.seeds)), " ".join(row.folders)
            reliance = (row.reliance.mean, row.reliance.counted) if row.reliance else (None, "")
            cells = [*asked, rank, level, *tested, *known, seeds, row.n_invalid, *figures, *reliance, *budget, folders]
            writer.writerow([_cell(cell) for cell in cells])
    return text.getvalue()


def _board(board: Board) -> dict[str, Any]:
    return {
        "board": board.identity,
        **{name: getattr(board, name) for name in _ASKED},
        "metrics": [{"name": name, "better": board.directions.better(name)} for name in board.metrics],
        "rank_by": board.rank_by,
        "test_metric": board.test_metric,
        "notes": board.notes,
        "rows": [_row(*places) for places in zip(board.ranks, board.level, board.against, board.rows, strict=True)],
    }


def _row(rank: int | None, level: bool | None, against: Against | None, row: Row) -> dict[str, Any]:
    return {
        "rank": rank,
        "level_with_first": level,
        "against_first": _test(against) if against else None,
        **{name: getattr(row, name) for name in _KNOWN},
        "seeds": row.seeds,
        "n_invalid": row.n_invalid,
        "metrics": {name: None if figure is None else _figure(figure) for name, figure in row.metrics.items()},
        "reliance": row.reliance.mean if row.reliance else None,
        "reliance_seeds": row.reliance.counted if row.reliance else "",
        **row.budget,
        "runs": row.folders,
    }


def _test(against: Against) -> dict[str, Any]:
    values = (against.state, against.n, against.own, against.first, against.p)
    return dict(zip(_TESTED, values, strict=True))


def _figure(figure: Figure) -> dict[str, Any]:
    """With the seeds that it is of, and why the others lack it, only where it is not of all of them."""
    partial = {} if figure.is_complete else {"seeds": figure.counted, "why": figure.why}
    return {"mean": figure.mean, "sd": figure.sd, "ci95": figure.ci95, **partial}


def _numbers(figure: Figure | None) -> tuple[float | str | None, ...]:
    if figure is None:
        return (None,) * (1 + len(_OF_FIGURE))
    return (figure.mean, figure.sd, *(figure.ci95 or (None, None)), figure.counted)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
