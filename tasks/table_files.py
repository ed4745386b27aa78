"""Files of predictions from any system, read as columns of text: strictly, and with messages that name the line."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.base import TaskError

MOST_BYTES = 1 << 28
"""The longest file, decompressed: some half a million captions; a longer one would fill the memory of a laptop."""

_QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a whole field as a spreadsheet would quote it
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """Rows of texts under named columns.

    Args:
        path: the file it was read from.
        columns: names in file order.
        rows: one cell per column; None where a JSON line says `null`. At least one row.
        lines: the line of the file on which each row begins.
        lacking: by column, the first line of a JSONL file whose object lacks that key (`null` is a value).
    """

    path: Path
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str | None]]
    lines: Sequence[int]
    lacking: Mapping[str, int] = field(default_factory=dict)

    def column(self, name: str) -> list[str | None]:
        """The cells of one column.

        Raises:
            TaskError: there is no such column, or a row lacks it; the message lists those that there are.
        """
        if name not in self.columns:
            near = difflib.get_close_matches(name.lower(), [column.lower() for column in self.columns], n=1)
            meant = next((column for column in self.columns if near and column.lower() == near[0]), None)
            suggestion = f" Did you mean {meant!r}?" if meant is not None else ""
            raise TaskError(f"{self.path}: no column {name!r}.{suggestion} Columns: {listed(self.columns)}")
        if name in self.lacking:
            raise TaskError(
                f"{self.path}:{self.lacking[name]}: lacks {name!r}, which other lines have; null is allowed"
            )
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read_table(path: str | Path) -> Table:
    """Reads `path`, telling its form from its name and, where that says nothing, from its first line.

    `.csv` is separated by commas and quoted as spreadsheets do; `.tsv` and `.txt` by tabs; `.jsonl` has one object per
    line. Quotation marks in a file with tabs are part of the text, as in MolT5's files, unless
    every field that has any is quoted as a whole.

    Raises:
        TaskError: the file is missing, unreadable, empty, not UTF-8 text, or a row of it is broken; the message names
            the file, the line and the value.
    """
    path = Path(path)
    text = _text(path)
    first = text.split("\n", 1)[0]
    suffix = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if suffix in {".jsonl", ".ndjson", ".json"} or (suffix not in {".csv", ".tsv"} and first.lstrip().startswith("{")):
        return _json_lines(path, text)
    commas_only = "\t" not in first and "," in first
    if (suffix == ".csv" and ("," in first or "\t" not in first)) or (suffix != ".tsv" and commas_only):
        return _separated(path, text, ",", literal=False)
    return _tabbed(path, text)


def _text(path: Path) -> str:
    """The contents of a file, decompressed and decoded."""
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if is_packed else path.open("rb") as opened:
            contents = opened.read(MOST_BYTES + 1)  # a small gzip file can hold any number of bytes
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a folder; a TSV, CSV or JSONL file is needed") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from error

    if len(contents) > MOST_BYTES:
        raise TaskError(f"{path}: holds more than {MOST_BYTES:,} bytes, the most that is read; score it in parts")
    if contents.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise TaskError(f"{path}: is UTF-16; save it as UTF-8")
    if b"\0" in contents:
        line = contents[: contents.index(b"\0")].count(b"\n") + 1
        raise TaskError(f"{path}:{line}: holds a NUL byte; UTF-8 text is needed")
    try:
        text = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = contents[: error.start].count(b"\n") + 1
        raise TaskError(f"{path}:{line}: byte 0x{contents[error.start]:02x} is not UTF-8; save it as UTF-8") from error
    if not text.strip():
        raise TaskError(f"{path}: is empty; a header and at least one row are needed")
    return text


def _tabbed(path: Path, text: str) -> Table:
    """A table separated by tabs, whose quotation marks are text unless they enclose every field that has one."""
    try:
        literal = _separated(path, text, "\t", literal=True)
    except TaskError as broken:
        try:  # a quoted field may hold a tab or a line break
            return _separated(path, text, "\t", literal=False)
        except TaskError:
            raise broken from None
    marked = [cell for row in (literal.columns, *literal.rows) for cell in row if cell and '"' in cell]
    if marked and all(_QUOTED.fullmatch(cell) for cell in marked):
        return _separated(path, text, "\t", literal=False)
    return literal


def _separated(path: Path, text: str, separator: str, *, literal: bool) -> Table:
    """A table with a header, quoted as spreadsheets do or (`literal`) not at all."""
    name = {"\t": "tab", ",": "comma"}[separator]
    records = _literal_records(text, separator) if literal else _quoted_records(path, text, separator)
    columns = tuple(records[0][1])
    while len(columns) > 1 and records[-1][1] == [""]:  # in a single column, a blank line is an empty text
        records.pop()
    repeated = [column for column, times in Counter(columns).items() if times > 1]
    if repeated or not any(columns):
        raise TaskError(f"{path}:1: the header " + (f"repeats {listed(repeated)}" if repeated else "line is blank"))
    for line, cells in records[1:]:
        if len(cells) != len(columns):
            raise TaskError(
                f"{path}:{line}: {len(cells)} {name}-separated fields, but the header names {len(columns)} "
                f"({listed(columns)}): {clipped(separator.join(cells))!r}"
            )
    if len(records) == 1:
        raise TaskError(f"{path}: has a header ({listed(columns)}) but no rows")
    return Table(path, columns, [cells for _, cells in records[1:]], [line for line, _ in records[1:]])


def _literal_records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of each line."""
    lines = text.removesuffix("\n").split("\n")
    return [(number, line.removesuffix("\r").split(separator)) for number, line in enumerate(lines, start=1)]


def _quoted_records(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """First line number and cells of each record, which may span lines inside quotation marks."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for record in reader:
            records.append((line, record or [""]))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{path}:{line}: broken quotation or overlong field in this row ({error})") from error
    return records


def _json_lines(path: Path, text: str) -> Table:
    """One JSON object per line; the columns are all keys, in the order of their first appearance."""
    records: list[dict[str, str | None]] = []
    lines: list[int] = []
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        try:
            record = json.loads(source, parse_int=str, parse_float=str)  # 0.10 stays 0.10
        except (json.JSONDecodeError, RecursionError) as error:
            raise TaskError(f"{path}:{line}: not JSON ({error}): {clipped(source)!r}") from error
        if not isinstance(record, dict):
            raise TaskError(f"{path}:{line}: one JSON object per line is needed, not {clipped(source)!r}")
        records.append({key: _cell(path, line, key, value) for key, value in record.items()})
        lines.append(line)
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    lacking = {
        key: line
        for line, record in reversed(list(zip(lines, records, strict=True)))
        for key in columns
        if key not in record
    }
    return Table(path, columns, [[record.get(key) for key in columns] for record in records], lines, lacking)


def _cell(path: Path, line: int, key: str, value: Any) -> str | None:
    """A JSON value as text; numbers keep their digits, and nested values become JSON again."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    if _SURROGATE.search(text):
        raise TaskError(f"{path}:{line}: {key!r} holds half of a surrogate pair, which is no character")
    return text


def listed(names: Sequence[str]) -> str:
    """Names for a message, long ones cut."""
    return ", ".join(clipped(name) for name in names)


def clipped(value: str) -> str:
    """A value for a message, cut where it is long."""
    return value if len(value) <= 80 else value[:77] + "..."
