"""The graph isomorphism network of pretrain-gnns (Hu et al. 2020; `chem/model.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from encoders.base import GraphScheme
from encoders.features import Pgnn2
from encoders.message_passing import BondEmbedding, GraphEncoder, gathered


@dataclass(frozen=True, kw_only=True)
class Gin(GraphEncoder):
    """GIN over atoms: sum of neighbours plus bond embeddings, an MLP, batch norm; ReLU but after the last layer.

    GraphCL, MolCA and MolX use the same network. See `GraphEncoder` for the settings.
    """

    name: ClassVar[str] = "gin"
    version: ClassVar[int] = 2  # its tensors have other names than those of version 1

    scheme: GraphScheme = field(default_factory=Pgnn2)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return GinConvolution(self.scheme, self.width)


class GinConvolution(nn.Module):
    """`mlp(sum over j in N(i) and i of h_j + e_ij)`, without epsilon (`chem/model.py:20-52`)."""

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.bonds = BondEmbedding(scheme, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        messages = hidden.index_select(0, source) + self.bonds(bonds)
        own = hidden + self.bonds.of_self_loop()
        rows: Tensor = self.mlp(gathered(own, target, messages))
        return rows
