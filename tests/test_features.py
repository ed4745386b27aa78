"""Feature schemes: the published featurisers' rows, what each table lacks, and molecules at the edges."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import BondDir, BondStereo, ChiralType

from encoders.base import GraphScheme, RejectedMoleculeError
from encoders.features import Himol2, MolClr2, Pgnn2
from encoders.ogb_features import InstructMol2, MolCa2, Ogb9
from encoders.store import FeatureStore, featurise

SCHEMES: tuple[GraphScheme, ...] = (
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
every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
LONG_CHAIN = "C" * 574
WORKING = (
    "[H][H]",
    "[2H]C([2H])([2H])[2H]",
    "[H+]",
    "[Na+].[Cl-]",
    "[Og]",
    "C",
    "F/C=C/[C@H](N)C#N",
    "c1ccc2[nH]ccc2c1",
    "[O-][N+](=O)c1ccccc1.[K+]",
    "[CH3]",
    LONG_CHAIN,
)
every_molecule = pytest.mark.parametrize("smiles", WORKING, ids=lambda smiles: smiles[:20])


def joined(scheme: GraphScheme, molecules: list[str]) -> dict[str, np.ndarray]:
    """The rows of several molecules, `bond_ends` still counted within each."""
    rows = [featurise([scheme], smiles)[1] for smiles in molecules]
    return {name: np.concatenate([row[name] for row in rows]) for name in scheme.columns()}


def reason(scheme: GraphScheme, molecule: str | Chem.Mol) -> str:
    parsed = Chem.MolFromSmiles(molecule) if isinstance(molecule, str) else molecule
    with pytest.raises(RejectedMoleculeError) as caught:
        scheme.featurise(parsed, "")
    return str(caught.value)


def with_bond(smiles: str, index: int, *, stereo: BondStereo | None = None, direction: BondDir | None = None):
    molecule = Chem.MolFromSmiles(smiles)
    bond = molecule.GetBondWithIdx(index)
    if stereo is not None:
        if stereo in {BondStereo.STEREOCIS, BondStereo.STEREOTRANS, BondStereo.STEREOZ, BondStereo.STEREOE}:
            bond.SetStereoAtoms(index - 1, index + 2)
        bond.SetStereo(stereo)
    if direction is not None:
        bond.SetBondDir(direction)
    return molecule


def with_chirality(tag: ChiralType) -> Chem.Mol:
    molecule = Chem.MolFromSmiles("CC(F)(Cl)Br")
    molecule.GetAtomWithIdx(1).SetChiralTag(tag)
    return molecule


# The published featurisers


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("pgnn", Pgnn2()), ("pgnn", MolClr2()), ("ogb9", Ogb9()), ("instructmol2", InstructMol2())],
    ids=["pgnn2", "molclr2", "ogb9", "instructmol2"],
)
def test_rows_are_those_of_the_published_featuriser(golden: Path, name: str, scheme: GraphScheme, tmp_path: Path):
    molecules = [entry["smiles"] for entry in json.loads((golden / "gin" / "molecules.json").read_text())]
    batch = FeatureStore.open_or_build(tmp_path, [scheme], molecules).batch(molecules)
    with np.load(golden / "gin" / "features.npz") as stored:
        assert np.array_equal(batch["atom"].values, stored[f"{name}.x"])
        assert np.array_equal(batch["atom"].ptr, stored[f"{name}.ptr"])
        assert np.array_equal(batch["bond"].values, stored[f"{name}.edge_attr"])
        assert np.array_equal(batch["bond_ends"].values.T, stored[f"{name}.edge_index"])
        assert np.array_equal(batch["bond"].ptr, stored[f"{name}.edge_ptr"])


def test_himol2_gives_the_published_rows_of_real_atoms_and_bonds(golden: Path):
    entries = json.loads((golden / "gin" / "molecules.json").read_text())
    with np.load(golden / "gin" / "features.npz") as file:
        stored = {key.removeprefix("himol."): file[key] for key in file if key.startswith("himol.")}
    for number, entry in enumerate(entries):
        _, rows = featurise([Himol2()], entry["smiles"])
        first, edges = stored["ptr"][number], slice(*stored["edge_ptr"][number : number + 2])
        num_atoms = entry["himol_num_part"][0]
        ends = stored["edge_index"][:, edges].T - first
        real = (ends < num_atoms).all(axis=1)
        assert np.array_equal(rows["atom"], stored["x"][first : first + num_atoms])
        assert np.array_equal(rows["bond_ends"], ends[real])
        assert np.array_equal(rows["bond"], stored["edge_attr"][edges][real])


def test_instructmol_and_ogb_rows_of_the_same_molecules(golden: Path):
    with np.load(golden / "instructmol" / "golden.npz") as stored:
        molecules = stored["smiles"].tolist()
        two, nine = joined(InstructMol2(chirality_rows=5), molecules), joined(Ogb9(chirality_rows=5), molecules)
        assert np.array_equal(two["atom"], stored["x2"])
        assert np.array_equal(two["bond"], stored["edge_attr2"])
        assert np.array_equal(nine["atom"], stored["x9"])
        assert np.array_equal(nine["bond"], stored["edge_attr3"])
        assert np.array_equal(two["bond_ends"].T, stored["edge_index"])
        assert not np.array_equal(stored["edge_attr2"][:, 1], stored["edge_attr3"][:, 1]), "direction is not stereo"


def test_llamo_reads_ogb_rows_with_four_chiralities(golden: Path):
    with np.load(golden / "llamo" / "model_golden.npz") as stored:
        rows = joined(Ogb9(), stored["smiles_raw"].tolist())
        assert np.array_equal(rows["atom"], stored["x"])
        assert np.array_equal(rows["bond"], stored["edge_attr"])
        assert np.array_equal(rows["bond_ends"].T, stored["edge_index"])


def test_molca2_gives_the_first_two_ogb_columns(golden: Path):
    molecules = json.loads((golden / "molx" / "smiles.json").read_text())
    rows = joined(MolCa2(), molecules)
    with np.load(golden / "molx" / "molx_io.npz") as stored:
        assert np.array_equal(rows["atom"], stored["x"][:, :2])
        assert np.array_equal(rows["bond"], stored["edge_attr"][:, :2])
        first = np.searchsorted(stored["batch"], stored["batch"][stored["edge_index"]])
        assert np.array_equal(rows["bond_ends"].T, stored["edge_index"] - first)


# What is declared


def test_sizes_and_self_loops():
    declared = {repr(scheme): (scheme.atom_sizes(), scheme.bond_sizes(), scheme.self_loop) for scheme in SCHEMES}
    assert declared == {
        "Pgnn2(chirality_rows=3)": ((120, 3), (6, 3), (4, 0)),
        "Pgnn2(chirality_rows=4)": ((120, 4), (6, 3), (4, 0)),
        "MolClr2()": ((119, 3), (5, 3), (4, 0)),
        "Ogb9(chirality_rows=4)": ((119, 4, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2), None),
        "Ogb9(chirality_rows=5)": ((119, 5, 12, 12, 10, 6, 6, 2, 2), (5, 6, 2), None),
        "InstructMol2(chirality_rows=4)": ((119, 4), (5, 6), None),
        "InstructMol2(chirality_rows=5)": ((119, 5), (5, 6), None),
        "MolCa2()": ((120, 3), (6, 3), (0, 0)),
        "Himol2(wildcards=False)": ((118, 11), (4, 3), None),
        "Himol2(wildcards=True)": ((119, 11), (4, 3), None),
    }


@every_scheme
@every_molecule
def test_rows_stay_within_what_is_declared(scheme: GraphScheme, smiles: str):
    size, rows = featurise([scheme], smiles)
    columns = scheme.columns()
    assert rows.keys() == columns.keys()
    assert len(rows["atom"]) == size
    assert len(rows["bond"]) == len(rows["bond_ends"])
    for name, column in columns.items():
        assert rows[name].dtype == column.dtype
        assert rows[name].shape[1:] == column.shape
        assert rows[name].flags.c_contiguous
    assert (rows["atom"] < np.array(scheme.atom_sizes())).all()
    assert (rows["bond"] < np.array(scheme.bond_sizes())).all()
    assert np.array_equal(rows["bond_ends"][0::2], rows["bond_ends"][1::2, ::-1]), (
        "both directions, one after the other"
    )
    assert np.array_equal(rows["bond"][0::2], rows["bond"][1::2])


@every_scheme
def test_more_atoms_than_bonds_can_point_at_are_rejected(scheme: GraphScheme):
    molecule = Chem.RWMol()
    for _ in range(65_536):
        molecule.AddAtom(Chem.Atom(6))
    assert "65,536 atoms" in reason(scheme, molecule)


# What each table lacks


@pytest.mark.parametrize("scheme", [Pgnn2(), MolClr2(), Himol2()], ids=repr)
def test_a_wildcard_has_no_row_in_tables_of_elements(scheme: GraphScheme):
    assert reason(scheme, "CC*") == f"atom 2 has atomic number 0 (a wildcard), which {scheme.name} cannot express"


@pytest.mark.parametrize("scheme", [Ogb9(), InstructMol2(), MolCa2(), Himol2(wildcards=True)], ids=repr)
def test_a_wildcard_is_ogbs_misc(scheme: GraphScheme):
    assert featurise([scheme], "CC*")[1]["atom"][:, 0].tolist() == [5, 5, 118]


@pytest.mark.parametrize("scheme", [Pgnn2(), MolClr2(), Himol2(), InstructMol2()], ids=repr)
@pytest.mark.parametrize(("smiles", "kind"), [("CCN->[Cu]", "DATIVE"), ("[U]$[U]", "QUADRUPLE")])
def test_other_bond_types_are_rejected(scheme: GraphScheme, smiles: str, kind: str):
    found = reason(scheme, smiles)
    assert found.startswith(f"bond {2 if kind == 'DATIVE' else 0} has type ")
    assert kind in found
    assert found.endswith(f"which {scheme.name} cannot express")


@pytest.mark.parametrize("scheme", [Ogb9(), MolCa2()], ids=repr)
@pytest.mark.parametrize("smiles", ["N->[Cu]", "[U]$[U]"])
def test_other_bond_types_are_ogbs_misc(scheme: GraphScheme, smiles: str):
    assert featurise([scheme], smiles)[1]["bond"][:, 0].tolist() == [4, 4]


CHIRAL = {
    ChiralType.CHI_TETRAHEDRAL_CW: (1, 1, 1, 1, 1),
    ChiralType.CHI_TETRAHEDRAL_CCW: (2, 2, 2, 2, 2),
    ChiralType.CHI_OTHER: (3, 3, 3, None, None),
    ChiralType.CHI_ALLENE: (3, 4, None, None, None),
    ChiralType.CHI_SQUAREPLANAR: (3, 4, None, None, None),
    ChiralType.CHI_OCTAHEDRAL: (3, 4, None, None, None),
}


@pytest.mark.parametrize(("tag", "expected"), CHIRAL.items(), ids=str)
def test_chirality(tag: ChiralType, expected: tuple[int | None, ...]):
    molecule = with_chirality(tag)
    schemes = (Ogb9(), Ogb9(chirality_rows=5), InstructMol2(chirality_rows=5), MolCa2(), Pgnn2())
    for scheme, row in zip(schemes, expected, strict=True):
        if row is None:
            assert reason(scheme, molecule) == f"atom 1 has chirality {tag}, which {scheme.name} cannot express"
        else:
            assert scheme.featurise(molecule, "")["atom"][1, 1] == row


def test_square_planar_platinum_from_smiles():
    smiles = "C[Pt@SP1](F)(Cl)I"
    assert featurise([Ogb9()], smiles)[1]["atom"][1, :2].tolist() == [77, 3]
    assert featurise([Ogb9(chirality_rows=5)], smiles)[1]["atom"][1, :2].tolist() == [77, 4]
    assert "CHI_SQUAREPLANAR" in reason(MolCa2(), smiles)
    assert featurise([Himol2()], smiles)[1]["atom"][1].tolist() == [77, 4], "HiMol reads no chirality"


STEREO = {
    BondStereo.STEREONONE: (0, 0),
    BondStereo.STEREOZ: (1, 1),
    BondStereo.STEREOE: (2, 2),
    BondStereo.STEREOCIS: (3, None),
    BondStereo.STEREOTRANS: (4, None),
    BondStereo.STEREOANY: (5, None),
    BondStereo.STEREOATROPCW: (None, None),
    BondStereo.STEREOATROPCCW: (None, None),
}


@pytest.mark.parametrize(("stereo", "expected"), STEREO.items(), ids=str)
def test_bond_stereo(stereo: BondStereo, expected: tuple[int | None, ...]):
    molecule = with_bond("CC=CC", 1, stereo=stereo)
    for scheme, row in zip((Ogb9(), MolCa2()), expected, strict=True):
        if row is None:
            assert reason(scheme, molecule) == f"bond 1 has stereo {stereo}, which {scheme.name} cannot express"
        else:
            assert scheme.featurise(molecule, "")["bond"][2:4, 1].tolist() == [row, row]
    assert Pgnn2().featurise(molecule, "")["bond"][2:4].tolist() == [[1, 0], [1, 0]], "it reads no stereo"


@pytest.mark.parametrize("scheme", [Pgnn2(), MolClr2(), InstructMol2()], ids=repr)
def test_other_bond_directions_are_rejected(scheme: GraphScheme):
    molecule = with_bond("CCO", 1, direction=BondDir.BEGINWEDGE)
    assert reason(scheme, molecule) == f"bond 1 has direction BEGINWEDGE, which {scheme.name} cannot express"


def test_values_beyond_ogbs_lists_are_misc():
    atom = Chem.MolFromSmiles("[Fe+7]").GetAtomWithIdx(0)
    atom.SetNumRadicalElectrons(7)
    atom.SetNumExplicitHs(12)
    rows = Ogb9().featurise(atom.GetOwningMol(), "")["atom"][0].tolist()
    assert rows == [25, 0, 11, 11, 9, 5, 5, 0, 0]


def test_ogb9_of_an_amino_acid_by_hand():
    _, rows = featurise([Ogb9()], "C[C@H](N)C(=O)[O-]")
    # element, chirality, degree, charge, hydrogens, radicals, hybridisation, aromatic, ring
    assert rows["atom"].tolist() == [
        [5, 0, 4, 5, 3, 0, 2, 0, 0],
        [5, 2, 4, 5, 1, 0, 2, 0, 0],
        [6, 0, 3, 5, 2, 0, 2, 0, 0],
        [5, 0, 3, 5, 0, 0, 1, 0, 0],
        [7, 0, 1, 5, 0, 0, 1, 0, 0],
        [7, 0, 1, 4, 0, 0, 1, 0, 0],
    ]
    assert rows["bond"][0::2].tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]]


def test_himol2_counts_neighbours_and_knows_rings():
    _, rows = featurise([Himol2()], "C1CC1C")
    assert rows["atom"].tolist() == [[5, 2], [5, 2], [5, 3], [5, 1]]
    assert rows["bond"][0::2].tolist() == [[0, 2], [0, 2], [0, 1], [0, 2]]


def test_himol2_has_rows_up_to_ten_neighbours():
    cluster = "[U]" + "(F)" * 10
    assert featurise([Himol2()], cluster)[1]["atom"][0].tolist() == [91, 10]
    assert reason(Himol2(), cluster + "F") == "atom 0 has degree 11, which himol2 cannot express"


# Real molecules


def chebi(folder: Path, every: int = 1) -> list[str]:
    with gzip.open(folder / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return [row["SMILES"].replace("\\\\", "\\") for row in csv.DictReader(file)][::every]


@every_scheme
def test_every_real_molecule_is_kept_or_rejected_with_a_reason(scheme: GraphScheme, data_folder: Path, tmp_path: Path):
    molecules = list(dict.fromkeys(chebi(data_folder, every=11)))
    store = FeatureStore.open_or_build(tmp_path, [scheme], molecules)
    assert len(store.row_of) + len(store.rejected) == len(molecules) == 300
    assert all("cannot express" in why for why in store.rejected.values())
    assert len(store.row_of) >= 299
    batch = store.batch(list(store.row_of))
    assert (batch["atom"].values.numpy() < np.array(scheme.atom_sizes())).all()
    assert (batch["bond"].values.numpy() < np.array(scheme.bond_sizes())).all()


def test_every_scheme_is_found_by_its_name():
    from bench.registry import registry

    found: Mapping[str, type] = registry().all("features")
    assert {scheme.name: type(scheme) for scheme in SCHEMES}.items() <= found.items()
