"""The training loop of a pretraining: steps, validation, checkpoints, and going on from one.

Nothing random is carried from step to step: the order of molecules follows from the seed and the epoch; dropout, masks
and loss weights from the seed and the step. A checkpoint is therefore the weights, the optimiser and a number, and what
goes on from it is the same to the bit (on a CPU, with the same number of threads).
"""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from bench.device import seeded
from bench.errors import NotFiniteError
from bench.identity import derived_seed
from bench.pretraining_config import PretrainingConfig
from bench.pretraining_data import Pair, PreparedPretraining
from bench.pretraining_stage import Module
from bench.run_store import append_jsonl, read_jsonl, write_bytes, write_text
from bench.runtime import Runtime
from bench.schedules import rate_factor, warmup_steps_of
from encoders.base import MoleculeBatch
from encoders.objectives import AligningModule, Losses

_LOG_EVERY = 10  # steps
_BETWEEN_LINES = 30.0  # seconds, where no bar can be drawn
_EMBED = 128  # pairs at once
_KEPT = 2  # checkpoints; should the newest be unreadable, the one before is taken

Tokens = Sequence[Sequence[int]] | None


class Pretrainer:
    """An encoder and the heads of its objective, and how they are trained.

    Args:
        prepared: what for and on what.
        folder: of logs and checkpoints.
        device: where it is computed.
    """

    def __init__(self, prepared: PreparedPretraining, folder: Path, device: torch.device) -> None:
        config = prepared.config
        self.prepared = prepared
        self.config = config
        self.metrics_file = folder / "metrics.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.device = device
        self.step = 0
        text = prepared.text
        with seeded(self.config.seed, "encoder"):
            self.encoder = config.encoder.build()
        config.encoder.load(self.encoder)
        with seeded(self.config.seed, "objective"):
            self.heads = config.objective.build(
                config.encoder, text.reader if text else None, text.folder if text else None
            )
        self.encoder.to(device)
        self.heads.to(device)
        self._optimizer = torch.optim.AdamW(
            self._groups(),
            betas=config.optimiser.betas,
            eps=config.optimiser.epsilon,
            weight_decay=config.optimiser.weight_decay,
        )
        self._tokens = {
            part: text.reader.ids([pair.text for pair in pairs]) if text else None
            for part, pairs in (("training", prepared.training), ("validation", prepared.validation))
        }
        self._order: tuple[int, list[int]] = (-1, [])
        self._sums: dict[str, float] = {}
        self._since_log = 0

    def train(self, runtime: Runtime, heartbeat: Callable[[], None] = lambda: None) -> None:
        """Trains to the end, from the newest checkpoint if there is one.

        Args:
            runtime: whether progress is shown.
            heartbeat: called after logging.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
        """
        config = self.config
        resumed = self.resume()
        with self._everything_seeded(), _bar(runtime, config.name, config.steps) as show:
            if not resumed:
                self.metrics_file.unlink(missing_ok=True)
                self._validate()
            while self.step < config.steps:
                losses = self._train_step()
                self._note(losses)
                validates = config.validate_every and self.step % config.validate_every == 0
                saves = self.step % config.checkpoint_every == 0 or self.step == config.steps
                if self.step % _LOG_EVERY == 0 or validates or saves:
                    self._log()
                    heartbeat()
                if validates or self.step == config.steps:
                    self._validate()
                if saves:
                    self._save()
                show(self.step, losses["loss"])

    def resume(self) -> bool:
        """Takes the newest checkpoint that can be read; whether there was one."""
        for file in sorted(self.checkpoints.glob("step-*.pt"), reverse=True):
            try:
                state = torch.load(file, map_location=self.device, weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
                continue  # cut short by a full disk or a power cut
            if state["identity"] != self.prepared.identity:
                continue
            self.encoder.load_state_dict(state["encoder"])
            self.heads.load_state_dict(state["heads"], strict=False)  # what is frozen is not in it
            self._optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            rows = [row for row in read_jsonl(self.metrics_file) if row["step"] <= self.step]
            write_text(self.metrics_file, "")  # steps that are now done again must not stand twice
            append_jsonl(self.metrics_file, rows)
            return True
        return False

    def heads_state(self) -> dict[str, Tensor]:
        """The tensors of the heads without those that nothing changes."""
        frozen = {name for name, parameter in self.heads.named_parameters() if not parameter.requires_grad}
        return {name: tensor for name, tensor in self.heads.state_dict().items() if name not in frozen}

    def embedded(self, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
        """Molecules and texts in their common space, both `(n, width)`, on the CPU.

        Raises:
            TypeError: the objective aligns no texts.
        """
        text = self.prepared.text
        if not isinstance(self.heads, AligningModule) or text is None:
            raise TypeError(f"objective {self.config.objective.name} aligns no texts")
        ids = text.reader.ids([pair.text for pair in pairs])
        molecules, texts = [], []
        with self._evaluating():
            for start in range(0, len(pairs), _EMBED):
                chunk = range(start, min(start + _EMBED, len(pairs)))
                batch, tokens = self._batch(pairs, ids, chunk)
                molecules.append(self.heads.molecules(self.encoder, batch).float().cpu())
                texts.append(self.heads.texts(tokens or {}).float().cpu())
        return torch.cat(molecules), torch.cat(texts)

    def _groups(self) -> list[dict[str, Any]]:
        """Trainable parameters, each group with its rate."""
        groups: dict[Module, list[nn.Parameter]] = {"encoder": list(self.encoder.parameters()), "text": [], "heads": []}
        for name, parameter in self.heads.named_parameters():
            groups["text" if name.startswith("text_model.") else "heads"].append(parameter)
        optimiser = self.config.optimiser
        found = []
        for module, parameters in groups.items():
            trained = [parameter for parameter in parameters if parameter.requires_grad]
            if trained:
                rate = optimiser.lr_of.get(module, optimiser.lr)
                found.append({"params": trained, "lr": rate, "peak": rate})
        return found

    def _train_step(self) -> dict[str, float]:
        config = self.config
        generator = self._at(f"step/{self.step}")
        torch.manual_seed(derived_seed(config.seed, f"dropout/{self.step}"))
        self.encoder.train()
        self.heads.train()
        batch, tokens = self._batch(self.prepared.training, self._tokens["training"], self._chosen())
        losses = self._losses(batch, tokens, generator)
        loss = config.objective.combined(losses, generator)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.optimiser.max_grad_norm:
            parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
            nn.utils.clip_grad_norm_(parameters, config.optimiser.max_grad_norm)
        factor = rate_at(config, len(self.prepared.training), self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self._optimizer.step()
        self.step += 1
        values = {"loss": float(loss.detach()), **{name: float(value.detach()) for name, value in losses.items()}}
        if not all(math.isfinite(value) for value in values.values()):
            raise NotFiniteError(f"the losses are {values} at step {self.step}")
        return values

    def _losses(self, batch: MoleculeBatch, tokens: Mapping[str, Tensor] | None, generator: torch.Generator) -> Losses:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            losses: Losses = self.heads(self.encoder, batch, tokens, generator)
        return losses

    def _chosen(self) -> Sequence[int]:
        """The training rows of the step that comes: each epoch is a new order, cut into full batches."""
        total = len(self.prepared.training)
        size = min(self.config.batch_size, total)
        epoch, position = divmod(self.step, total // size)
        if self._order[0] != epoch:
            generator = self._at(f"order/{epoch}")
            self._order = epoch, torch.randperm(total, generator=generator).tolist()
        return self._order[1][position * size : (position + 1) * size]

    def _batch(
        self, pairs: Sequence[Pair], ids: Tokens, chosen: Sequence[int]
    ) -> tuple[MoleculeBatch, Mapping[str, Tensor] | None]:
        batch = self.prepared.store.batch([pairs[row].smiles for row in chosen]).to(self.device)
        if ids is None or self.prepared.text is None:
            return batch, None
        padded = self.prepared.text.reader.padded([ids[row] for row in chosen])
        return batch, {name: tensor.to(self.device) for name, tensor in padded.items()}

    def _validate(self) -> None:
        """Logs each loss over the validation molecules, always in the same batches and under the same masks."""
        pairs, ids = self.prepared.validation, self._tokens["validation"]
        size = min(self.config.batch_size, len(pairs))
        if not size:
            return
        totals: dict[str, float] = {}
        seen = 0
        with self._evaluating():
            for start in range(0, len(pairs), size):
                chunk = range(start, min(start + size, len(pairs)))
                if len(chunk) < size and ids is not None:
                    break  # telling apart fewer texts is easier; the loss would not compare
                losses = self._losses(*self._batch(pairs, ids, chunk), self._at(f"validation/{start}"))
                combined = self.config.objective.combined(losses, None)
                for name, value in {"loss": combined, **losses}.items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(chunk)
                seen += len(chunk)
        means = {f"validation_{name}": total / seen for name, total in totals.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise NotFiniteError(f"the validation losses are {means} at step {self.step}")
        append_jsonl(self.metrics_file, [{"step": self.step, **means}])

    def _note(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._since_log += 1

    def _log(self) -> None:
        """A line with the means since the last one; at every checkpoint too, so that a resume changes none."""
        means = {name: total / self._since_log for name, total in self._sums.items()}
        rate = float(self._optimizer.param_groups[0]["lr"])
        append_jsonl(self.metrics_file, [{"step": self.step, **means, "learning_rate": rate}], durable=False)
        self._sums, self._since_log = {}, 0

    def _save(self) -> None:
        state = {
            "identity": self.prepared.identity,
            "step": self.step,
            "encoder": self.encoder.state_dict(),
            "heads": self.heads_state(),
            "optimizer": self._optimizer.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(self.checkpoints / f"step-{self.step:09d}.pt", content.getvalue())
        for old in sorted(self.checkpoints.glob("step-*.pt"))[:-_KEPT]:
            old.unlink()

    def _at(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.config.seed, purpose))

    @contextmanager
    def _everything_seeded(self) -> Iterator[None]:
        """Leaves the generators of this process as they were."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        modules: tuple[nn.Module, ...] = (self.encoder, self.heads)
        before = [module.training for module in modules]
        for module in modules:
            module.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.train(training)


def rate_at(config: PretrainingConfig, rows: int, step: int) -> float:
    """What the peak learning rate is multiplied by at a step, counted from 0, of a pretraining on so many molecules."""
    warmup = warmup_steps_of(config.schedule, config.steps)
    epoch_steps = max(1, rows // config.batch_size)  # a batch that is not full is left out
    # A first step at a rate of zero would be none; but a staircase changes exactly where epochs begin.
    ahead = 0 if config.schedule.name == "staircase" else 1
    return rate_factor(config.schedule, step + ahead, config.steps + ahead, warmup, epoch_steps)


@contextmanager
def _bar(runtime: Runtime, what: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """Shows steps, the newest loss and the time left; a line now and then where no bar can be drawn."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = 0.0
    with Progress(*columns, console=runtime.console, disable=not runtime.bars, transient=True) as progress:
        task = progress.add_task(what, total=total)

        def show(step: int, loss: float) -> None:
            nonlocal said
            described = f"{what} (loss {loss:.3f})"
            progress.update(task, completed=step, description=described)
            late = time.monotonic() - said > _BETWEEN_LINES
            if runtime.progress and not runtime.bars and (late or step == total):
                said = time.monotonic()
                runtime.say(f"  {described}: step {step} of {total}")

        yield show
