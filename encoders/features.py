"""Feature schemes: atoms and bonds as small integers, each scheme as its paper's released code makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Interval
from rdkit.Chem import BondDir, BondType, ChiralType

from encoders.base import GraphScheme, RejectedMoleculeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

_MOST_ATOMS = 65_535  # `bond_ends` is kept as uint16
_CHIRALITY = {
    ChiralType.CHI_UNSPECIFIED: 0,
    ChiralType.CHI_TETRAHEDRAL_CW: 1,
    ChiralType.CHI_TETRAHEDRAL_CCW: 2,
    ChiralType.CHI_OTHER: 3,
}
_BOND_TYPE = {BondType.SINGLE: 0, BondType.DOUBLE: 1, BondType.TRIPLE: 2, BondType.AROMATIC: 3}
_BOND_DIRECTION = {BondDir.NONE: 0, BondDir.ENDUPRIGHT: 1, BondDir.ENDDOWNRIGHT: 2}


@dataclass(frozen=True, kw_only=True)
class Pgnn2(GraphScheme):
    """Two atom and two bond features, as pretrain-gnns feeds them (`chem/loader.py`, lines 53 to 100).

    Atom: atomic number 1..118 counted from 0 (119 is the mask), chirality. Bond: type (4 is the self loop, 5 the mask),
    direction. Wildcards, dative and other bond types, and chirality beyond the table are rejected: the released tables
    have no row for them.

    Args:
        chirality_rows: 3 as in the released checkpoints, whose table lacks the row of CHI_OTHER; 4 to admit it.
    """

    name: ClassVar[str] = "pgnn2"

    chirality_rows: Annotated[int, Interval(ge=3, le=4)] = 3

    def atom_sizes(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return (120, self.chirality_rows)

    def bond_sizes(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return (6, 3)

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        if molecule.GetNumAtoms() > _MOST_ATOMS:
            raise RejectedMoleculeError(f"it has {molecule.GetNumAtoms():,} atoms; bonds can point at {_MOST_ATOMS:,}")
        atoms = []
        for atom in molecule.GetAtoms():
            number, chirality = atom.GetAtomicNum(), _CHIRALITY.get(atom.GetChiralTag())
            if not 1 <= number <= 118:
                raise RejectedMoleculeError(f"atom {atom.GetIdx()} is a wildcard, which pgnn2 cannot express")
            if chirality is None or chirality >= self.chirality_rows:
                raise RejectedMoleculeError(
                    f"atom {atom.GetIdx()} has chirality {atom.GetChiralTag()}, which pgnn2 cannot express"
                )
            atoms.append((number - 1, chirality))
        ends, bonds = [], []
        for bond in molecule.GetBonds():
            kind, direction = _BOND_TYPE.get(bond.GetBondType()), _BOND_DIRECTION.get(bond.GetBondDir())
            if kind is None or direction is None:
                what = f"type {bond.GetBondType()}" if kind is None else f"direction {bond.GetBondDir()}"
                raise RejectedMoleculeError(f"bond {bond.GetIdx()} has {what}, which pgnn2 cannot express")
            begin, end = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            ends += [(begin, end), (end, begin)]
            bonds += [(kind, direction)] * 2
        return {
            "atom": np.array(atoms, dtype=np.uint8).reshape(-1, 2),
            "bond": np.array(bonds, dtype=np.uint8).reshape(-1, 2),
            "bond_ends": np.array(ends, dtype=np.uint16).reshape(-1, 2),
        }
