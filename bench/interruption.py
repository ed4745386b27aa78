"""A training that is asked to end, and one that goes on from where it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from bench.checkpoints import Notes
from bench.distributed import Processes
from bench.errors import StoppedEarlyError
from bench.identity import derived_seed

if TYPE_CHECKING:
    from transformers import Trainer


class Interruption(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM, or when a watcher wants it, all processes write a checkpoint at the end of the same step, and leave.

    transformers' own checkpoint on SIGTERM waits three seconds, can be written before the step is done, whose dropout
    is then drawn anew on resuming, and lets each process choose its step.

    Args:
        group: the processes that train.
        seed: of the stage.
        resumed: the notes of the checkpoint that training goes on from; None from the start.
    """

    def __init__(self, group: Processes, seed: int, resumed: Notes | None) -> None:
        self._group = group
        self._seed = seed
        self._resumed = resumed
        self._asked = False
        self._unwanted: str | None = None  # why a watcher wants an end

    def heeding(self, validated: Callable[[int, float], None]) -> Callable[[int, float], None]:
        """`validated`, whose wish to end the training is taken note of until all processes can follow it."""

        def told(step: int, loss: float) -> None:
            try:
                validated(step, loss)
            except StoppedEarlyError as error:
                self._unwanted = str(error)

        return told

    @contextmanager
    def noticing(self) -> Iterator[None]:
        """While it lasts, SIGTERM is only taken note of.

        Raises:
            SystemExit: at its end, if there was one.
        """
        in_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        if in_main:
            signal.signal(signal.SIGTERM, self._note)
        try:
            yield
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, before)
        self.leave()

    def leave(self) -> None:
        """Ends this process if it was asked to.

        Raises:
            SystemExit: it was, by SIGTERM.
            StoppedEarlyError: it was, by a watcher.
        """
        if self._asked:
            raise SystemExit(128 + signal.SIGTERM)
        if self._unwanted is not None:
            raise StoppedEarlyError(self._unwanted)

    def begin(self, trainer: Trainer) -> None:
        """What a training starts with: dropout of each process's own, and the losses that no line was written for."""
        notes = self._resumed
        same = notes is not None and notes.processes == self._group.world
        if not same and not self._group.leads:  # a checkpoint has the generators of its own processes only
            torch.manual_seed(derived_seed(self._seed, f"process/{self._group.rank}"))
        if notes is not None and notes.logged is not None:
            loss = notes.losses[self._group.rank] if same else sum(notes.losses) / len(notes.losses)
            trainer._tr_loss += loss
            trainer._globalstep_last_logged = notes.logged

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for a checkpoint where one of the processes was asked to end."""
        self._asked = self._group.any(self._asked)
        if self._asked or self._unwanted is not None:
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Asks for a checkpoint where the leader's watcher wants an end; validation is where it says so."""
        self._unwanted = next((words for words in self._group.gathered(self._unwanted) if words is not None), None)
        self.on_step_end(args, state, control)

    def _note(self, number: int, frame: object) -> None:
        self._asked = True
