"""The graph isomorphism network of MoleculeSTM (Liu et al. 2023), which LLaMo and InstructMol use.

Written from the formulas: the released code is licensed for non-commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import EncoderError, EncoderModule, GraphScheme
from encoders.checkpoints import in_layer, renamed, unknown_layout
from encoders.message_passing import BondEmbedding, GraphEncoder, RowNorm, gathered
from encoders.ogb_features import Ogb9


@dataclass(frozen=True, kw_only=True)
class MoleculeStm(GraphEncoder):
    """GIN over atoms with a learned epsilon, ReLU in the messages and batch norm inside the MLP; no self loops.

    With scheme `ogb9` it is fed as in its paper, with `instructmol2` as InstructMol feeds it: two of the nine atom
    features. See `GraphEncoder` for the other settings.

    Args:
        messages: `bonds`, `ReLU(h_j + e_ij)`, as MoleculeSTM's and LLaMo's code; `plain`, `h_j`, as LLaMo's paper
            writes the network (Eq. 7: no edge term), which then has no tables of bonds.
        reinitialise: `linear_and_tables` for what LLaMo's released code does to the weights right after loading them
            (`modeling_llamo.py:120-131, 229`): of the 99 tensors of its network 44 are drawn anew, weights of the ten
            linear maps and all tables (9 of atoms, 15 of bonds) from N(0, 0.02), while the ten biases become 0. Only
            batch norms and epsilons stay as the file has them. `none`, as its paper says, leaves all of them.
    """

    name: ClassVar[str] = "moleculestm"

    scheme: GraphScheme = field(default_factory=Ogb9)
    messages: Literal["bonds", "plain"] = field(default="bonds", metadata={"neutral": "bonds"})
    reinitialise: Literal["none", "linear_and_tables"] = field(default="none", metadata={"neutral": "none"})

    def layer(self) -> nn.Module:  # noqa: D102 - inherited
        return MoleculeStmConvolution(self.scheme, self.width, self.messages)

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        module = super().build()
        if self.reinitialise == "linear_and_tables":
            _draw_anew(module)
        return module

    def load(self, module: EncoderModule) -> None:
        """See `Encoder.load`; what is initialised anew stays as `build` drew it, so that the run's seed decides it."""
        anew = redrawn(module) if self.reinitialise == "linear_and_tables" else frozenset()
        drawn = {name: tensor.clone() for name, tensor in module.state_dict().items() if name in anew}
        super().load(module)
        module.load_state_dict(drawn, strict=False)

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
        if self.messages == "plain":
            names = {name: tensor for name, tensor in names.items() if ".bonds." not in name}
        unread = [*_beyond("atom_embeddings", self.scheme.atom_sizes()), *_beyond("tables", self.scheme.bond_sizes())]
        return {
            in_layer(name): tensor
            for name, tensor in names.items()
            if not name.removesuffix(".weight").endswith(tuple(unread))
        }


class MoleculeStmConvolution(nn.Module):
    """`mlp((1 + eps) h_i + sum over j in N(i) of ReLU(h_j + e_ij))`; the MLP is Linear, BatchNorm, ReLU, Linear.

    With `plain` messages the sum is of `h_j`.
    """

    def __init__(self, scheme: GraphScheme, width: int, messages: Literal["bonds", "plain"] = "bonds") -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), RowNorm(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.eps = nn.Parameter(torch.zeros(1))
        self.bonds = BondEmbedding(scheme, width) if messages == "bonds" else None

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` from messages along `source -> target`, both `(e,)`."""
        messages = hidden.index_select(0, source)
        if self.bonds is not None:
            messages = functional.relu(messages + self.bonds(bonds))
        rows: Tensor = self.mlp(gathered((1 + self.eps) * hidden, target, messages))
        return rows


def redrawn(module: nn.Module) -> frozenset[str]:
    """The names of the tensors that LLaMo's code draws anew: those of all linear maps and tables."""
    return frozenset(
        f"{name}.{tensor}"
        for name, part in module.named_modules()
        if isinstance(part, (nn.Linear, nn.Embedding))
        for tensor, _ in part.named_parameters()
    )


def _draw_anew(module: nn.Module) -> None:
    for name in sorted(redrawn(module)):
        tensor = module.get_parameter(name)
        if name.endswith(".bias"):
            nn.init.zeros_(tensor)
        else:
            nn.init.normal_(tensor, std=0.02)


def _beyond(tables: str, sizes: tuple[int, ...]) -> list[str]:
    """Tables of features that the scheme does not give; OGB has nine for atoms and three for bonds."""
    return [f"{tables}.{number}" for number in range(len(sizes), 9)]
