"""A study's worker processes on this machine: replaced when they are killed, given up on where that helps nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.dispatch.assignment import Assignment, with_threads
from bench.dispatch.base import CANNOT_WRITE, DISK, MISTAKE, SPENT, Strikes
from bench.dispatch.processes import ASKED_TO_END, Next, Processes, Slot, cores, how_it_ended
from bench.errors import UserError
from bench.run_store import read_json

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_UNLUCKY_STARTS = 10  # times that a worker is killed before its first run, until it is taken to be no accident


class LocalWorkers:
    """Several worker processes.

    Args:
        plan: what they work on.
        assignment: what they are told.
        runtime: the parent's.
        count: of processes.
        refresh: called now and then, for who shows how far the study is.
    """

    def __init__(
        self,
        plan: Plan,
        assignment: Assignment,
        runtime: Runtime,
        count: int,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._strikes = Strikes(runtime)
        self._unlucky: Counter[str] = Counter()
        self._disk: str | None = None
        threads = assignment.settings.get("threads") or max(1, cores() // count)
        self._assignment = with_threads(assignment, threads)
        self._assignment.write()
        self.processes = Processes(count, self._command, None, assignment.folder, threads, runtime, refresh)

    def run(self) -> str | None:
        """Works until nothing is left that any worker could do.

        Returns:
            What the disk said, where it ended the study.

        Raises:
            KeyboardInterrupt, SystemExit: see `Processes.run`.
            UserError: a worker cannot start; the message shows the last lines of what it said.
        """
        self.processes.run(self._ended)
        return self._disk

    def _command(self, name: str) -> list[str]:
        work = ["-m", "bench.dispatch.worker", str(self._assignment.file)]
        return [*work, "--name", name, "--parent", str(os.getpid())]

    def _ended(self, slot: Slot, pid: int, code: int) -> Next:
        """Says why a worker is gone, and whether another one takes its place."""
        if code == 0:
            return "none"
        if code == MISTAKE and (said := slot.last_words("error: ")):
            raise UserError(said)
        if code == DISK:  # which may have been too full for the words as well
            self._disk = CANNOT_WRITE + (slot.last_words(CANNOT_WRITE) or "no space is left").splitlines()[0]
            return "stop"
        if code == SPENT:
            self._runtime.say(f"{slot.name}: its GPU can do no more for this process; a new one goes on")
        else:  # killed, or asked to end by somebody else, as some systems do that run out of memory
            how = how_it_ended(code)
            position = self._position_of(slot, pid)
            if position is None:
                self._refuse_hopeless(slot, code, how)
            else:
                planned = self._plan.runs[position]
                gave_up = self._strikes.died(planned, how)
                what = "it is given up" if gave_up else "another one goes on from its last checkpoint"
                self._runtime.say(f"{slot.name} ended ({how}) in {planned.label}: {what}")
        return "another"

    def _position_of(self, slot: Slot, pid: int) -> int | None:
        """The run that a worker was at; None where it was at none, or had not even begun to write what it is at."""
        file = self._assignment.folder / f"{slot.name}.worker.json"
        note = read_json(file) if file.exists() else {}
        return note["position"] if note.get("pid") == pid else None  # of the process before it, otherwise

    def _refuse_hopeless(self, slot: Slot, code: int, how: str) -> None:
        self._unlucky[slot.name] += 1
        is_error = code > 0 and code not in ASKED_TO_END
        if is_error or self._unlucky[slot.name] >= _UNLUCKY_STARTS:
            raise UserError(slot.why(how, "start"))
