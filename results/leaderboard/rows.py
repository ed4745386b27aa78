"""A row of a leaderboard: what the runs of one cell, asked in one way, amount to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from results.leaderboard.board import Figure, Reliance, Row
from results.reliance import gains_of, is_of_fewer, stated_gain
from results.seeds import over_runs
from results.tables.gather import Group

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]


def row_of(group: Group, name: str, metrics: Sequence[str], values: Sequence[Float32Array | None]) -> Row:
    """The row of one cell.

    Args:
        group: its runs with their scores.
        name: of the row.
        metrics: of the board.
        values: of each run its values of the test metric by example, all in one order; empty where none are read.
    """
    first = group.first
    summaries = [answer.run.summary for answer in group.answers]
    text_input = (first.entry.get("text_input") or {}).get("name") or summaries[0].get("text_input")
    return Row(
        name=name,
        identity=hashed((first.run.cell, str(first.entry.get("evaluation_id"))))[:6],
        folders=tuple(answer.run.folder.name for answer in group.answers),
        external=first.run.external,
        encoder=summaries[0].get("encoder"),
        projector=summaries[0].get("projector"),
        llm=short_name(summaries[0].get("llm")),
        text_input=text_input,
        seeds=group.seeds,
        n_invalid=_mean([answer.score.get("n_invalid") for answer in group.answers]),
        metrics={metric: _figure(group, metric) for metric in metrics},
        reliance=_reliance(group),
        budget={
            "trained": _mean([(summary.get("parameters") or {}).get("trained_sum") for summary in summaries]),
            "parameters": _mean([_all_parameters(summary) for summary in summaries]),
            "tokens": _mean([_over_stages(summary, "tokens") for summary in summaries]),
            "steps": _mean([_over_stages(summary, "steps") for summary in summaries]),
            "seconds": _mean([summary.get("training_seconds") for summary in summaries]),
        },
        examples=_averaged(values),
    )


def short_name(name: str | None) -> str | None:
    """A name; of a path of somebody's disk, its last part."""
    if not name:
        return None
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.stem
    return path.name if path.is_absolute() or name.startswith((".", "~")) else name


def hashed(value: object) -> str:
    """Twelve digits that tell a JSON value from others."""
    import orjson

    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


def _figure(group: Group, metric: str) -> Figure | None:
    """A metric's mean over the runs that have it; without spread and interval where a run lacks it."""
    from results.statistics import FEWEST_EXAMPLES, over_seeds, seed_interval

    found = over_runs(group.answers, metric)
    if found.mean is None:
        return None
    if not found.is_complete:
        return Figure(found.mean, counted=found.counted, why=found.why)
    spread, ci95 = over_seeds(found.values), None
    if len(found.values) == 1:
        stored = group.first.score["metrics"][metric].get("ci95")
        ci95 = (float(stored[0]), float(stored[1])) if stored and None not in stored else None
    elif (interval := seed_interval(found.values)) is not None:
        ci95 = interval.ci95
    few = 0 < group.first.n < FEWEST_EXAMPLES  # 0 where it is not known, as in an MLflow store without files
    return Figure(found.mean, spread.sd if spread else None, None if few else ci95)


def _reliance(group: Group) -> Reliance | None:
    """As runs state it; of scores of fewer examples, from the gains of single ones, which tables read for both."""
    if is_of_fewer(group.first):
        gains = gains_of(group.answers)
        return Reliance(fmean(gains.values), gains.counted) if gains.n else None
    entries, seeds = [answer.entry for answer in group.answers], len(group.answers)
    mean = stated_gain(entries)
    measured = sum(stated_gain([entry]) is not None for entry in entries)
    return None if mean is None else Reliance(mean, f"{measured} of {seeds} seeds" if measured < seeds else "")


def _averaged(values: Sequence[Float32Array | None]) -> Float32Array | None:
    """Examples' values averaged over runs; None unless all runs have them."""
    known = [array for array in values if array is not None]
    if not known or len(known) < len(values):
        return None
    if len(known) == 1:
        return known[0]
    import numpy as np

    return np.asarray(np.mean(known, axis=0, dtype=np.float64), dtype=np.float32)


def _over_stages(summary: Mapping[str, Any], key: str) -> float | None:
    stages = summary.get("stages")
    known = [stage.get(key) for stage in stages or ()]
    return None if stages is None or None in known else float(sum(known))


def _all_parameters(summary: Mapping[str, Any]) -> float | None:
    total = (summary.get("parameters") or {}).get("total")
    return float(sum(total.values())) if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None
