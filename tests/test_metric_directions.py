"""Which way a metric is better: declared on its class, written into score files, read by whoever shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from answered_runs import answered_run, protocol_of

from bench.cli import _status
from bench.errors import ConfigError, UserError
from bench.registry import PLUGINS_VARIABLE, Registry, registry
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.search import load_search
from bench.study import load_study
from results.compare import compare, runs_of
from results.leaderboard import build
from results.metrics import Directions
from results.packed import StudyOnFile
from results.report import build_report
from results.runs import ResultsError, read_runs
from results.tables import as_text, build_table

PLUGIN = """
from dataclasses import dataclass
from tasks.metrics.base import Metric, Protocol, mean_estimate

@dataclass(frozen=True, kw_only=True)
class Surplus(Metric):
    '''Characters that an answer has too many.'''
    name = "surplus"
    better = "smaller"
    def estimate(self, pairs):
        rows = zip(pairs.predictions, pairs.references)
        return mean_estimate([float(max(0, len(given or "") - len(gold))) for given, gold in rows])

@dataclass(frozen=True, kw_only=True)
class Words(Metric):
    '''Words of an answer.'''
    name = "words"
    better = None
    def estimate(self, pairs):
        return mean_estimate([float(len(text.split())) for text in pairs.texts[0]])

@dataclass(frozen=True, kw_only=True)
class Brevity(Protocol):
    '''Counts what is too much.'''
    name = "brevity"
    def metrics(self):
        return {"caption": (Surplus(), Words())}
"""
GOLD = [f"answer {number}" for number in range(40)]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "brevity.py").write_text(PLUGIN)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(folder))
    return folder


@pytest.fixture
def runs(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of two cells, scored by a plug-in that is not there any more."""
    folder = tmp_path / "runs"
    for name, surplus in (("short", " "), ("long", " and much more")):
        answers = [gold + surplus for gold in GOLD]
        answered_run(folder, name, 0, GOLD, answers, protocols=[protocol_of("brevity")], split="validation")
    monkeypatch.setenv(PLUGINS_VARIABLE, "")
    return folder


def test_what_shipped_metrics_declare_is_what_their_names_say() -> None:
    declared = {name: metric.better for name, metric in registry().all("metric").items()}
    assert declared == {name: Directions().better(name) for name in declared}
    assert {"smaller", "larger", None} == set(declared.values())


def test_score_files_say_which_way_a_plug_in_is_better(runs: Path) -> None:
    for file in runs.glob("*/scores/*.json"):
        metrics = json.loads(file.read_text())["summary"]["metrics"]
        assert {name: known["better"] for name, known in metrics.items()} == {"surplus": "smaller", "words": None}
    assert Directions().better("surplus") == "larger", "nobody has declared it"
    table = build_table(read_runs([runs]), "brevity", "validation")
    assert (table.directions.better("surplus"), table.directions.better("words")) == ("smaller", None)
    assert table.directions.is_better("surplus", 1.0, 2.0)
    assert not table.directions.is_better("surplus", 2.0, 1.0)
    assert not table.directions.is_better("words", 1.0, 2.0)
    assert "directions" not in json.loads(as_text(table, "json"))
    assert "surplus ↓" in as_text(table, "markdown")
    best = {row.cell: row.metrics["surplus"].best for row in table.rows if row.metrics["surplus"] is not None}
    assert best == {"short": True, "long": False}


def test_a_leaderboard_goes_by_it(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["leaderboard", str(runs), "--split", "validation", "--json"]) == 0
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    assert board["metrics"] == [{"name": "surplus", "better": "smaller"}, {"name": "words", "better": None}]
    assert board["rows"][0]["name"] == "short"


def test_selections_go_by_it(plugins: Path, tmp_path: Path) -> None:
    evaluation = {"evaluation.split": "validation", "evaluation.protocols": ["brevity"]}
    study = {
        "name": "mine",
        "extends": "demo",
        "settings": evaluation,
        "cells": {"a": {}, "b": {"llm": {"name": "tiny", "lora": {"r": 4}}}},
    }
    file = tmp_path / "mine.yaml"

    def read(**select: str) -> str:
        file.write_text(yaml.safe_dump({**study, "select": select}))
        return load_study(str(file), (), Runtime(progress=False))[0].select.direction

    assert read(metric="brevity/surplus") == "min"
    assert read(metric="brevity/surplus", mode="max") == "max"
    with pytest.raises(ConfigError, match=r"select\.mode: is missing, and brevity/words is no merit"):
        read(metric="brevity/words")
    search = {"name": "mine", "extends": "demo", "settings": {"evaluation.protocols": ["brevity"]}, "trials": 2}
    search |= {"space": {"llm.lora.r": [4, 8]}, "objective": {"metric": "brevity/surplus"}}
    file.write_text(yaml.safe_dump(search))
    assert [rule.direction for rule in load_search(str(file)).rules] == ["min"]


def test_older_scores_learn_it_without_being_computed_again(
    runs: Path, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(metrics: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        return {
            name: {key: value for key, value in known.items() if key != "better"} for name, known in metrics.items()
        }

    folder = next(runs.glob("short-*"))
    (file,) = folder.glob("scores/*.json")
    stored = json.loads(file.read_text())
    old = {**stored, "summary": {**stored["summary"], "metrics": without(stored["summary"]["metrics"])}}
    old["summary"]["metrics"]["surplus"]["value"] = 0.125  # which nobody would compute
    file.write_text(json.dumps(old))
    result = json.loads((folder / "result.json").read_text())
    result["evaluations"][0]["scores"] = [old["summary"]]
    (folder / "result.json").write_text(json.dumps(result))
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugins))
    assert _status(["score", str(folder), "--protocol", "brevity"]) == 0
    (score,) = json.loads((folder / "result.json").read_text())["evaluations"][0]["scores"]
    again = json.loads(file.read_text())
    assert score == again["summary"]
    assert score["metrics"]["surplus"] == {**old["summary"]["metrics"]["surplus"], "better": "smaller"}
    assert {key: again[key] for key in again if key != "summary"} == {k: old[k] for k in old if k != "summary"}


def test_two_metrics_under_one_name_are_told(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    folder = next(runs.glob("long-*"))
    moved = other / folder.name
    moved.parent.mkdir()
    folder.rename(moved)
    for file in (moved / "result.json", *moved.glob("scores/*.json")):
        file.write_text(file.read_text().replace('"better": "smaller"', '"better": "larger"'))
    both = read_runs([runs, other])
    directions = Directions.of(both)
    told = r"metric surplus: .* (smaller|larger) in .*; .*one another name"
    with pytest.raises(ResultsError, match=told):
        directions.better("surplus")
    assert directions.better("words") is None
    with pytest.raises(ResultsError, match=told):
        build_table(both, "brevity", "validation")
    with pytest.raises(ResultsError, match=told):
        build(both)


def test_runs_that_were_read_before_say_nothing_of_those_at_hand(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs, other)
    for file in (*other.glob("*/result.json"), *other.glob("*/scores/*.json")):
        file.write_text(file.read_text().replace('"better": "smaller"', '"better": "larger"'))
    for folder, best in ((runs, "short"), (other, "long"), (runs, "short")):
        (board,) = build(read_runs([folder])).boards
        assert board.rows[0].name == best


def test_a_comparison_and_a_report_go_by_it(runs: Path) -> None:
    short, long = (runs_of(name, runs) for name in ("short", "long"))
    (comparison,) = compare(short, long, split="validation")
    surplus, words = comparison.metrics
    assert (surplus.direction, words.direction) == ("smaller", None)
    assert surplus.wins is not None
    assert (surplus.wins.a, surplus.wins.b, words.wins) == (len(GOLD), 0, None)
    study = StudyOnFile("mine", "", (), tuple(read_runs([runs])), ("short", "long"), (), {})
    assert study.directions.better("surplus") == "smaller"
    assert build_report(study).parts[0].standings[0].cell == "short"


def test_a_declaration_that_cannot_be_read_is_refused(plugins: Path) -> None:
    (plugins / "brevity.py").write_text(PLUGIN.replace('"smaller"', '"lower"'))
    found = Registry((plugins,))
    with pytest.raises(UserError, match=r"Surplus\.better is 'lower'; it may be 'larger', 'smaller' or None"):
        found.get("metric", "surplus")


def test_what_ships_is_read_as_its_names_say(tmp_path: Path) -> None:
    folder = answered_run(tmp_path, "mine", 0, ["C", "CC"], ["C", "C"], kind="molecule")
    assert RunDirectory(folder).status().state == "done"
    assert Directions.of(read_runs([tmp_path])).better("levenshtein") == "smaller"
