"""SLURM jobs that each are a worker, submitted by submitit; the only file that imports submitit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.dispatch.assignment import Assignment, notes_of, with_threads
from bench.dispatch.base import CANNOT_WRITE, DISK, Options
from bench.dispatch.worker import work
from bench.errors import UserError
from bench.study_states import RunState, StudyStates

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_LOOK = 1.0  # seconds between looks at the study while jobs run
_SHOWN = 15  # last lines of what a job said that could not start
_REQUEUED = 1000  # times that a job is started again after its time was over
_GENERAL = (
    *("name", "timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    "stderr_to_stdout",
)
_OWN = ("cluster", "max_num_timeout")


class Job:
    """What a SLURM job does: work on an assignment; on pre-emption or at its time limit leave, to be started again.

    submitit's own handler of the warning signal would end the process in the middle of a step. Here the signal is
    first made a SIGTERM, on which the run at hand writes a checkpoint at the end of its step; then submitit's handler
    puts the job into the queue again.

    Args:
        file: the assignment.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self) -> int:
        """Works; the worker's exit status."""
        from submitit import JobEnvironment

        environment = JobEnvironment()
        warning = environment._usr_sig()
        requeue = signal.getsignal(warning)
        warned: list[int] = []

        def note(number: int, frame: object) -> None:
            warned.append(number)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, _end)
        signal.signal(warning, note)
        try:
            return work(Assignment.read(self.file), f"job-{environment.job_id}")
        except SystemExit:
            if warned and callable(requeue):
                requeue(warned[0], None)
            raise

    def checkpoint(self) -> Any:
        """What submitit starts in place of this job: the same, for all that was done is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Job(self.file))


def run_on_slurm(
    plan: Plan, assignment: Assignment, runtime: Runtime, options: Options, refresh: Callable[[], None]
) -> str | None:
    """Submits jobs and, unless `options.detach`, waits until nothing is left for them to do.

    Returns:
        What the disk said, where it ended the study.

    Raises:
        UserError: submitit is not installed, there is no SLURM here, or it knows no such setting.
        KeyboardInterrupt: by Ctrl-C; the jobs are cancelled and go on when the study is started again.
    """
    assignment = with_threads(assignment, assignment.settings.get("threads") or options.cpus_per_run or 1)
    assignment.write()
    jobs = _submitted(assignment, options)
    runtime.say(f"{len(jobs)} jobs: {', '.join(job.job_id for job in jobs)}; their logs are in {assignment.folder}")
    if options.detach:
        return None
    states = StudyStates(plan, runtime)
    try:
        while not all(job.done() for job in jobs):
            refresh()
            with suppress(OSError):  # a folder that cannot be read for a moment, as on a network, stops no job
                if _is_over(assignment, states.now()):
                    break  # the queue may take long to say so
            time.sleep(_LOOK)
    except BaseException:
        for job in jobs:
            job.cancel()
        raise
    ended = DISK in [_result(job, assignment) for job in jobs]
    return f"{CANNOT_WRITE}a job found no space left; its log is in {assignment.folder / 'jobs'}" if ended else None


def _is_over(assignment: Assignment, found: Sequence[RunState]) -> bool:
    """Whether the run directories say that nothing is left to do; they do not say whether a result was completed."""
    return not assignment.again and all(
        found[position].state == "done"
        or (found[position].state == "failed" and assignment.retried.get(position) != found[position].updated)
        for position in assignment.positions
    )


def _submitted(assignment: Assignment, options: Options) -> Sequence[Any]:
    try:
        import submitit
    except ImportError:
        raise UserError("--engine slurm: submitit is not installed; pip install 'molgraft[slurm]'") from None
    given = dict(options.slurm)
    cluster = given.get("cluster", "slurm")
    if "timeout_min" not in given:
        raise UserError(
            "--slurm timeout_min=MINUTES is missing: the time limit of one job, which goes on in a next one where it "
            "does not suffice"
        )
    limit = {f"{cluster}_max_num_timeout": given.get("max_num_timeout", _REQUEUED)}
    try:
        executor = submitit.AutoExecutor(folder=assignment.folder / "jobs", cluster=cluster, **limit)
        executor.update_parameters(**_parameters(given, assignment, options))
    except (NameError, ValueError, RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"--engine slurm: {' '.join(str(error).split())}") from None
    from submitit.core.utils import FailedJobError

    try:
        with executor.batch():
            return [executor.submit(Job(assignment.file)) for _ in range(options.workers)]
    except FailedJobError as error:  # by sbatch, which knows the partitions and accounts
        raise UserError(f"--engine slurm: {' '.join(str(error).split())}") from None


def _parameters(given: Mapping[str, Any], assignment: Assignment, options: Options) -> Mapping[str, Any]:
    """Settings as submitit names them: those that all its clusters know, and `slurm_...` for the rest."""
    found: dict[str, Any] = {"name": f"molgraft-{assignment.study}"}
    found["cpus_per_task"] = options.cpus_per_run or assignment.settings["threads"]
    gpus = options.gpus_per_run
    if gpus is None and assignment.settings.get("device") == "cuda":
        gpus = 1
    if gpus is not None and gpus != int(gpus):
        raise UserError(f"--gpus-per-run {gpus}: SLURM gives out whole GPUs")
    if gpus is not None:
        found["gpus_per_node"] = int(gpus)
    for key, value in given.items():
        if key not in _OWN:
            found[key if key in _GENERAL or key.startswith("slurm_") else f"slurm_{key}"] = value
    return found


def _result(job: Any, assignment: Assignment) -> Any:
    """A job's exit status; None while it has none, and where it was cancelled.

    Raises:
        UserError: it could not even begin; the message shows the last lines of what it said.
    """
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.result() if job.done() else None
    except (UncompletedJobError, FailedJobError):
        if not notes_of(assignment.folder):
            lines = (job.stderr() or "").splitlines()[-_SHOWN:]
            what = f"job {job.job_id} cannot start; {job.paths.stderr} ends with:"
            raise UserError("\n".join([what, *lines])) from None
        return None


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
