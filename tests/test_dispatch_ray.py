"""Studies on a Ray cluster of several machines, here all on one: a machine is lost and its runs go on elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from bench.dispatch.base import Options
from bench.dispatch.start import run_plan
from bench.errors import UserError
from bench.plan import Plan, plan_study
from bench.registry import PLUGINS_VARIABLE
from bench.runtime import Runtime
from bench.study import load_study

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

STUDY = """
name: machines
extends: demo
seeds: [0]
cells:
  linear: {}
  mine: {projector: mine}
  shuffled: {graph_input: {train: {name: shuffled, match_size: false}}}
"""
PLUGIN = """
from dataclasses import dataclass
from projectors.linear import Linear

@dataclass(frozen=True, kw_only=True)
class Mine(Linear):
    '''A linear map of one's own.'''
    name = "mine"
"""
SETTINGS = (
    *QUICK,
    "stages.align.steps=40",
    "stages.align.checkpoint_every=4",
    "stages.align.validate_every=20",
)


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugins))
    monkeypatch.delenv("MOLGRAFT_DATA", raising=False)
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    return Runtime(runs=tmp_path / "runs", device="cpu", threads=1, tracking="none", offline=True, progress=False)


@pytest.fixture
def plan(runtime: Runtime, tmp_path: Path) -> Plan:
    file = tmp_path / "machines.yaml"
    file.write_text(STUDY)
    study, cells = load_study(str(file), SETTINGS, runtime)
    return plan_study(study, cells, runtime)


@pytest.fixture
def cluster(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one core each; the head has none, for it is not to be lost. Their environment is the test's."""
    from ray.cluster_utils import Cluster

    for name, value in {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}.items():
        monkeypatch.setenv(name, value)
    small = {"object_store_memory": 100 << 20}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        found.machines = [found.add_node(num_cpus=1, **small) for _ in range(2)]
        yield found
    finally:
        ray.shutdown()
        found.shutdown()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcomes(runs: Path) -> dict[str, str]:
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    found = [path for pattern in patterns for path in runs.glob(f"*/{pattern}")]
    return {str(path.relative_to(runs)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


class LosesAMachine(threading.Thread):
    """Takes a machine from the cluster once a run has trained for a while on it."""

    def __init__(self, cluster: Any, runs: Path) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._runs = runs
        self.reached = 0
        self.stage = Path()

    def run(self) -> None:
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline:
            for file in self._runs.glob("*/stages/0-align/steps.jsonl"):
                done = rows(file)
                if 8 <= len(done) < 30:
                    self.stage, self.reached = file, done[-1]["step"]
                    self._cluster.remove_node(self._machine_of(done[-1]["pid"]), allow_graceful=False)
                    return
            time.sleep(0.01)

    def _machine_of(self, pid: int) -> Any:
        """The machine whose processes a worker is one of."""
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for machine in self._cluster.machines:
            processes = (info.process.pid for infos in machine.all_processes.values() for info in infos)
            if parent in processes:
                return machine
        raise AssertionError(f"{pid} is a process of no machine")


def test_a_machine_that_is_lost_takes_no_run_with_it(
    cluster: Any, plan: Plan, runtime: Runtime, tmp_path: Path
) -> None:
    loses = LosesAMachine(cluster, runtime.runs)
    loses.start()
    outcome = run_plan(plan, runtime, Options(engine="ray", workers=0, address=cluster.address))
    assert outcome.complete, outcome
    assert len(outcome.done) == 3
    assert loses.reached >= 8
    done = rows(loses.stage)
    sessions: dict[int, list[int]] = {}
    for row in done:
        sessions.setdefault(row["pid"], []).append(row["step"])
    first, second = sessions.values()
    assert first[0] == 1
    assert first[-1] - 4 <= second[0] - 1 <= first[-1], "it went on from the last checkpoint"
    assert second[-1] == 40
    for stage in runtime.runs.glob("*/stages/*/steps.jsonl"):
        if stage != loses.stage:
            steps = [row["step"] for row in rows(stage)]
            assert steps.count(1) == 1, f"{stage} was begun twice"
    assert os.getpid() not in {
        row["pid"] for stage in runtime.runs.glob("*/stages/*/steps.jsonl") for row in rows(stage)
    }
    alone = Runtime(runs=tmp_path / "alone", device="cpu", threads=1, tracking="none", offline=True, progress=False)
    assert run_plan(plan, alone).complete
    assert outcomes(runtime.runs) == outcomes(alone.runs)


def test_no_cluster_at_an_address_is_refused(plan: Plan, runtime: Runtime) -> None:
    with pytest.raises(UserError, match=r"--address 127\.0\.0\.1:1"):
        run_plan(plan, runtime, Options(engine="ray", workers=0, address="127.0.0.1:1"))


def test_without_ray_it_is_said_how_to_install_it(
    plan: Plan, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'molgraft\[ray\]'"):
        run_plan(plan, runtime, Options(engine="ray", workers=0))


def test_ray_is_imported_only_when_it_is_asked_for() -> None:
    code = "import sys, bench.dispatch.start, bench.dispatch.worker, bench.dispatch.local; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
