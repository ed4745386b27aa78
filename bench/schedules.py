"""Learning rates over a training, as fractions of their peak."""

from __future__ import annotations

import math

from bench.config_types import Schedule


def rate_factor(schedule: Schedule, step: int, steps: int, warmup: int, epoch_steps: int) -> float:
    """What the peak learning rate is multiplied by at a step.

    With `constant`, `linear` and `cosine`, and no other field set, what transformers' schedules of these names give, to
    the last bit.

    Args:
        schedule: the declaration.
        step: counted from 0.
        steps: of the whole training.
        warmup: steps of warm-up (`warmup_steps_of`).
        epoch_steps: steps per pass over the data, for a `staircase`.
    """
    if schedule.name == "staircase":
        return _staircase(schedule, step, steps, min(warmup, epoch_steps), epoch_steps)
    if step < warmup:
        return schedule.warmup_from + (1 - schedule.warmup_from) * (step / max(1, warmup))
    if schedule.name == "constant":
        return 1.0
    return schedule.floor + (1 - schedule.floor) * _curve(schedule, step, steps, warmup)


def warmup_steps_of(schedule: Schedule, steps: int) -> int:
    """Steps of warm-up, of which a fraction is rounded up as transformers does."""
    return math.ceil(schedule.warmup * steps) if schedule.warmup_steps is None else schedule.warmup_steps


def _curve(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """From 1 to 0, or to wherever a curve that does not end at its end has come."""
    left = max(1, steps - warmup)
    if schedule.name == "linear":
        down = (steps - step) / left if schedule.end == 1 else 1 - schedule.end * (step - warmup) / left
        return max(0.0, down)
    return 0.5 * (1.0 + math.cos(math.pi * (schedule.end * ((step - warmup) / left))))


def _staircase(schedule: Schedule, step: int, steps: int, warmup: int, epoch_steps: int) -> float:
    epoch, epochs = step // epoch_steps, math.ceil(steps / epoch_steps)
    if epoch == 0:
        return schedule.warmup_from + (1 - schedule.warmup_from) * min(1.0, step / max(1, warmup)) if warmup else 1.0
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
