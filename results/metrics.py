"""What the reading side knows of metrics: which way is better, and what a plain table leaves out.

A metric declares on its class which way is better, and score files say so, since whoever reads them need not have the
class (a plug-in's, on another machine). Files of older versions do not say; then the names that were known count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from results.runs import ResultsError, Run

Direction = Literal["larger", "smaller"]

_SMALLER = frozenset({"levenshtein", "name-levenshtein", "mae", "rmse", "hallucination", "unchecked-rows", "loss"})

# How many facts an answer states, and how the gold answers fare, are no merit of a model.
_NEITHER = frozenset({"claims", "hallucination-of-gold"})

HIDDEN = frozenset({"rouge-1", "rouge-2"})
"""Metrics that get no column unless a table asks for them, since others say nearly the same; results have them."""

YES_OR_NO = frozenset({"exact", "accuracy", "name-exact", "opsin-exact"})
"""Metrics that are 0 or 1 for each example, so that McNemar's test applies to them."""


@dataclass(frozen=True)
class Directions:
    """Which values of metrics are better, as the runs that were read declare it.

    A name means one metric in all of them, so that this is one fact for whatever shows them together.

    Args:
        declared: by metric, what runs declare, each with a run that does; without any, the names that are known count.
    """

    declared: Mapping[str, Mapping[Direction | None, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Directions:
        """What the scores of runs declare; that two runs disagree is told only to whoever asks for such a metric."""
        declared: dict[str, dict[Direction | None, str]] = {}
        for run in runs:
            for entry in run.summary.get("evaluations", ()):
                for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
                    for name, estimate in score.get("metrics", {}).items():
                        if "better" in estimate:
                            declared.setdefault(name, {}).setdefault(estimate["better"], str(run.folder))
        return cls(declared)

    def better(self, metric: str) -> Direction | None:
        """Which values of a metric are better; None where neither is.

        What no run declares and is not known here is better when larger.

        Raises:
            ResultsError: the runs declare different things.
        """
        declared = self.declared.get(metric, {})
        if len(declared) > 1:
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

    def is_better(self, metric: str, value: float, other: float) -> bool:
        """Whether one value of a metric is better than another.

        Raises:
            ResultsError: as `better`.
        """
        direction = self.better(metric)
        return direction is not None and (value < other if direction == "smaller" else value > other)
