"""Studies as jobs of submitit, by its executor that runs jobs on this machine as SLURM would."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from bench.dispatch.base import Options
from bench.dispatch.start import run_plan
from bench.errors import UserError
from bench.plan import Plan, plan_study
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.study import load_study

STUDY = "name: jobs\nextends: demo\nseeds: [0]\ncells:\n  linear: {}\n  mlp: {projector: mlp}\n"
STEPS = ("stages.align.steps=30", "stages.align.validate_every=15", "stages.align.checkpoint_every=15")
LOCAL = {"cluster": "local", "timeout_min": 10}


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.delenv("MOLGRAFT_DATA", raising=False)
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    return Runtime(runs=tmp_path / "runs", device="cpu", threads=1, tracking="none", offline=True, progress=False)


@pytest.fixture
def plan(runtime: Runtime, tmp_path: Path) -> Plan:
    file = tmp_path / "jobs.yaml"
    file.write_text(STUDY)
    study, cells = load_study(str(file), (*QUICK, *STEPS), runtime)
    return plan_study(study, cells, runtime)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Preempted(threading.Thread):
    """Warns the first job that trains, as SLURM does before its time is over."""

    def __init__(self, runs: Path) -> None:
        super().__init__(daemon=True)
        self._runs = runs
        self.pid = 0
        self.steps = 0

    def run(self) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            for file in self._runs.glob("*/stages/0-align/steps.jsonl"):
                done = rows(file)
                if len(done) >= 3:
                    self.pid = done[-1]["pid"]
                    os.kill(self.pid, signal.SIGUSR2)
                    return
            time.sleep(0.01)


def test_a_job_that_is_warned_writes_a_checkpoint_and_is_queued_again(plan: Plan, runtime: Runtime) -> None:
    preempted = Preempted(runtime.runs)
    preempted.start()
    outcome = run_plan(plan, runtime, Options(engine="slurm", workers=1, slurm=LOCAL))
    assert outcome.complete, outcome
    assert [run.cell for run in outcome.done] == ["linear", "mlp"]
    assert preempted.pid
    (stage,) = (f for f in runtime.runs.glob("linear-*/stages/0-align/steps.jsonl"))
    done = rows(stage)
    assert [row["step"] for row in done] == list(range(1, 31)), "no step was done twice: the checkpoint was at the last"
    assert len({row["pid"] for row in done}) == 2
    (logs,) = runtime.runs.glob(".studies/jobs/workers/*/jobs")
    said = "".join(file.read_text(errors="replace") for file in logs.glob("*.out"))
    assert "Requeued job" in said


def test_jobs_that_nobody_waits_for_are_done_by_themselves(plan: Plan, runtime: Runtime) -> None:
    outcome = run_plan(plan, runtime, Options(engine="slurm", workers=1, slurm=LOCAL, detach=True))
    assert outcome.detached
    assert len(outcome.missing) == 2
    deadline = time.monotonic() + 300
    while len(list(runtime.runs.glob("*/result.json"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    again = run_plan(plan, runtime, Options())  # waits for the job's last words
    assert again.complete
    assert {RunDirectory(folder).status().state for folder in again.folders} == {"done"}
    for folder in again.folders:
        for stage in folder.glob("stages/*/steps.jsonl"):
            assert os.getpid() not in {row["pid"] for row in rows(stage)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "gpu"}, "timeout_min=MINUTES is missing"),
        ({"timeout_min": 5}, "srun"),
        ({**LOCAL, "cluster": "cloud"}, "cloud"),
        ({**LOCAL, "partitoin": "gpu"}, "partitoin"),
        ({**LOCAL, "timeout_min": "long"}, "timeout_min"),
    ],
)
def test_settings_that_submitit_does_not_know_are_refused(
    settings: dict[str, Any], message: str, plan: Plan, runtime: Runtime
) -> None:
    with pytest.raises(UserError, match=message):
        run_plan(plan, runtime, Options(engine="slurm", slurm=settings))
