"""The feature store: it reads back what was featurised, each molecule once, whoever builds it or dies doing so."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit.Chem import Mol

from bench.registry import Registry
from encoders import featurising, store_files
from encoders import store as store_module
from encoders.base import CONTENT, Column, EncoderError, FeatureScheme, RejectedMoleculeError
from encoders.features import Pgnn2
from encoders.motifs import MotifScheme
from encoders.ogb_features import Ogb9
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
    """Columns of other kinds: floats, scalars, one row per molecule, none at all, and indices into atoms and others."""

    name: ClassVar[str] = "masses"

    isotopes: bool = False

    def columns(self) -> Mapping[str, Column]:
        return {
            "mass": Column("float32"),
            "heavy": Column("uint16", indexes="mass"),
            "heavy_atom": Column("uint16", (1,), indexes="atom"),
            "table": Column("float64", (1, 2, 3)),
            "nothing": Column("uint8", (0,)),
        }

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        masses = [atom.GetMass() for atom in molecule.GetAtoms()]
        heavy = np.array([index for index, mass in enumerate(masses) if mass > 15], dtype=np.uint16)
        return {
            "mass": np.array(masses, dtype=np.float32),
            "heavy": heavy,
            "heavy_atom": heavy[:, None],
            "table": np.full((1, 1, 2, 3), len(smiles), dtype=np.float64),
            "nothing": np.zeros((2, 0), dtype=np.uint8),
        }


@dataclass(frozen=True, kw_only=True)
class Tally(FeatureScheme):
    """Writes every SMILES that it featurises into a file, so that a test can count."""

    name: ClassVar[str] = "tally"

    file: str

    def columns(self) -> Mapping[str, Column]:
        return {"length": Column("uint16")}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        with Path(self.file).open("a") as file:
            file.write(f"{smiles}\n")
        if "P" in smiles:
            raise RejectedMoleculeError("it has phosphorus")
        return {"length": np.array([len(smiles)])}


@dataclass(frozen=True, kw_only=True)
class Broken(FeatureScheme):
    """Declares one thing and does another."""

    name: ClassVar[str] = "broken"

    how: str

    def columns(self) -> Mapping[str, Column]:
        indexes = {"index": "atom", "own index": "value", "unknown index": "bond"}.get(self.how)
        return {"atom" if self.how == "atom" else "value": Column("uint8", (2,), indexes=indexes)}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        size = molecule.GetNumAtoms()
        return {
            "column": {"other": np.zeros((1, 2))},
            "shape": {"value": np.zeros((1, 3))},
            "wide": {"value": np.full((1, 2), 256)},
            "negative": {"value": np.full((1, 2), -1)},
            "atom": {"atom": np.zeros((size + 1, 2))},
            "index": {"value": np.full((size, 2), size)},
            "own index": {"value": np.full((1, 2), 1)},
        }[self.how]


@dataclass(frozen=True, kw_only=True)
class Wordy(FeatureScheme):
    """Reads a file that decides what it gives."""

    name: ClassVar[str] = "wordy"

    words: str = field(metadata=CONTENT)

    def sources(self) -> tuple[str, ...]:
        return (self.words,)

    def columns(self) -> Mapping[str, Column]:
        return {"word": Column("uint16")}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, np.ndarray]:
        known = sorted(path.read_text() for path in Path(self.words).rglob("*.txt"))
        return {"word": np.array([len(word) for word in known])}


BOTH = (Pgnn2(), Masses())


def opened(root: Path, molecules: Sequence[str] = MOLECULES, schemes: Sequence[FeatureScheme] = BOTH) -> FeatureStore:
    return FeatureStore.open_or_build(root, schemes, molecules)


def equals_featurising(store: FeatureStore, schemes: Sequence[FeatureScheme], chosen: Sequence[str]) -> None:
    """The batch of these molecules is what featurising each of them and shifting the indices gives."""
    batch = store.batch(chosen)
    columns = {name: column for scheme in schemes for name, column in scheme.columns().items()}
    outcomes = [featurise(schemes, smiles) for smiles in chosen]
    rows = [row for _, row in outcomes]
    starts = {name: np.cumsum([0, *(len(row[name]) for row in rows)]) for name in columns}
    assert batch.size == len(chosen)
    assert list(batch.columns) == list(columns)
    for name, column in columns.items():
        pointed = {**starts, "atom": np.cumsum([0, *(size for size, _ in outcomes)])}
        shifts = pointed[column.indexes] if column.indexes else np.zeros(len(chosen) + 1, dtype=np.int64)
        pieces = [row[name].astype(np.float64) + shift for row, shift in zip(rows, shifts, strict=False)]
        expected = np.concatenate([np.zeros((0, *column.shape)), *pieces])
        found = batch[name]
        assert found.values.shape == expected.shape, name
        assert np.array_equal(found.values.double().numpy(), expected), name
        assert found.ptr.tolist() == starts[name].tolist(), name
        assert found.ptr.dtype == torch.int64
        is_float = column.dtype.startswith("float")
        assert found.values.dtype == (getattr(torch, column.dtype) if is_float else torch.int64), name
    counts = store.counts(chosen)
    assert list(counts) == list(columns)
    assert all(counts[name].tolist() == np.diff(starts[name]).tolist() for name in columns)
    assert store.sizes(chosen).tolist() == [size for size, _ in outcomes]


def segments(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("*/*/segment.json"))


def chains(count: int) -> list[str]:
    """Distinct molecules."""
    return [f"{'C' * (index % 50)}{'O' * (index // 50)}N" for index in range(count)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return opened(tmp_path_factory.mktemp("features"), [*MOLECULES, *REJECTED])


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The same molecules, featurised in three goes."""
    root = tmp_path_factory.mktemp("features")
    for end in (2, 5):
        opened(root, MOLECULES[:end])
    return opened(root)


# Batches


@pytest.mark.parametrize("which", ["store", "in_pieces"])
@given(chosen=st.lists(st.sampled_from(MOLECULES), max_size=60))
@settings(deadline=None)
def test_a_batch_equals_featurising_at_once(request: pytest.FixtureRequest, which: str, chosen: list[str]) -> None:
    equals_featurising(request.getfixturevalue(which), BOTH, chosen)


@pytest.mark.parametrize("size", [store_module._GATHER_FROM - 1, store_module._GATHER_FROM])
@pytest.mark.parametrize("which", ["store", "in_pieces"])
def test_slices_and_gathering_agree(request: pytest.FixtureRequest, which: str, size: int) -> None:
    equals_featurising(request.getfixturevalue(which), BOTH, (MOLECULES * 10)[:size])


def test_a_batch_may_be_changed_without_changing_the_store(store: FeatureStore) -> None:
    for column in store.batch(["[Cr]"]).columns.values():
        column.values.add_(1)
        column.ptr.add_(1)
    equals_featurising(store, BOTH, ["[Cr]"])


def test_an_unknown_molecule_is_a_mistake_of_the_caller(store: FeatureStore) -> None:
    with pytest.raises(KeyError, match="CCCCCCC"):
        store.batch(["CCCCCCC"])


def test_more_rows_than_the_narrow_type_on_disk_could_number(tmp_path: Path) -> None:
    chain = "C" * 300
    batch = opened(tmp_path, [chain]).batch([chain] * 300)
    assert batch["bond_ends"].values.max() == 300 * 300 - 1
    assert batch["bond_ends"].values.min() == 0


def test_motifs_point_at_atoms_though_no_column_holds_them(tmp_path: Path) -> None:
    scheme = MotifScheme()
    store = opened(tmp_path, MOLECULES, [scheme])
    equals_featurising(store, [scheme], [*MOLECULES] * 5)
    batch = store.batch(MOLECULES)
    assert sorted(batch["motif_atom"].values.tolist()) == list(range(sum(store.sizes(MOLECULES))))


def test_large_columns_are_mapped(tmp_path: Path) -> None:
    molecules = ["C" * 900 + "N" * length for length in range(1, 150)]
    store = opened(tmp_path, molecules, [Ogb9()])
    assert max(path.stat().st_size for path in segments(tmp_path)[0].iterdir()) > 1_000_000
    assert "000000/atom.values.npy" in Path("/proc/self/maps").read_text()
    equals_featurising(store, [Ogb9()], molecules)


# What is kept


def test_duplicates_are_kept_once(tmp_path: Path) -> None:
    assert dict(opened(tmp_path, ["CC", "CCC", "CC"]).row_of) == {"CC": 0, "CCC": 1}


def test_molecules_without_any_bond(tmp_path: Path) -> None:
    molecules = ["[Cr]", "[Na+].[Cl-]", "O"]
    store = opened(tmp_path, molecules)
    equals_featurising(store, BOTH, molecules * 10)
    equals_featurising(opened(tmp_path, molecules), BOTH, molecules)
    assert store.batch(molecules)["bond_ends"].values.shape == (0, 2)


def test_no_molecule_at_all(tmp_path: Path) -> None:
    store = opened(tmp_path, [])
    equals_featurising(store, BOTH, [])
    assert (dict(store.row_of), dict(store.rejected)) == ({}, {})


def test_without_a_scheme_molecules_are_parsed_and_counted(tmp_path: Path) -> None:
    for _ in range(2):
        store = opened(tmp_path, [*MOLECULES, "C(C", "CC*"], ())
        equals_featurising(store, (), MOLECULES)
        assert store.sizes(["CC*"]).tolist() == [3]
        assert dict(store.rejected) == {"C(C": "RDKit cannot parse it"}


def test_all_rejected(tmp_path: Path) -> None:
    for _ in range(2):
        store = opened(tmp_path, list(REJECTED))
        assert list(store.rejected) == list(REJECTED)
        assert dict(store.row_of) == {}
        equals_featurising(store, BOTH, [])


def test_the_rejected_are_listed_with_their_reasons(store: FeatureStore, tmp_path: Path) -> None:
    assert list(store.rejected) == list(REJECTED)
    assert all(REJECTED[smiles] in reason for smiles, reason in store.rejected.items())
    assert not store.rejected.keys() & store.row_of.keys()
    store.write_rejected(tmp_path / "rejected.csv")
    with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["smiles", "reason"], *map(list, store.rejected.items())]


def test_a_rejected_molecule_leaves_no_rows_behind(tmp_path: Path) -> None:
    mixed = [smiles for pair in zip(MOLECULES, [*REJECTED] * 2, strict=False) for smiles in pair]
    equals_featurising(opened(tmp_path, mixed), BOTH, MOLECULES)


def test_what_one_scheme_rejects_is_rejected_whatever_others_say(tmp_path: Path) -> None:
    tally = Tally(file=str(tmp_path / "tally"))
    molecules = ["CP", "C*", "P*", "CC"]
    store = opened(tmp_path, molecules, (Pgnn2(), tally))
    assert dict(store.row_of) == {"CC": 0}
    assert list(store.rejected) == ["CP", "C*", "P*"]
    assert store.rejected["CP"] == "it has phosphorus"
    assert "wildcard" in store.rejected["P*"], "the reason of the first scheme"
    assert opened(tmp_path, molecules, (tally, Pgnn2())).rejected["P*"] == "it has phosphorus"
    assert list(opened(tmp_path, molecules, (Pgnn2(),)).row_of) == ["CP", "CC"]
    equals_featurising(opened(tmp_path, molecules, (Pgnn2(),)), (Pgnn2(),), ["CP", "CC"])


def test_progress_tells_of_every_molecule_once(tmp_path: Path) -> None:
    told: list[int] = []
    molecules = chains(1202)
    FeatureStore.open_or_build(tmp_path, (), molecules[:1100], advance=told.append)
    assert sum(told) == 1100
    assert len(told) > 1
    told.clear()
    FeatureStore.open_or_build(tmp_path, (), molecules, advance=told.append)
    assert told == [1100, 102]


def test_lists_that_read_alike_line_by_line_are_told_apart(tmp_path: Path) -> None:
    opened(tmp_path, ["C", "CC"])
    joined = opened(tmp_path, ["C\nCC"])
    assert {*joined.row_of, *joined.rejected} == {"C\nCC"}


# Each molecule once per scheme


def tallied(file: Path) -> list[str]:
    return file.read_text().split()


def test_a_molecule_is_featurised_once_per_scheme_ever(tmp_path: Path) -> None:
    file = tmp_path / "tally"
    tally = Tally(file=str(file))
    root = tmp_path / "features"
    opened(root, MOLECULES[:4], (Pgnn2(), tally))
    assert tallied(file) == [*MOLECULES[:4]]
    for schemes in [(Pgnn2(), tally), (tally,), (tally, Masses()), (Masses(), tally, Pgnn2())]:
        equals_featurising_of_tally(opened(root, MOLECULES[3::-1], schemes))
    assert tallied(file) == [*MOLECULES[:4]], "other orders and other schemes beside it"
    opened(root, [*MOLECULES, "CP"], (tally,))
    assert tallied(file) == [*MOLECULES, "CP"], "only those that are new"
    assert dict(opened(root, ["CP"], (tally,)).rejected) == {"CP": "it has phosphorus"}
    assert tallied(file) == [*MOLECULES, "CP"], "rejected ones neither"


def equals_featurising_of_tally(store: FeatureStore) -> None:
    assert store.batch(MOLECULES[:4])["length"].values.tolist() == [len(smiles) for smiles in MOLECULES[:4]]


def test_a_finished_store_is_read_and_not_built_again(tmp_path: Path) -> None:
    opened(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = FeatureStore.open_or_build(tmp_path, BOTH, MOLECULES[1:], advance=lambda done: pytest.fail("it was built"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    equals_featurising(again, BOTH, MOLECULES[1:])


def test_a_view_holds_what_was_asked_for_in_that_order(tmp_path: Path) -> None:
    opened(tmp_path)
    view = opened(tmp_path, ["[Cr]", "CCO", *MOLECULES[:1]])
    assert dict(view.row_of) == {"[Cr]": 0, "CCO": 1, MOLECULES[0]: 2}
    equals_featurising(view, BOTH, ["CCO", MOLECULES[0], "[Cr]"])


@pytest.mark.parametrize(
    "scheme",
    [Pgnn2(chirality_rows=4), Masses(isotopes=True), MotifScheme(fallback="none")],
    ids=["other field", "field without effect", "other scheme"],
)
def test_other_settings_are_another_scheme(tmp_path: Path, scheme: FeatureScheme) -> None:
    opened(tmp_path, MOLECULES, (Pgnn2(), Masses(), MotifScheme()))
    before = len(segments(tmp_path))
    equals_featurising(opened(tmp_path, MOLECULES, [scheme]), [scheme], MOLECULES)
    assert len(segments(tmp_path)) == before + 1


def test_a_new_version_of_a_scheme_is_another_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path)
    monkeypatch.setattr(Masses, "version", 2)
    opened(tmp_path)
    assert len(segments(tmp_path)) == 3, "one of pgnn2, two of masses"


def test_what_a_scheme_reads_counts_by_content_and_not_by_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text("word")
    for name in ("one", "two"):
        store = opened(tmp_path / "features", ["CC"], [Wordy(words=str(tmp_path / name))])
        assert store.batch(["CC"])["word"].values.tolist() == [4]
    assert len(segments(tmp_path / "features")) == 1
    (tmp_path / "two" / "b.txt").write_text("words")
    store = opened(tmp_path / "features", ["CC"], [Wordy(words=str(tmp_path / "two"))])
    assert store.batch(["CC"])["word"].values.tolist() == [4, 5]
    with pytest.raises(EncoderError, match="nobody/nothing"):
        opened(tmp_path / "features", ["CC"], [Wordy(words="nobody/nothing")])


def test_the_same_scheme_twice_is_one_scheme(tmp_path: Path) -> None:
    equals_featurising(opened(tmp_path, MOLECULES, (Pgnn2(), Pgnn2())), (Pgnn2(),), MOLECULES)


# Mistakes


def test_columns_of_two_schemes_must_not_clash(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="pgnn2 and ogb9 both fill the column atom"):
        opened(tmp_path, ["C"], (Pgnn2(), Ogb9()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("column", "declares the columns value and fills other"),
        ("shape", r"declares rows of shape \(2,\) in column value"),
        ("wide", "declared as uint8, too narrow for its values 256"),
        ("negative", "declared as uint8, too narrow for its values -1"),
        ("atom", "rows that are not the atoms"),
        ("index", "column value points at row 3 of 'CCO', which has 3"),
        ("own index", "column value points at row 1 of 'CCO', which has 1"),
        ("unknown index", "points at 'bond', which is neither `atom` nor one of its columns value"),
    ],
)
def test_rows_that_are_not_as_declared_are_refused(tmp_path: Path, how: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        opened(tmp_path, ["CCO"], (Broken(how=how),))
    assert segments(tmp_path) == []


# Damage


def test_every_kind_of_damage_is_found_and_made_good(tmp_path: Path) -> None:
    opened(tmp_path / "whole")
    files = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()]
    files = [path for path in files if path.name != ".lock"]
    assert len(files) == 2 * 4 + 2 * 3 + 2 * 5, "four files and two of each column, for two schemes"
    for number, file in enumerate(files):
        for how in ("cut", "emptied", "gone", "one bit"):
            root = tmp_path / f"{number}-{how}"
            shutil.copytree(tmp_path / "whole", root)
            path, content = root / file, (root / file).read_bytes()
            if how == "gone":
                path.unlink()
            elif how == "one bit":
                path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])
            else:
                path.write_bytes(content[:-1] if how == "cut" else b"")
            # Whole segments are known by their names, and the list with reasons is not read; in another order it is.
            asked = MOLECULES[::-1] if file.name == "molecules.json" else MOLECULES
            if file.name == "names.txt":  # whose loss only takes time
                equals_featurising(opened(root), BOTH, MOLECULES)
            else:
                with pytest.warns(UserWarning, match="are damaged .* made anew"):
                    equals_featurising(opened(root, asked), BOTH, asked)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                equals_featurising(opened(root), BOTH, MOLECULES)
            assert len(segments(root)) == 2


def test_lists_of_whole_segments_are_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path)
    monkeypatch.setattr(store_files.SchemeFolder, "listed", lambda *given: pytest.fail("read"))
    store = opened(tmp_path)
    assert list(store.row_of) == list(MOLECULES)
    assert store.row_of[MOLECULES[3]] == 3
    assert not store.rejected
    equals_featurising(store, BOTH, MOLECULES)


def test_segments_of_earlier_versions_are_read(tmp_path: Path) -> None:
    opened(tmp_path)
    for segment in segments(tmp_path):
        (segment / "names.txt").unlink()
        contents = json.loads((segment / "segment.json").read_bytes())
        del contents["words"]
        (segment / "segment.json").write_text(json.dumps(contents))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equals_featurising(opened(tmp_path), BOTH, MOLECULES)


def test_damage_costs_only_what_was_damaged(tmp_path: Path) -> None:
    file = tmp_path / "tally"
    tally = Tally(file=str(file))
    root = tmp_path / "features"
    for part in (MOLECULES[:3], MOLECULES[3:5], MOLECULES[5:]):
        opened(root, part, (tally,))
    (segments(root)[1] / "length.values.npy").write_bytes(b"half a")
    with pytest.warns(UserWarning, match="damaged"):
        opened(root, MOLECULES, (tally,))
    assert tallied(file) == [*MOLECULES, *MOLECULES[3:5]]


# Other processes

BUILD = """
import json, os, sys, time
from pathlib import Path
from encoders.features import Pgnn2
from encoders.motifs import MotifScheme
from encoders.store import FeatureStore
root, start, molecules = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
schemes = [{"pgnn2": Pgnn2(), "motifs": MotifScheme()}[name] for name in sys.argv[4].split(",")]
(root / f"ready-{os.getpid()}").touch()
while not start.exists():
    time.sleep(0.001)
built = []
def advance(done):
    built.append(done)
    (root / "began").touch()
store = FeatureStore.open_or_build(root / "features", schemes, molecules, advance=advance)
column = {"pgnn2": "atom", "motifs": "motif_atom"}[sys.argv[4].split(",")[0]]
values = sum(int(store.batch([smiles])[column].values.sum()) for smiles in molecules)
print(sum(built), values)
"""


def started(root: Path, molecules: Sequence[str], schemes: str, name: str = "molecules") -> subprocess.Popen[str]:
    listed = root / f"{name}.json"
    listed.write_text(json.dumps(list(molecules)))
    command = [sys.executable, "-c", BUILD, str(root), str(root / "start"), str(listed), schemes]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def answers(root: Path, processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, int]]:
    """What they say after they were set off together."""
    while len(list(root.glob("ready-*"))) < len(processes) and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    (root / "start").touch()
    found = [process.communicate(timeout=120)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return [(int(built), int(total)) for built, total in found]


def unfinished(root: Path) -> list[Path]:
    return list(root.glob("*/.unfinished-*"))


def test_processes_that_want_the_same_molecules_build_them_once(tmp_path: Path) -> None:
    molecules = chains(3_000)
    found = answers(tmp_path, [started(tmp_path, molecules, "pgnn2") for _ in range(3)])
    assert sorted(built for built, _ in found) == [0, 0, 3_000]
    assert len({total for _, total in found}) == 1
    assert unfinished(tmp_path / "features") == []
    equals_featurising(opened(tmp_path / "features", molecules, [Pgnn2()]), [Pgnn2()], molecules[::100])


def test_processes_with_other_molecules_and_schemes_share_one_store(tmp_path: Path) -> None:
    molecules = chains(3_000)
    wanted = [
        (molecules[:2_000], "pgnn2"),
        (molecules[1_000:], "pgnn2,motifs"),
        (molecules[500:2_500], "motifs,pgnn2"),
        ([*molecules[:600], *molecules[2_400:]], "motifs"),
    ]
    processes = [started(tmp_path, part, schemes, str(number)) for number, (part, schemes) in enumerate(wanted)]
    answers(tmp_path, processes)
    for scheme in (Pgnn2(), MotifScheme()):
        listed = [
            smiles
            for path in segments(tmp_path / "features")
            if path.parent.name.startswith(scheme.name)
            for smiles in json.loads((path / "molecules.json").read_text())["molecules"]
        ]
        assert len(listed) == len(set(listed)), "no molecule stands in two segments"
        store = FeatureStore.open_or_build(
            tmp_path / "features", [scheme], molecules, advance=lambda done: pytest.fail("some were missing")
        )
        equals_featurising(store, [scheme], molecules[::50])


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_a_killed_process_leaves_nothing_half_made(tmp_path: Path, delay: float) -> None:
    molecules = chains(2_400)
    (tmp_path / "start").touch()
    process = started(tmp_path, molecules, "motifs,pgnn2")
    while not (tmp_path / "began").exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = opened(tmp_path / "features", molecules, [Pgnn2(), MotifScheme()])
    equals_featurising(store, [Pgnn2(), MotifScheme()], molecules[::100])
    assert unfinished(tmp_path / "features") == []


def test_what_a_killed_build_has_left_is_removed(tmp_path: Path) -> None:
    opened(tmp_path, MOLECULES[:2])
    leftover = segments(tmp_path)[0].parent / ".unfinished-abc"
    leftover.mkdir()
    (leftover / "atom.values.npy").write_bytes(b"half a")
    equals_featurising(opened(tmp_path), BOTH, MOLECULES)
    assert not leftover.exists()


FULL = """
import json, resource, sys
from pathlib import Path
from encoders.features import Pgnn2
from encoders.store import FeatureStore
molecules = json.loads(Path(sys.argv[2]).read_text())
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    FeatureStore.open_or_build(Path(sys.argv[1]), [Pgnn2()], molecules)
except OSError as error:
    print(f"{type(error).__name__}")
"""


@pytest.mark.parametrize("limit", [200, 20_000])
def test_a_disk_that_takes_no_more_is_an_error_and_does_no_damage(tmp_path: Path, limit: int) -> None:
    """The kernel refuses to let a file grow, as on a full disk."""
    molecules = chains(2_000)
    root = tmp_path / "features"
    opened(root, MOLECULES, [Pgnn2()])
    (tmp_path / "molecules.json").write_text(json.dumps(molecules))
    command = [sys.executable, "-c", FULL, str(root), str(tmp_path / "molecules.json"), str(limit)]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["OSError"], answer.stderr
    assert unfinished(root) == []
    assert len(segments(root)) == 1
    store = opened(root, [*MOLECULES, *molecules], [Pgnn2()])
    equals_featurising(store, [Pgnn2()], [*MOLECULES, *molecules[::100]])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_store_that_cannot_be_written_can_be_read(tmp_path: Path) -> None:
    opened(tmp_path)
    folders = [path for path in (tmp_path, *tmp_path.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        equals_featurising(opened(tmp_path), BOTH, MOLECULES)
        with pytest.raises(OSError, match="denied"):
            opened(tmp_path, ["CCCCO"])
    finally:
        for folder in folders:
            folder.chmod(0o755)


# Several segments and several processes


def test_many_molecules_are_written_in_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_SEGMENT", 4)
    monkeypatch.setattr(featurising, "_CHUNK", 2)
    molecules = [*MOLECULES, *REJECTED]
    store = opened(tmp_path, molecules)
    assert len(segments(tmp_path)) == 2 * 3
    assert list(store.rejected) == list(REJECTED)
    equals_featurising(store, BOTH, MOLECULES * 5)
    equals_featurising(opened(tmp_path, molecules), BOTH, MOLECULES)


def parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(featurising, "_PARALLEL_FROM", 0.0)
    monkeypatch.setattr(featurising, "_CHUNK", 3)


def test_several_processes_featurise_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    molecules = [*MOLECULES, *REJECTED]
    alone = opened(tmp_path / "one", molecules, [Pgnn2()])
    parallel(monkeypatch)
    told: list[int] = []
    several = FeatureStore.open_or_build(tmp_path / "two", [Pgnn2()], molecules, workers=2, advance=told.append)
    assert told == [3, 3, 3, 2]
    assert (several.row_of, several.rejected) == (alone.row_of, alone.rejected)
    equals_featurising(several, [Pgnn2()], MOLECULES)
    (one,), (two,) = segments(tmp_path / "one"), segments(tmp_path / "two")
    for path in one.iterdir():
        assert (two / path.name).read_bytes() == path.read_bytes()


PLUGIN = """
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
import numpy as np
from encoders.base import Column, FeatureScheme, Segmenter

@dataclass(frozen=True, kw_only=True)
class Pairs(Segmenter):
    name: ClassVar[str] = "pairs"

    folder: str

    def motifs(self, molecule):
        (Path(self.folder) / str(os.getpid())).touch()
        size = molecule.GetNumAtoms()
        return [list(range(start, min(start + 2, size))) for start in range(0, size, 2)]

@dataclass(frozen=True, kw_only=True)
class Sizes(FeatureScheme):
    name: ClassVar[str] = "sizes"

    factor: int = FACTOR

    def columns(self):
        return {"size": Column("uint16")}

    def featurise(self, molecule, smiles):
        return {"size": np.array([molecule.GetNumAtoms() * self.factor])}
"""


def plugin_schemes(folder: Path, factor: int = 1) -> list[FeatureScheme]:
    """A scheme of a plug-in file, and one of ours with a segmenter of a plug-in file inside."""
    folder.mkdir(exist_ok=True)
    (folder / "processes").mkdir(exist_ok=True)
    (folder / "plugin.py").write_text(PLUGIN.replace("FACTOR", str(factor)))
    found = Registry((folder,))
    segmenter = found.get("segmenter", "pairs")(folder=str(folder / "processes"))
    return [found.get("features", "sizes")(), MotifScheme(segmenter=segmenter)]


def test_schemes_of_plugin_files_are_featurised_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = plugin_schemes(tmp_path / "plugins")
    parallel(monkeypatch)
    molecules = chains(60)
    store = FeatureStore.open_or_build(tmp_path / "features", schemes, molecules, workers=2)
    used = {int(path.name) for path in (tmp_path / "plugins" / "processes").iterdir()}
    assert used - {os.getpid()}, "other processes did the work"
    equals_featurising(store, schemes, molecules)


def test_an_edited_plugin_is_another_scheme(tmp_path: Path) -> None:
    for factor in (1, 2, 1):
        schemes = plugin_schemes(tmp_path / "plugins", factor)[:1]
        assert opened(tmp_path / "features", ["CCC"], schemes).batch(["CCC"])["size"].values.tolist() == [3 * factor]
    assert len(segments(tmp_path / "features")) == 2


def test_a_plugin_edited_while_in_use_gives_what_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = plugin_schemes(tmp_path / "plugins", 1)
    (tmp_path / "plugins" / "plugin.py").write_text(PLUGIN.replace("FACTOR", "2"))
    parallel(monkeypatch)
    store = FeatureStore.open_or_build(tmp_path / "features", schemes, chains(20), workers=2)
    equals_featurising(store, schemes, chains(20))


def test_a_scheme_that_other_processes_cannot_have_is_featurised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Local(Masses):
        name: ClassVar[str] = "local"

    parallel(monkeypatch)
    store = FeatureStore.open_or_build(tmp_path, [Local()], MOLECULES, workers=2)
    equals_featurising(store, [Local()], MOLECULES)


def test_an_error_in_another_process_names_the_molecule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel(monkeypatch)
    missing = Tally(file=str(tmp_path / "no such folder" / "tally"))
    with pytest.raises(FileNotFoundError) as caught:
        FeatureStore.open_or_build(tmp_path / "features", [missing], MOLECULES, workers=2)
    assert any(MOLECULES[0] in note for note in caught.value.__notes__)
    assert segments(tmp_path / "features") == []


def test_keys_are_of_the_molecule_and_nothing_else(tmp_path: Path) -> None:
    store = FeatureStore.open_or_build(tmp_path, [Pgnn2()], MOLECULES)
    other = FeatureStore.open_or_build(tmp_path, [Pgnn2()], [*MOLECULES[2:], "CCCC"])
    asked = [MOLECULES[3], MOLECULES[2], MOLECULES[3]]
    expected = [int.from_bytes(hashlib.sha256(smiles.encode()).digest()[:7], "big") for smiles in asked]
    for _ in range(2):
        assert store.keys(asked).tolist() == other.keys(asked).tolist() == expected
    with pytest.raises(KeyError):
        store.keys(["CCCC"])
