"""Learning rates: transformers' own curves to the last bit, LAVIS's staircase, and MolX's count of epochs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import get_scheduler

from bench.config_types import Schedule, ScheduleName
from bench.schedules import rate_factor, warmup_steps_of


def factors(schedule: Schedule, steps: int, epoch_steps: int = 10) -> list[float]:
    warmup = warmup_steps_of(schedule, steps)
    return [rate_factor(schedule, step, steps, warmup, epoch_steps) for step in range(steps)]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(7, 0.0), (50, 0.03), (40, 0.1), (3, 0.9)])
def test_the_curves_of_transformers_to_the_last_bit(name: ScheduleName, steps: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_scheduler(
        {"constant": "constant_with_warmup"}.get(name, name),
        optimizer,
        num_warmup_steps=math.ceil(steps * warmup),
        num_training_steps=steps,
    )
    expected = []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    assert factors(Schedule(name=name, warmup=warmup), steps) == expected


def test_the_staircase_of_llamo() -> None:
    """Three epochs from 5e-5 to 5e-6: 5e-5, 3.875e-5, 1.625e-5, as its released code takes them."""
    schedule = Schedule(name="staircase", warmup_steps=4, warmup_from=0.01, floor=0.1)
    found = [5e-5 * factor for factor in factors(schedule, 30, epoch_steps=10)]
    assert found[0] == pytest.approx(5e-7)
    assert found[2] == pytest.approx((5e-7 + 5e-5) / 2)
    assert found[4:10] == pytest.approx([5e-5] * 6)
    assert found[10:20] == pytest.approx([3.875e-5] * 10)
    assert found[20:] == pytest.approx([1.625e-5] * 10)


def test_a_staircase_of_one_epoch_never_goes_down() -> None:
    found = factors(Schedule(name="staircase", warmup_steps=1000, floor=0.1), 8, epoch_steps=8)
    assert found == pytest.approx([step / 8 for step in range(8)])  # its warm-up is no longer than the epoch
    assert factors(Schedule(name="staircase", warmup=0.0), 8, epoch_steps=8) == [1.0] * 8


def test_a_curve_that_ends_late_rises_again() -> None:
    """MolX counts epochs from 1: of five, the bottom is after the fourth, and the last rises from 5e-6 to 5.7e-6."""
    schedule = Schedule(name="cosine", warmup=0.0, floor=0.5, end=1.25)
    found = [1e-5 * factor for factor in factors(schedule, 500)]
    assert found[0] == pytest.approx(1e-5)
    assert min(found) == pytest.approx(5e-6)
    assert found.index(min(found)) == pytest.approx(400, abs=1)
    assert found[-1] == pytest.approx(5.72e-6, rel=2e-3)


@given(
    name=st.sampled_from(["constant", "linear", "cosine", "staircase"]),
    steps=st.integers(1, 60),
    epoch=st.integers(1, 20),
    warmup=st.floats(0, 0.9),
    low=st.floats(0, 0.9),
    floor=st.floats(0, 0.9),
)
def test_rates_stay_between_the_lowest_and_the_peak(
    name: ScheduleName, steps: int, epoch: int, warmup: float, low: float, floor: float
) -> None:
    schedule = Schedule(name=name, warmup=warmup, warmup_from=low, floor=floor)
    found = factors(schedule, steps, epoch)
    assert all(min(low, floor) - 1e-12 <= factor <= 1 + 1e-12 for factor in found)
