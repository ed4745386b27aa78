"""What a frozen encoder made of molecules: a file of rows for each level, memory-mapped, read in batches.

A store belongs to one list of molecules and is written whole: to a folder beside its own, which is then moved into
place. So nobody ever reads a half-written one, and whatever a killed process left is thrown away by the next that
writes.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from filelock import FileLock

from encoders.base import Column, Counts, EncoderError, Level, MoleculeEncoding, Ragged
from encoders.store_files import array_in, header_of, sum_of_words
from encoders.store_groups import Group, groups_of, offsets_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
"""Raised when the files of a store change their meaning."""

_DTYPE = np.dtype(np.float32)  # in which encoders compute
_SUMS = "sums.json"


class LevelStore:
    """Levels of a list of molecules; `open` or `write` it before it is read.

    Args:
        folder: its place; the name says all that the rows depend on, for nothing in it does.
        molecules: distinct SMILES.
        widths: of the levels.
        rows: of each molecule at every level, `(N,)`, as the encoder declares them.
    """

    def __init__(self, folder: Path, molecules: Sequence[str], widths: Mapping[Level, int], rows: Counts) -> None:
        self.folder = folder
        self._row_of = dict(zip(molecules, range(len(molecules)), strict=True))
        self._columns = {level: Column(_DTYPE.name, (widths[level],)) for level in sorted(widths)}
        self._ptr = {level: offsets_of(rows[level]) for level in self._columns}
        self._groups: list[Group] = []

    @property
    def size(self) -> int:
        """Bytes that the rows take."""
        return sum(_DTYPE.itemsize * rows * width for rows, width in map(self._shape, self._columns))

    @property
    def lock(self) -> FileLock:
        """Held by whoever writes."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.parent / f"{self.folder.name}.lock")

    def open(self) -> bool:
        """Maps the files; False where there are none, or, with a warning, where they are not as they were written."""
        try:
            known = json.loads((self.folder / _SUMS).read_bytes())
            arrays = {level: array_in(self._file(self.folder, level), _DTYPE, self._shape(level)) for level in known}
            damaged = [level for level, array in arrays.items() if not self._is_whole(level, array, known[level])]
            if damaged or set(known) != set(self._columns):
                raise ValueError(f"{', '.join(damaged) or 'the list of levels'} is not as it was written")
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            warnings.warn(f"encoded molecules in {self.folder} are damaged ({error}) and are made anew", stacklevel=2)
            return False
        self._map(arrays)
        return True

    def write(self, encodings: Iterable[MoleculeEncoding]) -> None:
        """Writes the rows of all molecules, batch after batch, and maps them. Only under the lock.

        Raises:
            EncoderError: a molecule has not as many rows as were declared.
            OSError: the rows cannot be written; nothing is left of them.
        """
        for leftover in self.folder.parent.glob(f".unfinished-{self.folder.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished = self.folder.with_name(f".unfinished-{self.folder.name}-{uuid.uuid4().hex}")
        unfinished.mkdir(parents=True)
        try:
            self._write(unfinished, encodings)
            sums = {
                level: sum_of_words(array_in(self._file(unfinished, level), _DTYPE, self._shape(level)))
                for level in self._columns
            }
            (unfinished / _SUMS).write_text(json.dumps(sums))
            shutil.rmtree(self.folder, ignore_errors=True)  # a damaged one
            os.replace(unfinished, self.folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._map({level: array_in(self._file(self.folder, level), _DTYPE, self._shape(level)) for level in sums})

    def encoding(self, molecules: Sequence[str]) -> MoleculeEncoding:
        """The levels of these molecules, in order; a molecule may stand several times.

        Raises:
            KeyError: a molecule is not in the store.
        """
        rows = np.fromiter(map(self._row_of.__getitem__, molecules), np.int64, len(molecules))
        levels: dict[Level, Ragged] = {}
        for group in self._groups:
            counts = group.count[rows]
            offsets = offsets_of(counts)
            ptr = torch.from_numpy(offsets)
            for level, values in group.taken(rows, counts, offsets).items():
                levels[level] = Ragged(torch.from_numpy(values), ptr)
        return MoleculeEncoding(len(rows), levels)

    def _write(self, folder: Path, encodings: Iterable[MoleculeEncoding]) -> None:
        done = 0
        with ExitStack() as opened:
            files = {level: opened.enter_context(self._file(folder, level).open("wb")) for level in self._columns}
            for level, file in files.items():
                file.write(header_of(_DTYPE, self._shape(level)))
            for encoding in encodings:
                for level, file in files.items():
                    found = encoding[level].ptr.cpu().numpy() + self._ptr[level][done]
                    if not np.array_equal(found, self._ptr[level][done : done + encoding.size + 1]):
                        raise EncoderError(f"molecules have other numbers of rows at {level} than the encoder declares")
                    file.write(encoding[level].values.float().cpu().contiguous().numpy().data)
                done += encoding.size
        if done != len(self._row_of):
            raise EncoderError(f"{done} of {len(self._row_of)} molecules were encoded")

    def _map(self, arrays: Mapping[Level, NDArray[np.float32]]) -> None:
        values = {level: [array] for level, array in arrays.items()}
        ends = {level: (ptr[:-1], ptr[1:]) for level, ptr in self._ptr.items()}
        self._groups = groups_of(self._columns, values, ends, np.zeros(len(self._row_of), dtype=np.int64))

    def _shape(self, level: Level) -> tuple[int, int]:
        return int(self._ptr[level][-1]), *self._columns[level].shape  # type: ignore[return-value]

    def _is_whole(self, level: Level, array: NDArray[np.float32], known: int) -> bool:
        return array.dtype == _DTYPE and array.shape == self._shape(level) and sum_of_words(array) == known

    @staticmethod
    def _file(folder: Path, level: Level) -> Path:
        return folder / f"{level.replace(':', '-')}.npy"
