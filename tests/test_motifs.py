"""Segmenters and the scheme of motifs: the published rules' motifs, the random control, and molecules at the edges."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, rdBase

from encoders import functional_groups
from encoders.base import RejectedMoleculeError, Segmenter
from encoders.functional_groups import FunctionalGroup
from encoders.motifs import Brics, Himol, MotifScheme, RandomPartition
from encoders.ogb_features import Ogb9
from encoders.store import FeatureStore, featurise

SEGMENTERS: tuple[Segmenter, ...] = (
    Brics(),
    Himol(),
    FunctionalGroup(),
    RandomPartition(),
    RandomPartition(of=Himol(), seed=1),
    RandomPartition(of=FunctionalGroup()),
)
every_segmenter = pytest.mark.parametrize("segmenter", SEGMENTERS, ids=repr)
ASPIRIN, IMATINIB = "CC(=O)Oc1ccccc1C(=O)O", "Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1"
MOLECULES = (
    ASPIRIN,
    IMATINIB,
    "C",
    "CC",
    "*",
    "CC*",
    "[H][H]",
    "[2H]C([2H])([2H])[2H]",
    "[Na+].[Cl-]",
    "[Na+].CC(=O)[O-]",
    "[NH3]->[Pt](<-[NH3])(Cl)Cl",
    "[U]$[U]",
    "C[Pt@SP1](F)(Cl)I",
    "C12C3C4C1C5C2C3C45",
    "c1ccc2cc3ccccc3cc2c1",
    "C1CCCCCCCCCCCCCC1",
    "CCOC(=O)C" + "C" * 574,
)


def molecule_of(smiles: str) -> Chem.Mol:
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles)


def motifs_of(segmenter: Segmenter, smiles: str) -> list[list[int]]:
    return [list(motif) for motif in segmenter.motifs(molecule_of(smiles))]


def sizes_of(motifs: Sequence[Sequence[int]]) -> list[int]:
    return sorted(map(len, motifs))


def is_connected(molecule: Chem.Mol, motif: Sequence[int]) -> bool:
    reached, waiting = {motif[0]}, [motif[0]]
    while waiting:
        near = {atom.GetIdx() for atom in molecule.GetAtomWithIdx(waiting.pop()).GetNeighbors()}
        new = (near & set(motif)) - reached
        reached |= new
        waiting += new
    return len(reached) == len(motif)


def chebi(folder: Path, every: int = 1) -> list[str]:
    with gzip.open(folder / "chebi20" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return [row["SMILES"].replace("\\\\", "\\") for row in csv.DictReader(file)][::every]


# The published rules


@pytest.mark.parametrize(
    ("segmenter", "key"), [(Brics(), "brics_partition"), (Himol(), "himol_motifs")], ids=["brics", "himol"]
)
def test_motifs_are_those_of_the_published_rule(golden: Path, segmenter: Segmenter, key: str):
    entries = json.loads((golden / "gin" / "motifs.json").read_text())["molecules"]
    assert len(entries) == 158
    for entry in entries:
        expected = sorted(sorted(motif) for motif in entry[key])
        assert motifs_of(segmenter, entry["smiles"]) == expected, entry["smiles"]


def test_functional_groups_and_their_features_are_llamos(golden: Path):
    scheme = MotifScheme(segmenter=FunctionalGroup(), fallback="none")
    compared = 0
    with np.load(golden / "llamo" / "motif_golden.npz") as stored:
        features = stored["feats"].astype(np.uint8)
        for index, (smiles, status) in enumerate(zip(stored["smiles"].tolist(), stored["status"], strict=True)):
            if molecule_of(smiles) is None:
                assert status.startswith("ArgumentError")
                continue
            described = featurise([scheme], smiles)[1]["motif_description"]
            published_rows = features[stored["offsets"][index] : stored["offsets"][index + 1]]
            assert Counter(map(bytes, described)) == Counter(map(bytes, published_rows)), smiles
            assert (len(described) > 0) == (status == "ok")
            compared += len(described)
    assert compared == 1099


# The rules by hand


def test_brics_cuts_aspirin_at_the_ester_and_the_acid():
    assert motifs_of(Brics(), ASPIRIN) == [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9], [10, 11, 12]]


def test_brics_keeps_isolated_atoms_and_whole_fragments():
    assert motifs_of(Brics(), "[Na+].CC(=O)[O-]") == [[0], [1, 2, 3, 4]]
    assert motifs_of(Brics(), "C") == [[0]]


def test_himol_drops_isolated_atoms_and_the_whole_molecule():
    assert motifs_of(Himol(), "[Na+].CC(=O)[O-]") == [[1, 2, 3, 4]]
    assert motifs_of(Himol(), "[Na+].[Cl-]") == []
    assert motifs_of(Himol(), "c1ccc2ccccc2c1") == [], "an uncut polycycle is not split"
    assert motifs_of(Himol(), "C") == [[0]]


def test_himol_splits_rings_whose_rest_may_be_disconnected():
    motifs = motifs_of(Himol(), "CCOC(=O)c1cc(C)c2cc(C)ccc2c1")
    rings = [[5, 6, 7, 9, 15, 16], [9, 10, 11, 13, 14, 15]]
    assert [motif for motif in motifs if len(motif) == 6] == rings
    assert [8, 12] in motifs


def test_himol_does_not_depend_on_the_order_of_bonds():
    molecule = molecule_of(IMATINIB)
    shuffled = Chem.RWMol(molecule)
    for bond in list(molecule.GetBonds())[::-1]:
        begin, end, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), bond.GetBondType()
        shuffled.RemoveBond(begin, end)
        shuffled.AddBond(end, begin, kind)
    Chem.SanitizeMol(shuffled)
    assert Himol().motifs(shuffled) == Himol().motifs(molecule)


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("C", []),
        ("CC", [[0, 1]]),
        ("CCO", [[0, 1], [1, 2]]),
        ("[Na+].[Cl-]", [[0], [1]]),
        ("C1CCOC1", [[0, 1, 2, 3, 4]]),
        ("OC1CCCC1", [[0, 1], [1, 2, 3, 4, 5]]),
        ("CC(OC)OC", [[0, 1, 2, 3, 4, 5]]),
        ("C1CC2CCC1C2", [[0, 1, 2, 3, 4, 5, 6]]),
        ("C1CC2CCCC2C1", [[0, 1, 2, 6, 7], [2, 3, 4, 5, 6]]),
        ("[NH3]->[Pt]", []),
        ("[U]$[U]", []),
        ("[U](F)(F)(F)(F)(F)(F)(F)(F)(F)(F)F", []),
    ],
)
def test_functional_groups(smiles: str, expected: list[list[int]]):
    assert motifs_of(FunctionalGroup(), smiles) == expected


def test_description_of_acetate():
    described = FunctionalGroup().describe(molecule_of("CC(=O)[O-]"), [[0, 1, 2, 3]])
    assert described.shape == (1, 73)
    # two C, two O, no N, P, S; two single bonds and a double one; neither triple nor aromatic ones
    assert np.flatnonzero(described[0]).tolist() == [2, 11 + 2, 17, 23, 29, 37 + 2, 48 + 1, 56, 64]


# The random control


def test_random_partition_of_aspirin_is_another_with_the_same_sizes():
    found = [motifs_of(RandomPartition(seed=seed), ASPIRIN) for seed in range(20)]
    assert all(sizes_of(motifs) == [1, 3, 3, 6] for motifs in found)
    assert len({str(motifs) for motifs in found}) > 5
    assert sum(motifs == motifs_of(Brics(), ASPIRIN) for motifs in found) < 5


def test_random_partition_is_the_same_in_another_process():
    script = (
        "from rdkit import Chem; from encoders.motifs import RandomPartition; "
        f"print(RandomPartition().motifs(Chem.MolFromSmiles({IMATINIB!r})))"
    )
    other = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=other, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == motifs_of(RandomPartition(), IMATINIB) == motifs_of(RandomPartition(), IMATINIB)


def test_random_partition_matches_brics_sizes_of_real_molecules(data_folder: Path):
    for smiles in chebi(data_folder, every=15):
        molecule = molecule_of(smiles)
        reference, found = Brics().motifs(molecule), RandomPartition().motifs(molecule)
        assert sizes_of(found) == sizes_of(reference), smiles
        assert sorted(atom for motif in found for atom in motif) == list(range(molecule.GetNumAtoms()))
        assert all(is_connected(molecule, motif) for motif in found)


@dataclass(frozen=True, kw_only=True)
class Given(Segmenter):
    """Motifs that were chosen beforehand."""

    name = "given"

    chosen: tuple[tuple[int, ...], ...]

    def motifs(self, molecule: Chem.Mol) -> Sequence[Sequence[int]]:
        return self.chosen


@st.composite
def graphs(draw: st.DrawFn) -> Chem.Mol:
    """Any graph of at most 16 atoms, several fragments and dense ones included, as a molecule."""
    molecule = Chem.RWMol()
    size = draw(st.integers(1, 16))
    for _ in range(size):
        molecule.AddAtom(Chem.Atom(6))
    if size > 1:
        pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda pair: pair[0] < pair[1])
        for begin, end in draw(st.sets(pairs, max_size=30)):
            molecule.AddBond(begin, end, Chem.BondType.SINGLE)
    return molecule


@settings(deadline=None, max_examples=150)
@given(st.data(), graphs(), st.integers(0, 3))
def test_random_partition_of_any_graph_and_any_motifs(data: st.DataObject, molecule: Chem.Mol, seed: int):
    atoms = st.integers(0, molecule.GetNumAtoms() - 1)
    chosen = data.draw(st.lists(st.frozensets(atoms, min_size=1), max_size=8))
    reference = Given(chosen=tuple(tuple(sorted(motif)) for motif in chosen))
    segmenter = RandomPartition(of=reference, seed=seed)
    found = segmenter.motifs(molecule)
    assert found == segmenter.motifs(Chem.RWMol(molecule)) == sorted(sorted(motif) for motif in found)
    assert all(motif and is_connected(molecule, motif) for motif in found)
    used = [atom for motif in found for atom in motif]
    assert len(used) == len(set(used))
    for fragment in map(set, Chem.GetMolFrags(molecule)):
        inside = [set(motif) & fragment for motif in chosen if set(motif) & fragment]
        covered = len(set().union(*inside))
        assert len(fragment.intersection(used)) == covered
        assert sum(motif[0] in fragment for motif in found) == min(len(inside), covered)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.integers(0, 3))
def test_random_partition_of_a_chain_has_the_wanted_sizes(sizes: list[int], seed: int):
    ends = np.cumsum([0, *sizes])
    chosen = tuple(tuple(range(begin, end)) for begin, end in pairwise(ends))
    segmenter = RandomPartition(of=Given(chosen=chosen), seed=seed)
    assert sizes_of(segmenter.motifs(molecule_of("C" * sum(sizes)))) == sorted(sizes)


def test_random_partition_scales_the_sizes_of_overlapping_motifs():
    reference = Given(chosen=(tuple(range(8)), tuple(range(2, 10)), (9,)))
    found = RandomPartition(of=reference).motifs(molecule_of("C" * 10))
    assert sizes_of(found) == [1, 4, 5], "10 atoms shared out as 8 : 8 : 1"


# What every segmenter keeps to


@every_segmenter
@pytest.mark.parametrize("smiles", MOLECULES, ids=lambda smiles: smiles[:20])
def test_motifs_keep_to_the_contract(segmenter: Segmenter, smiles: str):
    molecule = molecule_of(smiles)
    motifs = [list(motif) for motif in segmenter.motifs(molecule)]
    assert all(motifs)
    assert motifs == sorted(sorted(set(motif)) for motif in motifs)
    assert all(0 <= atom < molecule.GetNumAtoms() for motif in motifs for atom in motif)
    described = segmenter.describe(molecule, motifs)
    assert described.shape == (len(motifs), segmenter.description_width)
    assert described.dtype == np.uint8


@every_segmenter
@pytest.mark.parametrize("smiles", MOLECULES, ids=lambda smiles: smiles[:20])
@pytest.mark.parametrize("fallback", ["none", "whole_molecule"])
def test_scheme_lists_the_members_of_each_motif(segmenter: Segmenter, smiles: str, fallback: str):
    scheme = MotifScheme(segmenter=segmenter, fallback=fallback)
    size, rows = featurise([scheme], smiles)
    motifs = motifs_of(segmenter, smiles)
    if not motifs and fallback == "whole_molecule":
        motifs = [list(range(size))]
    assert rows.keys() == scheme.columns().keys()
    for name, column in scheme.columns().items():
        assert rows[name].dtype == column.dtype
        assert rows[name].shape[1:] == column.shape
    assert rows["motif"].tolist() == [len(motif) for motif in motifs]
    pairs = zip(rows["motif_of"].tolist(), rows["motif_atom"].tolist(), strict=True)
    assert list(pairs) == [(index, atom) for index, motif in enumerate(motifs) for atom in motif]


def test_fallback_motif_is_described_too():
    _, rows = featurise([MotifScheme(segmenter=FunctionalGroup())], "[NH3]->[Pt]")
    assert rows["motif"].tolist() == [2]
    assert np.flatnonzero(rows["motif_description"][0]).tolist() == [0, 11, 18, 23, 29, 36, 37, 48, 56, 64]


def test_more_atoms_or_motifs_than_columns_can_count_are_rejected():
    molecule = Chem.RWMol()
    for _ in range(65_536):
        molecule.AddAtom(Chem.Atom(6))
    with pytest.raises(RejectedMoleculeError, match="65,536 atoms"):
        MotifScheme().featurise(molecule, "")
    many = MotifScheme(segmenter=Given(chosen=((0,),) * 65_536))
    with pytest.raises(RejectedMoleculeError, match="65,536 motifs"):
        many.featurise(molecule_of("C"), "")


@every_segmenter
def test_real_molecules_through_a_store(segmenter: Segmenter, data_folder: Path, tmp_path: Path):
    molecules = list(dict.fromkeys(chebi(data_folder, every=22)))
    # Atoms that motifs point at are counted over the batch by a graph scheme's column.
    store = FeatureStore.open_or_build(tmp_path, [Ogb9(), MotifScheme(segmenter=segmenter)], molecules)
    assert len(store.row_of) + len(store.rejected) == len(molecules) == 150
    assert not store.rejected, "every molecule has motifs, if only the one of all its atoms"
    batch = store.batch(molecules)
    assert (batch["motif"].counts() > 0).all()
    sizes = np.bincount(batch["motif_of"].values, minlength=len(batch["motif"].values))
    assert np.array_equal(sizes, batch["motif"].values), "memberships are counted over the whole batch"
    owner = batch["motif"].molecule_of_row()[batch["motif_of"].values]
    assert np.array_equal(owner, batch["motif_of"].molecule_of_row())
    owner = batch["atom"].molecule_of_row()[batch["motif_atom"].values]
    assert np.array_equal(owner, batch["motif_atom"].molecule_of_row())


def test_every_segmenter_is_found_by_its_name():
    from bench.registry import registry

    found = registry().all("segmenter")
    assert {segmenter.name: type(segmenter) for segmenter in SEGMENTERS}.items() <= found.items()


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from(
            ("C", "O", "N", "S", "c1nccn1", "C(=O)", "C(O)(N)", "C#C", "(OC)", "[Si]", "C1(O)OCN1", "n1cncc1C")
        ),
        min_size=1,
        max_size=8,
    )
)
def test_marked_atoms_are_those_that_the_patterns_match(pieces: list[str]):
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles("".join(pieces))
    if molecule is None:
        return
    atoms, bonds = functional_groups._atoms(molecule), functional_groups._bonds(molecule)
    kinds = [bond.GetBondType() for bond in bonds]
    matched = {atom for p in functional_groups.MARKED for match in molecule.GetSubstructMatches(p) for atom in match}
    assert functional_groups._marked(atoms, functional_groups._ends(bonds), kinds) == matched
