"""The graph attention network of pretrain-gnns (`chem/model.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import GraphScheme
from encoders.features import Pgnn2
from encoders.message_passing import BondEmbedding, GraphEncoder


@dataclass(frozen=True, kw_only=True)
class Gat(GraphEncoder):
    """GAT over atoms: heads attend to neighbours and the atom itself, and are averaged. See `GraphEncoder`.

    Args:
        heads: attention heads, each as wide as a level; 2 in pretrain-gnns.
    """

    name: ClassVar[str] = "gat"

    heads: Annotated[int, Ge(1)] = 2
    scheme: GraphScheme = field(default_factory=Pgnn2)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return GatConvolution(self.scheme, self.width, self.heads)


class GatConvolution(nn.Module):
    """`mean over heads of sum over j in N(i) and i of a_ij (W h_j + e_ij)`, plus a bias (`chem/model.py:101-150`).

    `a_ij` is the softmax over j of `LeakyReLU(att . [W h_i ; W h_j + e_ij])` with slope 0.2.
    """

    def __init__(self, scheme: GraphScheme, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight_linear = nn.Linear(width, heads * width)
        self.att = nn.Parameter(torch.empty(1, heads, 2 * width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.bonds = BondEmbedding(scheme, heads * width)
        nn.init.xavier_uniform_(self.att)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        mapped = self.weight_linear(hidden)
        receiver = torch.cat([target, torch.arange(len(mapped), device=mapped.device)])
        own = mapped + self.bonds.of_self_loop()
        messages = mapped.index_select(0, source) + self.bonds(bonds)
        dtype = torch.promote_types(messages.dtype, own.dtype)  # under autocast they may differ
        said = self._by_head(torch.cat([messages.to(dtype), own.to(dtype)]))
        heard = self._by_head(mapped.index_select(0, receiver))
        scores = functional.leaky_relu((torch.cat([heard, said], dim=-1) * self.att).sum(dim=-1), 0.2)
        weights = _softmax(scores, receiver, len(mapped))
        weighed = said * weights[..., None]
        rows = torch.zeros_like(weighed[: len(own)]).index_add(0, receiver, weighed)
        return rows.mean(dim=1) + self.bias

    def _by_head(self, rows: Tensor) -> Tensor:
        return rows.view(len(rows), self.heads, rows.shape[1] // self.heads)


def _softmax(scores: Tensor, group: Tensor, groups: int) -> Tensor:
    """Softmax of `(e, heads)` within each group."""
    index = group[:, None].expand_as(scores)
    highest = scores.new_zeros((groups, scores.shape[1])).scatter_reduce(
        0, index, scores.detach(), "amax", include_self=False
    )
    raised = (scores - highest.index_select(0, group)).exp()
    total = torch.zeros_like(highest).index_add(0, group, raised)
    return raised / (total.index_select(0, group) + 1e-16)  # as torch-geometric's softmax
