"""What a session tells of a run directory, on its way to MLflow: at most every few seconds, and never with an error."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.tracking.address import Address, address_of, in_one_line
from bench.tracking.contents import has_begun, manifest_of
from bench.tracking.store import Store

if TYPE_CHECKING:
    from bench.session import Mirror

_ENDED = ("done", "failed", "interrupted")
_PAUSE = 10.0  # seconds between mirrorings of a run that goes on; each costs some tens of milliseconds
_SHORTEST_BREAK, _LONGEST_BREAK = 10.0, 600.0  # seconds in which a store that failed is left alone


def mirror_to(study: str, runtime: Runtime) -> Mirror:
    """What `bench.experiment.run` calls to keep MLflow up to date; nothing where tracking is off.

    Args:
        study: the parent run under which the runs stand, beside those of all other studies that they belong to.
        runtime: its `tracking` is an address; None for a store beside the runs; `none` for no tracking.

    Raises:
        UserError: the address is of no kind that can be used.
    """
    address = address_of(runtime)
    return (lambda _: None) if address is None else _Mirror(address, study, runtime)


class _Mirror:
    """Keeps the runs of a process up to date, leaves a store that fails alone for a while, and catches up later."""

    def __init__(self, address: Address, study: str, runtime: Runtime) -> None:
        self._study, self._runtime, self._address = study, runtime, address
        self._store = Store(address)
        self._last: dict[Path, tuple[float, str]] = {}
        self._behind: dict[Path, RunDirectory] = {}
        self._break = 0.0
        self._until = 0.0

    def __call__(self, directory: RunDirectory) -> None:
        try:
            state, now = directory.status().state, time.monotonic()
            when, before = self._last.get(directory.path, (-_PAUSE, ""))
            if state == before and now - when < _PAUSE:
                return
            self._last[directory.path] = (now, state)
            self._behind[directory.path] = directory
            self._note(directory)  # whether the store answers or not
            if now >= self._until:
                self._catch_up(directory)
        except Exception as error:  # whatever the store's client raises, the run on disk is what counts
            self._failed(error)

    def _note(self, directory: RunDirectory) -> None:
        """For who makes the store again from nothing."""
        if has_begun(directory):
            self._store.studies.note(directory, self._study, manifest_of(directory)["train_id"])

    def _catch_up(self, directory: RunDirectory) -> None:
        # This one first, for whatever keeps another from being shown shall not keep this one. Of the others each has
        # one try: the store answers, so it is they that cannot be shown.
        self._show(directory)
        del self._behind[directory.path]
        if self._break:
            self._runtime.say(f"MLflow at {self._shown()} is up to date again")
        self._break = self._until = 0.0
        while self._behind:
            self._show(self._behind.popitem()[1])

    def _show(self, directory: RunDirectory) -> None:
        if has_begun(directory):
            self._store.show(directory)
            if directory.status().state in _ENDED:
                self._store.forget(directory)

    def _failed(self, error: Exception) -> None:
        if not self._break:
            reason = self._address.without_secrets(in_one_line(error))
            said = f"MLflow at {self._shown()} is not up to date: {reason}. Runs go on; `molgraft sync` catches up"
            self._runtime.say(said)
        self._break = min(max(2 * self._break, _SHORTEST_BREAK), _LONGEST_BREAK)
        self._until = time.monotonic() + self._break

    def _shown(self) -> str:
        return self._address.without_secrets(self._address.uri)
