"""Configurations from YAML and `--set`: what is read, how files are laid over each other, and what is refused how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import QUICK
from hypothesis import given
from hypothesis import strategies as st

from bench.config import RunConfig
from bench.errors import ConfigError, UserError
from bench.model import wire
from bench.parsing import apply_overrides, build, find_config, load_mapping, merge, read_yaml, to_mapping
from bench.preset import load_config
from bench.registry import Registry
from bench.shipped import shipped_files
from bench.study import load_study

COMPONENTS = Registry()
MINIMAL = """
name: mine
task: {name: caption, data: bundled}
prompt: {chat: plain}
text_input: none
encoder: gin
projector: linear
stages: [{name: align, steps: 3}]
evaluation: {protocols: [strict]}
"""


def demo(*overrides: str) -> RunConfig:
    return load_config("demo", overrides, COMPONENTS)


def refusal(*overrides: str, source: str = "demo") -> str:
    with pytest.raises(UserError) as caught:
        load_config(source, overrides, COMPONENTS)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def written(tmp_path: Path):
    """Writes a configuration and gives its path."""

    def write(text: str, name: str = "mine.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


# Reading


@pytest.mark.parametrize("name", sorted(shipped_files("presets")))
def test_every_preset_is_read_and_written_back_as_it_is(name: str) -> None:
    config = load_config(name)
    assert config.name in (name, f"{name}-smoke")  # the scale is named where there are several
    written = yaml.safe_dump(to_mapping(config))
    assert build(RunConfig, yaml.safe_load(written), COMPONENTS) == config


@pytest.mark.parametrize("name", sorted(shipped_files("studies")))
def test_every_study_is_read_and_its_parts_fit(name: str) -> None:
    study, cells = load_study(name)
    assert set(study.cells) <= set(cells)
    for alias, config in cells.items():
        assert config.name == alias
        wire(config.encoder, config.projector)


def test_the_quick_settings_of_the_tests_fit_the_preset() -> None:
    config = demo(*QUICK)
    assert [stage.steps for stage in config.stages] == [6, 6]
    assert config.stages[1].optimiser == demo().stages[1].optimiser or config.stages[1].optimiser.lr == 1e-3


@given(
    layers=st.integers(1, 9),
    dropout=st.floats(0, 1, exclude_max=True),
    lr=st.floats(1e-12, 1e12),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    targets=st.one_of(st.just("all-linear"), st.lists(st.sampled_from(["q_proj", "v_proj", "down_proj"]), min_size=1)),
    question=st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=3),
    limit=st.none() | st.integers(1, 1000),
    seed=st.integers(0, 2**40),
)
def test_any_settings_survive_being_written_and_read(
    layers: int,
    dropout: float,
    lr: float,
    betas: tuple[float, float],
    targets: str | list[str],
    question: str,
    ids: list[str],
    limit: int | None,
    seed: int,
) -> None:
    changes = {
        "encoder.layers": layers,
        "encoder.dropout": dropout,
        "stages.tune.optimiser": {"lr": lr, "betas": list(betas), "lr_of": {"llm": lr}},
        "llm.lora.targets": targets,
        "task.question": "{molecule}" + question.replace("{", "(").replace("}", ")"),
        "evaluation.ids": ids,
        "evaluation.limit": limit,
        "seed": seed,
    }
    overrides = [f"{path}={yaml.safe_dump(value, default_flow_style=True)}" for path, value in changes.items()]
    config = demo(*overrides)
    assert config.encoder == replace(config.encoder, layers=layers, dropout=dropout)
    assert config.stages[1].optimiser.betas == betas
    assert config.evaluation.ids == tuple(ids)
    assert (config.evaluation.limit, config.seed) == (limit, seed)
    written = yaml.safe_dump(to_mapping(config), sort_keys=False)
    assert build(RunConfig, yaml.safe_load(written), COMPONENTS) == config


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E-4", 1e-4), ("2", 2.0), (".5", 0.5), ("1e-4 ", 1e-4)])
def test_numbers_are_read_as_people_write_them(text: str, value: float) -> None:
    assert demo(f"stages.align.optimiser.lr={text}").stages[0].optimiser.lr == value


def test_numbers_in_a_file_are_read_as_people_write_them(written) -> None:
    source = written(MINIMAL.replace("steps: 3", "steps: 3, optimiser: {lr: 1e-4, lr_of: {encoder: 3e-5}}"))
    optimiser = load_config(source).stages[0].optimiser
    assert (optimiser.lr, optimiser.lr_of) == (1e-4, {"encoder": 3e-5})


def test_a_name_alone_is_short_for_a_component_with_its_defaults(written) -> None:
    config = load_config(written(MINIMAL))
    longer = MINIMAL.replace("encoder: gin", "encoder: {name: gin}").replace("linear", "{name: linear, level: atom}")
    assert load_config(written(longer, "longer.yaml")) == config
    assert load_config(written(MINIMAL), ["encoder.layers=2"]).encoder.layers == 2


# `extends`


def test_a_file_is_laid_over_what_it_extends(written) -> None:
    source = written("extends: demo\nname: mine\nencoder: {layers: 2}\nllm: {lora: {r: 2}}\n")
    config, base = load_config(source), demo()
    assert (config.name, config.encoder.layers, config.llm.lora.r) == ("mine", 2, 2)
    assert (config.encoder.width, config.llm.lora.alpha) == (base.encoder.width, base.llm.lora.alpha)
    assert config.stages == base.stages


def test_a_file_extends_one_beside_it(written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(MINIMAL, "base.yaml")
    child = written("extends: base.yaml\nseed: 5\n", "child.yaml")
    monkeypatch.chdir("/")
    assert load_config(child).seed == 5


def test_only_one_level_of_extends_is_allowed(written) -> None:
    written("extends: demo\n", "middle.yaml")
    message = refusal(source=written("extends: middle.yaml\n", "last.yaml"))
    assert "extends middle.yaml, which extends demo itself; one level is allowed" in message


def test_a_component_of_another_name_is_replaced_whole_and_lists_are_replaced(written) -> None:
    source = written("extends: demo\nencoder: none\nprojector: {name: none}\nstages: [{name: tune, steps: 1}]\n")
    config = load_config(source)
    assert config.encoder == COMPONENTS.get("encoder", "none")()
    assert config.projector == COMPONENTS.get("projector", "none")()
    assert [stage.name for stage in config.stages] == ["tune"]
    assert config.stages[0].batch_size == 16


def test_merging() -> None:
    base = {"a": {"name": "x", "k": 1, "deep": {"m": 1, "n": 2}}, "l": [1, 2], "s": "short", "kept": True}
    assert merge(base, {"a": {"k": 2}})["a"] == {"name": "x", "k": 2, "deep": {"m": 1, "n": 2}}
    assert merge(base, {"a": {"name": "x", "deep": {"n": 3}}})["a"] == {"name": "x", "k": 1, "deep": {"m": 1, "n": 3}}
    assert merge(base, {"a": {"name": "y", "z": 1}})["a"] == {"name": "y", "z": 1}
    assert merge(base, {"a": "y"})["a"] == "y"
    assert merge(base, {"s": {"k": 1}})["s"] == {"name": "short", "k": 1}
    assert merge(base, {"l": []})["l"] == []
    assert merge(base, {"a": None, "kept": False}) == {"a": None, "l": [1, 2], "s": "short", "kept": False}
    assert base["a"] == {"name": "x", "k": 1, "deep": {"m": 1, "n": 2}}


def test_null_false_and_empty_lists_override(written) -> None:
    base = (
        MINIMAL.replace("protocols: [strict]", "protocols: [strict], reliance: shuffled, limit: 3, ids: [a]")
        + "limits: {train: 5}\nprojector: {name: linear, bias: true}\n"
    ).replace("projector: linear\n", "")
    written(base, "base.yaml")
    child = "evaluation: {reliance: null, limit: null, ids: []}\nlimits: {train: null}\nprojector: {bias: false}\n"
    config = load_config(written("extends: base.yaml\n" + child, "child.yaml"))
    assert (config.evaluation.reliance, config.evaluation.limit, config.evaluation.ids) == (None, None, ())
    assert config.limits.train is None
    assert config.projector.bias is False
    by_setting = ["evaluation.reliance=null", "evaluation.limit=", "evaluation.ids=[]", "projector.bias=false"]
    assert load_config(written(base), [*by_setting, "limits.train=null"]) == config


# `--set`


def test_settings_reach_into_lists_by_name_and_by_number() -> None:
    assert demo("stages.tune.steps=5") == demo("stages.1.steps=5")
    assert demo("stages.tune.steps=5").stages[1].steps == 5
    assert demo("evaluation.protocols=[molt5]", "evaluation.protocols.molt5.tokenizer=x").evaluation.protocols[
        0
    ].tokenizer == ("x")
    assert demo("stages=[{name: only, steps: 2}]").stages[0].name == "only"


def test_settings_are_laid_over_in_order_and_leave_the_mapping_alone() -> None:
    mapping = load_mapping("demo")
    before = yaml.safe_dump(mapping)
    result = apply_overrides(mapping, ["encoder=gin", "encoder.layers=2", "encoder.layers=4", "seed=3"])
    assert result["encoder"] == {"name": "gin", "layers": 4}
    assert yaml.safe_dump(mapping) == before
    assert demo("task.question=a=b {molecule}").task.question == "a=b {molecule}"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("encoder.layers", ["'encoder.layers' is not of the form a.b=value"]),
        ("=3", ["is not of the form"]),
        ("encoder.layers=[1", ["encoder.layers", "not readable as YAML"]),
        ("encoder={layers: 1, layers: 2}", ["encoder", "not readable as YAML"]),
        ("stages.tnue.steps=5", ["stages.tnue.steps", "no 'tnue'", "0 (align), 1 (tune)"]),
        ("stages.7.steps=5", ["stages.7.steps", "no '7'"]),
        ("seed.a=1", ["seed.a", "below a plain value, 0"]),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused(override: str, parts: list[str], written) -> None:
    source = written("extends: demo\nseed: 0\n")
    message = refusal(override, source=source)
    for part in parts:
        assert part in message


# Messages


@pytest.mark.parametrize(
    ("override", "start", "parts"),
    [
        (
            "encoder=gni",
            "encoder: ",
            ["unknown encoder 'gni'", "Did you mean gin?", "Known: fingerprint, gat, gcn, gin"],
        ),
        ("projector={name: liner}", "projector: ", ["Did you mean linear?"]),
        ("evaluation.protocols=[strikt]", "evaluation.protocols[0]: ", ["Did you mean strict?"]),
        ("encoder.layer=3", "encoder.layer: ", ["unknown setting", "Did you mean layers?", "Allowed here: layers, "]),
        ("encodre.layers=3", "encodre: ", ["unknown setting", "Did you mean encoder?"]),
        ("stages.align.optimiser.weigth_decay=1", "stages[0].optimiser.weigth_decay: ", ["Did you mean weight_decay?"]),
        ("encoder.layers=-1", "encoder.layers: ", ["-1", "greater than or equal to 1"]),
        ("encoder.layers=many", "encoder.layers: ", ["'many'", "integer"]),
        ("encoder.layers=2.5", "encoder.layers: ", ["2.5", "integer"]),
        ("encoder.layers=null", "encoder.layers: ", ["None", "integer"]),
        ("encoder.layers=true", "encoder.layers: ", ["true", "number"]),
        ("encoder.dropout=1", "encoder.dropout: ", ["less than 1"]),
        ("encoder.readout=median", "encoder.readout: ", ["'mean', 'sum' or 'max'"]),
        ("encoder.scheme=pgnn3", "encoder.scheme: ", ["Did you mean pgnn2?"]),
        ("encoder=[gin]", "encoder: ", ["a list", "the name of an encoder"]),
        ("encoder={layers: 2}", "encoder: ", ["needs a `name`", "gin"]),
        ("llm.dtype=fp8", "llm.dtype: ", ["'fp32' or 'bf16'"]),
        ("llm.lora=8", "llm.lora: ", ["where a mapping of settings is expected"]),
        ("llm.lora.targets=[1]", "llm.lora.targets", ["string"]),
        ("stages=align", "stages: ", ["where a list is expected"]),
        ("stages=[{steps: 2}]", "stages[0].name: ", ["is missing, and has no default"]),
        ("stages=[{name: a}]", "stages[0]: ", ["stage 'a'", "exactly one of `steps` and `epochs`"]),
        ("stages=[{name: a, steps: 1, epochs: 1}]", "stages[0]: ", ["exactly one of `steps` and `epochs`"]),
        ("stages=[{name: a, steps: 0}]", "stages[0].steps: ", ["greater than or equal to 1"]),
        ("stages=[{name: a, steps: 1}, {name: a, steps: 1}]", "stages: ", ["two stages are named 'a'"]),
        ("stages.align.trains={projector: frozen}", "stages[0]: ", ["stage 'align' trains nothing"]),
        ("stages.align.trains={llm: lora, encoder: lora}", "stages[0].trains.encoder: ", ["'frozen' or 'full'"]),
        ("stages.align.optimiser.lr=.inf", "stages[0].optimiser.lr: ", ["finite"]),
        ("stages.align.optimiser.lr=.nan", "stages[0].optimiser.lr: ", []),
        ("stages.align.optimiser.lr_of={encodr: 1}", "stages[0].optimiser.lr_of", ["'encodr'", "'encoder'"]),
        ("stages.align.optimiser.lr_of={encoder: 0}", "stages[0].optimiser.lr_of.encoder: ", ["greater than 0"]),
        ("stages.align.optimiser.betas=[0.9]", "stages[0].optimiser.betas", []),
        ("stages.align.optimiser.betas=[0.9, 1.5]", "stages[0].optimiser.betas[1]: ", ["1.5", "less than 1"]),
        ("evaluation.limit=0", "evaluation.limit: ", ["greater than or equal to 1"]),
        ("evaluation.split=tset", "evaluation.split: ", ["'train', 'validation' or 'test'"]),
        ("evaluation.protocols=[]", "evaluation.protocols: ", ["at least 1"]),
        ("prompt.molecule='{grph}'", "prompt", ["{graph}", "'{grph}'"]),
        ("task.question=none", "task", ["{molecule}"]),
        ("seed=-1", "seed: ", ["greater than or equal to 0"]),
        ("name=", "name: ", ["string"]),
    ],
)
def test_mistakes_are_located_and_say_what_is_right(override: str, start: str, parts: list[str]) -> None:
    message = refusal(override)
    assert message.startswith(start)
    for part in parts:
        assert part in message


def test_a_missing_setting_is_named(written) -> None:
    assert refusal(source=written(MINIMAL.replace("encoder: gin\n", ""))) == "encoder: is missing, and has no default"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (MINIMAL + "encoder: none\n", ["'encoder' stands twice", "line 10"]),
        (MINIMAL.replace("steps: 3", "steps: 3, steps: 4"), ["'steps' stands twice"]),
        ("- a\n- b\n", ["is a list, where a mapping of settings is expected"]),
        ("just words\n", ["is text ('just words')"]),
        ("", ["is empty, where a mapping"]),
        ("a: [1\n", ["not readable as YAML"]),
        ("a: !!python/object/apply:os.system [ls]\n", ["not readable as YAML"]),
        ("{[1]: 2}\n", ["not readable as YAML"]),
    ],
)
def test_a_file_that_is_no_configuration_is_named(written, text: str, parts: list[str]) -> None:
    source = written(text)
    message = refusal(source=source)
    for part in (source, *parts):
        assert part in message


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.yaml: not readable as YAML"):
        read_yaml(tmp_path / "a.yaml")


def test_an_unknown_preset_is_refused_with_a_suggestion() -> None:
    message = refusal(source="dmeo")
    for part in ("dmeo: neither a YAML file nor one that molgraft ships", "Did you mean demo?", "chebi20-tiny, demo"):
        assert part in message
    with pytest.raises(UserError, match="nothing: neither a YAML file nor one that molgraft ships"):
        find_config("nothing", folder="studies")


def test_parts_that_do_not_fit_are_named_on_both_sides() -> None:
    config = demo("projector.level=motif")
    with pytest.raises(ConfigError) as caught:
        wire(config.encoder, config.projector)
    assert str(caught.value) == (
        "projector: linear needs the level motif, but encoder gin provides atom, graph, layer:0, layer:1, layer:2, "
        "layer:3"
    )
    config = demo("encoder=none")
    with pytest.raises(ConfigError, match="linear needs the level atom, but encoder none provides no level at all"):
        wire(config.encoder, config.projector)
