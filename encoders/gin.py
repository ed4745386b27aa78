"""The graph isomorphism network of pretrain-gnns (Hu et al. 2020; `chem/model.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import (
    Encoder,
    EncoderModule,
    FeatureScheme,
    GraphScheme,
    Level,
    MoleculeBatch,
    MoleculeEncoding,
    Ragged,
)
from encoders.features import Pgnn2

_SELF_LOOP = (4, 0)  # bond type 4 is kept free for it, direction none (chem/model.py:36-38)

Readout = Literal["mean", "sum", "max"]


@dataclass(frozen=True, kw_only=True)
class Gin(Encoder):
    """GIN over atoms: sum of neighbours plus bond embeddings, an MLP, batch norm; ReLU but after the last layer.

    Provides `layer:0` (the input embedding) to `layer:layers`, `atom` (the last layer) and `graph` (its read-out).

    Args:
        layers: message-passing layers; 5 in pretrain-gnns, MolCA and InstructMol.
        width: width of every level; 300 there.
        dropout: after each layer; 0 in pretraining, 0.2 in its supervised stage.
        readout: how atoms become the graph level; mean there.
        scheme: the feature scheme.
    """

    name: ClassVar[str] = "gin"

    layers: Annotated[int, Ge(1)] = 5
    width: Annotated[int, Ge(1)] = 300
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    readout: Readout = "mean"
    scheme: GraphScheme = field(default_factory=Pgnn2)

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        layers = {f"layer:{k}": self.width for k in range(self.layers + 1)}
        return {"atom": self.width, "graph": self.width, **layers}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return (self.scheme,)

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return GinModule(self)


class GinModule(EncoderModule):
    """Message passing by `index_add`, which repeats bit for bit on a CPU with several threads."""

    def __init__(self, declaration: Gin) -> None:
        super().__init__()
        self.declaration = declaration
        sizes = declaration.scheme.atom_sizes()
        self.atom_embeddings = nn.ModuleList(_table(size, declaration.width) for size in sizes)
        self.layers = nn.ModuleList(GinLayer(declaration) for _ in range(declaration.layers))

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads the columns `atom`, `bond` and `bond_ends`."""
        atoms = batch["atom"]
        source, target = batch["bond_ends"].values.unbind(dim=1)
        hidden = _embed(self.atom_embeddings, atoms.values)
        per_layer = [hidden]
        for position, layer in enumerate(self.layers):
            hidden = layer(hidden, source, target, batch["bond"].values)
            if position + 1 < len(self.layers):
                hidden = functional.relu(hidden)
            hidden = functional.dropout(hidden, self.declaration.dropout, self.training)
            per_layer.append(hidden)
        encoded = {f"layer:{k}": rows for k, rows in enumerate(per_layer)} | {"atom": hidden}
        found = {level: Ragged(rows, atoms.ptr) for level, rows in encoded.items() if level in levels}
        if "graph" in levels:
            found["graph"] = read_out(Ragged(hidden, atoms.ptr), self.declaration.readout)
        return MoleculeEncoding(batch.size, found)


class GinLayer(nn.Module):
    """One convolution and its batch norm: `norm(mlp(sum over j in N(i) and i of h_j + e_ij))`, without epsilon."""

    def __init__(self, declaration: Gin) -> None:
        super().__init__()
        width = declaration.width
        sizes = declaration.scheme.bond_sizes()
        self.bond_embeddings = nn.ModuleList(_table(size, width) for size in sizes)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("self_loop", torch.tensor([_SELF_LOOP[: len(sizes)]]), persistent=False)
        self.self_loop: Tensor

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` after one round of messages along `source -> target`, both `(e,)`."""
        messages = hidden.index_select(0, source) + _embed(self.bond_embeddings, bonds)
        own = hidden + _embed(self.bond_embeddings, self.self_loop)
        return self._normed(self.mlp(own.index_add(0, target, messages)))

    def _normed(self, rows: Tensor) -> Tensor:
        """Batch norm; a batch of one single atom has no spread to norm by, and takes the running statistics."""
        norm = self.norm
        if self.training and rows.shape[0] == 1:
            return functional.batch_norm(
                rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        normed: Tensor = norm(rows)
        return normed


def read_out(rows: Ragged, how: Readout) -> Ragged:
    """One row per molecule, `(B, width)`; a molecule without rows gives zeros."""
    counts = rows.counts()
    pooled = rows.values.new_zeros((counts.numel(), rows.values.shape[1]))
    molecule = rows.molecule_of_row()
    if how == "max":
        index = molecule[:, None].expand_as(rows.values)
        pooled = pooled.scatter_reduce(0, index, rows.values, "amax", include_self=False)
    else:
        pooled = pooled.index_add(0, molecule, rows.values)
        if how == "mean":
            pooled = pooled / counts.clamp(min=1)[:, None].to(pooled.dtype)
    return Ragged(pooled, torch.arange(counts.numel() + 1, device=counts.device))


def _table(size: int, width: int) -> nn.Embedding:
    table = nn.Embedding(size, width)
    nn.init.xavier_uniform_(table.weight)  # chem/model.py:30-31, 236-237
    return table


def _embed(tables: nn.ModuleList, values: Tensor) -> Tensor:
    """The sum of one embedding per feature column, `(rows, width)`."""
    embedded: Tensor = sum(table(values[:, column]) for column, table in enumerate(tables))  # type: ignore[assignment]
    return embedded
