"""Which cell of a study, or which trial of a search, is the best: a named rule over validation figures, never of test.

A study is decided on validation alone; test scores of the cell that was chosen are then an honest estimate. A rule that
would read them is refused before anything runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import ConfigError

if TYPE_CHECKING:
    from bench.config import RunConfig
    from bench.study_states import RunState

LOSS, PARAMETERS, SECONDS = "loss", "parameters", "seconds"
PLAIN = (LOSS, PARAMETERS, SECONDS)
"""Figures that every result has, whatever it was asked."""

_SMALLER_IS_BETTER = frozenset(
    {
        *PLAIN,
        *("levenshtein", "name-levenshtein", "mae", "rmse"),
        *("hallucination", "hallucination-of-gold", "unchecked-rows"),
    }
)
_VALIDATION = "validation"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A rule that orders results, best first, by one figure.

    Args:
        metric: `loss` (validation loss of the weights that the run hands on, nats per token), `parameters` (trained
            ones), `seconds` (of training), or `PROTOCOL/METRIC` of answers on the validation split, as
            `strict/bleu-2`.
        mode: whether the smallest or the largest is best; None for what is usual: the smallest loss, cost, distance or
            error, the largest of everything else.
        task: whose answers, where a run is asked several tasks.
    """

    metric: str = LOSS
    mode: Literal["min", "max"] | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        protocol, separator, name = self.metric.partition("/")
        if self.metric not in PLAIN and not (separator and protocol and name):
            raise ConfigError(
                "metric", f"is {self.metric!r}; it may be {', '.join(PLAIN)}, or PROTOCOL/METRIC as strict/bleu-2"
            )

    @property
    def direction(self) -> Literal["min", "max"]:
        """Whether the smallest or the largest figure is best; `check_selection` asks a metric that is unknown here."""
        if self.mode is not None:
            return self.mode
        return "min" if self.metric.rpartition("/")[2] in _SMALLER_IS_BETTER else "max"

    def better(self, figure: float, other: float) -> bool:
        """Whether one figure is better than another."""
        return figure < other if self.direction == "min" else figure > other

    @property
    def described(self) -> str:
        """The rule in words."""
        extreme = "smallest" if self.direction == "min" else "largest"
        if self.metric in PLAIN:
            words = {LOSS: "validation loss", PARAMETERS: "trained parameters", SECONDS: "seconds of training"}
            return f"{extreme} {words[self.metric]}"
        asked = f" of {self.task}" if self.task else ""
        return f"{extreme} {self.metric}{asked} on the validation split"


def figure_of(summary: Mapping[str, Any], rule: Selection, *, asked: Collection[str] = ()) -> float | None:
    """A result's figure by a rule; None where it has none, or one that is no number.

    Args:
        summary: what `result.json` says.
        rule: which figure.
        asked: evaluation identities of which the answers are taken; empty for all. A run may have been asked again
            later in another way (`molgraft predict`), and such answers must not decide.
    """
    if rule.metric == PARAMETERS:
        return _number(summary.get("parameters", {}).get("trained_sum"))
    if rule.metric == SECONDS:
        return _number(summary.get("training_seconds"))
    if rule.metric == LOSS:
        stages = summary.get("stages") or [{}]
        return _number(stages[-1].get("validation", {}).get(str(stages[-1].get("kept_step"))))
    protocol, _, metric = rule.metric.partition("/")
    figure = None
    for entry in summary.get("evaluations", ()):
        if entry["split"] != _VALIDATION or (asked and entry["evaluation_id"] not in asked):
            continue
        if rule.task is not None and rule.task != entry["task"]:
            continue
        for score in entry["scores"]:
            if protocol in (score["protocol"], score["protocol"].partition("@")[0]) and metric in score["metrics"]:
                figure = _number(score["metrics"][metric]["value"])  # of several, the one asked last
    return figure


def check_selection(rule: Selection, config: RunConfig, path: str = "select") -> Selection:
    """The rule with the direction that its metric declares, where none was given.

    Raises:
        ConfigError: runs of this configuration will have no such figure, or one of the test split, or one of which
            neither direction is better; with what would be right.
    """
    if rule.metric == LOSS and not config.stages:
        raise ConfigError(f"{path}.metric", "is loss, and the run has no stage that would have one; name a metric")
    if rule.metric in PLAIN:
        return rule
    if config.evaluation.split != _VALIDATION:
        raise ConfigError(
            f"{path}.metric",
            f"is {rule.metric}, and answers are asked on the {config.evaluation.split} split, by which nothing may be "
            "selected; set `evaluation.split: validation` (and ask the chosen run on test afterwards), or select by "
            "loss",
        )
    tasks = {task.name: task for task in config.evaluation_tasks()}
    if rule.task is not None and rule.task not in tasks:
        raise ConfigError(f"{path}.task", f"is {rule.task!r}, which is not asked; asked are {', '.join(tasks)}")
    if rule.task is None and len(tasks) > 1:
        raise ConfigError(f"{path}.task", f"is missing, and several tasks are asked: choose from {', '.join(tasks)}")
    kind = tasks[rule.task or next(iter(tasks))].answer
    wanted, _, metric = rule.metric.partition("/")
    protocols = {protocol.name: protocol for protocol in config.evaluation.protocols}
    name = wanted.partition("@")[0]
    if name not in protocols:
        raise ConfigError(
            f"{path}.metric",
            f"is {rule.metric}, and the run is scored by {', '.join(protocols)}; set `evaluation.protocols` too",
        )
    offered = {metric.name: metric.better for metric in protocols[name].metrics().get(kind, ())}
    if metric not in offered:
        raise ConfigError(
            f"{path}.metric",
            f"is {rule.metric}; of answers of the kind {kind}, {name} measures {', '.join(offered) or 'nothing'}",
        )
    if rule.mode is not None:
        return rule
    better = offered[metric]
    if better is None:
        raise ConfigError(
            f"{path}.mode", f"is missing, and {rule.metric} is no merit whichever way it goes; say `mode: min` or `max`"
        )
    declared: Literal["min", "max"] = "min" if better == "smaller" else "max"
    # What the name says already is left to it, so that rules read as they were written.
    return rule if rule.direction == declared else replace(rule, mode=declared)


@dataclass(frozen=True, slots=True)
class CellFigures:
    """What a study knows of one cell.

    Args:
        cell: its alias.
        figures: by seed, of its finished runs.
        missing: how its other runs stand, by seed: the state, and the class of a failure.
    """

    cell: str
    figures: Mapping[int, float]
    missing: Mapping[int, str]

    @property
    def mean(self) -> float | None:
        """Over the seeds that have a figure."""
        return fmean(self.figures.values()) if self.figures else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds, from two on."""
        return stdev(self.figures.values()) if len(self.figures) > 1 else None


@dataclass(frozen=True, slots=True)
class Selected:
    """The cell that a rule chooses, and what there was to choose from.

    Args:
        rule: by which it was chosen.
        best: None where no cell has all of its seeds.
        ranked: the cells with all seeds, best first; of equal ones, that which was declared first.
        incomplete: cells that were not considered, since a run of theirs is missing or has no figure.
    """

    rule: Selection
    best: CellFigures | None
    ranked: tuple[CellFigures, ...]
    incomplete: tuple[CellFigures, ...]

    def lines(self) -> Iterator[str]:
        """The choice, and what was left out of it, for people."""
        if self.best is None:
            yield f"selected: no cell, since none has all of its seeds ({self.rule.described})"
        else:
            yield f"selected: {self.best.cell}, {_shown(self.best)} ({self.rule.described})"
        for cell in self.incomplete:
            missing = ", ".join(f"seed {seed} {why}" for seed, why in cell.missing.items())
            line = f"  not considered: {cell.cell}, of which {missing}"
            if cell.mean is not None:
                line += f"; {_shown(cell)}"
                if self.best is None or self.best.mean is None or self.rule.better(cell.mean, self.best.mean):
                    line += ", which would be the best"
            yield line


def selected(rule: Selection, states: Sequence[RunState]) -> Selected:
    """The best cell by the mean of its seeds.

    A cell that lacks a seed is not chosen, since a mean over fewer seeds is another quantity, and what has failed may
    have failed because of the cell; it is listed, with how it stands.

    Args:
        rule: which figure, and which direction.
        states: of all runs of a study, with their figures by the same rule.
    """
    cells: dict[str, CellFigures] = {}
    for state in states:
        run = state.planned
        known = cells.get(run.cell, CellFigures(run.cell, {}, {}))
        if state.figure is not None:
            known = CellFigures(run.cell, {**known.figures, run.seed: state.figure}, known.missing)
        else:
            why: str = "has no such figure" if state.state == "done" else state.state
            why += f" ({state.error})" if state.error else ""
            known = CellFigures(run.cell, known.figures, {**known.missing, run.seed: why})
        cells[run.cell] = known
    whole = [cell for cell in cells.values() if not cell.missing]
    sign = 1 if rule.direction == "min" else -1
    ranked = tuple(sorted(whole, key=lambda cell: sign * (cell.mean or 0.0)))  # stable
    incomplete = tuple(cell for cell in cells.values() if cell.missing)
    return Selected(rule, ranked[0] if ranked else None, ranked, incomplete)


def _shown(cell: CellFigures) -> str:
    """A cell's mean in words."""
    count = len(cell.figures)
    spread = f" ± {cell.spread:.2g}" if cell.spread is not None else ""
    return f"{cell.mean:.4g}{spread}" + (f", mean of {count} seeds" if count > 1 else "")


def _number(value: object) -> float | None:
    """A finite number; NaN orders nothing and counts as missing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
