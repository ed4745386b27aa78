"""The README's examples, run as they stand there."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY

from bench.cli import _status

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The README's only code block of a language that holds a text."""
    blocks = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in b]
    assert len(blocks) == 1, f"{len(blocks)} {language} blocks of the README hold {containing!r}"
    return blocks[0]


@pytest.fixture
def workplace(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    monkeypatch.delenv("MOLGRAFT_PLUGINS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quick(*overrides: str) -> list[str]:
    settings = [argument for value in (*QUICK, *overrides) for argument in ("--set", value)]
    return [*settings, "--tracking", "none", "--quiet", "--json"]


def test_the_projector_of_the_readme_trains_as_a_plugin(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "parts").mkdir()
    (workplace / "parts" / "mean.py").write_text(block("python", "class Mean("))
    monkeypatch.setenv("MOLGRAFT_PLUGINS", "parts")  # what --plugins does, and undone after the test

    assert _status(["run", "demo", *quick("projector=mean")]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["projector"] == "mean"
    assert result["evaluations"][0]["reliance"]["value"] is not None


def test_the_projector_of_the_readme_holds_to_what_every_projector_must(workplace: Path) -> None:
    (workplace / "parts").mkdir()
    source = block("python", "class Mean(")
    assert source.count("\n") <= 60
    (workplace / "parts" / "mean.py").write_text(source)
    exec(compile(block("python", "check_projector("), "README.md", "exec"), {})


def test_the_study_of_the_readme_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (workplace / "parts").mkdir()
    (workplace / "parts" / "mean.py").write_text(block("python", "class Mean("))
    (workplace / "mean-or-atoms.yaml").write_text(block("yaml", "name: mean-or-atoms"))
    monkeypatch.setenv("MOLGRAFT_PLUGINS", "parts")
    arguments = [argument for argument in quick() if argument != "--json"]
    assert _status(["study", "mean-or-atoms.yaml", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "atoms" in printed
    assert "mean" in printed
    results = [json.loads(path.read_text()) for path in Path("runs").glob("*/result.json")]
    assert sorted((result["projector"], result["seed"]) for result in results) == [
        ("linear", 0),
        ("linear", 1),
        ("mean", 0),
        ("mean", 1),
    ]


def test_a_data_set_of_ones_own_needs_only_the_lines_of_the_readme(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workplace / "mine.yaml").write_text(block("yaml", "name: mine"))
    with (REPOSITORY / "tasks/bundled/molecules.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for split in ("train", "validation", "test"):
        with (workplace / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("SMILES", "text"))
            writer.writerows((row["smiles"], row["description"]) for row in rows if row["split"] == split)

    assert _status(["run", "demo", *quick("task.data=mine.yaml")]) == 0

    assert json.loads(capsys.readouterr().out)["evaluations"][0]["data"] == "mine.yaml"


def test_the_python_call_of_the_readme_gives_a_reliance(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quickly = ", ".join(repr(setting) for setting in QUICK if not setting.startswith("encoder.layers"))
    code = block("python", "load_config").replace('["encoder.layers=5"]', f'["encoder.layers=5", {quickly}]')

    exec(compile(code, "README.md", "exec"), {})

    assert "nats per token" in capsys.readouterr().out


def test_the_readme_names_both_commands_and_only_commands_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "make demo" in README
    assert "make test" in README
    for command in sorted(set(re.findall(r"(?:^|`)molgraft ([a-z][a-z-]+)", README, re.MULTILINE))):
        assert _status([command, "--help"]) == 0, command
