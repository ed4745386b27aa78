"""Length groups: every example once an epoch, little padding, and no order among the batches."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bench.sampling import LengthGroups


@given(
    lengths=st.lists(st.integers(1, 500), max_size=300),
    batch_size=st.integers(1, 17),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_every_example_comes_once_and_an_epoch_repeats_itself(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    sampler = LengthGroups(lengths, batch_size, seed)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(lengths))) == list(range(len(sampler)))
    resumed = LengthGroups(lengths, batch_size, seed)
    resumed.set_epoch(epoch)
    assert list(resumed) == order


def batches(lengths: list[int], batch_size: int, epoch: int = 0) -> list[list[int]]:
    sampler = LengthGroups(lengths, batch_size, seed=1)
    sampler.set_epoch(epoch)
    order = list(sampler)
    return [[lengths[i] for i in order[start : start + batch_size]] for start in range(0, len(order), batch_size)]


def useful(made: list[list[int]]) -> float:
    """The share of positions that are not padding."""
    return sum(sum(batch) for batch in made) / sum(max(batch) * len(batch) for batch in made)


_DRAWN = random.Random(7)
LENGTHS = [int(_DRAWN.lognormvariate(5, 0.6)) + 1 for _ in range(6400)]


def test_batches_hold_similar_lengths() -> None:
    assert useful(batches(LENGTHS, 16)) > 0.93
    assert useful([LENGTHS[start : start + 16] for start in range(0, len(LENGTHS), 16)]) < 0.5


def test_the_length_of_a_batch_says_nothing_of_when_it_comes() -> None:
    means = [sum(batch) / len(batch) for batch in batches(LENGTHS, 16)]
    n = len(means)
    centre, middle = sum(means) / n, (n - 1) / 2
    covariance = sum((m - centre) * ((k % 50) - 24.5) for k, m in enumerate(means)) / n
    spread = (sum((m - centre) ** 2 for m in means) / n) ** 0.5 * 14.43  # the deviation of 0..49
    assert abs(covariance / spread) < 0.15  # within what would be a pool
    covariance = sum((m - centre) * (k - middle) for k, m in enumerate(means)) / n
    spread = (sum((m - centre) ** 2 for m in means) / n) ** 0.5 * n / 12**0.5
    assert abs(covariance / spread) < 0.15  # over the epoch


def test_epochs_differ() -> None:
    assert batches(LENGTHS, 16, epoch=0) != batches(LENGTHS, 16, epoch=1)
