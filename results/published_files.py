"""Reads files of published tables (docs/published.md), and says what is wrong with one that cannot be used."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from results.published_table import (
    KINDS,
    STATUSES,
    Direction,
    Kind,
    PublishedError,
    PublishedFigure,
    PublishedMetric,
    PublishedRow,
    PublishedTable,
    Status,
    unknown,
)

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_METRIC = re.compile(r"(?P<metric>[a-z0-9][a-z0-9-]*)(:(?P<of>[a-z0-9][a-z0-9-]*))?")
_NUMBER = re.compile(r"(?P<about>~)?(?P<value>-?\d+(\.\d+)?)(\s?±\s?(?P<sd>\d+(\.\d+)?))?")
_NOT_GIVEN = "n/a"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a file something stands; every message begins with it."""

    file: str
    path: str = ""

    def __truediv__(self, key: str | int) -> _Place:
        return _Place(self.file, f"{self.path}.{key}" if self.path else str(key))

    def wrong(self, value: object, right: str) -> PublishedError:
        return PublishedError(f"{self.file}: {self.path or 'the file'}: {value!r}, where {right} is expected")

    def mapping(self, value: object, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
        """A mapping with these keys, and no others."""
        found = self.any_mapping(value)
        for key in found:
            if key not in required and key not in optional:
                raise PublishedError(f"{self.file}: {unknown(f'{self.path}: key', key, [*required, *optional])}")
        missing = [key for key in required if key not in found]
        if missing:
            raise PublishedError(f"{self.file}: {self.path or 'the file'}: {', '.join(missing)} is missing")
        return found

    def any_mapping(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise self.wrong(value, "a mapping with texts as keys")
        return value

    def items(self, value: object) -> Iterator[tuple[_Place, Any]]:
        if not isinstance(value, list):
            raise self.wrong(value, "a list")
        return ((self / number, item) for number, item in enumerate(value))

    def text(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(value, "a text")
        return " ".join(value.split())

    def text_or_none(self, value: object) -> str | None:
        return None if value is None else self.text(value)

    def slug(self, value: object) -> str:
        if not isinstance(value, str) or _NAME.fullmatch(value) is None:
            raise self.wrong(value, "a name of small letters, digits and -")
        return value

    def count(self, value: object, least: int = 1) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.wrong(value, f"a whole number from {least} on")
        return value

    def flag(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise self.wrong(value, "true or false")
        return value

    def status(self, value: object) -> Status:
        for status in STATUSES:
            if value == status:
                return status
        raise self.wrong(value, f"one of {', '.join(STATUSES)}")

    def kind(self, value: object) -> Kind:
        for kind in KINDS:
            if value == kind:
                return kind
        raise self.wrong(value, f"one of {', '.join(KINDS)}")


@dataclass(frozen=True, slots=True)
class _Column:
    """A column with what only its reading needs."""

    metric: PublishedMetric
    decimals: int
    status: Status


@dataclass(frozen=True, slots=True)
class _Table:
    """What the rows of a table need of it."""

    id: str
    kind: Kind
    columns: Mapping[str, Sequence[_Column]]
    llm: str


def read_published(path: Path) -> tuple[PublishedTable, ...]:
    """The tables of one file.

    Raises:
        PublishedError: with file, key, value, and what would be right.
    """
    at = _Place(path.name)
    try:
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise PublishedError(f"{path}: cannot be read: {error}") from None
    file = at.mapping(written, ("paper", "reference", "read", "tables"))
    head = {key: (at / key).text(file[key]) for key in ("paper", "reference", "read")}
    tables = tuple(_table(place, table, path.stem, head) for place, table in (at / "tables").items(file["tables"]))
    _unique(at / "tables", [table.id for table in tables], "tables")
    return tables


def _table(at: _Place, written: object, file: str, head: Mapping[str, str]) -> PublishedTable:
    required = ("id", "table", "title", "status", "verified")
    given = at.mapping(written, required, ("kind", "llm", "parts", "rows", "directions", "defects"))
    identity = f"{file}/{(at / 'id').slug(given['id'])}"
    at = _Place(at.file, f"tables.{given['id']}")
    status = (at / "status").status(given["status"])
    parts = (at / "parts").any_mapping(given.get("parts", {}))
    columns = {
        (at / "parts").slug(name): _part(at / "parts" / name, name, part, status) for name, part in parts.items()
    }
    kind = (at / "kind").kind(given.get("kind", "paper"))
    llm = (at / "llm").text(given["llm"]) if "llm" in given else ""
    table = _Table(identity, kind, columns, llm)
    rows = tuple(_row(place, row, table) for place, row in (at / "rows").items(given.get("rows", [])))
    _unique(at / "rows", [row.name for row in rows], "rows")
    directions = tuple(_direction(p, item) for p, item in (at / "directions").items(given.get("directions", [])))
    return PublishedTable(
        id=identity,
        paper=head["paper"],
        reference=head["reference"],
        source=head["read"],
        table=(at / "table").text(given["table"]),
        title=(at / "title").text(given["title"]),
        kind=kind,
        llm=llm,
        status=status,
        how_verified=(at / "verified").text(given["verified"]),
        metrics=tuple(column.metric for part in columns.values() for column in part),
        rows=rows,
        directions=directions,
        defects=tuple(place.text(defect) for place, defect in (at / "defects").items(given.get("defects", []))),
    )


def _part(at: _Place, name: str, written: object, status: Status) -> list[_Column]:
    required = ("task", "data", "dataset", "n", "protocol", "columns")
    given = at.mapping(written, required, ("same_examples", "split", "protocol_note"))
    protocol = _slug_or_none(at / "protocol", given["protocol"])
    note = (at / "protocol_note").text(given["protocol_note"]) if "protocol_note" in given else ""
    if protocol is None and not note:
        raise (at / "protocol_note").wrong(note, "a reason, since there is no protocol,")
    dataset = _slug_or_none(at / "dataset", given["dataset"])
    columns = []
    for place, column in (at / "columns").items(given["columns"]):
        optional = ("printed", "scale", "unit", "n", "status", "outside", "defined")
        found = place.mapping(column, ("metric", "decimals"), optional)
        matched = _METRIC.fullmatch(found["metric"]) if isinstance(found["metric"], str) else None
        if matched is None:
            raise (place / "metric").wrong(found["metric"], "a metric as `bleu-4` or `mae:homo`")
        metric = PublishedMetric(
            key=f"{name}/{found['metric']}",
            metric=matched["metric"],
            of=matched["of"] or "",
            printed=(place / "printed").text(found.get("printed", found["metric"])),
            task=_slug_or_none(at / "task", given["task"]),
            data=(at / "data").text(given["data"]),
            dataset=dataset,
            same_examples=(at / "same_examples").flag(given.get("same_examples", dataset is not None)),
            split=(at / "split").text(given.get("split", "test")),
            n=_count_or_none(place / "n", found["n"]) if "n" in found else _count_or_none(at / "n", given["n"]),
            protocol=protocol,
            protocol_note=note,
            scale=(place / "scale").count(found.get("scale", 1)),
            **{key: (place / key).text(found[key]) if key in found else "" for key in ("unit", "outside", "defined")},
        )
        of_column = (place / "status").status(found.get("status", status))
        columns.append(_Column(metric, (place / "decimals").count(found["decimals"], least=0), of_column))
    _unique(at / "columns", [column.metric.key for column in columns], "columns")
    return columns


def _row(at: _Place, written: object, table: _Table) -> PublishedRow:
    optional = ("values", "llm", "protocol", "status", "suspect", "note", "predictions")
    given = at.mapping(written, ("name",), optional)
    name = (at / "name").text(given["name"])
    at = _Place(at.file, f"{at.path.rpartition('.')[0]}.{name}")
    values = (at / "values").any_mapping(given.get("values", {}))
    suspect = _of_columns(at / "suspect", given.get("suspect", {}), table.columns)
    note = (at / "note").text(given["note"]) if "note" in given else ""
    figures = {}
    for part, numbers in values.items():
        columns = table.columns.get(part)
        if columns is None:
            raise PublishedError(f"{at.file}: {unknown(f'{at.path}.values: part', part, table.columns)}")
        placed = list((at / "values" / part).items(numbers))
        if len(placed) != len(columns):
            right = f"{len(columns)} values ({', '.join(column.metric.printed for column in columns)})"
            raise (at / "values" / part).wrong(numbers, right)
        for (place, number), column in zip(placed, columns, strict=True):
            printed, value, sd = _number(place, number, column)
            figures[column.metric.key] = PublishedFigure(
                table=table.id,
                row=name,
                column=column.metric,
                printed=printed,
                value=None if value is None else float(value),
                text="" if value is None else f"{value:f}",
                sd=None if sd is None else float(sd),
                approximate=printed.startswith("~"),
                status=(at / "status").status(given["status"]) if "status" in given else column.status,
                suspect=suspect.get(column.metric.key),
                protocol=_slug_or_none(at / "protocol", given.get("protocol", column.metric.protocol)),
                kind=table.kind,
                note=note,
            )
    predictions = (at / "predictions").any_mapping(given.get("predictions", {}))
    return PublishedRow(
        name=name,
        llm=(at / "llm").text(given["llm"]) if "llm" in given else table.llm,
        figures=figures,
        note=note,
        predictions={part: (at / "predictions" / part).text(file) for part, file in predictions.items()},
    )


def _of_columns(at: _Place, written: object, parts: Mapping[str, Sequence[_Column]]) -> dict[str, str]:
    """Reasons by column, given for a column or for all columns of a part."""
    keys = {part: [column.metric.key for column in columns] for part, columns in parts.items()}
    keys |= {key: [key] for part in list(keys.values()) for key in part}
    reasons: dict[str, str] = {}
    for name, why in at.any_mapping(written).items():
        if name not in keys:
            raise PublishedError(f"{at.file}: {unknown(f'{at.path}: column', name, keys)}")
        reasons |= dict.fromkeys(keys[name], (at / name).text(why))
    return reasons


def _number(at: _Place, written: object, column: _Column) -> tuple[str, Decimal | None, Decimal | None]:
    """As printed, and on molgraft's scale with what stands behind ±.

    A number is filled up with zeros to the column's decimals, which YAML forgets; a text keeps its own digits.
    """
    if written is None or written == _NOT_GIVEN:
        return written or "-", None, None
    if isinstance(written, int | float) and not isinstance(written, bool):
        printed = f"{written:.{column.decimals}f}"
        if float(printed) != written:
            raise at.wrong(written, f"a number of {column.decimals} decimals (or a text, which keeps its digits)")
    else:
        printed = written if isinstance(written, str) else ""
    found = _NUMBER.fullmatch(printed)
    if found is None:
        raise at.wrong(written, "a number, a text as `84.3±0.6` or `~0`, `n/a`, or null")
    value, sd = (Decimal(found[part]) / column.metric.scale if found[part] else None for part in ("value", "sd"))
    if value is not None and not column.metric.unit and not 0 <= value <= 1:
        raise at.wrong(written, f"a share between 0 and {column.metric.scale} (or a `unit` or `scale` of the column)")
    return printed, value, sd


def _direction(at: _Place, written: object) -> Direction:
    given = at.mapping(written, ("task", "best", "says"), ("metric",))
    return Direction(
        task=_slug_or_none(at / "task", given["task"]),
        metric=_slug_or_none(at / "metric", given.get("metric")),
        best=(at / "best").text_or_none(given["best"]),
        says=(at / "says").text(given["says"]),
    )


def _slug_or_none(at: _Place, value: object) -> str | None:
    return None if value is None else at.slug(value)


def _count_or_none(at: _Place, value: object) -> int | None:
    return None if value is None else at.count(value)


def _unique(at: _Place, names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PublishedError(f"{at.file}: {at.path}: two {what} are called {twice!r}")
