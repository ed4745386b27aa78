"""Feature schemes of the Open Graph Benchmark, whole or as the papers cut them; no dependency on the package `ogb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, ClassVar

from annotated_types import Interval
from rdkit.Chem import Atom, Bond, BondStereo, HybridizationType

from encoders.features import BOND_DIRECTION, CategoricalScheme, Feature, Rows, bond_type, chirality, element

_STEREO = (
    BondStereo.STEREONONE,
    BondStereo.STEREOZ,
    BondStereo.STEREOE,
    BondStereo.STEREOCIS,
    BondStereo.STEREOTRANS,
    BondStereo.STEREOANY,
)
_HYBRIDISATION = (
    HybridizationType.SP,
    HybridizationType.SP2,
    HybridizationType.SP3,
    HybridizationType.SP3D,
    HybridizationType.SP3D2,
)
# Lists of `ogb/utils/features.py`; the last row of all but the two flags is `misc`.
_REST_OF_ATOM = (
    Feature("degree", Atom.GetTotalDegree, Rows(range(11), otherwise=11), 12),
    Feature("charge", Atom.GetFormalCharge, Rows(range(-5, 6), otherwise=11), 12),
    Feature("hydrogens", Atom.GetTotalNumHs, Rows(range(9), otherwise=9), 10),
    Feature("radical electrons", Atom.GetNumRadicalElectrons, Rows(range(5), otherwise=5), 6),
    Feature("hybridisation", Atom.GetHybridization, Rows(_HYBRIDISATION, otherwise=5), 6),
    Feature("aromaticity", Atom.GetIsAromatic, Rows((False, True)), 2),
    Feature("ring membership", Atom.IsInRing, Rows((False, True)), 2),
)
_DIRECTION_AS_STEREO = replace(BOND_DIRECTION, size=6)
_CONJUGATION = Feature("conjugation", Bond.GetIsConjugated, Rows((False, True)), 2)


@cache
def _bond_stereo(listed: int, size: int) -> Feature:
    """OGB's bond stereo, of which the first `listed` values have rows; it has no row for others."""
    return Feature("stereo", Bond.GetStereo, Rows(_STEREO[:listed]), size)


@cache
def _listed_chirality(size: int) -> Feature:
    """The four values that OGB lists in a table of `size` rows; others are rejected."""
    return replace(chirality(4), size=size)


@cache
def _ogb_atom(chirality_rows: int) -> tuple[Feature, ...]:
    return element(119, wildcard=118), chirality(chirality_rows, otherwise=chirality_rows - 1), *_REST_OF_ATOM


@dataclass(frozen=True, kw_only=True)
class Ogb9(CategoricalScheme):
    """Nine atom and three bond features, as OGB makes them (`ogb/utils/features.py`) and MoleculeSTM and LLaMo read.

    Atom: atomic number counted from 0 (118 for a wildcard), chirality, degree with hydrogens, charge -5..5, hydrogens,
    radical electrons, hybridisation, aromatic, in a ring; values beyond a list have its row `misc`. Bond: type (4 for
    others), stereo, conjugated. Stereo beyond the list, such as that of atropisomers, is rejected: it has no `misc`.

    Args:
        chirality_rows: 4 as in the released checkpoint of MoleculeSTM (OGB up to 1.3.5), where all but unspecified,
            clockwise and counter-clockwise is the last; 5 as OGB since 1.3.6, where CHI_OTHER is 3 and the rest 4.
    """

    name: ClassVar[str] = "ogb9"

    chirality_rows: Annotated[int, Interval(ge=4, le=5)] = 4

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return _ogb_atom(self.chirality_rows)

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(5, otherwise=4), _bond_stereo(6, 6), _CONJUGATION


@dataclass(frozen=True, kw_only=True)
class InstructMol2(CategoricalScheme):
    """Two atom and two bond features, as InstructMol feeds MoleculeSTM (`llava/datasets/smiles2graph.py`, lines 16-41).

    Atom: atomic number counted from 0 (118 for a wildcard), chirality. Bond: type, and the *direction*, which OGB's
    table of bond *stereo* then reads. The sizes are those of OGB's first two tables. Chirality beyond CHI_OTHER, other
    bond types (dative) and other directions are rejected, where the released code fails.

    Args:
        chirality_rows: rows of OGB's table; 4 in the released checkpoint, 5 since OGB 1.3.6. The fifth is never read.
    """

    name: ClassVar[str] = "instructmol2"

    chirality_rows: Annotated[int, Interval(ge=4, le=5)] = 4

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return element(119, wildcard=118), _listed_chirality(self.chirality_rows)

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(5), _DIRECTION_AS_STEREO


@dataclass(frozen=True, kw_only=True)
class MolCa2(CategoricalScheme):
    """The first two of OGB's atom and bond features in the tables of pretrain-gnns, as MolCA and MolX feed GraphCL.

    Atom: atomic number counted from 0 (118 for a wildcard), chirality. Bond: type (4 for other than single, double,
    triple and aromatic; pretrain-gnns trained that row as the self loop), *stereo*, which the table of bond *direction*
    then reads. A self loop reads as a single bond without stereo (MolCA `gin_model.py`, line 42). Chirality beyond
    clockwise and counter-clockwise and stereo beyond Z and E are rejected, where the released code fails.
    """

    name: ClassVar[str] = "molca2"
    self_loop: ClassVar[tuple[int, ...] | None] = (0, 0)

    def atom_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return element(120, wildcard=118), chirality(3)

    def bond_features(self) -> Sequence[Feature]:  # noqa: D102 - inherited
        return bond_type(6, otherwise=4), _bond_stereo(3, 3)
