"""The ready studies expand, wire and can be built at all their scales; what a study's file may say of its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bench.config import TINY, RunConfig
from bench.errors import ConfigError
from bench.known_models import known_architecture
from bench.model import wire
from bench.parsing import read_yaml, to_mapping
from bench.plan import PLAN_FILE, Plan, PlannedRun, study_folder
from bench.preset import Choices, load_config
from bench.run_store import read_json
from bench.runtime import Runtime
from bench.shipped import shipped_files
from bench.study import Study, load_study
from results.published import published
from results.runs import ResultsError
from results.tables.request import RowRequest, TableRequest

READY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("llamo-table4", "llamo-table5", "m3llm-reduction", "m3llm-levels"),
            *("instructmol-ablation", "molx-ablation"),
        ),
        ("smoke", "small", "paper"),
    ),
    **dict.fromkeys(("encoder-x-projector", "graph-reliance", "robustness"), ("smoke", "small")),
}
SCALED = [(name, scale) for name, scales in READY.items() for scale in scales]


@cache
def loaded(name: str, scale: str | None = None) -> tuple[Study, Mapping[str, RunConfig]]:
    return load_study(name, runtime=Runtime(progress=False), choices=Choices(scale=scale))


@pytest.mark.parametrize(("name", "scale"), SCALED)
def test_every_cell_can_be_built_at_every_scale(name: str, scale: str) -> None:
    study, cells = loaded(name, scale)
    assert study.name == name
    assert study.scale == scale
    for alias, config in cells.items():
        large = config.llm.name != TINY
        width = known_architecture(config.llm.name).config["hidden_size"] if large else config.llm.tiny.width
        assert large == (scale == "paper")
        with torch.device("meta"):
            encoder = config.encoder.build()
            projector = config.projector.build(wire(config.encoder, config.projector), width)
        count = sum(parameter.numel() for module in (encoder, projector) for parameter in module.parameters())
        assert (count > 0) == config.projector.places_tokens, alias
        # A frozen part that is told to train would be found out only where the run begins.
        if not config.projector.places_tokens:
            assert {(stage.trains.encoder, stage.trains.projector) for stage in config.stages} <= {("frozen", "frozen")}


@pytest.mark.parametrize("name", READY)
def test_a_trial_needs_nothing_but_what_is_bundled(name: str) -> None:
    for alias, config in loaded(name, "smoke")[1].items():
        trained = [weighted.task for stage in config.stages for weighted in config.training_tasks(stage)]
        pretrained = [part.data for stage in config.pretraining for part in (*stage.data.training, *stage.data.exclude)]
        read = {task.data for task in (*trained, *config.evaluation_tasks())} | set(pretrained)
        assert read <= {"bundled", "bundled-dialogues"}, alias
        assert [protocol.name for protocol in config.evaluation.protocols] == ["strict"]
        assert not config.encoder.sources()
        assert not config.projector.sources()


@pytest.mark.parametrize(("name", "scale"), SCALED)
def test_all_cells_stand_in_a_table_and_notes_say_how_it_deviates(name: str, scale: str) -> None:
    study, cells = loaded(name, scale)
    assert study.tables
    assert {cell for table in study.tables for cell in table.cells} == set(cells)
    other = next(each for each in READY[name] if each != scale)
    for table in study.tables:
        assert table.reference in table.cells
        assert {table.label_of(cell) for cell in table.cells} != set(), "labels"
        assert len({table.label_of(cell) for cell in table.cells}) == len(table.cells)
        assert all(note.rstrip().endswith(".") and "\n" not in note for note in table.notes)
        assert len(set(table.notes)) == len(table.notes)
        here, there = (set(t.notes) for t in (table, loaded(name, other)[0].tables[0]))
        assert here - there, "a scale says of itself what it is"
        # `to_mapping` is what a plan keeps.
        assert TableRequest.from_mapping(json.loads(json.dumps(table.to_mapping()))) == table


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("llamo-table4", "llamo/table4"),
        ("llamo-table5", "llamo/table5"),
        ("instructmol-ablation", "instructmol/table10"),
    ],
)
def test_every_row_of_the_published_table_has_a_cell(name: str, identity: str) -> None:
    for scale in READY[name]:
        tables = [table for table in loaded(name, scale)[0].tables if table.published is not None]
        assert tables
        for table in tables:
            assert table.published == identity
            assert sorted(table.published_rows.values()) == sorted(row.name for row in published(identity).rows)
    asked = {table.task for table in loaded(name, "paper")[0].tables}
    assert asked == {column.task for column in published(identity).metrics}


def test_cells_that_studies_have_in_common_are_the_same_runs() -> None:
    for (one, cell), (other, twin) in (
        (("llamo-table4", "mgproj"), ("llamo-table5", "stages-1-2-dialogues")),
        (("m3llm-reduction", "captions-none"), ("m3llm-levels", "captions-all")),
    ):
        for scale in READY[one]:
            configs = [loaded(study, scale)[1][alias] for study, alias in ((one, cell), (other, twin))]
            assert replace(configs[0], name="same", origin=None) == replace(configs[1], name="same", origin=None)


def test_scales_of_a_study_left_the_cells_of_before_as_they_were() -> None:
    study, cells = loaded("graph-reliance")
    assert study.scale == "small"
    assert replace(cells["gin-linear"], name="chebi20-graph") == load_config("chebi20-graph")


def test_ablations_of_llamo_are_those_of_its_table() -> None:
    for name in ("llamo-table4", "llamo-table5"):
        for config in loaded(name, "paper")[1].values():
            assert {stage.epochs for stage in config.stages} <= {1.0}
    cells = loaded("llamo-table4", "paper")[1]
    assert [stage.name for stage in cells["without-graph"].stages] == ["tune"]
    assert cells["without-graph"].prompt.molecule == "{text}"
    counted = {
        alias: int(config.projector.tokens({level: np.array([25]) for level in config.encoder.provides()}, 1)[0])
        for alias, config in cells.items()
        if alias in ("resampler", "mgproj-no-motif", "mgproj")
    }
    assert counted == {"resampler": 28, "mgproj-no-motif": 24, "mgproj": 28}
    table5 = loaded("llamo-table5", "paper")[1]
    assert {alias: [stage.name for stage in config.stages] for alias, config in table5.items()} == {
        "none": [],
        "stage-1": ["align"],
        "stages-1-2": ["align", "tune"],
        "stages-1-2-dialogues": ["align", "tune"],
    }
    tasks = {alias: [w.task.name for w in config.stages[-1].tasks] for alias, config in table5.items() if config.stages}
    assert "instruction" in tasks["stages-1-2-dialogues"]
    assert [task for task in tasks["stages-1-2-dialogues"] if task != "instruction"] == tasks["stages-1-2"]


def test_ready_studies_are_named_in_the_manual() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for name, scales in READY.items():
        assert name in shipped_files("studies")
        assert f"| `{name}` | {len(loaded(name, scales[-1])[1])} |" in manual
    example = manual.split("```yaml\n")[1].partition("```")[0]
    assert yaml.safe_load(example)["table"]["published"] == "llamo/table4"


# What a study's file may say

STUDY: dict[str, Any] = {
    "name": "shown",
    "extends": "demo",
    "cells": {"atoms": {}, "pooled": {"projector": {"name": "reduction", "strategy": "all", "levels": ["atom"]}}},
}


def read(folder: Path, *overrides: str, asked: str | None = None, only: tuple[str, ...] = (), **changes: Any) -> Any:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    runtime = Runtime(progress=False)
    return load_study(str(file), overrides, runtime, choices=Choices(scale=asked), only=only)


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        read(folder, **changes)
    return str(raised.value)


def test_without_a_table_there_is_one_for_everything_that_is_asked(tmp_path: Path) -> None:
    study, _ = read(tmp_path)
    assert study.tables == (
        TableRequest(task="caption", data="bundled", protocols=("strict",), cells=("atoms", "pooled")),
    )
    asked = "evaluation.tasks=[{name: caption, data: bundled}, {name: descriptor, data: bundled, label: rings}]"
    study, _ = read(tmp_path, asked, "evaluation.split=validation", only=("pooled",))
    assert [(table.name, table.task, table.split, table.cells) for table in study.tables] == [
        ("caption", "caption", "validation", ("pooled",)),
        ("descriptor", "descriptor", "validation", ("pooled",)),
    ]


def test_a_scale_of_the_study_changes_what_is_compared_and_adds_notes(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "scale": "long",
        "seeds": [0, 1],
        "settings": {"stages.align.steps": 7, "task.data": "bundled"},
        "notes": ["Of all scales."],
        "table": {"rows": {"atoms": {"label": "all atoms"}}, "notes": ["Of this table."]},
        "exclude": [],
        "scales": {
            "long": {},
            "short": {
                "seeds": [3],
                "settings": {"stages.align.steps": 2},
                "cells": {"atoms": {"limits": {"train": 8}}},
                "notes": ["Short."],
            },
        },
    }
    study, cells = read(tmp_path, **changes)
    assert (study.scale, study.seeds) == ("long", (0, 1))
    assert cells["atoms"].stages[0].steps == 7
    assert study.tables[0].notes == ("Of this table.", "Of all scales.")
    assert study.tables[0].label_of("atoms") == "all atoms"
    study, cells = read(tmp_path, "stages.tune.steps=5", "seeds=[9]", asked="short", **changes)
    assert (study.scale, study.seeds) == ("short", (9,))
    assert [stage.steps for stage in cells["atoms"].stages] == [2, 5]
    assert (cells["atoms"].limits.train, cells["pooled"].limits.train) == (8, None)
    assert study.tables[0].notes == ("Of this table.", "Of all scales.", "Short.")
    with pytest.raises(ConfigError, match=r"--scale: study shown has no scale 'shrt'. Did you mean short\?"):
        read(tmp_path, asked="shrt", **changes)


def test_stages_are_left_out_after_all_else(tmp_path: Path) -> None:
    factors = {"stages.align.steps": [2], "without": {"both": [], "tuned": ["align"], "as-it-is": ["align", "tune"]}}
    cells = {"untuned": {"without": ["tune"]}}
    study, found = read(tmp_path, "stages.tune.steps=5", factors=factors, cells=cells)
    assert {alias: [stage.name for stage in config.stages] for alias, config in found.items()} == {
        "2-both": ["align", "tune"],
        "2-tuned": ["tune"],
        "2-as-it-is": [],
        "untuned": ["align"],
    }
    assert found["2-tuned"].stages[0].steps == 5
    assert study.select.metric == "loss"  # which a cell without a stage has not, and is therefore not chosen
    assert "cell untuned: without: names no stage 'tun'; there are: align, tune" in refusal_of_cell(tmp_path, ["tun"])
    assert "a list of names of stages is expected" in refusal_of_cell(tmp_path, "tune")


def refusal_of_cell(folder: Path, without: object) -> str:
    with pytest.raises(Exception) as raised:
        read(folder, cells={"untuned": {"without": without}})
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": {"task": "captoin"}}, "tables[0].task: unknown task 'captoin'"),
        ({"table": {"reference": "atom"}}, "reference: 'atom' is no cell. Did you mean atoms?"),
        ({"table": {"rows": {"atms": {}}}}, "rows: 'atms' is no cell. Did you mean atoms?"),
        ({"table": {"cells": ["pool"]}}, "cells: 'pool' is no cell. Did you mean pooled?"),
        ({"table": {"metrics": ["bleu"]}}, "tables[0].metrics: 'bleu' is no metric of strict for caption"),
        ({"table": {"protocols": ["stric"]}}, "tables[0].protocols: unknown protocol 'stric'"),
        ({"table": {"protocols": []}}, "protocols is empty"),
        ({"table": {"metrics": ["meteor", "meteor"]}}, "metrics has 'meteor' twice"),
        ({"table": {"published": "llamo/table44"}}, "'llamo/table44'"),
        (
            {"table": {"published": "llamo/table4", "rows": {"atoms": {"published": "MGProjector"}}}},
            "published: llamo/table4: row",
        ),
        ({"table": {"rows": {"atoms": {"published": "MGProj"}}}}, "the table has no `published`"),
        ({"table": {"colums": []}}, "tables[0].colums: unknown setting"),
        ({"table": {"name": "No Name"}}, "name is 'No Name'; files are named by it"),
        ({"table": {}, "tables": [{}]}, "table: stands beside `tables`"),
        ({"notes": ["Nobody reads this."]}, "notes: stand under tables, and the study has none"),
        ({"table": {}, "notes": "one"}, "notes: is 'one', where a list of sentences is expected"),
        ({"scale": "a", "scales": {"a": {"name": "other"}}}, "scales.a.name: may not depend on the scale"),
        ({"scale": "a", "scales": {"a": [1]}}, "scales.a: is [1], where a mapping"),
        ({"scale": "a"}, "scale: study shown has no scale 'a'. There are: none."),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_what_there_is(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in refusal(tmp_path, **changes)


def test_a_table_says_which_of_several_tasks_it_is_about(tmp_path: Path) -> None:
    asked = [{"name": "caption", "data": "bundled"}, {"name": "descriptor", "data": "bundled", "label": "rings"}]
    settings = {"evaluation.tasks": asked}
    assert "may be about caption on bundled, descriptor on bundled" in refusal(tmp_path, settings=settings, table={})
    tables = [{"task": "descriptor"}, {"task": "forward", "rows": {"nobody": {}}}]
    study, _ = read(tmp_path, settings=settings, tables=tables)
    assert [(table.task, table.data) for table in study.tables] == [("descriptor", "bundled")]


def test_a_table_has_the_protocols_metrics_and_split_that_cells_have(tmp_path: Path) -> None:
    table = {"published": "llamo/table4", "protocols": ["molx"], "metrics": ["meteor"], "split": "validation"}
    (shown,) = read(tmp_path, table=table)[0].tables
    assert (shown.protocols, shown.metrics, shown.split) == (("strict",), ("meteor",), "test")
    assert shown.notes == ("Answers are of the test split, not of validation.",)


def test_a_plan_keeps_tables_scale_and_fidelity_and_older_plans_are_read(tmp_path: Path) -> None:
    study, cells = loaded("llamo-table4", "smoke")
    runs = tuple(PlannedRun(alias, config, alias, alias, (alias,)) for alias, config in cells.items())
    plan = Plan(study.name, runs, study.select, question=study.question, tables=study.tables, scale="smoke")
    file = plan.write(study_folder(Runtime(runs=tmp_path), study.name))
    assert file.name == PLAN_FILE
    assert Plan.read(file) == plan
    written = read_json(file)
    assert written["scale"] == "smoke"
    assert written["tables"][0]["rows"]["mgproj"] == {"label": "MGProj", "published": "MGProj"}
    for key in ("tables", "scale", "fidelity"):
        del written[key]
    file.write_text(json.dumps(written))
    assert Plan.read(file) == replace(plan, tables=(), scale="")


def test_a_request_is_read_back_as_it_was_and_checked() -> None:
    request = TableRequest(task="caption", rows={"a": RowRequest(label="A")}, notes=("One.",), metrics=("bleu-2",))
    assert TableRequest.from_mapping(request.to_mapping()) == request
    assert request.label_of("a") == "A"
    assert request.label_of("b") == "b"
    for wrong, message in (
        ({"protocol": ["strict"]}, "table: 'protocol' is no setting. Did you mean protocols?"),
        ({"metrics": "bleu-2"}, "table.metrics is 'bleu-2', where a list of texts is expected"),
        ({"rows": {"a": {"lable": "A"}}}, "table.rows.a: 'lable' is no setting"),
        ({"rows": {"a": "A"}}, "table.rows.a is 'A'"),
    ):
        with pytest.raises(ResultsError) as raised:
            TableRequest.from_mapping(wrong)
        assert message in str(raised.value)


def test_files_of_ready_studies_hold_no_key_twice_and_a_question() -> None:
    for name in READY:
        assert "?" in str(read_yaml(shipped_files("studies")[name])["question"]), name
    assert to_mapping(loaded("graph-reliance")[0].tables[0])["task"] == "caption"
