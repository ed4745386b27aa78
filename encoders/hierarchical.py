"""A graph network over atoms with a virtual node for every motif and one for the whole molecule.

The form of M3LLM's encoder, as far as its paper says; where it is silent, as HiMol (`gnn_model.py`, `data_utils.py`),
whose code has no licence and was not used: this is written from the formulas. HIGHT's encoder is the same network with
positions beside its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from encoders.positions import Positions, PositionScheme

# Rows of the table of virtual nodes, and of that of the messages of which they are a part.
_MOTIF, _GRAPH = 0, 1
_ITSELF, _TO_GRAPH, _TO_MOTIF, _FROM_GRAPH, _FROM_MOTIF = range(5)

# The column of a level's positions; of all others, which are of atoms, it is `atom_position`.
_POSITION_OF = {"motif": "motif_position", "graph": "graph_position"}

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": functional.relu, "elu": functional.elu}


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Encoder):
    """GIN over atoms, motif nodes and a graph node: all three levels in one pass.

    Provides `layer:0` to `layer:layers` (atoms), `atom`, `motif` and `graph`. A molecule without motifs has its atoms
    tied to the graph node directly.

    HIGHT's form is `positions: {}, graph_readout: mean_all, scheme: {name: himol2, wildcards: true}`, frozen, under a
    projector with a map for each level. Its network was pretrained as in Mole-BERT with a vector-quantised codebook,
    which its code no longer reads (`hvqvae2.py:663`). The network has the tensors of HiMol's, and a file of them loads;
    no such file is public. The codebook's (`embeddings.weight` of 512 rows) does not load. HIGHT's order of motifs, and
    so of their tokens, is that in which its rule finds them; here they stand by their smallest atom.

    Args:
        layers: message-passing layers; 5 in HiMol.
        width: width of every level, before positions; 300 as the other encoders (HiMol's default is 512).
        dropout: after each layer; 0.5 in HiMol's pretraining.
        activation: between layers; HiMol pretrains with `relu` and fine-tunes with `elu` (`finetune/model.py:303`).
        edges: `up`, as HiMol and HIGHT: messages go from atoms to motifs to the graph node and never back, so that atom
            rows are those of a plain GIN. `both`: also down.
        graph_readout: what the graph level is: the graph node's row (`virtual`), or the mean over atoms (`mean_atoms`)
            or over all rows, motif nodes and graph node included (`mean_all`, as HIGHT, `llava_graph_arch.py:116-128`).
        positions: Laplacian positions, put behind the rows of every level, which then are `width + positions.width`
            wide (308 in HIGHT); None for none. Those of the graph level are the graph node's, also where the row before
            them is a mean, as in HIGHT.
        scheme: features of atoms and bonds; HiMol's are the atomic number and the degree, bond type and ring flag.
        motifs: how molecules fall into motifs.
        weights: a checkpoint: pretrained by `molgraft pretrain-encoder`, or HiMol's.
    """

    name: ClassVar[str] = "hierarchical"

    layers: Annotated[int, Ge(1)] = 5
    width: Annotated[int, Ge(1)] = 300
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    activation: Literal["relu", "elu"] = field(default="relu", metadata={"neutral": "relu"})
    edges: Literal["up", "both"] = "up"
    graph_readout: Literal["virtual", "mean_atoms", "mean_all"] = "virtual"
    positions: Positions | None = field(default=None, metadata={"neutral": None})
    scheme: GraphScheme = field(default_factory=Himol2)
    motifs: MotifScheme = field(default_factory=lambda: MotifScheme(segmenter=Himol(), fallback="none"))
    weights: str | None = field(default=None, metadata=CONTENT)

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(layers=2, width=16)

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        width = self.width + (self.positions.width if self.positions else 0)
        layers = {f"layer:{k}": width for k in range(self.layers + 1)}
        return {"atom": width, "motif": width, "graph": width, **layers}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        if self.positions is None:
            return (self.scheme, self.motifs)
        return (self.scheme, self.motifs, PositionScheme(positions=self.positions, motifs=self.motifs))

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return HierarchicalModule(self)

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return (*super().sources(), *([self.weights] if self.weights else []))

    def load(self, module: EncoderModule) -> None:  # noqa: D102 - inherited
        if self.weights is not None:
            load_exactly(module, self.weights, self._translated)

    def _translated(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """HiMol's layout, and HIGHT's: virtual nodes and edges stand in the tables of atoms and bonds.

        There the atom table has 118 elements, in HIGHT the wildcard (118), the graph node (119) and motif nodes (120);
        the bond table four types, the self loop (4), edges to the graph node (5) and to motifs (6); all of these have
        second feature 0. HIGHT's attention pooling, which it does not use by default, is left out.

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
                "atom_embeddings.0.weight": rest.pop("x_embedding1.weight")[: self.scheme.atom_sizes()[0]],
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
        names = renamed(rest, [("gnns.", "layers."), ("batch_norms.", "norms.")], ("att_pool.",))
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
                rows = _ACTIVATIONS[self.declaration.activation](rows)
            rows = functional.dropout(rows, self.declaration.dropout, self.training)
            per_layer.append(rows[:count])
        found = {f"layer:{k}": Ragged(values, atoms.ptr) for k, values in enumerate(per_layer)}
        found["atom"] = Ragged(rows[:count], atoms.ptr)
        found["motif"] = Ragged(rows[count : len(rows) - batch.size], motifs.ptr)
        found["graph"] = self._graph(rows, batch)
        asked = {level: rows for level, rows in found.items() if level in levels}
        if self.declaration.positions is not None:
            for level, rows_of_level in asked.items():
                asked[level] = _beside(rows_of_level, batch[_POSITION_OF.get(level, "atom_position")])
        return MoleculeEncoding(batch.size, asked)

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


def _beside(rows: Ragged, positions: Ragged) -> Ragged:
    """Rows with their positions behind them."""
    return Ragged(torch.cat([rows.values, positions.values.to(rows.values.dtype)], dim=1), rows.ptr)


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
