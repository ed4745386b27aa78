"""From runs to the rows that plots are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from results.formats import probability
from results.metrics import Directions
from results.plots.axes import is_number
from results.plots.confusion import AnswerRow
from results.plots.cost import CostRow
from results.plots.forest import DifferenceRow
from results.plots.gates import GateRow
from results.plots.learning import LossRow, in_order
from results.plots.ranks import RankRow
from results.plots.reliance import RelianceRow
from results.reliance import gains_of
from results.runs import ResultsError, Run
from results.statistics import FEWEST_EXAMPLES
from results.tables.gather import Group, gather
from results.tables.model import Table
from results.tables.names import names_of
from results.tables.significance import PerExample, value_of_group

Cells = Mapping[str, Group]
"""Answers of cells by the names under which they are shown."""

Cost = Literal["trained parameters", "seconds of training"]

_MANY_POINTS = 200
"""Training losses of a stage beyond which only some are drawn."""


def cells_of(
    runs: Sequence[Run], protocol: str = "strict", split: str = "test", task: str | None = None, data: str | None = None
) -> dict[str, Group]:
    """The cells of runs that may stand in one plot: asked the same examples, scored in the same way.

    Where there are several sets of such cells, it is the one that a table shows first: complete before limited.

    Raises:
        ResultsError: no run was scored by the protocol on the split, or several tasks or data sets were.
    """
    groups = next(iter(gather(runs, protocol, split, task, data).groups.values()))
    return dict(zip(names_of(groups), groups, strict=True))


def cost_rows(cells: Cells, metric: str, cost: Cost = "trained parameters") -> list[CostRow]:
    """The metric of each cell, with its interval over examples, beside what the cell costs; grouped by encoder."""
    scores, rows = PerExample(), []
    for name, group in cells.items():
        value = value_of_group(group, metric, scores)
        # A mean of some seeds only stands nowhere without their count, and on no front.
        value = None if value is not None and value.counted else value
        low, high = value.ci95 if value is not None and value.ci95 is not None else (None, None)
        rows.append(
            CostRow(
                name=name,
                cost=_cost(group, cost),
                value=None if value is None else value.mean,
                low=low,
                high=high,
                spread="95% bootstrap interval over examples",
                group=str(group.first.run.summary.get("encoder", "")),
            )
        )
    return rows


def difference_rows(cells: Cells, metric: str, reference: str, *, chosen: bool = False) -> list[DifferenceRow]:
    """Each other cell's metric less the reference's, by paired tests on the same examples, Holm-corrected.

    A table tests the differences of all its metrics, and corrects over all of them: `table_rows` has those.

    Args:
        cells: with their answers.
        metric: that differs.
        reference: the name of the cell that all others are compared with.
        chosen: whether the reference is the cell that came out best, which was then found by the same numbers. p is
            multiplied by the number of all pairs of cells (Bonferroni) in place of Holm's correction, which holds
            whichever pairs are looked at afterwards.

    Raises:
        ResultsError: the reference is none of the cells.
    """
    from results.statistics import holm

    if reference not in cells:
        raise ResultsError(f"{reference!r} is none of the cells {', '.join(cells)}")
    scores = PerExample()
    found = {
        name: scores.compared(group, cells[reference], metric) for name, group in cells.items() if name != reference
    }
    ps = {name: result.p for name, result in found.items() if not isinstance(result, str) and result.p is not None}
    tests = all_pairs(len(ps) + 1) if chosen else len(ps)
    corrected = [min(1.0, p * tests) for p in ps.values()] if chosen else holm(list(ps.values()))
    adjusted = dict(zip(ps, corrected, strict=True))
    rows = []
    for name, result in found.items():
        if isinstance(result, str):  # why there is no test
            rows.append(DifferenceRow(name, None))
            continue
        low, high = result.ci95 if result.ci95 is not None and result.n >= FEWEST_EXAMPLES else (None, None)
        detectable = result.detectable_after(tests)
        rows.append(DifferenceRow(name, result.difference, low, high, adjusted.get(name), result.n, detectable))
    return rows


def table_rows(table: Table, metric: str) -> list[DifferenceRow]:
    """The differences from the cell of reference that a table's first part shows, with their p as it corrects them."""
    rows = []
    for row in table.parts[0].rows:
        value = row.metrics.get(metric)
        found = value.versus if value is not None else None
        if found is not None:
            low, high = found.ci95 or (None, None)
            rows.append(DifferenceRow(row.name, found.difference, low, high, found.adjusted, found.n, found.detectable))
    return rows


def all_pairs(cells: int) -> int:
    """How many pairs so many cells make."""
    return cells * (cells - 1) // 2


def loss_rows(runs: Sequence[Run], *, training: bool = False) -> list[LossRow]:
    """Losses of all runs, also of those that did not finish; `training` adds the training loss, at most 200 of a stage.

    Runs of different cells that have the same name are told apart by a piece of the cell's identity.
    """
    cells: dict[str, set[str]] = {}
    for run in runs:
        cells.setdefault(run.name, set()).add(run.cell)
    rows: list[LossRow] = []
    for run in runs:
        name = run.name if len(cells[run.name]) == 1 else f"{run.name} ({run.cell[:6]})"
        for stage, kept, logged in _stages(run):
            rows += [
                LossRow(name, stage, step, loss, run.seed or 0, kept=step == kept)
                for step, loss in _logged(logged, "validation_loss")
            ]
            if training:
                found = _logged(logged, "loss")
                every = math.ceil(len(found) / _MANY_POINTS) or 1
                rows += [LossRow(name, stage, step, loss, run.seed or 0, "training") for step, loss in found[::every]]
    return rows


def stage_order(runs: Sequence[Run]) -> list[str]:
    """The stages of all runs in the order of their configurations, also of those that a run has not reached."""
    return in_order([_configured(run) for run in runs])


def reliance_rows(cells: Cells) -> list[RelianceRow]:
    """Gains of each cell's examples, averaged over seeds, and the interval of their mean."""
    rows = []
    for name, group in cells.items():
        gains = gains_of(group.answers)
        low, high = (gains.interval.ci95 if gains.interval is not None else None) or (None, None)
        rows.append(RelianceRow(name, gains.values, low, high))
    return rows


def gate_rows(cells: Cells, observed: str = "gates") -> list[GateRow]:
    """What projectors observed of each level, averaged over seeds; cells that observed nothing have no row.

    Args:
        cells: with their answers.
        observed: `gates` of the projector `dynamic`, `weights` of `fusion`.
    """
    rows = []
    for name, group in cells.items():
        found = [entry for answer in group.answers if (entry := (answer.entry.get("observed") or {}).get(observed))]
        if found:
            means = [_mean(values) for values in zip(*(entry["mean"] for entry in found), strict=True)]
            sds = [_root_mean_square(values) for values in zip(*(entry["sd"] for entry in found), strict=True)]
            rows.append(GateRow(name, _levels(group, len(means)), tuple(means), tuple(sds)))
    return rows


def rank_rows(
    runs: Sequence[Run], protocol: str = "strict", split: str = "test", metrics: Mapping[str, str] | None = None
) -> tuple[list[RankRow], float, int, str]:
    """Mean ranks of cells over the tasks and data sets that all were asked, by Friedman's and Nemenyi's tests.

    Args:
        runs: of cells that have the same alias in every task.
        protocol: of all tasks.
        split: that was asked.
        metrics: the metric of each task; the first of the protocol for a task that is not here.

    Returns:
        The rows, the critical difference, the number of blocks and what the test found: the arguments of
        `critical_difference_diagram`.

    Raises:
        ResultsError: there are fewer than two cells or fewer than two blocks.
    """
    from results.statistics import friedman

    directions = Directions.of(runs)
    asked = _pairs(runs, split)
    blocks = [_block(runs, protocol, split, task, data, metrics or {}, directions) for task, data in asked]
    names = list(dict.fromkeys(name for block in blocks for name in block))
    found = friedman([[block.get(name, math.nan) for name in names] for block in blocks])
    said = f"Friedman: chi-squared {found.statistic:.3g}, {probability(found.p)}."
    rows = [RankRow(name, rank) for name, rank in zip(names, found.mean_ranks, strict=True)]
    return rows, found.critical_difference, found.blocks, said


def answer_rows(cells: Cells) -> list[AnswerRow]:
    """Right and given answers of a classification, counted over seeds.

    Raises:
        ResultsError: what was asked is no classification.
    """
    rows: list[AnswerRow] = []
    for name, group in cells.items():
        if group.first.entry.get("answer") != "classification":
            raise ResultsError(f"confusion: {group.first.entry['task']} is no classification")
        for answer in group.answers:
            file = f"predictions/{answer.entry.get('predict_id')}"
            gold = {row["example_id"]: str(row["reference"]) for row in answer.run.lines(f"{file}.questions.jsonl")}
            for row in answer.run.lines(f"{file}.jsonl"):
                if row["example_id"] in gold:
                    rows.append(AnswerRow(name, gold[row["example_id"]], row["text"]))
    return rows


def _cost(group: Group, cost: Cost) -> float | None:
    summaries = [answer.run.summary for answer in group.answers]
    if cost == "trained parameters":
        trained = (summaries[0].get("parameters") or {}).get("trained_sum")
        return None if trained is None else float(trained)
    seconds = [
        float(summary["training_seconds"]) for summary in summaries if is_number(summary.get("training_seconds"))
    ]
    return _mean(seconds) if seconds else None


def _stages(run: Run) -> list[tuple[str, int | None, Sequence[Mapping[str, Any]]]]:
    """Of each stage: its name, the step whose weights were kept, and what was logged."""
    told = run.summary.get("stages") or ()
    if told:
        return [_of_summary(run, place, stage) for place, stage in enumerate(told)]
    if run.packed is not None:
        return []
    logs = sorted(run.folder.glob("stages/*/metrics.jsonl"), key=lambda file: int(file.parent.name.partition("-")[0]))
    return [(file.parent.name.partition("-")[2], None, run.lines(str(file.relative_to(run.folder)))) for file in logs]


def _configured(run: Run) -> list[str]:
    told = run.summary.get("stages") or run.config.get("stages") or ()
    return [str(stage["name"]) for stage in told if isinstance(stage, Mapping) and "name" in stage]


def _of_summary(run: Run, place: int, stage: Mapping[str, Any]) -> tuple[str, int | None, Sequence[Mapping[str, Any]]]:
    name = str(stage["name"])
    logged = [row for row in run.lines(f"stages/{place}-{name}/metrics.jsonl") if "loss" in row]
    validation = (stage.get("validation") or {}).items()
    return (
        name,
        stage.get("kept_step"),
        [*logged, *({"step": int(step), "validation_loss": loss} for step, loss in validation)],
    )


def _logged(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float | None]]:
    return [(int(row["step"]), row[key]) for row in rows if key in row]


def _levels(group: Group, count: int) -> tuple[str, ...]:
    """The names of levels, as the projector's configuration lists them; numbers where it does not."""
    known = (group.first.run.config.get("projector") or {}).get("levels") or ()
    fits = isinstance(known, list | tuple) and len(known) == count
    return tuple(map(str, known)) if fits else tuple(f"level {place + 1}" for place in range(count))


def _pairs(runs: Sequence[Run], split: str) -> list[tuple[str, str]]:
    entries = [entry for run in runs for entry in run.summary.get("evaluations", ()) if entry["split"] == split]
    return sorted({(str(entry["task"]), str(entry["data"])) for entry in entries})


def _block(
    runs: Sequence[Run],
    protocol: str,
    split: str,
    task: str,
    data: str,
    metrics: Mapping[str, str],
    directions: Directions,
) -> dict[str, float]:
    """The metric of each cell on one task, the larger the better; empty where the protocol does not score the task."""
    try:
        cells = cells_of(runs, protocol, split, task, data)
    except ResultsError:
        return {}
    metric = metrics.get(task) or next(iter(next(iter(cells.values())).first.score["metrics"]))
    sign = -1.0 if directions.better(metric) == "smaller" else 1.0
    over = {name: group.over(metric) for name, group in cells.items()}
    return {name: sign * found.mean for name, found in over.items() if found.is_complete and found.mean is not None}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(_mean([value * value for value in values]))
