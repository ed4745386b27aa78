"""What stands in a batch beside its tokens: where prompts are, and where the sequences of a packed row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORED = -100
"""The label of a position that is not supervised."""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """Where the prompts of a batch are, for projectors that read them.

    Args:
        places: `(P,)` positions in the flattened `(B * L,)` sequence of the prompts' text: before the first supervised
            token, no soft tokens, no padding; example after example.
        counts: `(B,)` how many of them each example has.
        example_of: `(M,)` the example that each molecule stands in.
        tasks: the name of each molecule's task, M of them.
    """

    places: Tensor
    counts: Tensor
    example_of: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PromptContext:
        """The same on another device."""
        places, counts, example_of = (
            tensor.to(device, non_blocking=non_blocking) for tensor in (self.places, self.counts, self.example_of)
        )
        return PromptContext(places, counts, example_of, self.tasks)


@dataclass(frozen=True, slots=True)
class PackedSequences:
    """How a batch lies in one row, sequence behind sequence, instead of a row for each.

    Args:
        lengths: of the sequences, B of them.
        bounds: `(B + 1,)` where they begin and end, int32.
        positions: `(1, T)` of each token in its own sequence.
        places: `(N,)` positions in the row whose next token is supervised.
        targets: `(N,)` those tokens.
        counts: `(B,)` how many of them each sequence has; where sequences branch, each branch.
        branches: for each sequence the lengths of the answers that it ends with, each of which follows the same prompt;
            empty where sequences do not branch.
    """

    lengths: tuple[int, ...]
    bounds: Tensor
    positions: Tensor
    places: Tensor
    targets: Tensor
    counts: Tensor
    branches: tuple[tuple[int, ...], ...] = ()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedSequences:
        """The same on another device."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedSequences:
        """The same in memory that a GPU can copy from while it computes."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> PackedSequences:
        return replace(
            self,
            bounds=change(self.bounds),
            positions=change(self.positions),
            places=change(self.places),
            targets=change(self.targets),
            counts=change(self.counts),
        )
