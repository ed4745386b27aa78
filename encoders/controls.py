"""Graph inputs: the real graph, and controls in which the graph carries no information about the molecule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Ge
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula
from torch import Tensor

from encoders.base import EncoderError, GraphInput, MoleculeBatch, MoleculeEncoding, Ragged, Transform, with_values

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Real(GraphInput):
    """The molecule's own graph."""

    name: ClassVar[str] = "real"


@dataclass(frozen=True, kw_only=True)
class Zero(GraphInput):
    """All rows zero: the number of tokens stays, what they say is gone."""

    name: ClassVar[str] = "zero"

    def fit(self, sample: Callable[[], MoleculeEncoding]) -> Transform:  # noqa: D102 - inherited
        def zeroed(encoding: MoleculeEncoding, keys: Tensor | None) -> MoleculeEncoding:
            return with_values(encoding, {level: rows.values * 0 for level, rows in encoding.levels.items()})

        return zeroed


@dataclass(frozen=True, kw_only=True)
class Gaussian(GraphInput):
    """Noise with the mean and the spread that each channel of each level has over training molecules.

    A molecule's noise depends on its SMILES and on `seed`, not on the batch, so that it is the same in every epoch.
    """

    name: ClassVar[str] = "gaussian"

    seed: Annotated[int, Ge(0)] = 0

    def fit(self, sample: Callable[[], MoleculeEncoding]) -> Transform:  # noqa: D102 - inherited
        seen = {level: rows.values.detach().float() for level, rows in sample().levels.items()}
        moments = {level: (rows.mean(dim=0), rows.std(dim=0)) for level, rows in seen.items() if len(rows) > 1}

        def noisy(encoding: MoleculeEncoding, keys: Tensor | None) -> MoleculeEncoding:
            if keys is None:
                raise EncoderError("graph_input gaussian: the batch has no keys to draw from")
            replaced = {}
            for level, rows in encoding.levels.items():
                mean, spread = moments.get(level, (torch.zeros(()), torch.ones(())))
                drawn = self._draw(level, rows, keys).to(rows.values.device)
                replaced[level] = (mean.to(drawn) + spread.to(drawn) * drawn).to(rows.values.dtype)
            return with_values(encoding, replaced)

        return noisy

    def _draw(self, level: str, rows: Ragged, keys: Tensor) -> Tensor:
        """Standard normal rows, on the CPU: what they are must not depend on the device."""
        shapes = [(count, rows.values.shape[1]) for count in rows.counts().tolist()]
        drawn = [
            _generator(key, self.seed, level).standard_normal(shape, dtype=np.float32)
            for key, shape in zip(keys.tolist(), shapes, strict=True)
        ]
        return torch.from_numpy(np.concatenate(drawn)) if drawn else rows.values.new_zeros(rows.values.shape).cpu()


@dataclass(frozen=True, kw_only=True)
class Rewired(GraphInput):
    """The same atoms with other bonds: the far ends of a molecule's bonds change places among them.

    Every atom keeps its number of bonds and every bond its features. A few bonds of a small molecule can still come to
    tie an atom to itself or to lie upon another; of ten draws the one with the fewest such bonds is taken. Motifs keep
    their sizes and get other atoms. A molecule's bonds depend on its SMILES and on `seed`.
    """

    name: ClassVar[str] = "rewired"

    seed: Annotated[int, Ge(0)] = 0

    def check(self, columns: Collection[str]) -> None:  # noqa: D102 - inherited
        foreign = sorted(set(columns) - {"atom", "bond", "bond_ends", "motif", "motif_atom", "motif_of"})
        if foreign or "bond_ends" not in columns:
            what = f"reads {', '.join(foreign)}, which tell of the real bonds" if foreign else "reads no bonds"
            raise EncoderError(f"graph_input rewired: the encoder {what}; use shuffled, zero or gaussian")

    def alter(self, batch: MoleculeBatch) -> MoleculeBatch:  # noqa: D102 - inherited
        self.check(batch.columns)
        if batch.keys is None:
            raise EncoderError("graph_input rewired: the batch has no keys to draw from")
        generators = [_generator(key, self.seed, "bonds") for key in batch.keys.tolist()]
        ends = batch["bond_ends"]
        columns = {**batch.columns, "bond_ends": Ragged(_rewired(ends, generators), ends.ptr)}
        if "motif_atom" in columns:
            columns["motif_atom"] = _other_members(batch, generators)
        return MoleculeBatch(batch.size, columns, batch.keys)


@dataclass(frozen=True, kw_only=True)
class Shuffled(GraphInput):
    """Another molecule's graph: within a split each graph is given away once and received once.

    Args:
        match_size: give each graph to a molecule of the same number of atoms; one that has no equal goes to the nearest
            size. At test this is the fair swap, since any other also changes the number of tokens (reliance asks for
            equal numbers of both). At training it
            leaves what goes with size from molecule to molecule: in larger molecules rings are more common, and so is
            the word ring. A training control in which the graph says nothing at all is `match_size: false`.
        redraw: give graphs away anew in every epoch of training; a partner that stays the same can be memorised.
    """

    name: ClassVar[str] = "shuffled"

    match_size: bool = True
    redraw: bool = True

    @property
    def is_redrawn(self) -> bool:  # noqa: D102 - inherited
        return self.redraw

    @property
    def keeps_size(self) -> bool:  # noqa: D102 - inherited
        return self.match_size

    def counts(self, molecule: str, substitute: str) -> bool:  # noqa: D102 - inherited
        return _canonical(molecule) != _canonical(substitute)  # a data set may spell one molecule in two ways

    def substitute(self, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> Sequence[str]:  # noqa: D102 - inherited
        count = len(molecules)
        if count < 2:
            raise EncoderError(f"graph_input shuffled needs at least 2 distinct molecules in a split, found {count}")
        order = np.random.default_rng(seed).permutation(count).tolist()
        rings = _rings_of_equal_size(order, sizes) if self.match_size else [order]
        substitutes = list(molecules)
        for ring in rings:
            for receiver, giver in zip(ring, [*ring[1:], ring[0]], strict=True):
                substitutes[receiver] = molecules[giver]
        return substitutes


@dataclass(frozen=True, kw_only=True)
class Isomer(GraphInput):
    """Another molecule of the same formula, where the split has one: the hardest swap, since all atoms are the same.

    A molecule without an isomer at hand keeps its graph and is left out of a measurement.
    """

    name: ClassVar[str] = "isomer"

    @property
    def is_for_test_only(self) -> bool:  # noqa: D102 - inherited
        return True

    def counts(self, molecule: str, substitute: str) -> bool:  # noqa: D102 - inherited
        return _canonical(molecule) != _canonical(substitute)  # a data set may spell one molecule in two ways

    def substitute(self, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> Sequence[str]:  # noqa: D102 - inherited
        by_formula: dict[str, list[int]] = {}
        for molecule in np.random.default_rng(seed).permutation(len(molecules)).tolist():
            by_formula.setdefault(_formula(molecules[molecule]), []).append(molecule)
        substitutes = list(molecules)
        for ring in by_formula.values():
            for receiver, giver in zip(ring, [*ring[1:], ring[0]], strict=True):
                substitutes[receiver] = molecules[giver]
        if all(map(str.__eq__, substitutes, molecules)):
            raise EncoderError("graph_input isomer: no two molecules of the split have one formula")
        return substitutes


def _canonical(smiles: str) -> str:
    return str(Chem.MolToSmiles(Chem.MolFromSmiles(smiles)))


def _formula(smiles: str) -> str:
    return str(CalcMolFormula(Chem.MolFromSmiles(smiles)))


def _generator(key: int, seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([key & 0xFFFFFFFFFFFFFFFF, seed, *purpose.encode()])


def _rewired(ends: Ragged, generators: Sequence[np.random.Generator]) -> Tensor:
    """Bonds stand twice, one direction after the other; the second ends of a molecule's bonds are permuted."""
    bonds = ends.values.cpu().numpy()[::2].copy()
    starts = (ends.ptr // 2).tolist()
    for generator, begin, end in zip(generators, starts[:-1], starts[1:], strict=True):
        bonds[begin:end] = min((_permuted(bonds[begin:end], generator) for _ in range(10)), key=_faults)
    both = np.stack([bonds, bonds[:, ::-1]], axis=1).reshape(-1, 2)
    return torch.from_numpy(both.copy()).to(ends.values.device)


def _permuted(bonds: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    # A bond's ends are swapped at random first, since the first of each is the atom that SMILES wrote earlier.
    turned = np.where(generator.random(len(bonds))[:, None] < 0.5, bonds, bonds[:, ::-1])
    return np.stack([turned[:, 0], generator.permutation(turned[:, 1])], axis=1)


def _faults(bonds: NDArray[np.int64]) -> int:
    """Bonds that tie an atom to itself or lie upon another."""
    distinct = len(np.unique(np.sort(bonds, axis=1), axis=0))
    return int((bonds[:, 0] == bonds[:, 1]).sum()) + len(bonds) - distinct


def _other_members(batch: MoleculeBatch, generators: Sequence[np.random.Generator]) -> Ragged:
    """The atoms of a molecule renumbered at random as far as motifs see them."""
    members, starts = batch["motif_atom"], batch["atom"].ptr.tolist()
    renumbered = np.concatenate(
        [
            begin + generator.permutation(end - begin)
            for generator, begin, end in zip(generators, starts[:-1], starts[1:], strict=True)
        ]
        or [np.zeros(0, dtype=np.int64)]
    )
    table = torch.from_numpy(renumbered).to(members.values.device)
    return Ragged(table.index_select(0, members.values), members.ptr)


def _rings_of_equal_size(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Rings of molecules that hand their graphs on; one that has no equal stands between others nearest in size."""
    by_size: dict[int, list[int]] = {}
    for molecule in order:
        by_size.setdefault(sizes[molecule], []).append(molecule)
    lone_sizes = [size for size, members in by_size.items() if len(members) == 1]
    nearest = {size: _nearest(size, by_size) for size in lone_sizes if len(by_size) > 1}
    rings = []
    for cluster in _connected(sorted(by_size), nearest):
        equals = [molecule for size in cluster if size not in nearest for molecule in by_size[size]]
        lonely = [molecule for size in cluster if size in nearest for molecule in by_size[size]]
        ring = [molecule for pair in zip_longest(equals, lonely) for molecule in pair if molecule is not None]
        rings.append(ring)
    return rings


def _nearest(size: int, sizes: Iterable[int]) -> int:
    return min((other for other in sizes if other != size), key=lambda other: (abs(other - size), other))


def _connected(sizes: Sequence[int], nearest: Mapping[int, int]) -> list[list[int]]:
    """Sizes grouped so that each lonely one is with the one nearest to it, and with at most one that is not lonely."""
    group_of = {size: {size} for size in sizes}
    for size, other in nearest.items():
        joined = group_of[size] | group_of[other]
        for member in joined:
            group_of[member] = joined
    return [sorted(group) for size, group in group_of.items() if size == min(group)]
