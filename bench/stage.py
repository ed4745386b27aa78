"""A training stage from its job to its outcome: trained, gone on with after whatever stopped it, or taken as it is."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from transformers import TrainerState, TrainingArguments

from bench.activation import is_worth_it
from bench.batch_norm import refuse_or_synchronise
from bench.checkpoints import find_resumable, notes_of
from bench.collate import Collator
from bench.config import Kernels, Stage
from bench.device import device_of
from bench.distributed import exchanging, share_of
from bench.errors import ConfigError
from bench.interruption import Interruption
from bench.kernels import training_kernels
from bench.layout import ExampleDataset, TokenisedExample, TrainingExamples
from bench.model import GraphLanguageModel
from bench.progress import ProgressCallback
from bench.run_store import is_whole, read_json, write_bytes, write_json
from bench.runtime import Runtime
from bench.sharded import sharding, whole_state
from bench.stage_log import StageLog, StageOutcome
from bench.trainer import EpochEntry, StageTrainer, one_device


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
        kernels: of the language model's blocks.
    """

    stage: Stage
    identity: str
    folder: Path
    training: TrainingExamples
    validation: Sequence[TokenisedExample]
    collator: Collator
    seed: int
    precision: str
    kernels: Kernels = "eager"

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
    model: GraphLanguageModel,
    job: StageJob,
    runtime: Runtime,
    heartbeat: Callable[[], None] = lambda: None,
    validated: Callable[[int, float], None] = lambda step, loss: None,
) -> StageOutcome:
    """Trains a stage, or goes on with it, or takes it as it is if finished; `model` then holds its final weights.

    Args:
        model: with the weights that the stage before handed on.
        job: what to do.
        runtime: how.
        heartbeat: called after logging, for whoever watches.
        validated: told of each new validation's step and loss; it may raise `StoppedEarlyError`.

    Raises:
        StoppedEarlyError: `validated` ended the training; a checkpoint is there to go on from.
        ConfigError: the parts that the stage trains have no parameters, or its kernels do not work here.
        NotFiniteError: the loss is NaN or infinite.
    """
    model.freeze(job.stage.trains)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("stages", f"stage {job.stage.name!r} has no parameter to train: its parts have none")
    found = runtime.processes.agreed(lambda: asdict(done) if (done := job.outcome()) else None)
    if found is None:
        with training_kernels(model.llm, job.kernels):
            finished = _train(model, job, runtime, heartbeat, validated)
    else:
        finished = StageOutcome(**found)
    if sharding() is None:
        model.load_state(load_file(job.final_file))
    return finished


def _train(
    model: GraphLanguageModel,
    job: StageJob,
    runtime: Runtime,
    heartbeat: Callable[[], None],
    validated: Callable[[int, float], None],
) -> StageOutcome:
    if refuse_or_synchronise(model, job.stage, runtime) and not all(map(_reads_a_graph, job.training.first)):
        raise ConfigError(
            f"stages.{job.stage.name}",
            "has questions without a molecule; batch norm over several processes needs some in each share of a batch",
        )
    checkpoints, group = job.folder / "checkpoints", runtime.processes
    progress = ProgressCallback(runtime, job.stage.name)
    dataset = ExampleDataset(job.training)
    kind = "deepspeed" if sharding() == "deepspeed" else "whole"
    found = group.agreed(lambda: str(find_resumable(checkpoints, kind) or ""))
    resumable = Path(found) if found else None
    interruption = Interruption(group, job.seed, notes_of(resumable) if resumable else None)
    log = StageLog(job.folder, heartbeat, interruption.heeding(validated), writes=group.leads)
    trainer = StageTrainer(
        job,
        group,
        interruption,
        model=model,
        args=_arguments(model, job, checkpoints, runtime),
        train_dataset=dataset,
        eval_dataset=job.validation,
        data_collator=job.collator,
        callbacks=[log, progress, EpochEntry(dataset)],
    )
    try:
        with exchanging(group), interruption.noticing(), warnings.catch_warnings():
            # torch renames an argument that accelerate hands on.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            _train_to_the_end(trainer, resumable)
            interruption.leave()
            if group.agreed(lambda: str(trainer.state.global_step) not in log.validation()):
                trainer.evaluate()
                interruption.leave()
            state = whole_state(model)
            group.wait_for_all()  # some may still be writing what belongs to a checkpoint
    finally:
        progress.close()
    return StageOutcome(**group.agreed(lambda: _hand_on(job, log, trainer.state.global_step, state)))


def _reads_a_graph(example: TokenisedExample) -> bool:
    return any(end <= len(example.ids) for _, end in example.places)


def _hand_on(job: StageJob, log: StageLog, step: int, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Writes what the stage came to, and takes away what only served to get there."""
    kept, best = step, job.folder / "best.safetensors"
    if job.stage.keep == "best":
        with safe_open(best, "pt") as file:
            kept = int(file.metadata()["step"])
        write_bytes(job.final_file, save(load_file(best)))  # without its notes, whose order is not fixed
    else:
        write_bytes(job.final_file, save(dict(state)))
    outcome = asdict(log.outcome(step, job.stage.keep, kept))
    write_json(job.folder / "stage.json", {"stage_id": job.identity, "outcome": outcome})
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)  # they only served to resume
    best.unlink(missing_ok=True)
    return outcome


def _train_to_the_end(trainer: StageTrainer, resumable: Path | None) -> None:
    """Trains from the start or a checkpoint; from the last one there is nothing left to do but to load it.

    `Trainer` would do one step too many there.
    """
    if resumable is None:
        if not trainer.args.eval_on_start:
            trainer.evaluate()  # what training starts from
            trainer.interruption.leave()
        trainer.train()
        return
    trainer.args.eval_on_start = False
    state = TrainerState.load_from_json(str(resumable / "trainer_state.json"))
    if state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=str(resumable))
    else:
        trainer.model.load_state(load_file(resumable / "model.safetensors"))
        trainer.state = state


def _arguments(model: GraphLanguageModel, job: StageJob, checkpoints: Path, runtime: Runtime) -> TrainingArguments:
    stage, device = job.stage, device_of(runtime)
    share = share_of(stage, runtime.processes.world, runtime.micro_batch)
    wanted = runtime.activation_checkpointing
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        max_steps=stage.steps or -1,
        num_train_epochs=stage.epochs or 1,
        per_device_train_batch_size=share.size,
        gradient_accumulation_steps=stage.accumulation * share.passes,
        max_grad_norm=stage.optimiser.max_grad_norm,
        bf16=job.precision == "bf16",
        seed=job.seed,
        eval_strategy="steps" if stage.validate_every else "no",
        eval_steps=stage.validate_every or None,
        eval_on_start=sharding() is not None,  # only then is the model where it is computed
        save_strategy="steps",
        save_steps=stage.checkpoint_every,
        save_total_limit=2,
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would put the last finite loss in the place of NaN
        include_num_input_tokens_seen="non_padding",
        remove_unused_columns=False,  # the default would strip what the collator reads
        activation_checkpointing=is_worth_it(model.llm, device) if wanted is None else wanted,
        ddp_find_unused_parameters=True,  # a batch need not hold a molecule
        ddp_broadcast_buffers=False,  # they are equal: frozen, or of a synchronised batch norm
        dataloader_pin_memory=device.type == "cuda",
        log_level_replica="error",  # the others would repeat what the leader keeps to itself
        report_to="none",  # bench.tracking mirrors the run directory instead
        disable_tqdm=True,
        use_cpu=device.type == "cpu",
    )
    return one_device(arguments)
