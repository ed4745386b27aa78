"""The motifs of LLaMo (Park et al. 2024): functional groups and rings, each with 73 features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from rdkit.Chem import BondStereo, BondType, GetSymmSSSR, MolFromSmarts

from encoders.base import Segmenter
from encoders.features import BOND_TYPES
from encoders.motifs import components, in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

# Heteroatoms, both ends of a double or triple bond, and acetals: the atoms that functional groups grow from.
_MARKED = tuple(MolFromSmarts(pattern) for pattern in ("[!#6]", "*=,#*", "[CX4]([O,N,S])[O,N,S]"))
_MANY_MATCHES = 1_000_000  # RDKit stops at 1,000 unless told

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
        if not _has_features(molecule):
            return []
        return in_order([*_groups(molecule), *_merged_rings(molecule)])

    def describe(self, molecule: Mol, motifs: Sequence[Sequence[int]]) -> NDArray[np.integer]:  # noqa: D102 - inherited
        described = np.zeros((len(motifs), self.description_width), dtype=np.uint8)
        motifs_of: list[set[int]] = [set() for _ in range(molecule.GetNumAtoms())]
        for motif, atoms in enumerate(motifs):
            for atom in atoms:
                motifs_of[atom].add(motif)
        counts: list[Counter[tuple[int, int]]] = [Counter() for _ in motifs]
        for atom in molecule.GetAtoms():
            number = atom.GetAtomicNum()
            for motif in motifs_of[atom.GetIdx()]:
                if number in _COUNTS:
                    counts[motif][_COUNTS[number]] += 1
                else:
                    described[motif, _HAS_HALOGEN if number in _HALOGENS else _HAS_OTHER] = 1
        for bond in molecule.GetBonds():
            inside = motifs_of[bond.GetBeginAtomIdx()] & motifs_of[bond.GetEndAtomIdx()]
            kind = bond.GetBondType()
            for motif in inside:
                if kind in _BOND_COUNTS:  # others only in the fallback of one motif for the whole molecule
                    counts[motif][_BOND_COUNTS[kind]] += 1
                if bond.IsInRing():
                    described[motif, _IN_RING] = 1
        for motif, counted in enumerate(counts):
            for first, slots in _SLOTS:
                described[motif, first + min(counted[first, slots], slots - 1)] = 1
        return described


_SLOTS = (*_COUNTS.values(), *_BOND_COUNTS.values())


def _has_features(molecule: Mol) -> bool:
    bonds = molecule.GetBonds()
    return all(bond.GetBondType() in _BOND_TYPES and bond.GetStereo() in _STEREO for bond in bonds) and all(
        atom.GetDegree() <= _MOST_NEIGHBOURS for atom in molecule.GetAtoms()
    )


def _groups(molecule: Mol) -> Iterable[set[int]]:
    """Functional groups; those of marked atoms by union-find, which LLaMo's merging in bond order comes to."""
    marked = {
        atom
        for pattern in _MARKED
        for match in molecule.GetSubstructMatches(pattern, maxMatches=_MANY_MATCHES)
        for atom in match
    }
    chain = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds() if not bond.IsInRing()]
    size = molecule.GetNumAtoms()
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
    in_ring = {atom for ring in molecule.GetRingInfo().AtomRings() for atom in ring}
    return [*(group for group in groups.values() if len(group) > 1 or not group <= in_ring), *pairs]


def _merged_rings(molecule: Mol) -> list[set[int]]:
    """The smallest rings, any two that share more than two atoms as one."""
    merged: list[set[int]] = []
    for ring in GetSymmSSSR(molecule):
        atoms = set(ring)
        while True:
            sharing = next((other for other in merged if len(atoms & other) > 2), None)
            if sharing is None:
                break
            merged.remove(sharing)
            atoms |= sharing
        merged.append(atoms)
    return merged
