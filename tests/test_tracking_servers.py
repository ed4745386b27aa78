"""The mirror on servers: MLflow's own tracking server and PostgreSQL, by several processes, with kills and outages."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres
import pytest
from conftest import QUICK
from rich.console import Console
from tracked_runs import (
    STAGES,
    begin,
    curves,
    finish,
    finished,
    logged,
    plan,
    processes,
    runtime_of,
    shown,
    train,
)

import bench.tracking.mirror
from bench.cli import _status
from bench.errors import UserError
from bench.run_store import RunDirectory, read_jsonl
from bench.runtime import Runtime
from bench.tracking import mirror_to, synchronise


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def tracking_server(folder: Path, port: int) -> Iterator[str]:
    """`mlflow server` on loopback; on going, it and the processes that it started are ended."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    command = [sys.executable, "-m", "mlflow", "server", *store, "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.txt").open("a") as said:
        process = subprocess.Popen(
            [*command, "--workers", "1"], stdout=said, stderr=said, env=environment, start_new_session=True, cwd=folder
        )
    try:
        deadline = time.monotonic() + 180
        while True:
            assert process.poll() is None, (folder / "server.txt").read_text()
            assert time.monotonic() < deadline, "the server did not start"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with tracking_server(tmp_path_factory.mktemp("server"), free_port()) as address:
        yield address


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    postgres.needed()
    with postgres.running() as found:
        yield found


@pytest.fixture(params=["http", "postgresql"])
def store(request: pytest.FixtureRequest) -> str:
    """An address, for each kind of server."""
    if request.param == "http":
        return str(request.getfixturevalue("server"))
    return str(request.getfixturevalue("database").url)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # on a busy machine
    monkeypatch.setattr(bench.tracking.mirror, "_PAUSE", 0.0)


def test_processes_that_begin_together(store: str, tmp_path: Path) -> None:
    """In PostgreSQL, the tables are not there yet; each process has a folder of runs, as on machines of its own."""
    study = "together"
    directories = [begin(tmp_path / f"machine{seed}", "together", seed) for seed in range(4)]
    for directory in directories:
        plan(directory.path.parent, study, *directories)
    job = {"kind": "together", "directories": [str(d.path) for d in directories], "tracking": store}
    assert processes({**job, "steps": 9, "study": study}, tmp_path) == [0] * 4
    synchronise(runtime_of(directories[0].path.parent, store))
    found = shown(store, study)
    assert set(found) == {study, *(directory.path.name for directory in directories)}
    for directory in directories:
        run = found[directory.path.name]
        assert (run["parent"], run["parent is there"], run["status"]) == (study, True, "FINISHED")
        assert curves(run) == logged(directory)
        assert run["files"] == ["config.yaml", "manifest.json", "predictions", "predictions/aa.jsonl", "result.json"]


def test_killed_at_any_moment(store: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    directory = begin(runs, "killed")
    job = {"kind": "killed", "directories": [str(directory.path)], "tracking": store, "study": "kills"}
    ends = processes({**job, "steps": 60, "seed": 3, "kills": 10, "between": [0.5, 2.5]}, tmp_path)
    assert -signal.SIGKILL in ends
    run = shown(store, "kills")[directory.path.name]
    assert curves(run) == logged(directory)
    # What it is from nothing, in another kind of store.
    synchronise(runtime_of(runs))
    same = ("status", "parameters", "latest", "points", "data", "files", "times")
    again = shown(f"sqlite:///{runs / 'mlflow.db'}", "kills")[directory.path.name]
    assert {key: run[key] for key in same} == {key: again[key] for key in same}


def test_from_nothing_and_twice(store: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    directories = [finished(runs, "again", seed) for seed in range(2)]
    plan(runs, "again", *directories)
    done = synchronise(runtime_of(runs, store))
    assert (done.created, done.failed) == (2, ())
    before = shown(store, "again")
    assert all(curves(before[directory.path.name]) == logged(directory) for directory in directories)
    done = synchronise(runtime_of(runs, store))
    assert (done.created, done.updated, done.unchanged, done.points) == (0, 0, 2, 0)
    assert shown(store, "again") == before


def test_a_server_that_goes_and_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tracking.mirror, "_SHORTEST_BREAK", 1e-9)
    runs, port = tmp_path / "runs", free_port()
    directory = begin(runs)
    console = Console(file=(tmp_path / "said.txt").open("w"), width=300)
    mirror = mirror_to("outage", Runtime(runs=runs, tracking=f"http://127.0.0.1:{port}", console=console))
    with directory.lock():
        directory.set_status("running", "stage align")
        with tracking_server(tmp_path, port):
            train(directory, 0, range(1, 6))
            mirror(directory)
        train(directory, 0, range(6, 11))
        began = time.monotonic()
        mirror(directory)
        assert time.monotonic() - began < 15
        with tracking_server(tmp_path, port) as address:
            train(directory, 1, range(1, 4))
            mirror(directory)
            finish(directory)
            mirror(directory)
            assert curves(shown(address, "outage")[directory.path.name]) == logged(directory)
    console.file.flush()
    down, up = (tmp_path / "said.txt").read_text().splitlines()
    assert "is not up to date" in down
    assert "is up to date again" in up


def test_wrong_credentials_are_told_in_one_line(database: postgres.Server, tmp_path: Path) -> None:
    finished(tmp_path / "runs")
    for wrong in (
        database.url.rpartition("/")[0] + "/no-such-database",
        f"postgresql://stranger:hidden@127.0.0.1:{database.port}/molgraft",
    ):
        with pytest.raises(UserError, match="MLflow at") as caught:
            synchronise(runtime_of(tmp_path / "runs", wrong))
        assert len(str(caught.value).splitlines()) == 1
        assert "does not exist" in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_a_real_run_from_nothing_is_what_it_was_live(
    server: str, tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    runs = tmp_path / "runs"
    chosen = [word for setting in QUICK for word in ("--set", setting)]
    command = ["run", "demo", *chosen, "--runs", str(runs), "--tracking", server, "--quiet", "--threads", "1"]
    assert _status(command) == 0
    (directory,) = (RunDirectory(path.parent) for path in runs.glob("*/lock"))
    run = shown(server, "demo")[directory.path.name]
    for position, stage in enumerate(STAGES):
        rows = read_jsonl(directory.stage(position, stage) / "metrics.jsonl")
        times = {row["step"]: row["time"] for row in read_jsonl(directory.stage(position, stage) / "steps.jsonl")}
        expected = [(row["step"], row["loss"], int(times[row["step"]] * 1000)) for row in rows if "loss" in row]
        assert run["points"][f"{stage}/loss"] == expected
    assert _status(["sync", "--runs", str(runs), "--quiet"]) == 0
    again = shown(f"sqlite:///{runs / 'mlflow.db'}", "demo")
    assert again == shown(server, "demo")
