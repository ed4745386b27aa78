"""Two cells side by side: of each metric the difference, its test, and what could have been found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from results.metrics import YES_OR_NO, Direction, Directions
from results.runs import PACKED_RUN, PACKED_STUDY, ResultsError, Run, evaluations_of, read_runs
from results.scores import example_scores
from results.statistics import McNemar, PairedResult, Wins, aligned, holm, mcnemar, over_seeds, wins
from results.tables.gather import Group, gather
from results.tables.names import asked_of, flat_settings
from results.tables.significance import PerExample


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of two cells.

    Args:
        metric: its name.
        direction: which values are better; None where neither is.
        a, b: means over seeds; None where undefined in all.
        paired: the difference (a less b) and its test; None where there is none, and `note` says why.
        adjusted: p after Holm's correction over the metrics of the comparison.
        mcnemar: of metrics that are right or wrong for each example, where each cell has one seed.
        wins: on how many examples each has the better value.
        note: why there is no test.
        counted: of each side, `2 of 3 seeds` where the metric is undefined in some, which is then in no test.
        lacking: of each side, which seeds lack the metric, and why.
    """

    metric: str
    direction: str | None
    a: float | None
    b: float | None
    paired: PairedResult | None
    adjusted: float | None = None
    mcnemar: McNemar | None = None
    wins: Wins | None = None
    note: str = ""
    counted: tuple[str, str] = ("", "")
    lacking: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two cells under one protocol on the same examples.

    Args:
        a, b: how they are called.
        asked: task, data set and split.
        protocol: with its version.
        n: examples.
        seeds: of each.
        parameters, seconds: of each; None where nothing is known.
        settings: in what they differ: by dotted path, the values of both.
        metrics: one comparison each.
    """

    a: str
    b: str
    asked: str
    protocol: str
    n: int
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    parameters: tuple[int | None, int | None]
    seconds: tuple[float | None, float | None]
    settings: Mapping[str, tuple[Any, Any]]
    metrics: tuple[MetricComparison, ...]


def runs_of(source: str, runs: Path) -> tuple[str, list[Run]]:
    """What one side of a comparison is called, and its runs: those of one cell.

    Args:
        source: a run directory; a packed run; `STUDY:CELL` with a study's name or a packed study's folder; or the alias
            of a cell in the folder of runs.
        runs: the folder of run directories.

    Raises:
        ResultsError: there is no such run or cell, or several cells are meant.
    """
    from results.packed import read_study

    path = Path(source)
    if (path / "status.json").exists() or (path.is_file() and path.name.endswith(PACKED_RUN)):
        (run,) = read_runs([path])
        return (run.name if run.seed is None else f"{run.name} seed {run.seed}"), [run]
    if path.is_dir() and not (path / PACKED_STUDY).exists():
        return _one_cell(source, read_runs([path]))
    study, _, cell = source.rpartition(":")
    if study:
        found = read_study(study, runs)
        if cell not in found.cells:
            raise ResultsError(f"{source}: study {found.name} has no cell {cell!r}; it has {', '.join(found.cells)}")
        return _one_cell(cell, [run for run in found.runs if run.name == cell])
    if path.is_dir():
        raise ResultsError(f"{source}: holds several cells; name one as {source}:CELL")
    if not runs.is_dir():
        raise ResultsError(f"{source}: is no run, and there is no folder {runs} in which a cell could be called so")
    known = read_runs([runs])
    found_runs = [run for run in known if run.name == source]
    if not found_runs:
        names = ", ".join(dict.fromkeys(run.name for run in known))
        raise ResultsError(
            f"{source}: is no run, no packed run, no STUDY:CELL, and no cell in {runs} is called so; there are {names}"
        )
    return _one_cell(source, found_runs)


def compare(
    a: tuple[str, Sequence[Run]],
    b: tuple[str, Sequence[Run]],
    *,
    protocol: str | None = None,
    split: str | None = None,
    data: str | None = None,
) -> list[Comparison]:
    """Two cells under each protocol and task for which both have scores.

    Args:
        a, b: names and runs, as `runs_of` gives them.
        protocol: one only.
        split: that was asked; None for test, or the only one that was.
        data: one data set or task only.

    Raises:
        ResultsError: they have no scores of the same examples by the same protocol; the message names both sides'.
    """
    asked = {entry["split"] for run in (*a[1], *b[1]) for entry in run.summary.get("evaluations", ())}
    if split is None:
        split = next(iter(asked)) if len(asked) == 1 else "test"
    found = list(_comparisons(a, b, protocol, split, data))
    if not found:
        raise ResultsError(
            f"nothing to compare: of the {split} split, {a[0]} has {_offers(a[1], split)}, and {b[0]} has "
            f"{_offers(b[1], split)}; two cells compare only on the same examples by the same protocol"
        )
    return found


def _comparisons(
    a: tuple[str, Sequence[Run]], b: tuple[str, Sequence[Run]], protocol: str | None, split: str, data: str | None
) -> Iterator[Comparison]:
    directions = Directions.of((*a[1], *b[1]))
    asked = dict.fromkeys(
        (entry["task"], entry["data"], score["protocol"].partition("@")[0])
        for run in a[1]
        for entry in evaluations_of(run, split)
        for score in entry["scores"]
        if data in (None, entry["data"], entry["task"])
    )
    for task, of_data, name in asked:
        if protocol is not None and name != protocol.partition("@")[0]:
            continue
        sides = []
        for _, runs in (a, b):
            try:
                sides.append(gather(runs, protocol or name, split, task, of_data))
            except ResultsError:
                break
        if len(sides) < 2:
            continue
        for key in (key for key in sides[0].groups if key in sides[1].groups):
            for first, second in _matching(sides[0].groups[key], sides[1].groups[key]):
                said = f"{task} on {of_data}, {split} split{_ways(first, second)}"
                yield _compared((a[0], first), (b[0], second), said, directions)


def _matching(ours: Sequence[Group], theirs: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Groups that were asked in the same way, of each way that both sides have; without any, each side's first."""
    pairs = [(group, other) for group in ours if (other := _asked_alike(group, theirs)) is not None]
    return pairs or [(ours[0], theirs[0])]


def _asked_alike(group: Group, others: Sequence[Group]) -> Group | None:
    evaluation = group.first.entry["evaluation_id"]
    same = next((other for other in others if other.first.entry["evaluation_id"] == evaluation), None)
    return same or next((other for other in others if group.way and group.way == other.way), None)


def _ways(a: Group, b: Group) -> str:
    """What is unusual in how both were asked, or that they were asked differently."""
    ours, theirs = asked_of(a), asked_of(b)
    return (
        ours
        if ours == theirs
        else f" (asked differently: {ours.strip(', ') or 'as usual'}; {theirs.strip(', ') or 'as usual'})"
    )


def _compared(a: tuple[str, Group], b: tuple[str, Group], asked: str, directions: Directions) -> Comparison:
    (first_name, first), (second_name, second) = a, b
    scores = PerExample()
    names = [name for name in first.first.score["metrics"] if name in second.first.score["metrics"]]
    compared = [_metric(name, directions.better(name), first, second, scores) for name in names]
    tested = [
        found
        for found in compared
        if found.paired is not None and found.paired.p is not None and found.direction is not None
    ]
    ps = [found.paired.p for found in tested if found.paired is not None and found.paired.p is not None]
    adjusted = dict(zip((found.metric for found in tested), holm(ps), strict=True))
    left_out = first.first.score.get("without")
    summaries = [group.first.run.summary for group in (first, second)]
    ours, theirs = (flat_settings(group) for group in (first, second))
    return Comparison(
        a=first_name,
        b=second_name,
        asked=asked + (", decontaminated" if left_out is not None else ""),
        protocol=first.first.score["protocol"],
        n=first.first.n,
        seeds=(first.seeds, second.seeds),
        parameters=_two((summary.get("parameters") or {}).get("trained_sum") for summary in summaries),
        seconds=_two(_seconds(group) for group in (first, second)),
        settings={
            path: (ours.get(path), theirs.get(path))
            for path in dict.fromkeys([*ours, *theirs])
            if ours.get(path) != theirs.get(path)
        },
        metrics=tuple(replace(found, adjusted=adjusted.get(found.metric)) for found in compared),
    )


def _metric(name: str, direction: Direction | None, a: Group, b: Group, scores: PerExample) -> MetricComparison:
    over = a.over(name), b.over(name)
    comparison = MetricComparison(
        metric=name,
        direction=direction,
        a=over[0].mean,
        b=over[1].mean,
        paired=None,
        counted=(over[0].counted, over[1].counted),
        lacking=(over[0].why, over[1].why),
    )
    found = scores.compared(a, b, name)
    if isinstance(found, str):
        return replace(comparison, note=found)
    values = [_values(group, name) for group in (a, b)]
    return replace(comparison, paired=found, mcnemar=_mcnemar(name, values), wins=_wins(direction, values))


Values = list[tuple[tuple[str, ...], Any]]


def _values(group: Group, metric: str) -> Values:
    """Example ids and values of each seed; empty where a run has none of them."""
    found: Values = []
    for answer in group.answers:
        scores = example_scores(answer.run, answer.score, (metric,))
        if scores is None or metric not in scores.values:
            return []
        found.append((scores.example_ids, scores.values[metric]))
    return found


def _mcnemar(metric: str, values: Sequence[Values]) -> McNemar | None:
    if metric not in YES_OR_NO or any(len(seeds) != 1 for seeds in values):
        return None
    first, second = _in_one_order(values)
    known = np.concatenate([first, second])
    is_binary = np.isin(known[~np.isnan(known)], (0.0, 1.0)).all()
    return mcnemar(first, second) if is_binary else None


def _wins(direction: Direction | None, values: Sequence[Values]) -> Wins | None:
    """By each example's mean over seeds; the smaller value wins where smaller is better."""
    if any(not seeds for seeds in values) or direction is None:
        return None
    first, second = _in_one_order(values)
    return wins(second, first) if direction == "smaller" else wins(first, second)


def _in_one_order(values: Sequence[Values]) -> tuple[Any, Any]:
    """Each side's mean over its seeds, of the examples that all have."""
    from results.statistics import Basis

    cells = [[(ids, Basis("mean", row[:, None])) for ids, row in seeds] for seeds in values]
    first, second = (np.mean([basis.rows[:, 0] for basis in cell], axis=0) for cell in aligned(*cells))
    return first, second


def _one_cell(name: str, runs: Sequence[Run]) -> tuple[str, list[Run]]:
    done = [run for run in runs if run.state == "done"]
    if not done:
        states = ", ".join(sorted({run.error or run.state for run in runs})) or "not begun"
        raise ResultsError(f"{name}: none of its runs is done ({states})")
    cells = {run.cell for run in done}
    if len(cells) > 1:
        raise ResultsError(
            f"{name}: {len(cells)} cells are called so ({', '.join(sorted(cells))}); name a run's folder, or STUDY:CELL"
        )
    return name, done


def _offers(runs: Sequence[Run], split: str) -> str:
    """What a side was asked and how it was scored."""
    found = dict.fromkeys(
        f"{score['protocol']} of {entry['n']:,} examples of {entry['task']} on {entry['data']} ({entry['examples_id']})"
        for run in runs
        for entry in evaluations_of(run, split)
        for score in entry["scores"]
    )
    return "; ".join(found) or "nothing"


def _seconds(group: Group) -> float | None:
    found = [answer.run.summary.get("training_seconds") for answer in group.answers]
    spread = over_seeds([float(value) for value in found if value is not None])
    return None if spread is None else spread.mean


def _two(values: Any) -> tuple[Any, Any]:
    first, second = values
    return first, second
