"""The columns of a store's view, and how a batch is made of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.base import Column

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Group:
    """Columns of a scheme in which each molecule has equally many rows.

    Args:
        columns: as declared.
        values: per column, the array of each segment.
        segment: where the rows of each molecule of the view are, `(N,)`.
        only: the segment that all of them are in; None where there are several, or no molecules.
        start, end, count: which rows these are, `(N,)`.
    """

    columns: dict[str, Column]
    values: dict[str, list[NDArray[Any]]]
    segment: NDArray[np.int64]
    only: int | None
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    count: NDArray[np.int64]

    def sliced(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The rows of a few molecules, slice by slice."""
        places = list(zip(self.start[rows].tolist(), self.end[rows].tolist(), strict=True))
        if not places:
            return {name: self._none(name) for name in self.values}
        if self.only is not None:
            arrays = {name: values[self.only] for name, values in self.values.items()}
            return {name: np.concatenate([array[b:e] for b, e in places]) for name, array in arrays.items()}
        segment = self.segment[rows].tolist()
        return {
            name: np.concatenate([values[s][b:e] for s, (b, e) in zip(segment, places, strict=True)])
            for name, values in self.values.items()
        }

    def taken(
        self, rows: NDArray[np.int64], counts: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> dict[str, NDArray[Any]]:
        """The rows of many molecules, without a loop over them."""
        source = np.arange(offsets[-1]) + (self.start[rows] - offsets[:-1]).repeat(counts)
        if self.only is not None:
            return {name: values[self.only].take(source, axis=0) for name, values in self.values.items()}
        segment = self.segment[rows]
        segment_of_row = segment.repeat(counts)
        places = [(number, np.flatnonzero(segment_of_row == number)) for number in np.unique(segment)]
        joined = {}
        for name, values in self.values.items():
            rows_of = np.empty((len(source), *self.columns[name].shape), dtype=self.columns[name].dtype)
            for number, place in places:
                rows_of[place] = values[number].take(source[place], axis=0)
            joined[name] = rows_of
        return joined

    def _none(self, name: str) -> NDArray[Any]:
        return np.zeros((0, *self.columns[name].shape), dtype=self.columns[name].dtype)


def groups_of(
    columns: Mapping[str, Column],
    values: Mapping[str, list[NDArray[Any]]],
    ends: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]],
    segment: NDArray[np.int64],
) -> list[Group]:
    """The columns of a scheme, those whose molecules have equally many rows together.

    Args:
        columns: as declared.
        values: per column, the array of each segment.
        ends: per column, the first row of each molecule and the one behind its last, `(N,)` each.
        segment: where these are, `(N,)`.
    """
    only = int(segment[0]) if len(segment) and (segment == segment[0]).all() else None
    groups: list[Group] = []
    for name, column in columns.items():
        start, end = ends[name]
        like = next((g for g in groups if np.array_equal(g.start, start) and np.array_equal(g.end, end)), None)
        if like is None:
            like = Group({}, {}, segment, only, start, end, end - start)
            groups.append(like)
        like.columns[name] = column
        like.values[name] = values[name]
    return groups


def offsets_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the rows of each molecule begin, and where the last ones end, `(B + 1,)`."""
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def widened(values: NDArray[Any]) -> NDArray[Any]:
    """Integers as int64, all else as it is."""
    return values.astype(np.int64) if values.dtype.kind in "iu" else values


def shifted(values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """What points at rows of the molecule, pointing at rows of the batch."""
    width = values[0].size if len(values) else 1
    shift = starts.repeat(counts * width)
    # Flat, since numpy is several times slower at rows of one or two numbers.
    shift += values.reshape(-1)
    return shift.reshape(values.shape)
