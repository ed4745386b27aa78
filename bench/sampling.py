"""The order in which training examples are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

_POOL = 50  # batches per pool; larger pools pad less and mix less


class LengthGroups(Sampler[int]):
    """Batches of examples of similar length, in random order.

    Examples are permuted, cut into pools of 50 batches, sorted by length within a pool and cut into batches; then the
    batches of all pools are permuted. The last step is what transformers' own sampler lacks: it goes from the longest
    to the shortest answers within each pool, so that a model is validated right after it has seen nothing but the
    shortest ones.

    Args:
        lengths: of all examples.
        batch_size: examples per batch.
        seed: with the epoch, what the order starts from; a resumed epoch has the same order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer when an epoch begins or is resumed."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        order = torch.randperm(len(self._lengths), generator=generator).tolist()
        whole = len(order) - len(order) % self._batch_size
        order, rest = order[:whole], order[whole:]  # a batch that is not full can only be the last
        pool = _POOL * self._batch_size
        batches: list[list[int]] = []
        for start in range(0, whole, pool):
            by_length = sorted(order[start : start + pool], key=lambda index: self._lengths[index])
            batches += [by_length[i : i + self._batch_size] for i in range(0, len(by_length), self._batch_size)]
        for position in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[position]
        yield from rest


class Shares(Sampler[list[int]]):
    """One process's share of every batch, in forward passes of a limited size.

    A batch holds the same examples whatever the number of processes; only the last one of an epoch can be smaller.
    Where it is too small to give every process an example, a process is given one that is not to be supervised, since
    all must take part in each step: its number `n` is written `-1 - n`.

    Args:
        order: of all examples, the same in every process.
        batch_size: examples of a batch, of all processes together.
        rank, world: which process of how many.
        passes: forward passes that a process makes of its share.
    """

    def __init__(self, order: Sampler[int], batch_size: int, rank: int, world: int, passes: int) -> None:
        self._order = order
        self._batch_size = batch_size
        self._rank = rank
        self._world = world
        self._passes = passes

    @property
    def batch_sampler(self) -> Shares:
        """Itself: the trainer looks here for what it tells the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer when an epoch begins or is resumed."""
        self._order.set_epoch(epoch)  # type: ignore[attr-defined]

    def __len__(self) -> int:
        batches = -(-len(self._order) // self._batch_size)  # type: ignore[arg-type]
        return batches * self._passes

    def __iter__(self) -> Iterator[list[int]]:
        batch: list[int] = []
        for index in self._order:
            batch.append(index)
            if len(batch) == self._batch_size:
                yield from self._own(batch)
                batch = []
        if batch:
            yield from self._own(batch)

    def _own(self, batch: list[int]) -> Iterator[list[int]]:
        slots = self._world * self._passes
        for number in range(self._passes):
            yield batch[number * self._world + self._rank :: slots] or [-1 - batch[0]]
