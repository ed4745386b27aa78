"""Feature schemes whose rows are read from RDKit's binary form of molecules instead of atom by atom."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from rdkit import rdBase
from rdkit.Chem import Atom, Bond, Mol, MolFromSmiles

from encoders.base import FeatureScheme
from encoders.binary import VERSIONS, Binaries, Read
from encoders.features import CategoricalScheme, Feature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tables = Sequence[tuple[Read, NDArray[np.uint8]]]

# What a feature asks of an atom or a bond, and where the binary form says it.
_ATOM_READS: Mapping[Callable[[Any], Any], Read] = {
    Atom.GetAtomicNum: Binaries.atomic_number,
    Atom.GetChiralTag: Binaries.chirality,
    Atom.GetDegree: Binaries.degree,
    Atom.GetTotalDegree: Binaries.total_degree,
    Atom.GetFormalCharge: Binaries.charge,
    Atom.GetTotalNumHs: Binaries.hydrogens,
    Atom.GetNumRadicalElectrons: Binaries.radicals,
    Atom.GetHybridization: Binaries.hybridisation,
    Atom.GetIsAromatic: Binaries.atom_aromatic,
    Atom.IsInRing: Binaries.atom_in_ring,
}
_BOND_READS: Mapping[Callable[[Any], Any], Read] = {
    Bond.GetBondType: Binaries.bond_type,
    Bond.GetBondDir: Binaries.direction,
    Bond.GetStereo: Binaries.stereo,
    Bond.GetIsConjugated: Binaries.conjugated,
    Bond.IsInRing: Binaries.bond_in_ring,
}
_CODES = 1_024  # the last one stands for all above, such as the degree of an atom with so many neighbours
_REJECTED = 255  # the row of what a table lacks; no table is as long

# Every field with common and rare values, absent and present together with each other: charges, isotopes, radicals,
# explicit hydrogens, all chiralities and hybridisations, dative and ionic bonds, directions and stereo, and rings that
# share atoms. Molecules that are not read are in it too: wildcards and mapped atoms.
# fmt: off
_SAMPLE = (
    "C", "[H]", "[H][H]", "[He]", "[H+]", "[2H]", "[2H]C([2H])([2H])[2H]", "[Na+].[Cl-]", "[Fe+3]", "[C-4]",
    "[O-2]", "[13CH4]", "[13C@H](F)(Cl)Br", "[238U]", "[Og]", "[CH3]", "[CH2]", "[CH]", "[C]", "[O][O]", "[N]=O",
    "C[O]", "[NH4+]", "[OH-]", "CC", "C=C", "C#C", "CCO", "CC(=O)O", "c1ccccc1", "c1ccc2[nH]ccc2c1",
    "c1cc[nH+]cc1", "C1=CC=CC=C1", "N[C@@H](C)C(=O)O", "N[C@H](C)C(=O)O", "C[S@](=O)CC", "C[S@@](=O)CC",
    "C[P@](O)(=O)S", "F/C=C/Cl", r"F/C=C\Cl", r"C/C=C(/C)\C=C\C", "F/C=C/[C@H](N)C#N", "C/N=N/C", "CC=CC",
    "[O-][N+](=O)c1ccccc1.[K+]", "C[N+](C)(C)C", "FS(F)(F)(F)(F)F", "FP(F)(F)(F)F", "O=S(=O)(O)O", "OCl(=O)(=O)=O",
    "C1CC1", "C1CC2CCC1C2", "C1CC11CC1", "C12C3C4C1C5C2C3C45", "c1ccc(cc1)-c1ccccc1", "[NH3]->[Pt](Cl)(Cl)<-[NH3]",
    "C[Pt@SP1](F)(Cl)Br", "F[Co@OH1](Cl)(Br)(I)(N)O", "F[P@TB1](Cl)(Br)(I)C", "[Cu+2].[O-]S(=O)(=O)[O-]",
    "OB(O)c1ccccc1", "[BH4-]", "[AlH3]", "[SiH4]", "C=C=C", "CC(C)=[C@]=C(C)O", "C$C", "N#N", "[N-]=[N+]=NC",
    "CN(C)C(=O)[C@@H]1CC[C@H](C1)O", "*C(=O)O", "[CH3:7][OH:300]",
)
_CUBANE = "C12C3C4C1C5C2C3C45"
# Up to 255 atoms or bonds, and above, where atoms have wider indices: bonds, stereo, and rings small and large, at the
# beginning and at the end of such molecules.
_LARGE = (
    "C" * 200 + "[C@H](F)Cl", "C" * 255, "C" * 256, "C1" + "C" * 253 + "C1", "C1CC1" + "C" * 249 + "C1CC1",
    ".".join([_CUBANE] * 31),
    "F/C=C/" + "C" * 252 + r"/C=C\C=C(/F)[C@H]([NH3+])C(=O)[O-]", "C1" + "C" * 260 + "CC1C",
    "C1CC1" + "[13CH2]" * 250 + "C2CCC3CC3C2.[Na+].c1ccc2[nH]ccc2c1C#N", "[NH3]->[Pt](Cl)<-[NH2]" + "C" * 260 + "[CH2]",
)
# fmt: on


@dataclass(frozen=True, slots=True)
class SchemeRows:
    """What a scheme makes of the molecules that were read.

    Args:
        is_accepted: whether it can express each, `(n,)`; the rows are of those that it can.
        values: rows per column.
    """

    is_accepted: NDArray[np.bool_]
    values: Mapping[str, NDArray[Any]]


def is_binary(scheme: FeatureScheme) -> TypeGuard[CategoricalScheme]:
    """Whether a scheme's rows can be read from the binary form: one of this room, which is tables of known features."""
    return (
        isinstance(scheme, CategoricalScheme)
        and type(scheme).__module__.startswith("encoders.")
        and type(scheme).featurise is CategoricalScheme.featurise
        and type(scheme).columns is CategoricalScheme.columns
        and all(feature.read in _ATOM_READS for feature in scheme.atom_features())
        and all(feature.read in _BOND_READS for feature in scheme.bond_features())
        and max(*scheme.atom_sizes(), *scheme.bond_sizes()) < _REJECTED
        and is_trusted()
    )


@cache
def is_trusted() -> bool:
    """Whether this RDKit writes the binary form as it is read here, found out once in a process.

    The version of the form has to be a known one, and what is read of some 80 molecules has to be what RDKit says of
    them. If the latter is not so, this warns: a known version that has changed ought to be told of.
    """
    with rdBase.BlockLogs():
        molecules = [MolFromSmiles(smiles) for smiles in (*_SAMPLE, *_LARGE)]
    molecules = [molecule for molecule in molecules if molecule is not None]
    if version_of(molecules[0].ToBinary(0)) not in VERSIONS:
        return False
    different = first_difference(molecules)
    if different is not None:
        warnings.warn(
            f"RDKit {rdBase.rdkitVersion} writes molecules otherwise than known ({different}); they are featurised "
            "atom by atom, which is slower",
            stacklevel=2,
        )
    return different is None


def version_of(binary: bytes) -> tuple[int, int]:
    """The version of RDKit's layout in which a molecule is written."""
    return int.from_bytes(binary[8:12], "little"), int.from_bytes(binary[12:16], "little")


def first_difference(molecules: Sequence[Mol]) -> str | None:
    """What is read otherwise than RDKit says it, of those molecules that are read at all."""
    read = Binaries([molecule.ToBinary(0) for molecule in molecules])
    known = [molecule for molecule, is_read in zip(molecules, read.is_read, strict=True) if is_read]
    atoms = [molecule.GetAtomWithIdx(index) for molecule in known for index in range(molecule.GetNumAtoms())]
    bonds = [molecule.GetBondWithIdx(index) for molecule in known for index in range(molecule.GetNumBonds())]
    numbers = (
        ("number of atoms", read.num_atoms, [molecule.GetNumAtoms() for molecule in known]),
        ("number of bonds", read.num_bonds, [molecule.GetNumBonds() for molecule in known]),
        ("first atom of bonds", read.begin, [bond.GetBeginAtomIdx() for bond in bonds]),
        ("second atom of bonds", read.end, [bond.GetEndAtomIdx() for bond in bonds]),
        *((ask.__name__, codes(read), list(map(ask, atoms))) for ask, codes in _ATOM_READS.items()),
        *((ask.__name__, codes(read), list(map(ask, bonds))) for ask, codes in _BOND_READS.items()),
    )
    for name, found, expected in numbers:
        said = np.array(list(map(int, expected)), dtype=np.int64)
        if name == Atom.GetFormalCharge.__name__:
            said &= 0xFF
        if not np.array_equal(found, said):
            return name
    return None


def rows_of(scheme: CategoricalScheme, read: Binaries) -> SchemeRows:
    """The rows that `featurise` would give of each molecule, one after the other."""
    atom_tables, bond_tables = _tables(scheme)
    atoms = _looked_up(atom_tables, read, int(read.num_atoms.sum()))
    bonds = _looked_up(bond_tables, read, int(read.num_bonds.sum()))
    is_accepted = np.ones(len(read.num_atoms), dtype=np.bool_)
    for table, counts in ((atoms, read.num_atoms), (bonds, read.num_bonds)):
        rejected = table.max(initial=0) == _REJECTED
        if rejected:
            molecule_of_row = np.arange(len(counts)).repeat(counts)
            is_accepted[molecule_of_row[(table == _REJECTED).any(axis=1)]] = False
    ends = np.stack([read.begin, read.end], axis=1)
    if not is_accepted.all():
        atoms = atoms[is_accepted.repeat(read.num_atoms)]
        kept = is_accepted.repeat(read.num_bonds)
        bonds, ends = bonds[kept], ends[kept]
    both = np.empty((len(ends), 2, 2), dtype=np.uint16)
    both[:, 0], both[:, 1] = ends, ends[:, ::-1]
    return SchemeRows(is_accepted, {"atom": atoms, "bond": bonds.repeat(2, axis=0), "bond_ends": both.reshape(-1, 2)})


@cache
def _tables(scheme: CategoricalScheme) -> tuple[Tables, Tables]:
    """For the features of atoms and those of bonds, where each is said and the row of each number that may be said."""
    return (
        [(_ATOM_READS[feature.read], _table(feature)) for feature in scheme.atom_features()],
        [(_BOND_READS[feature.read], _table(feature)) for feature in scheme.bond_features()],
    )


def _table(feature: Feature) -> NDArray[np.uint8]:
    """The row of each number by which the binary form may say a value; RDKit's enums are numbers."""
    is_signed = feature.read is Atom.GetFormalCharge
    table = np.full(_CODES, _REJECTED, dtype=np.uint8)
    for code in range(256 if is_signed else _CODES - 1):
        try:
            table[code] = feature.rows[code - 256 if is_signed and code > 127 else code]
        except KeyError:
            continue
    return table


def _looked_up(tables: Tables, read: Binaries, size: int) -> NDArray[np.uint8]:
    """The rows `(size, features)` of all atoms or bonds, `_REJECTED` where a table lacks one."""
    rows = np.empty((size, len(tables)), dtype=np.uint8)
    for column, (said, table) in enumerate(tables):
        rows[:, column] = table.take(said(read), mode="clip")
    return rows
