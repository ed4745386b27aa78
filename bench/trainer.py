"""One training stage on `transformers.Trainer`: parts with rates of their own, exact resume, a step log.

What is overridden, and why, is written beside each override; `transformers` does the rest.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from bench.collate import Collator, ExampleDataset, TokenisedExample, TrainingExamples
from bench.config import Optimiser, Stage
from bench.errors import ConfigError
from bench.model import GraphLanguageModel
from bench.progress import ProgressCallback
from bench.run_store import is_whole, read_json, write_bytes, write_json
from bench.runtime import Runtime
from bench.sampling import LengthGroups
from bench.stage_log import StageLog, StageOutcome

_CHECKPOINT_FILES = {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}
_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


@dataclass(frozen=True, slots=True)
class StageJob:
    """A stage and everything that it is trained with.

    Args:
        stage: its settings.
        identity: the stage's hash; weights of another identity are never taken for this one's.
        folder: where its checkpoints, logs and final weights are.
        training, validation: tokenised examples.
        collator: makes batches.
        seed: of the order of examples and of dropout.
        precision: `fp32`, or `bf16` for autocast.
    """

    stage: Stage
    identity: str
    folder: Path
    training: TrainingExamples
    validation: Sequence[TokenisedExample]
    collator: Collator
    seed: int
    precision: str

    @property
    def final_file(self) -> Path:
        """The weights that the stage hands on."""
        return self.folder / "final.safetensors"

    def outcome(self) -> StageOutcome | None:
        """What the stage says of itself if it is finished, else None."""
        report = self.folder / "stage.json"
        if not report.exists() or not is_whole(self.final_file):
            return None
        described = read_json(report)
        return StageOutcome(**described["outcome"]) if described["stage_id"] == self.identity else None


def train_stage(
    model: GraphLanguageModel, job: StageJob, runtime: Runtime, heartbeat: Callable[[], None] = lambda: None
) -> StageOutcome:
    """Trains a stage, or goes on with it, or takes it as it is if finished; `model` then holds its final weights.

    Args:
        model: with the weights that the stage before handed on.
        job: what to do.
        runtime: how.
        heartbeat: called after logging, for whoever watches.

    Raises:
        ConfigError: the parts that the stage trains have no parameters.
        NotFiniteError: the loss is NaN or infinite.
    """
    model.freeze(job.stage.trains)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("stages", f"stage {job.stage.name!r} has no parameter to train: its parts have none")
    finished = job.outcome()
    if finished is None:
        finished = _train(model, job, runtime, heartbeat)
    model.load_state(load_file(job.final_file))
    return finished


def find_resumable(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; one that a kill or a full disk cut short is passed over."""
    whole = [
        path
        for path in folder.glob("checkpoint-*")
        if path.is_dir() and {file.name for file in path.iterdir()} >= _CHECKPOINT_FILES and _is_readable(path)
    ]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_readable(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    archives = (checkpoint / name for name in _CHECKPOINT_FILES if name.endswith((".pt", ".pth")))
    # torch writes zip archives, whose directory is at the end; a file that was cut short has none.
    return is_whole(checkpoint / "model.safetensors") and all(zipfile.is_zipfile(archive) for archive in archives)


def _train(model: GraphLanguageModel, job: StageJob, runtime: Runtime, heartbeat: Callable[[], None]) -> StageOutcome:
    checkpoints = job.folder / "checkpoints"
    log = StageLog(job.folder, heartbeat)
    progress = ProgressCallback(runtime, job.stage.name)
    dataset = ExampleDataset(job.training)
    trainer = StageTrainer(
        job,
        model=model,
        args=_arguments(job, checkpoints, runtime),
        train_dataset=dataset,
        eval_dataset=job.validation,
        data_collator=job.collator,
        callbacks=[log, progress, EpochEntry(dataset)],
    )
    try:
        _train_to_the_end(trainer, find_resumable(checkpoints))
        if str(trainer.state.global_step) not in log.validation():
            trainer.evaluate()
    finally:
        progress.close()
    step = trainer.state.global_step
    best = job.folder / "best.safetensors"
    if job.stage.keep == "best":
        with safe_open(best, "pt") as file:
            step = int(file.metadata()["step"])
        write_bytes(job.final_file, save(load_file(best)))  # without its notes, whose order is not fixed
    else:
        write_bytes(job.final_file, save(_portable(model.trainable_state())))
    outcome = log.outcome(trainer.state.global_step, job.stage.keep, step)
    write_json(job.folder / "stage.json", {"stage_id": job.identity, "outcome": asdict(outcome)})
    shutil.rmtree(checkpoints, ignore_errors=True)  # they only served to resume
    best.unlink(missing_ok=True)
    return outcome


def _train_to_the_end(trainer: StageTrainer, resumable: Path | None) -> None:
    """Trains from the start or a checkpoint; from the last one there is nothing left to do but to load it.

    `Trainer` would do one step too many there.
    """
    if resumable is None:
        trainer.evaluate()  # what training starts from
        trainer.train()
        return
    state = TrainerState.load_from_json(str(resumable / "trainer_state.json"))
    if state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=str(resumable))
    else:
        trainer.model.load_state(load_file(resumable / "model.safetensors"))
        trainer.state = state


class StageTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` with trainable-only checkpoints, parts with rates of their own, and token-weighted validation."""

    def __init__(self, job: StageJob, **settings: Any) -> None:
        super().__init__(**settings)
        self.job = job
        self.remove_callback(PrinterCallback)  # it would write every logged value to standard output

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Writes trained tensors only; a whole 7B model per checkpoint is waste, and tied embeddings fail to save."""
        folder = Path(output_dir or self.args.output_dir)
        write_bytes(folder / "model.safetensors", save(_portable(self.model.trainable_state())))

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

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Mean validation loss per token. `Trainer` would average over batches, whose numbers of tokens differ."""
        total, count = 0.0, 0
        for likelihood in log_likelihoods(
            self.model, self.job.validation, self.job.collator, self.job.stage.batch_size
        ):
            total -= float(likelihood[0])
            count += likelihood[1]
        loss = total / max(count, 1)
        self.log({f"{metric_key_prefix}_loss": loss})
        if self.job.stage.keep == "best":
            self._keep_if_best(loss)
        metrics = {f"{metric_key_prefix}_loss": loss}
        # The handler takes note that the evaluation is done; without it the last one would be repeated.
        done = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        self.control = done
        return metrics

    def _keep_if_best(self, loss: float) -> None:
        best = self.job.folder / "best.safetensors"
        if is_whole(best):
            with safe_open(best, "pt") as file:
                if float(file.metadata()["loss"]) <= loss:
                    return
        described = {"step": str(self.state.global_step), "loss": repr(loss)}
        write_bytes(best, save(_portable(self.model.trainable_state()), metadata=described))


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
    model: GraphLanguageModel, examples: Sequence[TokenisedExample], collator: Collator, batch_size: int
) -> Iterator[tuple[float, int]]:
    """Log-likelihood (nats) and number of supervised tokens of each example, in order."""
    training = model.training
    model.eval()
    device = model.token_embedding.weight.device
    try:
        for start in range(0, len(examples), batch_size):
            chunk = [{"example": example} for example in examples[start : start + batch_size]]
            likelihood = model.log_likelihood(on_device(collator(chunk), device))
            yield from zip(likelihood.total.tolist(), likelihood.tokens.tolist(), strict=True)
    finally:
        model.train(training)


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`."""
    return {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}


def one_device(arguments: TrainingArguments) -> TrainingArguments:
    """The arguments for one device: with several in sight `Trainer` would split each batch among all of them."""
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _arguments(job: StageJob, checkpoints: Path, runtime: Runtime) -> TrainingArguments:
    stage = job.stage
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs or 1,
        per_device_train_batch_size=stage.batch_size,
        gradient_accumulation_steps=stage.accumulation,
        lr_scheduler_type=_SCHEDULES[stage.schedule.name],
        warmup_steps=stage.schedule.warmup,
        max_grad_norm=stage.optimiser.max_grad_norm,
        bf16=job.precision == "bf16",
        seed=job.seed,
        eval_strategy="steps" if stage.validate_every else "no",
        eval_steps=stage.validate_every or None,
        save_strategy="steps",
        save_steps=stage.checkpoint_every,
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would put the last finite loss in the place of NaN
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,  # the default would strip what the collator reads
        dataloader_pin_memory=torch.cuda.is_available() and runtime.device != "cpu",
        report_to="none",  # bench.tracking mirrors the run directory instead
        disable_tqdm=True,
        use_cpu=runtime.device == "cpu",
    )
    return one_device(arguments)


def _portable(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
