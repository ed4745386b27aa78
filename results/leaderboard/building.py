"""Leaderboards from runs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.leaderboard.board import RANKING, Board, Figure, Filter, Leaderboard, Row
from results.leaderboard.examples import ExampleReader
from results.leaderboard.leading import level_with_first
from results.metrics import direction_of
from results.runs import ResultsError, Run, evaluations_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]

_SPLITS = {"test": 0, "validation": 1, "train": 2}

# What of a score's identity names the rules; the rest are versions of packages, which are told in a note.
_RULES = ("metrics", "tokenizer")

_PROBES = 8  # runs that are asked whether a metric has values by example, before all are

_NO_RANKS = (
    "The store does not say which examples these rows were asked, so they are not ranked and cannot be compared."
)


@dataclass(frozen=True, slots=True)
class _Answer:
    """A run's scores for one way of asking, under one protocol."""

    run: Run
    entry: Mapping[str, Any]
    score: Mapping[str, Any]

    @property
    def board(self) -> tuple[str, ...]:
        """What answers must share to be ranked together."""
        examples = str(self.entry.get("examples_id") or "unknown")
        rules = {k: v for k, v in self.score.get("identity", {}).items() if k in _RULES or k.endswith("-sha256")}
        data = "" if examples != "unknown" else str(self.entry["data"])
        left_out = self.score.get("without")
        key = (self.entry["task"], data, self.entry["split"], examples, self.score["protocol"])
        return (*map(str, key), _hashed(rules), _hashed(left_out) if left_out else "")

    @property
    def cell(self) -> tuple[str, str]:
        """What answers of a board must share to be averaged."""
        return (self.run.cell, str(self.entry.get("evaluation_id")))


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
    grouped: dict[tuple[str, ...], list[_Answer]] = {}
    for answer in answers:
        grouped.setdefault(answer.board, []).append(answer)
    reader = ExampleReader() if with_examples else None
    boards = [_board(members, sort, reader) for members in grouped.values()]
    if sort is not None and not any(sort in board.metrics for board in boards):
        known = sorted({name for board in boards for name in board.metrics})
        raise ResultsError(f"--sort {sort}: no board has this metric; there are {', '.join(known)}")
    boards = [_leading(board) for board in _within_budget(boards, chosen.budget or {})]
    answered = {answer.run.folder for answer in everything}
    unscored = tuple((run.folder.name, run.error or run.state) for run in runs if run.folder not in answered)
    return Leaderboard(boards=tuple(sorted(boards, key=_order)), unscored=unscored)


def _answers(run: Run) -> Iterator[_Answer]:
    splits = dict.fromkeys(entry["split"] for entry in run.summary.get("evaluations", ()))
    for split in splits:
        for entry in evaluations_of(run, split):
            for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
                yield _Answer(run, entry, score)


def _fits(answer: _Answer, wanted: Filter) -> bool:
    entry, protocol = answer.entry, answer.score["protocol"]
    llm = _short(answer.run.summary.get("llm")) or ""
    return (
        wanted.task in (None, entry["task"])
        and wanted.data in (None, entry["data"], _short(entry["data"]))
        and wanted.split in (None, entry["split"])
        and wanted.protocol in (None, protocol, protocol.partition("@")[0])
        and (wanted.llm is None or wanted.llm.lower() in llm.lower())
    )


def _board(answers: Sequence[_Answer], sort: str | None, reader: ExampleReader | None) -> Board:
    first = answers[0]
    metrics = tuple(dict.fromkeys(name for answer in answers for name in answer.score["metrics"]))
    valued = [n for n in metrics if any(_value(answer, n) is not None for answer in answers)]
    if sort in metrics:
        rank_by = str(sort)
    else:
        rank_by = next((name for name in (*RANKING, *metrics) if name in valued), metrics[0] if metrics else "")
    ranked = bool(first.entry.get("examples_id"))
    order = dict.fromkeys((rank_by, *RANKING, *metrics))
    test_metric, values = _comparable(answers, [n for n in order if n in valued], reader if ranked else None)
    groups: dict[tuple[str, str], list[int]] = {}
    for position, answer in enumerate(answers):
        groups.setdefault(answer.cell, []).append(position)
    rows = [
        _row([answers[i] for i in group], metrics, [values[i] for i in group] if values else ())
        for group in groups.values()
    ]
    rows.sort(key=lambda row: _place(row, rank_by))
    entry, left_out = first.entry, first.score.get("without")
    return Board(
        task=entry["task"],
        data=_short(entry["data"]) or "",
        split=entry["split"],
        protocol=first.score["protocol"],
        identity=_hashed(first.board),
        n=int(first.score.get("n", entry.get("n") or 0)),
        limited=bool(entry.get("limited", False)),
        without=_in_words(left_out) if left_out else "",
        ranked=ranked,
        metrics=metrics,
        rank_by=rank_by,
        test_metric=test_metric,
        notes=tuple(_notes(answers, ranked)),
        rows=tuple(_told_apart(rows)),
        level=(None,) * len(rows),
    )


def _comparable(
    answers: Sequence[_Answer], names: Sequence[str], reader: ExampleReader | None
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


def _row(members: Sequence[_Answer], metrics: Sequence[str], values: Sequence[Float32Array | None]) -> Row:
    first = members[0]
    summaries = [member.run.summary for member in members]
    text_input = (first.entry.get("text_input") or {}).get("name") or summaries[0].get("text_input")
    return Row(
        name=_name(first),
        identity=_hashed(first.cell)[:6],
        folders=tuple(member.run.folder.name for member in members),
        external=first.run.external,
        encoder=summaries[0].get("encoder"),
        projector=summaries[0].get("projector"),
        llm=_short(summaries[0].get("llm")),
        text_input=text_input,
        seeds=tuple(member.run.seed for member in members if member.run.seed is not None),
        n_invalid=_mean([member.score.get("n_invalid") for member in members]),
        metrics={name: _figure(members, name) for name in metrics},
        reliance=_mean([(member.entry.get("reliance") or {}).get("value") for member in members]),
        budget={
            "trained": _mean([(summary.get("parameters") or {}).get("trained_sum") for summary in summaries]),
            "parameters": _mean([_all_parameters(summary) for summary in summaries]),
            "tokens": _mean([_over_stages(summary, "tokens") for summary in summaries]),
            "steps": _mean([_over_stages(summary, "steps") for summary in summaries]),
            "seconds": _mean([summary.get("training_seconds") for summary in summaries]),
        },
        examples=_averaged(values),
    )


def _averaged(values: Sequence[Float32Array | None]) -> Float32Array | None:
    """Examples' values averaged over runs; None unless all runs have them."""
    known = [array for array in values if array is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return known[0]
    import numpy as np

    return np.asarray(np.mean(known, axis=0, dtype=np.float64), dtype=np.float32)


def _figure(members: Sequence[_Answer], name: str) -> Figure | None:
    """A metric's mean over runs; None where a run lacks it, since the mean of the others would be of other seeds."""
    values = [_value(member, name) for member in members]
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        low_high = members[0].score["metrics"][name].get("ci95")
        return Figure(known[0], None, tuple(low_high) if low_high else None)
    if len(known) == 2:
        return Figure(sum(known) / 2)
    from results.statistics import over_seeds, seed_interval

    spread, interval = over_seeds(known), seed_interval(known)
    assert spread is not None
    return Figure(spread.mean, spread.sd, interval.ci95 if interval else None)


def _value(answer: _Answer, name: str) -> float | None:
    value = answer.score["metrics"].get(name, {}).get("value")
    return None if value is None else float(value)


def _name(answer: _Answer) -> str:
    """The cell's alias, with whatever is unusual in how it was asked."""
    control = (answer.entry.get("graph_input") or {}).get("name", "real")
    beams = (answer.entry.get("generation") or {}).get("beams", 1)
    unusual = ("" if control == "real" else f", graphs {control} at test") + (f", {beams} beams" if beams != 1 else "")
    return answer.run.name + ("" if answer.run.external else unusual)


def _told_apart(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows whose names are equal although they are not the same get a piece of their identity."""
    names = Counter(row.name for row in rows)
    for row in rows:
        yield replace(row, name=f"{row.name} ({row.identity})") if names[row.name] > 1 else row


def _within_budget(boards: Sequence[Board], most: Mapping[str, float]) -> list[Board]:
    def fits(row: Row) -> bool:
        return all((known := row.budget[name]) is not None and known <= limit for name, limit in most.items())

    left = [replace(board, rows=tuple(row for row in board.rows if fits(row))) for board in boards]
    left = [board for board in left if board.rows]
    if not left:
        limits = ", ".join(f"{name}={limit:g}" for name, limit in most.items())
        raise ResultsError(f"--budget: no row stays within {limits}")
    return left


def _leading(board: Board) -> Board:
    """The board with what its test metric says of the first row's lead, where it is ranked by that."""
    if board.rank_by != board.test_metric or direction_of(board.rank_by) is None:
        return replace(board, level=(None,) * len(board.rows))
    return replace(board, level=tuple(level_with_first(board.rows)))


def _notes(answers: Sequence[_Answer], ranked: bool) -> Iterator[str]:
    if not ranked:
        yield _NO_RANKS
    versions: dict[str, set[str]] = {}
    for answer in answers:
        for name, version in answer.score.get("identity", {}).items():
            if name not in _RULES and not name.endswith("-sha256"):
                versions.setdefault(name, set()).add(str(version))
    for name, found in versions.items():
        if len(found) > 1:
            yield f"Scored with several versions of {name}: {', '.join(sorted(found))}."


def _nothing(runs: Sequence[Run], everything: Sequence[_Answer]) -> str:
    if not everything:
        states = Counter(run.error or run.state for run in runs)
        return f"none of {len(runs)} runs has a score: {', '.join(f'{n} {state}' for state, n in states.items())}"
    asked = sorted({f"{a.entry['task']} on {_short(a.entry['data'])} ({a.entry['split']})" for a in everything})
    protocols = sorted({answer.score["protocol"] for answer in everything})
    llms = sorted({_short(answer.run.summary.get("llm")) or "unknown" for answer in everything})
    return (
        f"no row is left by the filters; there are {', '.join(asked)}, scored by {', '.join(protocols)}, with language "
        f"models {', '.join(llms)}"
    )


def _order(board: Board) -> tuple[Any, ...]:
    return (
        not board.ranked, bool(board.without), board.limited, _SPLITS.get(board.split, 3), board.task, board.data,
        board.protocol, -board.n, board.identity,
    )  # fmt: skip


def _place(row: Row, metric: str) -> tuple[bool, float, str, str]:
    figure = row.metrics.get(metric)
    if figure is None:
        return (True, 0.0, row.name, row.identity)
    return (False, figure.mean if direction_of(metric) == "smaller" else -figure.mean, row.name, row.identity)


def _in_words(without: Mapping[str, Any]) -> str:
    parts = ", ".join(str(corpus.get("data")) for corpus in without.get("against", ()))
    left_out = without.get("n", 0) - without.get("n_left", 0)
    examples = "1 example" if left_out == 1 else f"{left_out:,} examples"
    return f"{examples} whose molecules {parts} holds (by {without.get('by')})"


def _over_stages(summary: Mapping[str, Any], key: str) -> float | None:
    stages = summary.get("stages")
    known = [stage.get(key) for stage in stages or ()]
    return None if stages is None or None in known else float(sum(known))


def _all_parameters(summary: Mapping[str, Any]) -> float | None:
    total = (summary.get("parameters") or {}).get("total")
    return float(sum(total.values())) if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _short(name: str | None) -> str | None:
    """A name; of a path of somebody's disk, its last part."""
    if not name:
        return None
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.stem
    return path.name if path.is_absolute() or name.startswith((".", "~")) else name


def _hashed(value: object) -> str:
    import orjson

    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
