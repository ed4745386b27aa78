"""A graph network over atoms with a virtual node for every motif and one for the whole molecule.

The form of M3LLM's encoder, as far as its paper says; where it is silent, as HiMol (`gnn_model.py`, `data_utils.py`),
whose code has no licence and was not used: this is written from the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Self

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
from encoders.checkpoints import in_layer, load_exactly, renamed, unknown_layout
from encoders.features import Himol2
from encoders.message_passing import RowNorm, embed, embeddings, gathered, pool
from encoders.motifs import Himol, MotifScheme

# Rows of the table of virtual nodes, and of that of the messages of which they are a part.
_MOTIF, _GRAPH = 0, 1
_ITSELF, _TO_GRAPH, _TO_MOTIF, _FROM_GRAPH, _FROM_MOTIF = range(5)


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Encoder):
    """GIN over atoms, motif nodes and a graph node: all three levels in one pass.

    Provides `layer:0` to `layer:layers` (atoms), `atom`, `motif` and `graph`. A molecule without motifs has its atoms
    tied to the graph node directly.

    Args:
        layers: message-passing layers; 5 in HiMol.
        width: width of every level; 300 as the other encoders (HiMol's default is 512).
        dropout: after each layer; 0.5 in HiMol's pretraining.
        edges: `up`, as HiMol and HIGHT: messages go from atoms to motifs to the graph node and never back, so that atom
            rows are those of a plain GIN. `both`: also down.
        graph_readout: what the graph level is: the graph node's row (`virtual`), or the mean over atoms (`mean_atoms`)
            or over all rows (`mean_all`, as HIGHT).
        scheme: features of atoms and bonds; HiMol's are the atomic number and the degree, bond type and ring flag.
        motifs: how molecules fall into motifs.
        weights: a checkpoint: pretrained by `molgraft pretrain-encoder`, or HiMol's.
    """

    name: ClassVar[str] = "hierarchical"

    layers: Annotated[int, Ge(1)] = 5
    width: Annotated[int, Ge(1)] = 300
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    edges: Literal["up", "both"] = "up"
    graph_readout: Literal["virtual", "mean_atoms", "mean_all"] = "virtual"
    scheme: GraphScheme = field(default_factory=Himol2)
    motifs: MotifScheme = field(default_factory=lambda: MotifScheme(segmenter=Himol(), fallback="none"))
    weights: str | None = field(default=None, metadata=CONTENT)

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(layers=2, width=16)

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        layers = {f"layer:{k}": self.width for k in range(self.layers + 1)}
        return {"atom": self.width, "motif": self.width, "graph": self.width, **layers}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return (self.scheme, self.motifs)

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return HierarchicalModule(self)

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return (*super().sources(), *([self.weights] if self.weights else []))

    def load(self, module: EncoderModule) -> None:  # noqa: D102 - inherited
        if self.weights is not None:
            load_exactly(module, self.weights, self._translated)

    def _translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """HiMol's layout: virtual nodes and edges stand in the tables of atoms and bonds.

        There the atom table has 118 elements, the graph node (119) and motif nodes (120); the bond table four types,
        the self loop (4), edges to the graph node (5) and to motifs (6); all of these have second feature 0.

        Raises:
            EncoderError: it is another layout, or the settings are not those of HiMol.
        """
        table = state.get("x_embedding1.weight")
        if table is None or table.shape[0] != 121:
            raise EncoderError(unknown_layout(state, "HiMol (`x_embedding1.weight` of 121 rows)"))
        if not isinstance(self.scheme, Himol2) or self.edges != "up":
            raise EncoderError("a HiMol checkpoint needs `scheme: himol2` and `edges: up`")
        rest = dict(state)
        try:
            second = rest.pop("x_embedding2.weight")
            found = {
                "atom_embeddings.0.weight": rest.pop("x_embedding1.weight")[:118],
                "atom_embeddings.1.weight": second,
                "virtual_nodes.weight": table[[120, 119]] + second[0],
            }
            for number in range(self.layers):
                first = rest.pop(f"gnns.{number}.edge_embedding1.weight")
                other = rest.pop(f"gnns.{number}.edge_embedding2.weight")
                inside = f"layers.{number}.convolution."
                found[f"{inside}bonds.0.weight"] = first[:4]
                found[f"{inside}bonds.1.weight"] = other
                found[f"{inside}ties.weight"] = first[4:7] + other[0]
        except KeyError as error:
            raise EncoderError(f"the file lacks {error.args[0]}. Nothing was loaded") from None
        names = renamed(rest, [("gnns.", "layers."), ("batch_norms.", "norms.")])
        return found | {in_layer(name): tensor for name, tensor in names.items()}


@dataclass(frozen=True, slots=True)
class _Ties:
    """The messages of which virtual nodes are a part: from row, to row, and which kind of tie, each `(t,)`."""

    source: Tensor
    target: Tensor
    kind: Tensor


class HierarchicalModule(EncoderModule):
    """Rows stand in the order: all atoms of the batch, all motif nodes, all graph nodes."""

    def __init__(self, declaration: Hierarchical) -> None:
        super().__init__()
        self.declaration = declaration
        width = declaration.width
        self.atom_embeddings = embeddings(declaration.scheme.atom_sizes(), width)
        self.virtual_nodes = nn.Embedding(2, width)
        nn.init.xavier_uniform_(self.virtual_nodes.weight)
        self.layers = nn.ModuleList(_Layer(declaration) for _ in range(declaration.layers))

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads the columns of the graph scheme and of motifs."""
        atoms, motifs = batch["atom"], batch["motif"]
        count = atoms.values.shape[0]
        bonds = batch["bond_ends"].values.unbind(dim=1), batch["bond"].values
        ties = self._ties(batch)
        virtual = torch.tensor([_MOTIF, _GRAPH], device=atoms.values.device).repeat_interleave(
            torch.tensor([len(motifs.values), batch.size], device=atoms.values.device)
        )
        rows = torch.cat([embed(self.atom_embeddings, atoms.values), self.virtual_nodes(virtual)])
        per_layer = [rows[:count]]
        for position, layer in enumerate(self.layers):
            rows = layer(rows, *bonds, ties)
            if position + 1 < len(self.layers):
                rows = functional.relu(rows)
            rows = functional.dropout(rows, self.declaration.dropout, self.training)
            per_layer.append(rows[:count])
        found = {f"layer:{k}": Ragged(values, atoms.ptr) for k, values in enumerate(per_layer)}
        found["atom"] = Ragged(rows[:count], atoms.ptr)
        found["motif"] = Ragged(rows[count : len(rows) - batch.size], motifs.ptr)
        found["graph"] = self._graph(rows, batch)
        return MoleculeEncoding(batch.size, {level: rows for level, rows in found.items() if level in levels})

    def _ties(self, batch: MoleculeBatch) -> _Ties:
        atoms, motifs = batch["atom"], batch["motif"]
        num_atoms, num_motifs = atoms.values.shape[0], motifs.values.shape[0]
        first_graph = num_atoms + num_motifs
        members, motif_of = batch["motif_atom"].values, batch["motif_of"].values + num_atoms
        every_motif = torch.arange(num_motifs, device=members.device) + num_atoms
        molecule_of_atom = atoms.molecule_of_row()
        untied = (motifs.counts() == 0)[molecule_of_atom].nonzero().squeeze(1)
        below = torch.cat([every_motif, untied])
        above = torch.cat([motifs.molecule_of_row(), molecule_of_atom[untied]]) + first_graph
        parts = [(members, motif_of, _TO_MOTIF), (below, above, _TO_GRAPH)]
        if self.declaration.edges == "both":
            parts += [(motif_of, members, _FROM_MOTIF), (above, below, _FROM_GRAPH)]
        return _Ties(
            torch.cat([source for source, _, _ in parts]),
            torch.cat([target for _, target, _ in parts]),
            torch.cat([torch.full_like(source, kind) for source, _, kind in parts]),
        )

    def _graph(self, rows: Tensor, batch: MoleculeBatch) -> Ragged:
        ptr = torch.arange(batch.size + 1, device=rows.device)
        nodes = rows[len(rows) - batch.size :]
        if self.declaration.graph_readout == "virtual":
            return Ragged(nodes, ptr)
        molecule = batch["atom"].molecule_of_row()
        if self.declaration.graph_readout == "mean_all":
            molecule = torch.cat([molecule, batch["motif"].molecule_of_row(), ptr[:-1]])
        return Ragged(pool(rows[: len(molecule)], molecule, batch.size, "mean"), ptr)


class _Layer(nn.Module):
    """One round of messages over all rows and their batch norm, virtual rows included."""

    def __init__(self, declaration: Hierarchical) -> None:
        super().__init__()
        self.convolution = _Convolution(declaration)
        self.norm = RowNorm(declaration.width)

    def forward(self, rows: Tensor, ends: tuple[Tensor, Tensor], bonds: Tensor, ties: _Ties) -> Tensor:
        normed: Tensor = self.norm(self.convolution(rows, ends, bonds, ties))
        return normed


class _Convolution(nn.Module):
    """`mlp(sum over j in N(i) and i of h_j + e_ij)` over bonds, ties and the message of every row to itself."""

    def __init__(self, declaration: Hierarchical) -> None:
        super().__init__()
        width = declaration.width
        self.bonds = embeddings(declaration.scheme.bond_sizes(), width)
        self.ties = nn.Embedding(5 if declaration.edges == "both" else 3, width)
        nn.init.xavier_uniform_(self.ties.weight)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, rows: Tensor, ends: tuple[Tensor, Tensor], bonds: Tensor, ties: _Ties) -> Tensor:
        source, target = ends
        found = gathered(rows + self.ties.weight[_ITSELF], target, rows[source] + embed(self.bonds, bonds))
        found = gathered(found, ties.target, rows[ties.source] + self.ties(ties.kind))
        mixed: Tensor = self.mlp(found)
        return mixed
