"""Graph inputs that draw at random: noise of the right moments, other bonds, other molecules of the same formula."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rdkit import Chem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from encoders.base import EncoderError, MoleculeBatch, MoleculeEncoding
from encoders.controls import Gaussian, Isomer, Rewired
from encoders.functional_groups import FunctionalGroup
from encoders.gin import Gin
from encoders.hierarchical import Hierarchical
from encoders.motifs import MotifScheme
from encoders.store import FeatureStore

MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "C", "[Na+].[Cl-]", "Cn1c(=O)c2c(ncn2C)n(C)c1=O", "CCCCCCCCCC(=O)NCCc1ccc(O)cc1")


def keyed(batch: MoleculeBatch, keys: list[int]) -> MoleculeBatch:
    return replace(batch, keys=torch.tensor(keys))


def batch_of(encoder: Gin | Hierarchical, molecules: tuple[str, ...], cache: Path) -> MoleculeBatch:
    store = FeatureStore.open_or_build(cache, encoder.features(), molecules)
    return keyed(store.batch(molecules), [sum(smiles.encode()) for smiles in molecules])


def encoding_of(encoder: Gin | Hierarchical, batch: MoleculeBatch) -> MoleculeEncoding:
    torch.manual_seed(0)
    with torch.no_grad():
        return encoder.build().eval()(batch, frozenset(encoder.provides()))


def test_noise_has_the_moments_of_the_sample_and_belongs_to_the_molecule(tmp_path: Path) -> None:
    encoder = Gin(layers=2, width=6)
    many = tuple(f"{'CN' * n}C{'O' * (n % 3)}" for n in range(2, 100))
    batch = batch_of(encoder, many, tmp_path)
    encoding = encoding_of(encoder, batch)
    noisy = Gaussian().fit(lambda: encoding)
    drawn = noisy(encoding, batch.keys)
    for level, rows in encoding.levels.items():
        assert torch.equal(drawn[level].ptr, rows.ptr)
        assert not torch.allclose(drawn[level].values, rows.values)
        spread = rows.values.std(dim=0)
        count = len(rows.values)
        assert torch.allclose(
            drawn[level].values.mean(dim=0), rows.values.mean(dim=0), atol=5 * float(spread.max()) / count**0.5
        )
        assert torch.allclose(drawn[level].values.std(dim=0), spread, rtol=0.4)
    again = batch_of(encoder, (many[7], many[3]), tmp_path)
    alone = noisy(encoding_of(encoder, again), again.keys)
    assert torch.equal(alone["graph"].values, drawn["graph"].values[[7, 3]])
    other = Gaussian(seed=1).fit(lambda: encoding)(encoding, batch.keys)
    assert not torch.equal(other["graph"].values, drawn["graph"].values)


def test_noise_needs_keys(tmp_path: Path) -> None:
    encoder = Gin(layers=1, width=4)
    encoding = encoding_of(encoder, batch_of(encoder, MOLECULES, tmp_path))
    with pytest.raises(EncoderError, match="keys"):
        Gaussian().fit(lambda: encoding)(encoding, None)


def test_rewiring_keeps_atoms_and_degrees_and_changes_bonds(tmp_path: Path) -> None:
    batch = batch_of(Gin(), MOLECULES, tmp_path)
    rewired = Rewired().alter(batch)
    assert rewired.columns.keys() == batch.columns.keys()
    for name in ("atom", "bond"):
        assert torch.equal(rewired[name].values, batch[name].values)
    before, after = batch["bond_ends"], rewired["bond_ends"]
    assert torch.equal(after.ptr, before.ptr)
    assert torch.equal(after.values[0::2], after.values[1::2].flip(1))
    assert Counter(after.values.flatten().tolist()) == Counter(before.values.flatten().tolist())
    for number in range(batch.size):
        begin, end = before.ptr[number], before.ptr[number + 1]
        first, last = batch["atom"].ptr[number], batch["atom"].ptr[number + 1]
        mine = after.values[begin:end]
        assert bool(((mine >= first) & (mine < last)).all())
        if end - begin > 12:
            kept = {tuple(sorted(bond)) for bond in mine.tolist()} & {
                tuple(sorted(b)) for b in before.values[begin:end].tolist()
            }
            assert len(kept) < (end - begin) / 4
    assert torch.equal(Rewired().alter(batch)["bond_ends"].values, after.values)
    assert not torch.equal(Rewired(seed=1).alter(batch)["bond_ends"].values, after.values)


def test_rewiring_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    together = Rewired().alter(batch_of(Gin(), MOLECULES, tmp_path))["bond_ends"]
    offset = 0
    for number, smiles in enumerate(MOLECULES):
        batch = batch_of(Gin(), (smiles,), tmp_path)
        alone = Rewired().alter(batch)["bond_ends"].values
        assert torch.equal(together.values[together.ptr[number] : together.ptr[number + 1]], alone + offset)
        offset += len(batch["atom"].values)


def test_rewiring_gives_motifs_other_atoms(tmp_path: Path) -> None:
    batch = batch_of(Hierarchical(), MOLECULES, tmp_path)
    rewired = Rewired().alter(batch)
    for name in ("motif", "motif_of"):
        assert torch.equal(rewired[name].values, batch[name].values)
    assert not torch.equal(rewired["motif_atom"].values, batch["motif_atom"].values)
    ptr = batch["motif_atom"].ptr
    for number in range(batch.size):
        members = rewired["motif_atom"].values[ptr[number] : ptr[number + 1]]
        first, last = batch["atom"].ptr[number], batch["atom"].ptr[number + 1]
        assert bool(((members >= first) & (members < last)).all())


def test_rewiring_refuses_what_tells_of_the_real_bonds(tmp_path: Path) -> None:
    encoder = Gin(motifs=MotifScheme(segmenter=FunctionalGroup()), motif_rows="described")
    with pytest.raises(EncoderError, match="motif_description"):
        Rewired().alter(batch_of(encoder, MOLECULES, tmp_path))
    with pytest.raises(EncoderError, match="reads no bonds"):
        Rewired().alter(MoleculeBatch(0, {}, torch.zeros(0, dtype=torch.long)))


def test_isomers_have_the_same_formula_and_the_rest_is_left_out() -> None:
    molecules = ["CCO", "COC", "CCCO", "CC(O)C", "COCC", "c1ccccc1"]
    control = Isomer()
    partners = control.substitute(molecules, [3, 3, 4, 4, 4, 6], 0)
    for molecule, partner in zip(molecules, partners, strict=True):
        formula = [CalcMolFormula(Chem.MolFromSmiles(smiles)) for smiles in (molecule, partner)]
        assert formula[0] == formula[1]
        assert control.counts(molecule, partner) == (molecule != "c1ccccc1")
    assert sorted(partners) == sorted(molecules)
    assert control.is_for_test_only
    with pytest.raises(EncoderError, match="no two molecules"):
        control.substitute(["C", "CC"], [1, 2], 0)
