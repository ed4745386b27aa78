"""LLaMo's 73 motif features: made once, and read from the store, against making them in every step of training.

The reference is LLaMo's recipe (`llamo/chem.py`, `mol_to_graphs`, called for each molecule of a batch in the forward
pass, `projectors.py`, lines 133 to 139), written anew from its description: each molecule is parsed, its atoms and
bonds are turned into one-hot vectors that nothing reads, atoms are marked by patterns, groups grow bond by bond, and
the features of each motif are stacked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem, rdBase
from rdkit.Chem import BondStereo, BondType, HybridizationType
from torch import Tensor

from benchmarks.measure import Result, compare
from benchmarks.molecules import by_hash, chebi20
from encoders.featurising import Rows, featurise_many
from encoders.functional_groups import FunctionalGroup
from encoders.motifs import MotifScheme
from encoders.store import FeatureStore

_MOLECULES = 600
_BATCH = 16
_LEAST_COLD, _LEAST_CACHED = 0.9, 50.0
_SCHEME = MotifScheme(segmenter=FunctionalGroup(), fallback="none")

_PATTERNS = [Chem.MolFromSmarts(pattern) for pattern in ("[!#6]", "*=,#*", "[CX4]([O,N,S])[O,N,S]")]
_SYMBOLS = (
    *("C", "N", "O", "S", "F", "Si", "P", "Cl", "Br", "Mg", "Na", "Ca", "Fe", "As", "Al", "I", "B", "V", "K", "Tl"),
    *("Yb", "Sb", "Sn", "Ag", "Pd", "Co", "Se", "Ti", "Zn", "H", "Li", "Ge", "Cu", "Au", "Ni", "Cd", "In", "Mn"),
    *("Zr", "Cr", "Pt", "Hg", "Pb", "other"),
)
_HYBRIDISATIONS = (
    *(HybridizationType.SP, HybridizationType.SP2, HybridizationType.SP3),
    *(HybridizationType.SP3D, HybridizationType.SP3D2, None),
)
_TYPES = (BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC)
_STEREO = (
    *(BondStereo.STEREONONE, BondStereo.STEREOANY, BondStereo.STEREOZ),
    *(BondStereo.STEREOE, BondStereo.STEREOCIS, BondStereo.STEREOTRANS),
)
_HALOGENS = ("F", "Cl", "Br", "I")


def run(rounds: int) -> Iterator[Result]:
    """Without a store, and with the features already in it."""
    torch.set_num_threads(1)
    # In the form that LLaMo makes motifs from.
    with rdBase.BlockLogs():
        molecules = list(
            dict.fromkeys(Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False) for smiles in chebi20())
        )
    molecules = [smiles for smiles in molecules if smiles]
    _assert_equal(molecules)
    equal = f"the features of all motifs of {len(molecules)} ChEBI-20 molecules without stereo"
    chosen = by_hash(molecules)[:_MOLECULES]

    def theirs() -> None:
        for smiles in chosen:
            released(smiles)

    def cold() -> None:
        _featurised(chosen)

    common: dict[str, Any] = {"rounds": rounds, "count": len(chosen), "unit": "molecules", "equal": equal}
    reference = "LLaMo's recipe in every step"
    yield compare(cold, theirs, case="motif features", reference=reference, least=_LEAST_COLD, **common)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.open_or_build(Path(folder), [_SCHEME], molecules)
        batches = [chosen[start : start + _BATCH] for start in range(0, len(chosen), _BATCH)]

        def cached() -> None:
            for batch in batches:
                store.batch(batch)["motif_description"]

        case = f"motif features from the store, {_BATCH} at a time"
        yield compare(cached, theirs, case=case, reference=reference, least=_LEAST_CACHED, **common)


def _featurised(molecules: Sequence[str]) -> list[Rows]:
    return [parts[0] for _, parts in featurise_many((_SCHEME,), {(0,): molecules}, 1, lambda done: None)]


def _assert_equal(molecules: Sequence[str]) -> None:
    """The same rows for each molecule; their order within it says nothing to LLaMo's attention, and is another one."""
    for rows in _featurised(molecules):
        ends = rows.counts["motif_description"].cumsum()
        for smiles, own in zip(rows.molecules, np.split(rows.values["motif_description"], ends[:-1]), strict=True):
            found = released(smiles)
            theirs = np.zeros((0, 73)) if found is None else found.numpy()
            assert sorted(map(bytes, own)) == sorted(map(bytes, theirs.astype(np.uint8))), smiles


def released(smiles: str) -> Tensor | None:
    """The features of each motif, `(m, 73)` float32; None where the recipe fails and so has no motif."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    try:
        torch.tensor([_atom_vector(atom) for atom in molecule.GetAtoms()], dtype=torch.float32)
        torch.tensor([_bond_vector(bond) for bond in molecule.GetBonds()], dtype=torch.float32)
        return torch.stack(_motif_vectors(molecule, _motifs(molecule)))
    except (ValueError, RuntimeError):
        return None


def _one_hot(value: Any, choices: Sequence[Any], *, last_is_rest: bool = False) -> list[int]:
    if last_is_rest and value not in choices:
        value = choices[-1]
    if value not in choices:
        raise ValueError(value)
    vector = [0] * len(choices)
    vector[choices.index(value)] = 1
    return vector


def _atom_vector(atom: Chem.Atom) -> list[int]:
    """101 numbers: element (44), neighbours (11), hydrogens (11), implicit valence (11), and the rest."""
    return [
        *_one_hot(atom.GetSymbol(), _SYMBOLS, last_is_rest=True),
        *_one_hot(atom.GetDegree(), range(11)),
        *_one_hot(atom.GetTotalNumHs(), range(11)),
        *_one_hot(atom.GetValence(Chem.ValenceType.IMPLICIT), range(11)),  # its old name warns each time
        *_one_hot(atom.GetHybridization(), _HYBRIDISATIONS, last_is_rest=True),
        *_one_hot(atom.GetFormalCharge(), range(-5, 6), last_is_rest=True),
        int(atom.GetIsAromatic()),
        int(atom.IsInRing()),
        atom.GetNumRadicalElectrons(),
    ]


def _bond_vector(bond: Chem.Bond) -> list[int]:
    """12 numbers: type, stereo, conjugated, in a ring."""
    flags = [int(bond.GetIsConjugated()), int(bond.IsInRing())]
    return [*_one_hot(bond.GetBondType(), _TYPES), *_one_hot(bond.GetStereo(), _STEREO), *flags]


def _motifs(molecule: Chem.Mol) -> list[set[int]]:
    rings: list[set[int]] = []
    for ring in map(set, Chem.GetSymmSSSR(molecule)):
        atoms = set(ring)
        while (sharing := next((other for other in rings if len(atoms & other) > 2), None)) is not None:
            rings.remove(sharing)
            atoms |= sharing
        rings.append(atoms)
    marked = {atom for pattern in _PATTERNS for match in molecule.GetSubstructMatches(pattern) for atom in match}
    groups = [{atom} for atom in marked]
    group_of = {atom: number for number, atom in enumerate(marked)}
    for bond in molecule.GetBonds():
        if bond.IsInRing():
            continue
        one, other = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if one in marked and other in marked:
            into, emptied = group_of[one], group_of[other]
            if into != emptied:
                groups[into] |= groups[emptied]
                for atom in groups[emptied] & marked:
                    group_of[atom] = into
                groups[emptied] = set()
        elif one in marked:
            groups[group_of[one]].add(other)
        elif other in marked:
            groups[group_of[other]].add(one)
        else:
            groups.append({one, other})
    in_ring = {atom for atom in range(molecule.GetNumAtoms()) if molecule.GetAtomWithIdx(atom).IsInRing()}
    return [*(group for group in groups if len(group) > 1 or (group and not group <= in_ring)), *rings]


def _motif_vectors(molecule: Chem.Mol, motifs: Sequence[set[int]]) -> list[Tensor]:
    """The features of each motif, its atoms and the bonds inside counted in one pass over those of the molecule."""
    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    elements = [dict.fromkeys(("C", "O", "N", "P", "S", "halogen", "other"), 0) for _ in motifs]
    motifs_of: list[set[int]] = [set() for _ in symbols]
    for number, motif in enumerate(motifs):
        for atom in motif:
            motifs_of[atom].add(number)
            symbol = symbols[atom]
            kind = "halogen" if symbol in _HALOGENS else symbol if symbol in elements[number] else "other"
            elements[number][kind] += 1
    types = [dict.fromkeys(_TYPES, 0) for _ in motifs]
    in_ring = [0] * len(motifs)
    for bond in molecule.GetBonds():
        for number in motifs_of[bond.GetBeginAtomIdx()] & motifs_of[bond.GetEndAtomIdx()]:
            types[number][bond.GetBondType()] += 1
            in_ring[number] |= int(bond.IsInRing())
    return [_motif_vector(*counted) for counted in zip(elements, types, in_ring, strict=True)]


def _motif_vector(elements: dict[str, int], types: dict[BondType, int], in_ring: int) -> Tensor:
    vector = _capped(elements["C"], 11)
    for symbol in ("O", "N", "P", "S"):
        vector += _capped(elements[symbol], 6)
    vector += [int(elements["halogen"] > 0), int(elements["other"] > 0)]
    vector += _capped(types[BondType.SINGLE], 11)
    for kind in _TYPES[1:]:
        vector += _capped(types[kind], 8)
    return torch.tensor([*vector, in_ring], dtype=torch.float32)


def _capped(count: int, slots: int) -> list[int]:
    """One-hot, with whatever is more in the last slot."""
    vector = [0] * slots
    vector[min(count, slots - 1)] = 1
    return vector
