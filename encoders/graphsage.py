"""GraphSAGE as in pretrain-gnns (`chem/model.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import GraphScheme
from encoders.features import Pgnn2
from encoders.message_passing import BondEmbedding, GraphEncoder, gathered


@dataclass(frozen=True, kw_only=True)
class GraphSage(GraphEncoder):
    """GraphSAGE over atoms: the mean over neighbours and the atom itself, at length one. See `GraphEncoder`."""

    name: ClassVar[str] = "graphsage"

    scheme: GraphScheme = field(default_factory=Pgnn2)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return GraphSageConvolution(self.scheme, self.width)


class GraphSageConvolution(nn.Module):
    """`normalise(mean over j in N(i) and i of W h_j + b + e_ij)`, rows at length one (`chem/model.py:153-190`)."""

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.bonds = BondEmbedding(scheme, width)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        mapped = self.linear(hidden)
        counts = torch.ones(len(mapped), dtype=mapped.dtype, device=mapped.device)
        counts = counts.index_add(0, target, counts.new_ones(len(target)))
        own = mapped + self.bonds.of_self_loop()
        total = gathered(own, target, mapped.index_select(0, source) + self.bonds(bonds))
        return functional.normalize(total / counts[:, None], dim=1)
