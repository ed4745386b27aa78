"""What a dry run found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

_WHY = {
    "as described": " (by the rows that descriptions of data sets count; the files are not here)",
    "unknown": " (the data are not here, and no description counts their rows)",
}


def report(found: Mapping[str, Any]) -> str:
    """What `bench.check.inspect` found, as text."""
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
        lines += _stage_lines(stage)
    lines += _generation_lines(found["generation"])
    for task in found["tasks"]:
        for prompt in task["prompts"]:
            lines += ["", f"{task['task']}, example {prompt['example_id']}, {prompt['where']}:", prompt["text"]]
    lines += ["", *(f"MISSING: {what}" for what in found["missing"])]
    return "\n".join(lines).rstrip()


def _stage_lines(stage: Mapping[str, Any]) -> Iterator[str]:
    steps = "unknown" if stage["steps"] is None else f"{stage['steps']:,}"
    why = _WHY.get(stage["examples_are"], "")
    yield f"stage {stage['name']}: {steps} steps of {stage['examples_per_step']} examples{why}"
    if stage["trained"] is not None:
        parts = ", ".join(f"{part} {count:,}" for part, count in stage["trained_by_part"].items() if count)
        yield f"  trains {stage['trained']:,} parameters: {parts}"
    lengths, memory = stage["lengths"], stage["memory_gib"]
    if lengths["examples"]:
        yield (
            f"  sequences of {lengths['mean']:.0f} tokens, {lengths['longest']} in the longest batch "
            f"(of a sample of {lengths['examples']}{', read by a tokenizer of their own text' * stage['stand_in']})"
        )
    else:
        yield f"  sequences of {lengths['longest']} tokens (`llm.max_length`: examples or what reads them are not here)"
    if memory:
        yield (
            f"  memory {memory['peak']:.2f} GiB, with activation checkpointing {memory['peak_checkpointed']:.2f}: "
            f"weights {memory['weights']:.2f}, gradients {memory['gradients']:.2f}, optimiser "
            f"{memory['optimiser']:.2f}, activations {memory['activations']:.2f} or {memory['checkpointed']:.2f}"
        )


def _generation_lines(generation: Mapping[str, Any]) -> Iterator[str]:
    if generation["memory_gib"]:
        memory = generation["memory_gib"]
        said = "" if generation["measured_on"] else " (`llm.max_length`)"
        total, prompt = sum(memory.values()), generation["longest_prompt"]
        parts = ", ".join(f"{what} {gib:.2f}" for what, gib in memory.items())
        yield f"generation: memory {total:.2f} GiB for prompts of {prompt} tokens{said}: {parts}"
