"""The motifs of LLaMo (Park et al. 2024): functional groups and rings, each with 73 features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from rdkit.Chem import Atom, Bond, BondStereo, BondType, MolFromSmarts

from encoders.base import Segmenter
from encoders.features import BOND_TYPES
from encoders.motifs import components, in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

# Heteroatoms, both ends of a double or triple bond, and acetals: the atoms that functional groups grow from.
MARKED = tuple(MolFromSmarts(pattern) for pattern in ("[!#6]", "*=,#*", "[CX4]([O,N,S])[O,N,S]"))
_CARBON, _ACETAL = 6, frozenset({8, 7, 16})
_MULTIPLE = frozenset({BondType.DOUBLE, BondType.TRIPLE})

# LLaMo's atom and bond features are computed along with the motifs' and thrown away; a value that they lack loses the
# motifs all the same.
_MOST_NEIGHBOURS = 10
_BOND_TYPES = frozenset(BOND_TYPES)
_STEREO = frozenset(
    {
        BondStereo.STEREONONE,
        BondStereo.STEREOANY,
        BondStereo.STEREOZ,
        BondStereo.STEREOE,
        BondStereo.STEREOCIS,
        BondStereo.STEREOTRANS,
    }
)

# The 73 columns: for each count its slots 0, 1, 2, ..., of which the last holds whatever is more; a flag has one.
_COUNTS = {6: (0, 11), 8: (11, 6), 7: (17, 6), 15: (23, 6), 16: (29, 6)}  # C, O, N, P, S: first column, slots
_HALOGENS, _HAS_HALOGEN = frozenset({9, 17, 35, 53}), 35
_HAS_OTHER = 36
_BOND_COUNTS = {
    BondType.SINGLE: (37, 11),
    BondType.DOUBLE: (48, 8),
    BondType.TRIPLE: (56, 8),
    BondType.AROMATIC: (64, 8),
}
_IN_RING = 72


@dataclass(frozen=True, kw_only=True)
class FunctionalGroup(Segmenter):
    """LLaMo's rule (`llamo/chem.py`), whose motifs are functional groups and rings; they may overlap.

    Rings are those of the symmetrised smallest set, merged as long as two share more than two atoms (bridged systems
    merge, fused ones do not). Groups grow from marked atoms: heteroatoms, both ends of double and triple bonds, acetal
    carbons. Along bonds outside rings, marked neighbours are one group, an unmarked neighbour joins the group of each
    marked one, and two unmarked neighbours are a group of two. A marked ring atom by itself is no group.

    Each motif is described by 73 columns of 0 and 1: the numbers of C (columns 0-10), O (11-16), N (17-22), P (23-28)
    and S (29-34), whether there is a halogen (35) or another element (36), the numbers of single (37-47), double
    (48-55), triple (56-63) and aromatic bonds (64-71) inside, and whether one of them is in a ring (72).

    There is no motif where LLaMo has none: in a molecule without groups and rings (methane), and in one with another
    bond type (dative), bond stereo of atropisomers or an atom of more than 10 neighbours, on which its features fail.
    LLaMo finds motifs in SMILES without stereo and isotopes, so that an atropisomer never reaches it as such and
    deuterium atoms, which are atoms here, have vanished there.
    """

    name: ClassVar[str] = "functional_group"
    description_width: ClassVar[int] = 73

    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:  # noqa: D102 - inherited
        atoms, bonds = _atoms(molecule), _bonds(molecule)
        kinds = list(map(Bond.GetBondType, bonds))
        if not (
            _BOND_TYPES.issuperset(kinds)
            and _STEREO.issuperset(map(Bond.GetStereo, bonds))
            and max(map(Atom.GetDegree, atoms), default=0) <= _MOST_NEIGHBOURS
        ):
            return []
        rings = molecule.GetRingInfo().AtomRings()
        ends = _ends(bonds)
        marked = _marked(atoms, ends, kinds)
        chain = [pair for pair, inside in zip(ends, map(Bond.IsInRing, bonds), strict=True) if not inside]
        return in_order([*_groups(len(atoms), marked, chain, rings), *_merged_rings(rings)])

    def describe(self, molecule: Mol, motifs: Sequence[Sequence[int]]) -> NDArray[np.integer]:  # noqa: D102 - inherited
        described = np.zeros((len(motifs), self.description_width), dtype=np.uint8)
        counts = np.zeros((len(motifs), len(_SLOTS)), dtype=np.int64)
        numbers = list(map(Atom.GetAtomicNum, _atoms(molecule)))
        bonds = _bonds(molecule)
        motifs_of: list[set[int]] = [set() for _ in numbers]
        counted: list[tuple[int, int]] = []
        flagged: list[tuple[int, int]] = []
        for motif, atoms in enumerate(motifs):
            for atom in atoms:
                motifs_of[atom].add(motif)
                number = numbers[atom]
                if number in _COUNT_OF:
                    counted.append((motif, _COUNT_OF[number]))
                else:
                    flagged.append((motif, _HAS_HALOGEN if number in _HALOGENS else _HAS_OTHER))
        kinds, in_ring = map(Bond.GetBondType, bonds), map(Bond.IsInRing, bonds)
        for (begin, end), kind, is_in_ring in zip(_ends(bonds), kinds, in_ring, strict=True):
            for motif in motifs_of[begin] & motifs_of[end]:
                if kind in _COUNT_OF_BOND:  # others only in the fallback of one motif for the whole molecule
                    counted.append((motif, _COUNT_OF_BOND[kind]))
                if is_in_ring:
                    flagged.append((motif, _IN_RING))
        if counted:
            np.add.at(counts, tuple(np.array(counted).T), 1)
        if flagged:
            described[tuple(np.array(flagged).T)] = 1
        first, slots = _SLOTS.T
        described[np.arange(len(motifs))[:, None], first + np.minimum(counts, slots - 1)] = 1
        return described


_SLOTS = np.array([*_COUNTS.values(), *_BOND_COUNTS.values()])
_COUNT_OF = {number: count for count, number in enumerate(_COUNTS)}
_COUNT_OF_BOND = {kind: count for count, kind in enumerate(_BOND_COUNTS, len(_COUNTS))}


# Much faster than RDKit's own iteration over its sequences of atoms and bonds.
def _atoms(molecule: Mol) -> list[Atom]:
    return list(map(molecule.GetAtomWithIdx, range(molecule.GetNumAtoms())))


def _bonds(molecule: Mol) -> list[Bond]:
    return list(map(molecule.GetBondWithIdx, range(molecule.GetNumBonds())))


def _ends(bonds: Sequence[Bond]) -> list[tuple[int, int]]:
    return list(zip(map(Bond.GetBeginAtomIdx, bonds), map(Bond.GetEndAtomIdx, bonds), strict=True))


def _marked(atoms: Sequence[Atom], ends: Sequence[tuple[int, int]], kinds: Sequence[BondType]) -> set[int]:
    """The atoms that the patterns of `MARKED` match, without a search."""
    numbers = list(map(Atom.GetAtomicNum, atoms))
    marked = {atom for atom, number in enumerate(numbers) if number != _CARBON}
    # The neighbours of carbons that may make them acetals.
    acetal: dict[int, list[int]] = {}
    for (begin, end), kind in zip(ends, kinds, strict=True):
        if kind in _MULTIPLE:
            marked |= {begin, end}
        if numbers[begin] == _CARBON and numbers[end] in _ACETAL:
            acetal.setdefault(begin, []).append(end)
        elif numbers[end] == _CARBON and numbers[begin] in _ACETAL:
            acetal.setdefault(end, []).append(begin)
    for carbon, neighbours in acetal.items():
        if carbon in marked or len(neighbours) < 2 or atoms[carbon].GetIsAromatic():
            continue
        aliphatic = [atom for atom in neighbours if not atoms[atom].GetIsAromatic()]
        if len(aliphatic) >= 2 and atoms[carbon].GetTotalDegree() == 4:
            marked.add(carbon)
    return marked


def _groups(
    size: int, marked: set[int], chain: Sequence[tuple[int, int]], rings: Sequence[Sequence[int]]
) -> Iterable[set[int]]:
    """Functional groups; those of marked atoms by union-find, which LLaMo's merging in bond order comes to.

    Args:
        size: atoms of the molecule.
        marked: those that groups grow from.
        chain: the bonds outside rings.
        rings: of which a marked atom by itself is no group.
    """
    joined = components(size, ((begin, end) for begin, end in chain if begin in marked and end in marked))
    groups = {atoms[0]: set(atoms) for atoms in joined if atoms[0] in marked}
    group_of = {atom: first for first, atoms in groups.items() for atom in atoms}
    pairs = []
    for begin, end in chain:
        if begin not in marked and end not in marked:
            pairs.append({begin, end})
        elif begin not in marked:
            groups[group_of[end]].add(begin)
        elif end not in marked:
            groups[group_of[begin]].add(end)
    in_ring = {atom for ring in rings for atom in ring}
    return [*(group for group in groups.values() if len(group) > 1 or not group <= in_ring), *pairs]


def _merged_rings(rings: Sequence[Sequence[int]]) -> list[set[int]]:
    """The smallest rings, any two that share more than two atoms as one.

    A parsed molecule has those of `GetSymmSSSR`.
    """
    merged: list[set[int]] = []
    for ring in rings:
        atoms = set(ring)
        while True:
            sharing = next((other for other in merged if len(atoms & other) > 2), None)
            if sharing is None:
                break
            merged.remove(sharing)
            atoms |= sharing
        merged.append(atoms)
    return merged
