"""The studies in `results/`: their tables follow from their runs, and whoever has the repository makes them anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY

from bench.cli import _status

STUDIES = sorted(file.parent.name for file in (REPOSITORY / "results").glob("*/study.json"))
MOST_BYTES = 30_000_000  # of all committed results; more would make the repository slow to clone


def test_every_committed_table_follows_from_its_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert _status(["tables", "--check"]) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert STUDIES
    assert all(f"results/{name}: its tables follow from its runs" in said for name in STUDIES)


@pytest.mark.parametrize("study", STUDIES)
def test_the_tables_are_made_anew_from_nothing_but_the_repository(study: str, tmp_path: Path) -> None:
    copy = tmp_path / study
    shutil.copytree(REPOSITORY / "results" / study, copy)
    wanted = {path.name: path.read_bytes() for path in (copy / "tables").iterdir()}
    shutil.rmtree(copy / "tables")
    assert _status(["tables", str(copy)]) == 0
    assert {path.name: path.read_bytes() for path in (copy / "tables").iterdir()} == wanted


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_is_made_of_a_committed_study(study: str, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert _status(["report", str(REPOSITORY / "results" / study), "-o", str(page)]) == 0
    assert "<svg" in page.read_text()


def test_committed_results_are_small() -> None:
    files = [path for path in (REPOSITORY / "results").rglob("*") if path.is_file() and path.suffix != ".py"]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
