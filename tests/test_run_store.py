"""Files of runs: whole or not at all, torn lines, locks that die with their process, states that cannot be confused."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY

from bench.errors import RunBusyError, UserError
from bench.run_store import (
    RunDirectory,
    append_jsonl,
    is_disk_error,
    read_json,
    read_jsonl,
    write_bytes,
    write_json,
    write_text,
)

HOLD = """
import sys, time
from pathlib import Path
from bench.run_store import RunDirectory

run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    run.set_status("running", "stage align")
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# Writing


def test_a_file_is_replaced_whole_and_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    write_json(file, {"a": "ä", "b": None})
    write_json(file, {"a": 2})
    assert file.read_text() == '{\n "a": 2\n}\n'
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


def test_a_write_that_cannot_be_put_into_place_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def refused(source: str, target: str) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="no"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_runs_out_of_room_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    write_bytes(file, b"old")
    with largest_file(1000), pytest.raises(OSError):
        write_bytes(file, b"x" * 100_000)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_json_does_not_have_are_refused_and_leave_the_old_file(tmp_path: Path, value: object) -> None:
    file = tmp_path / "a.json"
    write_json(file, 1)
    with pytest.raises(ValueError):
        write_json(file, value)
    assert read_json(file) == 1


def test_a_full_disk_is_told_from_other_errors(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        Path("/dev/full").write_text("x")
    assert is_disk_error(caught.value, tmp_path)
    assert is_disk_error(PermissionError(13, "denied"), tmp_path)
    assert not is_disk_error(FileNotFoundError(2, "none"), tmp_path)
    assert not is_disk_error(ValueError("none"), tmp_path)
    assert not is_disk_error(KeyboardInterrupt(), tmp_path)


def test_a_limit_on_the_size_of_files_is_the_disk_s_fault_too(tmp_path: Path) -> None:
    with largest_file(10), pytest.raises(OSError) as caught:
        write_text(tmp_path / "a", "x" * 100)
    assert is_disk_error(caught.value, tmp_path)


# Lines


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.jsonl"
    assert read_jsonl(file) == []
    append_jsonl(file, [{"a": "ä\u2028b"}, {"a": 2}])
    append_jsonl(file, [])
    append_jsonl(file, [{"a": None}], durable=False)
    assert read_jsonl(file) == [{"a": "ä\u2028b"}, {"a": 2}, {"a": None}]


@pytest.mark.parametrize("torn", [b'{"a": 3', b'{"a": "\xc3', b"{", b'{"a": 3}'])
def test_a_torn_last_line_is_not_read_and_is_cut_off_by_the_next(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "a.jsonl"
    append_jsonl(file, [{"a": 1}, {"a": 2}])
    with file.open("ab") as appended:
        appended.write(torn)
    assert read_jsonl(file) == [{"a": 1}, {"a": 2}]
    append_jsonl(file, [{"a": 4}])
    assert file.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 4}\n'


def test_a_file_that_is_one_torn_line_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a"')
    assert read_jsonl(file) == []
    append_jsonl(file, [{"a": 1}])
    assert read_jsonl(file) == [{"a": 1}]


@pytest.mark.parametrize("broken", [b"{", b"", b"\xff", b'{"a": 1} {"a": 2}'])
def test_a_broken_line_before_the_last_is_an_error_with_its_place(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n' + broken + b'\n{"a": 3}\n')
    with pytest.raises(UserError) as caught:
        read_jsonl(file)
    assert str(caught.value).startswith(f"{file}:2: ")


def test_json_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.json: no such file"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json: not readable as JSON"):
        read_json(tmp_path / "a.json")


# Lock and state


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with held_by_another_process(run.path) as other:
        with pytest.raises(RunBusyError) as caught, run.lock():
            pass
        message = str(caught.value)
        for part in (str(run.path), f"process {other.pid} on {socket.gethostname()}", "stage align"):
            assert part in message
        assert run.status().state == "running"


def test_a_killed_process_frees_its_run_and_leaves_it_interrupted(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with held_by_another_process(run.path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert json.loads((run.path / "status.json").read_text())["state"] == "running"
        status = run.status()
        assert (status.state, status.phase, status.pid) == ("interrupted", "stage align", other.pid)
        with run.lock():
            run.set_status("running", "prepared")
            assert run.status().state == "running"  # also for the process that holds the lock


def test_a_run_in_the_same_process_cannot_be_held_twice(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run").lock(), pytest.raises(RunBusyError), RunDirectory(tmp_path / "run").lock():
        pass
    with RunDirectory(tmp_path / "run").lock():
        pass


def test_states_are_what_was_written_unless_the_writer_is_gone(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.status().state == "planned"
    with run.lock():
        run.set_status("failed", "stage tune", "nan", "NotFiniteError: the loss is nan")
    status = run.status()
    assert (status.state, status.phase, status.error) == ("failed", "stage tune", "nan")
    assert status.message == "NotFiniteError: the loss is nan"
    assert (status.pid, status.host) == (os.getpid(), socket.gethostname())
    for state in ("planned", "interrupted", "done"):
        with run.lock():
            run.set_status(state)
        assert run.status().state == state
    with run.lock():
        run.set_status("running", "scoring")
    assert run.status().state == "interrupted"
    (run.path / "lock").unlink()
    assert run.status().state == "interrupted"


def test_working_time_adds_up_over_sessions(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    for _ in range(2):
        with run.lock():
            time.sleep(0.05)
            run.set_status("interrupted")
    assert 0.1 <= run.status().seconds < 5
