"""Presets with choices: scales, fidelity, switches, what is in force, and what a user gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import ConfigError, UserError
from bench.parsing import laid_over, load_mapping
from bench.preset import Choices, Resolved, described, resolve, told
from bench.study import load_study

CHOICES: dict[str, Any] = {
    "extends": "demo",
    "name": "system",
    "system": {"title": "A system", "paper": "arXiv 0000.00000", "reconstruction": ["stages.tune.batch_size"]},
    "fidelity": "code",
    "scale": "small",
    "switches": {
        "rate": {
            "about": "how fast it learns",
            "paper": {"set": {"stages.align.optimiser.lr": 1e-4}, "source": "Table 1"},
            "code": {"set": {"stages.align.optimiser.lr": 5e-5}, "source": "train.py:1"},
        },
        "encoder": {
            "about": "which encoder",
            "paper": {"set": {"encoder": {"name": "gcn", "layers": 2}}},
            "code": {"set": {"encoder.layers": 4}},
        },
        "kind": {
            "about": "what it is trained for",
            "default": "captions",
            "captions": {},
            "many": {"set": {"stages.tune.steps": 7}},
        },
    },
    "scales": {"small": {"set": {"stages.align.steps": 3}}, "large": {"set": {"stages.align.optimiser.lr": 1.0}}},
}


@pytest.fixture
def source(tmp_path: Path) -> str:
    file = tmp_path / "system.yaml"
    file.write_text(yaml.safe_dump(CHOICES, sort_keys=False))
    return str(file)


def in_force(resolved: Resolved) -> dict[str, str]:
    return {switch.name: switch.value for switch in resolved.switches}


def test_what_the_preset_itself_chooses(source: str) -> None:
    resolved = resolve(source)
    config = resolved.config
    assert config.stages[0].optimiser.lr == 5e-5
    assert config.encoder.name == "gin"
    assert config.encoder.layers == 4
    assert config.encoder.width == 64  # type: ignore[attr-defined] # of the preset below
    assert config.stages[0].steps == 3
    assert config.name == "system-small"
    assert in_force(resolved) == {"rate": "code", "encoder": "code", "kind": "captions"}
    assert config.origin is not None
    assert (config.origin.preset, config.origin.scale, config.origin.fidelity) == ("system", "small", "code")


def test_fidelity_turns_all_switches_that_have_both_sides_and_one_switch_itself(source: str) -> None:
    config = resolve(source, choices=Choices(fidelity="paper")).config
    assert config.stages[0].optimiser.lr == 1e-4
    assert config.encoder.name == "gcn"
    assert config.encoder.width != 64
    assert config.name == "system-small-paper"
    single = resolve(source, choices=Choices(switches={"rate": "paper", "kind": "many"}))
    assert in_force(single) == {"rate": "paper", "encoder": "code", "kind": "many"}
    assert single.config.stages[1].steps == 7


def test_what_a_scale_or_the_user_undoes_is_said(source: str) -> None:
    scaled = resolve(source, choices=Choices(scale="large"))
    assert scaled.config.stages[0].optimiser.lr == 1.0
    undone = {switch.name: switch.undone for switch in scaled.switches}
    assert undone == {"rate": ("stages.align.optimiser.lr",), "encoder": (), "kind": ()}
    own = resolve(source, ["encoder.layers=9"])
    assert {switch.name: bool(switch.undone) for switch in own.switches} == {
        "rate": False,
        "encoder": True,
        "kind": False,
    }
    assert own.config.origin is not None
    assert own.config.origin.switches["encoder"] == "code (overridden)"
    lines = "\n".join(told(own))
    assert "switch rate: code (or paper): how fast it learns" in lines
    assert "source: train.py:1" in lines
    assert "encoder.layers = 4 (set otherwise since, by another switch, the scale or you)" in lines
    assert "reconstruction, given by no source: stages.tune.batch_size" in lines
    found = described(own)
    assert found is not None
    assert found["switches"][0]["sides"]["paper"]["source"] == "Table 1"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            Choices(scale="smal"),
            r"--scale: system has no scale 'smal'\. Did you mean small\? There are: small, large",
        ),
        (Choices(fidelity="both"), r"--fidelity: is 'both'; it may be paper or code"),
        (Choices(switches={"rat": "paper"}), r"--switch: system has no switch 'rat'\. Did you mean rate\?"),
        (Choices(switches={"rate": "papr"}), r"--switch rate: has no side 'papr'\. Did you mean paper\?"),
    ],
)
def test_wrong_choices_are_told_with_what_is_right(source: str, choices: Choices, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(source, choices=choices)


def test_a_preset_without_choices_refuses_them() -> None:
    with pytest.raises(ConfigError, match=r"--scale: demo has no scale 'paper'"):
        resolve("demo", choices=Choices(scale="paper"))
    with pytest.raises(ConfigError, match=r"--fidelity: demo has no switch with the sides"):
        resolve("demo", choices=Choices(fidelity="paper"))
    assert described(resolve("demo")) is None
    assert resolve("demo").config.origin is None


def test_a_switch_that_leads_nowhere_is_found_with_its_path(tmp_path: Path) -> None:
    broken = {**CHOICES, "switches": {"rate": {"about": "", "paper": {"sett": {}}, "code": {}}}}
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump(broken))
    with pytest.raises(ConfigError, match=r"switches\.rate\.paper\.sett: unknown setting\. Did you mean set\?"):
        resolve(str(file))
    file.write_text(yaml.safe_dump({**CHOICES, "scales": {"small": {"set": {"stages.tun.steps": 3}}}}))
    with pytest.raises(ConfigError, match=r"stages\.tun\.steps: the list holds no 'tun'; it has 0 \(align\), 1"):
        resolve(str(file))


def test_the_origin_is_no_part_of_an_identity_and_survives_a_round_trip(source: str, tmp_path: Path) -> None:
    from bench.parsing import to_mapping

    config = resolve(source).config
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(to_mapping(config), sort_keys=False))
    assert resolve(str(file)).config == config


def test_cells_of_a_study_choose_for_themselves(source: str, tmp_path: Path) -> None:
    study = {
        "name": "contradictions",
        "extends": source,
        "scale": "small",
        "switches": {"kind": "many"},
        "cells": {
            "as-released": {},
            "as-written": {"fidelity": "paper"},
            "one": {"switches": {"rate": "paper"}, "seed": 3},
        },
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    _, cells = load_study(str(file))
    assert {alias: config.name for alias, config in cells.items()} == {alias: alias for alias in cells}
    assert [config.stages[0].optimiser.lr for config in cells.values()] == [5e-5, 1e-4, 1e-4]
    assert [config.encoder.name for config in cells.values()] == ["gin", "gcn", "gin"]
    assert {config.stages[1].steps for config in cells.values()} == {7}
    assert cells["one"].seed == 3
    file.write_text(yaml.safe_dump({**study, "cells": {"bad": {"scale": "huge"}}}))
    with pytest.raises(UserError, match=r"cell bad: --scale: system has no scale 'huge'"):
        load_study(str(file))


def test_numbers_in_the_way_that_everybody_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "numbers.yaml"
    file.write_text("a: 5e-5\nb: -1E3\nc: 2.5e1\nd: e5\ne: 1e\n")
    assert load_mapping(str(file)) == {"a": 5e-5, "b": -1000.0, "c": 25.0, "d": "e5", "e": "1e"}


def test_laying_over_merges_mappings_and_replaces_other_components() -> None:
    base = {
        "encoder": {"name": "gin", "layers": 3},
        "stages": [{"name": "tune", "steps": 1, "trains": {"llm": "lora"}}],
    }
    changed = laid_over(base, {"encoder": {"layers": 5}, "stages.tune.trains": {"encoder": "full"}})
    assert changed["encoder"] == {"name": "gin", "layers": 5}
    assert changed["stages"][0]["trains"] == {"llm": "lora", "encoder": "full"}
    assert laid_over(base, {"encoder": {"name": "gcn"}})["encoder"] == {"name": "gcn"}
    assert base["encoder"]["layers"] == 3  # type: ignore[index]
