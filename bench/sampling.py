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
