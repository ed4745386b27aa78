"""What a training stage writes down while it goes on, and the summary that follows from it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from bench.errors import NotFiniteError
from bench.run_store import append_jsonl, read_jsonl


@dataclass(frozen=True, slots=True)
class StageOutcome:
    """What a finished stage says of itself; kept as `stage.json`.

    Args:
        steps: optimiser steps done.
        kept: which weights it hands on, `last` or `best`, and at which step they were taken.
        validation: validation loss (nats per token) by step.
        tokens: tokens seen, padding not counted; soft tokens count.
        seconds: training time of the session that finished it and of those before, validation included.
    """

    steps: int
    kept: str
    kept_step: int
    validation: Mapping[str, float]
    first_loss: float | None
    last_loss: float | None
    tokens: int
    seconds: float

    def in_words(self) -> str:
        """A line for the log."""
        losses = ", ".join(f"{step}: {loss:.4f}" for step, loss in self.validation.items())
        return (
            f"{self.steps} steps, {self.tokens} tokens, {self.seconds:.1f} s; validation loss by step {losses}; "
            f"hands on the {self.kept} weights, of step {self.kept_step}"
        )


class StageLog(TrainerCallback):  # type: ignore[misc]
    """Appends to `steps.jsonl` a line per optimiser step and to `metrics.jsonl` a line per logged value.

    Args:
        folder: of the stage.
        heartbeat: called after logging.
        validated: told of the step and the loss of each validation that is not written down yet.
        writes: whether this is the process that writes; the others of a run only check what is logged.
    """

    def __init__(
        self,
        folder: Path,
        heartbeat: Callable[[], None],
        validated: Callable[[int, float], None] = lambda step, loss: None,
        *,
        writes: bool = True,
    ) -> None:
        self._writes = writes
        self._validated = validated
        self.steps_file = folder / "steps.jsonl"
        self.metrics_file = folder / "metrics.jsonl"
        self._heartbeat = heartbeat
        self._last = time.monotonic()
        if writes:
            folder.mkdir(parents=True, exist_ok=True)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clock."""
        self._last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A line per optimiser step, with the time since the one before and the tokens seen so far."""
        now = time.monotonic()
        tokens = int(state.num_input_tokens_seen)
        row = {
            "step": state.global_step,
            "seconds": round(now - self._last, 4),
            "tokens": tokens,
            "pid": os.getpid(),
            "time": round(time.time(), 3),
        }
        self._last = now
        # Losses are logged as means since the last time. Logging at every checkpoint makes these means the same after a
        # resume.
        if state.global_step % args.save_steps == 0:
            control.should_log = True
        if self._writes:
            append_jsonl(self.steps_file, [row], durable=False)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A line per logged value; the trainer's closing summary is left out.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        values = {key: value for key, value in (logs or {}).items() if key in {"loss", "grad_norm", "learning_rate"}}
        if "eval_loss" in (logs or {}):
            values["validation_loss"] = (logs or {})["eval_loss"]
        if not values:
            return
        if any(not math.isfinite(value) for key, value in values.items() if key.endswith("loss")):
            raise NotFiniteError(f"the loss is {values} at step {state.global_step}")
        if not self._writes:
            return
        # Before it is written: a kill in between then tells it twice, where the other order would never tell it.
        if "validation_loss" in values and str(state.global_step) not in self.validation():
            self._validated(state.global_step, values["validation_loss"])
        finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
        append_jsonl(self.metrics_file, [{"step": state.global_step, **finite}], durable=False)
        self._heartbeat()

    def validation(self) -> dict[str, float]:
        """Validation loss by step; that of step 0 is what training starts from."""
        return {
            str(row["step"]): row["validation_loss"]
            for row in read_jsonl(self.metrics_file)
            if "validation_loss" in row
        }

    def outcome(self, steps: int, kept: str, kept_step: int) -> StageOutcome:
        """The stage's summary, from its logs."""
        losses = {row["step"]: row["loss"] for row in read_jsonl(self.metrics_file) if "loss" in row}
        rows = read_jsonl(self.steps_file)
        return StageOutcome(
            steps=steps,
            kept=kept,
            kept_step=kept_step,
            validation=self.validation(),
            first_loss=losses[min(losses)] if losses else None,
            last_loss=losses[max(losses)] if losses else None,
            tokens=max((row["tokens"] for row in rows), default=0),
            seconds=round(sum({row["step"]: row["seconds"] for row in rows}.values()), 3),
        )
