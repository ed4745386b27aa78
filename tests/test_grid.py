"""Study files: factors, exclusions and selection rules, and every mistake that is refused before anything runs."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st

from bench.config import RunConfig
from bench.errors import ConfigError, UserError
from bench.grid import cells_of, factors_of
from bench.preset import Choices
from bench.runtime import Runtime
from bench.selection import Selection, check_selection, figure_of
from bench.shipped import shipped_files
from bench.study import Study, load_study

FACTORS: dict[str, Any] = {
    "encoder": {"gin": {"name": "gin", "layers": 2}, "tree": {"name": "hierarchical", "layers": 2, "width": 16}},
    "projector": {"atoms": {"name": "linear", "level": "atom"}, "former": {"name": "resampler", "queries": 3}},
}


def read(
    folder: Path, overrides: tuple[str, ...] = (), only: tuple[str, ...] = (), **study: Any
) -> tuple[Study, dict[str, RunConfig]]:
    file = folder / "study.yaml"
    text = study.pop("text", None)
    file.write_text(text or yaml.safe_dump({"name": "grid", "extends": "demo", **study}, sort_keys=False))
    loaded, cells = load_study(str(file), overrides, Runtime(progress=False), only=only)
    return loaded, dict(cells)


def refusal(folder: Path, overrides: tuple[str, ...] = (), only: tuple[str, ...] = (), **study: Any) -> str:
    with pytest.raises(UserError) as raised:
        read(folder, overrides, only, **study)
    return str(raised.value)


# What a grid comes to


def test_every_combination_is_a_cell_but_for_those_excluded_and_cells_are_added(tmp_path: Path) -> None:
    _, cells = read(
        tmp_path,
        factors={**FACTORS, "llm.lora.r": [4, 8]},
        exclude=[{"encoder": "gin", "projector": "former", "llm.lora.r": 8}, {"encoder": ["tree"], "llm.lora.r": "4"}],
        cells={"text": {"encoder": "none", "projector": "none"}},
    )
    assert list(cells) == ["gin-atoms-4", "gin-atoms-8", "gin-former-4", "tree-atoms-8", "tree-former-8", "text"]
    assert {alias: config.name for alias, config in cells.items()} == {alias: alias for alias in cells}
    tree = cells["tree-former-8"]
    assert (tree.encoder.name, tree.encoder.width, tree.projector.queries, tree.llm.lora.r) == (
        "hierarchical",
        16,
        3,
        8,
    )
    # The preset's own GIN has 3 layers of width 64: what a level does not set stays.
    assert (cells["gin-atoms-4"].encoder.layers, cells["gin-atoms-4"].encoder.width) == (2, 64)


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_grid_is_the_product_of_its_factors_less_its_exclusions(sizes: list[int], data: st.DataObject) -> None:
    paths = ["encoder.layers", "llm.lora.r", "stages.tune.steps", "limits.train"]
    factors = factors_of({paths[k]: {f"{'abcd'[k]}{n}": n + 1 for n in range(size)} for k, size in enumerate(sizes)})
    rules = data.draw(
        st.lists(
            st.fixed_dictionaries({}, optional={f.name: st.sampled_from(sorted(f.levels)) for f in factors}).filter(
                bool
            ),
            max_size=3,
        )
    )
    combinations = [dict(zip((f.name for f in factors), c, strict=True)) for c in product(*(f.levels for f in factors))]
    expected = [c for c in combinations if not any(rule.items() <= c.items() for rule in rules)]
    if not expected:
        with pytest.raises(ConfigError, match="leaves no cell"):
            cells_of(factors, rules)
        return
    cells = cells_of(factors, rules)
    assert [dict(cell.levels) for cell in cells] == expected
    assert len({cell.name for cell in cells}) == len(expected)
    for cell in cells:
        assert cell.settings == {path: value for f in factors for path, value in f.levels[cell.levels[f.name]].items()}


def test_a_free_name_sets_several_things_and_settings_hold_for_all(tmp_path: Path) -> None:
    _, cells = read(
        tmp_path,
        settings={"stages.align.steps": 7, "encoder.width": 8, "llm.tiny": {"width": 32}},
        factors={
            "budget": {"settings": {"short": {"stages.tune.steps": 5, "llm.lora.r": 2}, "as-set": {}}},
            "encoder.width": {"narrow": 16, "own": 8},
        },
        cells={"plain": {"encoder": {"layers": 1}}},
    )
    assert list(cells) == ["short-narrow", "short-own", "as-set-narrow", "as-set-own", "plain"]
    assert {config.stages[0].steps for config in cells.values()} == {7}
    assert [config.stages[1].steps for config in cells.values()] == [5, 5, 150, 150, 150]
    assert [config.encoder.width for config in cells.values()] == [16, 8, 16, 8, 8]
    assert cells["plain"].encoder.layers == 1
    assert {(c.llm.tiny.width, c.llm.tiny.layers) for c in cells.values()} == {(32, 2)}


def test_a_setting_inside_a_component_belongs_to_the_one_that_is_chosen(tmp_path: Path) -> None:
    factors = {"encoder.width": {"wide": 48}, "encoder": {"gin": {"name": "gin"}, "gcn": "gcn"}}
    _, cells = read(tmp_path, factors=factors)
    assert {alias: (c.encoder.name, c.encoder.width) for alias, c in cells.items()} == {
        "wide-gin": ("gin", 48),
        "wide-gcn": ("gcn", 48),
    }


def test_scales_fidelity_and_switches_are_factors_too(tmp_path: Path) -> None:
    (tmp_path / "system.yaml").write_text(
        """
extends: demo
name: system
scale: small
switches:
  rate:
    paper: {set: {stages.tune.optimiser.lr: 1e-4}}
    code: {set: {stages.tune.optimiser.lr: 5e-5}}
scales:
  small: {set: {stages.tune.steps: 7}}
  large: {set: {stages.tune.steps: 70}}
"""
    )
    factors = {"scale": ["small", "large"], "switches.rate": {"p": "paper", "c": "code"}}
    _, cells = read(tmp_path, extends="system.yaml", factors=factors)
    assert {alias: (c.stages[1].steps, c.stages[1].optimiser.lr) for alias, c in cells.items()} == {
        "small-p": (7, 1e-4),
        "small-c": (7, 5e-5),
        "large-p": (70, 1e-4),
        "large-c": (70, 5e-5),
    }
    _, cells = read(tmp_path, extends="system.yaml", factors={"fidelity": ["paper", "code"]}, scale="large")
    assert [c.stages[1].optimiser.lr for c in cells.values()] == [1e-4, 5e-5]
    assert {c.stages[1].steps for c in cells.values()} == {70}
    file = str(tmp_path / "study.yaml")
    chosen = load_study(file, choices=Choices(scale="small"))[1]
    assert {c.stages[1].steps for c in chosen.values()} == {7}
    problem = refusal(tmp_path, extends="system.yaml", factors={"switches.rate": ["papr"]})
    assert "--switch rate: has no side 'papr'. Did you mean paper?" in problem
    assert "cell papr" in problem


def test_settings_of_the_command_line_change_cells_or_the_study(tmp_path: Path) -> None:
    overrides = (
        "stages.tune.steps=3",
        "seeds=[5]",
        "factors.encoder={gin: {layers: 1}}",
        "factors.llm.lora.r=[2, 3]",
        "select.metric=parameters",
    )
    study, cells = read(tmp_path, overrides, factors=FACTORS, only=("*-3",), seeds=[0, 1])
    assert list(cells) == ["gin-atoms-3", "gin-former-3"]
    assert {c.stages[1].steps for c in cells.values()} == {3}
    assert (study.seeds, study.select.metric) == ((5,), "parameters")


def test_parameters_are_matched_in_a_grid(tmp_path: Path) -> None:
    projectors = {"mlp": {"name": "mlp", "depth": 2, "hidden": 300}, "former": {"name": "resampler", "queries": 3}}
    _, declared = read(tmp_path, factors={"projector": projectors})
    _, cells = read(tmp_path, factors={"projector": projectors}, match_params="mlp")
    assert cells["mlp"] == declared["mlp"]
    assert cells["former"].projector != declared["former"].projector
    assert "names no cell 'ml'" in refusal(tmp_path, factors={"projector": projectors}, match_params="ml")


@pytest.mark.parametrize(
    ("name", "cells", "seeds"), [("smoke-grid", 4, 2), ("smoke-matrix", 16, 2), ("smoke-sharing", 6, 3)]
)
def test_the_studies_of_trials_are_what_they_say(name: str, cells: int, seeds: int) -> None:
    study, found = load_study(name)
    assert (len(found), len(study.seeds)) == (cells, seeds)
    assert {(c.llm.name, c.task.data) for c in found.values()} == {("tiny", "bundled")}
    assert len({(c.encoder, c.projector) for c in found.values()}) == cells
    assert name in shipped_files("studies")


def test_the_study_of_the_manual_is_one(tmp_path: Path) -> None:
    manual = (REPOSITORY / "docs" / "studies.md").read_text(encoding="utf-8")
    example, budget = (block.partition("```")[0] for block in manual.split("```yaml\n")[1:])
    study, cells = read(tmp_path, text=example)
    assert "tree-levels-0.0003" in cells
    assert (len(cells), study.select.metric) == (7, "strict/bleu-2")
    _, cells = read(tmp_path, text=f"name: budgets\nextends: chebi20-graph\n{budget}")
    assert list(cells) == ["short", "long", "preset"]


# What is refused


@pytest.mark.parametrize(
    ("factors", "parts"),
    [
        ({"encodr": ["gin"]}, ["factors.encodr", "'encodr'", "Did you mean encoder?", "below `settings`"]),
        ({"llm.lora.rank": [4]}, ["factors.llm.lora.rank", "unknown setting", "Allowed here: r, alpha", "cell 4"]),
        ({"stages.tun.steps": [4]}, ["factors.stages.tun.steps", "no 'tun'", "1 (tune)"]),
        ({"stages.tune.steps": [0]}, ["cell 0: stages[1].steps", "is 0", "greater than or equal to 1"]),
        ({"encoder": ["gim"]}, ["factors.encoder", "gim", "gin", "cell gim"]),
        ({"seed": [1, 2]}, ["factors.seed", "`seeds`"]),
        ({"switches": ["a"]}, ["factors.switches", "leads nowhere", "switches.NAME"]),
        ({"encoder": []}, ["factors.encoder", "[]", "levels are expected"]),
        ({"encoder": "gin"}, ["factors.encoder", "'gin'", "list of values"]),
        ({"encoder": ["gin", "gin"]}, ["factors.encoder", "'gin' stands twice"]),
        ({"llm.lora.r": [4, "4"]}, ["factors.llm.lora.r", "'4' stands twice"]),
        ({"llm.lora.r": {4: 4}}, ["factors.llm.lora.r", "read by YAML as 4", "quotes"]),
        ({"encoder": [{"name": "gin"}]}, ["factors.encoder", "needs an alias"]),
        ({"llm.name": ["a/b"]}, ["factors.llm.name", "'a/b'", "give it one"]),
        ({"encoder": {"a b": "gin"}}, ["factors.encoder", "'a b'", "letters, digits"]),
        ({"x": {"settings": {"a": {"encodr": 1}}}}, ["factors.x.settings.a.encodr", "Did you mean encoder?"]),
        ({"x": {"settings": {"a": 1}}}, ["factors.x.settings.a", "is 1", "PATH: VALUE"]),
        ({"x": {"settings": {}}}, ["factors.x.settings", "{}", "ALIAS"]),
        ({"x": {"settings": {"a": {}}, "b": {}}}, ["factors.x", "'b' beside `settings`"]),
        (
            {"encoder": ["gin"], "x": {"settings": {"a": {"encoder": "gcn"}}}},
            ["factors.x", "sets encoder", "'encoder' sets too"],
        ),
        ({"llm.lora.r": {"a-b": 1, "a": 2}, "limits.train": {"c": 9, "b-c": 8}}, ["two cells", "'a-b-c'", "aliases"]),
        ({"llm.lora.r": {"a": 8, "b": 8}}, ["cells a and b", "the same in all settings"]),
    ],
)
def test_factors_that_cannot_be_used_are_refused(factors: dict[Any, Any], parts: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path, factors=factors)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("levels", "parts"),
    [
        ("{yes: gin, no: gcn}", ["factors.encoder", "read by YAML as True", "quotes"]),
        ("{1: gin}", ["factors.encoder", "read by YAML as 1"]),
        ("{1e3: gin}", ["factors.encoder", "read by YAML as 1000.0"]),
        ("{null: gin}", ["factors.encoder", "read by YAML as None"]),
        ("{gin: gin, gin: gcn}", ["'gin' stands twice"]),
    ],
)
def test_aliases_that_yaml_reads_as_something_else_are_refused(levels: str, parts: list[str], tmp_path: Path) -> None:
    message = refusal(tmp_path, text=f"name: grid\nextends: demo\nfactors:\n  encoder: {levels}\n")
    cells = refusal(tmp_path, text="name: grid\nextends: demo\ncells: {on: {}}\n")
    for part in parts:
        assert part in message
    assert "cells: the alias is read by YAML as True" in cells


@pytest.mark.parametrize(
    ("exclude", "parts"),
    [
        ([{"encodr": "gin"}], ["exclude[0].encodr", "Did you mean encoder?"]),
        ([{"encoder": "gin"}, {"encoder": ["gim"]}], ["exclude[1].encoder", "'gim'", "Did you mean gin?", "tree"]),
        ([{"encoder": ["gin", "tree"]}], ["exclude", "leaves no cell"]),
        ([{}], ["exclude[0]", "{}"]),
    ],
)
def test_exclusions_that_name_nothing_or_leave_nothing_are_refused(
    exclude: list[Any], parts: list[str], tmp_path: Path
) -> None:
    message = refusal(tmp_path, factors=FACTORS, exclude=exclude)
    for part in parts:
        assert part in message


def test_pairs_that_do_not_fit_are_all_named_with_the_exclusions_that_mend_it(tmp_path: Path) -> None:
    factors = {
        "llm.lora.r": [4, 8],
        "encoder": ["gin", "smiles"],
        "projector": {"atoms": "linear", "levels": {"name": "reduction", "strategy": "hierarchical"}},
    }
    message = refusal(tmp_path, factors=factors)
    assert "cell 4-gin-levels: reduction needs the level motif, but encoder gin provides atom" in message
    assert "cell 8-smiles-atoms: linear needs the level atom" in message
    exclude = yaml.safe_load(message.partition("leave them out:\n")[2])["exclude"]
    assert len(exclude) == 3  # once for each pair, whatever else varies
    _, cells = read(tmp_path, factors=factors, exclude=exclude)
    assert list(cells) == ["4-gin-atoms", "8-gin-atoms"]
    explicit = refusal(tmp_path, cells={"a": {}, "b": {"encoder": "smiles"}})
    assert "cell b: linear needs the level atom" in explicit
    assert "exclude" not in explicit


def test_other_mistakes_of_a_study_are_refused(tmp_path: Path) -> None:
    assert "cells: is empty, and so is `factors`" in refusal(tmp_path)
    assert "cells.gin-atoms: a cell of the grid has that name" in refusal(
        tmp_path, factors=FACTORS, cells={"gin-atoms": {"seed": 3}}
    )
    assert "cells a and b: are the same in all settings" in refusal(tmp_path, cells={"a": {}, "b": {"name": "b"}})
    assert "1 stands twice" in refusal(tmp_path, cells={"a": {}}, seeds=[0, 1, 1])
    assert "seeds" in refusal(tmp_path, cells={"a": {}}, seeds=[-1])
    assert "--set seed=3: the runs of a study have the seeds of `seeds`" in refusal(
        tmp_path, ("seed=3",), cells={"a": {}}
    )
    assert "named by their aliases" in refusal(tmp_path, ("name=b",), cells={"a": {}})
    assert "--only gim-*: names no cell. " in refusal(tmp_path, only=("gin-*", "gim-*"), factors=FACTORS)
    assert "same in all settings" in refusal(tmp_path, ("llm.lora.r=4",), factors={"llm.lora.r": [4, 8]})


# The rule of selection


def test_a_rule_never_reads_test_and_names_what_is_measured(tmp_path: Path) -> None:
    cells = {"a": {}, "b": {"llm": {"lora": {"r": 2}}}}
    metric = {"metric": "strict/bleu-2"}
    assert "answers are asked on the test split, by which nothing may be selected" in refusal(
        tmp_path, cells=cells, select=metric
    )
    study, _ = read(tmp_path, ("evaluation.split=validation",), cells=cells, select=metric)
    assert study.select.direction == "max"
    for wrong, part in (
        ("strict/bleu-3", "strict measures bleu-2, bleu-4"),
        ("molt5/bleu-2", "the run is scored by strict"),
        ("bleu-2", "it may be loss, parameters, seconds, or PROTOCOL/METRIC"),
    ):
        message = refusal(tmp_path, ("evaluation.split=validation",), cells=cells, select={"metric": wrong})
        assert part in message, message
    wrong_task = {**metric, "task": "naming"}
    assert "'naming', which is not asked; asked are caption" in refusal(
        tmp_path, ("evaluation.split=validation",), cells=cells, select=wrong_task
    )
    assert "select.mode" in refusal(tmp_path, cells=cells, select={"mode": "largest"})


def test_figures_of_a_result(tmp_path: Path) -> None:
    def entry(split: str, asked: str, value: float | None, task: str = "caption") -> dict[str, Any]:
        scores = [{"protocol": "strict@1", "metrics": {"bleu-2": {"value": value}}}]
        return {"split": split, "evaluation_id": asked, "task": task, "scores": scores}

    summary = {
        "parameters": {"trained_sum": 12},
        "training_seconds": 3.5,
        "stages": [
            {"validation": {"0": 9.0, "5": 8.0}, "kept_step": 5},
            {"validation": {"0": 4.0, "5": 2.0, "10": 3.0}, "kept_step": 5},
        ],
        "evaluations": [
            entry("test", "t", 0.9),
            entry("validation", "own", 0.25),
            entry("validation", "later", 0.75),
            entry("validation", "other", 0.5, "naming"),
        ],
    }
    bleu = Selection(metric="strict/bleu-2", task="caption")
    assert figure_of(summary, Selection()) == 2.0
    assert figure_of(summary, Selection(metric="parameters")) == 12
    assert figure_of(summary, Selection(metric="seconds")) == 3.5
    assert figure_of(summary, bleu) == 0.75
    assert figure_of(summary, bleu, asked={"own"}) == 0.25
    assert figure_of(summary, Selection(metric="strict@1/bleu-2", task="naming")) == 0.5
    assert figure_of(summary, Selection(metric="strict@2/bleu-2")) is None
    assert figure_of({**summary, "evaluations": [entry("test", "t", 0.9)]}, bleu) is None
    assert figure_of({**summary, "evaluations": [entry("validation", "own", float("nan"))]}, bleu) is None
    assert figure_of({}, Selection()) is None
    directions = {name: Selection(metric=f"strict/{name}").direction for name in ("mae", "levenshtein", "roc-auc")}
    assert directions == {"mae": "min", "levenshtein": "min", "roc-auc": "max"}
    assert Selection(metric="strict/mae", mode="max").direction == "max"
    assert Selection().better(1.0, 2.0)
    assert bleu.better(2.0, 1.0)


def test_a_run_without_training_has_no_loss_to_be_selected_by(tmp_path: Path) -> None:
    _, cells = read(tmp_path, cells={"a": {"stages": []}}, select={"metric": "parameters"})
    with pytest.raises(ConfigError, match="has no stage"):
        check_selection(Selection(), cells["a"])
