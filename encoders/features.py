"""Feature schemes: atoms and bonds as small integers, each scheme as its paper's released code makes them.

A scheme is declared as the features of an atom and of a bond, each of them a table from RDKit's values to rows of an
embedding. Schemes of OGB's features are in `ogb_features`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from annotated_types import Interval
from rdkit.Chem import Atom, Bond, BondDir, BondType, ChiralType

from encoders.base import GraphScheme, RejectedMoleculeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

MOST_ATOMS = 65_535  # what uint16 columns can point at


class Rows(dict[Any, int]):
    """The row of each value that a feature may have.

    Args:
        values: RDKit's values, in the order of their rows.
        first: the row of the first one.
        otherwise: the row of every value that is not listed; None to reject it.
    """

    def __init__(self, values: Sequence[Any], *, first: int = 0, otherwise: int | None = None) -> None:
        super().__init__((value, row) for row, value in enumerate(values, first))
        self.otherwise = otherwise

    def __missing__(self, value: Any) -> int:
        if self.otherwise is None:
            raise KeyError(value)
        return self.otherwise


@dataclass(frozen=True, slots=True)
class Feature:
    """One categorical feature of atoms, or of bonds.

    Args:
        what: its name in the reason of a rejection.
        read: takes an atom, or a bond, and gives RDKit's value.
        rows: the row of each value.
        size: the rows of the embedding, those that no molecule reaches included.
    """

    what: str
    read: Callable[[Any], Any]
    rows: Rows
    size: int


CHIRALITIES = (
    ChiralType.CHI_UNSPECIFIED,
    ChiralType.CHI_TETRAHEDRAL_CW,
    ChiralType.CHI_TETRAHEDRAL_CCW,
    ChiralType.CHI_OTHER,
)
BOND_TYPES = (BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC)
ELEMENTS = range(1, 119)
BOND_DIRECTION = Feature(
    "direction", Bond.GetBondDir, Rows((BondDir.NONE, BondDir.ENDUPRIGHT, BondDir.ENDDOWNRIGHT)), 3
)


@dataclass(frozen=True, kw_only=True)
class CategoricalScheme(GraphScheme):
    """A graph scheme that is fully said by the tables of its features."""

    @abstractmethod
    def atom_features(self) -> Sequence[Feature]:
        """The features of an atom, one per column of `atom`."""

    @abstractmethod
    def bond_features(self) -> Sequence[Feature]:
        """The features of a bond, one per column of `bond`."""

    def atom_sizes(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return tuple(feature.size for feature in self.atom_features())

    def bond_sizes(self) -> tuple[int, ...]:  # noqa: D102 - inherited
        return tuple(feature.size for feature in self.bond_features())

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        reject_beyond_uint16(molecule)
        # Twice as fast as RDKit's own iteration over its sequences of atoms and bonds.
        atoms = list(map(molecule.GetAtomWithIdx, range(molecule.GetNumAtoms())))
        bonds = list(map(molecule.GetBondWithIdx, range(molecule.GetNumBonds())))
        ends = np.empty((2 * len(bonds), 2), dtype=np.uint16)
        ends[0::2, 0] = ends[1::2, 1] = list(map(Bond.GetBeginAtomIdx, bonds))
        ends[0::2, 1] = ends[1::2, 0] = list(map(Bond.GetEndAtomIdx, bonds))
        return {
            "atom": self._rows(self.atom_features(), atoms, "atom"),
            "bond": self._rows(self.bond_features(), bonds, "bond").repeat(2, axis=0),
            "bond_ends": ends,
        }

    def _rows(self, features: Sequence[Feature], items: Sequence[Any], word: str) -> NDArray[np.uint8]:
        """The rows `(len(items), len(features))` of atoms or bonds."""
        columns = []
        for feature in features:
            values = list(map(feature.read, items))
            try:
                columns.append(bytes(map(feature.rows.__getitem__, values)))
            except KeyError as error:
                value = error.args[0]
                shown = f"{value} (a wildcard)" if feature.read is Atom.GetAtomicNum and value == 0 else value
                raise RejectedMoleculeError(
                    f"{word} {values.index(value)} has {feature.what} {shown}, which {self.name} cannot express"
                ) from None
        joined = np.frombuffer(b"".join(columns), dtype=np.uint8)
        return np.ascontiguousarray(joined.reshape(len(features), len(items)).T)


def reject_beyond_uint16(molecule: Mol) -> None:
    """Rejects a molecule whose atoms cannot be pointed at.

    Raises:
        RejectedMoleculeError: it has too many atoms.
    """
    if molecule.GetNumAtoms() > MOST_ATOMS:
        raise RejectedMoleculeError(f"it has {molecule.GetNumAtoms():,} atoms; bonds can point at {MOST_ATOMS:,}")


@cache
def element(size: int, wildcard: int | None = None) -> Feature:
    """The atomic number counted from 0 in a table of `size` rows; a wildcard is rejected or has the row given."""
    return Feature("atomic number", Atom.GetAtomicNum, Rows(ELEMENTS, otherwise=wildcard), size)


@cache
def chirality(size: int, otherwise: int | None = None) -> Feature:
    """RDKit's chiral tag, of which the first `size` have rows; others are rejected or have the row given."""
    return Feature("chirality", Atom.GetChiralTag, Rows(CHIRALITIES[:size], otherwise=otherwise), size)


@cache
def bond_type(size: int, otherwise: int | None = None) -> Feature:
    """Single, double, triple, aromatic in a table of `size` rows; others are rejected or have the row given."""
    return Feature("type", Bond.GetBondType, Rows(BOND_TYPES, otherwise=otherwise), size)


@dataclass(frozen=True, kw_only=True)
class Pgnn2(CategoricalScheme):
    """Two atom and two bond features, as pretrain-gnns feeds them (`chem/loader.py`, lines 53 to 100).

    Atom: atomic number 1..118 counted from 0 (119 is the mask), chirality. Bond: type (4 is the self loop, 5 the mask),
    direction. Wildcards, dative and other bond types, and chirality beyond the table are rejected: the released tables
    have no row for them.

    Args:
        chirality_rows: 3 as in the released checkpoints, whose table lacks the row of CHI_OTHER; 4 to admit it.
    """

    name: ClassVar[str] = "pgnn2"
    self_loop: ClassVar[tuple[int, ...] | None] = (4, 0)
    mask_atom: ClassVar[tuple[int, ...] | None] = (119, 0)
    mask_bond: ClassVar[tuple[int, ...] | None] = (5, 0)

    chirality_rows: Annotated[int, Interval(ge=3, le=4)] = 3

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return element(120), chirality(self.chirality_rows)

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(6), BOND_DIRECTION


@dataclass(frozen=True, kw_only=True)
class MolClr2(CategoricalScheme):
    """The features of `pgnn2` in tables of the sizes that MolCLR released (`models/gcn_molclr.py`).

    Atom: atomic number 1..118 counted from 0 (118 is the mask), chirality. Bond: type (4 is the self loop; bonds have
    no mask), direction. What these tables lack is rejected.
    """

    name: ClassVar[str] = "molclr2"
    self_loop: ClassVar[tuple[int, ...] | None] = (4, 0)
    mask_atom: ClassVar[tuple[int, ...] | None] = (118, 0)

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return element(119), chirality(3)

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(5), BOND_DIRECTION


_DEGREE = Feature("degree", Atom.GetDegree, Rows(range(11)), 11)
_IN_RING = Feature("ring membership", Bond.IsInRing, Rows((False, True), first=1), 3)


@dataclass(frozen=True, kw_only=True)
class Himol2(CategoricalScheme):
    """Two atom and two bond features, as HiMol feeds them (`data_utils.py`, lines 155 to 249).

    Atom: atomic number 1..118 counted from 0, number of neighbours 0..10. Bond: type, 1 outside a ring or 2 inside one
    (row 0 is that of virtual edges). HiMol's further rows of virtual nodes and edges are not the scheme's: the
    hierarchical encoder has tables of its own for them. Degrees above 10 and other bond types are rejected.

    Args:
        wildcards: whether a wildcard has a row of its own, the one behind the 118 elements, as in HIGHT
            (`data_utils.py:35,170-177`); else it is rejected, as HiMol fails there.
    """

    name: ClassVar[str] = "himol2"

    wildcards: bool = field(default=False, metadata={"neutral": False})

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return (element(119, wildcard=118) if self.wildcards else element(118)), _DEGREE

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(4), _IN_RING
