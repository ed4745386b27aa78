"""A dry run: what a configuration would do, without training, downloading or writing anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from bench.config import TINY, RunConfig, Stage
from bench.device import device_of
from bench.errors import ConfigError, is_user_error
from bench.kernels import require_kernels
from bench.known_models import configuration, known_architecture, known_architectures, skeleton_of
from bench.language_model import (
    DTYPES,
    attach_lora,
    embedding_width,
    embeddings_in_full_precision,
    load_skeleton,
    locate,
)
from bench.lengths import Lengths, assumed, measured, stand_in_tokenizer
from bench.memory import described, generation_memory, stage_memory
from bench.model import GraphLanguageModel, wire
from bench.model_files import contents
from bench.parsing import to_mapping
from bench.prepare import fitting_protocols
from bench.quantisation import require_bitsandbytes
from bench.reading import subset
from bench.released.base import needs_adapters
from bench.runtime import Runtime
from tasks.base import Example, Split, Task
from tasks.data import Catalogue
from tasks.prompts import PromptStyle, TextInput, UnwritableMoleculeError, as_text, render

_PROMPTS = 3
_REASONS = 5
# Entries of a tokenizer that stands in for one that is not here; few, for general ones take molecules apart finely.
_STAND_IN = 1000


def inspect(config: RunConfig, runtime: Runtime, catalogue: Catalogue) -> dict[str, Any]:
    """What a run of this configuration would be; what is missing for it is listed under `missing`.

    Raises:
        ConfigError: the parts do not fit together, or the configuration cannot be used.
    """
    missing: list[str] = []
    parts = {"encoder": config.encoder, "projector": config.projector, "released": config.released}
    for part, declared in parts.items():
        if declared is not None:
            _collect(missing, lambda d=declared, p=part: contents(d.sources(), replace(runtime, offline=True), p))
    levels = wire(config.encoder, config.projector)
    tasks = [_read(config, task, catalogue, missing) for task in _tasks(config)]
    for task in config.evaluation_tasks():
        for protocol in fitting_protocols(config.evaluation.protocols, task):
            _collect(missing, lambda p=protocol, t=task: p.identity(t.answer))
    _collect(missing, lambda: require_bitsandbytes(config.llm.quantisation))
    model = _model(config, levels, runtime, missing)
    if config.stages and config.llm.kernels != "eager":
        architecture = getattr(model.llm.config, "model_type", None) if model else None
        _collect(missing, lambda: require_kernels(config.llm, architecture, device_of(runtime)))
    tokenizer = _tokenizer(config, runtime, tasks)
    asked = _asked_lengths(config, tasks, tokenizer)
    return {
        "config": to_mapping(config),
        "levels": dict(levels),
        "tasks": [
            {
                "task": read.task.name,
                "data": read.task.data,
                "examples": {split: len(found) for split, found in read.examples.items()},
                "left_out": {split: reasons for split, reasons in read.left_out.items() if reasons},
                "prompts": _prompts(config, read),
            }
            for read in tasks
        ],
        "stages": [_stage(config, stage, tasks, model, tokenizer, catalogue) for stage in config.stages],
        "parameters": _parameters(model) if model else None,
        "generation": {
            "longest_prompt": asked.prompt,
            "measured_on": asked.examples,
            "memory_gib": described(generation_memory(config, model, asked.prompt)) if model else None,
        },
        "missing": missing,
    }


@dataclass(frozen=True, slots=True)
class _Read:
    """A task's examples by split, and how many rows were left out for which reason."""

    task: Task
    examples: Mapping[Split, Sequence[Example]]
    left_out: Mapping[Split, Mapping[str, int]]


def _tasks(config: RunConfig) -> list[Task]:
    """Every task that is trained or asked, each once."""
    trained = [weighted.task for stage in config.stages for weighted in config.training_tasks(stage)]
    tasks = [*trained, *config.evaluation_tasks()]
    return [task for place, task in enumerate(tasks) if task not in tasks[:place]]


def _read(config: RunConfig, task: Task, catalogue: Catalogue, missing: list[str]) -> _Read:
    trained = any(task == weighted.task for stage in config.stages for weighted in config.training_tasks(stage))
    splits: tuple[Split, ...] = ("train", "validation") if trained else ()
    splits += (config.evaluation.split,) * (task in config.evaluation_tasks())
    examples: dict[Split, Sequence[Example]] = {}
    left_out: dict[Split, Mapping[str, int]] = {}
    for split in dict.fromkeys(splits):
        found = _collect(missing, lambda s=split: task.examples(s, catalogue))
        if found is not None:
            examples[split] = found[0]
            left_out[split] = dict(Counter(rejection.reason for rejection in found[1]).most_common(_REASONS))
    return _Read(task, examples, left_out)


def _seen(config: RunConfig, stage: Stage, tasks: Sequence[_Read], catalogue: Catalogue) -> tuple[int | None, bool]:
    """The training examples of a stage, and whether all were read; None where nothing tells how many there are.

    Where the files are not here, the description of the data set may still say how many rows they have.
    """
    mixture = [weighted.task for weighted in config.training_tasks(stage)]
    total, whole = 0, True
    for read in (read for task in mixture for read in tasks if read.task == task):
        if "train" in read.examples:
            count: int | None = len(read.examples["train"])
        else:
            count, whole = _described_rows(read.task, catalogue), False
        if count is None:
            return None, False
        total += min(count, config.limits.train or count)
    return total, whole


def _described_rows(task: Task, catalogue: Catalogue) -> int | None:
    """The rows of a training split as the data set's description counts them, or None."""
    try:
        dataset = catalogue.get(task.data)
    except Exception as error:
        if not is_user_error(error):
            raise
        return None
    described_splits, method = dataset.description.splits, dataset.method
    if method is None:
        return next((source.rows for source in described_splits.get("train", ()) if source.rows is not None), None)
    firsts = [sources[0].rows for sources in described_splits.values()]
    if any(rows is None for rows in firsts):
        return None
    return round(method.fractions[0] * sum(rows for rows in firsts if rows is not None))


def _prompts(config: RunConfig, read: _Read) -> list[dict[str, str]]:
    """Some examples as they are written, of the training split where there is one, in each way that the run has."""
    examples = subset(next((found for found in read.examples.values() if found), ()), config.limits.train)[:_PROMPTS]
    ways: dict[tuple[PromptStyle, TextInput], list[str]] = {}
    for stage in config.stages:
        if any(read.task == weighted.task for weighted in config.training_tasks(stage)):
            ways.setdefault((config.prompted_as(stage), config.written_in(stage)), []).append(f"stage {stage.name}")
    if read.task in config.evaluation_tasks():
        ways.setdefault((config.asked_as, config.asked_in), []).append("evaluation")
    graph = config.projector.places_tokens
    return [
        {"example_id": example.id, "where": ", ".join(where), "text": text}
        for way, where in ways.items()
        for example in examples
        if (text := _prompt(example, *way, graph=graph)) is not None
    ]


def _collect(missing: list[str], attempt: Any) -> Any:
    """The result of `attempt`; a user's error becomes an entry of `missing`, so that one run shows them all."""
    try:
        return attempt()
    except Exception as error:
        if not is_user_error(error):
            raise
        if str(error) not in missing:
            missing.append(str(error))
        return None


def _model(
    config: RunConfig, levels: Mapping[str, int], runtime: Runtime, missing: list[str]
) -> GraphLanguageModel | None:
    """The whole model on the meta device, which has shapes but no memory."""
    llm = _collect(missing, lambda: _skeleton(config, runtime, missing))
    if llm is None:
        return None
    if any(stage.trains.embeddings == "full" for stage in config.stages):
        embeddings_in_full_precision(llm)
    with torch.device("meta"):
        if _collect(missing, lambda: needs_adapters(config)):
            llm = attach_lora(llm, config.llm.lora)
        encoder, projector = config.encoder.build(), config.projector.build(levels, embedding_width(llm))
    model = GraphLanguageModel(encoder, projector, llm, levels, encoder_is_trainable=config.encoder.is_trainable)
    if config.released is not None:
        _collect(missing, partial(config.released.account, model))
    return model


def _skeleton(config: RunConfig, runtime: Runtime, missing: list[str]) -> nn.Module:
    """The language model on the meta device: of its files, or where they are not here, of its known shape."""
    llm, dtype = config.llm, DTYPES[config.llm.dtype]
    if llm.weights == "random":
        return skeleton_of(configuration(known_architecture(llm.name)), dtype)
    if llm.name == TINY:
        from bench.pretrain_lm import architecture

        return skeleton_of(architecture(llm.tiny, llm.tiny.vocabulary), dtype)
    try:
        return load_skeleton(locate(llm, replace(runtime, offline=True)), llm.dtype)
    except ConfigError as error:
        if llm.name not in known_architectures():
            raise
        missing.append(f"{error} (its shape is known; `llm.weights: random` needs no more)")
        return skeleton_of(configuration(known_architecture(llm.name)), dtype)


def _tokenizer(config: RunConfig, runtime: Runtime, tasks: Sequence[_Read]) -> Any:
    """The tokenizer, or a small one of the task's text in its place; None where there is neither.

    The latter is what runs make that have no other; where a published tokenizer is not here it gives lengths roughly.
    """
    llm = config.llm
    if llm.name != TINY and llm.weights == "pretrained":
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                locate(llm, replace(runtime, offline=True)).path, local_files_only=True, trust_remote_code=False
            )
        except (ConfigError, OSError, ValueError, KeyError):
            pass  # what is wrong with it is listed already
    examples = [example for read in tasks for example in read.examples.get("train", ())]
    vocabulary = llm.tiny.vocabulary if llm.name == TINY else _STAND_IN
    return stand_in_tokenizer(subset(examples, config.limits.train), vocabulary) if examples else None


def _lengths(
    config: RunConfig,
    examples: Sequence[Example],
    tokenizer: Any,
    batch: int,
    written: tuple[PromptStyle, TextInput],
    *,
    grouped: bool = False,
) -> Lengths:
    if tokenizer is None or not examples:
        return assumed(config, batch)
    try:
        return measured(config, examples, tokenizer, batch, written, grouped=grouped)
    except Exception as error:
        if not is_user_error(error):
            raise
        return assumed(config, batch)  # what lacks is listed already


def _asked_lengths(config: RunConfig, tasks: Sequence[_Read], tokenizer: Any) -> Lengths:
    mine = (read for read in tasks if read.task in config.evaluation_tasks())
    asked = [example for read in mine for example in read.examples.get(config.evaluation.split, ())]
    return _lengths(
        config, asked, tokenizer, config.evaluation.generation.batch_size, (config.asked_as, config.asked_in)
    )


def _parameters(model: GraphLanguageModel) -> dict[str, int]:
    counts = {"encoder": 0, "projector": 0, "llm": 0, "adapters": 0}
    for name, parameter in model.named_parameters():
        counts["adapters" if "lora_" in name else name.partition(".")[0]] += parameter.numel()
    return counts


def _stage(
    config: RunConfig,
    stage: Stage,
    tasks: Sequence[_Read],
    model: GraphLanguageModel | None,
    tokenizer: Any,
    catalogue: Catalogue,
) -> dict[str, Any]:
    examples, whole = _seen(config, stage, tasks, catalogue)
    mixture = [weighted.task for weighted in config.training_tasks(stage)]
    here = [e for r in tasks if r.task in mixture for e in subset(r.examples.get("train", ()), config.limits.train)]
    written = (config.prompted_as(stage), config.written_in(stage))
    lengths = _lengths(config, here, tokenizer, stage.batch_size, written, grouped=stage.length_groups)
    per_step = stage.batch_size * stage.accumulation
    steps = stage.steps
    if steps is None and examples is not None:
        steps = math.ceil((stage.epochs or 0) * math.ceil(examples / per_step))
    memory = None if model is None else stage_memory(config, stage, model, lengths, stage.batch_size)
    return {
        "name": stage.name,
        "steps": steps,
        "examples": examples,
        "examples_are": "read" if whole else "as described" if examples is not None else "unknown",
        "examples_per_step": per_step,
        "epochs": round(steps * per_step / examples, 2) if steps and examples else stage.epochs,
        "trained": None if model is None else _trained(model, stage),
        "trained_by_part": None if model is None else _trained_by_part(model, stage),
        "lengths": asdict(lengths),
        "stand_in": tokenizer is not None and tokenizer.name_or_path == "",
        "memory_gib": None if memory is None else described(memory),
    }


def _trained(model: GraphLanguageModel, stage: Stage) -> int:
    model.freeze(stage.trains)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not count:
        raise ConfigError("stages", f"stage {stage.name!r} has no parameter to train: the parts it trains have none")
    return count


def _trained_by_part(model: GraphLanguageModel, stage: Stage) -> dict[str, int]:
    model.freeze(stage.trains)
    counts = dict.fromkeys(("encoder", "projector", "embeddings", "llm", "adapters"), 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts["adapters" if "lora_" in name else model.part_of(name)] += parameter.numel()
    return counts


def _prompt(example: Example, style: PromptStyle, text_input: TextInput, *, graph: bool) -> str | None:
    """An example as it is written; None for one whose molecule cannot be, which a run leaves out and lists."""
    try:
        return as_text(render(example, style, text_input, graph=graph), end="<end>")
    except UnwritableMoleculeError:
        return None
