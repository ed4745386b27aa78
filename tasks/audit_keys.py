"""The keys by which molecules are compared: canonical SMILES, first block of the InChIKey, Bemis-Murcko scaffold.

    with KeyStore() as store:
        keys = store.keys(["OCC", "C(O)C"])

Each SMILES is worked out once, in one of several processes, and kept in the cache under a hash of its text, so that a
second audit reads what the first one computed and an interrupted one goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tasks import locations
from tasks.base import TaskError

Level = Literal["canonical", "inchikey", "scaffold"]
LEVELS: tuple[Level, ...] = ("canonical", "inchikey", "scaffold")

VERSION = 1
"""Raised when the same SMILES begins to give other keys."""

DEFAULT_LIMIT = 30.0
"""Seconds for one molecule. The largest molecule of the sets at hand (574 atoms) takes under one."""

_START_LIMIT = 120.0  # seconds until a new process must answer; importing RDKit on a busy machine takes some
_CHUNK = 64
_SAVE_EVERY = 2.0  # seconds; each time waits for the disk
_PIPE = 4096  # characters that may wait in a pipe, whose smallest buffer is four times that in bytes
_QUERY = 500  # SQLite allows 999 variables in older builds


@dataclass(frozen=True, slots=True)
class Keys:
    """What one SMILES is compared by.

    Args:
        problem: why there are no keys; None where there are.
        canonical: RDKit's canonical SMILES without atom-map numbers; stereo and isotopes count, fragments are sorted.
        first_block: of the standard InChIKey: the connectivity without stereo, isotopes and protonation; None where
            there is no InChI (or it was not asked for, or took too long).
        scaffold: Bemis-Murcko, without stereo; empty for a molecule without rings; None where there is none.
        atoms: heavy atoms and those hydrogens that RDKit keeps.
        fragments: molecules that the SMILES holds.
        salt: whether it holds several, one of them an ion or a hydrogen halide.
        isotopes: whether an atom is labelled as an isotope.
        full: whether first block and scaffold were worked out.
    """

    problem: str | None = None
    canonical: str | None = None
    first_block: str | None = None
    scaffold: str | None = None
    atoms: int = 0
    fragments: int = 0
    salt: bool = False
    isotopes: bool = False
    full: bool = False

    def at(self, level: Level) -> str | None:
        """The key of a level, or None: an unreadable molecule has none, one without rings has no scaffold."""
        if level == "canonical":
            return self.canonical
        return self.first_block if level == "inchikey" else self.scaffold or None


EMPTY = Keys(problem="empty")

Report = Callable[[int, int], None]
"""Is told how many of how many molecules are done."""


class KeyStore:
    """Works keys out and remembers them. A context manager, since it holds processes and a file open.

    Args:
        folder: where keys are kept; None for `audit/` in the cache folder.
        workers: processes that derive keys; None for one per processor.
        limit: seconds that one molecule may take; then its keys are given up and `problem` says so.
        report: is told of progress.

    Raises:
        TaskError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        workers: int | None = None,
        limit: float = DEFAULT_LIMIT,
        report: Report | None = None,
    ) -> None:
        if limit <= 0:
            raise TaskError(f"limit {limit}: seconds for one molecule, more than 0, are expected")
        self.report = report
        self._limit = limit
        self._count = workers if workers is not None else os.cpu_count() or 1
        self._workers: list[_Worker] = []
        self._failed: dict[tuple[str, bool], Keys] = {}  # not kept on disk: another machine may have more time
        folder = folder if folder is not None else locations.cache_root() / "audit"
        path = folder / f"keys-{VERSION}-rdkit-{version('rdkit')}.sqlite"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60.0)
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS keys (digest BLOB PRIMARY KEY, full INTEGER, value TEXT) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes and closes the file."""
        self._dismiss()
        self._database.close()

    def _dismiss(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers.clear()

    def keys(self, smiles: Iterable[str], *, full: bool = True) -> dict[str, Keys]:
        """The keys of every distinct SMILES; a blank one has the problem "empty".

        Args:
            smiles: as written in a data set.
            full: with first block and scaffold, not the canonical SMILES alone.

        Raises:
            TaskError: keys cannot be kept, or no process can be started.
        """
        distinct = list(dict.fromkeys(smiles))
        found = {text: EMPTY for text in distinct if not text.strip()}
        wanted = [text for text in distinct if text not in found]
        for text in wanted:
            if (text, full) in self._failed:
                found[text] = self._failed[text, full]
        try:
            found |= self._kept([text for text in wanted if text not in found], full)
            lacking = [text for text in wanted if text not in found]
            if lacking:
                found |= self._derived(lacking, full)
        except sqlite3.Error as error:
            self._dismiss()
            raise _unusable(self._path, error) from error
        except BaseException:  # an interrupt too: threads that are left behind must find no process to go on with
            self._dismiss()
            raise
        return {text: found[text] for text in distinct}

    def _kept(self, smiles: Sequence[str], full: bool) -> dict[str, Keys]:
        by_digest = {_digest(text): text for text in smiles}
        digests = list(by_digest)
        found: dict[str, Keys] = {}
        for start in range(0, len(digests), _QUERY):
            part = digests[start : start + _QUERY]
            marks = ",".join("?" * len(part))
            query = f"SELECT digest, value FROM keys WHERE digest IN ({marks}) AND full >= ?"
            for digest, value in self._database.execute(query, (*part, int(full))):
                found[by_digest[digest]] = Keys(**json.loads(value))
        return found

    def _derived(self, smiles: Sequence[str], full: bool) -> dict[str, Keys]:
        """Hands chunks to the processes and writes down what comes back, so that an interrupt loses little."""
        chunks: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        for start in range(0, len(smiles), _CHUNK):
            chunks.put(smiles[start : start + _CHUNK])
        count = min(self._count, -(-len(smiles) // _CHUNK))
        while len(self._workers) < count:
            self._workers.append(_Worker(self._limit))
        results: queue.SimpleQueue[Mapping[str, Keys] | BaseException] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=_serve, args=(worker, chunks, results, full), daemon=True)
            for worker in self._workers[:count]
        ]
        for thread in threads:
            chunks.put(None)
            thread.start()
        found: dict[str, Keys] = {}
        unsaved: dict[str, Keys] = {}
        saved = time.monotonic()
        try:
            while len(found) < len(smiles):
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                found |= result
                unsaved |= result
                if time.monotonic() - saved > _SAVE_EVERY:
                    self._keep(unsaved, full)
                    unsaved, saved = {}, time.monotonic()
                if self.report is not None:
                    self.report(len(found), len(smiles))
        finally:
            self._keep(unsaved, full)
        return found

    def _keep(self, result: Mapping[str, Keys], full: bool) -> None:
        rows = []
        for text, keys in result.items():
            if keys.problem in _PASSING or (full and not keys.full and keys.problem is None):
                self._failed[text, full] = keys
            else:
                value = {name: getattr(keys, name) for name in Keys.__dataclass_fields__}
                # what RDKit cannot parse has no more to give, however much is asked for
                rows.append((_digest(text), int(keys.full or keys.problem is not None), json.dumps(value)))
        with self._database:  # another process may have written down more of the same molecule meanwhile
            self._database.executemany(
                "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE "
                "SET full = excluded.full, value = excluded.value WHERE excluded.full >= keys.full",
                rows,
            )


_HANGS = "RDKit does not finish with it in time"
_CRASHES = "RDKit crashes on it"
_PASSING = frozenset({_HANGS, _CRASHES})


class _Worker:
    """One process that derives keys, replaced by another when it hangs or dies."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._closed = False
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def derive(self, smiles: Sequence[str], full: bool) -> dict[str, Keys]:
        """The keys of a few SMILES, in bounded time."""
        found: dict[str, Keys] = {}
        while len(found) < len(smiles):
            for text in self._send(smiles[len(found) :], full):
                answer = self._answer(self._limit)
                if isinstance(answer, Keys):
                    found[text] = answer
                    continue
                self.end()
                # an InChI that hangs must not cost the canonical SMILES
                found[text] = self.derive([text], False)[text] if full else Keys(problem=answer)
                break
        return found

    def close(self) -> None:
        """Kills the process and starts no other."""
        self._closed = True
        self.end()

    def end(self) -> None:
        """Kills the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _send(self, smiles: Sequence[str], full: bool) -> Sequence[str]:
        """Asks for the first of `smiles`, for as many as the pipe certainly takes, and returns these."""
        process = self._started()
        assert process.stdin is not None
        count, size = 1, len(smiles[0])
        while count < len(smiles) and size + len(smiles[count]) < _PIPE:
            size += len(smiles[count])
            count += 1
        with suppress(OSError):  # a dead process is noticed when its answer is awaited
            process.stdin.write("".join(json.dumps([text, full]) + "\n" for text in smiles[:count]))
            process.stdin.flush()
        return smiles[:count]

    def _answer(self, limit: float) -> Keys | str:
        """The next molecule's keys, or why there are none."""
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            return _HANGS
        return Keys(**json.loads(line)) if line else _CRASHES

    def _started(self) -> subprocess.Popen[str]:
        """The process, ready to answer."""
        if self._closed:
            raise TaskError("the store of keys was closed while it was working")
        if self._process is not None:
            return self._process
        # A plain command and not multiprocessing, which would import the caller's main module once more.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.audit_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": paths},
        )
        self._process = process
        self._lines = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, self._lines), daemon=True).start()
        with suppress(queue.Empty):
            if self._lines.get(timeout=_START_LIMIT):
                return process
        self.end()
        raise TaskError(f"a process that reads molecules did not start ({sys.executable} -m tasks.audit_worker)")


def _read(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Passes on what a process writes, so that waiting for it can have an end; "" says that it ended."""
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _serve(
    worker: _Worker,
    chunks: queue.SimpleQueue[Sequence[str] | None],
    results: queue.SimpleQueue[Mapping[str, Keys] | BaseException],
    full: bool,
) -> None:
    """Works through the chunks; an error is the caller's to raise."""
    try:
        while (chunk := chunks.get()) is not None:
            results.put(worker.derive(chunk, full))
    except BaseException as error:
        results.put(error)


def _unusable(path: Path, error: Exception) -> TaskError:
    advice = f"make room or delete that file, or set {locations.CACHE_VARIABLE} to another folder"
    return TaskError(f"cannot keep keys in {path}: {error}; {advice}")


def _digest(smiles: str) -> bytes:
    return hashlib.blake2b(smiles.encode("utf-8", "surrogatepass"), digest_size=16).digest()
