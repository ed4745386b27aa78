"""Motifs: how molecules fall into groups of atoms, and the feature scheme that keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge
from rdkit.Chem import BRICS, GetMolFrags, GetSymmSSSR, MolToSmiles

from encoders.base import Column, FeatureScheme, RejectedMoleculeError, Segmenter
from encoders.features import MOST_ATOMS, reject_beyond_uint16

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from rdkit.Chem import Mol

_REDRAWS = 5  # of a partition that is the rule's own
_TRIES = 40  # spanning trees that the random partition tries; on ChEBI-20 enough to match all sizes of BRICS motifs


@dataclass(frozen=True, kw_only=True)
class Brics(Segmenter):
    """Connected components of the molecule without its BRICS bonds: a partition of the atoms.

    The bonds are those of RDKit's `FindBRICSBonds` (Degen et al. 2008). A molecule without any is one motif per
    fragment, and an isolated atom is a motif.
    """

    name: ClassVar[str] = "brics"

    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:  # noqa: D102 - inherited
        return in_order(_brics_components(molecule))


@dataclass(frozen=True, kw_only=True)
class Himol(Segmenter):
    """HiMol's rule (`data_utils.py`, lines 277 to 330), stated on sets so that the order of bonds does not matter.

    BRICS components, less isolated atoms and less one that is the whole molecule. A component with several rings of the
    smallest set of smallest rings gives each ring and what is left of it as motifs; that rest may be disconnected, and
    fused rings overlap. A molecule of one atom is one motif. So a molecule without BRICS bonds has no motif.
    """

    name: ClassVar[str] = "himol"

    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:  # noqa: D102 - inherited
        num_atoms = molecule.GetNumAtoms()
        if num_atoms == 1:
            return [[0]]
        rings = [frozenset(ring) for ring in GetSymmSSSR(molecule)]
        found: list[Iterable[int]] = []
        for component in _brics_components(molecule):
            isolated = len(component) == 1 and molecule.GetAtomWithIdx(component[0]).GetDegree() == 0
            if isolated or len(component) == num_atoms:
                continue
            atoms = frozenset(component)
            inside = [ring for ring in rings if ring <= atoms]
            if len(inside) <= 1:
                found.append(atoms)
                continue
            rest = atoms.difference(*inside)
            found += [*inside, *([rest] if rest else [])]
        return in_order(found)


@dataclass(frozen=True, kw_only=True)
class RandomPartition(Segmenter):
    """The control for a rule: random connected motifs, as many and as large as those that the rule finds.

    Each connected fragment of a molecule is treated alone. The wanted sizes are those of the rule's motifs inside it (a
    motif that spans fragments counts in each with its atoms there). Where the rule's motifs cover only c of the
    fragment's atoms, so do the random ones, and those atoms are connected; where its motifs overlap, so that their
    sizes add up to more than c, the sizes are scaled to the sum c by largest remainders, none below 1. Random motifs
    never overlap. Where the rule finds no motif, there is none.

    A partition is cut out of a random spanning tree, a branch of a wanted size at a time. Where a tree has none the
    nearest is taken, and the partition of the nearest sizes among several trees is the result, so that sizes come out
    exactly nearly always (for `brics` in all 6,601 molecules of ChEBI-20 test and validation), and the number of motifs
    and of covered atoms always. A partition that is the rule's own is drawn again, some times; a small molecule may
    have no other. The same SMILES and seed give the same partition.

    Args:
        of: the rule whose sizes are matched.
        seed: what the random choice starts from, beside the canonical SMILES of the molecule.
    """

    name: ClassVar[str] = "random"

    of: Segmenter = field(default_factory=Brics)
    seed: Annotated[int, Ge(0)] = 0

    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:  # noqa: D102 - inherited
        reference = self.of.motifs(molecule)
        if not reference:
            return []
        digest = hashlib.sha256(f"{self.seed}\n{MolToSmiles(molecule)}".encode()).digest()
        random = Random(digest)
        neighbours = _neighbours(molecule)
        wanted = [(sorted(f), _wanted_sizes(frozenset(f), reference)) for f in GetMolFrags(molecule)]
        for _ in range(_REDRAWS):
            drawn = (_random_partition(f, neighbours, sizes, random) for f, sizes in wanted if sizes)
            found = in_order([motif for motifs in drawn for motif in motifs])
            if len(reference) == 1 or sorted(map(sorted, found)) != sorted(map(sorted, reference)):
                break
        return found


@dataclass(frozen=True, kw_only=True)
class MotifScheme(FeatureScheme):
    """The atoms of each motif, and what the segmenter says of it.

    Columns: `motif` `(m,)` the number of its atoms; `motif_atom` and `motif_of` `(k,)`, one pair per membership: an
    atom, and the motif that it is in; `motif_description` `(m, description_width)` where the segmenter describes.

    Args:
        segmenter: the rule.
        fallback: what a molecule without any motif has: none, or one motif of all its atoms.
    """

    name: ClassVar[str] = "motifs"

    segmenter: Segmenter = field(default_factory=Brics)
    fallback: Literal["none", "whole_molecule"] = "whole_molecule"

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        described = self.segmenter.description_width
        return {
            "motif": Column("uint16"),
            "motif_atom": Column("uint16", indexes="atom"),
            "motif_of": Column("uint16", indexes="motif"),
            **({"motif_description": Column("uint8", (described,))} if described else {}),
        }

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        reject_beyond_uint16(molecule)
        motifs = self.segmenter.motifs(molecule)
        if not motifs and self.fallback == "whole_molecule":
            motifs = [range(molecule.GetNumAtoms())]
        if len(motifs) > MOST_ATOMS:
            raise RejectedMoleculeError(f"it has {len(motifs):,} motifs; atoms can point at {MOST_ATOMS:,}")
        sizes = np.array([len(motif) for motif in motifs], dtype=np.uint16)
        rows: dict[str, NDArray[np.integer | np.floating]] = {
            "motif": sizes,
            "motif_atom": np.array([atom for motif in motifs for atom in motif], dtype=np.uint16),
            "motif_of": np.arange(len(motifs), dtype=np.uint16).repeat(sizes),
        }
        if self.segmenter.description_width:
            rows["motif_description"] = self.segmenter.describe(molecule, motifs)
        return rows


def in_order(motifs: Iterable[Iterable[int]]) -> list[list[int]]:
    """Motifs as the contract wants them: atoms ascending, motifs by their smallest atom, then by the rest."""
    return sorted(sorted(motif) for motif in motifs)


def components(size: int, bonds: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected components of `size` atoms under these bonds, by union-find."""
    parent = list(range(size))

    def root(atom: int) -> int:
        while parent[atom] != atom:
            parent[atom] = atom = parent[parent[atom]]
        return atom

    for begin, end in bonds:
        parent[root(begin)] = root(end)
    groups: dict[int, list[int]] = {}
    for atom in range(size):
        groups.setdefault(root(atom), []).append(atom)
    return list(groups.values())


def _brics_components(molecule: Mol) -> list[list[int]]:
    cut = {frozenset(ends) for ends, _ in BRICS.FindBRICSBonds(molecule)}  # type: ignore[no-untyped-call]
    bonds = ((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds())
    return components(molecule.GetNumAtoms(), (ends for ends in bonds if frozenset(ends) not in cut))


def _neighbours(molecule: Mol) -> list[list[int]]:
    """The atoms bonded to each atom."""
    neighbours: list[list[int]] = [[] for _ in range(molecule.GetNumAtoms())]
    for bond in molecule.GetBonds():
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        neighbours[begin].append(end)
        neighbours[end].append(begin)
    return neighbours


def _wanted_sizes(fragment: frozenset[int], reference: Sequence[Sequence[int]]) -> list[int]:
    """Sizes of random motifs in a fragment, ascending; their sum is the number of its atoms that the rule covers."""
    inside = [part for motif in reference if (part := fragment.intersection(motif))]
    covered = len(frozenset().union(*inside))
    sizes = sorted((len(part) for part in inside), reverse=True)[:covered]
    shares = [size * covered / sum(sizes) for size in sizes]
    scaled = [max(1, int(share)) for share in shares]
    # What the rounding left over goes to the largest remainders; what the least of 1 took comes from the largest.
    by_remainder = sorted(range(len(sizes)), key=lambda motif: scaled[motif] - shares[motif])
    for motif in by_remainder[: max(0, covered - sum(scaled))]:
        scaled[motif] += 1
    while sum(scaled) > covered:
        scaled[scaled.index(max(scaled))] -= 1
    return sorted(scaled)


def _random_partition(
    fragment: Sequence[int], neighbours: Sequence[Sequence[int]], sizes: Sequence[int], random: Random
) -> list[list[int]]:
    """Disjoint connected motifs of a connected fragment, `len(sizes)` many, of these sizes or the nearest found."""
    best: list[list[int]] = []
    least = None
    for _ in range(_TRIES):
        tree = _spanning_tree(fragment, neighbours, random)
        _shed_leaves(tree, len(fragment) - sum(sizes), random)
        motifs = _cut(tree, sizes, random)
        found = sorted(map(len, motifs))
        missed = sum(abs(one - other) for one, other in zip(found, sizes, strict=True))
        if least is None or missed < least:
            best, least = motifs, missed
        if missed == 0:
            break
    return best


Tree = dict[int, set[int]]
"""The neighbours of each atom in a tree."""


def _spanning_tree(fragment: Sequence[int], neighbours: Sequence[Sequence[int]], random: Random) -> Tree:
    """A random spanning tree, grown from a random atom by a random bond of its border at a time."""
    start = random.choice(fragment)
    tree: Tree = {start: set()}
    waiting = [(start, neighbour) for neighbour in neighbours[start]]
    while waiting:
        position = random.randrange(len(waiting))
        waiting[position], waiting[-1] = waiting[-1], waiting[position]
        known, new = waiting.pop()
        if new in tree:
            continue
        tree[known].add(new)
        tree[new] = {known}
        waiting += [(new, neighbour) for neighbour in neighbours[new] if neighbour not in tree]
    return tree


def _shed_leaves(tree: Tree, count: int, random: Random) -> None:
    """Takes `count` atoms away, random leaves one after the other, so that the rest stays connected."""
    for _ in range(count):
        leaf = random.choice([atom for atom, near in tree.items() if len(near) <= 1])
        for near in tree.pop(leaf):
            tree[near].discard(leaf)


def _cut(tree: Tree, sizes: Sequence[int], random: Random) -> list[list[int]]:
    """Cuts a tree into `len(sizes)` subtrees, one after the other, each of a wanted size or the nearest to one."""
    wanted = list(sizes)
    motifs = []
    while len(wanted) > 1:
        motif, size = _branch(tree, wanted, random)
        wanted.remove(size)
        _make_up(wanted, size - len(motif))
        for atom in motif:
            for near in tree.pop(atom):
                if near in tree:
                    tree[near].discard(atom)
        motifs.append(motif)
    return [*motifs, list(tree)]


def _branch(tree: Tree, wanted: Sequence[int], random: Random) -> tuple[list[int], int]:
    """A random part of the tree on one side of a bond, and the wanted size that it is nearest to."""
    root = next(iter(tree))
    order, parent = [root], {root: root}
    for atom in order:
        for near in tree[atom]:
            if near not in parent:
                parent[near] = atom
                order.append(near)
    below = dict.fromkeys(order, 1)
    for atom in reversed(order[1:]):
        below[parent[atom]] += below[atom]
    by_size: dict[int, list[tuple[int, bool]]] = {}
    for atom in order[1:]:
        by_size.setdefault(below[atom], []).append((atom, True))
        by_size.setdefault(len(order) - below[atom], []).append((atom, False))
    most = len(order) - (len(wanted) - 1)  # every other motif needs an atom
    size = random.choice(wanted)
    if size not in by_size:
        pairs = [(abs(has - wants), has, wants) for has in by_size if has <= most for wants in set(wanted)]
        nearest = min(pairs)[0]
        _, has, size = random.choice([pair for pair in pairs if pair[0] == nearest])
    else:
        has = size
    top, is_below = random.choice(by_size[has])
    branch = {top}
    for atom in order[1:]:  # parents stand before their children
        if parent[atom] in branch:
            branch.add(atom)
    return [atom for atom in order if (atom in branch) == is_below], size


def _make_up(wanted: list[int], change: int) -> None:
    """Changes the largest sizes until their sum has changed by `change`, none below 1."""
    while change:
        step = 1 if change > 0 else -1
        wanted[wanted.index(max(wanted))] += step
        change -= step
