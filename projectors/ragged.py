"""Ragged rows as projectors use them: pooled to one per molecule, padded to a block, or put one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from encoders.base import Level, Ragged
from projectors.base import SoftTokens

Activation = Literal["relu", "gelu", "silu"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def mean_rows(rows: Ragged) -> Tensor:
    """The mean row of each molecule, `(B, width)`; zeros for one without rows."""
    # Summed in full precision: in bfloat16 the sum of some hundred rows would lose the last of them.
    values = rows.values if rows.values.dtype == torch.float64 else rows.values.float()
    summed = values.new_zeros((rows.ptr.numel() - 1, values.shape[1]))
    summed = summed.index_add(0, rows.molecule_of_row(), values)
    return (summed / rows.counts().clamp(min=1)[:, None]).to(rows.values.dtype)


def dense(rows: Ragged) -> tuple[Tensor, Tensor]:
    """Rows in a block `(B, longest, ...)` with zeros at the end, and where they are, `(B, longest)` bool."""
    counts = rows.counts()
    longest = max(int(counts.max()) if counts.numel() else 0, 1)
    present = torch.arange(longest, device=counts.device)[None] < counts[:, None]
    molecule = rows.molecule_of_row()
    place = torch.arange(len(molecule), device=counts.device) - rows.ptr[molecule] + molecule * longest
    block = rows.values.new_zeros((counts.numel() * longest, *rows.values.shape[1:]))
    return block.index_copy(0, place, rows.values).unflatten(0, present.shape), present  # type: ignore[no-untyped-call]


def ragged(block: Tensor, rows: Ragged) -> Ragged:
    """What a block `(B, longest, ...)`, as `dense` makes one, holds of each molecule's rows."""
    _, present = dense(Ragged(rows.values.new_zeros((len(rows.values), 1)), rows.ptr))
    return Ragged(block[:, : present.shape[1]][present], rows.ptr)


def layers_of(levels: Iterable[Level]) -> tuple[Level, ...]:
    """The levels `layer:k` among these, in the order of k."""
    return tuple(sorted((level for level in levels if level.startswith("layer:")), key=lambda level: int(level[6:])))


def equal_tokens(block: Tensor) -> SoftTokens:
    """As many tokens for every molecule, `(B, T, d_llm)`, as soft tokens."""
    size, count, width = block.shape
    return SoftTokens(block.reshape(size * count, width), torch.arange(size + 1, device=block.device) * count)


def joined(parts: Sequence[Ragged]) -> SoftTokens:
    """The rows of several levels, molecule by molecule: all of a molecule's first level, then its second, ..."""
    counts = torch.stack([part.counts() for part in parts])
    ptr = torch.cat([counts.new_zeros(1), counts.sum(dim=0).cumsum(0)])
    before = torch.cat([counts.new_zeros((1, counts.shape[1])), counts.cumsum(dim=0)[:-1]])
    width = parts[0].values.shape[1]
    embeds = parts[0].values.new_zeros((int(counts.sum()), width))
    for part, offset in zip(parts, before, strict=True):
        molecule = part.molecule_of_row()
        inside = torch.arange(len(part.values), device=ptr.device) - part.ptr[molecule]
        embeds = embeds.index_copy(0, ptr[molecule] + offset[molecule] + inside, part.values)
    return SoftTokens(embeds, ptr)


def mlp(width: int, out: int, depth: int, activation: Activation = "gelu", hidden: int | None = None) -> nn.Module:
    """`depth` linear maps with an activation between each two; hidden layers are as wide as the end if not said."""
    widths = [width, *([hidden or out] * (depth - 1)), out]
    layers: list[nn.Module] = []
    for position in range(depth):
        layers += [_ACTIVATIONS[activation]()] if position else []
        layers.append(nn.Linear(widths[position], widths[position + 1]))
    return nn.Sequential(*layers)
