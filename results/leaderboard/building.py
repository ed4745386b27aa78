"""Leaderboards from runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from results.leaderboard.board import RANKING, Board, Filter, Leaderboard, Row
from results.leaderboard.examples import ExampleReader
from results.leaderboard.leading import against_first
from results.leaderboard.rows import hashed, row_of, short_name
from results.metrics import Directions
from results.runs import ResultsError, Run, evaluations_of
from results.settings import left_out, version_notes
from results.tables.gather import Answer, Group
from results.tables.names import names_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]

_SPLITS = {"test": 0, "validation": 1, "train": 2}

_PROBES = 8  # runs that are asked whether a metric has values by example, before all are
_MOST_NAMED = 5  # rows of which a note says which seeds lack a metric; of more their details say it

_NO_RANKS = (
    "The store does not say which examples these rows were asked, so they are not ranked and cannot be compared."
)
_NO_RELIANCE = (
    "Reliance is shown only of rows whose runs keep the gains of single examples: what others state is of all "
    "examples, also of those that are left out here."
)


def build(
    runs: Sequence[Run], wanted: Filter | None = None, sort: str | None = None, *, with_examples: bool = True
) -> Leaderboard:
    """The leaderboard of runs.

    Args:
        runs: of any studies; runs of one cell that were asked alike are averaged.
        wanted: which rows; None for all.
        sort: the metric to rank by, in boards that have it.
        with_examples: reads the values by example, by which two rows are compared.

    Raises:
        ResultsError: there is no such row, or no board has the metric to sort by.
    """
    chosen = wanted or Filter()
    everything = [answer for run in runs for answer in _answers(run)]
    answers = [answer for answer in everything if _fits(answer, chosen)]
    if not answers:
        raise ResultsError(_nothing(runs, everything))
    grouped: dict[tuple[str, ...], list[Answer]] = {}
    for answer in answers:
        grouped.setdefault(_board_of(answer), []).append(answer)
    directions = Directions.of(runs)
    reader = ExampleReader() if with_examples else None
    boards = [_board(members, sort, reader, directions) for members in grouped.values()]
    if sort is not None and not any(sort in board.metrics for board in boards):
        known = sorted({name for board in boards for name in board.metrics})
        raise ResultsError(f"--sort {sort}: no board has this metric; there are {', '.join(known)}")
    boards = [_with_tests(board) for board in _within_budget(boards, chosen.budget or {})]
    answered = {answer.run.folder for answer in everything}
    unscored = tuple((run.folder.name, run.error or run.state) for run in runs if run.folder not in answered)
    return Leaderboard(boards=tuple(sorted(boards, key=_order)), unscored=unscored)


def _answers(run: Run) -> Iterator[Answer]:
    splits = dict.fromkeys(entry["split"] for entry in run.summary.get("evaluations", ()))
    for split in splits:
        for entry in evaluations_of(run, split):
            for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
                yield Answer(run, entry, score)


def _fits(answer: Answer, wanted: Filter) -> bool:
    entry, protocol = answer.entry, answer.score["protocol"]
    llm = short_name(answer.run.summary.get("llm")) or ""
    return (
        wanted.task in (None, entry["task"])
        and wanted.data in (None, entry["data"], short_name(entry["data"]))
        and wanted.split in (None, entry["split"])
        and wanted.protocol in (None, protocol, protocol.partition("@")[0])
        and (wanted.llm is None or wanted.llm.lower() in llm.lower())
    )


def _board_of(answer: Answer) -> tuple[str, ...]:
    """What answers must share to be ranked together."""
    entry = answer.entry
    # Where the examples are known, another name of their data set does not make them others.
    data = "" if entry.get("examples_id") else str(entry["data"])
    return (str(entry["task"]), data, str(entry["split"]), *answer.comparable)


def _board(answers: Sequence[Answer], sort: str | None, reader: ExampleReader | None, directions: Directions) -> Board:
    first = answers[0]
    metrics = tuple(dict.fromkeys(name for answer in answers for name in answer.score["metrics"]))
    valued = [n for n in metrics if any(_has_value(answer, n) for answer in answers)]
    if sort in metrics:
        rank_by = str(sort)
    else:
        rank_by = next((name for name in (*RANKING, *metrics) if name in valued), metrics[0] if metrics else "")
    ranked = bool(first.entry.get("examples_id"))
    order = dict.fromkeys((rank_by, *RANKING, *metrics))
    test_metric, values = _comparable(answers, [n for n in order if n in valued], reader if ranked else None)
    rows = sorted(_rows(answers, metrics, values), key=lambda row: _place(row, rank_by, directions))
    entry = first.entry
    return Board(
        task=entry["task"],
        data=short_name(entry["data"]) or "",
        split=entry["split"],
        protocol=first.score["protocol"],
        identity=hashed(_board_of(first)),
        n=first.n,
        limited=bool(entry.get("limited", False)),
        without=left_out(first.score),
        ranked=ranked,
        metrics=metrics,
        directions=directions,
        rank_by=rank_by,
        test_metric=test_metric,
        notes=(*([] if ranked else [_NO_RANKS]), *version_notes(answer.score for answer in answers)),
        rows=tuple(rows),
        against=(None,) * len(rows),
    )


def _rows(answers: Sequence[Answer], metrics: Sequence[str], values: Sequence[Float32Array | None]) -> Iterator[Row]:
    """One row for each cell and way of asking it."""
    members: dict[tuple[str, ...], list[int]] = {}
    for position, answer in enumerate(answers):
        members.setdefault(answer.same, []).append(position)
    groups = [Group(tuple(answers[place] for place in places)) for places in members.values()]
    for group, name, places in zip(groups, names_of(groups), members.values(), strict=True):
        yield row_of(group, name, metrics, [values[place] for place in places] if values else ())


def _comparable(
    answers: Sequence[Answer], names: Sequence[str], reader: ExampleReader | None
) -> tuple[str | None, list[Float32Array | None]]:
    """The first metric that is a mean over examples, and each run's values of it.

    Corpus metrics are passed over: their paired test needs more of each example than a page can hold.
    """
    if reader is None:
        return None, []
    for name in names:
        probes = (reader.read(answer.run, answer.score, name) for answer in answers[:_PROBES])
        probed = next((found for found in probes if found), None)
        if probed is None or not probed[2]:
            continue
        ids = probed[0]
        place = {example: position for position, example in enumerate(ids)}
        return name, [_in_order(reader.read(answer.run, answer.score, name), ids, place) for answer in answers]
    return None, []


def _in_order(
    found: tuple[tuple[str, ...], Float32Array, bool] | None, ids: tuple[str, ...], place: Mapping[str, int]
) -> Float32Array | None:
    """Values in the order of `ids`; None where there are none, of other examples, or of no mean."""
    if found is None or not found[2]:
        return None
    own, values, _ = found
    if own == ids:
        return values
    if len(own) != len(ids) or set(own) != set(ids):
        return None
    import numpy as np

    ordered = np.empty_like(values)
    ordered[[place[example] for example in own]] = values
    return ordered


def _has_value(answer: Answer, metric: str) -> bool:
    return answer.score["metrics"].get(metric, {}).get("value") is not None


def _within_budget(boards: Sequence[Board], most: Mapping[str, float]) -> list[Board]:
    def fits(row: Row) -> bool:
        return all((known := row.budget[name]) is not None and known <= limit for name, limit in most.items())

    left = [replace(board, rows=tuple(row for row in board.rows if fits(row))) for board in boards]
    left = [board for board in left if board.rows]
    if not left:
        limits = ", ".join(f"{name}={limit:g}" for name, limit in most.items())
        raise ResultsError(f"--budget: no row stays within {limits}")
    return left


def _with_tests(board: Board) -> Board:
    """The board with the tests of its first row's lead, where it is ranked by what can be tested, and what to note."""
    tested = board.ranked and board.rank_by == board.test_metric
    tested = tested and board.directions.better(board.rank_by) is not None
    against = against_first(board.rows, board.rank_by, board.directions) if tested else [None] * len(board.rows)
    return replace(board, against=tuple(against), notes=(*board.notes, *_notes_of_rows(board)))


def _notes_of_rows(board: Board) -> Iterator[str]:
    if board.without and any(row.reliance is None and not row.external for row in board.rows):
        yield _NO_RELIANCE
    lacking: dict[tuple[str, str], list[str]] = {}
    for row in board.rows:
        for metric, figure in row.metrics.items():
            if figure is not None and not figure.is_complete:
                lacking.setdefault((row.name, f"{figure.counted} ({figure.why})"), []).append(metric)
    named = [f"{row} in {', '.join(metrics)}: {said}" for (row, said), metrics in lacking.items()][:_MOST_NAMED]
    if named:
        more = f"; and {len(lacking) - len(named):,} more, whose rows say it" if len(lacking) > len(named) else ""
        yield f"Means of some seeds only have no rank and take part in no test: {'; '.join(named)}{more}."


def _nothing(runs: Sequence[Run], everything: Sequence[Answer]) -> str:
    if not everything:
        states = Counter(run.error or run.state for run in runs)
        return f"none of {len(runs)} runs has a score: {', '.join(f'{n} {state}' for state, n in states.items())}"
    asked = sorted({f"{a.entry['task']} on {short_name(a.entry['data'])} ({a.entry['split']})" for a in everything})
    protocols = sorted({answer.score["protocol"] for answer in everything})
    llms = sorted({short_name(answer.run.summary.get("llm")) or "unknown" for answer in everything})
    return (
        f"no row is left by the filters; there are {', '.join(asked)}, scored by {', '.join(protocols)}, with language "
        f"models {', '.join(llms)}"
    )


def _order(board: Board) -> tuple[Any, ...]:
    return (
        not board.ranked, bool(board.without), board.limited, _SPLITS.get(board.split, 3), board.task, board.data,
        board.protocol, -board.n, board.identity,
    )  # fmt: skip


def _place(row: Row, metric: str, directions: Directions) -> tuple[int, float, str, str]:
    """By the metric, the best first; then means of some seeds only, then rows without a value."""
    figure = row.metrics.get(metric)
    if figure is None:
        return (2, 0.0, row.name, row.identity)
    value = figure.mean if directions.better(metric) == "smaller" else -figure.mean
    return (0 if figure.is_complete else 1, value, row.name, row.identity)
