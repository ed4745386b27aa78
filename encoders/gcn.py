"""The graph convolutional network of pretrain-gnns (`chem/model.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from encoders.base import GraphScheme
from encoders.features import Pgnn2
from encoders.message_passing import BondEmbedding, GraphEncoder, gathered


@dataclass(frozen=True, kw_only=True)
class Gcn(GraphEncoder):
    """GCN over atoms: neighbours and the atom itself, normed by the root of both degrees. See `GraphEncoder`."""

    name: ClassVar[str] = "gcn"

    scheme: GraphScheme = field(default_factory=Pgnn2)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return GcnConvolution(self.scheme, self.width)


class GcnConvolution(nn.Module):
    """`sum over j in N(i) and i of (W h_j + b + e_ij) / sqrt(d_i d_j)`, self loops counted (`chem/model.py:55-98`)."""

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bonds = BondEmbedding(scheme, width)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        mapped = self.linear(hidden)
        degrees = torch.ones(len(mapped), dtype=mapped.dtype, device=mapped.device)
        degrees = degrees.index_add(0, target, degrees.new_ones(len(target)))
        norm = degrees.rsqrt()
        messages = (mapped.index_select(0, source) + self.bonds(bonds)) * (norm[source] * norm[target])[:, None]
        own = (mapped + self.bonds.of_self_loop()) / degrees[:, None]
        return gathered(own, target, messages)
