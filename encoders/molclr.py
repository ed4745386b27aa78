"""The graph convolutional network of MolCLR (Wang et al. 2022; `models/gcn_molclr.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from encoders.base import GraphScheme
from encoders.features import MolClr2
from encoders.message_passing import BondEmbedding, GraphEncoder, gathered


@dataclass(frozen=True, kw_only=True)
class MolClr(GraphEncoder):
    """GCN as MolCLR released it: the plain sum of neighbours and the atom itself, since its norm is never applied.

    A bond adds one number to every channel. See `GraphEncoder` for the settings.
    """

    name: ClassVar[str] = "molclr"

    scheme: GraphScheme = field(default_factory=MolClr2)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return MolClrConvolution(self.scheme, self.width)


class MolClrConvolution(nn.Module):
    """`sum over j in N(i) and i of (h_j W + e_ij)`, plus a bias; `e_ij` is one number (`gcn_molclr.py:56-85`)."""

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.bonds = BondEmbedding(scheme, 1)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        mapped = hidden @ self.weight
        own = mapped + self.bonds.of_self_loop()
        return gathered(own, target, mapped.index_select(0, source) + self.bonds(bonds)) + self.bias
