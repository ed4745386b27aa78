"""The feature store: it reads back what was featurised, whoever builds it and whatever was killed meanwhile."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit.Chem import Mol

from encoders import store as store_module
from encoders.base import Column, EncoderError, FeatureScheme
from encoders.features import Pgnn2
from encoders.store import FeatureStore, featurise

MOLECULES = (
    "CC(=O)Oc1ccccc1C(=O)O",
    "[Cr]",
    "C[C@@H](N)C(=O)O",
    "[Na+].[Cl-]",
    "F/C=C/[C@H](N)C#N",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "C1CC1.c1ccncc1",
)
REJECTED = {"CC*": "wildcard", "C(C": "cannot parse", "": "no atoms", "[NH3]->[Pt]": "DATIVE"}


@dataclass(frozen=True, kw_only=True)
class Masses(FeatureScheme):
    """Columns of other kinds: floats, scalars, one row per molecule, and indices into a column of its own."""

    name: ClassVar[str] = "masses"

    isotopes: bool = False

    def columns(self) -> Mapping[str, Column]:
        return {
            "mass": Column("float32"),
            "heavy": Column("uint16", indexes="mass"),
            "table": Column("float64", (1, 2, 3)),
        }

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        masses = [atom.GetMass() for atom in molecule.GetAtoms()]
        heavy = [index for index, mass in enumerate(masses) if mass > 15]
        return {
            "mass": np.array(masses, dtype=np.float32),
            "heavy": np.array(heavy, dtype=np.uint16),
            "table": np.full((1, 1, 2, 3), len(smiles), dtype=np.float64),
        }


@dataclass(frozen=True, kw_only=True)
class AlsoAtoms(FeatureScheme):
    """Fills a column that `Pgnn2` fills too."""

    name: ClassVar[str] = "also-atoms"

    def columns(self) -> Mapping[str, Column]:
        return {"atom": Column("uint8")}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        return {"atom": np.zeros(molecule.GetNumAtoms(), dtype=np.uint8)}


BOTH = (Pgnn2(), Masses())


def opened(root: Path, molecules: Sequence[str] = MOLECULES, schemes: Sequence[FeatureScheme] = BOTH) -> FeatureStore:
    return FeatureStore.open_or_build(root, schemes, molecules)


def equals_featurising(store: FeatureStore, schemes: Sequence[FeatureScheme], chosen: Sequence[str]) -> None:
    """The batch of these molecules is what featurising each of them and shifting the indices gives."""
    batch = store.batch(chosen)
    columns = {name: column for scheme in schemes for name, column in scheme.columns().items()}
    rows = [featurise(schemes, smiles)[1] for smiles in chosen]
    starts = {name: np.cumsum([0, *(len(row[name]) for row in rows)]) for name in columns}
    assert batch.size == len(chosen)
    assert batch.columns.keys() == columns.keys()
    for name, column in columns.items():
        shifts = starts[column.indexes] if column.indexes else np.zeros(len(chosen) + 1, dtype=np.int64)
        pieces = [row[name].astype(np.float64) + shift for row, shift in zip(rows, shifts, strict=False)]
        expected = np.concatenate([np.zeros((0, *column.shape)), *pieces])
        found = batch[name]
        assert found.values.shape == expected.shape, name
        assert np.array_equal(found.values.double().numpy(), expected), name
        assert found.ptr.tolist() == starts[name].tolist(), name
        assert found.ptr.dtype == torch.int64
        is_float = column.dtype.startswith("float")
        assert found.values.dtype == (getattr(torch, column.dtype) if is_float else torch.int64), name
    for name, counts in store.counts(chosen).items():
        assert counts.tolist() == np.diff(starts[name]).tolist()
    assert store.sizes(chosen).tolist() == [featurise((), smiles)[0] for smiles in chosen]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return opened(tmp_path_factory.mktemp("features"), [*MOLECULES, *REJECTED])


class TestBatches:
    @given(st.lists(st.sampled_from(MOLECULES), max_size=20))
    @settings(deadline=None)
    def test_a_batch_equals_featurising_at_once(self, store: FeatureStore, chosen: list[str]):
        equals_featurising(store, BOTH, chosen)

    def test_a_batch_may_be_changed_without_changing_the_store(self, store: FeatureStore):
        for column in store.batch(["[Cr]"]).columns.values():
            column.values.add_(1)
            column.ptr.add_(1)
        equals_featurising(store, BOTH, ["[Cr]"])

    def test_an_unknown_molecule_is_a_mistake_of_the_caller(self, store: FeatureStore):
        with pytest.raises(KeyError, match="CCCCCCC"):
            store.batch(["CCCCCCC"])

    def test_more_rows_than_the_narrow_type_on_disk_could_number(self, tmp_path: Path):
        chain = "C" * 300
        store = opened(tmp_path, [chain])
        batch = store.batch([chain] * 300)
        assert batch["bond_ends"].values.max() == 300 * 300 - 1
        assert batch["bond_ends"].values.min() == 0


class TestWhatIsKept:
    def test_duplicates_are_kept_once(self, tmp_path: Path):
        store = opened(tmp_path, ["CC", "CCC", "CC"])
        assert dict(store.row_of) == {"CC": 0, "CCC": 1}
        assert opened(tmp_path, ["CC", "CCC"]).folder == store.folder

    def test_molecules_without_any_bond(self, tmp_path: Path):
        molecules = ["[Cr]", "[Na+].[Cl-]", "O"]
        store = opened(tmp_path, molecules)
        equals_featurising(store, BOTH, molecules)
        assert store.batch(molecules)["bond_ends"].values.shape == (0, 2)

    def test_no_molecule_at_all(self, tmp_path: Path):
        store = opened(tmp_path, [])
        equals_featurising(store, BOTH, [])
        assert (dict(store.row_of), dict(store.rejected)) == ({}, {})

    def test_without_a_scheme_molecules_are_parsed_and_counted(self, tmp_path: Path):
        store = opened(tmp_path, [*MOLECULES, "C(C", "CC*"], ())
        equals_featurising(store, (), MOLECULES)
        assert store.sizes(["CC*"]).tolist() == [3]
        assert dict(store.rejected) == {"C(C": "RDKit cannot parse it"}

    def test_all_rejected(self, tmp_path: Path):
        store = opened(tmp_path, list(REJECTED))
        assert list(store.rejected) == list(REJECTED)
        assert dict(store.row_of) == {}
        equals_featurising(store, BOTH, [])

    def test_the_rejected_are_listed_with_their_reasons(self, store: FeatureStore, tmp_path: Path):
        assert list(store.rejected) == list(REJECTED)
        assert all(REJECTED[smiles] in reason for smiles, reason in store.rejected.items())
        assert not store.rejected.keys() & store.row_of.keys()
        store.write_rejected(tmp_path / "rejected.csv")
        with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == [["smiles", "reason"], *map(list, store.rejected.items())]

    def test_a_rejected_molecule_leaves_no_rows_behind(self, tmp_path: Path):
        mixed = [smiles for pair in zip(MOLECULES, [*REJECTED] * 2, strict=False) for smiles in pair]
        equals_featurising(opened(tmp_path, mixed), BOTH, MOLECULES)

    def test_progress_tells_of_every_molecule_once(self, tmp_path: Path):
        told: list[int] = []
        molecules = [f"{'C' * length}O" for length in range(1, 1203)]
        FeatureStore.open_or_build(tmp_path, (), molecules, advance=told.append)
        assert sum(told) == len(molecules)
        assert len(told) > 1

    def test_columns_of_two_schemes_must_not_clash(self, tmp_path: Path):
        with pytest.raises(EncoderError, match="also-atoms fills atom"):
            opened(tmp_path, ["C"], (Pgnn2(), AlsoAtoms()))
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


class TestReopening:
    def test_a_finished_store_is_read_and_not_built_again(self, tmp_path: Path):
        first = opened(tmp_path)
        stamps = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
        second = FeatureStore.open_or_build(tmp_path, BOTH, MOLECULES, advance=lambda done: pytest.fail("it was built"))
        assert second.folder == first.folder
        assert {path.name: path.stat().st_mtime_ns for path in second.folder.iterdir()} == stamps
        equals_featurising(second, BOTH, MOLECULES)

    @pytest.mark.parametrize(
        ("molecules", "schemes"),
        [
            (MOLECULES[:-1], BOTH),
            (MOLECULES[::-1], BOTH),
            (MOLECULES, BOTH[:1]),
            (MOLECULES, ()),
            (MOLECULES, (Pgnn2(chirality_rows=4), Masses())),
            (MOLECULES, (Pgnn2(), Masses(isotopes=True))),
        ],
        ids=["fewer", "other order", "one scheme", "no scheme", "other field", "field without effect"],
    )
    def test_other_molecules_or_schemes_have_a_store_of_their_own(
        self, tmp_path: Path, molecules: Sequence[str], schemes: Sequence[FeatureScheme]
    ):
        first, second = opened(tmp_path), opened(tmp_path, molecules, schemes)
        assert first.folder != second.folder
        equals_featurising(second, schemes, molecules[:3])

    def test_lists_that_read_alike_line_by_line_have_stores_of_their_own(self, tmp_path: Path):
        apart, joined = opened(tmp_path, ["C", "CC"]), opened(tmp_path, ["C\nCC"])
        assert apart.folder != joined.folder
        assert "C\nCC" in {**joined.row_of, **joined.rejected}

    def test_a_new_version_of_a_scheme_has_a_store_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        first = opened(tmp_path)
        monkeypatch.setattr(Masses, "version", 2)
        assert opened(tmp_path).folder != first.folder


BUILD = """
import sys, time
from pathlib import Path
from encoders.features import Pgnn2
from encoders.store import FeatureStore
root, start, molecules = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
(root / f"ready-{sys.argv[0]}-{time.monotonic_ns()}").touch()
while not start.exists():
    time.sleep(0.001)
built = []
store = FeatureStore.open_or_build(root / "features", [Pgnn2()], molecules, advance=built.append)
print(store.folder.name, bool(built), int(store.batch(molecules)["atom"].values.sum()))
"""


def temporary_folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.startswith(".")]


class TestOtherProcesses:
    def test_two_processes_that_want_the_same_store_build_it_once(self, tmp_path: Path):
        start = tmp_path / "start"
        molecules = [*MOLECULES, *("C" * length for length in range(2, 300))]
        command = [sys.executable, "-c", BUILD, str(tmp_path), str(start), *molecules]
        started = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        while len(list(tmp_path.glob("ready-*"))) < 2 and all(process.poll() is None for process in started):
            time.sleep(0.01)
        start.touch()
        answers = [process.communicate(timeout=60)[0].split() for process in started]
        assert [process.returncode for process in started] == [0, 0]
        assert sorted(answer[1] for answer in answers) == ["False", "True"]
        assert len({(answer[0], answer[2]) for answer in answers}) == 1
        assert temporary_folders(tmp_path / "features") == []
        equals_featurising(opened(tmp_path / "features", molecules, [Pgnn2()]), [Pgnn2()], molecules)

    def test_what_a_killed_build_has_left_does_no_harm(self, tmp_path: Path):
        name = opened(tmp_path / "elsewhere").folder.name
        leftover = tmp_path / "features" / f".{name}-abc"
        leftover.mkdir(parents=True)
        (leftover / "atom.npy").write_bytes(b"half a")
        store = opened(tmp_path / "features")
        assert store.folder.name == name
        equals_featurising(store, BOTH, MOLECULES)

    def test_a_build_that_fails_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*arguments: object) -> None:
            raise OSError("no space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(store_module.os, "replace", full)
            with pytest.raises(OSError, match="no space left"):
                opened(tmp_path)
        assert [path.suffix for path in tmp_path.iterdir() if path.is_dir()] == []
        equals_featurising(opened(tmp_path), BOTH, MOLECULES)

    def test_several_processes_featurise_as_one_does(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(store_module, "_PARALLEL_FROM", 2)
        monkeypatch.setattr(store_module, "_CHUNK", 3)
        molecules = [*MOLECULES, *REJECTED]
        told: list[int] = []
        parallel = FeatureStore.open_or_build(tmp_path / "two", [Pgnn2()], molecules, workers=2, advance=told.append)
        alone = opened(tmp_path / "one", molecules, [Pgnn2()])
        assert told == [3, 3, 3, 2]
        assert (parallel.row_of, parallel.rejected) == (alone.row_of, alone.rejected)
        equals_featurising(parallel, [Pgnn2()], MOLECULES)
        for path in alone.folder.iterdir():
            assert (parallel.folder / path.name).read_bytes() == path.read_bytes()
