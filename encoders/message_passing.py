"""What the graph neural networks over atoms share: embeddings, layers with batch norm, read-outs, levels, weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import (
    CONTENT,
    Encoder,
    EncoderError,
    EncoderModule,
    FeatureScheme,
    GraphScheme,
    Level,
    MoleculeBatch,
    MoleculeEncoding,
    Ragged,
)
from encoders.checkpoints import load_exactly, pretrain_gnns
from encoders.motifs import MotifScheme

Readout = Literal["mean", "sum", "max"]


@dataclass(frozen=True, kw_only=True)
class GraphEncoder(Encoder):
    """Rounds of messages along bonds. A subclass says what a round is.

    Provides `layer:0` (the input embedding) to `layer:layers`, `atom` (the last layer), `graph` (its read-out) and,
    with `motifs`, `motif`.

    Args:
        layers: message-passing layers; 5 in pretrain-gnns, MoleculeSTM, MolCA and InstructMol.
        width: width of every level; 300 there.
        dropout: after each layer; 0 in pretraining, 0.2 in pretrain-gnns' supervised stage.
        readout: how atoms become the graph level; mean there.
        scheme: the feature scheme.
        motifs: how molecules fall into motifs; None for no `motif` level.
        motif_rows: what stands for a motif: the mean of its atoms (`pooled`), or what the segmenter says of it
            (`described`; LLaMo reads the 73 features of `functional_group`).
        weights: a checkpoint: pretrained by `molgraft pretrain-encoder`, or of a published layout.
    """

    layers: Annotated[int, Ge(1)] = 5
    width: Annotated[int, Ge(1)] = 300
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    readout: Readout = "mean"
    scheme: GraphScheme
    motifs: MotifScheme | None = None
    motif_rows: Literal["pooled", "described"] = "pooled"
    weights: str | None = field(default=None, metadata=CONTENT)

    def __post_init__(self) -> None:
        if self.motif_rows == "described" and self.motifs is None:
            raise EncoderError(f"{self.name}: `motif_rows: described` needs `motifs`")
        if self.motif_rows == "described" and self.motifs and not self.motifs.segmenter.description_width:
            raise EncoderError(
                f"{self.name}: `motif_rows: described`, but segmenter {self.motifs.segmenter.name} describes no motif; "
                "functional_group does"
            )

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(layers=2, width=16)  # type: ignore[call-arg]

    @abstractmethod
    def layer(self) -> nn.Module:
        """One round: called with `(hidden, source, target, bonds)` it gives the new rows, before batch norm."""

    def translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A published checkpoint's tensors under the names of this module; by default, of pretrain-gnns' layout.

        Raises:
            EncoderError: the layout is not one that this encoder knows.
        """
        return pretrain_gnns(state)

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        layers = {f"layer:{k}": self.width for k in range(self.layers + 1)}
        motif = {} if self.motifs is None else {"motif": self.motif_width}
        return {"atom": self.width, **motif, "graph": self.width, **layers}

    @property
    def motif_width(self) -> int:
        """Width of the motif level."""
        described = self.motif_rows == "described" and self.motifs is not None
        return self.motifs.segmenter.description_width if described and self.motifs else self.width

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return (self.scheme,) if self.motifs is None else (self.scheme, self.motifs)

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return GraphEncoderModule(self)

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return (*super().sources(), *([self.weights] if self.weights else []))

    def load(self, module: EncoderModule) -> None:  # noqa: D102 - inherited
        if self.weights is not None:
            load_exactly(module, self.weights, self.translated)


class GraphEncoderModule(EncoderModule):
    """Message passing by `index_add`, which repeats bit for bit on a CPU with several threads."""

    def __init__(self, declaration: GraphEncoder) -> None:
        super().__init__()
        self.declaration = declaration
        self.atom_embeddings = embeddings(declaration.scheme.atom_sizes(), declaration.width)
        self.layers = nn.ModuleList(
            NormedLayer(declaration.layer(), declaration.width) for _ in range(declaration.layers)
        )

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads `atom`, `bond` and `bond_ends`, and the columns of motifs."""
        atoms = batch["atom"]
        source, target = batch["bond_ends"].values.unbind(dim=1)
        hidden = embed(self.atom_embeddings, atoms.values)
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
        if "motif" in levels:
            described = self.declaration.motif_rows == "described"
            found["motif"] = described_motifs(batch, hidden.dtype) if described else pooled_motifs(batch, hidden)
        return MoleculeEncoding(batch.size, found)


class NormedLayer(nn.Module):
    """One round of messages and its batch norm."""

    def __init__(self, convolution: nn.Module, width: int) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = RowNorm(width)

    def forward(self, hidden: Tensor, source: Tensor, target: Tensor, bonds: Tensor) -> Tensor:
        """Rows `(n, width)` after messages along `source -> target`, both `(e,)`."""
        normed: Tensor = self.norm(self.convolution(hidden, source, target, bonds))
        return normed


class RowNorm(nn.BatchNorm1d):
    """Batch norm over rows; one single row has no spread to norm by, and takes the running statistics."""

    def forward(self, rows: Tensor) -> Tensor:
        """`(n, width)` to the same."""
        if self.training and rows.shape[0] == 1:
            return functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(rows)


class BondEmbedding(nn.Module):
    """The sum of one embedding per bond feature; and that of an atom's message to itself, where the scheme has one."""

    self_loop: Tensor | None

    def __init__(self, scheme: GraphScheme, width: int) -> None:
        super().__init__()
        self.tables = embeddings(scheme.bond_sizes(), width)
        loop = None if scheme.self_loop is None else torch.tensor([scheme.self_loop])
        self.register_buffer("self_loop", loop, persistent=False)

    def forward(self, bonds: Tensor) -> Tensor:
        """`(e, features)` to `(e, width)`."""
        return embed(self.tables, bonds)

    def of_self_loop(self) -> Tensor | float:
        """`(1, width)`, or 0 where a message to itself carries no bond."""
        return 0.0 if self.self_loop is None else embed(self.tables, self.self_loop)


def read_out(rows: Ragged, how: Readout) -> Ragged:
    """One row per molecule, `(B, width)`; a molecule without rows gives zeros."""
    count = rows.ptr.numel() - 1
    pooled = pool(rows.values, rows.molecule_of_row(), count, how)
    return Ragged(pooled, torch.arange(count + 1, device=pooled.device))


def pool(rows: Tensor, group: Tensor, groups: int, how: Readout) -> Tensor:
    """Rows `(n, width)` of each group joined into one, `(groups, width)`; a group without rows gives zeros.

    Sums are made in full precision: in bfloat16 256 + 1 is 256, and large molecules would lose atoms.
    """
    if how == "max":
        pooled = rows.new_zeros((groups, rows.shape[1]))
        return pooled.scatter_reduce(0, group[:, None].expand_as(rows), rows, "amax", include_self=False)
    whole = rows.float()
    pooled = whole.new_zeros((groups, rows.shape[1])).index_add(0, group, whole)
    if how == "mean":
        counts = torch.bincount(group, minlength=groups)
        pooled = pooled / counts.clamp(min=1)[:, None]
    return pooled.to(rows.dtype)


def gathered(own: Tensor, target: Tensor, messages: Tensor) -> Tensor:
    """Each row and the messages to it added up, `(n, width)`.

    Under autocast one side can be bfloat16 and the other not, which `index_add` refuses.
    """
    dtype = torch.promote_types(own.dtype, messages.dtype)
    return own.to(dtype).index_add(0, target, messages.to(dtype))


def pooled_motifs(batch: MoleculeBatch, atoms: Tensor) -> Ragged:
    """The mean of each motif's atoms, `(sum m, width)`."""
    motifs = batch["motif"]
    members = atoms.index_select(0, batch["motif_atom"].values)
    return Ragged(pool(members, batch["motif_of"].values, motifs.values.shape[0], "mean"), motifs.ptr)


def described_motifs(batch: MoleculeBatch, dtype: torch.dtype) -> Ragged:
    """What the segmenter says of each motif, `(sum m, description_width)`."""
    described = batch["motif_description"]
    return Ragged(described.values.to(dtype), described.ptr)


def embeddings(sizes: Sequence[int], width: int) -> nn.ModuleList:
    """One table per categorical feature, initialised as in pretrain-gnns (`chem/model.py:30-31, 236-237`) and OGB."""
    tables = nn.ModuleList(nn.Embedding(size, width) for size in sizes)
    for table in tables:
        nn.init.xavier_uniform_(table.weight)  # type: ignore[arg-type]
    return tables


def embed(tables: nn.ModuleList, values: Tensor) -> Tensor:
    """The sum of one embedding per feature column, `(rows, width)`."""
    embedded: Tensor = sum(table(values[:, column]) for column, table in enumerate(tables))  # type: ignore[assignment]
    return embedded
