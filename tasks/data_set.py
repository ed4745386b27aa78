"""One described data set: where its files are, its rows, read strictly, and its splits."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tasks import locations
from tasks.base import SPLITS, Rejection, Split, TaskError
from tasks.data_description import Description, Join, Source
from tasks.data_files import Record, digest, digest_mismatch, read_bytes, read_records, shorten, suggest
from tasks.data_rows import check_ids, fold_in_words, folded, joined, where
from tasks.splits import SplitMethod, assign, parse_method, require_all_splits

SMILES_ROLES = ("smiles", "product", "products", "reactants", "reagents")
"""Roles that hold SMILES. The first that a data set has is the molecule by which `scaffold` deals its rows out."""

_RESERVED = "\ufffc"  # marks a molecule's place inside a turn's text (tasks.base.slot)
_WHOLE = {"0.0": "0", "1.0": "1"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a split: where it stands (`line` is that of its beginning), its id, and its values by role."""

    file: str
    line: int
    id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SourceInForce:
    """Which file supplies a split, for a run's manifest.

    Args:
        file: as the description names it; several, joined by " + ", where a method deals out the rows of several.
        path: where it lies (the first of several).
        sha256: of the file; of several, that of their hashes in order, one a line.
        git_blob: as git names it; empty for several.
        note: what the description says about it, and the method and seed where rows were dealt out anew.
        where: column -> values that rows were chosen by.
    """

    file: str
    path: Path
    sha256: str
    git_blob: str
    note: str
    where: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What `verify` found about one file of one split.

    `absent` is a file that another one stands in for; `missing` means that nothing supplies the split.
    """

    split: Split
    file: str
    status: Literal["ok", "absent", "missing", "failed"]
    message: str = ""


class _Reader:
    """Reads files; keeps the last one, since one file often supplies several splits."""

    def __init__(self) -> None:
        self._key: object = None
        self._records: list[Record] = []

    def records(self, source: Source, path: Path, columns: Iterable[str]) -> list[Record]:
        wanted = tuple(dict.fromkeys(columns))
        key = (path, wanted, source.sha256, source.git_blob, source.delimiter, source.quotes, source.header)
        if key != self._key:
            self._records = []  # before the next file is read, so that never two are held
            found = content_of(source, path)
            self._records = read_records(found, path, wanted, source.delimiter, source.quotes, source.header)
            self._key = key
        return self._records


@dataclass(frozen=True, slots=True)
class DataSet:
    """A described data set. Nothing is opened before it is asked for, so every call sees the files as they are.

    Args:
        description: what its YAML file says.
        yaml: that file.
        requested: how its rows are to be dealt out, in place of what the description says.
    """

    description: Description
    yaml: Path
    requested: SplitMethod | None = None

    @property
    def name(self) -> str:
        """What the data set is asked for by."""
        return f"{self.description.name}@{self.requested}" if self.requested else self.description.name

    @property
    def method(self) -> SplitMethod | None:
        """How rows are dealt out to splits; None where they come in splits."""
        stated = self.description.split_method
        return self.requested or (parse_method(stated, self.description.fractions) if stated else None)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that each row has a value for."""
        return frozenset(self.description.columns) - {"id"}

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that there are, whether or not their files are here."""
        return SPLITS if self.method else self._described

    @property
    def _described(self) -> tuple[Split, ...]:
        return tuple(split for split in SPLITS if split in self.description.splits)

    def require(self, roles: Iterable[str], purpose: str) -> None:
        """Make sure that the rows have `roles`.

        Raises:
            TaskError: one is lacking.
        """
        for role in roles:
            if role not in self.roles:
                raise TaskError(
                    f"{self.yaml}: {purpose} needs a column for the role {role!r}; data set {self.name} has "
                    f"{', '.join(sorted(self.roles))}{suggest(role, self.roles)}. Name it under columns"
                )

    def find(self, source: Source | Join) -> Path | None:
        """Where a file of the description lies, or None where it is not here."""
        if self.description.relative_to == "data":
            return locations.find(source.file)
        path = self._beside_yaml(source)
        return path if path.exists() else None

    def _beside_yaml(self, source: Source | Join) -> Path:
        return Path(os.path.normpath(self.yaml.parent / Path(source.file).expanduser()))

    def present(self, split: Split) -> tuple[Source, Path] | None:
        """The first file described for `split` that is here, unopened; None where none is.

        Where rows are dealt out anew, every split needs the files of all, and the first is given.
        """
        if self.method is None:
            return self._first_here(split)
        found = [self._first_here(each) for each in self._described]
        return found[0] if all(each is not None for each in found) else None

    def _first_here(self, split: Split) -> tuple[Source, Path] | None:
        for source in self.description.splits.get(split, ()):
            path = self.find(source)
            if path is not None and (source.join is None or self.find(source.join) is not None):
                return source, path
        return None

    def source(self, split: Split) -> SourceInForce:
        """The file that supplies `split`.

        Raises:
            TaskError: no file is here, or the first that is here is another than described.
        """
        self._require_split(split)
        found = [self._file_in_force(each) for each in ([split] if self.method is None else self._described)]
        first = found[0]
        if self.method is None:
            return first
        if len(found) == 1:
            return replace(first, note=f"{first.note}; {self.method.described}".removeprefix("; "))
        hashed = hashlib.sha256("\n".join(each.sha256 for each in found).encode()).hexdigest()
        files = " + ".join(dict.fromkeys(each.file for each in found))
        parts = "; ".join(f"{each.file} ({each.note})" if each.note else each.file for each in found)
        return SourceInForce(files, first.path, hashed, "", f"all rows of {parts}; {self.method.described}", {})

    def _file_in_force(self, split: Split) -> SourceInForce:
        source, path = self._in_force(split)
        found = digest(content_of(source, path))
        note = source.note
        if source.join is not None:
            joined = digest(_joined_content(source.join, self._find_join(source.join))).sha256
            note = f"{note}; {', '.join(source.join.columns)} from {source.join.file} (sha256 {joined})"
        if source.fold is not None:
            note = f"{note}; {fold_in_words(source.fold)}"
        return SourceInForce(source.file, path, found.sha256, found.git_blob, note.removeprefix("; "), source.where)

    def rows(self, split: Split) -> tuple[list[Row], list[Rejection]]:
        """All rows of `split` in file order, and the rows left out because of what they hold.

        Where rows are dealt out anew, a row that belongs to no split (its SMILES cannot be parsed) is named once, with
        the training split.

        Raises:
            TaskError: no file is here, the first that is here is another than described, or it is broken.
        """
        self._require_split(split)
        reader = _Reader()
        if self.method is not None:
            return self._dealt_out(split, self.method, reader)
        source, path = self._in_force(split)
        return self._read(split, source, path, reader)

    def _dealt_out(self, split: Split, method: SplitMethod, reader: _Reader) -> tuple[list[Row], list[Rejection]]:
        role = next((each for each in SMILES_ROLES if each in self.roles), None)
        if role is None and method.kind == "scaffold":
            raise TaskError(f"{self.yaml}: the split method {method} needs a column for the role 'smiles'")
        rows: list[Row] = []
        rejections: list[Rejection] = []
        for each in self._described:
            source, path = self._in_force(each)
            read, left_out = self._read(each, source, path, reader)
            rows += read
            rejections += left_out
        rows = self._renamed(rows)
        splits = assign([row.values[role] if role else "" for row in rows], method)
        require_all_splits(splits, f"data set {self.name}")
        for row, given in zip(rows, splits, strict=True):
            if given is None:
                reason = "RDKit cannot parse its SMILES, so it has no scaffold and is in no split"
                rejections.append(Rejection(row.file, row.line, row.values[role or ""], reason))
        chosen = [row for row, given in zip(rows, splits, strict=True) if given == split]
        return chosen, rejections if split == "train" else []

    def _renamed(self, rows: list[Row]) -> list[Row]:
        """Ids for rows of all files together: their own, which must then differ, or numbers that name no split."""
        if "id" not in self.description.columns:
            return [replace(row, id=f"row-{number}") for number, row in enumerate(rows, start=1)]
        counts = Counter(row.id for row in rows)
        for row in rows:
            if counts[row.id] > 1:
                raise TaskError(
                    f"{row.file}:{row.line}: the id {shorten(row.id)} stands {counts[row.id]} times in all files "
                    f"together, and {self.method} deals them out together; without the role id, rows are numbered"
                )
        return rows

    def verify(self) -> list[FileCheck]:
        """Check the hash, the form and the number of rows of every file that is here."""
        checks = []
        reader = _Reader()
        for split in self._described:
            if self._first_here(split) is None:
                checks.append(FileCheck(split, self._files(split), "missing", self.missing(split)))
                continue
            checks.extend(self._check(split, source, reader) for source in self.description.splits[split])
        return checks

    def _check(self, split: Split, source: Source, reader: _Reader) -> FileCheck:
        path = self.find(source)
        if path is None:
            return FileCheck(split, source.file, "absent")
        try:
            rows, rejections = self._read(split, source, path, reader)
        except TaskError as error:
            return FileCheck(split, source.file, "failed", str(error))
        left_out = f", {len(rejections):,} left out" if rejections else ""
        return FileCheck(split, source.file, "ok", f"{len(rows):,} rows{left_out}")

    def _require_split(self, split: Split) -> None:
        if split not in self.splits:
            raise TaskError(
                f"data set {self.name} has no split {split!r}; it has {', '.join(self.splits)}{suggest(split, SPLITS)}"
            )

    def _in_force(self, split: Split) -> tuple[Source, Path]:
        found = self._first_here(split)
        if found is None:
            raise TaskError(self.missing(split))
        return found

    def _files(self, split: Split) -> str:
        return " or ".join(
            f"{source.file} with {source.join.file}" if source.join else source.file
            for source in self.description.splits[split]
        )

    def missing(self, split: Split) -> str:
        """What to say where nothing supplies `split`: what is expected, where it was looked for, how to get it."""
        if split not in self.description.splits:  # all rows are in the files of the others
            split = next((each for each in self._described if self._first_here(each) is None), self._described[0])
        sources = self.description.splits[split]
        which = "" if self.method and len(self._described) == 1 else f", split {split}"
        expected = f"data set {self.name}{which}: expected {self._files(split)}"
        if self.description.relative_to == "yaml":
            looked = ", ".join(str(self._beside_yaml(source)) for source in sources)
            return f"{expected}; looked at {looked}. Paths start from the folder of {self.yaml}"
        looked = "; ".join(locations.where_looked(source.file) for source in sources)
        own = f"set {locations.DATA_VARIABLE} to a folder that holds it"
        if not any(source.url for source in sources):
            return f"{expected}; {looked}. It has no public address here: {own}"
        return f"{expected}; {looked}. Get it with: molgraft data get {self.description.name}, or {own}"

    def _read(self, split: Split, source: Source, path: Path, reader: _Reader) -> tuple[list[Row], list[Rejection]]:
        columns = source.columns or self.description.columns
        added = source.join.columns if source.join else ()
        wanted = [*columns.values(), *source.where, *([source.fold.by] if source.fold else [])]
        wanted += [source.join.by] if source.join else []
        records = reader.records(source, path, [column for column in wanted if column not in added])
        chosen = folded(where(records, source.where, path), source.fold)
        if source.rows is not None and len(chosen) != source.rows:
            raise TaskError(f"{path}: {len(chosen):,} rows for split {split}, expected {source.rows:,}; is it whole?")
        rejections: list[Rejection] = []
        if source.join is not None:
            other = self._find_join(source.join)
            chosen, rejections = joined(chosen, source.join, _joined_content(source.join, other), other, path)
        check_ids(chosen, columns.get("id"), path)
        rows: list[Row] = []
        file = str(path)
        fixes = self._fixes(columns)
        held = [(role, column) for role, column in columns.items() if role != "id"]
        for record in chosen:
            values = {role: record.values[column] for role, column in held}
            for role, fix in fixes:
                values[role] = fix(values[role])
            marked = next((value for value in values.values() if _RESERVED in value), None)
            if marked is not None:
                reason = "holds U+FFFC, which molgraft needs to mark a molecule's place in a text"
                rejections.append(Rejection(file, record.line, shorten(marked), reason))
                continue
            identity = record.values[columns["id"]] if "id" in columns else f"{split}-{record.number}"
            rows.append(Row(file, record.line, identity, values))
        return rows, rejections

    def _find_join(self, join: Join) -> Path:
        path = self.find(join)
        if path is None:
            raise TaskError(
                f"data set {self.name}: {join.file}, from which {', '.join(join.columns)} come, is not here"
            )
        return path

    def _fixes(self, columns: Mapping[str, str]) -> list[tuple[str, Callable[[str], str]]]:
        """What is done to the values of some roles, in order."""
        normalise = self.description.normalise
        molecules = [role for role in SMILES_ROLES if role in columns]
        fixes: list[tuple[str, Callable[[str], str]]] = [(role, str.strip) for role in molecules]  # ESOL has blanks
        if "undouble_backslashes" in normalise:
            fixes += [(role, _undoubled) for role in molecules]
        if "whole_labels" in normalise:
            labels = {*self.description.questions, "label"}
            fixes += [(role, _whole) for role in columns if role in labels]
        return fixes


def _undoubled(text: str) -> str:
    return text.replace("\\\\", "\\")


def _whole(label: str) -> str:
    return _WHOLE.get(label, label)


def content_of(source: Source, path: Path) -> bytes:
    """The bytes of a described file.

    Raises:
        TaskError: it cannot be read, or is another than described.
    """
    content = read_bytes(path)
    _refuse_another(path, digest_mismatch(digest(content), source.sha256, source.git_blob))
    return content


def _joined_content(join: Join, path: Path) -> bytes:
    content = read_bytes(path)
    _refuse_another(path, digest_mismatch(digest(content), join.sha256, None))
    return content


def _refuse_another(path: Path, wrong: str | None) -> None:
    if wrong is not None:
        raise TaskError(f"{path} is not the file that is described: {wrong}. Move it away or replace it")
