"""A training stage that several runs have in common is trained by one of them, whatever happens to that one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from test_resume import LONG, Molgraft, Process, newest_checkpoint, outcome_of, rows, run_of

from bench.run_store import RunDirectory
from bench.session import Silent
from bench.stage_turns import is_taken, turn

# Differ in what comes after the stage that they have in common, which is long enough to be stopped in.
COMMON = (*LONG, "stages.align.steps=120", "stages.align.checkpoint_every=10", "stages.tune.steps=12")
FIRST = ("name=first", *COMMON)
SECOND = ("name=second", *COMMON, "stages.tune.optimiser={lr: 3e-3}")


@pytest.fixture(scope="module")
def molgraft(session_cache: Path) -> Iterator[Molgraft]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MOLGRAFT_")}
    started = Molgraft({**kept, "MOLGRAFT_CACHE": str(session_cache)})
    yield started
    started.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, molgraft: Molgraft) -> dict[str, Path]:
    """Both runs, each in a folder of its own, where it has nobody to share with."""
    found = {}
    for name, settings in (("first", FIRST), ("second", SECOND)):
        runs = tmp_path_factory.mktemp(name)
        process = molgraft.start(run_of(runs, *settings), runs / "said.txt")
        assert process.wait() == 0, process.said
        found[name] = run_named(runs, name)
    return found


def run_named(runs: Path, name: str) -> Path:
    (found,) = runs.glob(f"{name}-s0-*")
    return found


def await_that(holds: Callable[[], bool], *processes: Process) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, [process.said for process in processes]
        time.sleep(0.01)


def stopped_in_align(molgraft: Molgraft, runs: Path) -> tuple[Process, Path]:
    """The first run, stopped in the midst of the common stage, with a checkpoint."""
    process = molgraft.start(run_of(runs, *FIRST), runs / "first.txt")
    await_that(lambda: any(newest_checkpoint(path) >= 10 for path in runs.glob("first-*/stages/0-align")), process)
    os.kill(process.pid, signal.SIGSTOP)
    run = run_named(runs, "first")
    assert not (run / "stages/0-align/stage.json").exists()
    return process, run


def waiting_second(molgraft: Molgraft, runs: Path, first: Process) -> tuple[Process, Path]:
    """The second run, waiting for the first."""
    process = molgraft.start(run_of(runs, *SECOND), runs / "second.txt")

    def waits() -> bool:
        status = next(iter(runs.glob("second-*/status.json")), None)
        return status is not None and "waiting" in json.loads(status.read_text())["phase"]

    await_that(waits, process)
    run = run_named(runs, "second")
    holder = run_named(runs, "first").name
    status = RunDirectory(run).status()
    assert status.state == "running"
    assert f"waiting for stage align, which process {first.pid} on " in status.phase
    assert status.phase.endswith(f" trains for {holder}")
    assert is_taken(runs, stage_id_of(run, 0))
    assert not is_taken(runs, stage_id_of(run, 1))
    return process, run


def stage_id_of(run: Path, position: int) -> str:
    return str(json.loads((run / "manifest.json").read_text())["stage_ids"][position])


def pids(run: Path, stage: str) -> list[int]:
    return [row["pid"] for row in rows(run / "stages" / stage / "steps.jsonl")]


def test_of_two_processes_one_trains_a_common_stage_and_the_other_takes_it(
    molgraft: Molgraft, tmp_path: Path, alone: dict[str, Path]
) -> None:
    first, run = stopped_in_align(molgraft, tmp_path)
    second, other = waiting_second(molgraft, tmp_path, first)
    os.kill(first.pid, signal.SIGCONT)
    assert [first.wait(), second.wait()] == [0, 0], (first.said, second.said)
    assert pids(run, "0-align") == pids(other, "0-align") == [first.pid] * 120
    assert pids(other, "1-tune") == [second.pid] * 12
    assert f"stage align: taken from {run}/stages/0-align" in (other / "log.txt").read_text()
    assert [outcome_of(run), outcome_of(other)] == [outcome_of(alone["first"]), outcome_of(alone["second"])]
    assert not is_taken(tmp_path, stage_id_of(run, 0))


def test_who_waits_goes_on_from_the_last_checkpoint_of_one_that_is_killed(
    molgraft: Molgraft, tmp_path: Path, alone: dict[str, Path]
) -> None:
    first, run = stopped_in_align(molgraft, tmp_path)
    second, other = waiting_second(molgraft, tmp_path, first)
    reached = newest_checkpoint(run / "stages/0-align")
    os.kill(first.pid, signal.SIGKILL)
    assert second.wait() == 0, second.said
    assert first.wait() == -signal.SIGKILL
    by = {row["step"]: row["pid"] for row in rows(other / "stages/0-align/steps.jsonl")}
    assert [by[step] for step in range(1, 121)] == [first.pid] * reached + [second.pid] * (120 - reached)
    assert f"checkpoint-{reached}" in (other / "log.txt").read_text()
    assert outcome_of(other) == outcome_of(alone["second"])

    again = molgraft.start(run_of(tmp_path, *FIRST), tmp_path / "again.txt")  # it takes what was finished meanwhile
    assert again.wait() == 0, again.said
    assert again.pid not in pids(run, "0-align")
    assert not (run / "stages/0-align/checkpoints").exists()
    assert outcome_of(run) == outcome_of(alone["first"])


def test_a_turn_says_whose_it_was_before_and_ends_with_its_block(tmp_path: Path) -> None:
    log = Silent(RunDirectory(tmp_path / "run"))
    assert not is_taken(tmp_path, "abc")
    with turn(tmp_path, "abc", log, stage="align", run="run-a") as before:
        assert before == ""
        assert is_taken(tmp_path, "abc")
        assert not is_taken(tmp_path, "other")
    assert not is_taken(tmp_path, "abc")
    with pytest.raises(KeyError, match="in a stage"):
        _fail_in(turn(tmp_path, "abc", log, run="run-b"), expected="run-a")
    assert not is_taken(tmp_path, "abc")


def _fail_in(held: AbstractContextManager[str], expected: str) -> None:
    with held as before:
        assert before == expected
        raise KeyError("what went wrong in a stage")
