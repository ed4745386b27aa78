"""Linear probes of soft tokens, on a run that was really trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import QUICK

from bench.cli import _status
from bench.experiment import run
from bench.preset import load_config
from bench.runtime import Runtime
from bench.soft_token_probe import _balanced, _logistic, _ridge, probe_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Path:
    settings = [*QUICK, "limits={train: 300, validation: 8}", "evaluation.limit=100", "projector.level=graph"]
    runtime = Runtime(runs=tmp_path_factory.mktemp("runs"), cache=session_cache, progress=False, tracking="none")
    return run(load_config("demo", settings), runtime).run.path


def test_probes_of_a_run(
    finished: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    assert _status(["probe", str(finished), "--quiet", "--json", "--limit", "300"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((finished / "soft_token_probe.json").read_text())
    assert found["n"] == 100
    facts = found["facts"]
    assert {"atoms", "rings"} <= set(facts)
    assert set(facts) | set(found["left_out"]) >= {"halogen", "amide", "aromatic ring"}
    # The graph level is the mean over atoms of what they are: even untrained it says whether some are aromatic.
    assert facts["aromatic ring"]["measure"] == "roc-auc"
    assert facts["aromatic ring"]["initial"] > 0.8
    assert all(0 <= row["answers"] <= 1 for row in facts.values() if "answers" in row)
    assert _status(["probe", str(finished), "--quiet", "--limit", "300"]) == 0
    assert "aromatic ring" in capsys.readouterr().out


def test_what_cannot_be_probed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["probe", str(tmp_path)]) == 2
    assert "is no finished run" in capsys.readouterr().err


def test_a_run_on_zeros_carries_nothing(tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of n equal rows tells n by its rounding; that is no information."""
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    zeros = "graph_input={train: zero, test: zero}"
    settings = [*QUICK, "limits={train: 120, validation: 8}", "evaluation.limit=60", zeros]
    runtime = Runtime(runs=tmp_path, cache=session_cache, progress=False, tracking="none")
    folder = run(load_config("demo", settings), runtime).run.path
    for row in probe_run(folder, runtime, limit=120)["facts"].values():
        for key in ("value", "initial"):
            assert abs(row[key] - (0.0 if row["measure"] == "r2" else 0.5)) < 0.05


def test_probes_find_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(600, 5)), rng.normal(size=(600, 5))
    count, group = (10 * x[:, 0]).round().astype(int), (x[:, 1] > 0).astype(int)
    assert _ridge(x[:400], count[:400], x[400:], count[400:]) > 0.99
    assert abs(_ridge(noise[:400], count[:400], noise[400:], count[400:])) < 0.1
    assert _logistic(x[:400], group[:400], x[400:], group[400:]) > 0.99
    assert abs(_logistic(noise[:400], group[:400], noise[400:], group[400:]) - 0.5) < 0.12


def test_balanced_accuracy() -> None:
    assert _balanced([1, 1, 0, 0], [1, 1, 0, 0]) == 1
    assert _balanced([1, 1, 1, 1], [1, 0, 0, 0]) == 0.5
    assert _balanced([0, 1, 0, 0], [1, 1, 0, 0]) == 0.75
    assert _balanced([1, 0], [1, 1]) is None
