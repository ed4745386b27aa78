"""Runs as Ray tasks, one each, on the machines of a Ray cluster; the only file that imports ray.

Ray chooses machines, counts cores and GPUs, and notices machines that are lost. What is done of a run lies in its
directory, so a task that is lost is given to Ray again and goes on from the last checkpoint.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
from bench.dispatch.assignment import Assignment, with_threads
from bench.dispatch.base import Options, Strikes, next_stage
from bench.errors import UserError
from bench.registry import PLUGINS_VARIABLE
from bench.study_states import run_folders

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_OBJECT_STORE = 100 << 20  # bytes of shared memory; tasks hand over a file name and a number
_LOOK = 1.0  # seconds between looks at the study while tasks run
_PATIENCE = 30.0  # seconds that a task waits for who holds its run: a dead machine's locks are not free at once
_PAUSE = 1.0  # seconds before a run is offered again that others held


def run_on_ray(
    plan: Plan, assignment: Assignment, runtime: Runtime, options: Options, refresh: Callable[[], None]
) -> str | None:
    """Works until nothing is left that could be done.

    Returns:
        What the disk said, where it ended the study.

    Raises:
        UserError: ray is not installed, there is no cluster at the address, or its machines do not share the folder.
        KeyboardInterrupt: by Ctrl-C, once the tasks were told to write checkpoints and end.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray: ray is not installed; pip install 'molgraft[ray]'") from None
    cpus = options.cpus_per_run or 1
    assignment = with_threads(assignment, assignment.settings.get("threads") or cpus)
    assignment.write()
    with _joined(ray, options, assignment, runtime):
        gpus = options.gpus_per_run
        if gpus is None:
            gpus = 1.0 if runtime.device == "cuda" else 0.0
        if not any(_has(node, cpus, gpus) for node in ray.nodes()):  # Ray would say nothing, and wait
            what = f"{cpus} cores and {gpus:g} GPUs" if gpus else f"{cpus} cores"
            runtime.say(f"Ray: no machine has {what}, which each run is to get; all wait until one that has joins")
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_task)
        return _Tasks(ray, task, plan, assignment, runtime, options.workers, refresh).run()


def _has(node: Mapping[str, Any], cpus: int, gpus: float) -> bool:
    found = node["Resources"]
    return bool(node["Alive"]) and found.get("CPU", 0) >= cpus and found.get("GPU", 0) >= gpus


class _Tasks:
    """The runs of a plan as tasks: given to Ray, watched, and given to it again when they are lost."""

    def __init__(
        self,
        ray: Any,
        task: Any,
        plan: Plan,
        assignment: Assignment,
        runtime: Runtime,
        most: int,
        refresh: Callable[[], None],
    ) -> None:
        self._ray = ray
        self._task = task
        self._plan = plan
        self._assignment = assignment
        self._runtime = runtime
        self._most = most
        self._refresh = refresh
        self._strikes = Strikes(runtime)
        self._waiting = dict.fromkeys(assignment.positions, 0.0)  # position -> when it may be offered
        self._given: dict[Any, int] = {}

    def run(self) -> str | None:
        """Works until nothing is left; what the disk said, where it ended the study."""
        try:
            while self._waiting or self._given:
                self._give()
                ready, _ = self._ray.wait(list(self._given), timeout=_LOOK) if self._given else ([], [])
                for reference in ready:
                    disk = self._ended(reference, self._given.pop(reference))
                    if disk is not None:
                        return disk
                if not self._given:
                    time.sleep(_PAUSE)
                self._refresh()
            return None
        finally:
            for reference in self._given:  # SIGINT to the task, which its run takes as it takes Ctrl-C
                self._ray.cancel(reference)
            if self._given:
                self._ray.wait(list(self._given), num_returns=len(self._given), timeout=60)

    def _give(self) -> None:
        """Gives Ray what is ready: of runs that have their next stage in common, one at a time."""
        if not self._waiting:
            return
        folders = run_folders(self._runtime.runs)  # once: a cluster's folder may hold thousands
        stages = {self._next_stage(position, folders) for position in self._given.values()}
        for position, since in tuple(self._waiting.items()):
            if time.monotonic() < since or (self._most and len(self._given) >= self._most):
                continue
            stage = self._next_stage(position, folders)
            if stage is not None and stage in stages:
                continue
            stages.add(stage)
            del self._waiting[position]
            self._given[self._task.remote(str(self._assignment.file), position)] = position

    def _next_stage(self, position: int, folders: Mapping[str, Path]) -> str | None:
        planned = self._plan.runs[position]
        return next_stage(planned, folders.get(planned.train_id))

    def _ended(self, reference: Any, position: int) -> str | None:
        """Takes note of a task's end; what the disk said, where nothing can be written any more."""
        exceptions = self._ray.exceptions
        planned = self._plan.runs[position]
        try:
            answer: Mapping[str, Any] = self._ray.get(reference)
        except (exceptions.WorkerCrashedError, exceptions.OutOfMemoryError) as error:
            how = str(error).splitlines()[0]
            if not self._strikes.died(planned, how):
                self._waiting[position] = 0.0
            self._runtime.say(f"{planned.label}: lost its worker ({how})")
        except (exceptions.NodeDiedError, exceptions.LocalRayletDiedError, exceptions.ObjectLostError) as error:
            self._runtime.say(
                f"{planned.label}: its machine is gone ({type(error).__name__}); another one goes "
                "on from the last checkpoint"
            )
            self._waiting[position] = 0.0
        except exceptions.RayTaskError as error:
            raise RuntimeError(f"a task of {planned.label} cannot run: {error}") from error
        else:
            if answer["attempt"] == "unseen":
                raise UserError(answer["message"])
            if answer["attempt"] == "disk":
                return f"{answer['message']} (on {answer['host']})"
            if answer["attempt"] == "held":
                self._waiting[position] = time.monotonic() + _PAUSE
        return None


def _task(file: str, position: int) -> dict[str, str]:
    """One run, in a process that Ray started; what came of it."""
    from bench.dispatch.worker import is_of_the_disk, told

    host = socket.gethostname()
    try:
        worker = _worker(file)
        deadline = time.monotonic() + _PATIENCE
        attempt = worker.attempt(position)
        while attempt == "held" and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            attempt = worker.attempt(position)
    except UserError as error:
        return {"attempt": "unseen", "message": str(error), "host": host}
    except Exception as error:
        if not is_of_the_disk(error, Path(file).parent):
            raise
        return {"attempt": "disk", "message": told(error), "host": host}
    return {"attempt": attempt, "message": "", "host": host}


@lru_cache(maxsize=1)
def _worker(file: str) -> Any:
    """This process's worker: Ray gives a process one run after the other, which share what is kept in it."""
    from bench.dispatch.worker import Worker

    assignment = Assignment.read(Path(file))
    assignment.settle_in()
    return Worker(assignment, f"{socket.gethostname()}-{os.getpid()}")


def _refuse_unreachable(address: str | None) -> None:
    """Stops where nobody listens at an address, which Ray itself would go on trying for minutes.

    Raises:
        UserError: nobody does.
    """
    host, separator, port = (address or "").removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        return  # none, or `auto`
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(
            f"--address {address}: nobody answers there ({error}); is `ray start --head` running?"
        ) from None


@contextmanager
def _joined(ray: Any, options: Options, assignment: Assignment, runtime: Runtime) -> Iterator[None]:
    """Connects to a cluster, or starts one on this machine for as long as it lasts."""
    root = str(Path(bench.__file__).resolve().parents[1])
    variables = {
        **assignment.environment,
        "PYTHONPATH": os.pathsep.join([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]),
        "OMP_NUM_THREADS": str(assignment.settings["threads"]),
        "TRANSFORMERS_VERBOSITY": "error",
    }
    if assignment.plugins:
        variables[PLUGINS_VARIABLE] = os.pathsep.join(map(str, assignment.plugins))
    own = {} if options.address else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _refuse_unreachable(options.address)
    try:
        ray.init(
            address=options.address,
            runtime_env={"env_vars": variables},
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=False,
            **own,
        )
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise UserError(f"--address {options.address}: {str(error).splitlines()[0]}") from None
    with suppress(ImportError, AttributeError):  # Ray prints pages on a lost machine among what we print
        from ray._private.ray_logging import global_worker_stdstream_dispatcher

        global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    try:
        machines = sum(node["Alive"] for node in ray.nodes())
        runtime.say(f"Ray: {machines} machines, {ray.cluster_resources().get('CPU', 0):.0f} cores")
        yield
    finally:
        ray.shutdown()
