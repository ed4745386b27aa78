"""A leaderboard as data of its page: rows as JSON, and values by example packed into a byte or two each."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.leaderboard.board import Against, Board, Figure, Leaderboard, Row

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]

_STEPS = 65534  # of a value between 0 and 1; 65535 stands for no value
_MISSING = 65535


def rows_as_data(leaderboard: Leaderboard) -> list[dict[str, Any]]:
    """What the page shows of each board, with numbers of six digits."""
    return [_board(board) for board in leaderboard.boards]


def examples_as_data(leaderboard: Leaderboard) -> list[dict[str, Any] | None]:
    """Values by example of each board's rows: `{"n", "scale", "rows": [text or null]}`; None where no row has any.

    Within 0 and 1 a value is an integer of two bytes, so that equal values stay equal, 0, 1 and the means of two runs'
    0 and 1 stay exact, and others are off by less than 1e-5. Other values (errors of a regression) are floats of four
    bytes. A row's bytes, the lower ones of all values first, are deflated and written in base64.
    """
    return [_examples(board) for board in leaderboard.boards]


def _board(board: Board) -> dict[str, Any]:
    return {
        "id": board.identity,
        "task": board.task,
        "data": board.data,
        "split": board.split,
        "protocol": board.protocol,
        "n": board.n,
        "limited": board.limited,
        "without": board.without,
        "ranked": board.ranked,
        "metrics": [{"name": name, "better": board.directions.better(name)} for name in board.metrics],
        "rankBy": board.rank_by,
        "testMetric": board.test_metric,
        "notes": board.notes,
        "rows": [
            {**_row(row, board.metrics), "against": _against(against)}
            for row, against in zip(board.rows, board.against, strict=True)
        ],
    }


def _row(row: Row, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "folders": row.folders,
        "external": row.external,
        "encoder": row.encoder,
        "projector": row.projector,
        "llm": row.llm,
        "text": row.text_input,
        "seeds": row.seeds,
        "runs": len(row.folders),
        "invalid": _short(row.n_invalid),
        "metrics": [_figure(row.metrics.get(name)) for name in metrics],
        "reliance": _short(row.reliance.mean) if row.reliance else None,
        "relianceOf": row.reliance.counted if row.reliance else "",
        **{name: _short(value) for name, value in row.budget.items()},
    }


def _figure(figure: Figure | None) -> list[float | str | None] | None:
    """Mean, deviation and interval; of how many seeds and why not of the others follow where it is not of all."""
    if figure is None:
        return None
    low, high = figure.ci95 or (None, None)
    numbers = [_short(value) for value in (figure.mean, figure.sd, low, high)]
    return [*numbers, *(() if figure.is_complete else (figure.counted, figure.why))]


def _against(against: Against | None) -> dict[str, Any] | None:
    if against is None:
        return None
    means = {"own": _short(against.own), "first": _short(against.first), "p": _short(against.p)}
    return {"state": against.state, "n": against.n, **means}


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _examples(board: Board) -> dict[str, Any] | None:
    import numpy as np

    known = [row.examples for row in board.rows if row.examples is not None]
    if not known:
        return None
    with np.errstate(invalid="ignore"):
        fits = all(not ((array < 0) | (array > 1)).any() for array in known)
    pack = _in_two_bytes if fits else _in_four_bytes
    return {
        "n": len(known[0]),
        "bytes": 2 if fits else 4,
        "steps": _STEPS,
        "rows": [None if row.examples is None else _text(pack(row.examples)) for row in board.rows],
    }


def _in_two_bytes(values: Float32Array) -> bytes:
    import numpy as np

    missing = np.isnan(values)
    steps = np.rint(np.where(missing, 0.0, values).astype(np.float64) * _STEPS).astype("<u2")
    steps[missing] = _MISSING
    return _by_place(steps.view(np.uint8).reshape(-1, 2))


def _in_four_bytes(values: Float32Array) -> bytes:
    import numpy as np

    return _by_place(values.astype("<f4").view(np.uint8).reshape(-1, 4))


def _by_place(octets: npt.NDArray[np.uint8]) -> bytes:
    """All first bytes, then all second ones, ...: like stands beside like, which deflates better."""
    return octets.T.tobytes()


def _text(packed: bytes) -> str:
    return base64.b64encode(zlib.compress(packed, 1)).decode()


def unpacked(described: Mapping[str, Any], row: int) -> Float32Array | None:
    """The values of a row out of what `examples_as_data` gave; as the page reads them."""
    import numpy as np

    text = described["rows"][row]
    if text is None:
        return None
    width = described["bytes"]
    octets = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(width, -1).T
    if width == 4:
        return np.ascontiguousarray(octets).view("<f4").ravel()
    steps = np.ascontiguousarray(octets).view("<u2").ravel()
    return np.where(steps == _MISSING, np.nan, steps / described["steps"]).astype(np.float32)
