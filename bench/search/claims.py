"""Who works on which trial: trials are begun under one lock, held by their own, and taken over when that is free.

The number of trials is exactly what was asked for, whatever is killed when: a trial is made and its values are drawn
while the lock of the search is held, and one that is found running while nobody holds it is gone on with, with the
values that are in the storage.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from filelock import Timeout

from bench.search.parts import make_pruner, make_sampler
from bench.search.storage import SearchFolder, open_study

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

    from bench.search.definition import Definition
    from bench.search.space import Parameter, Value

RETRY_OF, PRESET, SESSIONS = "retry_of", "preset", "sessions"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A trial that this process holds.

    Args:
        trial: of Optuna.
        values: of its settings, as far as they are there.
        adopted: whether another process had begun it.
    """

    trial: Trial
    values: Mapping[str, Value]
    adopted: bool

    @property
    def number(self) -> int:
        """Of the trial, from 0."""
        return int(self.trial.number)

    @property
    def attributes(self) -> Mapping[str, Any]:
        """What was written down about it."""
        found: Mapping[str, Any] = self.trial.user_attrs
        return found


Left = Literal["held", "nothing"]
"""Why there is no trial to claim: others hold all that are not ended, or all are."""


class Claims:
    """The trials of a search, seen by one worker.

    Args:
        definition: of the search.
        storage: of its trials.
        folder: of the search, with the locks.
    """

    def __init__(self, definition: Definition, storage: BaseStorage, folder: SearchFolder) -> None:
        self._definition = definition
        self._folder = folder
        self.study: Study = open_study(definition, storage, folder)
        self.study.pruner = make_pruner(definition.search.pruner)
        self.study.sampler = make_sampler(definition.search.sampler, definition.search.seed, 0)

    @contextmanager
    def next(self, *, begin: bool = True) -> Iterator[Claimed | Left]:
        """A trial to work on, held for as long as the context lasts.

        Args:
            begin: whether another trial may be begun; else only those are taken over that were.
        """
        lock = None
        with self._folder.claims():
            found: tuple[Any, Any] | None = self._orphan() or (self._begun() if begin else None)
            claimed: Claimed | Left = "nothing"
            if found is not None:
                trial, lock = found
                claimed = self._claimed(trial)
            elif self._running():
                claimed = "held"
        try:
            yield claimed
        finally:
            if lock is not None:
                lock.release()

    def enqueue_preset(self) -> None:
        """Makes the preset itself trial 0, if there is no trial yet."""
        with self._folder.claims():
            if not self._trials():
                self.study.enqueue_trial(dict(self._definition.preset_values), user_attrs={PRESET: True})

    def enqueue_retries(self) -> list[int]:
        """Queues each failed trial again that was not yet tried again, and gives their numbers."""
        from optuna.trial import TrialState

        with self._folder.claims():
            trials = self._trials()
            retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
            failed = [t for t in trials if t.state == TrialState.FAIL and t.number not in retried]
            for trial in failed:
                self.study.enqueue_trial(dict(trial.params), user_attrs={RETRY_OF: trial.number})
        return [trial.number for trial in failed]

    def _begun(self) -> tuple[Trial, Any] | None:
        """Another trial, if fewer are there than were asked for; trials that are tried again come on top."""
        from optuna.trial import TrialState

        trials = self._trials()
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        counted = sum(RETRY_OF not in trial.user_attrs for trial in trials)
        if not waiting and counted >= self._definition.search.trials:
            return None
        number = next((t.number for t in trials if t.state == TrialState.WAITING), len(trials))
        self._draw_as(number)
        trial = self.study.ask()
        lock = self._folder.trial_lock(trial.number)
        lock.acquire(timeout=0)
        return trial, lock

    def _orphan(self) -> tuple[Trial, Any] | None:
        """A trial that is running and held by nobody: its worker was killed, or stopped."""
        import optuna

        for frozen in self._running():
            lock = self._folder.trial_lock(frozen.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            # Its worker may have ended it between the look at its state and the look at its lock.
            if self.study._storage.get_trial(frozen._trial_id).state != optuna.trial.TrialState.RUNNING:
                lock.release()
                continue
            self._draw_as(frozen.number)
            self.study._thread_local.cached_all_trials = None  # as `ask` does: what has ended since counts
            return optuna.trial.Trial(self.study, frozen._trial_id), lock
        return None

    def _claimed(self, trial: Trial) -> Claimed:
        """Draws the values that a trial does not have yet, and writes down who works on it."""
        values: dict[str, Value] = {}
        for parameter in self._definition.space.parameters:
            if parameter.is_active(values):
                values[parameter.path] = _suggested(trial, parameter)
        sessions = trial.user_attrs.get(SESSIONS, [])
        here = {"host": socket.gethostname(), "pid": os.getpid(), "time": round(time.time(), 2)}
        trial.set_user_attr(SESSIONS, [*sessions, here])
        return Claimed(trial, values, adopted=bool(sessions))

    def _draw_as(self, number: int) -> None:
        search = self._definition.search
        self.study.sampler = make_sampler(search.sampler, search.seed, number)

    def _trials(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def _running(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        return [trial for trial in self._trials() if trial.state == TrialState.RUNNING]


def _suggested(trial: Trial, parameter: Parameter) -> Value:
    value: Value
    if parameter.choices:
        value = trial.suggest_categorical(parameter.path, list(parameter.choices))
    elif parameter.type == "int":
        step = 1 if parameter.step is None else int(parameter.step)
        value = trial.suggest_int(parameter.path, int(parameter.low), int(parameter.high), step=step, log=parameter.log)
    else:
        value = trial.suggest_float(
            parameter.path, parameter.low, parameter.high, step=parameter.step, log=parameter.log
        )
    return value
