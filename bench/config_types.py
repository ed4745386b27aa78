"""Types that configurations of runs and of pretrainings share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import StringConstraints

Count = Annotated[int, Ge(1)]
Fraction = Annotated[float, Interval(ge=0, lt=1)]
Rate = Annotated[float, Gt(0)]
ALIAS_PATTERN = r"^[.+-]*\w[\w.+-]*$"  # `..` is none
Alias = Annotated[str, StringConstraints(pattern=ALIAS_PATTERN)]  # it becomes part of a folder's name
Precision = Literal["fp32", "bf16"]
ScheduleName = Literal["constant", "linear", "cosine", "staircase"]

Mapped = dict[str, Any]
"""A configuration as YAML reads it."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate over a stage: warm-up, then `name`.

    Args:
        name: `constant`; `linear` or `cosine` down to `floor`; `staircase`, a cosine that is taken once per epoch, as
            LAVIS has it and so LLaMo and MolCA (`lavis/common/optims.py`, `LinearWarmupCosineLRScheduler`): warm-up
            happens in the first epoch only, which is constant behind it.
        warmup: fraction of the stage's steps.
        warmup_steps: optimiser steps of warm-up; wins over `warmup`. At most the first epoch of a `staircase`.
        warmup_from: the rate at step 0, as a fraction of the peak.
        floor: the last rate, as a fraction of the peak.
        end: where on the curve training ends, 1 being its end; MolX counts epochs from 1, so that its curve ends with
            the fourth of five and rises again in the last (1.25).
    """

    name: ScheduleName = "cosine"
    warmup: Fraction = 0.03
    warmup_steps: Annotated[int, Ge(0)] | None = field(default=None, metadata={"neutral": None})
    warmup_from: Fraction = field(default=0.0, metadata={"neutral": 0.0})
    floor: Fraction = field(default=0.0, metadata={"neutral": 0.0})
    end: Rate = field(default=1.0, metadata={"neutral": 1.0})
