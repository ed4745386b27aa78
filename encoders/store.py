"""The feature store: each molecule featurised once per scheme, kept as memory-mapped columns, read in batches.

A store is a folder with one folder per scheme in it, and that holds segments: the rows of some molecules, written to a
temporary folder and moved into place whole, under a lock, and never changed. Who asks for molecules gets a view over
the segments that hold them; only molecules that no segment knows are featurised. So several processes may read and
build one store, other limits or another data set cost the molecules that are new, and a killed process leaves nothing
half-made behind.
"""

from __future__ import annotations

import csv
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock

from encoders.base import EncoderError, FeatureScheme, MoleculeBatch, Ragged
from encoders.featurising import Advance, Rows, featurise, featurise_many
from encoders.store_files import DamagedSegmentError, SchemeFolder, Segment
from encoders.store_groups import Group, groups_of, offsets_of, shifted, widened

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Advance", "FeatureStore", "featurise"]

_SEGMENT = 100_000  # molecules, so that memory stays bounded and a killed process keeps what it had finished
_GATHER_FROM = 8  # molecules; below, joining slices is as fast as gathering rows


class FeatureStore:
    """Features of a list of molecules: a view over the segments that hold them, made by `open_or_build`.

    Attributes:
        rejected: the others, with the reason of the first scheme that rejects each.
        names: the folders of the schemes, which say what the features are made by.
    """

    def __init__(
        self,
        folders: Sequence[SchemeFolder],
        molecules: Sequence[str],
        rejected: Mapping[str, str],
        num_atoms: NDArray[np.int64],
        groups: Sequence[Group],
    ) -> None:
        self.names = tuple(folder.path.name for folder in folders)
        self.rejected = rejected
        self._molecules = molecules
        self._num_atoms = num_atoms
        self._groups = groups
        columns = {name: column for folder in folders for name, column in folder.columns.items()}
        self._order = list(columns)
        self._indices = any(column.indexes is not None for column in columns.values())
        self._keys = np.full(len(molecules), -1, dtype=np.int64)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """The accepted molecules, numbered in the order in which they were asked for."""
        return dict(zip(self._molecules, range(len(self._molecules)), strict=True))

    @classmethod
    def _of_found(cls, wanted: Mapping[str, int], found: Sequence[_Found]) -> FeatureStore:
        """A view of molecules that may lie in several segments, and be rejected."""
        first_reason: dict[str, str] = {}
        for scheme in found:
            first_reason = {**scheme.rejected, **first_reason}
        rejected = {smiles: first_reason[smiles] for smiles in wanted if smiles in first_reason}
        kept = [smiles for smiles in wanted if smiles not in first_reason]
        positions = np.fromiter((wanted[smiles] for smiles in kept), np.int64, len(kept))
        num_atoms = found[0].gathered([s.num_atoms for s in found[0].segments], positions)
        groups = [group for scheme in found for group in scheme.groups(positions)]
        return cls([scheme.folder for scheme in found], kept, rejected, num_atoms, groups)

    @classmethod
    def _of_whole_segments(cls, folders: Sequence[SchemeFolder], molecules: Sequence[str]) -> FeatureStore | None:
        """A view of just the molecules of a segment of each scheme; None where there is no such segment."""
        segments = []
        for folder in folders:
            path = folder.holding(molecules)
            if path is None:
                return None
            try:
                segments.append(folder.read(path, len(molecules)))
            except DamagedSegmentError:
                return None
        groups = [
            group
            for folder, segment in zip(folders, segments, strict=True)
            for group in groups_of(
                folder.columns,
                {name: [values] for name, values in segment.values.items()},
                {name: (ptr[:-1], ptr[1:]) for name, ptr in segment.ptr.items()},
                np.zeros(len(molecules), dtype=np.int64),
            )
        ]
        return cls(folders, list(molecules), {}, segments[0].num_atoms, groups)

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
        """A view over these molecules; those that the store lacks are featurised and added to it.

        Args:
            root: the folder of the store, for all schemes and molecules.
            schemes: whose columns are wanted; without any, molecules are only parsed and counted.
            molecules: SMILES; duplicates are kept once.
            workers: processes to featurise with, where there is enough to do to pay for them.
            advance: told of progress, of molecules that the store has already too if it lacks others.

        Raises:
            EncoderError: two schemes fill a column of the same name, or a scheme's rows are not what it declares.
            OSError: the store cannot be written; it holds what it held before, and whole segments of what is new.
        """
        folders = _folders(root, schemes)
        whole = cls._of_whole_segments(folders, molecules)
        if whole is not None:
            return whole
        wanted = {smiles: position for position, smiles in enumerate(dict.fromkeys(molecules))}
        found = [_Found(folder, wanted) for folder in folders]
        lacking = [position for position, scheme in enumerate(found) if scheme.is_lacking]
        if not lacking:
            return cls._of_found(wanted, found)
        with ExitStack() as locks:
            for position in sorted(lacking, key=lambda position: folders[position].path):  # always in one order
                folders[position].path.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(folders[position].lock))
            for position in lacking:  # somebody else may have built meanwhile
                found[position] = _Found(folders[position], wanted)
                found[position].clear()
            _build(folders, _missing(found, list(wanted)), len(wanted), workers, advance)
            for position in lacking:
                found[position] = _Found(folders[position], wanted)
        unreadable = next((scheme.folder.path for scheme in found if scheme.is_lacking), None)
        if unreadable is not None:
            raise OSError(f"{unreadable}: what was just written cannot be read back")
        return cls._of_found(wanted, found)

    def sizes(self, molecules: Sequence[str]) -> NDArray[np.int64]:
        """The number of atoms of each molecule, `(B,)`."""
        return self._num_atoms[self._rows(molecules)]

    def counts(self, molecules: Sequence[str]) -> Mapping[str, NDArray[np.int64]]:
        """The rows of each molecule per column, `(B,)`."""
        rows = self._rows(molecules)
        counts = {name: group.count[rows] for group in self._groups for name in group.columns}
        return {name: counts[name] for name in self._order}

    def batch(self, molecules: Sequence[str]) -> MoleculeBatch:
        """The features of these molecules, in order; a molecule may stand several times.

        Integers come as int64, floats as they are declared. What points at atoms or rows of the molecule points at
        atoms or rows of the batch.

        Raises:
            KeyError: a molecule is not in the view.
        """
        rows = self._rows(molecules)
        few = len(rows) < _GATHER_FROM
        counts = [group.count[rows] for group in self._groups]
        offsets = [offsets_of(count) for count in counts]
        starts = {name: ptr for group, ptr in zip(self._groups, offsets, strict=True) for name in group.columns}
        if self._indices and "atom" not in starts:
            starts["atom"] = offsets_of(self._num_atoms[rows])
        columns: dict[str, Ragged] = {}
        for group, count, offset in zip(self._groups, counts, offsets, strict=True):
            joined = group.sliced(rows) if few else group.taken(rows, count, offset)
            ptr = torch.from_numpy(offset)
            for name, narrow in joined.items():
                indexes = group.columns[name].indexes
                values = widened(narrow) if indexes is None else shifted(narrow, starts[indexes][:-1], count)
                columns[name] = Ragged(torch.from_numpy(values), ptr)
        return MoleculeBatch(len(rows), {name: columns[name] for name in self._order})

    def keyed(self, molecules: Sequence[str]) -> MoleculeBatch:
        """The same with a number of each molecule, for what draws at random."""
        return replace(self.batch(molecules), keys=self.keys(molecules))

    def keys(self, molecules: Sequence[str]) -> Tensor:
        """A number of each molecule that depends on nothing but its SMILES, `(B,)` int64; hashed once per molecule.

        Raises:
            KeyError: a molecule is not in the view.
        """
        rows = self._rows(molecules)
        found = self._keys[rows]
        for place in np.flatnonzero(found < 0).tolist():
            digest = hashlib.sha256(molecules[place].encode()).digest()
            found[place] = self._keys[rows[place]] = int.from_bytes(digest[:7], "big")
        return torch.from_numpy(found)

    def write_rejected(self, path: Path) -> None:
        """The rejected molecules and their reasons as CSV."""
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("smiles", "reason"), *self.rejected.items()])

    def _rows(self, molecules: Sequence[str]) -> NDArray[np.int64]:
        return np.fromiter(map(self.row_of.__getitem__, molecules), np.int64, len(molecules))


class _Found:
    """What the folder of a scheme holds of the molecules that are wanted.

    Attributes:
        segments: those that hold any.
        segment, row: where each molecule is, `(N,)`; segment -1 where it is rejected or unknown.
        rejected: molecules with reasons.
    """

    def __init__(self, folder: SchemeFolder, wanted: Mapping[str, int]) -> None:
        self.folder = folder
        self.segments: list[Segment] = []
        self.segment = np.full(len(wanted), -1, dtype=np.int64)
        self.row = np.zeros(len(wanted), dtype=np.int64)
        self.rejected: dict[str, str] = {}
        self._damaged: dict[Path, str] = {}
        for path in folder.segments():
            try:
                self._look_into(path, wanted)
            except DamagedSegmentError as error:
                self._damaged[path] = str(error)

    @property
    def is_lacking(self) -> bool:
        """Whether any molecule has yet to be featurised."""
        return int((self.segment >= 0).sum()) + len(self.rejected) < len(self.segment)

    def lacks(self, smiles: Sequence[str]) -> NDArray[np.bool_]:
        """Which molecules have yet to be featurised, `(N,)`."""
        known = np.fromiter((each in self.rejected for each in smiles), np.bool_, len(smiles))
        return (self.segment < 0) & ~known

    def clear(self) -> None:
        """Removes damaged segments, whose molecules then are unknown, and says so. Only under the lock."""
        for path, reason in self._damaged.items():
            warnings.warn(f"features in {path} are damaged ({reason}) and are made anew", stacklevel=3)
        self.folder.clear(list(self._damaged))

    def gathered(self, arrays: Sequence[NDArray[np.int64]], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """An entry for each molecule, from arrays with one entry for each molecule of a segment."""
        segment, row = self.segment[positions], self.row[positions]
        found = np.zeros(len(positions), dtype=np.int64)
        for number, array in enumerate(arrays):
            here = segment == number
            found[here] = array[row[here]]
        return found

    def groups(self, positions: NDArray[np.int64]) -> list[Group]:
        """The columns, those whose molecules have equally many rows together."""
        ends = {
            name: (
                self.gathered([segment.ptr[name][:-1] for segment in self.segments], positions),
                self.gathered([segment.ptr[name][1:] for segment in self.segments], positions),
            )
            for name in self.folder.columns
        }
        values = {name: [segment.values[name] for segment in self.segments] for name in self.folder.columns}
        return groups_of(self.folder.columns, values, ends, self.segment[positions])

    def _look_into(self, path: Path, wanted: Mapping[str, int]) -> None:
        molecules, rejected = self.folder.listed(path)
        pairs = [(wanted[smiles], row) for row, smiles in enumerate(molecules) if smiles in wanted]
        if pairs:
            segment = self.folder.read(path, len(molecules))
            positions, rows = np.array(pairs, dtype=np.int64).T
            self.segment[positions], self.row[positions] = len(self.segments), rows
            self.segments.append(segment)
        self.rejected |= {smiles: reason for smiles, reason in rejected.items() if smiles in wanted}


def _folders(root: Path, schemes: Sequence[FeatureScheme]) -> list[SchemeFolder]:
    """The folder of each scheme, once; one for molecules that are only parsed where there is no scheme.

    Raises:
        EncoderError: two schemes fill a column of the same name.
    """
    folders: dict[Path, SchemeFolder] = {}
    filled_by: dict[str, str] = {}
    for folder in [SchemeFolder(root, scheme) for scheme in schemes] or [SchemeFolder(root, None)]:
        if folder.path in folders:
            continue
        clash = [name for name in folder.columns if name in filled_by]
        if clash:
            raise EncoderError(
                f"feature schemes {filled_by[clash[0]]} and {folder.name} both fill the column {clash[0]}; an encoder "
                "can read only one of them"
            )
        filled_by |= dict.fromkeys(folder.columns, folder.name)
        folders[folder.path] = folder
    return list(folders.values())


def _missing(found: Sequence[_Found], molecules: Sequence[str]) -> dict[tuple[int, ...], list[str]]:
    """By positions of the schemes that lack them, the molecules to featurise."""
    lacking = [scheme.lacks(molecules) for scheme in found]
    missing: dict[tuple[int, ...], list[str]] = {}
    for row in np.flatnonzero(np.logical_or.reduce(lacking)).tolist():
        positions = tuple(position for position, lacks in enumerate(lacking) if lacks[row])
        missing.setdefault(positions, []).append(molecules[row])
    return missing


def _build(
    folders: Sequence[SchemeFolder],
    missing: Mapping[tuple[int, ...], Sequence[str]],
    total: int,
    workers: int,
    advance: Advance,
) -> None:
    """Featurises what is missing, and appends a segment to each scheme for every so many molecules."""
    known = total - sum(map(len, missing.values()))
    if missing and known:
        advance(known)
    schemes = [folder.scheme for folder in folders if folder.scheme is not None]
    # Where there is no scheme, molecules are parsed only.
    wanted: Mapping[tuple[int, ...], Sequence[str]] = missing if schemes else {(): missing.get((0,), [])}
    pending: list[list[Rows]] = [[] for _ in folders]
    for positions, parts in featurise_many(schemes, wanted, workers, advance):
        for position, part in zip(positions or (0,), parts, strict=True):
            pending[position].append(part)
            if sum(len(part.molecules) + len(part.rejected) for part in pending[position]) >= _SEGMENT:
                folders[position].append(pending[position])
                pending[position] = []
    for folder, left in zip(folders, pending, strict=True):
        if left:
            folder.append(left)
