"""A progress bar for the trainer, on standard error."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from bench.runtime import Runtime

_BETWEEN_LINES = 30.0  # seconds


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Shows optimiser steps, the newest losses and the time left; in a log file, a line now and then."""

    def __init__(self, runtime: Runtime, what: str) -> None:
        self._runtime = runtime
        self._what = what
        self._losses: dict[str, float] = {}
        self._said = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=runtime.console,
            disable=not runtime.bars,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts at the step that is resumed from."""
        self._bar.update(self._task, total=state.max_steps, completed=state.global_step)
        self._bar.start()
        self._say(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves on."""
        self._bar.update(self._task, completed=state.global_step)
        if time.monotonic() - self._said > _BETWEEN_LINES:
            self._say(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Shows the newest losses."""
        names = {"loss": "loss", "eval_loss": "validation"}
        self._losses |= {names[key]: value for key, value in (logs or {}).items() if key in names}
        self._bar.update(self._task, description=self._described())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the bar away."""
        self._say(state)
        self.close()

    def close(self) -> None:
        """Takes the bar away; also after an error."""
        self._bar.stop()

    def _described(self) -> str:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in self._losses.items())
        return f"{self._what} ({shown})" if shown else self._what

    def _say(self, state: Any) -> None:
        self._said = time.monotonic()
        if self._runtime.progress and not self._runtime.bars:
            self._runtime.say(f"  {self._described()}: step {state.global_step} of {state.max_steps}")
