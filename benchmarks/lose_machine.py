"""A study on a Ray cluster of two machines, one of which is lost midway; or as SLURM jobs, one of which is pre-empted.

    python -m benchmarks.lose_machine --engine ray|slurm [--study smoke-matrix] [--undisturbed RUNS]

Both are had on this machine alone: by `ray.cluster_utils`, and by submitit's local executor. It ends with 1 unless all
runs are done and come to the bits of the same study that nobody disturbed, which is run first where none is given.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.undisturbed import Findings, all_done, carried_out, equal_outcomes, options_of, rows_of, run_undisturbed

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_MIDWAY = 0.4  # of the runs that are done when the machine is lost
_SMALL = {"object_store_memory": 100 << 20}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the study, takes the machine away, and says what came of it."""
    parser = options_of(__doc__)
    parser.add_argument("--engine", choices=("ray", "slurm"), required=True)
    parser.add_argument("--undisturbed", type=Path, help="runs of the same study, of the same checkout")
    return carried_out(parser.parse_args(arguments), _compare)


def _compare(given: argparse.Namespace, folder: Path) -> Findings:
    undisturbed, runs = given.undisturbed or folder / "undisturbed", folder / given.engine
    if given.undisturbed is None:
        run_undisturbed(given.study, undisturbed)

    from bench.plan import plan_study
    from bench.runtime import Runtime
    from bench.study import load_study

    runtime = Runtime(runs=runs, device="cpu", threads=1, tracking="none", offline=True, progress=False)
    study, cells = load_study(given.study, (), runtime)
    plan = plan_study(study, cells, runtime)
    print(f"{given.study} by {given.engine}: {len(plan.runs)} runs", flush=True)
    began = time.monotonic()
    told = {"ray": _on_ray, "slurm": _on_slurm}[given.engine](plan, runtime)
    print(f"  {time.monotonic() - began:.0f} s")
    lost = (told or "nothing was lost", bool(told))
    return dict([lost, *all_done(runs, len(plan.runs)), *equal_outcomes(undisturbed, runs)])


def _on_ray(plan: Plan, runtime: Runtime) -> str:
    """Two machines of one core beside a head that has none; what was lost, in words."""
    import ray
    from ray.cluster_utils import Cluster

    from bench.dispatch.base import Options
    from bench.dispatch.start import run_plan

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **_SMALL})
    told: list[str] = []
    try:
        machines = [cluster.add_node(num_cpus=1, **_SMALL) for _ in range(2)]

        def lose(done: int, at_work: Sequence[str]) -> bool:
            cluster.remove_node(machines[0], allow_graceful=False)
            told.append(f"a machine was lost when {done} runs were done and {', '.join(at_work)} were at work")
            return True

        _Watch(runtime.runs, len(plan.runs), lose).start()
        run_plan(plan, runtime, Options(engine="ray", workers=0, address=cluster.address))
    finally:
        ray.shutdown()
        cluster.shutdown()
    return "".join(told)


def _on_slurm(plan: Plan, runtime: Runtime) -> str:
    """Two jobs, one of which is warned as SLURM warns before it pre-empts; what was, in words."""
    from bench.dispatch.base import Options
    from bench.dispatch.start import run_plan

    told: list[str] = []

    def preempt(done: int, at_work: Sequence[str]) -> bool:
        logs = [runtime.runs / name / "stages" for name in at_work]
        pids = [row["pid"] for stages in logs for log in stages.glob("*/steps.jsonl") for row in rows_of(log)[-1:]]
        for pid in pids[-1:]:
            os.kill(pid, signal.SIGUSR2)
            told.append(f"a job was pre-empted when {done} runs were done and {', '.join(at_work)} were at work")
        return bool(told)

    _Watch(runtime.runs, len(plan.runs), preempt).start()
    run_plan(plan, runtime, Options(engine="slurm", workers=2, slurm={"cluster": "local", "timeout_min": 30}))
    return "".join(told)


class _Watch(threading.Thread):
    """Waits until a part of the runs is done and others train, and then does something that must succeed once."""

    def __init__(self, runs: Path, count: int, then: Callable[[int, Sequence[str]], bool]) -> None:
        super().__init__(daemon=True)
        self._runs = runs
        self._count = count
        self._then = then

    def run(self) -> None:
        while True:
            states = {path.parent.name: _state(path) for path in self._runs.glob("*/status.json")}
            done = sum(state.get("state") == "done" for state in states.values())
            at_work = [name for name, state in states.items() if str(state.get("phase")).startswith("stage")]
            at_work = [name for name in at_work if states[name]["state"] == "running"]
            if done >= _MIDWAY * self._count and at_work and self._then(done, at_work):
                return
            time.sleep(0.05)


def _state(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    sys.exit(main())
