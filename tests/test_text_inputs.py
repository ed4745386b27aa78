"""Ways to write a molecule: each keeps what it says it keeps, and nothing is refused in silence."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
import selfies
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem

from tasks.prompts import NoText, Smiles, UnwritableMoleculeError
from tasks.text_inputs import _TOKEN, Both, Corrupted, Randomised, Rewritten, Selfies

MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "C[C@H](N)C(=O)O",
    "F/C=C/Cl",
    "[Na+].[Cl-]",
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
    "C",
)


def canonical(smiles: str) -> str:
    return Chem.CanonSmiles(smiles)


@pytest.mark.parametrize("smiles", MOLECULES)
@pytest.mark.parametrize(
    "way", [Randomised(), Randomised(seed=3), Rewritten(), Rewritten(form="kekule"), Rewritten(form="hydrogens")]
)
def test_another_spelling_is_of_the_same_molecule(way: Randomised | Rewritten, smiles: str) -> None:
    assert canonical(way.write(smiles)) == canonical(smiles)
    assert way.write(smiles) == way.write(smiles)


def test_forms() -> None:
    benzoic = "OC(=O)c1ccccc1"
    assert "c" not in Rewritten(form="kekule").write(benzoic)
    assert "[H]" in Rewritten(form="hydrogens").write(benzoic)
    assert Rewritten(form="flat").write("C[C@H](N)C(=O)O") == "CC(N)C(=O)O"
    long = "CCCCCC(=O)OCC1=CC=CC=C1N"
    assert len({Randomised(seed=seed).write(long) for seed in range(20)}) > 10


def test_selfies_of_real_molecules(data_folder: Path) -> None:
    with gzip.open(data_folder / "chebi20" / "test.csv.gz", "rt") as file:
        rows = [row["SMILES"].replace("\\\\", "\\") for row in csv.DictReader(file)][:300]
    refused = 0
    for smiles in rows:
        try:
            written = Selfies().write(smiles)
        except UnwritableMoleculeError:
            refused += 1
            continue
        assert canonical(selfies.decoder(written)) == canonical(smiles)
    assert refused <= 3


def test_what_selfies_cannot_express_is_refused_with_a_reason() -> None:
    with pytest.raises(UnwritableMoleculeError, match="it has no SELFIES"):
        Selfies().write("*C")
    with pytest.raises(UnwritableMoleculeError, match="RDKit cannot parse it"):
        Randomised().write("C1CC")


def test_both() -> None:
    assert Both().write("CCO") == "CCO [C][C][O]"
    assert Both(ways=(NoText(), Smiles()), separator="|").write("CCO") == "|CCO"


def test_corruption_keeps_the_number_of_tokens_and_replaces_its_share() -> None:
    text = "CC(=O)Oc1ccccc1C(=O)O" * 30
    for rate in (0.0, 0.1, 0.3, 1.0):
        written = Corrupted(rate=rate).write(text)
        before, after = _TOKEN.findall(text), _TOKEN.findall(written)
        assert len(before) == len(after)
        changed = sum(one != other for one, other in zip(before, after, strict=True)) / len(before)
        assert abs(changed - rate) < 0.08
    assert Corrupted(rate=0).write("CCO") == "CCO"
    assert Corrupted(rate=1, seed=1).write("CCO") != Corrupted(rate=1, seed=2).write("CCO")


def test_corrupted_selfies_are_selfies() -> None:
    written = Corrupted(of=Selfies(), rate=1).write("CC(=O)Oc1ccccc1C(=O)O")
    original = Selfies().write("CC(=O)Oc1ccccc1C(=O)O")
    assert selfies.len_selfies(written) == selfies.len_selfies(original)
    assert not set(zip(selfies.split_selfies(written), selfies.split_selfies(original), strict=True)) & {
        (symbol, symbol) for symbol in selfies.split_selfies(original)
    }
    selfies.decoder(written)


@given(st.sampled_from(MOLECULES), st.floats(0, 1), st.integers(0, 2**32))
def test_corruption_is_that_of_the_molecule_and_the_seed(smiles: str, rate: float, seed: int) -> None:
    way = Corrupted(rate=rate, seed=seed)
    assert way.write(smiles) == Corrupted(rate=rate, seed=seed).write(smiles)
