"""Searches whose workers and parents are killed: no trial is lost, none is run twice, and the first is the preset."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import psutil
import pytest
import yaml
from conftest import REPOSITORY
from test_search_runs import CHEAP, LR

from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.search import Definition, load_search, run_search
from bench.search.outcome import TrialRow, rows_of
from bench.search.storage import SearchFolder, open_storage, open_study

_SPACE = {LR: {"low": 1e-4, "high": 1e-2, "log": True}, "llm.lora.r": {"low": 2, "high": 16}}
_START = (
    "import sys\n"
    "from bench.command_search import search\n"
    "import typer\n"
    "app = typer.Typer()\n"
    "app.command()(search)\n"
    "app(args=sys.argv[1:])\n"
)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    postgres.needed()
    with postgres.running() as started:
        yield started


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    if request.param == "journal":
        return None
    started: postgres.Server = request.getfixturevalue("server")
    return started.database("kills")


class Search:
    """A search that is started as a command, in processes of its own.

    Args:
        folder: for its file, its runs and what it says.
        cache: of small language models.
        storage: of its trials; None for the journal.
        trials, workers: how many.
    """

    def __init__(self, folder: Path, cache: Path, storage: str | None, trials: int, workers: int) -> None:
        self.file, self.runs, self.said = folder / "mine.yaml", folder / "runs", folder / "said.txt"
        search = {
            "name": "mine",
            "extends": "demo",
            "space": _SPACE,
            "trials": trials,
            "sampler": {"name": "tpe", "options": {"n_startup_trials": 5}},
            "pruner": {"name": "median", "options": {"n_startup_trials": 4}},
        }
        self.file.write_text(yaml.safe_dump(search))
        self.definition: Definition = load_search(str(self.file), CHEAP)
        self._storage = storage
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MOLGRAFT_")}
        self._environment = {**kept, "MOLGRAFT_CACHE": str(cache), "PYTHONPATH": str(REPOSITORY)}
        chosen = [word for setting in CHEAP for word in ("--set", setting)]
        where = ["--storage", storage] if storage else []
        rest = ["--runs", str(self.runs), "--tracking", "none", "--quiet", "--workers", str(workers), "--threads", "1"]
        self._command = [sys.executable, "-c", _START, str(self.file), *chosen, *where, *rest]

        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            process.kill()
            process.wait(60)

    def start(self) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as output:
            process = subprocess.Popen(
                self._command, env=self._environment, cwd=REPOSITORY, stdout=output, stderr=output
            )
        self._started.append(process)
        return process

    def rows(self) -> list[TrialRow]:
        folder = SearchFolder(self.runs, "mine")
        if not (folder.path / "id").exists():
            return []
        opened = open_storage(self._storage, folder)
        return rows_of(open_study(self.definition, opened, folder), self.definition)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a search that runs."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie, as one is whose parent was killed until the system's first takes it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    def is_so() -> bool:
        assert process.poll() is None, said.read_text()
        return reached()

    wait_until(is_so)


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not reached():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for worker processes as Linux's ps does")
def test_a_search_whose_workers_and_parent_are_killed(storage: str | None, tmp_path: Path, session_cache: Path) -> None:
    drawn = random.Random(0)
    with Search(tmp_path, session_cache, storage, trials=8, workers=2) as search:
        process = search.start()
        wait_for(lambda: any(row.state == "complete" for row in search.rows()), process, search.said)
        wait_for(lambda: any(row.state == "running" for row in search.rows()), process, search.said)
        os.kill(drawn.choice(workers_of(process.pid)), signal.SIGKILL)
        time.sleep(drawn.uniform(0, 3))

        orphans = workers_of(process.pid)
        process.kill()  # and its workers end by themselves
        process.wait(60)
        wait_until(lambda: not any(is_alive(pid) for pid in orphans))
        begun = search.rows()

        process = search.start()
        assert process.wait(420) == 0, search.said.read_text()
        rows = search.rows()
    check_whole(search, rows, 8)
    left = [row.number for row in begun if row.state == "running"]
    assert all(rows[number].values == begun[number].values for number in left)
    assert all(rows[number].sessions > 1 for number in left), "others went on with them"


def check_whole(search: Search, rows: list[TrialRow], trials: int) -> None:
    """Every trial is there once and ended, the first is the preset, and no step of training was done for nothing."""
    assert [row.number for row in rows] == list(range(trials))
    assert {row.state for row in rows} <= {"complete", "pruned"}, [row.note for row in rows]
    assert rows[0].values == search.definition.preset_values
    owners = Counter(name for row in rows for name in row.runs if row.same_as is None)
    assert set(owners.values()) == {1}
    assert {path.name for path in search.runs.glob("mine-*")} == set(owners)
    for name in owners:
        status = RunDirectory(search.runs / name).status()
        assert (status.state, status.phase) in {("done", "done"), ("interrupted", "stopped early")}
        for file in (search.runs / name).glob("stages/*/steps.jsonl"):
            steps: dict[int, list[int]] = {}
            for line in file.read_text().splitlines():
                row = json.loads(line)
                steps.setdefault(row["pid"], []).append(row["step"])
            for done in steps.values():  # a process goes on from the last checkpoint and never begins anew
                assert done == list(range(done[0], done[-1] + 1))
            firsts = [done[0] for done in steps.values()]
            assert firsts == sorted(firsts)
    described = json.loads((search.runs / ".searches/mine/search.json").read_text())
    assert described["complete"]
    assert "secret" not in json.dumps(described)
    assert len(described["tested"]) == 1


def test_a_worker_that_was_killed_comes_to_the_same_figures(tmp_path: Path, session_cache: Path) -> None:
    """One worker draws from the same past whether it was killed or not, and trains to the same bits."""
    with Search(tmp_path, session_cache, None, trials=4, workers=1) as search:
        runtime = Runtime(runs=tmp_path / "one", cache=session_cache, threads=1, tracking="none", progress=False)
        expected = run_search(search.definition, runtime).rows
        process = search.start()
        wait_for(lambda: len(search.rows()) >= 2, process, search.said)
        process.kill()
        process.wait(60)
        killed = search.rows()
        process = search.start()
        assert process.wait(300) == 0, search.said.read_text()
        found = search.rows()
    assert any(row.state == "running" for row in killed)
    assert [(row.values, row.figures, row.state) for row in found] == [
        (row.values, row.figures, row.state) for row in expected
    ]
