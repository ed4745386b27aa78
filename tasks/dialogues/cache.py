"""Replies on disk, one JSON line each, by the hash of what was asked: what has been paid for is never asked again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.base import TaskError
from tasks.dialogues.base import Reply


class ReplyCache:
    """An append-only file of replies. Only whole lines count: what a killed writer left of a line is cut off.

    Args:
        path: made when the first reply is added.
        durable: wait for the disk after each reply, so that even a power cut loses none.
    """

    def __init__(self, path: Path, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._replies: dict[str, Reply] = {}
        self.unreadable = 0
        """Whole lines that are no replies; they are left in the file and not used."""

    def load(self) -> None:
        """Read what is there.

        Raises:
            TaskError: the file cannot be read.
        """
        try:
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise TaskError(f"cannot read {self._path}: {error.strerror or error}") from error
        for line in content.split(b"\n")[:-1]:  # what follows the last newline is empty or torn
            try:
                entry = json.loads(line)
                reply = _reply(entry["reply"])
                self._replies[str(entry["key"])] = reply
            except (ValueError, KeyError, TypeError):
                self.unreadable += 1

    def get(self, key: str) -> Reply | None:
        """The newest reply of that key, or None."""
        return self._replies.get(key)

    def __len__(self) -> int:
        return len(self._replies)

    def replies(self) -> Iterator[Reply]:
        """All replies."""
        return iter(self._replies.values())

    def forget_problems(self) -> None:
        """Forget the replies that could not be used, so that they are asked for again; the file keeps their lines."""
        self._replies = {key: reply for key, reply in self._replies.items() if reply.problem is None}

    def add(self, key: str, reply: Reply) -> None:
        """Append one reply by a single write, so that a kill leaves whole lines and at most one torn one at the end.

        Raises:
            TaskError: it cannot be written.
        """
        line = json.dumps({"key": key, "reply": asdict(reply)}, ensure_ascii=False) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                _cut_torn_line(self._path)
                file.write(line.encode("utf-8", "backslashreplace"))
                if self._durable:
                    os.fsync(file.fileno())
        except OSError as error:
            raise TaskError(f"cannot write {self._path}: {error.strerror or error}") from error
        self._replies[key] = reply

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the file meanwhile.

        Raises:
            TaskError: another process has it.
        """
        from filelock import FileLock, Timeout

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{self._path}.lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise TaskError(f"{self._path} is in use by another process; wait for it, or choose another -o") from None
        except OSError as error:
            raise TaskError(f"cannot write beside {self._path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            lock.release()


def _reply(values: dict[str, Any]) -> Reply:
    return Reply(**{**values, "exemplars": tuple(values["exemplars"])})


def _cut_torn_line(path: Path) -> None:
    """Shorten a file to its last newline."""
    size = path.stat().st_size
    if size == 0:
        return
    with path.open("rb+") as file:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
