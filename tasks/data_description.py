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
from tasks.splits import FRACTIONS

Fix = Literal["undouble_backslashes", "whole_labels"]

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
_Method = Annotated[str, StringConstraints(pattern=r"^(scaffold|random(-[0-9]{1,9})?)$")]
_Share = Annotated[float, Field(gt=0, lt=1)]
_Bucket = Annotated[int, Strict(), Field(ge=0)]


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Some of a file's rows, told by a hash: rows of equal value in `by` stay together, wherever they stand.

    Args:
        by: the column that is hashed (the first eight bytes of its sha256).
        of: number of buckets.
        keep: the buckets whose rows are read, from 0.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    by: _Text
    of: _Count
    keep: Annotated[tuple[_Bucket, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Join:
    """Columns that another file adds to each row.

    Args:
        file: its path, found as the file itself is.
        by: the column that both files have and whose values are compared, as they stand.
        columns: the columns that are added.
        sha256: of the other file as stored.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    file: _Text
    by: _Text
    columns: _Values
    sha256: _Sha256 | None = None


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
        header: the names of the columns, where the file has no line that does.
        fold: only some rows, told by a hash.
        join: columns that another file adds.
        origin: where it was made from, where that cannot be read as it is.
        substitute: it stands in for an official file that is not here; listings say so.
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
    header: _Values | None = None
    fold: Fold | None = None
    join: Join | None = None
    origin: str = ""
    substitute: _Flag = False


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
    questions: dict[_Text, _Text] = field(default_factory=dict)
    units: dict[_Text, str] = field(default_factory=dict)
    split_method: _Method | None = None
    fractions: tuple[_Share, _Share, _Share] = FRACTIONS
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
        normalise: named fixes of known defects: `undouble_backslashes` reads the two backslashes by which some files
            write one cis/trans bond as one; `whole_labels` reads the labels 0.0 and 1.0 as 0 and 1.
        questions: label -> what a prompt says about it. For a yes-or-no label a verb phrase that completes "does this
            molecule ...?" as well as "this molecule is said to ...", such as `cross the blood-brain barrier`; for a
            number a noun phrase that completes "what is the ... of this molecule?". A label is a role, or, in a data
            set with the role `task`, a value of that role.
        units: label -> unit, for numbers only; empty where it has no dimension. A label without one is yes or no.
        split_method: `scaffold`, `random` or `random-SEED`: all rows of all files are dealt out anew.
        fractions: of training, validation and test, for `split_method`.
        relative_to: what a file's path starts from: the folder of the YAML file, or the data roots.
        splits: the files of each split.
    """

    splits: Annotated[dict[Split, Annotated[tuple[Source, ...], Field(min_length=1)]], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class _OneFile(_Common):
    """The short form for one file whose rows are told apart by a column, or dealt out by a method."""

    file: Annotated[tuple[Source, ...], Field(min_length=1)]
    split_column: _Text | None = None
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
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        _refuse_unclear_keys(node, path, set())
        raw = loader.construct_document(node) if node is not None else None
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise TaskError(f"{path}: its lists or keys are nested too deeply to be read") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 text: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise TaskError(f"{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(raw, dict):
        held = "nothing" if raw is None else shorten(str(raw))
        raise TaskError(f"{path} holds {held}; a data set is described by keys, at least columns and splits")
    return raw


def _refuse_unclear_keys(node: yaml.Node | None, path: Path, seen: set[int]) -> None:
    """YAML keeps the last of two equal keys without a word, and `<<` puts keys where no reader looks for them."""
    if node is None or id(node) in seen:  # an alias can lead back to what holds it
        return
    seen.add(id(node))
    inner: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            where = f"{path}:{key.start_mark.line + 1}"
            if key.tag == "tag:yaml.org,2002:merge":
                raise TaskError(f"{where}: merge keys (<<) are not read; write the keys out where they belong")
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise TaskError(f"{where}: the key {key.value!r} stands twice; keep one")
                names.add(key.value)
            inner = [*inner, value]
    for each in inner:
        _refuse_unclear_keys(each, path, seen)


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
    common = {each.name: getattr(short, each.name) for each in fields(_Common)}
    if short.split_column is None:
        if short.split_method is None:
            raise TaskError(f"{path}: split_column is missing; for a file without one, state split_method: scaffold")
        return Description(**common, splits={"train": short.file})
    for source in short.file:
        if source.rows is not None:
            raise TaskError(f"{path}: file.rows counts the rows of one split, but {source.file} holds several; drop it")
        if short.split_column in source.where:
            raise TaskError(f"{path}: file.where names {short.split_column!r}, which split_column is for already")
    splits = {
        split: tuple(replace(source, where={**source.where, short.split_column: values}) for source in short.file)
        for split, values in short.splits.items()
    }
    return Description(**common, splits=splits)


def _check_sources(description: Description, path: Path) -> None:
    roles = set(description.columns) - {"id"}
    if abs(sum(description.fractions) - 1) > 1e-9:
        listed = ", ".join(map(str, description.fractions))
        raise TaskError(f"{path}: fractions of training, validation and test must sum to 1, not {listed}")
    for labels, held in (("questions", description.questions), ("units", description.units)):
        for label in held:  # where a column `task` says which label a row is about, its values are the labels
            if label not in roles and "task" not in roles:
                raise TaskError(f"{path}: {labels}.{label}: no such role{suggest(label, roles)}")
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
