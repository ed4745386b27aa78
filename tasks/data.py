"""The registry of data sets: what there is by name, where its files are, and their rows, read strictly.

    catalogue = Catalogue()
    rows, rejections = catalogue.get("chebi20").rows("test")

A user's own CSV, TSV or JSONL becomes a data set by a YAML file beside it:

    columns: {smiles: SMILES, caption: description}
    splits: {train: mine-train.csv, test: mine-test.csv}

and is asked for by that file's path. The built-in data sets (`tasks/datasets/*.yaml`) use the same format.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks import locations
from tasks.base import SPLITS, Rejection, Split, TaskError
from tasks.data_description import Description, Source, load_description
from tasks.data_download import download_file
from tasks.data_files import Digest, Record, digest, digest_mismatch, read_bytes, read_records, shorten, suggest

_BUILT_IN = Path(__file__).with_name("datasets")
_SMILES_ROLES = frozenset({"smiles", "reactants", "reagents", "product", "products"})
_RESERVED = "\ufffc"  # marks a molecule's place inside a turn's text (tasks.base.slot)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a split: where it stands (`line` is that of its beginning), its id, and its values by role."""

    file: str
    line: int
    id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SourceInForce:
    """Which file supplies a split, for a run's manifest."""

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


@dataclass(frozen=True, slots=True)
class DataSet:
    """A described data set. Nothing is opened before it is asked for, so every call sees the files as they are."""

    description: Description
    yaml: Path

    @property
    def name(self) -> str:
        """What the data set is asked for by."""
        return self.description.name

    @property
    def roles(self) -> frozenset[str]:
        """The roles that each row has a value for."""
        return frozenset(self.description.columns) - {"id"}

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are described, whether or not their files are here."""
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

    def find(self, source: Source) -> Path | None:
        """Where a file of the description lies, or None where it is not here."""
        if self.description.relative_to == "data":
            return locations.find(source.file)
        path = self._beside_yaml(source)
        return path if path.exists() else None

    def _beside_yaml(self, source: Source) -> Path:
        return Path(os.path.normpath(self.yaml.parent / Path(source.file).expanduser()))

    def present(self, split: Split) -> tuple[Source, Path] | None:
        """The first file described for `split` that is here, unopened; None where none is."""
        for source in self.description.splits.get(split, ()):
            path = self.find(source)
            if path is not None:
                return source, path
        return None

    def source(self, split: Split) -> SourceInForce:
        """The file that supplies `split`.

        Raises:
            TaskError: no file is here, or the first that is here is another than described.
        """
        source, path = self._in_force(split)
        found = digest(_content(source, path))
        return SourceInForce(source.file, path, found.sha256, found.git_blob, source.note, source.where)

    def rows(self, split: Split) -> tuple[list[Row], list[Rejection]]:
        """All rows of `split` in file order, and the rows left out because of what they hold.

        Raises:
            TaskError: no file is here, the first that is here is another than described, or it is broken.
        """
        source, path = self._in_force(split)
        return self._read(split, source, path)

    def verify(self) -> list[FileCheck]:
        """Check the hash, the form and the number of rows of every file that is here."""
        checks = []
        for split in self.splits:
            if self.present(split) is None:
                checks.append(FileCheck(split, self._files(split), "missing", self.missing(split)))
                continue
            checks.extend(self._check(split, source) for source in self.description.splits[split])
        return checks

    def _check(self, split: Split, source: Source) -> FileCheck:
        path = self.find(source)
        if path is None:
            return FileCheck(split, source.file, "absent")
        try:
            rows, rejections = self._read(split, source, path)
        except TaskError as error:
            return FileCheck(split, source.file, "failed", str(error))
        left_out = f", {len(rejections):,} left out" if rejections else ""
        return FileCheck(split, source.file, "ok", f"{len(rows):,} rows{left_out}")

    def _in_force(self, split: Split) -> tuple[Source, Path]:
        if split not in self.description.splits:
            raise TaskError(
                f"data set {self.name} has no split {split!r}; it has {', '.join(self.splits)}{suggest(split, SPLITS)}"
            )
        found = self.present(split)
        if found is None:
            raise TaskError(self.missing(split))
        return found

    def _files(self, split: Split) -> str:
        return " or ".join(source.file for source in self.description.splits[split])

    def missing(self, split: Split) -> str:
        """What to say where nothing supplies `split`: what is expected, where it was looked for, how to get it."""
        sources = self.description.splits[split]
        expected = f"data set {self.name}, split {split}: expected {self._files(split)}"
        if self.description.relative_to == "yaml":
            looked = ", ".join(str(self._beside_yaml(source)) for source in sources)
            return f"{expected}; looked at {looked}. Paths start from the folder of {self.yaml}"
        looked = "; ".join(locations.where_looked(source.file) for source in sources)
        own = f"set {locations.DATA_VARIABLE} to a folder that holds it"
        if not any(source.url for source in sources):
            return f"{expected}; {looked}. It has no public address here: {own}"
        return f"{expected}; {looked}. Get it with: molgraft data get {self.name}, or {own}"

    def _read(self, split: Split, source: Source, path: Path) -> tuple[list[Row], list[Rejection]]:
        columns = source.columns or self.description.columns
        wanted = dict.fromkeys([*columns.values(), *source.where])
        records = read_records(_content(source, path), path, list(wanted), source.delimiter, source.quotes)
        chosen = _where(records, source.where, path)
        if source.rows is not None and len(chosen) != source.rows:
            raise TaskError(f"{path}: {len(chosen):,} rows for split {split}, expected {source.rows:,}; is it whole?")
        _check_ids(chosen, columns.get("id"), path)
        rows: list[Row] = []
        rejections: list[Rejection] = []
        for record in chosen:
            values = self._values(record, columns)
            marked = next((value for value in values.values() if _RESERVED in value), None)
            if marked is not None:
                reason = "holds U+FFFC, which molgraft needs to mark a molecule's place in a text"
                rejections.append(Rejection(str(path), record.line, shorten(marked), reason))
                continue
            identity = record.values[columns["id"]] if "id" in columns else f"{split}-{record.number}"
            rows.append(Row(str(path), record.line, identity, values))
        return rows, rejections

    def _values(self, record: Record, columns: Mapping[str, str]) -> dict[str, str]:
        values = {role: record.values[column] for role, column in columns.items() if role != "id"}
        if "undouble_backslashes" in self.description.normalise:
            for role in _SMILES_ROLES & values.keys():
                values[role] = values[role].replace("\\\\", "\\")
        return values


def _content(source: Source, path: Path) -> bytes:
    content = read_bytes(path)
    wrong = _mismatch(source, digest(content))
    if wrong is not None:
        raise TaskError(f"{path} is not the file that is described: {wrong}. Move it away or replace it")
    return content


def _mismatch(source: Source, found: Digest) -> str | None:
    return digest_mismatch(found, source.sha256, source.git_blob)


def _where(records: list[Record], where: Mapping[str, tuple[str, ...]], path: Path) -> list[Record]:
    """The records that pass every filter; a filter that nothing passes is a mistake, as a file without rows is."""
    if not records:
        raise TaskError(f"{path} has a header but no rows")
    for column, allowed in where.items():
        passing = [record for record in records if record.values[column] in allowed]
        if not passing:
            held = Counter(record.values[column] for record in records).most_common(8)
            listed = ", ".join(f"{shorten(value)} ({count:,})" for value, count in held)
            wanted = " or ".join(map(repr, allowed))
            near = suggest(allowed[0], [value for value, _ in held])
            raise TaskError(f"{path}: no row has {wanted} in the column {column!r}; it holds {listed}{near}")
        records = passing
    return records


def _check_ids(records: list[Record], column: str | None, path: Path) -> None:
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


class Catalogue:
    """The data sets known by name: the built-in ones, and those of further YAML files.

    Args:
        extra: YAML files of further data sets. They are read when a name is asked for, not here.
    """

    def __init__(self, extra: Iterable[Path] = ()) -> None:
        self._extra = tuple(Path(path) for path in extra)

    def names(self) -> list[str]:
        """The names of all data sets, sorted.

        Raises:
            TaskError: a further YAML file is broken, or takes a name that is taken.
        """
        return sorted(self._further() | _built_in())

    def get(self, name_or_path: str | Path) -> DataSet:
        """The data set of that name, or the one that the YAML file at that path describes.

        Raises:
            TaskError: there is none, or its YAML file is broken.
        """
        wanted = str(name_or_path)
        if wanted.endswith((".yaml", ".yml")) or isinstance(name_or_path, Path):
            path = Path(wanted).expanduser()
            if not path.exists():
                raise TaskError(f"no file {path}: a data set's YAML file, or one of {', '.join(self.names())}")
            return DataSet(load_description(path, "yaml"), path)
        built_in = _built_in()
        if wanted in built_in:
            return DataSet(load_description(built_in[wanted], "data"), built_in[wanted])
        further = self._further()
        if wanted in further:
            return DataSet(load_description(further[wanted], "yaml"), further[wanted])
        names = sorted(further | built_in)
        raise TaskError(
            f"no data set {wanted!r}; there are {', '.join(names)}, and the path of a YAML file (.yaml) names one of "
            f"your own{suggest(wanted, names)}"
        )

    def _further(self) -> dict[str, Path]:
        taken = _built_in()
        further: dict[str, Path] = {}
        for path in self._extra:
            name = load_description(path, "yaml").name
            if name in taken:
                raise TaskError(f"{path}: the name {name!r} is taken by {taken[name]}; choose another")
            taken[name] = further[name] = path
        return further


def _built_in() -> dict[str, Path]:
    """Name -> file of the built-in data sets; a file is named as its data set is."""
    return {path.stem: path for path in _BUILT_IN.glob("*.yaml")}


def download(dataset: DataSet, progress: bool = True) -> list[Path]:
    """Download what is lacking: for each split the first described file that is here or can be had.

    A file that is here and as described is left alone, and so is a substitute, which the preferred file then stands
    before. A damaged file in the cache is replaced; anywhere else it is the user's and is refused.

    Args:
        dataset: what to get.
        progress: show a bar on standard error.

    Returns:
        The files that were downloaded.

    Raises:
        TaskError: an address does not answer, a hash is wrong, or a split has no file here and no address.
    """
    done: list[Path] = []
    for split in dataset.splits:
        for source in dataset.description.splits[split]:
            path = dataset.find(source)
            if path is not None and not _ours_and_damaged(source, path):
                _content(source, path)
                break
            if source.url is not None:
                target = locations.cache_root() / "data" / source.file
                _with_progress(source, source.url, target, progress)
                done.append(target)
                break
        else:
            raise TaskError(dataset.missing(split))
    return done


def _ours_and_damaged(source: Source, path: Path) -> bool:
    in_cache = path.is_relative_to(locations.cache_root() / "data")
    return in_cache and source.url is not None and _mismatch(source, digest(path.read_bytes())) is not None


def _with_progress(source: Source, url: str, target: Path, progress: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=Console(stderr=True)) if progress else None
    with bar or nullcontext():
        line = bar.add_task(source.file, total=source.bytes) if bar else None

        def report(so_far: int, total: int | None) -> None:
            if bar is not None and line is not None:
                bar.update(line, completed=so_far, total=total or source.bytes)

        download_file(url, target, sha256=source.sha256, git_blob=source.git_blob, report=report)
