"""The tables that a study requests: shown when it is done, and printed as one document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from answered_runs import answered_run, plan_file
from conftest import QUICK

from bench.cli import _status

TABLES: list[dict[str, Any]] = [
    {"name": "words", "title": "Which words are right", "metrics": ["bleu-2"], "reference": "plain"},
    {
        "name": "meaning",
        "title": "What is meant",
        "metrics": ["meteor", "rouge-l"],
        "rows": {"deep": {"label": "Deep"}},
    },
]
GOLD = [f"the molecule number {number} is a salt" for number in range(30)]


def test_a_study_shows_the_tables_that_it_requests(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    cells = {"plain": {}, "deep": {"projector": {"name": "mlp", "level": "atom"}}}
    study = {"name": "mine", "extends": "demo", "cells": cells, "tables": TABLES}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(study))
    settings = [word for setting in QUICK for word in ("--set", setting)]
    where = ["--runs", str(tmp_path / "runs")]
    rest = ["--device", "cpu", "--threads", "1", "--tracking", "none", "--quiet"]
    assert _status(["study", str(file), *settings, *where, *rest]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Which words are right") < shown.index("What is meant") < shown.index("selected: ")
    first, second = shown.split("What is meant")
    assert "bleu-2" in first
    assert "meteor" not in first
    assert "Δ to plain" in first
    assert "Deep" in second
    assert "bleu-2" not in second
    assert _status(["tables", "mine", *where]) == 0
    assert shown.startswith(capsys.readouterr().out), "as it prints them again"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Of a study with two tables, the second of which has no scores yet."""
    folder = tmp_path / "runs"
    plain = answered_run(folder, "plain", 0, GOLD, [gold.replace("salt", "acid") for gold in GOLD])
    deep = answered_run(folder, "deep", 0, GOLD, GOLD)
    asked = {"task": "caption", "data": "bundled", "split": "test", "protocols": ["strict"]}
    lacking = {"name": "other", "task": "iupac", "data": "bundled", "split": "test", "protocols": ["strict"]}
    two = [{**table, **asked} for table in TABLES]
    plan_file(folder, "both", {"plain": [plain], "deep": [deep]}, tables=two)
    plan_file(folder, "lacking", {"plain": [plain], "deep": [deep]}, tables=[two[0], lacking])
    plan_file(folder, "one", {"plain": [plain], "deep": [deep]}, tables=two[:1])
    return folder


def test_several_tables_are_one_json_document(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(study: str) -> Any:
        assert _status(["tables", study, "--runs", str(runs), "--format", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    both = printed("both")
    assert [table["name"] for table in both] == ["words", "meaning"]
    assert [table["name"] for table in printed("lacking")] == ["words"], "a list, although one cannot be made yet"
    one = printed("one")
    assert {**one, "name": "words"} == both[0]
    file = tmp_path / "both.json"
    assert _status(["tables", "both", "--runs", str(runs), "-o", str(file)]) == 0
    assert json.loads(file.read_text()) == both
