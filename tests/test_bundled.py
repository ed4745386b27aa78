"""The bundled data set: made again it has the same bytes, what it says is true, and size alone tells nothing."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import Fragments

import tasks.bundled
from tasks.bundled import make_dialogues
from tasks.bundled.describe import describe
from tasks.bundled.make import FILE_NAME, main
from tasks.data import Catalogue, Row
from tasks.instruction import Instruction

FILE = Path(tasks.bundled.__file__).with_name(FILE_NAME)


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Row]]:
    dataset = Catalogue().get("bundled")
    read = {split: dataset.rows(split) for split in dataset.splits}
    assert all(not rejections for _, rejections in read.values())
    return {split: rows for split, (rows, _) in read.items()}


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text.lower()))


def size(row: Row) -> int:
    return Chem.MolFromSmiles(row.values["smiles"]).GetNumAtoms()


def test_made_again_it_has_the_same_bytes(tmp_path):
    main([str(tmp_path)])
    assert (tmp_path / FILE_NAME).read_bytes() == FILE.read_bytes()


def test_dialogues_made_again_have_the_same_bytes(tmp_path):
    make_dialogues.main([str(tmp_path)])
    assert (tmp_path / make_dialogues.FILE_NAME).read_bytes() == FILE.with_name(make_dialogues.FILE_NAME).read_bytes()


def test_dialogues_are_of_the_molecules_of_their_split(splits):
    task = Instruction(data="bundled-dialogues", asked="last")
    sizes = {}
    for split, rows in splits.items():
        examples, rejections = task.examples(split, Catalogue())
        assert not rejections
        assert {molecule for example in examples for molecule in example.molecules} <= {
            r.values["smiles"] for r in rows
        }
        sizes[split] = len(examples)
    assert sizes == {"train": 160, "validation": 20, "test": 20}
    assert FILE.with_name(make_dialogues.FILE_NAME).stat().st_size < 200_000


def test_sizes_and_order(splits):
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 600, "validation": 100, "test": 100}
    assert FILE.stat().st_size < 200_000
    ids = [row.id for rows in splits.values() for row in rows]
    assert len(set(ids)) == 800
    with FILE.open(encoding="utf-8", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ids


def test_no_molecule_stands_twice(splits):
    smiles = [Chem.CanonSmiles(row.values["smiles"]) for rows in splits.values() for row in rows]
    assert len(set(smiles)) == len(smiles)


def test_every_description_is_that_of_its_graph(splits):
    for row in (row for rows in splits.values() for row in rows):
        assert row.values["caption"] == describe(row.values["smiles"])
        other_order = Chem.MolToSmiles(Chem.MolFromSmiles(row.values["smiles"]), doRandom=True)
        assert row.values["caption"] == describe(other_order), other_order
        assert 1 <= row.values["caption"].count(".") <= 3


def test_vocabulary_is_small_and_training_has_all_of_it(splits):
    vocabulary = {split: set().union(*(words(row.values["caption"]) for row in rows)) for split, rows in splits.items()}
    assert len(set().union(*vocabulary.values())) < 150
    assert vocabulary["validation"] | vocabulary["test"] <= vocabulary["train"]


def test_molecules_of_equal_size_are_told_apart(splits):
    by_size = defaultdict(list)
    for row in splits["test"]:
        by_size[size(row)].append(row.values["caption"])
    pairs = [pair for captions in by_size.values() for pair in combinations(captions, 2)]
    differing = sum(first != second for first, second in pairs) / len(pairs)
    assert len(pairs) > 300
    assert differing >= 0.95


def test_descriptions_of_test_are_hardly_ever_those_of_training(splits):
    seen = {row.values["caption"] for row in splits["train"]}
    assert sum(row.values["caption"] in seen for row in splits["test"]) <= 10


def test_awkward_molecules_are_there(splits):
    smiles = {split: [row.values["smiles"] for row in rows] for split, rows in splits.items()}
    every = [each for rows in smiles.values() for each in rows]
    assert any("." in each for each in every)
    assert any("@" in each for each in smiles["test"])
    for split in smiles:
        assert any(Chem.MolFromSmiles(each).GetNumBonds() == 0 for each in smiles[split]), split


# RDKit's own fragment counts, where their definition is ours.
COUNTED_BY_RDKIT = {
    "carboxylic acid group": lambda mol: len(mol.GetSubstructMatches(Chem.MolFromSmarts("C(=O)[OX2H]"))),
    "nitro group": lambda mol: Fragments.fr_nitro(mol),
    "nitrile group": lambda mol: Fragments.fr_nitrile(mol),
    "aldehyde group": lambda mol: Fragments.fr_aldehyde(mol) + (Chem.MolToSmiles(mol) == "C=O"),
    "sulfonamide group": lambda mol: Fragments.fr_sulfonamd(mol),
    "chlorine atom": lambda mol: sum(
        atom.GetSymbol() == "Cl" and atom.GetFormalCharge() == 0 for atom in mol.GetAtoms()
    ),
    "fluorine atom": lambda mol: sum(
        atom.GetSymbol() == "F" and atom.GetFormalCharge() == 0 for atom in mol.GetAtoms()
    ),
    "R centre": lambda mol: [label for _, label in Chem.FindMolChiralCenters(mol)].count("R"),
    "S centre": lambda mol: [label for _, label in Chem.FindMolChiralCenters(mol)].count("S"),
}
COUNTS = ["no", "one", "two", "three", "four", "five", "six"]


@pytest.mark.parametrize("phrase", COUNTED_BY_RDKIT)
def test_counts_agree_with_an_independent_count(splits, phrase):
    for row in (row for rows in splits.values() for row in rows):
        said = re.search(rf"(\w+) {phrase}s?\b", row.values["caption"])
        found = COUNTED_BY_RDKIT[phrase](Chem.MolFromSmiles(row.values["smiles"]))
        assert (COUNTS.index(said.group(1)) if said else 0) == found, row


@pytest.mark.parametrize(
    ("smiles", "said"),
    [
        ("[He]", "The molecule is a single helium atom."),
        ("O", "no carbon atoms. It contains two hydrogen atoms and one oxygen atom."),
        ("C", "The molecule is an acyclic compound with one carbon atom."),
        ("[Na+].[Cl-]", "a salt of two ions, an acyclic compound with no carbon atoms. It contains one sodium ion and"),
        ("O.O", "a mixture of two parts"),
        ("CC(=O)Oc1ccccc1C(=O)O", "one benzene ring that has groups at positions one and two. It contains one carb"),
        ("Cc1cc(C)cc(C)c1", "groups at positions one, three and five"),
        ("Cc1cccc(C)c1C", "groups at positions one, two and three"),
        ("CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O", "a chain of three carbon atoms and one S centre."),
        ("c1ccc2[nH]ccc2c1", "one fused pyrrole ring and one fused benzene ring."),
        ("c1ccc(cc1)c1ccncc1", "one pyridine ring and one benzene ring."),
        ("C1CCC=CC1", "a cyclic compound with one cyclohexene ring."),
        ("C1CCCCCCC1", "one eight-membered ring"),
        ("O=C1C=CC(=O)C=C1", "one six-membered ring. It contains two ketone groups."),
        ("C[n+]1ccccc1", "one six-membered ring. It contains one methyl group. It has a charge of plus one."),
        ("[Fe+3].[Cl-].[Cl-].[Cl-]", "three chloride ions and one Fe ion."),
        ("C" * 30, "a chain of 30 carbon atoms."),
        ("C1" + "C" * 29 + "1", "one 30-membered ring."),
        ("COC", "one ether group and two methyl groups."),
        ("CCOC", "one methoxy group and one methyl group."),
        ("COC(C)=O", "one ester group and two methyl groups."),
        ("NCC(=O)NC", "one amide group, one primary amine group and one methyl group."),
        ("OC(=O)/C=C/C(=O)O", "one E double bond"),
    ],
)
def test_what_is_said(smiles, said):
    assert said in describe(smiles)


def test_groups_that_are_not_there_are_not_said():
    assert "ether" not in describe("CC(=O)OCC")
    assert "amine" not in describe("CC(=O)NC")
    assert "amine" not in describe("NS(=O)(=O)c1ccccc1")
    assert "hydroxy" not in describe("CC(=O)O")
    assert "aldehyde" not in describe("O=CO")
    assert "nitro group" not in describe("O[N+](=O)[O-]")


def test_not_a_molecule():
    with pytest.raises(ValueError, match="not a molecule: 'C1'"):
        describe("C1")
