"""What the reading side knows of metrics by their names: which way is better, and what a plain table leaves out."""

from __future__ import annotations

from typing import Literal

Direction = Literal["larger", "smaller"]

_SMALLER = frozenset({"levenshtein", "name-levenshtein", "mae", "rmse", "hallucination", "unchecked-rows", "loss"})

# How many facts an answer states, and how the gold answers fare, are no merit of a model.
_NEITHER = frozenset({"claims", "hallucination-of-gold"})

HIDDEN = frozenset({"rouge-1", "rouge-2"})
"""Metrics that get no column unless a table asks for them, since others say nearly the same; results have them."""

YES_OR_NO = frozenset({"exact", "accuracy", "name-exact", "opsin-exact"})
"""Metrics that are 0 or 1 for each example, so that McNemar's test applies to them."""


def direction_of(metric: str) -> Direction | None:
    """Which values of a metric are better; None where neither is. What is not known here is better when larger."""
    if metric in _NEITHER:
        return None
    return "smaller" if metric in _SMALLER else "larger"


def is_better(metric: str, value: float, other: float) -> bool:
    """Whether one value of a metric is better than another."""
    direction = direction_of(metric)
    return direction is not None and (value < other if direction == "smaller" else value > other)
