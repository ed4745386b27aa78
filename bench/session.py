"""A session of a run: what it says while it works, and what it leaves behind however it ends."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.distributed import PeerLostError
from bench.errors import StoppedEarlyError, UserError, failure_of, is_user_error
from bench.run_store import ErrorClass, RunDirectory, State, is_disk_error
from bench.session_account import end_session, reason_of

_BEAT = 2.0  # seconds between signs of life; each waits for the disk

Mirror = Callable[[RunDirectory], None]
"""Told of a run directory whenever there is something new in it."""


@dataclass(frozen=True, slots=True)
class Validated:
    """A validation of a training stage.

    Args:
        stage, position: which stage, by name and by number from 0.
        step: optimiser steps of the stage so far.
        steps_before: optimiser steps of all stages before it; with `step` the run's own count.
        loss: nats per token.
    """

    stage: str
    position: int
    step: int
    steps_before: int
    loss: float


Watch = Callable[[Validated], None]
"""Told of each validation of training, just before it is written down.

It is not told again of one that a resumed run passes a second time, nor of those of earlier sessions or of a stage that
is taken from another run. Only a session killed between the telling and the writing makes the next one tell the same
again. By raising `StoppedEarlyError` it ends the training: the run is then `interrupted`, its phase `stopped early`,
and a later session goes on from the checkpoint that was written at that step.
"""


def nobody(_: Validated) -> None:
    """A watcher that does not look."""


class Log:
    """What a session says: to the log file, to the status, to who mirrors the run, to who watches its training.

    Args:
        directory: the run.
        mirror: told whenever there is something new in it.
        watch: told of each validation.
    """

    def __init__(self, directory: RunDirectory, mirror: Mirror, watch: Watch = nobody) -> None:
        self._directory = directory
        self._mirror = mirror
        self.watch = watch
        self._now: tuple[State, str] = ("running", "starting")
        self._said = time.monotonic()

    def write(self, message: str) -> None:
        """A line with the time."""
        with self._directory.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def status(self, state: State, phase: str) -> None:
        """Where the run stands."""
        self._now, self._said = (state, phase), time.monotonic()
        self._directory.set_status(state, phase)
        self._mirror(self._directory)

    def beat(self) -> None:
        """A sign of life from where it stood last, so that working time and what mirrors the run keep up; not often."""
        if time.monotonic() - self._said > _BEAT:
            self.status(*self._now)


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
    """Counts a session, and writes down how it ends if it does not end well."""
    try:
        with ended_by_sigterm():
            directory.begin_attempt()
            directory.set_status("running", "starting")
            yield
    except BaseException as error:
        state, kind = _classified(error, directory)
        if kind == "disk":
            note_disk(error, directory.path)
        message = _in_a_line(error)
        phase = "stopped early" if isinstance(error, StoppedEarlyError) else directory.status().phase
        try:
            with directory.log_file.open("a", encoding="utf-8") as file:
                file.write("".join(traceback.format_exception(error)))
            directory.set_status(state, phase, kind, message)
            end_session(directory, reason_of(error, kind), phase, message)
            if directory.manifest_file.exists():  # without it there is nothing to mirror yet
                mirror(directory)
        except Exception as second:  # the disk may be what failed; the first error is the one to tell
            error.add_note(f"its status could not be written either: {second}")
        error.molgraft_class = kind  # type: ignore[attr-defined] # what the command line tells by
        error.molgraft_log = directory.log_file  # type: ignore[attr-defined]
        raise


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """While it lasts, SIGTERM ends this process as an exit does, so that what is under way is left in order."""
    if threading.current_thread() is not threading.main_thread():  # which alone can take signals
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: not set from Python


@contextmanager
def disk_errors_told(*folders: Path) -> Iterator[None]:
    """Adds to an error of the disk which of these folders' disks it is about, and how much room that has."""
    try:
        yield
    except Exception as error:
        existing = [found for folder in folders if (found := _first_there(folder)) is not None]
        at_fault = [folder for folder in existing if is_disk_error(error, folder)]
        if at_fault and not is_user_error(error):
            note_disk(error, min(at_fault, key=lambda folder: shutil.disk_usage(folder).free))
            error.molgraft_class = "disk"  # type: ignore[attr-defined] # what the command line tells by
        raise


def note_disk(error: BaseException, folder: Path) -> None:
    """Adds which disk could not be written, for the command line."""
    if not hasattr(error, "molgraft_disk"):
        error.molgraft_disk = folder  # type: ignore[attr-defined]
        error.add_note(f"the disk that holds {folder} has {shutil.disk_usage(folder).free // 1024:,} KiB left")


def _first_there(folder: Path) -> Path | None:
    """The folder, or the nearest above it that exists."""
    return next((path for path in (folder, *folder.resolve().parents) if path.is_dir()), None)


def _in_a_line(error: BaseException) -> str:
    words = error.args[0] if isinstance(error, StoppedEarlyError) and error.args else f"{type(error).__name__}: {error}"
    return " ".join([str(words).partition("\n")[0], *(f"({note})" for note in getattr(error, "__notes__", ()))])


def _classified(error: BaseException, directory: RunDirectory) -> tuple[State, ErrorClass | None]:
    if isinstance(error, PeerLostError):
        return ("failed" if error.kind else "interrupted"), error.kind
    kind = failure_of(error)
    if kind == "error" and is_disk_error(error, directory.path):
        return "interrupted", "disk"
    return ("interrupted", None) if kind is None else ("failed", kind)


def refuse_failed(directory: RunDirectory, retry_failed: bool) -> None:
    """Stops before a run that failed is tried again unasked.

    Raises:
        UserError: it failed.
    """
    status = directory.status()
    if status.state == "failed" and not retry_failed:
        raise UserError(
            f"{directory.path} failed before ({status.error}, in {status.phase}): {status.message}. "
            "Run with --retry-failed to go on from its last checkpoint; `molgraft run --fresh` starts over."
        )


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
