"""Multi-level self-supervision: what bonds join, what bonds and atoms are, and how many there are.

The five losses are those of HiMol (`decoder.py:94-162`), which M3LLM's encoder is pretrained with as far as is known of
it. HiMol's code has no licence and was not used: this is written from the formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Interval, MinLen
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import Encoder, EncoderError, EncoderModule, GraphScheme, Level, MoleculeBatch, Ragged
from encoders.objectives import (
    Losses,
    Objective,
    ObjectiveModule,
    Weighting,
    check_weighting,
    graph_scheme,
    mean_per_molecule,
)
from encoders.text_encoder import TextReader

Task = Literal["bond_link", "bond_type", "atom_type", "atom_count", "bond_count"]

_TASKS: tuple[Task, ...] = ("bond_link", "bond_type", "atom_type", "atom_count", "bond_count")
_OF_THE_GRAPH = frozenset({"atom_count", "bond_count"})


@dataclass(frozen=True, kw_only=True)
class MultiLevel(Objective):
    """Bond link, bond type and atom type from atom rows; atom count and bond count from the graph's row.

    Nothing is masked, so that atom and bond type are partly auto-encoding, as in HiMol; they are the first features of
    the encoder's scheme. Losses over atoms, bonds and pairs are means per molecule, averaged over the molecules that
    have bonds; the others take part in the counts only.

    Args:
        tasks: the losses; all five in HiMol.
        loss_weights: `random_softmax`, a fresh softmax of uniform numbers at every step (HiMol, `decoder.py:155-162`);
            `equal`; or a weight for each.
        bond_link: what links are told from: `all_pairs`, every ordered pair of a molecule's atoms, an atom with itself
            included (HiMol); or `negatives`: as many random pairs as there are bonds, without those that are bonds or
            an atom with itself; bonds and others then weigh the same.
        bonds_counted: `directed`, each bond twice (HiMol), or `undirected`.
        counts_over_batch: whether the mean loss of the counts is divided by the number of molecules once more, as HiMol
            does (`decoder.py:94-104`), so that its weight depends on the batch size.
        dropout: on the rows that pairs are scored from; 0.2 in HiMol.
        max_pairs: pairs of one molecule that `all_pairs` looks at; of a molecule with more than 128 atoms so many are
            drawn at random, or memory would grow with the square of its size. HiMol's own data have no such molecule.
    """

    name: ClassVar[str] = "multi_level"

    tasks: Annotated[tuple[Task, ...], MinLen(1)] = _TASKS
    loss_weights: Weighting = "random_softmax"
    bond_link: Literal["all_pairs", "negatives"] = "all_pairs"
    bonds_counted: Literal["directed", "undirected"] = "directed"
    counts_over_batch: bool = True
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    max_pairs: Annotated[int, Ge(1)] = 16_384

    def __post_init__(self) -> None:
        if len(set(self.tasks)) < len(self.tasks):
            raise EncoderError(f"objective multi_level: `tasks` names one twice: {', '.join(self.tasks)}")
        check_weighting(self.name, self.loss_weights, self.tasks)

    @property
    def weighting(self) -> Weighting:  # noqa: D102 - inherited
        return self.loss_weights

    def levels(self) -> frozenset[Level]:  # noqa: D102 - inherited
        return frozenset("graph" if task in _OF_THE_GRAPH else "atom" for task in self.tasks)

    def check(self, encoder: Encoder) -> None:  # noqa: D102 - inherited
        super().check(encoder)
        graph_scheme(encoder, f"objective {self.name}")

    def build(self, encoder: Encoder, reader: TextReader | None, folder: Path | None) -> ObjectiveModule:  # noqa: D102 - inherited
        return MultiLevelModule(self, encoder.provides(), graph_scheme(encoder, f"objective {self.name}"))


class MultiLevelModule(ObjectiveModule):
    """The heads: two-layer maps of atom rows, of pairs of atom rows, and of the graph's row."""

    def __init__(self, declaration: MultiLevel, widths: Mapping[Level, int], scheme: GraphScheme) -> None:
        super().__init__()
        self.declaration = declaration
        tasks = set(declaration.tasks)
        heads: dict[str, nn.Module] = {}
        if tasks - _OF_THE_GRAPH:
            width = widths["atom"]
        if tasks & {"bond_link", "bond_type"}:
            heads["ends"] = nn.Sequential(*_map(width, width, width), nn.Dropout(declaration.dropout))
        if "bond_link" in tasks:
            heads["bond_link"] = PairScore(width, 1)
        if "bond_type" in tasks:
            heads["bond_type"] = PairScore(width, _bond_types(scheme))
        if "atom_type" in tasks:
            heads["atom_type"] = _map(width, width, scheme.atom_sizes()[0])
        for task in ("atom_count", "bond_count"):
            if task in tasks:
                width_of_graph = widths["graph"]
                heads[task] = _map(width_of_graph, max(1, width_of_graph // 4), 1, nn.Softplus())
        self.heads = nn.ModuleDict(heads)

    def forward(
        self,
        encoder: EncoderModule,
        batch: MoleculeBatch,
        texts: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Losses:
        """See `ObjectiveModule.forward`."""
        encoding = encoder(batch, self.declaration.levels())
        found: Losses = {}
        if "atom" in encoding.levels:
            found |= self._of_atoms(encoding["atom"], batch, generator)
        if "graph" in encoding.levels:
            found |= self._of_graph(encoding["graph"].values, batch)
        return {task: found[task] for task in self.declaration.tasks}

    def _of_atoms(self, atoms: Ragged, batch: MoleculeBatch, generator: torch.Generator) -> Losses:
        molecule = atoms.molecule_of_row()
        source, target = batch["bond_ends"].values.unbind(dim=1)
        bonded = batch["bond_ends"].counts() > 0
        losses: Losses = {}

        def averaged(values: Tensor, of_molecule: Tensor) -> Tensor:
            means, has_any = mean_per_molecule(values, of_molecule, batch.size)
            counted = has_any & bonded
            return means[counted].sum() / counted.sum().clamp(min=1)

        if "ends" in self.heads:
            ends = self.heads["ends"](atoms.values)
        if "bond_link" in self.heads:
            first, second, link = self._pairs(atoms, source, target, generator)
            score = self.heads["bond_link"](ends, first, second).squeeze(1)
            values = functional.binary_cross_entropy_with_logits(score, link.to(score.dtype), reduction="none")
            losses["bond_link"] = (
                averaged(values, molecule[first])
                if self.declaration.bond_link == "all_pairs"
                else (averaged(values[link], molecule[first[link]]) + averaged(values[~link], molecule[first[~link]]))
                / 2
            )
        if "bond_type" in self.heads:
            score = self.heads["bond_type"](ends, source, target)
            values = functional.cross_entropy(score, batch["bond"].values[:, 0], reduction="none")
            losses["bond_type"] = averaged(values, molecule[source])
        if "atom_type" in self.heads:
            score = self.heads["atom_type"](atoms.values)
            values = functional.cross_entropy(score, batch["atom"].values[:, 0], reduction="none")
            losses["atom_type"] = averaged(values, molecule)
        return losses

    def _pairs(
        self, atoms: Ragged, source: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of atoms of one molecule, both `(p,)`, and whether a bond joins them."""
        if self.declaration.bond_link == "all_pairs":
            first, second = ordered_pairs(atoms.ptr, self.declaration.max_pairs, generator)
            return first, second, are_bonded(first, second, source, target, len(atoms.values))
        molecule = atoms.molecule_of_row()[source]
        drawn = torch.rand((2, len(source)), generator=generator, dtype=torch.float64).to(source.device)
        first, second = (atoms.ptr[molecule] + (numbers * atoms.counts()[molecule]).long() for numbers in drawn)
        apart = (first != second) & ~are_bonded(first, second, source, target, len(atoms.values))
        link = torch.arange(len(source) + int(apart.sum()), device=source.device) < len(source)
        return torch.cat([source, first[apart]]), torch.cat([target, second[apart]]), link

    def _of_graph(self, graph: Tensor, batch: MoleculeBatch) -> Losses:
        bonds = batch["bond_ends"].counts()
        if self.declaration.bonds_counted == "undirected":
            bonds = bonds // 2
        wanted = {"atom_count": batch["atom"].counts(), "bond_count": bonds}
        again = batch.size if self.declaration.counts_over_batch else 1
        return {
            task: functional.smooth_l1_loss(self.heads[task](graph).squeeze(1).float(), counts.float()) / again
            for task, counts in wanted.items()
            if task in self.heads
        }


class PairScore(nn.Module):
    """`Linear(2d, d)` of two joined rows, ReLU, `Linear(d, outputs)`.

    The first map is applied to the two halves before pairs are formed, which costs one product per atom in the place of
    one per pair.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.joined = nn.Linear(2 * width, width)
        self.score = nn.Linear(width, outputs)

    def forward(self, rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Scores `(p, outputs)` of the pairs `first`, `second`, both `(p,)`, of rows `(n, d)`."""
        left, right = self.joined.weight.chunk(2, dim=1)
        begin = functional.linear(rows, left, self.joined.bias)
        end = functional.linear(rows, right)
        scores: Tensor = self.score(functional.relu(begin.index_select(0, first) + end.index_select(0, second)))
        return scores


def ordered_pairs(ptr: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All ordered pairs of atoms of each molecule, an atom with itself included; of a molecule with more than `most`
    pairs so many, drawn with replacement, so that their mean is an unbiased estimate of that over all.

    Args:
        ptr: `(B + 1,)`; molecule `b` owns the atoms `ptr[b]:ptr[b + 1]`.
        most: pairs of one molecule.
        generator: on the CPU; used only where a molecule has more.
    """
    sizes = ptr[1:] - ptr[:-1]
    counts = (sizes * sizes).clamp(max=most)
    ends = counts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    molecule = torch.arange(len(sizes), device=ptr.device).repeat_interleave(counts, output_size=total)
    number = torch.arange(total, device=ptr.device) - (ends - counts)[molecule]
    drawn = (sizes * sizes > most)[molecule]
    if bool(drawn.any()):
        of_all = (sizes * sizes)[molecule[drawn]]
        uniform = torch.rand(len(of_all), generator=generator, dtype=torch.float64).to(ptr.device)
        number[drawn] = (uniform * of_all).long()
    size = sizes[molecule]
    return ptr[molecule] + number // size, ptr[molecule] + number % size


def are_bonded(first: Tensor, second: Tensor, source: Tensor, target: Tensor, atoms: int) -> Tensor:
    """Whether a bond goes from `first` to `second`, `(p,)` bool; all are positions among `atoms` atoms."""
    wanted = first * atoms + second
    known = (source * atoms + target).sort().values
    if not len(known):
        return torch.zeros_like(wanted, dtype=torch.bool)
    place = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    return known[place] == wanted


def _bond_types(scheme: GraphScheme) -> int:
    """Bond types that a bond can have: those before the self loop's row, where the scheme has one."""
    return scheme.bond_sizes()[0] if scheme.self_loop is None else scheme.self_loop[0]


def _map(width: int, hidden: int, outputs: int, activation: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), activation or nn.ReLU(), nn.Linear(hidden, outputs))
