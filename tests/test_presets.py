"""The presets of published systems: they parse, each switch does what it says, each number says where it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import yaml

from bench.config import RunConfig
from bench.config_types import Mapped
from bench.errors import ConfigError
from bench.known_models import configuration, known_architecture, skeleton_of
from bench.language_model import attach_lora, embedding_width
from bench.model import wire
from bench.parsing import load_mapping, to_mapping
from bench.preset import Choices, Resolved, resolve_mapping
from bench.registry import Registry, registry
from bench.shipped import shipped_files

WRITTEN: Mapping[str, Mapped] = {
    name: mapping for name in shipped_files("presets") if "system" in (mapping := load_mapping(name))
}
SYSTEMS = tuple(WRITTEN)
SCALES = ("paper", "small", "smoke")
FIDELITIES = ("paper", "code")
NOT_VALUES = frozenset({"about", "default", "when"})

MUST_BE_THERE = frozenset(
    {
        "llamo",
        "instructmol-g",
        "instructmol-gs",
        "m3llm-none",
        "m3llm-hierarchical",
        "m3llm-all",
        "molx",
        "molca",
        "hight",
    }
)


def switches_of(preset: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = WRITTEN[preset]["switches"]
    return found


def values_of(switch: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(value for value in switch if value not in NOT_VALUES)


def needed_for(preset: str, name: str) -> dict[str, str]:
    """Choices of other switches under which a switch is in force."""
    conditions = switches_of(preset)[name].get("when", {})
    return {other: wanted[0] if isinstance(wanted, list) else wanted for other, wanted in conditions.items()}


@cache
def components() -> Registry:
    return registry()


@cache
def chosen(preset: str, fidelity: str | None, scale: str | None, switches: tuple[tuple[str, str], ...]) -> Resolved:
    choices = Choices(scale=scale, fidelity=fidelity, switches=dict(switches))
    return resolve_mapping(WRITTEN[preset], (), components(), choices)


def resolved(preset: str, *, fidelity: str | None = None, scale: str = "paper", **switches: str) -> RunConfig:
    return chosen(preset, fidelity, scale, tuple(sorted(switches.items()))).config


def without_name(preset: str, switches: Mapping[str, str]) -> RunConfig:
    """A configuration at its published scale, without its alias and the record of its origin."""
    return replace(resolved(preset, **switches), name="preset", origin=None)


def test_every_system_and_a_baseline_for_each_language_model_is_there() -> None:
    assert set(SYSTEMS) >= MUST_BE_THERE
    asked = {WRITTEN[name]["llm"]["name"] for name in MUST_BE_THERE}
    baselines = {WRITTEN[name]["llm"]["name"] for name in SYSTEMS if name.startswith("text-")}
    assert baselines == asked


@pytest.mark.parametrize("preset", SYSTEMS)
def test_every_scale_and_fidelity_is_a_configuration(preset: str) -> None:
    for fidelity, scale in itertools.product(FIDELITIES, SCALES):
        found = chosen(preset, fidelity, scale, ())
        assert (found.fidelity, found.scale) == (fidelity, scale)
        assert found.config.name.startswith(f"{preset}-{scale}")
        assert (found.config.llm.name == "tiny") == (scale != "paper")


BASELINES = [
    ("text-llama2-7b", "llamo"),
    ("text-llama2-7b-molx", "molx"),
    ("text-vicuna-7b", "instructmol-gs"),
    ("text-llama32-1b", "m3llm-none"),
    ("text-galactica-1.3b", "molca"),
]


@pytest.mark.parametrize(("baseline", "system"), BASELINES)
@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("scale", SCALES)
def test_a_baseline_is_trained_and_asked_as_its_system(baseline: str, system: str, fidelity: str, scale: str) -> None:
    text, graph = (resolved(preset, fidelity=fidelity, scale=scale) for preset in (baseline, system))
    assert text.llm == graph.llm
    assert text.seed == graph.seed
    assert text.limits == graph.limits
    assert text.evaluation.generation == graph.evaluation.generation
    trained, beside = text.stages[-1], graph.stages[-1]
    assert trained.optimiser == beside.optimiser
    assert trained.schedule == beside.schedule
    assert (trained.epochs, trained.steps) == (beside.epochs, beside.steps)
    assert (trained.batch_size, trained.accumulation) == (beside.batch_size, beside.accumulation)
    ours, theirs = (config.evaluation.prompt or config.prompt for config in (text, graph))
    assert ours.system == theirs.system
    assert ours.chat == theirs.chat


def questions(config: RunConfig) -> set[str]:
    """What the tasks of the last stage and those of the evaluation ask with."""
    tasks = [weighted.task for weighted in config.stages[-1].tasks] + list(config.evaluation.tasks) + [config.task]
    return {str(to_mapping(task)["question"]) for task in tasks}


def test_selfies_are_named_in_every_question_of_a_classification_or_in_none() -> None:
    chosen_task = {"task": "classification"}
    assert questions(resolved("instructmol-gs", **chosen_task)) == {"instructmol"}
    assert questions(resolved("instructmol-gs", **chosen_task, **{"classification-selfies": "paper"})) == {
        "instructmol-gs"
    }
    assert questions(resolved("instructmol-gs", fidelity="paper", **chosen_task)) == {"instructmol-gs"}
    assert questions(resolved("instructmol-g", **chosen_task)) == {"instructmol"}
    assert questions(resolved("text-vicuna-7b", **chosen_task)) == {"instructmol-gs"}


def test_choices_bring_the_recipe_that_their_source_has() -> None:
    mlp = resolved("instructmol-g", connector="mlp")
    assert (mlp.stages[0].epochs, mlp.stages[1].epochs, mlp.stages[1].optimiser.lr) == (3, 20, 4e-5)
    for preset in ("molca", "text-galactica-1.3b"):
        assert resolved(preset, task="chebi20").llm.lora.r == 16
        assert resolved(preset, task="iupac").llm.lora.r == 8
    assert resolved("molca", base="galactica-125m").stages[-1].trains.llm == "full"
    assert len(resolved("llamo", reactions="omitted").evaluation.tasks) == 3


@pytest.mark.parametrize("preset", SYSTEMS)
def test_by_default_the_smoke_scale_is_run(preset: str) -> None:
    given = chosen(preset, None, None, ())
    assert (given.scale, given.fidelity) == ("smoke", WRITTEN[preset]["fidelity"])


# What two of the M3LLM share is looked at once.
OWN = tuple(preset for preset in SYSTEMS if preset not in {"m3llm-hierarchical", "m3llm-all"})
SWITCHES = [(preset, name) for preset in OWN for name in switches_of(preset)] + [("m3llm-all", "all-mean")]


@pytest.mark.parametrize(("preset", "name"), SWITCHES)
def test_a_switch_changes_the_configuration(preset: str, name: str) -> None:
    """All its values differ where it is in force, and each one sets what it says."""
    switch = switches_of(preset)[name]
    others = needed_for(preset, name)
    found = {value: without_name(preset, {**others, name: value}) for value in values_of(switch)}
    assert len(found) >= 2
    for one, other in itertools.combinations(found, 2):
        assert found[one] != found[other], f"{preset}: {name} {one} and {other} are the same"


@pytest.mark.parametrize(("preset", "name"), SWITCHES)
def test_no_later_switch_undoes_one(preset: str, name: str) -> None:
    """With all others as they are by default, every value that a side sets is there in the end."""
    others = needed_for(preset, name)
    for value in values_of(switches_of(preset)[name]):
        choices = tuple(sorted({**others, name: value}.items()))
        switch = next(each for each in chosen(preset, None, "paper", choices).switches if each.name == name)
        assert not switch.undone, f"{preset}: {name} {value}"


@pytest.mark.parametrize(("preset", "name"), SWITCHES)
def test_a_switch_has_a_source_and_either_two_sides_or_a_default(preset: str, name: str) -> None:
    switch = switches_of(preset)[name]
    values = values_of(switch)
    assert str(switch["about"]).strip()
    assert set(values) == set(FIDELITIES) or switch["default"] in values
    for value in values:
        assert set(switch[value]) == {"set", "source"}, f"{name}.{value}"
        assert str(switch[value]["source"]).strip()


@pytest.mark.parametrize("preset", OWN)
def test_other_tasks_and_trainings_have_a_smoke_scale_too(preset: str) -> None:
    for name, switch in switches_of(preset).items():
        for value in values_of(switch) if "default" in switch else ():
            resolved(preset, scale="smoke", **{**needed_for(preset, name), name: value})


def test_a_switch_that_is_not_in_force_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no effect while task is caption; it needs task to be property or"):
        chosen("instructmol-g", None, None, (("tune-rate", "paper"),))
    names = [switch.name for switch in chosen("instructmol-g", "paper", None, ()).switches]
    assert "caption-epochs" in names
    assert "tune-rate" not in names


@pytest.mark.parametrize("preset", SYSTEMS)
def test_what_is_reconstructed_is_a_setting(preset: str) -> None:
    mapping = to_mapping(resolved(preset))
    for path in WRITTEN[preset]["system"]["reconstruction"]:
        assert exists(mapping, path.split(".")), f"{preset}: no setting {path}"


def exists(node: Any, keys: list[str]) -> bool:
    if not keys:
        return True
    if isinstance(node, list):
        items = {str(place): item for place, item in enumerate(node)}
        node = items | {item["name"]: item for item in node if isinstance(item, dict) and "name" in item}
    return isinstance(node, Mapping) and keys[0] in node and exists(node[keys[0]], keys[1:])


@pytest.mark.parametrize("preset", SYSTEMS)
def test_every_number_of_the_recipe_says_where_it_comes_from(preset: str) -> None:
    """By a comment on its line, or on the line that opens the list it stands in, or as a reconstruction.

    Scales below `paper` are molgraft's own; values of switches have a `source`.
    """
    path = shipped_files("presets")[preset]
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    reconstructed = [item.split(".") for item in WRITTEN[preset]["system"]["reconstruction"]]
    unsourced = []
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert root is not None
    for keys, opened_at, line in numbers(root, [], []):
        if keys[0] in {"switches", "scales", "system"}:
            continue
        if any(keys[: len(prefix)] == prefix for prefix in reconstructed):
            continue
        if not any("  #" in lines[place] for place in (line, *opened_at[-2:])):
            unsourced.append(f"{'.'.join(keys)} (line {line + 1})")
    assert not unsourced


def numbers(node: yaml.Node, keys: list[str], opened: list[int]) -> Iterator[tuple[list[str], list[int], int]]:
    """Path of every number, the lines on which the mappings and lists around it are opened, and its own line."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from numbers(value, [*keys, key.value], [*opened, key.start_mark.line])
    elif isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            named = {key.value: value.value for key, value in item.value} if isinstance(item, yaml.MappingNode) else {}
            yield from numbers(item, [*keys, str(named.get("name", place))], opened)
    elif node.tag in {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}:
        yield keys, opened, node.start_mark.line


def parameters(config: RunConfig) -> tuple[int, int, int]:
    """Of encoder, projector and adapters, counted on the meta device."""
    llm = skeleton_of(configuration(known_architecture(config.llm.name)), torch.bfloat16)
    width = embedding_width(llm)
    with torch.device("meta"):
        adapted = attach_lora(llm, config.llm.lora)
        encoder = config.encoder.build()
        projector = config.projector.build(wire(config.encoder, config.projector), width)
    adapters = sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)
    return size(encoder), size(projector), adapters


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_llamo_has_the_parameters_that_were_counted_in_its_code() -> None:
    assert parameters(resolved("llamo", fidelity="code")) == (1_884_905, 85_892_756, 4_194_304)
    # One attention of 300 for each of the five further levels; and messages without tables of bonds (5 x 13 x 300).
    encoder, projector, _ = parameters(resolved("llamo", fidelity="paper"))
    assert projector - 85_892_756 == 5 * (4 * 300 * 300 + 4 * 300)
    assert 1_884_905 - encoder == 5 * 13 * 300


def test_instructmol_has_the_parameters_that_were_counted_in_its_code() -> None:
    encoder, projector, adapters = parameters(resolved("instructmol-g", fidelity="paper"))
    assert (encoder, projector, adapters) == (1_884_905, 1_232_896, 159_907_840)
    assert parameters(resolved("instructmol-gs", connector="mlp"))[1] == 18_014_208


def test_molx_has_the_parameters_that_its_shares_of_trained_ones_ask_for() -> None:
    encoder, projector, adapters = parameters(resolved("molx", fidelity="code"))
    assert encoder + projector == 36_081_116
    assert adapters == 19_988_480
    whole = known_architecture("meta-llama/Llama-2-7b-chat-hf").parameters + encoder + projector
    assert round(100 * (encoder + projector) / whole, 3) == 0.533
    assert round(100 * (encoder + projector + adapters) / (whole + adapters), 3) == 0.825


def test_molca_has_the_parameters_that_were_counted_in_its_code() -> None:
    encoder, projector, _ = parameters(resolved("molca", fidelity="code"))
    assert encoder == 1_857_900
    queries, norm, into_llm = 8 * 768, 2 * 300, 768 * 2048 + 2048
    assert projector == 94_926_336 + queries + norm + into_llm


@pytest.mark.parametrize("preset", ["m3llm-none", "m3llm-hierarchical", "m3llm-all"])
def test_m3llm_has_one_linear_map_into_a_model_of_1b(preset: str) -> None:
    assert parameters(resolved(preset))[1] == 300 * 2048 + 2048


def test_hight_has_a_map_for_each_level_of_rows_with_eight_positions() -> None:
    assert parameters(resolved("hight"))[1] == 3 * (308 * 4096 + 4096)


def test_what_trains_in_which_stage() -> None:
    def parts(preset: str) -> list[tuple[str, ...]]:
        trained = [to_mapping(stage.trains) for stage in resolved(preset, fidelity="code").stages]
        return [tuple(f"{part} {how}" for part, how in each.items() if how != "frozen") for each in trained]

    assert parts("llamo") == [("encoder full", "projector full", "embeddings full"), ("projector full", "llm lora")]
    assert parts("instructmol-gs") == [("projector full",), ("projector full", "llm lora")]
    assert parts("m3llm-all") == [("projector full",), ("projector full", "llm lora")]
    assert parts("hight") == [("projector full",), ("projector full", "llm lora")]
    trained = ("encoder full", "projector full")
    assert parts("molx") == parts("molca") == [trained, (*trained, "llm lora")]
    assert parts("text-vicuna-7b") == [("llm lora",)]


def test_a_qformer_is_pretrained_in_the_sizes_that_the_run_has() -> None:
    for scale in SCALES:
        config = resolved("molca", scale=scale)
        assert to_mapping(config.pretraining[0])["objective"]["projector"] == to_mapping(config.projector)


def test_all_tasks_of_m3llm_share_the_first_stage() -> None:
    stages = {str(resolved("m3llm-none", task=task).stages[0]) for task in values_of(switches_of("m3llm-none")["task"])}
    assert len(stages) == 1
