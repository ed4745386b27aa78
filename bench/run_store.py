"""Runs on disk: atomic writes, a lock that dies with its process, and states that cannot be confused.

The run directory is the truth; MLflow, tables and pages are made from it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from bench.errors import RunBusyError, UserError

State = Literal["planned", "running", "interrupted", "failed", "done"]
ErrorClass = Literal["nan", "oom", "disk", "killed", "error"]

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_PARTIAL = ".partial"
_CONTENTION = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
_PATIENCE = 0.2  # seconds
_FULL = 1 << 20  # bytes; with less than this left, a failed write is taken to be the disk's fault

# What libraries that write in C++ or Rust say of a write that failed: torch, tokenizers and safetensors, sqlite.
_DISK_WORDS = ("PytorchStreamWriter failed", "os error 28", "No space left on device", "database or disk is full")


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run stands.

    Args:
        state: `running` only while its lock is held; a run found running with a free lock is `interrupted`.
        phase: what it was doing last.
        error: the class of a failure.
        message: the failure in one line.
        pid, host, updated: who wrote this, where and when (seconds since 1970).
        seconds: working time of all sessions so far.
        attempts: sessions that have worked on the run, this one included.
    """

    state: State
    phase: str = ""
    error: ErrorClass | None = None
    message: str | None = None
    pid: int = 0
    host: str = ""
    updated: float = 0.0
    seconds: float = 0.0
    attempts: int = 0

    @classmethod
    def parse(cls, text: str) -> Status:
        """What a status file says; one that is torn, as a full disk or a power cut may leave it, is interrupted."""
        try:
            written = json.loads(text)
            known = {field.name for field in fields(cls)}
            return cls(**{key: value for key, value in written.items() if key in known})
        except (ValueError, TypeError, AttributeError):
            return cls("interrupted", message="its status file cannot be read")


class RunDirectory:
    """One run's folder.

    Args:
        path: it need not exist yet.

    Attributes:
        found: the status as it was written when this process took the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = time.monotonic()
        self._earlier_seconds = 0.0
        self.found = Status("planned")
        self._attempts = 0

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def manifest_file(self) -> Path:
        """What the run was made from and with."""
        return self.path / "manifest.json"

    @property
    def result_file(self) -> Path:
        """What the run came to."""
        return self.path / "result.json"

    @property
    def log_file(self) -> Path:
        """The log of all sessions."""
        return self.path / "log.txt"

    def stage(self, position: int, name: str) -> Path:
        """The folder of a stage."""
        return self.path / "stages" / f"{position}-{name}"

    def predictions_file(self, predict_id: str) -> Path:
        """The predictions of one evaluation, a line each."""
        return self.path / "predictions" / f"{predict_id}.jsonl"

    def questions_file(self, predict_id: str) -> Path:
        """What was asked in one evaluation and the gold answers, a line each."""
        return self.path / "predictions" / f"{predict_id}.questions.jsonl"

    def observed_file(self, predict_id: str) -> Path:
        """What the projector had to say while one evaluation was asked, such as its gates."""
        return self.path / "predictions" / f"{predict_id}.observed.json"

    def candidates_file(self, predict_id: str) -> Path:
        """The likelihood of each candidate answer in one evaluation, a line per example."""
        return self.path / "predictions" / f"{predict_id}.candidates.jsonl"

    def scores_file(self, score_id: str) -> Path:
        """One protocol's scores of one evaluation."""
        return self.path / "scores" / f"{score_id}.json"

    def reliance_file(self, reliance_id: str) -> Path:
        """Log-likelihoods under the real and the swapped graph, a line per example."""
        return self.path / "reliance" / f"{reliance_id}.jsonl"

    def swapped_answers_file(self, answers_id: str) -> Path:
        """Answers generated under swapped graphs, a line per example."""
        return self.path / "reliance" / f"{answers_id}.answers.jsonl"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; released by the system when the process dies.

        Raises:
            RunBusyError: another process holds it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{self.path.parent} cannot be a folder of runs: a file stands there") from None
        holder = FileLock(self.path / "lock")
        try:
            # A moment's patience, for who only looks whether a run is held (`is_held`) may be seen here.
            holder.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 10)
        except Timeout:
            raise self.busy() from None
        try:
            for leftover in self.path.rglob(f"*{_PARTIAL}"):  # of a session that was killed while it wrote
                leftover.unlink(missing_ok=True)
            self.found = self.written_status()
            self._earlier_seconds, self._attempts = self.found.seconds, self.found.attempts
            self._started = time.monotonic()
            yield
        finally:
            holder.release()

    def busy(self) -> RunBusyError:
        """The error that says who is at the run."""
        status = self.written_status()
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.updated))
        who = f"process {status.pid} on {status.host} (last sign of life {since}, {status.phase})"
        if not status.pid:  # it holds the lock, and has not said so yet
            who = "a process that has just begun"
        return RunBusyError(
            f"{self.path} is being worked on by {who}. Wait for it, or end that process and run the same command again "
            "to resume."
        )

    def status(self) -> Status:
        """The state as it is now, not as it was last written."""
        status = self.written_status()
        if status.state == "running" and not is_held(self.path / "lock"):
            return Status(**{**asdict(status), "state": "interrupted"})
        return status

    def begin_attempt(self) -> None:
        """Counts this session among those that have worked on the run. Call it while holding the lock."""
        self._attempts += 1

    def set_status(
        self, state: State, phase: str = "", error: ErrorClass | None = None, message: str | None = None
    ) -> None:
        """Writes the state, with who and when. Call it while holding the lock."""
        seconds = self._earlier_seconds + time.monotonic() - self._started
        who = (os.getpid(), socket.gethostname(), time.time())
        status = Status(state, phase, error, message, *who, round(seconds, 2), self._attempts)
        write_json(self.path / "status.json", asdict(status))

    def written_status(self) -> Status:
        """The state as whoever worked on the run last has written it, whether that process is still there or not."""
        try:
            return Status.parse((self.path / "status.json").read_text(errors="replace"))
        except FileNotFoundError:
            return Status("planned")


def is_held(lock: Path) -> bool:
    """Whether a process holds a lock file right now, of this machine or of another that shares the folder.

    Looking is done by taking the lock for reading, for some microseconds: those who only look do not see each other,
    need no right to write, and are outlasted by who takes it (`RunDirectory.lock`).
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return _is_held_as_filelock_says(lock)
    try:
        file = lock.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do if the process forked meanwhile
        except OSError as error:
            if error.errno in _CONTENTION:
                return True
            if error.errno == errno.ENOSYS:  # a file system without locks, where filelock has its own way
                return _is_held_as_filelock_says(lock)
            raise
    return False


def _is_held_as_filelock_says(lock: Path) -> bool:
    if not lock.exists():
        return False
    probe = FileLock(lock)
    try:
        probe.acquire(timeout=0)
    except Timeout:
        return True
    probe.release()
    return False


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a temporary file, flushed to disk, then moved into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-", suffix=_PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp makes files that only the owner can read
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: object) -> None:
    """`write_text` for a value as indented JSON; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def append_jsonl(path: Path, rows: Sequence[Mapping[str, Any]], durable: bool = True) -> None:
    """Appends lines. A torn last line of a killed writer is cut off first.

    Args:
        path: made if it is missing.
        rows: JSON values.
        durable: wait until the disk has them, so that even a power cut loses none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("ab") as file:
        cut_torn_line(path)
        file.write(lines.encode())
        if durable:
            file.flush()
            os.fsync(file.fileno())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a JSONL file; a missing file has none, and a torn last line is not one.

    Raises:
        UserError: a line before the last is not JSON.
    """
    if not path.exists():
        return []
    rows = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or torn
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise UserError(f"{path}:{number}: not a line of JSON: {line[:80]!r}") from None
    return rows


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        UserError: it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from None


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is there and not cut short."""
    from safetensors import SafetensorError, safe_open  # torch comes with it, and whoever lists runs has no need of it

    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def is_disk_error(error: BaseException, folder: Path) -> bool:
    """Whether a write to `folder` failed because of the disk: full, over quota, read-only or forbidden.

    Libraries that write in C++ or Rust raise errors of their own; they are told by their words, or by the space that is
    left.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_ERRORS
    if isinstance(error, Exception) and any(words in str(error) for words in _DISK_WORDS):
        return True
    return isinstance(error, Exception) and folder.exists() and shutil.disk_usage(folder).free < _FULL


def cut_torn_line(path: Path) -> None:
    """Cuts off what a killed writer left of its last line, so that nobody writes on in it."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
