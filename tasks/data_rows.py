"""Which rows of a file are read, and what another file adds to them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tasks.base import Rejection, TaskError
from tasks.data_description import Fold, Join
from tasks.data_files import Record, read_records, shorten, suggest


def where(records: list[Record], filters: Mapping[str, tuple[str, ...]], path: Path) -> list[Record]:
    """The records that pass every filter; a filter that nothing passes is a mistake, as a file without rows is.

    Raises:
        TaskError: no record is left.
    """
    if not records:
        raise TaskError(f"{path} has a header but no rows")
    for column, allowed in filters.items():
        passing = [record for record in records if record.values[column] in allowed]
        if not passing:
            held = Counter(record.values[column] for record in records).most_common(8)
            listed = ", ".join(f"{shorten(value)} ({count:,})" for value, count in held)
            wanted = " or ".join(map(repr, allowed))
            near = suggest(allowed[0], [value for value, _ in held])
            raise TaskError(f"{path}: no row has {wanted} in the column {column!r}; it holds {listed}{near}")
        records = passing
    return records


def folded(records: list[Record], fold: Fold | None) -> list[Record]:
    """The records of a fold's buckets."""
    if fold is None:
        return records
    return [record for record in records if bucket(record.values[fold.by], fold.of) in fold.keep]


def bucket(value: str, count: int) -> int:
    """The bucket, from 0 to `count` - 1, of a value: the first eight bytes of its sha256, modulo `count`."""
    return int.from_bytes(hashlib.sha256(value.encode("utf-8")).digest()[:8]) % count


def fold_in_words(fold: Fold) -> str:
    """A fold for a run's manifest."""
    kept = ", ".join(map(str, fold.keep))
    return f"rows whose {fold.by} hashes (sha256) into bucket {kept} of {fold.of}"


def joined(
    records: list[Record], join: Join, other: bytes, other_path: Path, path: Path
) -> tuple[list[Record], list[Rejection]]:
    """The records with the columns that the other file adds, and the rows for which it does not say one thing.

    Raises:
        TaskError: the other file is broken or lacks a column.
    """
    added: dict[str, dict[str, str] | None] = {}  # None: two rows of the other file disagree
    for record in read_records(other, other_path, [join.by, *join.columns]):
        key = record.values[join.by]
        values = {column: record.values[column] for column in join.columns}
        added[key] = values if added.get(key, values) == values else None
    kept: list[Record] = []
    rejections: list[Rejection] = []
    for record in records:
        key = record.values[join.by]
        values_or_none = added.get(key)
        if values_or_none is None:
            wanted = ", ".join(join.columns)
            what = "has two values for" if key in added else "has no row for"
            reason = f"{join.file} {what} the {join.by} of this row, so {wanted} is not known"
            rejections.append(Rejection(str(path), record.line, shorten(key), reason))
            continue
        kept.append(replace(record, values={**record.values, **values_or_none}))
    return kept, rejections


def check_ids(records: list[Record], column: str | None, path: Path) -> None:
    """Make sure that ids tell rows apart.

    Raises:
        TaskError: one is empty or stands twice.
    """
    if column is None:
        return
    first_line: dict[str, int] = {}
    advice = "ids must tell rows apart; without the role id, rows are numbered"
    for record in records:
        identity = record.values[column]
        if not identity:
            raise TaskError(f"{path}:{record.line}: the id (column {column!r}) is empty; {advice}")
        if identity in first_line:
            raise TaskError(
                f"{path}:{record.line}: the id {shorten(identity)} (column {column!r}) stands already on line "
                f"{first_line[identity]}; {advice}"
            )
        first_line[identity] = record.line
