"""`transformers.Trainer` for one stage: parts with rates of their own, exact resume, a step log.

What is overridden, and why, is written beside each override; `transformers` does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.data_loader import SeedableRandomSampler
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from bench.checkpoints import Notes
from bench.collate import Collator
from bench.config import Optimiser
from bench.distributed import ALONE, Processes
from bench.errors import NotFiniteError, UserError
from bench.interruption import Interruption
from bench.layout import ExampleDataset, TokenisedExample
from bench.model import GraphLanguageModel
from bench.pieces import pieces_of
from bench.run_store import is_whole, write_bytes
from bench.sampling import LengthGroups, Shares
from bench.schedules import rate_factor, warmup_steps_of
from bench.sharded import load_whole_optimiser_state, load_whole_state, sharding, whole_optimiser_state, whole_state

if TYPE_CHECKING:
    from bench.stage import StageJob


class StageTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` with trainable-only checkpoints, parts with rates of their own, and token-weighted validation.

    Args:
        job: the stage.
        group: the processes that train it.
        interruption: what is done when it is asked to end, or goes on.
        settings: of `Trainer`.
    """

    def __init__(self, job: StageJob, group: Processes, interruption: Interruption, **settings: Any) -> None:
        super().__init__(**settings)
        self.job = job
        self.group = group
        self.interruption = interruption
        self._tokens = 0  # seen by this process, and not yet told
        self.passes = self.args.gradient_accumulation_steps // job.stage.accumulation
        if sharding() is not None and not self.is_sharded:
            raise UserError(
                f"{sharding()} was asked for, and accelerate deals models out on accelerators only, not CPUs"
            )
        self.add_callback(interruption)
        self.add_callback(Beginning(self, interruption))
        self.remove_callback(PrinterCallback)  # it would write every logged value to standard output

    @property
    def is_sharded(self) -> bool:
        """Whether tensors are dealt out over processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def get_train_dataloader(self) -> Any:
        """Every process's own share of each batch; `Trainer` would make up small batches with examples seen before."""
        if not self.group.several and self.passes == 1:
            return super().get_train_dataloader()
        order = self._get_train_sampler()
        if isinstance(order, RandomSampler):  # as accelerate does for one process
            order = SeedableRandomSampler(self.train_dataset, data_seed=self.args.seed)
        batch_size = self.job.stage.batch_size
        shares = Shares(order, batch_size, self.group.rank, self.group.world, self.passes)
        return DataLoader(
            self.train_dataset,
            batch_sampler=shares,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator(),  # or starting to iterate would move on the generator of dropout
        )

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Moves molecules too, which `Trainer` leaves where they are."""
        return on_device(super()._prepare_inputs(inputs), self.args.device)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Tokens seen, without padding and what only fills up a batch; counted where batches are made.

        `Trainer` would ask the GPU after every forward pass, and wait for it.
        """
        self._tokens += int(inputs["tokens"])
        if self.accelerator.sync_gradients:  # once per optimiser step, which is when it is written down
            self.state.num_input_tokens_seen += sum(self.group.gathered(self._tokens))
            self._tokens = 0

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes trained tensors only; a whole 7B model per checkpoint is waste, and tied embeddings fail to save."""
        state = whole_state(self.accelerator.unwrap_model(self.model))
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            write_bytes(folder / "model.safetensors", save(state))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Notes what is not logged yet before anything else; the trainer's state must stay what is written last."""
        losses = self.group.gathered(float(self._tr_loss))
        if not all(map(math.isfinite, losses)):
            raise NotFiniteError(f"the loss is {losses[0]} at step {self.state.global_step}")
        if self.args.should_save:
            kind = "deepspeed" if self.is_deepspeed_enabled else "whole"
            notes = Notes(self.group.world, kind, losses, self._globalstep_last_logged)
            notes.write(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """What is dealt out over processes is put together, or left to DeepSpeed without the frozen weights."""
        if not self.is_sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        if self.is_deepspeed_enabled:
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        else:
            state = whole_optimiser_state(self.optimizer)
            if self.args.should_save:
                torch.save(state, Path(output_dir) / "optimizer.pt")
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: Any) -> Any:
        """Loads checkpoints of ours into what is dealt out, after it was."""
        if not self.is_sharded:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        if self.is_fsdp_enabled:
            from torch.distributed.fsdp import register_fsdp_forward_method

            register_fsdp_forward_method(self.model, "log_likelihood")
        if resume_from_checkpoint is not None:
            folder = Path(resume_from_checkpoint)
            if self.is_deepspeed_enabled:
                self.model_wrapped.load_checkpoint(str(folder), load_module_strict=False)
            else:
                load_whole_state(self.model, load_file(folder / "model.safetensors"))
                load_whole_optimiser_state(self.optimizer, torch.load(folder / "optimizer.pt", weights_only=True))
            self.lr_scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        return prepared

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Groups of similar length in random order, where they are asked for."""
        if not self.job.stage.length_groups:
            return super()._get_train_sampler(train_dataset)
        lengths = [len(example.ids) for example in self.job.training.first]
        return LengthGroups(lengths, self.job.stage.batch_size, self.job.seed)

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW with a group per part, so that each part has its own rate."""
        if self.optimizer is None:  # type: ignore[has-type]
            optimiser = self.job.stage.optimiser
            self.optimizer = torch.optim.AdamW(
                parameter_groups(self.model, optimiser),
                lr=optimiser.lr,
                betas=optimiser.betas,
                eps=optimiser.epsilon,
                weight_decay=optimiser.weight_decay,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The stage's schedule, which may be one that transformers does not have."""
        if self.lr_scheduler is None:  # type: ignore[has-type]
            stage, examples = self.job.stage, len(self.job.training.first)
            epoch_steps = math.ceil(math.ceil(examples / stage.batch_size) / stage.accumulation)
            warmup = warmup_steps_of(stage.schedule, num_training_steps)
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer,
                lambda step: rate_factor(stage.schedule, step, num_training_steps, warmup, epoch_steps),
            )
        return self.lr_scheduler

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Mean validation loss per token. `Trainer` would average over batches, whose numbers of tokens differ."""
        total, count = 0.0, 0
        size = self.job.stage.batch_size if self.passes == 1 else self.args.per_device_train_batch_size
        for likelihood in log_likelihoods(self.model, self.job.validation, self.job.collator, size, self.group):
            total -= float(likelihood[0])
            count += likelihood[1]
        loss = total / max(count, 1)
        if self.job.stage.keep == "best" and math.isfinite(loss):
            self._keep_if_best(loss)  # before it is logged: what is logged is not evaluated again
        self.log({f"{metric_key_prefix}_loss": loss})
        metrics = {f"{metric_key_prefix}_loss": loss}
        # The handler takes note that the evaluation is done; without it the last one would be repeated.
        done = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        self.control = done
        return metrics

    def _keep_if_best(self, loss: float) -> None:
        best = self.job.folder / "best.safetensors"

        def is_better() -> bool:
            if not is_whole(best):
                return True
            with safe_open(best, "pt") as file:
                return loss < float(file.metadata()["loss"])

        if self.group.agreed(is_better):
            state = whole_state(self.accelerator.unwrap_model(self.model))
            if self.group.leads:
                described = {"step": str(self.state.global_step), "loss": repr(loss)}
                write_bytes(best, save(state, metadata=described))


class Beginning(TrainerCallback):  # type: ignore[misc]
    """Tells the interruption when training begins; `Trainer` has just set what it changes."""

    def __init__(self, trainer: StageTrainer, interruption: Interruption) -> None:
        self._trainer = trainer
        self._interruption = interruption

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Passes it on."""
        self._interruption.begin(self._trainer)


class EpochEntry(TrainerCallback):  # type: ignore[misc]
    """Tells the data set which epoch begins, or is resumed."""

    def __init__(self, dataset: ExampleDataset) -> None:
        self._dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """`state.epoch` is a fraction, and after whole epochs may be just below their number."""
        self._dataset.enter(math.floor((state.epoch or 0.0) + 1e-6))


def parameter_groups(model: GraphLanguageModel, optimiser: Optimiser) -> list[dict[str, Any]]:
    """Trainable parameters by part, each with its rate."""
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(model.part_of(name), []).append(parameter)
    return [
        {"params": parameters, "lr": optimiser.lr_of.get(part, optimiser.lr)}  # type: ignore[call-overload]
        for part, parameters in groups.items()
    ]


@torch.no_grad()
def log_likelihoods(
    model: GraphLanguageModel,
    examples: Sequence[TokenisedExample],
    collator: Collator,
    batch_size: int,
    group: Processes = ALONE,
    rows: int | None = None,
) -> Iterator[tuple[float, int]]:
    """Log-likelihood (nats) and number of supervised tokens of each example, in order.

    Several processes deal the batches out among them, which stay the same, and all are given all values.

    Args:
        model: which.
        examples: laid out for it.
        collator: makes batches.
        batch_size: examples that are padded alike.
        group: the processes that share the work.
        rows: most examples per forward pass; None for the whole batch.

    Raises:
        NotFiniteError: a likelihood is NaN or infinite.
    """
    training = model.training
    model.eval()
    device = model.token_embedding.weight.device
    starts = range(0, len(examples), batch_size)
    try:
        for first in range(0, len(starts), group.world):
            mine = min(first + group.rank, len(starts) - 1)  # all must take part where the model is dealt out
            chunk = examples[starts[mine] : starts[mine] + batch_size]
            width = max(len(example.ids) for example in chunk)
            own: list[tuple[float, int]] = []
            for piece in pieces_of(chunk, rows):
                batch = collator.training(piece, width)
                likelihood = model.log_likelihood(on_device(batch, device))
                own += zip(likelihood.total.tolist(), likelihood.tokens.tolist(), strict=True)
            for values in group.gathered(own)[: len(starts) - first]:
                if not all(math.isfinite(total) for total, _ in values):
                    raise NotFiniteError("the log-likelihood of an example is NaN or infinite")
                yield from values
    finally:
        model.train(training)


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


def one_device(arguments: TrainingArguments) -> TrainingArguments:
    """The arguments for one device: with several in sight `Trainer` would split each batch among all of them."""
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
