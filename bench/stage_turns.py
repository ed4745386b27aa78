"""Turns at a training stage that several runs have in common, so that one of them trains it and the others take it.

A turn is a lock on a file that is named by the stage's identity, in a hidden folder among the runs. The system releases
it when its holder dies, so whoever waits then goes on in its place. A run holds at most one turn, and takes no other
lock for which it would wait, so that no two runs can wait for each other.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from bench.run_store import is_held, write_json

if TYPE_CHECKING:
    from bench.session import Log

_POLL = 0.1  # seconds between looks
_MOMENT = 0.5  # seconds; who only looks whether a stage is taken holds its lock for less
_SIGN_OF_LIFE = 15.0  # seconds after which who waits says so again


@contextmanager
def turn(runs: Path, stage_id: str, log: Log, *, stage: str = "", run: str = "") -> Iterator[str]:
    """Holds a stage for this process; waits while another one holds it, and says for whom.

    Args:
        runs: the folder of run directories.
        stage_id: the stage's identity.
        log: of the run that asks.
        stage: the stage's name, for messages.
        run: the folder of the run that asks, by name: for messages of those who wait for it, and for who is next.

    Yields:
        The folder of the run whose turn it was last, by name; empty where there was none.
    """
    lock = FileLock(_lock_file(runs, stage_id))
    _lock_file(runs, stage_id).parent.mkdir(parents=True, exist_ok=True)
    said, told = "", 0.0
    while True:
        try:
            lock.acquire(timeout=_MOMENT, poll_interval=_POLL)
            break
        except Timeout:
            waiting = f"waiting for stage {stage or stage_id}, which {_holder(runs, stage_id)}"
            if waiting != said:
                log.write(waiting)
            if waiting != said or time.monotonic() - told > _SIGN_OF_LIFE:
                log.status("running", waiting)
                said, told = waiting, time.monotonic()
    try:
        before = _note(runs, stage_id).get("run", "")
        write_json(
            _note_file(runs, stage_id), {"stage": stage, "run": run, "pid": os.getpid(), "host": socket.gethostname()}
        )
        yield str(before)
    finally:
        lock.release()


def is_taken(runs: Path, stage_id: str) -> bool:
    """Whether a process is at a stage right now."""
    return is_held(_lock_file(runs, stage_id))


def _holder(runs: Path, stage_id: str) -> str:
    """Who is at a stage, in words."""
    note = _note(runs, stage_id)
    if not note:
        return "another process trains"
    return f"process {note.get('pid')} on {note.get('host')} trains for {note.get('run') or 'another run'}"


def _note(runs: Path, stage_id: str) -> Mapping[str, Any]:
    """Who is at a stage, or was last."""
    try:
        found = json.loads(_note_file(runs, stage_id).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _lock_file(runs: Path, stage_id: str) -> Path:
    return runs / ".stages" / f"{stage_id}.lock"


def _note_file(runs: Path, stage_id: str) -> Path:
    return runs / ".stages" / f"{stage_id}.json"
