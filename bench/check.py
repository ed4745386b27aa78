"""A dry run: what a configuration would do, without training, downloading or writing anything."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from torch import nn

from bench.config import TINY, RunConfig, Stage
from bench.errors import ConfigError, is_user_error
from bench.language_model import attach_lora, embedding_width, load_skeleton, locate
from bench.model import GraphLanguageModel, wire
from bench.model_files import contents
from bench.parsing import to_mapping
from bench.prepare import fitting_protocols, subset
from bench.runtime import Runtime
from tasks.base import Example, Split, Task
from tasks.data import Catalogue
from tasks.prompts import UnwritableMoleculeError, as_text, render

_BYTES = {"fp32": 4, "bf16": 2}
_PROMPTS = 3
_REASONS = 5
_PER_TRAINED = 16  # fp32 weight, gradient and AdamW's two moments


def inspect(config: RunConfig, runtime: Runtime, catalogue: Catalogue) -> dict[str, Any]:
    """What a run of this configuration would be; what is missing for it is listed under `missing`.

    Raises:
        ConfigError: the parts do not fit together, or the configuration cannot be used.
    """
    missing: list[str] = []
    for part, declared in (("encoder", config.encoder), ("projector", config.projector)):
        _collect(missing, lambda d=declared, p=part: contents(d.sources(), replace(runtime, offline=True), p))
    levels = wire(config.encoder, config.projector)
    tasks = [_read(config, task, catalogue, missing) for task in _tasks(config)]
    for task in config.evaluation_tasks():
        for protocol in fitting_protocols(config.evaluation.protocols, task):
            _collect(missing, lambda p=protocol, t=task: p.identity(t.answer))
    model = _model(config, levels, runtime, missing)
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
        "stages": [_stage(stage, _seen(config, stage, tasks), model) for stage in config.stages],
        "parameters": _parameters(model) if model else None,
        "memory_gib": _memory(config, model) if model else None,
        "missing": missing,
    }


def report(found: Mapping[str, Any]) -> str:
    """The same for people."""
    lines = [yaml.safe_dump(found["config"], sort_keys=False, allow_unicode=True).rstrip(), ""]
    levels = ", ".join(f"{level} ({width})" for level, width in found["levels"].items()) or "none"
    lines.append(f"levels read from the encoder: {levels}")
    for task in found["tasks"]:
        counts = ", ".join(f"{split} {count:,}" for split, count in task["examples"].items())
        lines.append(f"task {task['task']} on {task['data']}: {counts or 'no examples here'}")
        for split, reasons in task["left_out"].items():
            shown = "; ".join(f"{count:,}: {reason}" for reason, count in reasons.items())
            lines.append(f"  left out of {split}: {shown}")
    if found["parameters"]:
        counts = ", ".join(f"{part} {count:,}" for part, count in found["parameters"].items())
        lines.append(f"parameters: {counts}")
    for stage in found["stages"]:
        trained = "" if stage["trained"] is None else f", trains {stage['trained']:,} parameters"
        lines.append(f"stage {stage['name']}: {stage['steps']} steps of {stage['examples_per_step']} examples{trained}")
    if found["memory_gib"]:
        memory = ", ".join(f"{what} {gib:.2f}" for what, gib in found["memory_gib"].items())
        lines.append(f"memory in GiB, activations not counted: {memory}")
    for task in found["tasks"]:
        for prompt in task["prompts"]:
            lines += ["", f"{task['task']}, example {prompt['example_id']}:", prompt["text"]]
    lines += ["", *(f"MISSING: {what}" for what in found["missing"])]
    return "\n".join(lines).rstrip()


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


def _seen(config: RunConfig, stage: Stage, tasks: Sequence[_Read]) -> int:
    """The training examples of a stage."""
    mixture = [weighted.task for weighted in config.training_tasks(stage)]
    counts = [len(read.examples.get("train", ())) for read in tasks if read.task in mixture]
    return sum(min(count, config.limits.train or count) for count in counts)


def _prompts(config: RunConfig, read: _Read) -> list[dict[str, str]]:
    """Some examples as they are written: of the training split where there is one."""
    examples = next((found for found in read.examples.values() if found), ())
    shown = (_prompt(config, example) for example in subset(examples, config.limits.train)[:_PROMPTS])
    return [prompt for prompt in shown if prompt is not None]


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
    llm = _collect(missing, lambda: _skeleton(config, runtime))
    if llm is None:
        return None
    with torch.device("meta"):
        if any(stage.trains.llm == "lora" for stage in config.stages):
            llm = attach_lora(llm, config.llm.lora)
        encoder, projector = config.encoder.build(), config.projector.build(levels, embedding_width(llm))
    return GraphLanguageModel(encoder, projector, llm, levels, encoder_is_trainable=config.encoder.is_trainable)


def _skeleton(config: RunConfig, runtime: Runtime) -> nn.Module:
    if config.llm.name != TINY:
        return load_skeleton(locate(config.llm, replace(runtime, offline=True)), config.llm.dtype)
    from transformers import LlamaForCausalLM

    from bench.pretrain_lm import architecture

    with torch.device("meta"):
        model: nn.Module = LlamaForCausalLM(architecture(config.llm.tiny, config.llm.tiny.vocabulary))
    return model


def _parameters(model: GraphLanguageModel) -> dict[str, int]:
    counts = {"encoder": 0, "projector": 0, "llm": 0, "adapters": 0}
    for name, parameter in model.named_parameters():
        counts["adapters" if "lora_" in name else name.partition(".")[0]] += parameter.numel()
    return counts


def _stage(stage: Stage, examples: int, model: GraphLanguageModel | None) -> dict[str, Any]:
    per_step = stage.batch_size * stage.accumulation
    steps = stage.steps or math.ceil((stage.epochs or 0) * math.ceil(examples / per_step))
    return {
        "name": stage.name,
        "steps": steps,
        "examples_per_step": per_step,
        "epochs": round(steps * per_step / examples, 2) if examples else None,
        "trained": None if model is None else _trained(model, stage),
    }


def _trained(model: GraphLanguageModel, stage: Stage) -> int:
    model.freeze(stage.trains)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not count:
        raise ConfigError("stages", f"stage {stage.name!r} has no parameter to train: the parts it trains have none")
    return count


def _memory(config: RunConfig, model: GraphLanguageModel) -> dict[str, float]:
    gib = 1 << 30
    counts = _parameters(model)
    weights = counts["llm"] * _BYTES[config.llm.dtype] + (sum(counts.values()) - counts["llm"]) * 4
    trained = max(_trained(model, stage) for stage in config.stages)
    return {"weights": weights / gib, "gradients and optimiser": trained * (_PER_TRAINED - 4) / gib}


def _prompt(config: RunConfig, example: Example) -> dict[str, str] | None:
    """An example as it is written; None for one whose molecule cannot be, which a run leaves out and lists."""
    try:
        segments = render(example, config.prompt, config.text_input, graph=config.projector.places_tokens)
    except UnwritableMoleculeError:
        return None
    return {"example_id": example.id, "text": as_text(segments, end="<end>")}
