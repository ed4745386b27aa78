"""The feature store: molecules featurised once, kept as memory-mapped columns, read in batches by slicing.

A store belongs to a list of molecules and the feature schemes of one encoder. It is written to a temporary folder and
moved into place whole, under a lock, so that several processes may ask for the same store and a killed one leaves
nothing half-made behind.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from filelock import FileLock
from rdkit import Chem, rdBase

from encoders.base import Column, EncoderError, FeatureScheme, MoleculeBatch, Ragged, RejectedMoleculeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT = 1  # raised when the files of a store change their meaning
_PARALLEL_FROM = 20_000  # molecules; below, starting processes costs more than it saves
_CHUNK = 1_000

Advance = Callable[[int], None]
"""Told how many molecules have just been done."""


class FeatureStore:
    """Features of a list of molecules.

    Args:
        folder: a finished store, as `open_or_build` makes it.
    """

    def __init__(self, folder: Path) -> None:
        description = json.loads((folder / "store.json").read_text())
        self.folder = folder
        self.rejected: Mapping[str, str] = description["rejected"]
        self.row_of: Mapping[str, int] = {smiles: row for row, smiles in enumerate(description["molecules"])}
        self._declared = {name: Column(**column) for name, column in description["columns"].items()}
        self._values = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self._declared}
        self._ptr = {name: np.load(folder / f"{name}.ptr.npy") for name in self._declared}
        self._num_atoms: NDArray[np.int64] = np.load(folder / "num_atoms.npy")

    @classmethod
    def open_or_build(
        cls,
        root: Path,
        schemes: Sequence[FeatureScheme],
        molecules: Sequence[str],
        *,
        workers: int = 1,
        advance: Advance = lambda done: None,
    ) -> FeatureStore:
        """The store of these molecules under `root`, built if it is not there yet.

        Args:
            root: a folder for many stores.
            schemes: whose columns are kept; without any, molecules are only parsed and counted.
            molecules: SMILES; duplicates are kept once.
            workers: processes to featurise with, where there are enough molecules to pay for them.
            advance: told of progress.

        Raises:
            EncoderError: two schemes fill a column of the same name.
            OSError: the store cannot be written.
        """
        unique = list(dict.fromkeys(molecules))
        folder = root / _key(schemes, unique)
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{folder.name}.lock"):
            if not folder.exists():
                _build(folder, schemes, unique, workers, advance)
        return cls(folder)

    def sizes(self, molecules: Sequence[str]) -> NDArray[np.int64]:
        """The number of atoms of each molecule, `(B,)`."""
        return self._num_atoms[[self.row_of[smiles] for smiles in molecules]]

    def counts(self, molecules: Sequence[str]) -> Mapping[str, NDArray[np.int64]]:
        """The rows of each molecule per column, `(B,)`."""
        rows = np.array([self.row_of[smiles] for smiles in molecules], dtype=np.int64)
        return {name: ptr[rows + 1] - ptr[rows] for name, ptr in self._ptr.items()}

    def batch(self, molecules: Sequence[str]) -> MoleculeBatch:
        """The features of these molecules, in order; a molecule may stand several times."""
        rows = np.array([self.row_of[smiles] for smiles in molecules], dtype=np.int64)
        starts = {name: np.concatenate([[0], np.cumsum(ptr[rows + 1] - ptr[rows])]) for name, ptr in self._ptr.items()}
        columns = {}
        for name, declared in self._declared.items():
            ptr, values = self._ptr[name], self._values[name]
            slices = [values[ptr[row] : ptr[row + 1]] for row in rows] or [values[:0]]
            joined = np.concatenate(slices)
            if np.issubdtype(joined.dtype, np.integer):
                joined = joined.astype(np.int64)
            if declared.indexes:
                counts = np.diff(starts[name])
                shift = np.repeat(starts[declared.indexes][:-1], counts)
                joined += shift.reshape(-1, *(1 for _ in declared.shape))
            columns[name] = Ragged(torch.from_numpy(joined), torch.from_numpy(starts[name]))
        return MoleculeBatch(len(rows), columns)

    def write_rejected(self, path: Path) -> None:
        """The rejected molecules and their reasons as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("smiles", "reason"), *self.rejected.items()])


def featurise(schemes: Sequence[FeatureScheme], smiles: str) -> tuple[int, dict[str, Any]]:
    """One molecule's number of atoms and its rows per column.

    Raises:
        RejectedMoleculeError: RDKit or a scheme cannot read it; the message says why.
    """
    with rdBase.BlockLogs():  # the reason is in the exception; RDKit would print it once more per row
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise RejectedMoleculeError("RDKit cannot parse it")
        if molecule.GetNumAtoms() == 0:
            raise RejectedMoleculeError("it has no atoms")
        rows: dict[str, Any] = {}
        for scheme in schemes:
            rows |= scheme.featurise(molecule, smiles)
    return molecule.GetNumAtoms(), rows


def _key(schemes: Sequence[FeatureScheme], molecules: Sequence[str]) -> str:
    described = [_described(scheme) for scheme in schemes]
    content = [_FORMAT, rdBase.rdkitVersion, described, list(molecules)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    return f"{'+'.join(s.name for s in schemes) or 'parsed'}-{digest.hexdigest()[:16]}"


def _described(value: object) -> Any:
    """A scheme, and every component inside it, with name, version, fields and the source of one from elsewhere."""
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        known = {
            "name": getattr(cls, "name", None),
            "version": getattr(cls, "version", None),
            "source": _source_of(cls),
        }
        return {**known, "fields": {f.name: _described(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    return value


def _source_of(cls: type) -> str | None:
    """Hash of the file of a class from outside this room, whose version nobody vouches for; None for our own."""
    if cls.__module__.startswith("encoders."):
        return None
    imported = getattr(sys.modules.get(cls.__module__), "__molgraft_source__", None)
    source = inspect.getsourcefile(cls)
    if imported is None and source is not None:
        imported = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    return imported or cls.__module__


def _build(
    folder: Path, schemes: Sequence[FeatureScheme], molecules: Sequence[str], workers: int, advance: Advance
) -> None:
    columns: dict[str, Column] = {}
    for scheme in schemes:
        clash = columns.keys() & scheme.columns().keys()
        if clash:
            raise EncoderError(f"feature scheme {scheme.name} fills {', '.join(sorted(clash))}, as another one does")
        columns |= scheme.columns()
    kept: list[str] = []
    rejected: dict[str, str] = {}
    num_atoms: list[int] = []
    pieces: dict[str, list[NDArray[Any]]] = {name: [] for name in columns}
    for smiles, outcome in zip(molecules, _outcomes(schemes, molecules, workers, advance), strict=True):
        if isinstance(outcome, str):
            rejected[smiles] = outcome
            continue
        size, rows = outcome
        kept.append(smiles)
        num_atoms.append(size)
        for name in columns:
            pieces[name].append(rows[name])

    partial_folder = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, column in columns.items():
            empty = np.zeros((0, *column.shape), dtype=column.dtype)
            lengths = [len(piece) for piece in pieces[name]]
            np.save(partial_folder / f"{name}.npy", _narrowed(name, column, np.concatenate([empty, *pieces[name]])))
            np.save(partial_folder / f"{name}.ptr.npy", np.cumsum([0, *lengths], dtype=np.int64))
        np.save(partial_folder / "num_atoms.npy", np.array(num_atoms, dtype=np.int64))
        described = {name: asdict(column) for name, column in columns.items()}
        contents = {"columns": described, "molecules": kept, "rejected": rejected}
        (partial_folder / "store.json").write_text(json.dumps(contents))
        partial_folder.chmod(0o755)  # mkdtemp makes folders that only the owner can read
        os.replace(partial_folder, folder)
    except BaseException:
        shutil.rmtree(partial_folder, ignore_errors=True)
        raise


def _narrowed(name: str, column: Column, values: NDArray[Any]) -> NDArray[Any]:
    """The values in the column's type, which must hold them all.

    Raises:
        EncoderError: it does not; they would wrap around silently.
    """
    narrow = values.astype(column.dtype)
    if np.issubdtype(narrow.dtype, np.integer) and not np.array_equal(narrow, values):
        raise EncoderError(
            f"column {name} is declared as {column.dtype}, too narrow for its values {values.min()} to {values.max()}"
        )
    return narrow


def _outcomes(
    schemes: Sequence[FeatureScheme], molecules: Sequence[str], workers: int, advance: Advance
) -> Iterator[tuple[int, dict[str, Any]] | str]:
    """Per molecule its features, or the reason why it has none."""
    chunks = [molecules[start : start + _CHUNK] for start in range(0, len(molecules), _CHUNK)]
    if workers > 1 and len(molecules) >= _PARALLEL_FROM:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            done = pool.map(_featurise_chunk, repeat(tuple(schemes)), chunks)
            yield from chain.from_iterable(_told(done, advance))
    else:
        done = map(partial(_featurise_chunk, tuple(schemes)), chunks)
        yield from chain.from_iterable(_told(done, advance))


def _told(chunks: Iterator[list[Any]], advance: Advance) -> Iterator[list[Any]]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk


def _featurise_chunk(
    schemes: Sequence[FeatureScheme], molecules: Sequence[str]
) -> list[tuple[int, dict[str, Any]] | str]:
    outcomes: list[tuple[int, dict[str, Any]] | str] = []
    for smiles in molecules:
        try:
            outcomes.append(featurise(schemes, smiles))
        except RejectedMoleculeError as error:
            outcomes.append(str(error))
        except Exception as error:
            error.add_note(f"while featurising {smiles[:200]!r}")
            raise
    return outcomes
