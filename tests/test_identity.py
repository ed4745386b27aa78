"""Identities: equal work has equal hashes wherever it is done, and every setting that changes a number changes one."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from bench.config import RunConfig
from bench.identity import (
    Inputs,
    cell_id,
    content_hash,
    derived_seed,
    examples_hash,
    predict_id,
    reliance_id,
    score_id,
    stage_ids,
    swapped_answers_id,
    train_id,
)
from bench.parsing import apply_overrides, build, to_mapping
from bench.preset import load_config
from bench.registry import Registry
from tasks.base import Example, Turn
from tasks.metrics.protocols import MolT5, Strict

COMPONENTS = Registry()
INPUTS = Inputs(train=("t0", "t1"), validation=("v0", "v1"), llm="weights")
EXAMPLES = tuple(
    Example(f"e{i}", ("C" * i,), (Turn("user", "what?"), Turn("assistant", f"answer {i}", supervised=True)))
    for i in range(1, 4)
)
# A part of everything that can be set, with the lists that are empty in the preset filled.
FULL = (
    "stages.align.optimiser.lr_of={encoder: 1e-4}",
    "stages.tune.optimiser.lr_of={llm: 1e-4}",
    "stages.align.tasks=[{task: {name: caption, data: bundled}}]",
    "evaluation.tasks=[{name: caption, data: bundled}]",
    "evaluation.ids=[e1]",
    "graph_input.train=shuffled",
    "graph_input.test=shuffled",
    "encoder.scheme={name: pgnn2, chirality_rows: 3}",
    "encoder.motifs={name: motifs, segmenter: functional_group}",
    "llm.lora.targets=[q_proj]",
)
IDS = """
import json
from bench.identity import Inputs, cell_id, predict_id, stage_ids
from bench.preset import load_config
from test_identity import EXAMPLES, FULL, INPUTS

config = load_config("demo", FULL)
train = stage_ids(config, INPUTS)
print(json.dumps([train, cell_id(config, INPUTS), predict_id(config, train[-1], config.task, EXAMPLES)]))
"""


def demo(*overrides: str) -> RunConfig:
    return load_config("demo", overrides, COMPONENTS)


def identities(config: RunConfig) -> dict[str, str]:
    trained = train_id(config, INPUTS)
    task = config.evaluation_tasks()[0]
    protocol = config.evaluation.protocols[0]
    predicted = predict_id(config, trained, task, EXAMPLES)
    return {
        "train": trained,
        "predict": predicted,
        "reliance": reliance_id(config, trained, EXAMPLES),
        "answers": swapped_answers_id(config, trained, task, EXAMPLES),
        "score": score_id(predicted, protocol, (), {}),
    }


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a resolved configuration that is not a mapping, with its path."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        for position, item in enumerate(node):
            yield from leaves(item, (*path, position))
    else:
        yield path, node


# Another valid value where one cannot be derived from the old one.
OTHER: dict[str, Any] = {
    "prompt.chat.separator": " ",
    "prompt.molecule": "{text}{graph}",
    "prompt.system": "You are a chemist.",
    "encoder.scheme.chirality_rows": 4,
    "encoder.readout": "sum",
    "encoder.motif_rows": "described",
    "encoder.motifs.fallback": "none",
    "encoder.weights": "pretrained.pth",
    "projector.level": "layer:1",
    "llm.revision": "abc",
    "llm.dtype": "bf16",
    "precision": "bf16",
    "llm.lora.targets": ["v_proj"],
    "question": "{molecule} What is it?",
    "data": "chebi20",
    "limits.train": 10,
    "limits.validation": 10,
    "stages.1.tasks": [{"task": {"name": "caption", "data": "bundled"}}],
    "stages.0.trains.llm": "lora",
    "stages.1.trains.llm": "full",
    "trains.encoder": "frozen",
    "trains.projector": "frozen",
    "trains.embeddings": "full",
    "schedule.name": "linear",
    "keep": "best",
    "epochs": 1.0,
    "evaluation.split": "validation",
    "evaluation.limit": 2,
    "evaluation.reliance.match_size": False,
    "evaluation.text_input": {"name": "smiles"},
    "evaluation.protocols.0.positive": "Yes",
    "prompt.chat.answer_end": "\n",
    "evaluation.prompt": {"chat": "vicuna"},
    "stages.0.prompt": {"chat": "vicuna"},
    "stages.1.prompt": {"chat": "vicuna"},
    "stages.0.text_input": "none",
    "stages.1.text_input": "none",
    "schedule.warmup_steps": 1,
    "schedule.end": 1.25,
    "llm.quantisation": "4bit",
    "llm.kernels": "compile",
    "llm.weights": "random",
    "pretraining": [
        {"name": "first", "objective": "masking", "data": {"training": [{"data": "bundled"}]}, "steps": 1},
    ],
    "released": {"name": "llamo", "path": "last.ckpt"},
    "origin": {"preset": "another"},
}
# What is not in an identity through the configuration, and why.
EXEMPT = {
    "name": "an alias",
    "task.data": "the content of the examples is hashed instead",
    "task.question": "the content of the examples is hashed instead",
    "limits.train": "the content of the examples is hashed instead",
    "limits.validation": "the content of the examples is hashed instead",
    "encoder.weights": "what the file holds is hashed instead",
    "llm.name": "the model's files are hashed instead",
    "llm.revision": "the model's files are hashed instead",
    "llm.weights": "the architecture and its seed are hashed in their place",
    "pretraining": "what the files hold that it hands on is hashed instead",
    "origin": "how a configuration was made changes no number",
    "stages.#.name": "an alias",
    "stages.#.checkpoint_every": "how often a copy is put aside changes no number",
    "evaluation.ids": "the content of the examples is hashed instead",
    "evaluation.limit": "the content of the examples is hashed instead",
    "evaluation.reliance_answers": "whether one thing more is measured changes no number",
}
EXEMPT_BELOW = {
    "llm.tiny": "the model's files are hashed instead",
    "stages.0.tasks": "the content of the examples is hashed instead",
    "stages.1.tasks": "the content of the examples is hashed instead",
}


def changed(path: tuple[Any, ...], value: Any) -> Any:
    written = ".".join(map(str, path))
    for suffix, other in OTHER.items():
        if written == suffix or written.endswith(f".{suffix}"):
            return other
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, list) and value:
        return [item / 2 for item in value] if isinstance(value[0], float) else [*value, "another"]
    raise AssertionError(f"no other value for {written} = {value!r}; add one to OTHER")


RESOLVED = to_mapping(load_config("demo", FULL, COMPONENTS))
PLAIN_NAMES = {("name",), ("llm", "name"), ("stages", 0, "name"), ("stages", 1, "name")}  # not those of components
PATHS = [(p, v) for p, v in leaves(RESOLVED) if p[-1] != "name" or p in PLAIN_NAMES or p[-2] == "schedule"]


def test_what_the_files_of_encoder_and_projector_hold_is_part_of_an_identity() -> None:
    config = demo()
    found = {
        train_id(config, replace(INPUTS, **changes))
        for changes in ({}, {"encoder": ("a",)}, {"encoder": ("b",)}, {"projector": ("a",)})
    }
    assert len(found) == 4


@pytest.mark.parametrize(("path", "value"), PATHS, ids=[".".join(map(str, path)) for path, _ in PATHS])
def test_every_setting_is_part_of_an_identity_unless_it_changes_no_number(path: tuple[Any, ...], value: Any) -> None:
    written = ".".join(map(str, path))
    general = ".".join("#" if isinstance(key, int) else str(key) for key in path)
    mapping = copy.deepcopy(RESOLVED)
    node = mapping
    for key in path[:-1]:
        node = node[key]
    before = identities(demo(*FULL))
    if path[-1] == "cache_encoder":
        node["trains"]["encoder"] = "frozen"  # or it is refused
        before = identities(build(RunConfig, mapping, COMPONENTS))
    node[path[-1]] = "other" if path in PLAIN_NAMES else changed(path, value)
    if path[-1] == "epochs":
        node["steps"] = None
    config = build(RunConfig, mapping, COMPONENTS)
    after = identities(config)
    if general in EXEMPT or any(written.startswith(prefix) for prefix in EXEMPT_BELOW):
        assert after == before
    elif written.startswith("evaluation.reliance"):
        assert {key for key in after if after[key] != before[key]} == {"reliance", "answers"}
    elif written.startswith(("evaluation.protocols",)):
        assert after["train"] == before["train"]
        assert after["score"] != before["score"]
    elif written.startswith(("evaluation.", "graph_input.test")):
        assert after["train"] == before["train"]
        assert after["predict"] != before["predict"]
    else:
        assert after["train"] != before["train"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("encoder=gin", "encoder=none"),
        ("projector=linear", "projector=none"),
        ("text_input=none", "text_input=smiles"),
        ("text_input=smiles", "text_input={name: smiles, max_characters: 128}"),
        ("graph_input.train=real", "graph_input.train=zero"),
        ("graph_input.train=shuffled", "graph_input.train={name: shuffled, match_size: false}"),
        ("stages=[{name: a, steps: 2}]", "stages=[{name: a, steps: 2}, {name: b, steps: 2}]"),
    ],
)
def test_another_component_is_other_training(first: str, second: str) -> None:
    assert train_id(demo(first), INPUTS) != train_id(demo(second), INPUTS)


@pytest.mark.parametrize("other", ["evaluation.protocols=[molt5]", "graph_input.test=zero"])
def test_what_is_only_asked_or_scored_leaves_training_as_it_is(other: str) -> None:
    before, after = identities(demo()), identities(demo(other))
    assert before["train"] == after["train"]
    assert before["score"] != after["score"]


def test_what_training_starts_from_is_part_of_its_identity() -> None:
    config = demo()
    for other in (
        replace(INPUTS, llm="others"),
        replace(INPUTS, train=("t0", "x")),
        replace(INPUTS, validation=("x", "v1")),
    ):
        assert train_id(config, other) != train_id(config, INPUTS)
        assert cell_id(config, other) != cell_id(config, INPUTS)


def test_two_processes_agree() -> None:
    found = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY / "tests")}
        command = [sys.executable, "-c", IDS]
        found.add(subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True).stdout)
    assert len(found) == 1
    config = demo(*FULL)
    train = stage_ids(config, INPUTS)
    here = [list(train), cell_id(config, INPUTS), predict_id(config, train[-1], config.task, EXAMPLES)]
    assert json.loads(found.pop()) == here


def test_a_default_that_is_spelled_out_is_the_default() -> None:
    spelled_out = build(RunConfig, to_mapping(demo()), COMPONENTS)
    assert identities(spelled_out) == identities(demo())
    assert identities(demo("encoder={name: gin, layers: 3, width: 64, readout: mean}")) == identities(demo())


def test_a_whole_number_for_a_fraction_is_the_same_number() -> None:
    assert train_id(demo("llm.lora.alpha=16"), INPUTS) == train_id(demo("llm.lora.alpha=16.0"), INPUTS)


def test_the_order_of_settings_is_without_effect() -> None:
    mapping = to_mapping(demo())
    turned = dict(reversed(mapping.items()))
    assert identities(build(RunConfig, turned, COMPONENTS)) == identities(demo())


# Stages


def test_settings_of_a_later_stage_leave_the_earlier_one_as_it_is() -> None:
    before = stage_ids(demo(), INPUTS)
    for later in ("stages.tune.optimiser.lr=0.5", "llm.lora.r=4", "llm.lora.targets=[q_proj]"):
        after = stage_ids(demo(later), INPUTS)
        assert after[0] == before[0]
        assert after[1] != before[1]
    after = stage_ids(demo(), replace(INPUTS, train=("t0", "x"), validation=("v0", "x")))
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)


def test_settings_of_an_earlier_stage_change_all_that_follow() -> None:
    before, after = stage_ids(demo(), INPUTS), stage_ids(demo("stages.align.optimiser.lr=0.5"), INPUTS)
    assert set(before).isdisjoint(after)


def test_a_stage_alone_is_the_same_stage_as_with_others_after_it() -> None:
    mapping = to_mapping(demo())
    alone = build(RunConfig, apply_overrides({**mapping, "stages": mapping["stages"][:1]}, []), COMPONENTS)
    inputs = Inputs(INPUTS.train[:1], INPUTS.validation[:1], INPUTS.llm)
    assert stage_ids(alone, inputs) == stage_ids(demo(), INPUTS)[:1]


def test_seeds_of_a_cell_share_its_identity_and_nothing_else() -> None:
    first, second = demo("seed=0"), demo("seed=1")
    assert cell_id(first, INPUTS) == cell_id(second, INPUTS)
    assert set(stage_ids(first, INPUTS)).isdisjoint(stage_ids(second, INPUTS))
    assert cell_id(first, INPUTS) != cell_id(demo("encoder.layers=2"), INPUTS)


# Predictions and examples


@pytest.mark.parametrize("limit", ["evaluation.limit=3", "evaluation.ids=[e1, e2, e3]"])
def test_limited_predictions_are_never_taken_for_full_ones(limit: str) -> None:
    full, limited = demo(), demo(limit)
    assert train_id(full, INPUTS) == train_id(limited, INPUTS)
    assert predict_id(full, "t", full.task, EXAMPLES) != predict_id(limited, "t", limited.task, EXAMPLES)


def test_predictions_depend_on_the_training_the_task_and_the_examples() -> None:
    config = demo()
    before = predict_id(config, "t", config.task, EXAMPLES)
    assert predict_id(config, "u", config.task, EXAMPLES) != before
    assert predict_id(config, "t", config.task, EXAMPLES[:2]) != before
    assert predict_id(config, "t", replace(config.task, question="{molecule}?"), EXAMPLES) != before


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"molecules": ("CC",)},
        {"turns": (Turn("user", "what?"), Turn("assistant", "answer 1", supervised=False))},
        {"turns": (Turn("system", "what?"), Turn("assistant", "answer 1", supervised=True))},
        {"candidates": ("yes", "no")},
    ],
)
def test_all_of_an_example_but_its_notes_is_hashed(change: dict[str, Any]) -> None:
    assert examples_hash([replace(EXAMPLES[0], **change)]) != examples_hash(EXAMPLES[:1])
    assert examples_hash([replace(EXAMPLES[0], meta={"line": 3})]) == examples_hash(EXAMPLES[:1])
    assert examples_hash(EXAMPLES[::-1]) != examples_hash(EXAMPLES)


def test_scores_depend_on_the_predictions_the_protocol_and_what_it_uses() -> None:
    strict, molt5 = Strict(), MolT5()
    before = score_id("p", strict, (), {"numpy": "2"})
    others = (
        score_id("q", strict, (), {"numpy": "2"}),
        score_id("p", molt5, (), {"numpy": "2"}),
        score_id("p", strict, strict.metrics()["caption"], {"numpy": "2"}),
        score_id("p", strict, (), {"numpy": "3"}),
    )
    assert len({before, *others}) == 5


def test_hashes_refuse_what_has_no_one_form() -> None:
    assert content_hash({"b": 1, "a": [1, 2]}) == content_hash({"a": (1, 2), "b": 1})
    assert content_hash(1) != content_hash("1")
    with pytest.raises(ValueError):
        content_hash(float("nan"))
    with pytest.raises(TypeError):
        content_hash(Path("a"))


# Seeds


def test_seeds_differ_by_purpose_and_by_run() -> None:
    purposes = ("encoder", "projector", "lora", "stage/0", "stage/1", "graph_input/test", "graph_input/training/0")
    seeds = [derived_seed(seed, purpose) for seed in (0, 1, 10) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derived_seed(0, "encoder") == derived_seed(0, "encoder")
