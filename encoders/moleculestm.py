"""The graph isomorphism network of MoleculeSTM (Liu et al. 2023), which LLaMo and InstructMol use.

Written from the formulas: the released code is licensed for non-commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import EncoderError, GraphScheme
from encoders.checkpoints import in_layer, renamed, unknown_layout
from encoders.message_passing import BondEmbedding, GraphEncoder, RowNorm
from encoders.ogb_features import Ogb9


@dataclass(frozen=True, kw_only=True)
class MoleculeStm(GraphEncoder):
    """GIN over atoms with a learned epsilon, ReLU in the messages and batch norm inside the MLP; no self loops.

    With scheme `ogb9` it is fed as in its paper, with `instructmol2` as InstructMol feeds it: two of the nine atom
    features. See `GraphEncoder` for the settings.
    """

    name: ClassVar[str] = "moleculestm"

    scheme: GraphScheme = field(default_factory=Ogb9)

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return MoleculeStmConvolution(self.scheme, self.width)

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The layout of MoleculeSTM and InstructMol, whose prediction head is left out.

        Tables of features that the scheme does not give are left out too: InstructMol's code never reads them.

        Raises:
            EncoderError: it is another layout.
        """
        if "atom_encoder.atom_embedding_list.0.weight" not in state:
            wanted = "MoleculeSTM, InstructMol or GraphMVP (`atom_encoder.atom_embedding_list.0.weight`, ...)"
            raise EncoderError(unknown_layout(state, wanted))
        rules = [
            ("atom_encoder.atom_embedding_list.", "atom_embeddings."),
            ("bond_encoder.bond_embedding_list.", "bonds.tables."),
            ("gnns.", "layers."),
            ("batch_norms.", "norms."),
        ]
        names = renamed(state, rules, ("graph_pred_linear.",))
        unread = [*_beyond("atom_embeddings", self.scheme.atom_sizes()), *_beyond("tables", self.scheme.bond_sizes())]
        return {
            in_layer(name): tensor
            for name, tensor in names.items()
            if not name.removesuffix(".weight").endswith(tuple(unread))
        }


class MoleculeStmConvolution(nn.Module):
    """`mlp((1 + eps) h_i + sum over j in N(i) of ReLU(h_j + e_ij))`; the MLP is Linear, BatchNorm, ReLU, Linear."""

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), RowNorm(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.eps = nn.Parameter(torch.zeros(1))
        self.bonds = BondEmbedding(scheme, width)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        messages = functional.relu(hidden.index_select(0, source) + self.bonds(bonds))
        rows: Tensor = self.mlp(((1 + self.eps) * hidden).index_add(0, target, messages))
        return rows


def _beyond(tables: str, sizes: tuple[int, ...]) -> list[str]:
    """Tables of features that the scheme does not give; OGB has nine for atoms and three for bonds."""
    return [f"{tables}.{number}" for number in range(len(sizes), 9)]
