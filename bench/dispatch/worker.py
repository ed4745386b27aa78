"""A worker: goes through a plan and does what is ready and nobody else does, one run after the other.

It imports the heavy packages once and keeps what runs share (`Runtime.memo`), which is why it lives through many runs.
Run as `python -m bench.dispatch.worker ASSIGNMENT`.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from bench.dispatch.assignment import Assignment
from bench.dispatch.base import CANNOT_WRITE, DISK, MISTAKE, SPENT, next_stage
from bench.errors import DeviceLostError, RunBusyError, is_user_error
from bench.plan import Plan, PlannedRun
from bench.run_store import RunDirectory, is_disk_error, write_json
from bench.runtime import Runtime
from bench.study_states import RunState, StudyStates
from tasks.data import Catalogue

Attempt = Literal["settled", "worked", "held"]
"""What came of looking at a run: nothing is left to do, something was done, or someone else has it or a part of it."""

_PAUSE = 0.5  # seconds between looks at runs that others hold
_PATIENCE = 60.0  # seconds in which a folder that cannot be read may come back
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl.h


class Worker:
    """One process's part in a study.

    Args:
        assignment: what is to be done.
        name: of the worker, for its note.
        plan, runtime: where the process has them already; else they are read and made.
        refresh: called now and then while runs go on, for who shows how far the study is; a worker that nobody watches
            says itself what it does.
    """

    def __init__(
        self,
        assignment: Assignment,
        name: str,
        *,
        plan: Plan | None = None,
        runtime: Runtime | None = None,
        refresh: Callable[[], None] | None = None,
    ) -> None:
        from bench.tracking import mirror_to

        self.plan = plan or Plan.read(assignment.plan_file)
        self._assignment = assignment
        self._runtime = runtime or assignment.runtime()
        self._catalogue = Catalogue(assignment.data)
        self._mirror = mirror_to(assignment.study, self._runtime)
        self._states = StudyStates(self.plan, self._runtime)
        self._refresh = refresh
        self._settled: list[int] = []
        self._refused: dict[int, str] = {}
        self.disk: str | None = None  # what it said, where it ended this worker
        self._file = assignment.folder / f"{name}.worker.json"
        self._note(None)

    def work(self, parent: int | None = None) -> int:
        """Works until everything is done, by whomever; the exit status.

        Args:
            parent: process that started this one; when it is gone, so is the reason to go on.

        Raises:
            KeyboardInterrupt: see `bench.experiment.run`.
            SystemExit: on SIGTERM, once the run at hand is where it can be gone on with.
        """
        left = list(self._assignment.positions)
        while left and (parent is None or os.getppid() == parent):
            states, busy = self._look(), set[str]()
            for position in tuple(left):
                try:
                    attempt = self.attempt(position, states[position], busy)
                except Exception as error:
                    if not is_of_the_disk(error, self._runtime.runs):
                        raise
                    self.disk = told(error)
                    with suppress(OSError):  # the disk may be too full for that as well
                        self._say(self.disk)
                    return DISK
                if attempt != "held":
                    left.remove(position)
                if attempt == "worked":
                    if accelerator_is_broken():
                        return SPENT
                    break  # meanwhile others may have finished what earlier runs waited for
            else:
                if left:
                    time.sleep(_PAUSE)
            self._look_up()
        return 0

    def attempt(self, position: int, state: RunState | None = None, busy: set[str] | None = None) -> Attempt:
        """Does a run if it is ready and nobody has it.

        Args:
            position: in the plan.
            state: as it was seen; None to look.
            busy: stages that others were found at, which need no second look; more may be added.

        Raises:
            OSError: the disk is full or may not be written; what is done so far is kept.
        """
        planned = self.plan.runs[position]
        found = state or self._look()[position]
        busy = set() if busy is None else busy
        if found.state == "running":
            return "held"
        retried = self._assignment.retried.get(position) == found.updated
        is_over = found.state == "done" or (found.state == "failed" and not retried)
        if position in self._settled or (is_over and position not in self._assignment.again):
            return "settled"
        with ExitStack() as claims:
            stage = next_stage(planned, found.directory)
            if stage in busy:
                return "held"
            # Claimed before the data are prepared, which takes seconds in which nobody else need do the same.
            if not claims.enter_context(_claim(self._runtime.runs, f"run-{planned.train_id}")):
                return "held"
            at_stage = claims.enter_context(ExitStack())
            if stage is not None and not (
                at_stage.enter_context(_claim(self._runtime.runs, f"stage-{stage}")) and self._is_free(stage)
            ):
                busy.add(stage)
                return "held"
            return self._run(position, planned, retried, at_stage)

    def _run(self, position: int, planned: PlannedRun, retried: bool, at_stage: ExitStack) -> Attempt:
        from bench.experiment import run

        def noted(directory: RunDirectory) -> None:
            if directory.status().phase != "prepared":
                at_stage.close()  # whose turn it is at the stage is settled by now
            self._mirror(directory)
            self._look_up()

        self._note(position)
        self._say(f"[{position + 1}/{len(self.plan.runs)}] {planned.label}")
        try:
            done = run(planned.config, self._runtime, catalogue=self._catalogue, retry_failed=retried, mirror=noted)
        except RunBusyError:
            return "held"
        except Exception as error:
            if is_of_the_disk(error, self._runtime.runs) or isinstance(error, DeviceLostError):
                raise  # the next run would fare no better
            # Not only mistakes of the user's: what fails before the run has a folder is told nowhere else.
            self._refused[position] = str(error) if is_user_error(error) else f"{type(error).__name__}: {error}"
            self._say(f"  {planned.label}: {type(error).__name__}: {error}")
        else:
            self._settled.append(position)
            if not done.run.path.name.endswith(planned.train_id):
                self._refused[position] = (
                    f"came to {done.run.path.name} on {socket.gethostname()}, and the plan says {planned.train_id}: "
                    "data, weights or code of this machine differ from those where the plan was made; set "
                    "MOLGRAFT_DATA and MOLGRAFT_CACHE to folders that all machines share"
                )
        finally:
            with suppress(OSError):  # the disk may be what failed, and that is told by the error at hand
                self._note(None)
        return "worked"

    def _look(self) -> Sequence[RunState]:
        """Where the runs stand; a folder that cannot be read for a moment, as on a network, stops nothing."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._states.now()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _is_free(self, stage_id: str) -> bool:
        from bench.stage_turns import is_taken

        return not is_taken(self._runtime.runs, stage_id)

    def _note(self, position: int | None) -> None:
        """Writes down what this worker is at, for who wonders after its death."""
        write_json(
            self._file,
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "position": position,
                "settled": self._settled,
                "refused": {str(number): why for number, why in self._refused.items()},
            },
        )

    def _look_up(self) -> None:
        if self._refresh is not None:
            self._refresh()

    def _say(self, message: str) -> None:
        if self._refresh is None:
            self._runtime.say(message)


@contextmanager
def _claim(runs: Path, name: str) -> Iterator[bool]:
    """Whether this process may prepare something; who may not looks for something else to do.

    It only spares work: whether a run is done once is decided by the run's own lock, and by the stage's.

    Args:
        runs: the folder of run directories.
        name: of what is claimed, kind included: a run has the identity of its last stage.
    """
    folder = runs / ".claims"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_of_the_disk(error: Exception, runs: Path) -> bool:
    """Whether nothing can be written any more, so that the next run would fare no better."""
    if is_user_error(error):
        return False
    return getattr(error, "molgraft_class", None) == "disk" or is_disk_error(error, runs)


def told(error: Exception) -> str:
    """What the disk said, with the notes on which disk it was."""
    return "".join([f"{CANNOT_WRITE}{error}", *(f" ({note})" for note in getattr(error, "__notes__", ()))])


def accelerator_is_broken() -> bool:
    """Whether nothing can be computed on a GPU any more, as after an assertion that failed on it."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # other processes may share the GPU
    except RuntimeError:
        return True
    return False


def work(assignment: Assignment, name: str, parent: int | None = None) -> int:
    """Works in this process, which was started for that alone; the exit status."""
    signal.signal(signal.SIGTERM, _end)
    if parent is not None:
        _die_with(parent)
    assignment.settle_in()
    try:
        worker = Worker(assignment, name)
    except OSError as error:
        if not is_of_the_disk(error, assignment.runs):
            raise
        with suppress(OSError):
            assignment.runtime().say(told(error))
        return DISK
    return worker.work(parent)


def _die_with(parent: int) -> None:
    """Has the system ask this process to end when its parent does; where it cannot, `Worker.work` looks."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_DIES_WITH_PARENT, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it was gone before
        raise SystemExit(128 + signal.SIGTERM)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the assignment and works on it."""
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch.worker", description=__doc__)
    parser.add_argument("assignment", type=Path, help="file that `molgraft study` wrote")
    parser.add_argument("--name", help="of this worker; by default its machine and number")
    parser.add_argument("--parent", type=int, help="process without which this one ends")
    given = parser.parse_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    name = given.name or f"{socket.gethostname()}-{os.getpid()}"
    try:
        return work(Assignment.read(given.assignment), name, given.parent)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if not is_user_error(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return MISTAKE


if __name__ == "__main__":
    sys.exit(main())
