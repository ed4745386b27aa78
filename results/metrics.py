"""What the reading side knows of metrics: which way is better, and what a plain table leaves out.

A metric declares on its class which way is better, and score files say so, since whoever reads them need not have the
class (a plug-in's, on another machine). Files of older versions do not say; then the names that were known count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Direction = Literal["larger", "smaller"]

# What the runs that were read in this process declare, by metric, and a run that does. A name means one metric
# wherever it is shown, so that this is one fact for the process, as the names below are.
_declared: dict[str, dict[Direction | None, str]] = {}

_SMALLER = frozenset({"levenshtein", "name-levenshtein", "mae", "rmse", "hallucination", "unchecked-rows", "loss"})

# How many facts an answer states, and how the gold answers fare, are no merit of a model.
_NEITHER = frozenset({"claims", "hallucination-of-gold"})

HIDDEN = frozenset({"rouge-1", "rouge-2"})
"""Metrics that get no column unless a table asks for them, since others say nearly the same; results have them."""

YES_OR_NO = frozenset({"exact", "accuracy", "name-exact", "opsin-exact"})
"""Metrics that are 0 or 1 for each example, so that McNemar's test applies to them."""


def note_declared(summary: Mapping[str, Any], where: str) -> None:
    """Takes note of what a run's scores declare.

    Args:
        summary: what `result.json` says.
        where: the run, for messages.
    """
    for entry in summary.get("evaluations", ()):
        for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
            for name, estimate in score.get("metrics", {}).items():
                if "better" in estimate:
                    _declared.setdefault(name, {}).setdefault(estimate["better"], where)


def forget_declared() -> None:
    """Drops what runs that were read before declare; for a process that reads runs which have nothing in common."""
    _declared.clear()


def direction_of(metric: str) -> Direction | None:
    """Which values of a metric are better; None where neither is.

    What no run declares and is not known here is better when larger.

    Raises:
        ResultsError: runs that were read declare different things.
    """
    declared = _declared.get(metric, {})
    if len(declared) > 1:
        from results.runs import ResultsError

        said = "; ".join(f"{direction or 'neither'} in {where}" for direction, where in declared.items())
        raise ResultsError(
            f"metric {metric}: which values are better is told in two ways: {said}. They are two metrics under one "
            "name: give one another name; or, if it was declared wrongly before, `molgraft score RUN` notes it anew"
        )
    if declared:
        return next(iter(declared))
    if metric in _NEITHER:
        return None
    return "smaller" if metric in _SMALLER else "larger"


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether one value of a metric is better than another."""
    direction = direction_of(metric)
    return direction is not None and (value < other if direction == "smaller" else value > other)
