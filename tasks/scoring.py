"""Scores a file of predictions from any system: what `molgraft score FILE` does, as a library.

>>> score_file("predictions.tsv", "caption", [MolT5()], prediction_column="output", reference_column="ground truth")
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.base import AnswerKind, Estimate, ScoreTable, TaskError
from tasks.metrics.base import Protocol

# Names that the files of published systems and of molgraft use, tried where the user names no column.
PREDICTION_COLUMNS = ("prediction", "output", "text", "generated", "pred", "predicted", "answer")
REFERENCE_COLUMNS = ("reference", "ground truth", "description", "caption", "target", "gold", "label")
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
            raise TaskError(f"{self.path}: no column {name!r}.{suggestion} Columns: {_listed(self.columns)}")
        if name in self.lacking:
            raise TaskError(
                f"{self.path}:{self.lacking[name]}: lacks {name!r}, which other lines have; null is allowed"
            )
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


@dataclass(frozen=True)
class Pairing:
    """Predictions beside references, in the order of the file of predictions.

    Args:
        predictions: None where the file says `null`.
        references: as many.
    """

    predictions: list[str | None]
    references: list[str]


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


def pair(
    predictions: Table,
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    reference: Table | None = None,
    join: str | None = None,
) -> Pairing:
    """Sets each prediction beside its reference: of the same row, or of the row of `reference` with the same key.

    Args:
        predictions: the table with the predictions and, without `reference`, the references too.
        prediction_column: by default the only column that is named as predictions usually are.
        reference_column: likewise; a column of `reference` where that is given.
        reference: a table with the references.
        join: the column of both tables that says which rows belong together; spaces around a key do not count.

    Raises:
        TaskError: a column is missing or cannot be guessed, a reference is null, `join` and `reference` do not come
            together, or a key is missing on one side or stands twice.
    """
    if (reference is None) != (join is None):
        raise TaskError("a reference file and the column to join on (--reference FILE --join COLUMN) go together")
    answers = predictions.column(_column_name(predictions, prediction_column, PREDICTION_COLUMNS, "prediction"))
    gold_table = predictions if reference is None else reference
    gold = _complete(gold_table, _column_name(gold_table, reference_column, REFERENCE_COLUMNS, "reference"))
    if reference is None or join is None:
        return Pairing(answers, gold)

    rows, gold_rows = _rows_by_key(predictions, join), _rows_by_key(reference, join)
    _require_all(rows, gold_rows, join, f"{predictions.path} has rows that {reference.path} lacks")
    _require_all(gold_rows, rows, join, f"{reference.path} has rows that {predictions.path} lacks")
    return Pairing(answers, [gold[gold_rows[key]] for key in rows])


def score_file(
    path: str | Path,
    kind: AnswerKind,
    protocols: Sequence[Protocol],
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    reference_file: str | Path | None = None,
    join: str | None = None,
) -> list[ScoreTable]:
    """Scores a TSV, CSV or JSONL file, plain or gzipped, under each of `protocols`; columns as in `pair`.

    Raises:
        TaskError: a file or a column of it cannot be used, or a protocol does not score `kind`.
    """
    pairing = pair(
        read_table(path),
        prediction_column=prediction_column,
        reference_column=reference_column,
        reference=None if reference_file is None else read_table(reference_file),
        join=join,
    )
    return [table for table, _ in timed_scores(pairing, kind, protocols)]


def timed_scores(
    pairing: Pairing, kind: AnswerKind, protocols: Sequence[Protocol]
) -> Iterator[tuple[ScoreTable, float]]:
    """Each protocol's scores and the wall seconds that they took, as they become known.

    Raises:
        TaskError: as `Protocol.score`.
    """
    for protocol in protocols:
        started = time.perf_counter()
        table = protocol.score(kind, pairing.predictions, pairing.references)
        yield table, time.perf_counter() - started


def to_json(table: ScoreTable, seconds: float) -> dict[str, Any]:
    """The object that `molgraft score --json` prints; `protocol` is the name as given, without its version."""
    return {
        "task": table.kind,
        "protocol": table.protocol.partition("@")[0],
        "n": table.n,
        "n_invalid": table.n_invalid,
        "metrics": {name: _estimate_json(estimate) for name, estimate in table.metrics.items()},
        "seconds": round(seconds, 3),
    }


def _text(path: Path) -> str:
    """The contents of a file, decompressed and decoded."""
    try:
        contents = path.read_bytes()
        if contents.startswith(b"\x1f\x8b"):
            contents = gzip.decompress(contents)
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TaskError(f"{path}: is a folder; a TSV, CSV or JSONL file is needed") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"{path}: damaged gzip file ({error})") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from error

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
        raise TaskError(f"{path}:1: the header " + (f"repeats {_listed(repeated)}" if repeated else "line is blank"))
    for line, cells in records[1:]:
        if len(cells) != len(columns):
            raise TaskError(
                f"{path}:{line}: {len(cells)} {name}-separated fields, but the header names {len(columns)} "
                f"({_listed(columns)}): {_clipped(separator.join(cells))!r}"
            )
    if len(records) == 1:
        raise TaskError(f"{path}: has a header ({_listed(columns)}) but no rows")
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
            raise TaskError(f"{path}:{line}: not JSON ({error}): {_clipped(source)!r}") from error
        if not isinstance(record, dict):
            raise TaskError(f"{path}:{line}: one JSON object per line is needed, not {_clipped(source)!r}")
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


def _listed(names: Sequence[str]) -> str:
    return ", ".join(_clipped(name) for name in names)


def _clipped(value: str) -> str:
    return value if len(value) <= 80 else value[:77] + "..."


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    values: dict[str, Any] = {"value": estimate.value, "ci95": None if estimate.ci95 is None else list(estimate.ci95)}
    if estimate.value is None:
        values["reason"] = estimate.reason
    return values


def _column_name(table: Table, name: str | None, usual: Sequence[str], role: str) -> str:
    """The column named by the user, else the only one with a usual name."""
    if name is not None:
        return name
    found = [column for column in table.columns if column.lower() in usual]
    if len(found) == 1:
        return found[0]
    why = f"several could be it ({', '.join(found)})" if found else "none has a usual name"
    raise TaskError(
        f"{table.path}: which column is the {role}? {why}; say --{role}-column. Columns: {', '.join(table.columns)}"
    )


def _complete(table: Table, name: str) -> list[str]:
    """The cells of a column that must not be null."""
    cells = table.column(name)
    for line, cell in zip(table.lines, cells, strict=True):
        if cell is None:
            raise TaskError(f"{table.path}:{line}: {name!r} is null; every row needs it")
    return [cell for cell in cells if cell is not None]


def _rows_by_key(table: Table, join: str) -> dict[str, int]:
    """The row of each key, in file order."""
    rows: dict[str, int] = {}
    for row, key in enumerate(_complete(table, join)):
        key = key.strip()
        if key in rows:
            raise TaskError(
                f"{table.path}:{table.lines[row]}: {join} {_shown(key)} stands on line {table.lines[rows[key]]} "
                "already; joining needs keys that differ"
            )
        rows[key] = row
    return rows


def _require_all(keys: dict[str, int], others: dict[str, int], join: str, what: str) -> None:
    lost = [key for key in keys if key not in others]
    if lost:
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        raise TaskError(
            f"{what}: {join} {', '.join(_shown(key) for key in lost[:3])}{more}; no row is left out silently"
        )


def _shown(key: str) -> str:
    return repr(key if len(key) <= 60 else key[:57] + "...")
