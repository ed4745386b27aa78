"""A run from its configuration to its result, and the same run again after whatever stopped it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load_file

from bench.adoption import is_finished, training_alone
from bench.attention import attend_by_sequence, can_pack
from bench.batch_norm import refuse_or_synchronise
from bench.busy import refuse_busy
from bench.collate import Collator
from bench.config import RunConfig
from bench.device import device_of, seeded
from bench.distributed import ALONE, share_of
from bench.errors import ConfigError, UserError
from bench.evaluation import ask, evaluation_missing, score, score_missing
from bench.identity import derived_seed
from bench.isolation import isolated
from bench.kernels import require_kernels
from bench.language_model import attach_lora, embedding_width, embeddings_in_full_precision, load, text_embeddings
from bench.layout import Layout
from bench.level_cache import with_cached_levels
from bench.model import GraphLanguageModel
from bench.pieces import for_stage, in_words, limits_of, within_memory
from bench.prepare import Prepared, prepare
from bench.preset import load_config
from bench.reading import subset
from bench.record import count_parameters, describe, summarise
from bench.released.base import needs_adapters
from bench.run_store import RunDirectory, read_json, write_json
from bench.runtime import Runtime
from bench.session import (
    Log,
    Mirror,
    Silent,
    Validated,
    Watch,
    disk_errors_told,
    ended_by_sigterm,
    nobody,
    recorded,
    refuse_failed,
)
from bench.session_account import begin_session, end_session, note_in_session
from bench.sharded import forget_sharding, sharding
from bench.stage import StageJob, train_stage
from bench.stage_examples import for_training
from bench.trained_model import TrainedModel
from encoders.base import MoleculeBatch
from tasks.data import Catalogue

_SAMPLE = 256  # molecules, for inputs that match the moments of training molecules


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run.

    Args:
        run: its folder, which may have been made under another alias.
        name: the alias that was asked for.
        summary: what `result.json` says.
    """

    run: RunDirectory
    name: str
    summary: dict[str, Any]


def run(
    config: RunConfig,
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    mirror: Mirror = lambda _: None,
    watch: Watch = nobody,
) -> RunResult:
    """Trains, predicts and scores whatever of a run is not done yet.

    Args:
        config: the run.
        runtime: where and on what.
        catalogue: the data sets known by name.
        fresh: throw away what an earlier session of this run left.
        retry_failed: try a run again that failed by NaN, lack of memory or an error.
        mirror: for tracking.
        watch: told of each validation of training; it may end the training early.

    Raises:
        UserError: the configuration or its data cannot be used, the run is being worked on, or it failed before.
        StoppedEarlyError: the watcher ended the training.
    """
    with isolated(config.seed, runtime.threads), ended_by_sigterm():
        refuse_busy(config, runtime, catalogue or Catalogue())
        with disk_errors_told(runtime.runs, runtime.cache_folder("")):
            prepared = _prepared_together(config, runtime, catalogue)
        directory = run_directory(prepared, runtime)
        with directory.lock():
            if fresh:
                _empty(directory.path)
            refuse_failed(directory, retry_failed)
            if directory.status().state == "done" and not score_missing(prepared, directory):
                mirror(directory)
                runtime.processes.agreed(lambda: None)  # there is nothing to train together
                return RunResult(directory, config.name, read_json(directory.result_file))
            runtime = within_memory(prepared.config, runtime, directory, directory.status())
            with recorded(directory, mirror):
                summary = _work(prepared, directory, runtime, Log(directory, mirror, watch))
                return RunResult(directory, config.name, summary)


def follow(config: RunConfig, runtime: Runtime, *, catalogue: Catalogue | None = None) -> None:
    """What the processes do that do not lead: they train, and leave all else to the leader, who runs `run`.

    Args:
        config: the run.
        runtime: where, on what, and which process this is.
        catalogue: the data sets known by name.

    Raises:
        EndedElsewhereError: the leader cannot run it, and says why.
        UserError: what the leader wrote cannot be seen from here.
    """
    runtime = replace(runtime, progress=False, console=Console(quiet=True))
    with isolated(config.seed, runtime.threads):
        prepared = _prepared_together(config, runtime, catalogue)
        directory = run_directory(prepared, runtime)
        limits = runtime.processes.agreed(lambda: None)
        if limits is None:
            return
        if not directory.path.is_dir():
            raise UserError(
                f"--runs {runtime.runs}: is not seen by all processes; give a folder that all machines share"
            )
        after_oom = frozenset(limits["after_oom"])
        runtime = replace(runtime, micro_batch=limits["micro_batch"], after_oom=after_oom)
        trained_model(prepared, directory, runtime, Silent(directory))
        runtime.processes.part()


def _prepared_together(config: RunConfig, runtime: Runtime, catalogue: Catalogue | None) -> Prepared:
    """Data, features and a small language model; made by the leader, and read by the others when they are there."""
    if sharding() is not None and config.llm.quantisation != "none":
        raise ConfigError(
            "llm.quantisation",
            f"is {config.llm.quantisation}; {sharding()} deals out no quantised weights: use DDP, or set `none`",
        )
    for stage in config.stages:
        share_of(stage, runtime.processes.world, runtime.micro_batch)
    runtime.processes.join()
    return runtime.processes.first(lambda: prepare(config, runtime, catalogue))


def evaluate_run(
    folder: Path,
    runtime: Runtime,
    overrides: Sequence[str] = (),
    *,
    catalogue: Catalogue | None = None,
    mirror: Mirror = lambda _: None,
) -> RunResult:
    """Asks a trained run something else: another split, other examples, another generation or other protocols.

    Args:
        folder: the run directory.
        runtime: where and on what; its `runs` is the folder that the run is in.
        overrides: settings below `evaluation` and `graph_input.test`; others would make another run.
        catalogue: the data sets known by name.
        mirror: for tracking.

    Raises:
        UserError: a setting is not one of these, or what the run was trained from has changed since.
    """
    refuse_other_settings(overrides)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: is no run directory; it has no config.yaml")
    config = load_config(str(folder / "config.yaml"), overrides)
    runtime = replace(runtime, runs=folder.resolve().parent)
    prepared = prepare(config, runtime, catalogue)
    known = read_json(folder / "manifest.json")
    if prepared.train_id != known["train_id"]:
        raise UserError(
            f"{folder}: what it was trained from has changed: its identity would now be {prepared.train_id}. Its data "
            f"were {', '.join(s['file'] + ' ' + s['sha256'][:12] for s in known['data'].values())}"
        )
    return run(config, runtime, catalogue=catalogue, mirror=mirror)


def refuse_other_settings(overrides: Sequence[str]) -> None:
    """Stops where settings of a trained model are to change that would make another one.

    Raises:
        UserError: one is not below `evaluation` or `graph_input.test`.
    """
    for override in overrides:
        if not override.startswith(("evaluation.", "graph_input.test")):
            raise UserError(
                f"--set {override}: only settings below `evaluation` and `graph_input.test` can change once a run is "
                "trained; use `molgraft run` for others"
            )


def run_directory(prepared: Prepared, runtime: Runtime) -> RunDirectory:
    """The folder of a run: an existing one of the same identity whatever its alias, else a new one."""
    existing = sorted(runtime.runs.glob(f"*-{prepared.train_id}"))
    name = f"{prepared.config.name}-s{prepared.config.seed}-{prepared.train_id}"
    return RunDirectory(existing[0] if existing else runtime.runs / name)


def build_model(prepared: Prepared, runtime: Runtime) -> tuple[GraphLanguageModel, Any]:
    """The model as it is before training, and its tokenizer. Each part has a seed of its own."""
    config = prepared.config
    llm, tokenizer = load(
        prepared.llm, config.llm.dtype, quantisation=config.llm.quantisation, device=device_of(runtime)
    )
    if any(stage.trains.embeddings == "full" for stage in config.stages):
        embeddings_in_full_precision(llm)
    context = getattr(llm.config, "max_position_embeddings", None)
    if context is not None and config.llm.max_length > int(context):  # type: ignore[call-overload]
        raise ConfigError(
            "llm.max_length", f"is {config.llm.max_length}, and the model was made for at most {context} tokens"
        )
    llm.requires_grad_(False)
    if needs_adapters(config):
        with seeded(config.seed, "lora"):
            llm = attach_lora(llm, config.llm.lora)
    with seeded(config.seed, "encoder"):
        encoder = config.encoder.build()
    config.encoder.load(encoder)
    with seeded(config.seed, "projector"):
        projector = config.projector.build(prepared.levels, embedding_width(llm))
    config.projector.prepare(projector, partial(text_embeddings, llm, tokenizer))
    config.projector.load(projector)
    trainable = config.encoder.is_trainable
    model = GraphLanguageModel(encoder, projector, llm, prepared.levels, encoder_is_trainable=trainable)
    if config.released is not None:
        model.load_state(config.released.read(model))
    return model.to(device_of(runtime)), tokenizer


def trained_model(prepared: Prepared, directory: RunDirectory, runtime: Runtime, log: Log) -> TrainedModel:
    """The model after all stages; stages that are finished here or in another run are taken from there."""
    config, group = prepared.config, runtime.processes
    # A model that is dealt out over processes goes to their accelerators piece by piece.
    at_first = runtime if sharding() is None else replace(runtime, device="cpu")
    model, tokenizer = build_model(prepared, at_first)
    layout = Layout(
        tokenizer,
        config.prompt,
        config.text_input,
        config.encoder,
        config.projector,
        prepared.store,
        config.llm.max_length,
        shared=(runtime.memo, prepared.llm.identity),
    )
    store = prepared.store if config.projector.places_tokens else None
    packs = config.llm.packing and can_pack(model.llm)
    collator = Collator(store, layout.padding, with_context=config.projector.reads_context, packs=packs)
    sample = _sample(prepared, collator)
    model.read_graphs(config.graph_input.train, sample=sample)
    left = group.agreed(lambda: _unfinished(prepared, directory))
    for position in left:  # found out now, and not after the stages before
        model.freeze(config.stages[position].trains)
        refuse_or_synchronise(model, config.stages[position], for_stage(model, config.stages[position], runtime)[0])
    if left:
        architecture = getattr(model.llm.config, "model_type", None)
        require_kernels(config.llm, architecture, device_of(runtime), several=group.several)
        group.meet(device_of(runtime).type)
        if config.llm.packing and not packs and group.leads:
            note_in_session(directory, "padded batches: the language model's attention does not tell sequences apart")
    steps = 0
    for position, (stage, identity) in enumerate(zip(config.stages, prepared.stage_ids, strict=True)):
        folder = directory.stage(position, stage.name)
        laid_out = replace(layout, style=config.prompted_as(stage), text_input=config.written_in(stage))
        training, validation = (
            for_training(laid_out, prepared, position, part, log) for part in ("training", "validation")
        )
        job = StageJob(
            stage,
            identity,
            folder,
            training,
            validation.first,
            collator,
            derived_seed(config.seed, f"stage/{position}"),
            config.precision,
            config.llm.kernels,
        )
        heartbeat = partial(log.status, "running", f"stage {stage.name}")
        validated = partial(_tell, log, stage.name, position, steps)
        kind = "deepspeed" if sharding() == "deepspeed" else "whole"
        alone = training_alone(directory, folder, identity, log, kind) if group.leads else nullcontext()
        with alone:
            model.freeze(stage.trains)
            job = with_cached_levels(job, model, prepared, position, runtime)
            limited, pieces = for_stage(model, stage, runtime)
            if group.leads and pieces and job.outcome() is None:
                note_in_session(directory, pieces)
            outcome = train_stage(model, job, limited, heartbeat=heartbeat, validated=validated)
        steps += outcome.steps
        log.write(f"stage {stage.name}: {outcome.in_words()}")
        if sharding() is not None:
            model = _whole_again(prepared, directory, position, at_first, sample, packs=packs)
    if sharding() is not None:
        model.to(device_of(runtime))
    asked = replace(layout, style=config.asked_as, text_input=config.asked_in)
    return TrainedModel(model, asked, collator, sample)


def _tell(log: Log, stage: str, position: int, steps_before: int, step: int, loss: float) -> None:
    """Tells the watcher of a validation."""
    log.watch(Validated(stage, position, step, steps_before, loss))


def _whole_again(
    prepared: Prepared,
    directory: RunDirectory,
    position: int,
    runtime: Runtime,
    sample: MoleculeBatch | None,
    *,
    packs: bool,
) -> GraphLanguageModel:
    """A model that is not dealt out over processes, with the weights of all stages so far; packing as before."""
    forget_sharding()
    model, _ = build_model(prepared, runtime)
    for number, stage in enumerate(prepared.config.stages[: position + 1]):
        model.load_state(load_file(directory.stage(number, stage.name) / "final.safetensors"))
    model.read_graphs(prepared.config.graph_input.train, sample=sample)
    if packs:
        attend_by_sequence(model.llm)
    return model


def _sample(prepared: Prepared, collator: Collator) -> MoleculeBatch | None:
    """Some molecules of the training examples; which does not depend on the run's seed."""
    if not prepared.stages:
        return None
    examples = subset(prepared.stages[0].training, _SAMPLE)  # whatever later stages train on, the first is the same
    molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
    return collator.store.batch(molecules[:_SAMPLE]) if collator.store is not None else None


def _work(prepared: Prepared, directory: RunDirectory, runtime: Runtime, log: Log) -> dict[str, Any]:
    describe(prepared, directory)
    begin_session(directory, directory.found, limits=limits_of(runtime))
    log.status("running", "prepared")
    log.write(f"session begins; {prepared.train_id}")
    runtime = replace(runtime, heartbeat=log.beat)
    group, trains = runtime.processes, bool(_unfinished(prepared, directory))
    limits = {"micro_batch": runtime.micro_batch, "after_oom": sorted(runtime.after_oom)}
    together = bool(group.agreed(lambda: limits if trains else None))
    if trains or evaluation_missing(prepared, directory):
        trained = trained_model(prepared, directory, runtime if together else replace(runtime, processes=ALONE), log)
        if together:
            group.part()
        count_parameters(trained.model, prepared, directory)
        log.status("running", "generating")
        asked_at_once = prepared.config.evaluation.generation.batch_size
        if (rows := runtime.asking_micro_batch or asked_at_once) < asked_at_once:
            note_in_session(directory, in_words("answers", rows, runtime, "asking"))
        ask(trained, prepared, directory, runtime)
    log.status("running", "scoring")
    entries = score(prepared, directory, runtime)
    log.status("running", "writing the result")
    summary = summarise(prepared, directory, entries)
    write_json(directory.result_file, summary)
    log.write("session ends; done")
    end_session(directory, "done", "done")
    log.status("done", "done")
    return summary


def _unfinished(prepared: Prepared, directory: RunDirectory) -> list[int]:
    """Positions of the stages that are still to be trained, or to be taken from another run."""
    stages = enumerate(zip(prepared.config.stages, prepared.stage_ids, strict=True))
    return [k for k, (stage, identity) in stages if not is_finished(directory.stage(k, stage.name), identity)]


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.name != "lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
