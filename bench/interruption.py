"""A training that is asked to end, and one that goes on from where it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from bench.checkpoints import Notes
from bench.distributed import Processes
from bench.identity import derived_seed

if TYPE_CHECKING:
    from transformers import Trainer


class Interruption(TrainerCallback):  # type: ignore[misc]
    """On SIGTERM all processes write a checkpoint at the end of the same step, and leave.

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
            SystemExit: it was.
        """
        if self._asked:
            raise SystemExit(128 + signal.SIGTERM)

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
        if self._asked:
            control.should_save = control.should_training_stop = True

    def _note(self, number: int, frame: object) -> None:
        self._asked = True
