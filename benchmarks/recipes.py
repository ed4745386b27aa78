"""How others featurise, written anew from their published description: a Python call per property of each atom.

OGB's `smiles2graph` (`ogb/utils/mol.py` and `ogb/utils/features.py`, 1.3.6) and InstructMol's
(`llava/datasets/smiles2graph.py`, lines 16 to 41): each value is looked up in a list by `index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import BondDir, BondType, ChiralType

Graph = dict[str, Any]

_ATOMS: dict[str, list[Any]] = {
    "number": [*range(1, 119), "misc"],
    "chirality": [
        *("CHI_UNSPECIFIED", "CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW", "CHI_OTHER"),
        "misc",
    ],
    "degree": [*range(11), "misc"],
    "charge": [*range(-5, 6), "misc"],
    "hydrogens": [*range(9), "misc"],
    "radicals": [*range(5), "misc"],
    "hybridisation": ["SP", "SP2", "SP3", "SP3D", "SP3D2", "misc"],
    "flag": [False, True],
}
_BONDS: dict[str, list[Any]] = {
    "type": ["SINGLE", "DOUBLE", "TRIPLE", "AROMATIC", "misc"],
    "stereo": ["STEREONONE", "STEREOZ", "STEREOE", "STEREOCIS", "STEREOTRANS", "STEREOANY"],
    "flag": [False, True],
}
_NUMBERS = list(range(1, 119))
_CHIRALITIES = [
    *(ChiralType.CHI_UNSPECIFIED, ChiralType.CHI_TETRAHEDRAL_CW, ChiralType.CHI_TETRAHEDRAL_CCW, ChiralType.CHI_OTHER),
]
_TYPES = [BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC]
_DIRECTIONS = [BondDir.NONE, BondDir.ENDUPRIGHT, BondDir.ENDDOWNRIGHT]


def ogb(smiles: str) -> Graph:
    """Nine atom and three bond features."""
    return _graph(Chem.MolFromSmiles(smiles), _ogb_atom, _ogb_bond)


def instructmol(smiles: str) -> Graph:
    """Two atom and two bond features.

    Raises:
        ValueError: a value is in no list, which its code does not survive either.
    """
    return _graph(Chem.MolFromSmiles(smiles), _instructmol_atom, _instructmol_bond)


def _graph(molecule: Chem.Mol, of_atom: Any, of_bond: Any) -> Graph:
    atoms = [of_atom(atom) for atom in molecule.GetAtoms()]
    x = np.array(atoms, dtype=np.int64)
    edges: list[tuple[int, int]] = []
    features: list[list[int]] = []
    for bond in molecule.GetBonds():
        begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        feature = of_bond(bond)
        edges.append((begin, end))
        features.append(feature)
        edges.append((end, begin))
        features.append(feature)
    if edges:
        edge_index: NDArray[Any] = np.array(edges, dtype=np.int64).T
        edge_feat: NDArray[Any] = np.array(features, dtype=np.int64)
    else:
        edge_index = np.empty((2, 0), dtype=np.int64)
        edge_feat = np.empty((0, 0), dtype=np.int64)
    return {"edge_index": edge_index, "edge_feat": edge_feat, "node_feat": x, "num_nodes": len(x)}


def _index(choices: Sequence[Any], value: Any) -> int:
    """Where it is; the last place for what is not there."""
    try:
        return choices.index(value)
    except ValueError:
        return len(choices) - 1


def _ogb_atom(atom: Chem.Atom) -> list[int]:
    return [
        _index(_ATOMS["number"], atom.GetAtomicNum()),
        _index(_ATOMS["chirality"], str(atom.GetChiralTag())),
        _index(_ATOMS["degree"], atom.GetTotalDegree()),
        _index(_ATOMS["charge"], atom.GetFormalCharge()),
        _index(_ATOMS["hydrogens"], atom.GetTotalNumHs()),
        _index(_ATOMS["radicals"], atom.GetNumRadicalElectrons()),
        _index(_ATOMS["hybridisation"], str(atom.GetHybridization())),
        _ATOMS["flag"].index(atom.GetIsAromatic()),
        _ATOMS["flag"].index(atom.IsInRing()),
    ]


def _ogb_bond(bond: Chem.Bond) -> list[int]:
    return [
        _index(_BONDS["type"], str(bond.GetBondType())),
        _BONDS["stereo"].index(str(bond.GetStereo())),
        _BONDS["flag"].index(bond.GetIsConjugated()),
    ]


def _instructmol_atom(atom: Chem.Atom) -> list[int]:
    return [_NUMBERS.index(atom.GetAtomicNum()), _CHIRALITIES.index(atom.GetChiralTag())]


def _instructmol_bond(bond: Chem.Bond) -> list[int]:
    return [_TYPES.index(bond.GetBondType()), _DIRECTIONS.index(bond.GetBondDir())]
