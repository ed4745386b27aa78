"""What a feature store has on disk: one folder per scheme, of segments that are written once and never changed."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import math
import mmap
import os
import re
import shutil
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import rdBase

from encoders.base import Column, EncoderError, FeatureScheme
from encoders.featurising import SOURCE_ATTRIBUTE, Rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Known = tuple[Callable[[NDArray[Any]], int], int]

_FORMAT = 2  # raised when the files of a store change their meaning
_MAP_FROM = 1_000_000  # bytes; smaller files are read, since every mapped one keeps a file open
_SEGMENT = re.compile(r"\d{6,}")
_UNFINISHED = ".unfinished-"


class DamagedSegmentError(Exception):
    """A segment that does not hold what was written; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The rows of a segment.

    Args:
        num_atoms: `(n,)` int64.
        values: rows of all molecules per column.
        ptr: where those of each begin per column, `(n + 1,)` int64.
    """

    num_atoms: NDArray[np.int64]
    values: Mapping[str, NDArray[Any]]
    ptr: Mapping[str, NDArray[np.int64]]


class SchemeFolder:
    """The segments of one scheme.

    Args:
        root: of the store.
        scheme: whose rows are kept; None for molecules that are only parsed and counted.
    """

    def __init__(self, root: Path, scheme: FeatureScheme | None) -> None:
        self.scheme = scheme
        self.name = scheme.name if scheme else "parsed"
        self.columns: Mapping[str, Column] = dict(scheme.columns()) if scheme else {}
        for name, column in self.columns.items():
            if column.indexes not in {None, "atom", *self.columns}:
                raise EncoderError(
                    f"feature scheme {self.name}: column {name} points at {column.indexes!r}, which is neither `atom` "
                    f"nor one of its columns {', '.join(self.columns)}"
                )
        self.path = root / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', self.name)}-{_key(scheme)}"
        self.lock = self.path / ".lock"

    def segments(self) -> list[Path]:
        """The folders of all segments, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(path for path in self.path.iterdir() if _SEGMENT.fullmatch(path.name))

    def clear(self, damaged: Sequence[Path]) -> None:
        """Removes damaged segments and what a killed process left. Only under the lock."""
        for path in (*damaged, *self.path.glob(f"{_UNFINISHED}*")):
            shutil.rmtree(path, ignore_errors=True)

    def append(self, parts: Sequence[Rows]) -> None:
        """Writes a segment and moves it into place whole. Only under the lock.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        taken = [int(path.name) for path in self.segments()]
        unfinished = self.path / f"{_UNFINISHED}{uuid.uuid4().hex}"
        unfinished.mkdir()
        try:
            self._write(unfinished, parts)
            os.replace(unfinished, self.path / f"{max(taken, default=-1) + 1:06d}")
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _write(self, folder: Path, parts: Sequence[Rows]) -> None:
        arrays = {"num_atoms": np.concatenate([part.num_atoms for part in parts])}
        for name in self.columns:
            counts = np.concatenate([part.counts[name] for part in parts])
            arrays[f"{name}.values"] = np.concatenate([part.values[name] for part in parts])
            arrays[f"{name}.ptr"] = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        listed = {
            "molecules": [smiles for part in parts for smiles in part.molecules],
            "rejected": {smiles: reason for part in parts for smiles, reason in part.rejected.items()},
        }
        text = json.dumps(listed).encode()
        (folder / "molecules.json").write_bytes(text)
        names = "\n".join(listed["molecules"]).encode()
        if names.count(b"\n") == len(listed["molecules"]) - 1:  # as many lines as molecules, and so one for each
            (folder / "names.txt").write_bytes(names)
        sums = {name: _sum(array) for name, array in arrays.items()}
        words = {name: sum_of_words(array) for name, array in arrays.items()}
        contents = {"scheme": self.name, "molecules": zlib.crc32(text), "arrays": sums, "words": words}
        (folder / "segment.json").write_text(json.dumps(contents))

    def listed(self, segment: Path) -> tuple[list[str], dict[str, str]]:
        """The accepted molecules of a segment in order, and the rejected ones with their reasons.

        Raises:
            DamagedSegmentError: its files are not as they were written.
        """
        try:
            contents = json.loads((segment / "segment.json").read_bytes())
            text = (segment / "molecules.json").read_bytes()
            if zlib.crc32(text) != contents["molecules"]:
                raise DamagedSegmentError("molecules.json is not as it was written")
            described = json.loads(text)
            return described["molecules"], described["rejected"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedSegmentError(f"{type(error).__name__}: {error}") from error

    def holding(self, molecules: Sequence[str]) -> Path | None:
        """The segment that holds these molecules and no others, in this order, found without reading a list of them.

        Its number of molecules has yet to be compared, as `read` does: a molecule with a line break in it would be two
        lines. None where there is none, and of segments of earlier versions, which lack the file that is compared.
        """
        if not molecules:
            return None
        text = "\n".join(molecules).encode()
        for segment in self.segments():
            try:
                names = segment / "names.txt"
                if names.stat().st_size == len(text) and names.read_bytes() == text:
                    return segment
            except OSError:
                continue
        return None

    def read(self, segment: Path, count: int) -> Segment:
        """The arrays of a segment of `count` molecules, large ones memory-mapped, each checked against its sum.

        Raises:
            DamagedSegmentError: its files are not as they were written.
        """
        try:
            contents = json.loads((segment / "segment.json").read_bytes())
            # Segments of earlier versions have the first of these only, which takes ten times as long.
            sums = {name: (_sum, found) for name, found in contents["arrays"].items()}
            sums |= {name: (sum_of_words, found) for name, found in contents.get("words", {}).items()}
            num_atoms = _array(segment, "num_atoms", sums, np.dtype(np.int64), (count,))
            values, ptr = {}, {}
            for name, column in self.columns.items():
                ptr[name] = _array(segment, f"{name}.ptr", sums, np.dtype(np.int64), (count + 1,))
                shape = (int(ptr[name][-1]), *column.shape)
                values[name] = _array(segment, f"{name}.values", sums, np.dtype(column.dtype), shape)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise DamagedSegmentError(f"{type(error).__name__}: {error}") from error
        return Segment(num_atoms, values, ptr)


def _sum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def sum_of_words(array: NDArray[Any]) -> int:
    """The sum of all bytes taken eight at a time, which any change of a word changes; as fast as memory is read."""
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    whole = len(content) // 8 * 8
    rest = int.from_bytes(content[whole:].tobytes(), "little")
    return (int(content[:whole].view("<u8").sum(dtype=np.uint64)) + rest) % 2**64


def _array(
    segment: Path, name: str, sums: Mapping[str, _Known], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    path = segment / f"{name}.npy"
    array = array_in(path, dtype, shape)
    of, known = sums[name]
    if array.dtype != dtype or array.shape != shape or of(array) != known:
        raise DamagedSegmentError(f"{path.name} is not as it was written")
    return array


def header_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands before the values in a file of numpy's."""
    written = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, described)  # type: ignore[no-untyped-call]
    return written.getvalue()


def array_in(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """What a file holds, mapped if it is large."""
    header = header_of(dtype, shape)
    with path.open("rb") as file:
        is_expected = file.read(len(header)) == header
        size = os.fstat(file.fileno()).st_size - len(header)
        if is_expected and size == dtype.itemsize * math.prod(shape) and size > 0:
            # Without numpy's own reading of the header, which takes longer than all else of a small file.
            if size < _MAP_FROM:
                return np.frombuffer(file.read(), dtype).reshape(shape)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return np.frombuffer(mapped, dtype, offset=len(header)).reshape(shape)
    # As a plain array: slices of numpy's own class of mapped ones are many times slower.
    return np.asarray(np.load(path, allow_pickle=False))


def _key(scheme: FeatureScheme | None) -> str:
    """Hash of all that decides a scheme's rows: declaration, columns, files that it reads, RDKit."""
    sources = scheme.sources() if scheme else ()
    columns = {name: asdict(column) for name, column in scheme.columns().items()} if scheme else {}
    read = [_content(source) for source in sources]
    content = [_FORMAT, rdBase.rdkitVersion, _described(scheme, sources), columns, read]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _described(value: object, sources: Sequence[str]) -> Any:
    """A scheme, and every component inside it, with name, version, fields and the source of one from elsewhere.

    Fields that name a file of `sources` are left out: what it holds decides, wherever it lies.
    """
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        known = {
            "name": getattr(cls, "name", None),
            "version": getattr(cls, "version", None),
            "source": _source_of(cls),
        }
        found = {f.name: getattr(value, f.name) for f in fields(value) if not f.metadata.get("content")}
        named = [getattr(value, f.name) for f in fields(value) if f.metadata.get("content")]
        unread = [str(name) for name in named if name is not None and name not in sources]
        return {**known, "fields": _described(found, sources), "unread": unread}
    if isinstance(value, Mapping):
        return {str(key): _described(item, sources) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item, sources) for item in value]
    return value


def _source_of(cls: type) -> str | None:
    """Hash of the file of a class from outside this room, whose version nobody vouches for; None for our own."""
    if cls.__module__.startswith("encoders."):
        return None
    imported = getattr(sys.modules.get(cls.__module__), SOURCE_ATTRIBUTE, None)
    source = inspect.getsourcefile(cls)
    if imported is None and source is not None:
        imported = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    return imported or cls.__module__


def _content(source: str) -> list[list[str]]:
    """Name within the source and hash of each file of it, hidden ones left out."""
    path = Path(source).expanduser()
    if path.is_file():
        return [["", _file_hash(path)]]
    folder = path if path.is_dir() else _hub_folder(source)
    return [[str(file.relative_to(folder)), _file_hash(file)] for file in _files(folder)]


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts):
            yield file


def _hub_folder(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (OSError, HFValidationError) as error:
        raise EncoderError(
            f"{source!r} is no file, no folder and no `owner/model` in the local hub cache, so that what a feature "
            "scheme reads from it is unknown"
        ) from error


def _file_hash(path: Path) -> str:
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    """The hash of a file, once per size and time of change, since a model's weights may lie beside its tokenizer."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
