"""Reading of delimited and JSON-lines files at the door: whole, strictly, and with messages that name the line.

A benchmark must not guess. A row that does not fit its header is an error here and not a row with a hole, since a guess
would shift every number behind it without a trace.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tasks.base import TaskError

LIMIT = 512 * 2**20
"""Bytes of text, unpacked, up to which a file is read. A file is read whole, which takes about five times as much."""

_GZIP_MAGIC = b"\x1f\x8b"
_BY_SUFFIX = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".jsonl": "", ".ndjson": ""}  # "" stands for JSON lines

# The csv module keeps its limit of a field's length for the whole process, so one reader at a time may raise it.
_CSV_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: the line on which it begins, its number among the rows (from 1), and the wanted columns."""

    line: int
    number: int
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file's bytes hash to, as stored (a gzip file is hashed compressed)."""

    sha256: str
    git_blob: str


def digest(content: bytes) -> Digest:
    """The sha256 of `content`, and the name that git gives to it as a blob."""
    blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    blob.update(content)
    return Digest(sha256=hashlib.sha256(content).hexdigest(), git_blob=blob.hexdigest())


def digest_mismatch(found: Digest, sha256: str | None, git_blob: str | None) -> str | None:
    """How `found` differs from the expected hashes, naming both, or None where it does not."""
    if sha256 is not None and found.sha256 != sha256:
        return f"its sha256 is {found.sha256}, expected {sha256}"
    if git_blob is not None and found.git_blob != git_blob:
        return f"its git blob hash (git hash-object) is {found.git_blob}, expected {git_blob}"
    return None


def shorten(value: str, limit: int = 60) -> str:
    """`value` quoted for a message, cut where it is long."""
    return repr(value) if len(value) <= limit else repr(value[: limit - 1]) + "…"


def suggest(word: str, allowed: Iterable[str]) -> str:
    """Words for the end of a message: the nearest allowed name, or nothing where none is near."""
    names = list(allowed)
    near = difflib.get_close_matches(word, names, n=1)
    if not near:  # get_close_matches minds case, people do not
        lowered = {name.lower(): name for name in names}
        near = [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=1)]
    return f"; did you mean {near[0]!r}?" if near else ""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file as stored.

    Raises:
        TaskError: it cannot be read, holds nothing, or holds more than LIMIT.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise too_large(path, f"{size:,} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise TaskError(f"cannot read {path}: {error.strerror or error}") from error
    if not content:
        raise TaskError(f"{path} is empty (0 bytes); a header line and rows are expected")
    return content


def too_large(path: Path, size: str) -> TaskError:
    """What to say of a file that is not read because it would fill the memory."""
    return TaskError(
        f"{path} holds {size}, more than the {LIMIT:,} that are read; a file is read whole, and one of this size would "
        f"fill the memory. Keep the columns and rows that are needed, or make several data sets of it"
    )


def read_records(
    content: bytes,
    path: Path,
    columns: Sequence[str],
    delimiter: str | None = None,
    quotes: bool | None = None,
    header: Sequence[str] | None = None,
) -> list[Record]:
    """The rows of a CSV, TSV or JSON-lines file, gzipped or not, reduced to `columns`. Wholly blank lines are skipped.

    Args:
        content: the file's bytes.
        path: where they come from: for messages, and its suffix tells the format where `delimiter` does not.
        columns: names of the columns (for JSON lines: keys) to read; all must be there.
        delimiter: the character between fields; None to tell by the suffix.
        quotes: whether a double quote encloses a field; by default it does in all but tab-separated files.
        header: the names of the columns of a delimited file whose first line is a row already.

    Raises:
        TaskError: the file is damaged, a column is missing, or a row does not fit; the message has file and line.
    """
    text = _decode(content, path)
    separator = _separator(path) if delimiter is None else delimiter
    if not text.strip():
        raise TaskError(f"{path} holds no text but blank lines; a header line and rows are expected")
    if separator == "":
        return _json_lines(text, path, columns)
    quoted = separator != "\t" if quotes is None else quotes
    with _csv_fields_up_to(len(text)):
        return _delimited(text, path, columns, separator, quoted, header)


def _separator(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix not in _BY_SUFFIX:
        known = ", ".join(_BY_SUFFIX)
        raise TaskError(
            f"{path}: the suffix {suffix!r} does not tell the format; known are {known}, each also with .gz. "
            f'For any other, state the delimiter beside the file, such as delimiter: "\\t"'
        )
    return _BY_SUFFIX[suffix]


def _decode(content: bytes, path: Path) -> str:
    if content.startswith(_GZIP_MAGIC):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as packed:
                content = packed.read(LIMIT + 1)  # a few packed kilobytes can hold gigabytes
        except (OSError, EOFError, zlib.error) as error:
            raise TaskError(f"{path} is a damaged or cut-off gzip file: {error}") from error
        if len(content) > LIMIT:
            raise too_large(path, f"more than {LIMIT:,} bytes when unpacked")
    nul = content.find(b"\0")
    if nul >= 0:
        _fail_at_byte(content, nul, path, "a NUL byte, so this is not UTF-8 text (UTF-16 from a spreadsheet?)")
    try:
        return content.decode("utf-8-sig")  # spreadsheets put a byte order mark before the first column's name
    except UnicodeDecodeError as error:
        _fail_at_byte(content, error.start, path, f"byte 0x{content[error.start]:02x} is not UTF-8")


def _fail_at_byte(content: bytes, position: int, path: Path, what: str) -> NoReturn:
    line = content.count(b"\n", 0, position) + 1
    near = content[max(0, position - 20) : position + 20]
    raise TaskError(f"{path}:{line}: {what}, near {near!r}; save the file as UTF-8")


@contextmanager
def _csv_fields_up_to(length: int) -> Iterator[None]:
    with _CSV_LIMIT_LOCK:
        before = csv.field_size_limit(max(length, csv.field_size_limit()))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _delimited(
    text: str, path: Path, columns: Sequence[str], separator: str, quoted: bool, stated: Sequence[str] | None
) -> list[Record]:
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    header = list(stated) if stated is not None else None
    positions = {} if header is None else _positions(header, columns, path, 1)
    records: list[Record] = []
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            row = text.split("\n", line)[line - 1] if text.count("\n") >= line - 1 else ""
            raise TaskError(
                f"{path}:{line}: broken quotes ({error}) in the row that begins {shorten(row)}; a field that holds a "
                f"delimiter, a line break or a quote stands in double quotes, a quote in it is doubled. "
                f"If quotes mean nothing in this file, state quotes: false"
            ) from error
        if fields is None:
            return records
        if not fields:  # a blank line
            continue
        if header is None:
            header = fields
            positions = _positions(header, columns, path, line)
            continue
        if len(fields) != len(header):
            end = reader.line_num
            _fail_on_width(fields, header, f"{path}:{line}", separator, f" (it runs on to line {end})" * (end > line))
        values = {column: fields[position] for column, position in positions.items()}
        records.append(Record(line, len(records) + 1, values))


def _fail_on_width(fields: list[str], header: list[str], where: str, separator: str, run_on: str) -> NoReturn:
    unclosed = "; an opening double quote may lack its closing one" if run_on else ""
    raise TaskError(
        f"{where}: {len(fields)} fields{run_on} where the header has {len(header)} ({', '.join(header)}): "
        f"{shorten(separator.join(fields))}; a field that holds {separator!r} must stand in double quotes{unclosed}"
    )


def _positions(header: list[str], columns: Sequence[str], path: Path, line: int) -> dict[str, int]:
    counts = Counter(header)
    for column in columns:
        if column not in counts:
            raise TaskError(
                f"{path}:{line}: no column {column!r}; there are {', '.join(map(repr, header))}"
                f"{suggest(column, header)}"
            )
        if counts[column] > 1:
            raise TaskError(f"{path}:{line}: the column {column!r} stands {counts[column]} times; rename all but one")
    return {column: header.index(column) for column in columns}


def _json_lines(text: str, path: Path, columns: Sequence[str]) -> list[Record]:
    records: list[Record] = []
    for line, raw in enumerate(text.split("\n"), start=1):  # splitlines() would also cut at U+2028 inside a string
        if not raw.strip():
            continue
        row = _json_object(raw, f"{path}:{line}")
        for column in columns:
            if column not in row:
                raise TaskError(
                    f"{path}:{line}: no key {column!r}; there are {', '.join(map(repr, row))}{suggest(column, row)}"
                )
        values = {column: _as_text(row[column], column, f"{path}:{line}") for column in columns}
        records.append(Record(line, len(records) + 1, values))
    return records


def _json_object(raw: str, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise TaskError(f"{where}: the key {twice!r} stands twice in one object: {shorten(raw)}")
        return result

    def refuse(constant: str) -> NoReturn:
        raise TaskError(f"{where}: {constant} is not JSON; write null for a missing value")

    try:  # numbers stay as written, so that 0.10 does not become 0.1
        row = json.loads(raw, object_pairs_hook=unique, parse_int=str, parse_float=str, parse_constant=refuse)
    except (json.JSONDecodeError, RecursionError) as error:
        raise TaskError(f"{where}: broken JSON ({error}): {shorten(raw)}; one object a line is expected") from error
    if not isinstance(row, dict):
        raise TaskError(f"{where}: {shorten(raw)} is not a JSON object; one object a line is expected")
    return row


def _as_text(value: Any, column: str, where: str) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = json.dumps(value, ensure_ascii=False)  # the turns of a dialogue, which its task reads
    if not isinstance(value, str):
        raise TaskError(f"{where}: {column!r} holds {shorten(json.dumps(value))}; a text or a number is expected")
    text: str = value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TaskError(f"{where}: {column!r} holds half a surrogate pair, which no UTF-8 file can: {shorten(text)}")
    return text
