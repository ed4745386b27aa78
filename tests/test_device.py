"""On what is computed: `auto` is settled once, and a GPU that is not there is told of and changes to nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import QUICK

from bench.cli import _status
from bench.device import device_of, settled
from bench.dispatch.start import run_plan
from bench.errors import DeviceLostError, UserError
from bench.experiment import run
from bench.plan import plan_study
from bench.preset import load_config
from bench.run_store import RunDirectory, read_json
from bench.runtime import Runtime
from bench.search import load_search, run_search
from bench.search.claims import Claims
from bench.search.storage import SearchFolder, open_storage
from bench.study import load_study


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, threads=1, tracking="none", progress=False)


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_settled_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = settled(runtime)
    assert found.device == "cuda"
    assert device_of(found).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # it is lost
    with pytest.raises(DeviceLostError, match=r"--device cuda: torch sees no GPU on .*the same command goes on"):
        device_of(found)
    assert settled(runtime).device == "cpu"
    with pytest.raises(UserError, match="--device abacus"):
        device_of(Runtime(device="abacus"))


@pytest.mark.usefixtures("_no_gpu")
def test_a_run_whose_gpu_is_lost_has_not_failed(runtime: Runtime, tmp_path: Path) -> None:
    config = load_config("demo", QUICK)
    with pytest.raises(DeviceLostError):
        run(config, replace(runtime, device="cuda"))
    (folder,) = runtime.runs.glob("demo-*")
    status = RunDirectory(folder).status()
    assert (status.state, status.error) == ("interrupted", None)
    assert "torch sees no GPU" in (status.message or "")
    assert [session["end"]["reason"] for session in read_json(folder / "manifest.json")["sessions"]] == ["no device"]


@pytest.mark.usefixtures("_no_gpu")
def test_a_lost_gpu_ends_a_search_and_no_trial(runtime: Runtime, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    space = {"stages.tune.optimiser.lr": [1e-3, 2e-3]}
    file.write_text(yaml.safe_dump({"name": "mine", "extends": "demo", "space": space, "trials": 2}))
    settings = [setting for setting in QUICK if "optimiser" not in setting]
    with pytest.raises(DeviceLostError):
        run_search(load_search(str(file), settings), replace(runtime, device="cuda"), test=False)
    folder = SearchFolder(runtime.runs, "mine")
    claims = Claims(load_search(str(file), settings), open_storage(None, folder), folder)
    assert [trial.state.name for trial in claims.study.get_trials()] == ["RUNNING"], "the same command goes on"


@pytest.mark.usefixtures("_no_gpu")
def test_a_lost_gpu_ends_a_study_at_the_run_that_it_is_found_at(runtime: Runtime, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump({"name": "two", "extends": "demo", "seeds": [0, 1], "cells": {"linear": {}}}))
    study, cells = load_study(str(file), QUICK, runtime)
    plan = plan_study(study, cells, runtime)
    with pytest.raises(DeviceLostError, match="torch sees no GPU"):
        run_plan(plan, replace(runtime, device="cuda"))
    assert len(list(runtime.runs.glob("linear-*"))) == 1, "the other run would fare no better"


@pytest.mark.parametrize("command", ["study", "search", "run"])
def test_a_wrong_tracking_address_is_told_before_anything_is_prepared(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {"study": "smoke-matrix", "search": "smoke-search", "run": "demo"}[command]
    runs = tmp_path / "runs"
    assert _status([command, name, "--runs", str(runs), "--tracking", "mlruns", "--quiet"]) == 2
    said = capsys.readouterr()
    assert "--tracking mlruns: give sqlite:///FILE" in said.err
    assert said.out == ""
    assert not runs.exists()
