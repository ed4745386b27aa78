"""`molgraft reproduce`: from nothing to tables, once and again, with a run that fails, and without data."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK

from bench.cli import _status
from results.packed import read_study
from results.tables.files import deviations

STUDY: dict[str, Any] = {
    "name": "two",
    "extends": "demo",
    "question": "Does LLaMo's projector do better than a linear map?",
    "seeds": [0],
    "cells": {
        "linear": {},
        "layers": {"encoder": {"motifs": "motifs"}, "projector": {"name": "multilevel", "queries": 2, "depth": 2}},
    },
    "notes": ["A trial."],
    "scales": {"usual": {}, "smoke": {"seeds": [1], "notes": ["A smaller trial."]}},
    "scale": "usual",
    "table": {
        "title": "Two projectors",
        "task": "caption",
        "protocols": ["llamo", "strict"],
        "metrics": ["bleu-4", "bleu-2"],
        "reference": "linear",
        "published": "llamo/table4",
        "rows": {
            "linear": {"label": "linear map"},
            "layers": {"label": "MGProj", "published": "MGProj"},
        },
    },
}


DIVERGING = '''
from dataclasses import dataclass
from typing import ClassVar

from projectors.linear import Linear, LinearModule


@dataclass(frozen=True, kw_only=True)
class Diverging(Linear):
    """A linear map that gives no numbers."""

    name: ClassVar[str] = "diverging"

    def build(self, widths, llm_width):
        return DivergingModule(self.level, super().build(widths, llm_width).linear)


class DivergingModule(LinearModule):
    def forward(self, encoding, context=None):
        given = super().forward(encoding, context)
        return type(given)(given.embeds * float("nan"), given.ptr)
'''


@pytest.fixture
def workplace(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reproduce(study: str, *options: str) -> int:
    settings = [argument for value in QUICK for argument in ("--set", value)]
    return _status(["reproduce", study, *settings, "--tracking", "none", "--quiet", "--offline", *options])


def written(folder: Path, **changes: Any) -> str:
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return str(file)


def test_a_study_is_run_packed_and_tabled_and_nothing_is_done_twice(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(workplace)
    assert reproduce(file, "--scale", "smoke", "--dry-run") == 0
    assert "2 to do" in capsys.readouterr().err
    assert not list(Path("runs").glob("*/status.json"))

    assert reproduce(file, "--scale", "smoke", "--max-runs", "2") == 0
    assert "2 of 2 runs are done" in capsys.readouterr().out
    folder = Path("reproduced/two")
    files = {path.suffix: path for path in (folder / "tables").iterdir()}
    assert set(files) == {".md", ".tex", ".html", ".json"}
    study = read_study(folder)
    assert (study.about["scale"], [(run.name, run.seed) for run in study.runs]) == (
        "smoke",
        [("linear", 1), ("layers", 1)],
    )
    text = files[".md"].read_text()
    assert text.startswith("Two projectors. caption on bundled, test split, protocol strict@")
    (row,) = (line for line in text.splitlines() if line.startswith("| MGProj"))
    assert "0.378" in row
    (header,) = (line for line in text.splitlines() if line.startswith("| cell"))
    assert "published" in header
    for note in ("A trial.", "A smaller trial."):
        assert f"- {note}" in text
    assert re.search("^- .*llamo.*strict", text, re.MULTILINE)  # that the published number is by another protocol
    assert list(deviations(folder)) == []

    made = {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/result.json")}
    assert len(made) == 2
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert reproduce(file, "--scale", "smoke", "--max-runs", "0") == 0
    assert made == {path: path.stat().st_mtime_ns for path in Path("runs").glob("*/result.json")}
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()

    # A cell that fails stands in the table as that, and the command says so.
    (workplace / "parts").mkdir()
    (workplace / "parts" / "diverging.py").write_text(DIVERGING)
    monkeypatch.setenv("MOLGRAFT_PLUGINS", "parts")
    cells = {**STUDY["cells"], "diverging": {"projector": "diverging"}}
    assert reproduce(written(workplace, cells=cells), "--scale", "smoke", "-o", "with-failure") == 1
    told = capsys.readouterr()
    assert "failed: diverging, seed 1" in told.err
    assert "2 of 3 runs are done" in told.out
    (shown,) = Path("with-failure/tables").glob("*.md")
    (row,) = (line for line in shown.read_text().splitlines() if line.startswith("| diverging"))
    assert "nan" in row


def test_data_that_are_not_at_hand_are_named_before_anything_runs(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(workplace / "empty"))
    monkeypatch.setenv("MOLGRAFT_CACHE", str(workplace / "cache"))
    protocols = ("--set", "evaluation.protocols=[strict]")
    options = ("--scale", "small", "--offline", "--quiet", "--tracking", "none")
    for study, data in (("llamo-table4", "pubchem324k-caption"), ("graph-reliance", "chebi20")):
        assert _status(["reproduce", study, *options, *protocols]) == 2
        told = capsys.readouterr().err
        assert f"study {study}: nothing was run, since some cells cannot be" in told
        assert data in told
        assert "molgraft data" in told
    assert _status(["reproduce", "llamo-table4", *options]) == 2
    assert "llama2_tokenizer" in capsys.readouterr().err
    assert not list(workplace.glob("runs/*"))
    assert _status(["reproduce", "llamo-table44"]) == 2
    assert "Did you mean llamo-table4?" in capsys.readouterr().err


def test_what_is_packed_says_what_it_was_made_of(workplace: Path) -> None:
    file = written(workplace, table={"rows": {"linear": {"label": "one"}}}, notes=[], scales={}, scale=None)
    assert reproduce(file, "--only", "linear", "-o", "packed") == 0
    described = json.loads(Path("packed/study.json").read_text())
    assert described["question"] == STUDY["question"]
    (table,) = described["tables"]
    assert (table["task"], table["cells"], table["rows"]) == (
        "caption",
        ["linear"],
        {"linear": {"label": "one", "published": None}},
    )
