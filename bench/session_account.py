"""The account that a run's manifest keeps of its sessions: who worked on it, where, from when to when, to what end."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bench.errors import DeviceLostError, StoppedEarlyError, is_user_error
from bench.provenance import provenance
from bench.run_store import RunDirectory, Status, read_json, write_json


def begin_session(directory: RunDirectory, found: Status, **more: Any) -> None:
    """Adds this session to the manifest, and says of an earlier one that was killed that it was.

    Args:
        directory: the run; it has a manifest.
        found: the run's status as this session found it: the last sign of life of the one before.
        more: facts about the session.
    """
    manifest = read_json(directory.manifest_file)
    sessions = manifest["sessions"]
    if sessions and "pid" in sessions[-1] and "end" not in sessions[-1]:
        sessions[-1]["end"] = _as_found(found, sessions[-1])
    sessions.append({**provenance(), **more})
    write_json(directory.manifest_file, manifest)


def note_in_session(directory: RunDirectory, line: str) -> None:
    """Adds a line to what this session did in another way than others would, once."""
    manifest = read_json(directory.manifest_file)
    lines = manifest["sessions"][-1].setdefault("computed", [])
    if line not in lines:
        lines.append(line)
        write_json(directory.manifest_file, manifest)


def notes_of_sessions(directory: RunDirectory) -> list[str]:
    """All such lines of a run, each once."""
    sessions = read_json(directory.manifest_file)["sessions"]
    return list(dict.fromkeys(line for session in sessions for line in session.get("computed", ())))


def last_session(directory: RunDirectory) -> Mapping[str, Any]:
    """What the manifest says of the session before; nothing where there was none."""
    if not directory.manifest_file.exists():
        return {}
    sessions: list[Mapping[str, Any]] = read_json(directory.manifest_file)["sessions"]
    return sessions[-1] if sessions else {}


def end_session(directory: RunDirectory, reason: str, phase: str, message: str | None = None) -> None:
    """Says when and how this session ended, if it has come so far as to be in the manifest."""
    if not directory.manifest_file.exists():
        return
    manifest = read_json(directory.manifest_file)
    session = manifest["sessions"][-1] if manifest["sessions"] else {}
    if (session.get("pid"), session.get("host")) != (os.getpid(), socket.gethostname()) or "end" in session:
        return
    session["end"] = _end(time.time(), reason, phase, message)
    write_json(directory.manifest_file, manifest)


def reason_of(error: BaseException, kind: str | None) -> str:
    """Why a session ended, in a word or two.

    Args:
        error: that ended it.
        kind: its class, if it is a failure or the disk's fault.
    """
    if kind is not None:
        return kind
    if isinstance(error, StoppedEarlyError):
        return "stopped early"
    if isinstance(error, DeviceLostError):
        return "no device"
    if isinstance(error, KeyboardInterrupt):
        return "SIGINT"
    if isinstance(error, SystemExit):
        return "SIGTERM" if error.code == 128 + signal.SIGTERM else "exit"
    return "refused" if is_user_error(error) else "interrupted"


def _as_found(found: Status, session: Mapping[str, Any]) -> dict[str, Any]:
    own = (found.pid, found.host) == (session.get("pid"), session.get("host"))
    if not own or found.state == "running":
        last = found.updated if own else float(session["unix"])  # its last sign of life
        return _end(last, "killed", found.phase if own else "", None)
    return _end(found.updated, found.error or found.state, found.phase, found.message)


def _end(unix: float, reason: str, phase: str, message: str | None) -> dict[str, Any]:
    when = datetime.fromtimestamp(unix).astimezone().isoformat(timespec="seconds")
    return {"time": when, "unix": round(unix, 3), "reason": reason, "phase": phase, "message": message}
