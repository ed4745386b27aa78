"""`molgraft encode`, and pretrained weights in a run: what is written, what is refused, what is part of an identity."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK
from safetensors.torch import load_file, save_file

from bench.cli import _status
from bench.experiment import run, trained_model
from bench.prepare import prepare
from bench.preset import load_config
from bench.runtime import Runtime
from bench.session import Log
from encoders.gin import Gin
from encoders.hierarchical import Hierarchical

SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "C1CC", "CCO", "", "C", "CC(=O)Oc1ccccc1C(=O)O")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.tsv"
    path.write_text("name\tsmiles\n" + "".join(f"m{row}\t{smiles}\n" for row, smiles in enumerate(SMILES)))
    return path


def encode(*arguments: str) -> int:
    return _status(["encode", "in.tsv", "--smiles-column", "smiles", "-o", "out.npz", "--quiet", *arguments])


def test_every_level_of_every_kept_row(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode("--encoder", "hierarchical", "--set", "layers=2", "--set", "width=8", "--batch-size", "2") == 0
    assert "4 molecules, 2 rejected" in capsys.readouterr().out
    declared = Hierarchical(layers=2, width=8).provides()
    with np.load("out.npz") as file:
        assert set(file.files) == {"input_index", *(f"{level}{end}" for level in declared for end in ("", ".ptr"))}
        assert file["input_index"].tolist() == [0, 2, 4, 5]
        assert file["atom.ptr"].tolist() == [0, 13, 16, 17, 30]
        assert file["graph"].shape == (4, 8)
        assert np.array_equal(file["layer:2"], file["atom"])
        assert np.allclose(file["atom"][:13], file["atom"][17:], atol=1e-6)
        assert file["motif.ptr"].tolist()[:2] == [0, 4]
    lines = Path("out.rejected.csv").read_text().splitlines()
    assert lines[0] == "line,input_index,smiles,reason"
    assert lines[1].startswith("3,1,C1CC,")
    assert lines[2].startswith("5,3,,")


def test_levels_can_be_chosen_and_the_seed_decides_the_weights(table: Path) -> None:
    written = []
    for seed in ("0", "0", "1"):
        assert encode("--encoder", "gin", "--level", "graph", "--level", "layer:1", "--seed", seed) == 0
        with np.load("out.npz") as file:
            assert set(file.files) == {"input_index", "graph", "graph.ptr", "layer:1", "layer:1.ptr"}
            written.append(file["graph"])
    assert np.array_equal(written[0], written[1])
    assert not np.array_equal(written[0], written[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoder", "gni"), "unknown encoder 'gni'. Did you mean gin?"),
        (("--encoder", "gin", "--level", "motif"), "--level motif: encoder gin provides atom, graph"),
        (("--encoder", "none"), "encoder none provides no level"),
        (("--encoder", "gin", "--set", "layers=0"), "encoder.layers: is 0"),
        (("--encoder", "gin", "--set", "lyers=2"), "encoder.lyers: unknown setting. Did you mean layers?"),
        (("--encoder", "gin", "--weights", "nowhere.pth"), "'nowhere.pth' is no file"),
        (("--encoder", "random", "--weights", "nowhere.pth"), "encoder random reads no weights"),
        (("--encoder", "gin", "--smiles-column", "SMILES"), "no column 'SMILES'. Did you mean 'smiles'?"),
        (("--encoder", "gin", "-o", "out.csv"), "must end in .npz"),
    ],
)
def test_a_mistake_ends_in_one_line(
    table: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert encode(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out.npz").exists()


def test_a_table_without_any_molecule_is_refused(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text("smiles\nC1CC\nxyz\n")
    assert encode("--encoder", "gin") == 2
    assert "no molecule of column 'smiles' can be read. The first, line 2, 'C1CC'" in capsys.readouterr().err


def exported(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    save_file(Gin(layers=2, width=16).build().state_dict(), path)
    return path


def config(*overrides: str) -> Any:
    return load_config("demo", [*QUICK, *overrides])


def test_what_weights_hold_is_in_the_identity_and_where_they_lie_is_not(tmp_path: Path, session_cache: Path) -> None:
    runtime = Runtime(runs=tmp_path, cache=session_cache, progress=False)
    one = exported(tmp_path / "one.safetensors", 0)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(one.read_bytes())
    other = exported(tmp_path / "other.safetensors", 1)
    ids = {
        name: prepare(config(*settings), runtime).train_id
        for name, settings in {
            "none": (),
            "one": (f"encoder.weights={one}",),
            "copy": (f"encoder.weights={copy}",),
            "other": (f"encoder.weights={other}",),
        }.items()
    }
    assert ids["one"] == ids["copy"]
    assert len(set(ids.values())) == 3


def test_a_frozen_run_keeps_the_weights_that_it_was_given(tmp_path: Path, session_cache: Path) -> None:
    weights = exported(tmp_path / "gin.safetensors", 3)
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")
    frozen = "{steps: 2, batch_size: 4, name: tune, trains: {projector: full, llm: lora}}"
    result = run(config(f"encoder.weights={weights}", f"stages=[{frozen}]"), runtime)
    manifest = json.loads((result.run.path / "manifest.json").read_text())
    assert len(manifest["files"]["encoder"]) == 1
    stored = [name for path in result.run.path.glob("stages/*/final.safetensors") for name in _names(path)]
    assert any(name.startswith("projector.") for name in stored)
    assert not any(name.startswith("encoder.") for name in stored)
    prepared = prepare(config(f"encoder.weights={weights}", f"stages=[{frozen}]"), runtime)
    trained = trained_model(prepared, result.run, runtime, Log(result.run, lambda _: None))
    given = load_file(weights)
    assert given
    left = trained.model.encoder.state_dict()
    for name, tensor in given.items():
        assert torch.equal(tensor, left[name])


def test_a_random_encoder_stays_at_its_initialisation_whatever_a_stage_trains(
    tmp_path: Path, session_cache: Path
) -> None:
    runtime = Runtime(runs=tmp_path, cache=session_cache, progress=False, tracking="none", device="cpu")
    base = config("encoder=random")
    base = replace(base, encoder=replace(base.encoder, of=Gin(layers=2, width=16)))
    assert base.stages[0].trains.encoder == "full"
    result = run(base, runtime)
    stored = [name for path in result.run.path.glob("stages/*/final.safetensors") for name in _names(path)]
    assert any(name.startswith("projector.") for name in stored)
    assert not any(name.startswith("encoder.") for name in stored)


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.keys())


def test_missing_weights_are_named_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _status(["check", "demo", "--set", "encoder.weights=nowhere.pth"]) == 1
    printed = capsys.readouterr()
    assert "nowhere.pth" in printed.out + printed.err
