"""Watchers of training: what they are told, and how they end it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY

from bench.checkpoints import find_resumable
from bench.config import RunConfig
from bench.errors import StoppedEarlyError
from bench.experiment import run
from bench.preset import load_config
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.session import Validated

# Two processes share a batch; dropout, so that a random state which is lost on the way shows.
_SETTINGS = ("encoder.dropout=0.1", "stages.tune.keep=best")

_LED = """
import sys
from pathlib import Path

from bench.distributed import ended_together, started
from bench.errors import StoppedEarlyError
from bench.experiment import follow, run
from bench.preset import load_config
from bench.runtime import Runtime

folder, *settings = sys.argv[1:]
group = started()
runtime = Runtime(runs=Path(folder), progress=False, tracking="none", device="cpu", threads=1, processes=group)
config = load_config("demo", settings)

def watch(validated):
    print(f"told {group.rank} {validated.stage} {validated.step}", flush=True)
    if (validated.stage, validated.step) == ("tune", 3):
        raise StoppedEarlyError("worse than the median")

with ended_together(group):
    group.join()
    try:
        run(config, runtime, watch=watch) if group.leads else follow(config, runtime)
    except StoppedEarlyError as error:
        print(f"stopped {group.rank}: {error}", flush=True)
"""


class Watcher:
    """Remembers what it was told, and ends training at a step of the run's own count."""

    def __init__(self, ends_at: int | None = None) -> None:
        self.told: list[Validated] = []
        self._ends_at = ends_at

    def __call__(self, validated: Validated) -> None:
        self.told.append(validated)
        if self._ends_at is not None and validated.steps_before + validated.step >= self._ends_at:
            raise StoppedEarlyError(f"loss {validated.loss:.3f} is no good")

    @property
    def steps(self) -> list[tuple[str, int, int, int]]:
        return [(v.stage, v.position, v.step, v.steps_before) for v in self.told]


EVERY = [(s, k, step, 6 * k) for k, s in enumerate(("align", "tune")) for step in (0, 3, 6)]


def config(*settings: str) -> RunConfig:
    return load_config("demo", [*QUICK, *_SETTINGS, *settings])


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")


@pytest.fixture(scope="module")
def unwatched(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    runs = tmp_path_factory.mktemp("unwatched")
    watcher = Watcher()
    runtime = Runtime(runs=runs, cache=session_cache, progress=False, tracking="none", device="cpu")
    found = run(config(), runtime, watch=watcher).run.path
    assert watcher.steps == EVERY
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome_of(run: Path) -> dict[str, str]:
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    files = [path for pattern in patterns for path in sorted(run.glob(pattern))]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def only_run(runs: Path) -> Path:
    (found,) = (path.parent for path in runs.glob("*/lock"))
    return found


def test_a_watcher_is_told_what_is_written_down(runtime: Runtime) -> None:
    watcher = Watcher()
    found = run(config(), runtime, watch=watcher).run.path
    for position, stage in enumerate(("align", "tune")):
        log = rows(found / f"stages/{position}-{stage}" / "metrics.jsonl")
        written = {row["step"]: row["validation_loss"] for row in log if "validation_loss" in row}
        assert {v.step: v.loss for v in watcher.told if v.stage == stage} == written
    again = Watcher()
    run(config(), runtime, watch=again)
    assert again.told == [], "a run that is done has nothing new to tell"


@pytest.mark.parametrize("ends_at", [0, 3, 6, 9, 12])
def test_a_training_that_a_watcher_ends_goes_on_from_there(ends_at: int, runtime: Runtime, unwatched: Path) -> None:
    watcher = Watcher(ends_at)
    with pytest.raises(StoppedEarlyError, match="is no good"):
        run(config(), runtime, watch=watcher)
    assert watcher.steps == EVERY[: len(watcher.steps)]
    assert watcher.told[-1].steps_before + watcher.told[-1].step == ends_at
    found = RunDirectory(only_run(runtime.runs))
    status = found.status()
    assert (status.state, status.phase, status.error) == ("interrupted", "stopped early", None)
    assert status.message is not None
    assert "is no good" in status.message
    last = watcher.told[-1]
    stage = found.stage(last.position, last.stage)
    kept = find_resumable(stage / "checkpoints")
    assert (kept.name if kept else "checkpoint-0") == f"checkpoint-{last.step}", "no step that was done is lost"
    patient = Watcher()
    run(config(), runtime, watch=patient)
    assert patient.steps == EVERY[len(watcher.steps) :], "what an earlier session told is not told again"
    assert outcome_of(found.path) == outcome_of(unwatched)
    for position, name in enumerate(("align", "tune")):
        done = [row["step"] for row in rows(found.stage(position, name) / "steps.jsonl")]
        assert done == [1, 2, 3, 4, 5, 6]


def test_a_validation_that_is_passed_twice_is_told_once(runtime: Runtime, unwatched: Path) -> None:
    class Killed(BaseException):
        pass

    def dies(validated: Validated) -> None:
        told.append((validated.stage, validated.step))
        if (validated.stage, validated.step) == ("align", 3):
            raise StoppedEarlyError("enough")

    told: list[tuple[str, int]] = []
    with pytest.raises(StoppedEarlyError):
        run(config(), runtime, watch=dies)
    (checkpoint,) = (only_run(runtime.runs) / "stages/0-align/checkpoints").glob("checkpoint-3")
    (checkpoint / "trainer_state.json").unlink()  # so that training goes on from step 2
    later = Watcher()
    run(config(), runtime, watch=later)
    steps = [row["step"] for row in rows(only_run(runtime.runs) / "stages/0-align/steps.jsonl")]
    assert steps == [1, 2, 3, 3, 4, 5, 6]
    assert (told, later.steps) == ([("align", 0), ("align", 3)], EVERY[2:])
    assert outcome_of(only_run(runtime.runs)) == outcome_of(unwatched)


def test_a_stage_that_is_taken_from_another_run_is_not_told_of(runtime: Runtime) -> None:
    run(config(), runtime)
    watcher = Watcher()
    run(config("stages.tune.optimiser.lr=5e-4", "name=other"), runtime, watch=watcher)
    assert watcher.steps == EVERY[3:]


def test_of_several_processes_the_leader_watches_and_all_end_at_the_same_step(
    tmp_path: Path, session_cache: Path
) -> None:
    runs, script = tmp_path / "runs", tmp_path / "led.py"
    script.write_text(_LED)
    settings = [*QUICK, "stages.align.trains={projector: full}", "stages.tune.trains={projector: full, llm: lora}"]
    environment = {**os.environ, "MOLGRAFT_CACHE": str(session_cache), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("MOLGRAFT_DATA", None)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    begun = time.monotonic()
    done = subprocess.run(
        [*launcher, str(script), str(runs), *settings],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert time.monotonic() - begun < 300
    told = [line for line in done.stdout.splitlines() if line.startswith("told")]
    assert told == [f"told 0 {stage} {step}" for stage, step in (("align", 0), ("align", 3), ("align", 6))] + [
        "told 0 tune 0",
        "told 0 tune 3",
    ]
    stopped = sorted(line for line in done.stdout.splitlines() if line.startswith("stopped"))
    assert stopped == ["stopped 0: worse than the median", "stopped 1: worse than the median"]
    found = RunDirectory(only_run(runs))
    assert (found.status().state, found.status().phase) == ("interrupted", "stopped early")
    kept = find_resumable(found.stage(1, "tune") / "checkpoints")
    assert kept is not None
    assert kept.name == "checkpoint-3"
