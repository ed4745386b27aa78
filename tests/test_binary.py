"""Rows read from RDKit's binary form of molecules: the plain path's, on real molecules and on whatever is unusual."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from encoders import binary, binary_schemes, featurising
from encoders.base import FeatureScheme
from encoders.binary import Binaries
from encoders.binary_schemes import first_difference, is_binary, is_trusted, rows_of
from encoders.features import CategoricalScheme, Himol2, MolClr2, Pgnn2
from encoders.featurising import Rows, featurise_many
from encoders.motifs import MotifScheme
from encoders.ogb_features import InstructMol2, MolCa2, Ogb9

SCHEMES: tuple[CategoricalScheme, ...] = (
    Pgnn2(),
    Pgnn2(chirality_rows=4),
    MolClr2(),
    Ogb9(),
    Ogb9(chirality_rows=5),
    InstructMol2(),
    InstructMol2(chirality_rows=5),
    MolCa2(),
    Himol2(),
    Himol2(wildcards=True),
)
UNUSUAL = (
    *("*CC", "C:C", "[CH3:2]C", "[CH3:300]C", "C[NH3]->[Pt]", "(((", "", "C" * 255, "C" * 256, "C[P@TB1](F)(Cl)(Br)I"),
    *(
        "[Cu+2]",
        "[2H]C",
        "[H][H]",
        "C12C3C4C1C5C2C3C45",
        "C(C",
        "F[Co@OH12](Cl)(Br)(I)(N)O",
        "[Fe-5]",
        "[CH3-]",
        "C/C=C\\C",
        "[U]" + "(F)" * 1_100,
        "C1=CC=CC=C1/C=C/" + "C" * 300 + "[Fe-5]",
        "[CH3:2]" + "C" * 300,
        ".".join(["C12C3C4C1C5C2C3C45"] * 22),
        # RDKit lists 264 rings of its 96 bonds.
        "C1" + "OC2OC(C)C(C(O)C2O)" * 8 + "1",
    ),
)
SETS = {
    "chebi20/test": ("chebi20/test.csv.gz", "SMILES"),
    "chebi20/validation": ("chebi20/validation.csv.gz", "SMILES"),
    "bace": ("moleculenet/bace.csv.gz", "smiles"),
    "hiv": ("moleculenet/hiv.csv.gz", "smiles"),
    "tox21": ("moleculenet/tox21.csv.gz", "smiles"),
    "uspto50k": ("reactions/uspto50k.csv.gz", "reactants"),
    "uspto15k_mapped": ("reactions/uspto15k_mapped.csv.gz", None),
}


def rows(schemes: Sequence[FeatureScheme], molecules: Sequence[str]) -> list[list[Rows]]:
    """The rows of each scheme, chunk by chunk."""
    wanted = {tuple(range(len(schemes))): molecules}
    return [parts for _, parts in featurise_many(schemes, wanted, 1, lambda done: None)]


def assert_plain(monkeypatch: pytest.MonkeyPatch, schemes: Sequence[FeatureScheme], molecules: Sequence[str]) -> None:
    """The rows, the order and the reasons are those of the plain path."""
    monkeypatch.setattr(featurising, "_BINARY_FROM", 1)
    found = rows(schemes, molecules)
    monkeypatch.setattr(featurising, "_BINARY_FROM", len(molecules) + 1)
    assert_same(found, rows(schemes, molecules))


def assert_same(found: list[list[Rows]], expected: list[list[Rows]]) -> None:
    for own, plain in zip(
        (part for parts in found for part in parts), (part for parts in expected for part in parts), strict=True
    ):
        assert list(own.molecules) == list(plain.molecules)
        assert list(own.rejected.items()) == list(plain.rejected.items())
        assert np.array_equal(own.num_atoms, plain.num_atoms)
        assert own.values.keys() == own.counts.keys() == plain.values.keys()
        for name, values in plain.values.items():
            assert own.values[name].dtype == values.dtype
            assert np.array_equal(own.values[name], values), name
            assert np.array_equal(own.counts[name], plain.counts[name]), name


def real_molecules(folder: Path, name: str, count: int) -> list[str]:
    """Distinct molecules of a file, always the same ones."""
    file, column = SETS[name]
    path = folder / file
    if not path.exists():
        pytest.skip(f"{file} is not in the data folder")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        cells = {row[column] if column else max(row.values(), key=len) for row in csv.DictReader(lines)}
    return sorted(cells, key=lambda smiles: hashlib.sha256(smiles.encode()).digest())[:count]


def parsed(*smiles: str) -> list[Chem.Mol]:
    with rdBase.BlockLogs():
        return [molecule for each in smiles if (molecule := Chem.MolFromSmiles(each)) is not None]


@pytest.mark.parametrize("name", SETS)
def test_rows_of_real_molecules_are_those_of_the_plain_path(
    name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_plain(monkeypatch, SCHEMES, real_molecules(data_folder, name, 250))


@pytest.mark.parametrize("name", ["chebi20/test", "hiv", "uspto50k"])
def test_all_real_molecules_are_read(name: str, data_folder: Path) -> None:
    molecules = parsed(*real_molecules(data_folder, name, 500))
    assert Binaries([molecule.ToBinary(0) for molecule in molecules]).is_read.all()
    if name == "chebi20/test":
        assert max(map(Chem.Mol.GetNumAtoms, molecules)) > 255


def test_what_is_unusual_is_as_on_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_plain(monkeypatch, SCHEMES, UNUSUAL)


def test_molecules_that_stand_several_times_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_plain(monkeypatch, [Ogb9(), MolCa2()], ["*C", "CC", "CC", "*C", "C[Pt@SP1](F)(Cl)Br", "*C", "CC"])


@pytest.mark.parametrize("molecules", [["((("], ["(((", "C*"], ["*"], ["C"], ["[Na+].[Cl-]"], ["C" * 300]], ids=str)
def test_chunks_without_anything_to_read(molecules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert_plain(monkeypatch, SCHEMES, molecules)


def test_schemes_of_both_kinds_share_a_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    molecules = ["c1ccccc1CCN", "(((", "C*", "CCO", "C" * 300]
    assert_plain(monkeypatch, [MotifScheme(), Ogb9(), Pgnn2()], molecules)


PIECES = (
    *(
        "C",
        "c1ccccc1",
        "N",
        "[NH3+]",
        "[O-]",
        "O",
        "S(=O)(=O)",
        "C(=O)",
        "C#C",
        "/C=C/",
        "\\C=C/",
        "[C@@H](F)",
        "[C@H](N)",
    ),
    *(
        "[13CH2]",
        "[CH]",
        "P",
        "[Si]",
        "Cl",
        "B",
        "(C)",
        "C1CC1",
        "C2CCCCC2",
        "[nH]1cccc1",
        "->[Pt]",
        ".",
        "[Na+]",
        "[2H]",
        "$C",
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join), min_size=1, max_size=40))
def test_random_molecules_are_read_as_rdkit_has_them(smiles: list[str]) -> None:
    molecules = parsed(*smiles)
    assert first_difference(molecules) is None
    assert Binaries([molecule.ToBinary(0) for molecule in molecules]).is_read.all()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from((230, 250, 256, 300)),
    st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).map("".join), min_size=1, max_size=6),
)
def test_random_large_molecules_are_read_as_rdkit_has_them(length: int, smiles: list[str]) -> None:
    chain = "C" * length
    molecules = parsed(*(each + chain for each in smiles), *(chain + each for each in smiles), *smiles)
    assert first_difference(molecules) is None
    assert Binaries([molecule.ToBinary(0) for molecule in molecules]).is_read.all()


def test_the_sample_shows_every_field_with_several_values() -> None:
    sample = (*binary_schemes._SAMPLE, *binary_schemes._LARGE)
    read = Binaries([molecule.ToBinary(0) for molecule in parsed(*sample)])
    assert read.is_read.tolist() == [not ("*" in smiles or ":" in smiles) for smiles in sample]
    assert 250 < max(read.begin) < max(read.end)
    least = {Binaries.chirality: 5, Binaries.hybridisation: 6, Binaries.bond_type: 6, Binaries.stereo: 3}
    for field in (*binary_schemes._ATOM_READS.values(), *binary_schemes._BOND_READS.values()):
        assert len(np.unique(field(read))) >= least.get(field, 2), field
    assert is_trusted()


# Where the atoms and bonds of methanol's binary form begin, and what may not be announced in its flags.
METHANOL = parsed("CO")[0].ToBinary(0)
FIRST_ATOM, FIRST_BOND = 30, METHANOL.index(b"\x0b", 30) + 1
# The same where atoms have four bytes: the last bond, the number of rings (one), its size and its three atoms.
LARGE = parsed("C" * 252 + "/C=C/C1CC1")[0].ToBinary(0)
RINGS = LARGE.index(b"\x42\x01\0\0\0\x03\0\0\0") + 1
LAST_BOND, STEREO_ATOMS = RINGS - 10, LARGE.index(b"\x0a\x02\x03\x02") + 3


@pytest.mark.parametrize(
    ("place", "byte"),
    [
        *((FIRST_ATOM + 1, 1 << bit) for bit in (0, 1, 2, 3, 4, 7)),
        *((FIRST_ATOM + 2, METHANOL[FIRST_ATOM + 2] | bit) for bit in (1,)),
        *((FIRST_ATOM + 3, 1 << bit) for bit in range(1, 8)),
        *((FIRST_ATOM + byte, 1) for byte in (4, 5)),
        *((FIRST_BOND + 2, 1 << bit) for bit in (0, 4, 7)),
        (FIRST_BOND, 2),
        (FIRST_BOND - 1, 0x0C),
        (len(METHANOL) - len(b"\x42") - METHANOL[::-1].index(0x42), 0x43),
        (0, 0),
        *((place, 99) for place in (8, 12, 20, 21, 24, 28, 29)),
    ],
)
def test_a_molecule_with_anything_unknown_is_not_read(place: int, byte: int) -> None:
    assert_not_read(METHANOL, place, byte)


@pytest.mark.parametrize(
    ("place", "byte"),
    [
        *((place, 1) for place in (22, 23, 26, 27)),
        (21, 0),
        *((end + place, 2) for end in (LAST_BOND, LAST_BOND + 4) for place in (1, 2, 3)),
        (LAST_BOND + 3, 0x80),
        *((STEREO_ATOMS, count) for count in (0, 1, 3)),
        *((RINGS + place, 2) for place in (0, 1, 2, 3)),
        *((RINGS + place, 1) for place in (5, 6, 7)),
        (RINGS + 4, 4),
        *((atom + place, 2) for atom in range(RINGS + 8, RINGS + 20, 4) for place in (1, 2, 3)),
        (RINGS + 11, 0x80),
    ],
)
def test_a_large_molecule_with_atoms_or_sizes_that_cannot_be_is_not_read(place: int, byte: int) -> None:
    assert Binaries([LARGE]).is_read.all()
    assert_not_read(LARGE, place, byte)


def assert_not_read(binary: bytes, place: int, byte: int) -> None:
    strange = bytearray(binary)
    assert strange[place] != byte
    strange[place] = byte
    ethane = parsed("CC")[0].ToBinary(0)
    read = Binaries([ethane, bytes(strange), ethane])
    assert read.is_read.tolist() == [True, False, True]
    assert read.atomic_number().tolist() == [6, 6, 6, 6]


def test_more_than_255_bonds_widen_indices_in_version_4_and_not_in_version_3() -> None:
    binaries = [molecule.ToBinary(0) for molecule in parsed("C" * 300, "C1CC1" + "C" * 249 + "C1CC1", "CC")]
    assert Binaries(binaries).is_read.all()
    others = [binary[:12] + bytes([7 - binary[12]]) + binary[13:] for binary in binaries]
    assert Binaries(others).is_read.tolist() == [True, False, True]


def test_more_atoms_than_columns_can_point_at_are_not_read() -> None:
    molecules = parsed("C" * 65_535, "C" * 65_536)
    assert Binaries([molecule.ToBinary(0) for molecule in molecules]).is_read.tolist() == [True, False]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_bytes_there_are_molecules_beside_them_are_read(data: st.DataObject) -> None:
    small = parsed("F/C=C/[C@H](N)C#N", "C1CC1c1ccncc1", "[13CH3][NH3+]")
    binaries = [*(molecule.ToBinary(0) for molecule in small), LARGE]
    strange = bytearray(data.draw(st.sampled_from(binaries)))
    places = st.integers(20, len(strange) - 1) | st.integers(max(20, len(strange) - 100), len(strange) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=9)):
        strange[place] = byte
    end = data.draw(st.just(len(strange)) | st.integers(0, len(strange)))
    # The last molecule is followed by nothing into which it might be read on.
    alone = Binaries([*binaries, bytes(strange[:end])])
    assert alone.is_read[:-1].all()
    read = Binaries([binaries[0], bytes(strange[:end]), *binaries[1:]])
    assert read.is_read[[0, 2, 3, 4]].all()
    assert read.is_read[1] == alone.is_read[-1]
    behind = Binaries(binaries[1:])
    for scheme in SCHEMES:
        found = rows_of(scheme, read).values
        for name, values in rows_of(scheme, behind).values.items():
            assert np.array_equal(found[name][-len(values) :], values), name


@pytest.fixture
def untrusted():
    is_trusted.cache_clear()
    yield
    is_trusted.cache_clear()


def test_another_version_of_the_layout_is_not_read(untrusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary_schemes, "VERSIONS", ((16, 2),))
    assert not is_trusted()
    assert not is_binary(Ogb9())
    assert_plain(monkeypatch, SCHEMES, UNUSUAL)


@pytest.mark.parametrize("field", ["_RADICALS", "_IMPLICIT_HS", "_CHIRALITY", "_SP3", "_CONJUGATED", "_SINGLE"])
def test_a_layout_that_has_changed_is_told_of_and_not_read(
    untrusted: None, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, field, getattr(binary, field) ^ 2)
    with pytest.warns(UserWarning, match="otherwise than known"):
        assert not is_trusted()
    assert_plain(monkeypatch, [Ogb9()], UNUSUAL)


@dataclass(frozen=True, kw_only=True)
class Pluggedin(Pgnn2):
    """As a plug-in may have it."""

    name: ClassVar[str] = "pluggedin"


@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
def test_every_scheme_of_tables_is_read_at_once(scheme: CategoricalScheme) -> None:
    assert is_binary(scheme)


@pytest.mark.parametrize("scheme", [Pluggedin(), MotifScheme()], ids=repr)
def test_other_schemes_keep_the_plain_path(scheme: FeatureScheme, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_binary(scheme)
    assert_plain(monkeypatch, [scheme], UNUSUAL)


def test_few_molecules_are_featurised_before_anything_is_tested(
    untrusted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_schemes, "first_difference", lambda molecules: pytest.fail("tested"))
    rows([Ogb9()], ["CCO"])
