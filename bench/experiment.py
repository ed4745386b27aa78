"""A run from its configuration to its result, and the same run again after whatever stopped it."""

from __future__ import annotations

import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.collate import Collator, Layout, TokenisedExample
from bench.config import RunConfig
from bench.errors import UserError, is_user_error
from bench.evaluation import TrainedModel, ask, evaluation_missing, score, substitutes
from bench.identity import derived_seed
from bench.language_model import attach_lora, embedding_width, load
from bench.model import GraphLanguageModel
from bench.parsing import load_config, to_mapping
from bench.prepare import Prepared, prepare, rejections_csv
from bench.provenance import provenance
from bench.run_store import ErrorClass, RunDirectory, State, is_disk_error, read_json, write_json, write_text
from bench.runtime import Runtime
from bench.trainer import NotFiniteError, StageJob, StageOutcome, train_stage
from tasks.data import Catalogue

Mirror = Callable[[RunDirectory], None]
"""Told of a run directory whenever there is something new in it."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its folder and what `result.json` in it says."""

    run: RunDirectory
    summary: dict[str, Any]


def run(
    config: RunConfig,
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    mirror: Mirror = lambda _: None,
) -> RunResult:
    """Trains, predicts and scores whatever of a run is not done yet.

    Args:
        config: the run.
        runtime: where and on what.
        catalogue: the data sets known by name.
        fresh: throw away what an earlier session of this run left.
        retry_failed: try a run again that failed by NaN, lack of memory or an error.
        mirror: for tracking.

    Raises:
        UserError: the configuration or its data cannot be used, the run is being worked on, or it failed before.
    """
    prepared = prepare(config, runtime, catalogue)
    directory = run_directory(prepared, runtime)
    with directory.lock():
        if fresh:
            _empty(directory.path)
        _refuse_failed(directory, retry_failed)
        with _recorded(directory, mirror):
            return RunResult(directory, _work(prepared, directory, runtime, mirror))


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
    for override in overrides:
        if not override.startswith(("evaluation.", "graph_input.test")):
            raise UserError(
                f"--set {override}: only settings below `evaluation` and `graph_input.test` can change once a run is "
                "trained; use `molgraft run` for others"
            )
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


def run_directory(prepared: Prepared, runtime: Runtime) -> RunDirectory:
    """The folder of a run: an existing one of the same identity whatever its alias, else a new one."""
    existing = sorted(runtime.runs.glob(f"*-{prepared.train_id}"))
    name = f"{prepared.config.name}-s{prepared.config.seed}-{prepared.train_id}"
    return RunDirectory(existing[0] if existing else runtime.runs / name)


def build_model(prepared: Prepared, runtime: Runtime) -> tuple[GraphLanguageModel, Any]:
    """The model as it is before training, and its tokenizer. Each part has a seed of its own."""
    config = prepared.config
    llm, tokenizer = load(prepared.llm, config.llm.dtype)
    llm.requires_grad_(False)
    if any(stage.trains.llm == "lora" for stage in config.stages):
        with _seeded(config.seed, "lora"):
            llm = attach_lora(llm, config.llm.lora)
    with _seeded(config.seed, "encoder"):
        encoder = config.encoder.build()
    with _seeded(config.seed, "projector"):
        projector = config.projector.build(prepared.levels, embedding_width(llm))
    model = GraphLanguageModel(encoder, projector, llm, prepared.levels)
    return model.to(device_of(runtime)), tokenizer


def trained_model(prepared: Prepared, directory: RunDirectory, runtime: Runtime, log: Log) -> TrainedModel:
    """The model after all stages; stages that are finished here or in another run are taken from there."""
    config = prepared.config
    model, tokenizer = build_model(prepared, runtime)
    layout = Layout(
        tokenizer,
        config.prompt,
        config.text_input,
        config.encoder,
        config.projector,
        prepared.store,
        config.llm.max_length,
    )
    collator = Collator(prepared.store if config.projector.places_tokens else None, layout.padding)
    model.graph_input = config.graph_input.train
    for position, (stage, identity) in enumerate(zip(config.stages, prepared.stage_ids, strict=True)):
        folder = directory.stage(position, stage.name)
        training, validation = (
            _for_training(layout, prepared, position, part, log) for part in ("training", "validation")
        )
        job = StageJob(
            stage,
            identity,
            folder,
            training,
            validation,
            collator,
            derived_seed(config.seed, f"stage/{position}"),
            config.precision,
        )
        if job.outcome() is None:
            _adopt_finished(job, runtime, log)
            log.status("running", f"stage {stage.name}")
        outcome = train_stage(model, job, runtime, heartbeat=partial(log.status, "running", f"stage {stage.name}"))
        log.write(f"stage {stage.name}: {_in_words(outcome)}")
    return TrainedModel(model, layout, collator)


def device_of(runtime: Runtime) -> torch.device:
    """The device that `auto` means here, or the one that was asked for."""
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(runtime.device)
    except RuntimeError as error:
        raise UserError(f"--device {runtime.device}: {str(error).splitlines()[0]}") from None


class Log:
    """What a session says: to the log file, to the status, to who mirrors the run."""

    def __init__(self, directory: RunDirectory, mirror: Mirror) -> None:
        self._directory = directory
        self._mirror = mirror

    def write(self, message: str) -> None:
        """A line with the time."""
        with self._directory.log_file.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def status(self, state: State, phase: str) -> None:
        """Where the run stands."""
        self._directory.set_status(state, phase)
        self._mirror(self._directory)


def _work(prepared: Prepared, directory: RunDirectory, runtime: Runtime, mirror: Mirror) -> dict[str, Any]:
    config, log = prepared.config, Log(directory, mirror)
    log.status("running", "prepared")
    log.write(f"session begins; {prepared.train_id}")
    _write_description(prepared, directory)
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    stages_done = all(
        _is_finished(directory.stage(k, stage.name), identity)
        for k, (stage, identity) in enumerate(zip(config.stages, prepared.stage_ids, strict=True))
    )
    if not stages_done or evaluation_missing(prepared, directory):
        trained = trained_model(prepared, directory, runtime, log)
        _write_parameters(trained.model, prepared, directory)
        log.status("running", "generating")
        ask(trained, prepared, directory, runtime)
    log.status("running", "scoring")
    entries = score(prepared, directory, runtime)
    directory.set_status("done", "done")
    summary = _summary(prepared, directory, entries)
    write_json(directory.path / "result.json", summary)
    log.write("session ends; done")
    mirror(directory)
    return summary


def _summary(prepared: Prepared, directory: RunDirectory, entries: list[dict[str, Any]]) -> dict[str, Any]:
    config = prepared.config
    stages = []
    for position, stage in enumerate(config.stages):
        described = read_json(directory.stage(position, stage.name) / "stage.json")
        stages.append({"name": stage.name, "stage_id": described["stage_id"], **described["outcome"]})
    # Scores of earlier evaluations of this run (another split, another generation) stay beside the new ones.
    evaluations = {entry["predict_id"]: entry for entry in _earlier_entries(directory)}
    for entry in entries:
        earlier = evaluations.get(entry["predict_id"], {}).get("scores", [])
        fresh = {score["score_id"] for score in entry["scores"]}
        entry["scores"] += [score for score in earlier if score["score_id"] not in fresh]
        evaluations[entry["predict_id"]] = entry
    return {
        "name": config.name,
        "seed": config.seed,
        "cell_id": prepared.cell,
        "train_id": prepared.train_id,
        "encoder": config.encoder.name,
        "projector": config.projector.name,
        "llm": config.llm.name,
        "text_input": config.text_input.name,
        "graph_input": {"train": config.graph_input.train.name, "test": config.graph_input.test.name},
        "parameters": read_json(directory.path / "parameters.json"),
        "stages": stages,
        "scored_weights": f"{config.stages[-1].keep} of stage {config.stages[-1].name}",
        "evaluations": list(evaluations.values()),
        "rejected": {part: len(rows) for part, rows in prepared.rejections.items()},
        "seconds": directory.status().seconds,
    }


def _earlier_entries(directory: RunDirectory) -> list[dict[str, Any]]:
    file = directory.path / "result.json"
    entries: list[dict[str, Any]] = read_json(file)["evaluations"] if file.exists() else []
    return entries


def _write_description(prepared: Prepared, directory: RunDirectory) -> None:
    """The resolved configuration, what the run is made from, what was left out, and what a prompt looks like."""
    config = prepared.config
    write_text(directory.config_file, yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True))
    write_text(directory.path / "rejected.csv", rejections_csv(prepared.rejections))
    write_json(
        directory.manifest_file,
        {
            "train_id": prepared.train_id,
            "cell_id": prepared.cell,
            "stage_ids": list(prepared.stage_ids),
            "data": prepared.sources,
            "examples": {
                "training": [len(data.training) for data in prepared.stages],
                "validation": [len(data.validation) for data in prepared.stages],
                "evaluation": [len(data.examples) for data in prepared.evaluations],
            },
            "rejected": {part: len(rows) for part, rows in prepared.rejections.items()},
            "llm": {"origin": prepared.llm.origin, "identity": prepared.llm.identity},
            "features": prepared.store.folder.name,
            "prompts": _sample_prompts(prepared),
            "generation": asdict(config.evaluation.generation),
            "scored_weights": f"{config.stages[-1].keep} of stage {config.stages[-1].name}",
            "made_with": provenance(),
        },
    )


def _sample_prompts(prepared: Prepared) -> list[dict[str, str]]:
    from tasks.prompts import as_text, prompt_of, render

    config = prepared.config
    samples = []
    for data in prepared.evaluations:
        example = data.examples[0]
        segments = render(example, config.prompt, config.text_input, graph=config.projector.places_tokens)
        prompt = prompt_of(segments)
        samples.append(
            {
                "task": data.task.name,
                "example_id": example.id,
                "prompt": as_text(prompt),
                "answer": as_text(segments[len(prompt) :]),
            }
        )
    return samples


def _write_parameters(model: GraphLanguageModel, prepared: Prepared, directory: RunDirectory) -> None:
    """Parameters per part, and how many of them any stage trains."""
    counts = dict.fromkeys(("encoder", "projector", "llm", "adapters"), 0)
    trained: set[str] = set()
    for stage in prepared.config.stages:
        model.freeze(stage.trains)
        trained |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trainable = dict(counts)
    for name, parameter in model.named_parameters():
        part = "adapters" if "lora_" in name else name.partition(".")[0]
        counts[part] += parameter.numel()
        trainable[part] += parameter.numel() if name in trained else 0
    write_json(
        directory.path / "parameters.json",
        {"total": counts, "trained": trainable, "trained_sum": sum(trainable.values())},
    )


def _for_training(layout: Layout, prepared: Prepared, position: int, part: str, log: Log) -> list[TokenisedExample]:
    """Tokenised examples of a stage, answers cut to the longest length; what is lost that way is said."""
    config, data = prepared.config, prepared.stages[position]
    examples = data.training if part == "training" else data.validation
    seed = derived_seed(config.seed, f"graph_input/{part}")
    tokenised = layout.tokenise(examples, substitutes(config.graph_input.train, examples, prepared.store, seed))
    fitting = [example for example in tokenised if layout.fits(example)]
    cut = [layout.truncated(example) for example in fitting]
    too_long, shortened = len(tokenised) - len(fitting), sum(example.cut > 0 for example in cut)
    if too_long or shortened:
        log.write(
            f"{part} of stage {config.stages[position].name}: {shortened} of {len(tokenised)} answers cut at "
            f"llm.max_length {config.llm.max_length}; {too_long} left out, since the prompt alone is longer"
        )
    if not cut:
        raise UserError(f"llm.max_length: is {config.llm.max_length}, and every {part} prompt alone is longer")
    return cut


def _adopt_finished(job: StageJob, runtime: Runtime, log: Log) -> None:
    """Takes a stage of the same identity that another run has finished."""
    for report in sorted(runtime.runs.glob("*/stages/*/stage.json")):
        if report.parent != job.folder and _is_finished(report.parent, job.identity):
            job.folder.mkdir(parents=True, exist_ok=True)
            for name in ("final.safetensors", "steps.jsonl", "metrics.jsonl", "stage.json"):
                write = job.folder / f".{name}-adopted"
                shutil.copyfile(report.parent / name, write)
                write.replace(job.folder / name)
            log.write(f"stage {job.stage.name}: taken from {report.parent}, which has the same identity")
            return


def _is_finished(folder: Path, identity: str) -> bool:
    report = folder / "stage.json"
    return report.exists() and (folder / "final.safetensors").exists() and read_json(report)["stage_id"] == identity


@contextmanager
def _recorded(directory: RunDirectory, mirror: Mirror) -> Iterator[None]:
    """Writes down how a session ends if it does not end well."""
    before = signal.getsignal(signal.SIGTERM)
    if _in_main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except BaseException as error:
        state, kind = _classified(error, directory)
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        try:
            with directory.log_file.open("a", encoding="utf-8") as file:
                file.write("".join(traceback.format_exception(error)))
            directory.set_status(state, directory.status().phase, kind, message)
            mirror(directory)
        except OSError as second:  # the disk may be what failed; the first error is the one to tell
            error.add_note(f"its status could not be written either: {second}")
        raise
    finally:
        if _in_main_thread():
            signal.signal(signal.SIGTERM, before)


def _classified(error: BaseException, directory: RunDirectory) -> tuple[State, ErrorClass | None]:
    if isinstance(error, NotFiniteError):
        return "failed", "nan"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "failed", "oom"
    if is_disk_error(error, directory.path):
        return "interrupted", "disk"
    if is_user_error(error) or not isinstance(error, Exception):
        return "interrupted", None
    return "failed", "error"


def _refuse_failed(directory: RunDirectory, retry_failed: bool) -> None:
    status = directory.status()
    if status.state == "failed" and not retry_failed:
        raise UserError(
            f"{directory.path} failed before ({status.error}, in {status.phase}): {status.message}. "
            "Run with --retry-failed to go on from its last checkpoint, or --fresh to start over."
        )


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.name != "lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, purpose))
        yield


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _in_words(outcome: StageOutcome) -> str:
    losses = ", ".join(f"{step}: {loss:.4f}" for step, loss in outcome.validation.items())
    return (
        f"{outcome.steps} steps, {outcome.tokens} tokens, {outcome.seconds:.1f} s; validation loss by step {losses}; "
        f"hands on the {outcome.kept} weights, of step {outcome.kept_step}"
    )
