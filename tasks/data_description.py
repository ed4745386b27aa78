"""What a data set's YAML says, checked: one format for the built-in data sets and for a user's own file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import ConfigDict, Field, Strict, StringConstraints, TypeAdapter, ValidationError

from tasks.base import SPLITS, Split, TaskError
from tasks.data_files import shorten, suggest

Fix = Literal["undouble_backslashes"]

_Text = Annotated[str, StringConstraints(min_length=1)]
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_GitBlob = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
_Url = Annotated[str, StringConstraints(pattern=r"^https?://")]
_Character = Annotated[str, StringConstraints(min_length=1, max_length=1)]
_Count = Annotated[int, Strict(), Field(gt=0)]
_Flag = Annotated[bool, Strict()]
_Columns = Annotated[dict[_Text, _Text], Field(min_length=1)]
_Values = Annotated[tuple[str, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file that can supply a split.

    Args:
        file: its path, relative to what the data set's `relative_to` says.
        note: what a run's manifest should say about it, such as that it is a substitute.
        url: where to download it from.
        sha256: of the file as stored.
        git_blob: of the file as stored, as `git hash-object` prints it.
        bytes: its size, for progress and for `data list`.
        rows: the rows that must be left after `where`.
        where: column -> values; only rows that have one of them are read.
        delimiter: the character between fields, where the suffix does not tell.
        quotes: whether a double quote encloses a field; by default it does in all but tab-separated files.
        columns: role -> column, in place of the data set's, where this file names them otherwise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    file: _Text
    note: str = ""
    url: _Url | None = None
    sha256: _Sha256 | None = None
    git_blob: _GitBlob | None = None
    bytes: _Count | None = None
    rows: _Count | None = None
    where: dict[_Text, _Values] = field(default_factory=dict)
    delimiter: _Character | None = None
    quotes: _Flag | None = None
    columns: _Columns | None = None


@dataclass(frozen=True, kw_only=True)
class _Common:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    columns: _Columns
    name: _Name
    summary: str = ""
    licence: str = ""
    homepage: str = ""
    task: str = ""
    normalise: tuple[Fix, ...] = ()
    relative_to: Literal["yaml", "data"]


@dataclass(frozen=True, kw_only=True)
class Description(_Common):
    """A data set as described: role -> column, and for each split the files that can supply it, the preferred first.

    Args:
        columns: role -> column name; without the role `id`, ids are made from the split and the row's number.
        name: what it is asked for by; where it is not stated, the name of the YAML file.
        summary: one or two sentences.
        licence: as its origin states it.
        homepage: where it comes from.
        task: what it is meant for, in words; nothing reads it but people.
        normalise: named fixes of known defects.
        relative_to: what a file's path starts from: the folder of the YAML file, or the data roots.
        splits: the files of each split.
    """

    splits: Annotated[dict[Split, Annotated[tuple[Source, ...], Field(min_length=1)]], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _OneFile(_Common):
    """The short form for a file with a column that names the split of each row."""

    file: Annotated[tuple[Source, ...], Field(min_length=1)]
    split_column: _Text
    splits: Annotated[dict[Split, _Values], Field(min_length=1)] = field(
        default_factory=lambda: {split: (split,) for split in SPLITS}
    )


def load_description(path: Path, default_base: Literal["yaml", "data"]) -> Description:
    """The data set that the YAML file at `path` describes.

    Raises:
        TaskError: it cannot be read, or says something that is not understood; the message has file, place, value and
            what is allowed.
    """
    raw = _read_yaml(path)
    own_name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "data"
    prepared = {"name": own_name, "relative_to": default_base, **raw}
    if "file" in raw or "split_column" in raw:
        if "file" in raw:
            prepared["file"] = _source_list(raw["file"])
        if isinstance(raw.get("splits"), dict):
            prepared["splits"] = {split: _value_list(value) for split, value in raw["splits"].items()}
        description = _per_split(_validate(_OneFile, prepared, raw, path), path)
    else:
        if isinstance(raw.get("splits"), dict):
            prepared["splits"] = {split: _source_list(value) for split, value in raw["splits"].items()}
        description = _validate(Description, prepared, raw, path)
    _check_sources(description, path)
    return description


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
        twice = _key_that_stands_twice(yaml.compose(text, Loader=yaml.SafeLoader))
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise TaskError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if twice is not None:
        raise TaskError(f"{path}:{twice.start_mark.line + 1}: the key {twice.value!r} stands twice; keep one")
    if not isinstance(raw, dict):
        held = "nothing" if raw is None else shorten(str(raw))
        raise TaskError(f"{path} holds {held}; a data set is described by keys, at least columns and splits")
    return raw


def _key_that_stands_twice(node: yaml.Node | None) -> yaml.ScalarNode | None:
    """YAML keeps the last of two equal keys without a word; here a split would vanish."""
    if isinstance(node, yaml.MappingNode):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        seen: set[str] = set()
        for key in keys:
            if key.value in seen:
                return key
            seen.add(key.value)
        inner = [value for _, value in node.value]
    else:
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
    return next((found for found in map(_key_that_stands_twice, inner) if found is not None), None)


def _source_list(value: Any) -> Any:
    """The long form of a file's name, of one file, or of a list of either; anything else is left for the checks."""
    entries = value if isinstance(value, list) else [value]
    return [_long_source(entry) for entry in entries]


def _long_source(entry: Any) -> Any:
    if isinstance(entry, str):
        return {"file": entry}
    if isinstance(entry, dict) and isinstance(entry.get("where"), dict):
        return {**entry, "where": {column: _value_list(value) for column, value in entry["where"].items()}}
    return entry


def _value_list(value: Any) -> list[Any]:
    # YAML reads 0 as a number while a file holds text. A number with a point or a bare true stays what it is and is
    # refused below, since its spelling in the file cannot be told.
    entries = value if isinstance(value, list) else [value]
    return [str(entry) if type(entry) is int else entry for entry in entries]


_Form = TypeVar("_Form", Description, _OneFile)


def _validate(form: type[_Form], prepared: Mapping[str, Any], raw: Mapping[str, Any], path: Path) -> _Form:
    try:
        return TypeAdapter(form).validate_python(prepared)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    # A misspelt key explains other mistakes, such as that the right one is missing, so it comes first.
    first = min(mistakes, key=lambda mistake: mistake["type"] != "unexpected_keyword_argument")
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    steps = [step for step in first["loc"] if step != "[key]"]
    keys = [each.name for each in fields(Source if _inside_source(form, steps) else form)]
    place = _place(steps, raw)
    if first["type"] == "unexpected_keyword_argument":
        wrong = str(steps[-1])
        raise TaskError(f"{path}: unknown key {place}; allowed here are {', '.join(keys)}{suggest(wrong, keys)}{more}")
    if first["type"] == "missing":
        raise TaskError(f"{path}: {place} is missing{more}")
    if first["type"] == "dataclass_type":
        wanted = "a file name, or keys such as file and sha256"
        raise TaskError(f"{path}: {place}: {wanted} are expected, not {shorten(str(first['input']))}{more}")
    hint = suggest(str(first["input"]), SPLITS) if "[key]" in first["loc"] else ""
    quote = "; put it in quotes, as the file spells it" if first["type"] == "string_type" else ""
    raise TaskError(f"{path}: {place}: {first['msg']}, not {shorten(str(first['input']))}{quote}{hint}{more}")


def _inside_source(form: type[_Form], steps: list[int | str]) -> bool:
    """Whether the place is a key of one file: splits.<split>.<n>.<key>, or file.<n>.<key> in the short form."""
    depth = 4 if form is Description else 3
    return len(steps) >= depth and steps[0] == ("splits" if form is Description else "file")


def _place(steps: list[int | str], raw: Any) -> str:
    """The path as the user wrote it: the index of a list that only the long form has is left out."""
    place = ""
    for step in steps:
        if isinstance(step, int):
            if isinstance(raw, list):
                place += f"[{step}]"
                raw = raw[step]
            continue
        place += f".{step}" if place else str(step)
        raw = raw.get(step) if isinstance(raw, dict) else None
    return place


def _per_split(short: _OneFile, path: Path) -> Description:
    for source in short.file:
        if source.rows is not None:
            raise TaskError(f"{path}: file.rows counts the rows of one split, but {source.file} holds several; drop it")
        if short.split_column in source.where:
            raise TaskError(f"{path}: file.where names {short.split_column!r}, which split_column is for already")
    splits = {
        split: tuple(replace(source, where={**source.where, short.split_column: values}) for source in short.file)
        for split, values in short.splits.items()
    }
    common = {each.name: getattr(short, each.name) for each in fields(_Common)}
    return Description(**common, splits=splits)


def _check_sources(description: Description, path: Path) -> None:
    roles = set(description.columns) - {"id"}
    for split, sources in description.splits.items():
        for source in sources:
            where = f"{path}: splits.{split}: {source.file}"
            pure = PurePosixPath(source.file)
            if description.relative_to == "data" and (pure.is_absolute() or ".." in pure.parts):
                raise TaskError(f"{where}: a path below the data roots is expected (relative_to: data)")
            if description.relative_to == "yaml" and source.url is not None:
                raise TaskError(f"{where}: downloads go to the cache, so a url needs relative_to: data")
            if source.columns is not None and set(source.columns) - {"id"} != roles:
                raise TaskError(f"{where}: columns must have the data set's roles: {', '.join(sorted(roles))}")
