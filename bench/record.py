"""What a run writes down about itself: the resolved configuration, the manifest, the parameters, the result."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import yaml

from bench.config import RunConfig
from bench.model import GraphLanguageModel
from bench.parsing import to_mapping
from bench.prepare import Prepared, rejections_csv
from bench.quantisation import elements
from bench.run_store import RunDirectory, read_json, write_json, write_text
from bench.session_account import notes_of_sessions
from tasks.base import Example
from tasks.prompts import PromptStyle, TextInput, as_text, prompt_of, render


def summarise(prepared: Prepared, directory: RunDirectory, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A run's result: what it is, what it cost, and every score it has so far."""
    config = prepared.config
    stages = []
    for position, stage in enumerate(config.stages):
        described = read_json(directory.stage(position, stage.name) / "stage.json")
        stages.append({"name": stage.name, "stage_id": described["stage_id"], **described["outcome"]})
    # Scores of earlier evaluations of this run (another split, another generation) stay beside the new ones.
    evaluations = {(entry["predict_id"], entry["evaluation_id"]): entry for entry in _earlier_entries(directory)}
    for entry in entries:
        key = (entry["predict_id"], entry["evaluation_id"])
        fresh = {score["protocol"] for score in entry["scores"]}
        earlier = evaluations.get(key, {})
        entry["scores"] += [score for score in earlier.get("scores", []) if score["protocol"] not in fresh]
        if "decontaminated" in earlier:
            entry["decontaminated"] = earlier["decontaminated"]
        evaluations[key] = entry
    return {
        "name": config.name,
        "seed": config.seed,
        "cell_id": prepared.cell,
        "train_id": prepared.train_id,
        "encoder": config.encoder.name,
        "projector": config.projector.name,
        "llm": config.llm.name if config.llm.weights == "pretrained" else f"{config.llm.name} (RANDOM WEIGHTS)",
        "text_input": config.text_input.name,
        "graph_input": {"train": config.graph_input.train.name, "test": config.graph_input.test.name},
        "parameters": read_json(directory.path / "parameters.json"),
        "stages": stages,
        "scored_weights": _scored_weights(config),
        "evaluations": list(evaluations.values()),
        "computed": notes_of_sessions(directory),
        "rejected": {part: len(rows) for part, rows in prepared.rejections.items()},
        "rows_left_out": _rows_left_out(prepared),
        "training_seconds": round(sum(stage["seconds"] for stage in stages), 2),
        "seconds": directory.status().seconds,
    }


def _scored_weights(config: RunConfig) -> str:
    if not config.stages:
        return (
            "the model as it was loaded" if config.released is None else f"released weights of {config.released.name}"
        )
    return f"{config.stages[-1].keep} of stage {config.stages[-1].name}"


def _rows_left_out(prepared: Prepared) -> dict[str, dict[str, int]]:
    """Molecules that a projector's limit on size cuts, and how many of their rows, in training and in evaluation."""
    config = prepared.config
    if not config.projector.places_tokens:
        return {}
    parts = {
        "training": [example for data in prepared.stages for example in data.training],
        "evaluation": [example for data in prepared.evaluations for example in data.readable],
    }
    found = {}
    for part, examples in parts.items():
        molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
        rows = config.encoder.rows(prepared.store.counts(molecules), len(molecules))
        cut = config.projector.cut(rows, len(molecules))
        found[part] = {"molecules": int((cut > 0).sum()), "rows": int(cut.sum())}
    return found


def _earlier_entries(directory: RunDirectory) -> list[dict[str, Any]]:
    file = directory.path / "result.json"
    entries: list[dict[str, Any]] = read_json(file)["evaluations"] if file.exists() else []
    return entries


def describe(prepared: Prepared, directory: RunDirectory) -> None:
    """The resolved configuration, what the run is made from, what was left out, and what a prompt looks like."""
    config = prepared.config
    write_text(directory.path / "rejected.csv", rejections_csv(prepared.rejections))
    if directory.manifest_file.exists():  # what the run was made from stays; a later session only adds itself
        return
    # Escaped rather than in Unicode, some of whose characters YAML reads back as others.
    write_text(directory.config_file, yaml.safe_dump(to_mapping(config), sort_keys=False))
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
            "llm": {
                "origin": prepared.llm.origin,
                "identity": prepared.llm.identity,
                "weights": config.llm.weights,
                "quantisation": config.llm.quantisation,
            },
            "files": prepared.files,
            "pretrained": list(prepared.pretrained),
            "features": list(prepared.store.names),
            "prompts": _sample_prompts(prepared),
            "generation": asdict(config.evaluation.generation),
            "scored_weights": _scored_weights(config),
            "sessions": [],
        },
    )


def _sample_prompts(prepared: Prepared) -> list[dict[str, str]]:
    """A question of each task that is asked, and one of each stage that has a prompt of its own."""
    config = prepared.config
    samples = []
    for data in prepared.evaluations:
        example = (data.readable or data.examples)[0]
        samples.append(_sample_prompt(prepared, example, data.task.name, config.asked_as, config.asked_in))
    for stage, trained_on in zip(config.stages, prepared.stages, strict=True):
        if stage.prompt or stage.text_input or stage.tasks:
            example, written = trained_on.training[0], config.written_in(stage)
            what = f"{example.meta.get('task', '')}, stage {stage.name}"
            samples.append(_sample_prompt(prepared, example, what, config.prompted_as(stage), written))
    return samples


def _sample_prompt(
    prepared: Prepared, example: Example, task: str, style: PromptStyle, text_input: TextInput
) -> dict[str, str]:
    segments = render(example, style, text_input, graph=prepared.config.projector.places_tokens)
    prompt = prompt_of(segments)
    answer = as_text(segments[len(prompt) :])
    return {"task": task, "example_id": example.id, "prompt": as_text(prompt), "answer": answer}


def count_parameters(model: GraphLanguageModel, prepared: Prepared, directory: RunDirectory) -> None:
    """Parameters per part, and how many of them any stage trains."""
    counts = dict.fromkeys(("encoder", "projector", "llm", "adapters"), 0)
    trained: set[str] = set()
    for stage in prepared.config.stages:
        model.freeze(stage.trains)
        trained |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trainable = dict(counts)
    for name, parameter in model.named_parameters():
        part = "adapters" if "lora_" in name else name.partition(".")[0]
        counts[part] += elements(parameter)
        trainable[part] += elements(parameter) if name in trained else 0
    write_json(
        directory.path / "parameters.json",
        {"total": counts, "trained": trainable, "trained_sum": sum(trainable.values())},
    )
