"""Worker processes of a search on this machine, replaced when they are killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.dispatch.base import CANNOT_WRITE, DISK, SPENT
from bench.dispatch.processes import ASKED_TO_END, Next, Processes, Slot, cores, how_it_ended
from bench.errors import UserError
from bench.search.worker import AT_TRIAL, USERS_MISTAKE, Orders

if TYPE_CHECKING:
    from bench.runtime import Runtime

_UNLUCKY = 10  # deaths for each worker before it is at a trial, until they are taken to be no accident


class SearchWorkers:
    """Several worker processes.

    Args:
        orders: what they are told.
        folder: where what they say is kept.
        runtime: the parent's.
        count: of processes.
        refresh: called now and then, for who shows how far the search is.
    """

    def __init__(
        self, orders: Orders, folder: Path, runtime: Runtime, count: int, refresh: Callable[[], None] = lambda: None
    ) -> None:
        self._runtime = runtime
        self._deaths = 0
        threads = orders.settings.get("threads") or max(1, cores() // count)
        orders = replace(orders, settings={**orders.settings, "threads": threads})
        self._processes = Processes(
            count, lambda name: ("-m", "bench.search.worker"), orders.written(), folder, threads, runtime, refresh
        )

    def run(self) -> None:
        """Works until the workers find nothing more to do.

        Raises:
            KeyboardInterrupt, SystemExit: see `Processes.run`.
            UserError: a worker cannot go on; the message is its own.
            OSError: the disk is full or may not be written.
        """
        self._processes.run(self._ended)

    def _ended(self, slot: Slot, pid: int, code: int) -> Next:
        """Says why a worker is gone, and whether another one takes its place."""
        if code == 0:
            return "none"
        if code == USERS_MISTAKE:
            raise UserError(slot.last_words("error: ") or f"{slot.name} cannot go on; see {slot.log}")
        if code == DISK:
            error = OSError(slot.last_words(CANNOT_WRITE) or "no space is left")  # not even to say so
            error.molgraft_class = "disk"  # type: ignore[attr-defined] # what the command line tells by
            raise error
        if code == SPENT:
            self._runtime.say(f"{slot.name}: its GPU can do no more for this process; a new one goes on")
        elif code not in ASKED_TO_END:
            self._say_how(slot, code)
        return "another"

    def _say_how(self, slot: Slot, code: int) -> None:
        how = how_it_ended(code)
        trial = slot.last_words(AT_TRIAL)  # which gives itself up when too many have died at it
        self._deaths += trial is None
        if code > 0 or self._deaths > _UNLUCKY * len(self._processes.slots):
            raise UserError(slot.why(how, "go on"))
        where = "" if trial is None else f" at trial {trial.split()[0]}, which is gone on with"
        self._runtime.say(f"{slot.name} was killed ({how}){where}")
