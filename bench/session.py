"""A session of a run: what it says while it works, and what it leaves behind however it ends."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from bench.distributed import PeerLostError
from bench.errors import NotFiniteError, UserError, is_user_error
from bench.run_store import ErrorClass, RunDirectory, State, is_disk_error

Mirror = Callable[[RunDirectory], None]
"""Told of a run directory whenever there is something new in it."""


class Log:
    """What a session says: to the log file, to the status, to who mirrors the run."""

    def __init__(self, directory: RunDirectory, mirror: Mirror) -> None:
        self._directory = directory
        self._mirror = mirror

    def write(self, message: str) -> None:
        """A line with the time."""
        with self._directory.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def status(self, state: State, phase: str) -> None:
        """Where the run stands."""
        self._directory.set_status(state, phase)
        self._mirror(self._directory)


class Silent(Log):
    """What the processes of a run say that do not lead: nothing."""

    def __init__(self, directory: RunDirectory) -> None:
        super().__init__(directory, lambda _: None)

    def write(self, message: str) -> None:
        """The leader writes it."""

    def status(self, state: State, phase: str) -> None:
        """The leader writes it."""


@contextmanager
def recorded(directory: RunDirectory, mirror: Mirror) -> Iterator[None]:
    """Writes down how a session ends if it does not end well."""
    before = signal.getsignal(signal.SIGTERM)
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except BaseException as error:
        state, kind = _classified(error, directory)
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        try:
            with directory.log_file.open("a", encoding="utf-8") as file:
                file.write("".join(traceback.format_exception(error)))
            directory.set_status(state, directory.status().phase, kind, message)
            mirror(directory)
        except Exception as second:  # the disk may be what failed; the first error is the one to tell
            error.add_note(f"its status could not be written either: {second}")
        error.molgraft_class = kind  # type: ignore[attr-defined] # what the command line tells by
        error.molgraft_log = directory.log_file  # type: ignore[attr-defined]
        raise
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, before)


def _classified(error: BaseException, directory: RunDirectory) -> tuple[State, ErrorClass | None]:
    if isinstance(error, PeerLostError):
        return ("failed" if error.kind else "interrupted"), error.kind
    if isinstance(error, NotFiniteError):
        return "failed", "nan"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "failed", "oom"
    if is_disk_error(error, directory.path):
        return "interrupted", "disk"
    if is_user_error(error) or not isinstance(error, Exception):
        return "interrupted", None
    return "failed", "error"


def refuse_failed(directory: RunDirectory, retry_failed: bool) -> None:
    """Stops before a run that failed is tried again unasked.

    Raises:
        UserError: it failed.
    """
    status = directory.status()
    if status.state == "failed" and not retry_failed:
        raise UserError(
            f"{directory.path} failed before ({status.error}, in {status.phase}): {status.message}. "
            "Run with --retry-failed to go on from its last checkpoint, or --fresh to start over."
        )


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
