"""Pretraining: losses that fall, kills that leave no mark, a checkpoint that encoders read, and retrieval figures."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from safetensors import safe_open

from bench.cli import _status
from bench.errors import ConfigError
from bench.identity import derived_seed
from bench.parsing import build
from bench.pretrain_encoder import PretrainingResult, pretrain
from bench.pretraining_config import PretrainingConfig, load_pretraining
from bench.pretraining_loop import rate_at
from bench.probes import compare_probes, fit_probe, frozen_features, read_probe_data, roc_auc
from bench.registry import registry
from bench.run_store import RunDirectory, read_jsonl
from bench.runtime import Runtime
from bench.shipped import shipped_files
from encoders.base import EncoderError
from encoders.gin import Gin
from encoders.store import FeatureStore
from tasks.base import TaskError
from tasks.data import Catalogue

MOLECULES = {"training": [{"data": "bundled", "limit": 64}], "validation": [{"data": "bundled", "limit": 64}]}
PAIRS = {**MOLECULES, "retrieval": [{"data": "bundled", "limit": 64}]}
SMALL = {"name": "gin", "layers": 2, "width": 32, "dropout": 0.1}
TEXT = {
    "pool": "masked_mean",
    "max_length": 48,
    "small": {"vocabulary": 400, "width": 32, "layers": 1, "heads": 2, "dropout": 0.0},
}


def config(**changes: Any) -> PretrainingConfig:
    settings = {
        "name": "trial",
        "encoder": SMALL,
        "objective": "multi_level",
        "data": MOLECULES,
        "steps": 12,
        "batch_size": 16,
        "schedule": {"name": "constant", "warmup": 0},
        "checkpoint_every": 4,
        **changes,
    }
    return build(PretrainingConfig, settings, registry())


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, device="cpu", progress=False)


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome_of(folder: Path) -> dict[str, Any]:
    """All that a pretraining is for, without times."""
    result = json.loads((folder / "result.json").read_text())
    result.pop("seconds")
    files = ["encoder.safetensors", "objective.safetensors"]
    return {**result, **{name: sha(folder / name) for name in files}, "curve": curve(folder)}


def curve(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / "stages/0-pretrain/metrics.jsonl")


def validation(result: PretrainingResult) -> tuple[dict[str, float], dict[str, float]]:
    """The losses before and after."""
    found = list(result.summary["validation"].values())
    return found[0], found[-1]


@pytest.mark.parametrize(
    ("objective", "encoder"),
    [
        ({"name": "multi_level"}, {"name": "hierarchical", "layers": 3, "width": 32}),
        ({"name": "multi_level", "bond_link": "negatives", "loss_weights": "equal"}, SMALL),
        ({"name": "masking", "bonds": True}, SMALL),
    ],
)
def test_every_loss_falls_on_few_molecules(objective: Any, encoder: Any, runtime: Runtime) -> None:
    result = pretrain(config(objective=objective, encoder=encoder, steps=60, optimiser={"lr": 5e-3}), runtime)
    before, after = validation(result)
    assert before.keys() == after.keys()
    assert len(before) > 2
    for name, loss in after.items():
        assert loss < 0.8 * before[name], name


@pytest.mark.parametrize("loss", ["info_nce", "ebm_nce"])
def test_contrast_learns_few_pairs_by_heart(loss: str, runtime: Runtime) -> None:
    objective = {"name": "contrastive", "loss": loss, "text_encoder": TEXT}
    settings = {"steps": 150, "batch_size": 32, "optimiser": {"lr": 5e-3}}
    result = pretrain(config(objective=objective, data=PAIRS, **settings), runtime)
    before, after = validation(result)
    assert after["validation_loss"] < 0.5 * before["validation_loss"]
    (*_, among_all) = result.summary["retrieval"]["by_pool"]
    assert among_all["pool"] == 64
    assert among_all["chance"] == {"recall_at_1": 1 / 64, "recall_at_5": 5 / 64, "recall_at_10": 10 / 64}
    for direction in ("molecule_to_text", "text_to_molecule"):
        assert among_all[direction]["recall_at_10"] > 0.6
    assert result.summary["figures"]["retrieval/text_to_molecule/recall_at_1"] == pytest.approx(
        among_all["text_to_molecule"]["recall_at_1"]
    )


def arguments(runs: Path, settings: Path) -> list[str]:
    return ["pretrain-encoder", str(settings), "--runs", str(runs), "--tracking", "none", "--quiet", "--threads", "1"]


def test_a_pretraining_that_is_killed_ends_as_one_that_never_was(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    settings = tmp_path / "long.yaml"
    # Dropout, a text encoder, negatives and clipping, so that whatever is lost on the way shows.
    text = {**TEXT, "small": {**TEXT["small"], "dropout": 0.1}}  # type: ignore[dict-item]
    described = {
        "name": "long",
        "encoder": SMALL,
        "objective": {"name": "contrastive", "text_encoder": text},
        "data": PAIRS,
        "steps": 120,
        "batch_size": 12,
        "optimiser": {"lr_of": {"text": 3e-3}, "max_grad_norm": 1.0},
        "validate_every": 30,
        "checkpoint_every": 20,
    }
    settings.write_text(json.dumps(described))
    killed = subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *arguments(tmp_path / "killed", settings)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 300
    steps: list[int] = []
    while not steps or steps[-1] < 50:
        assert killed.poll() is None, killed.communicate()[0].decode()
        assert time.monotonic() < deadline
        found = (tmp_path / "killed").glob("pretraining/*/stages/0-pretrain/metrics.jsonl")
        steps = [row["step"] for file in found for row in read_jsonl(file)]
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    (folder,) = (tmp_path / "killed/pretraining").glob("long-s0-*")
    assert RunDirectory(folder).status().state == "interrupted"
    assert not (folder / "encoder.safetensors").exists()
    assert len(list((folder / "stages/0-pretrain/checkpoints").glob("*.pt"))) == 2

    assert _status(arguments(tmp_path / "killed", settings)) == 0
    assert _status(arguments(tmp_path / "whole", settings)) == 0
    (undisturbed,) = (tmp_path / "whole/pretraining").glob("long-s0-*")
    assert outcome_of(folder) == outcome_of(undisturbed)
    assert len(json.loads((folder / "manifest.json").read_text())["sessions"]) == 2
    assert not (folder / "stages/0-pretrain/checkpoints").exists()


def test_an_interrupt_and_a_damaged_checkpoint_leave_no_mark(runtime: Runtime, tmp_path: Path) -> None:
    whole = pretrain(config(), Runtime(runs=tmp_path / "whole", cache=runtime.cache, device="cpu", progress=False))

    def interrupt(directory: RunDirectory) -> None:
        logged = directory.path / "stages/0-pretrain/metrics.jsonl"
        if directory.status().state == "running" and logged.exists() and curve(directory.path)[-1]["step"] >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(config(), runtime, mirror=interrupt)
    (folder,) = runtime.runs.glob("trial-*")
    assert RunDirectory(folder).status().state == "interrupted"
    newest = max((folder / "stages/0-pretrain/checkpoints").glob("*.pt"))
    assert newest.name == "step-000000008.pt"
    newest.write_bytes(newest.read_bytes()[:5000])
    again = pretrain(config(), runtime)
    assert again.run.path == folder
    assert outcome_of(folder) == outcome_of(whole.run.path)
    assert [row["step"] for row in curve(folder)] == [0, 4, 8, 10, 12, 12]


def test_what_is_done_is_not_done_again_and_other_work_is_told_apart(runtime: Runtime) -> None:
    first = pretrain(config(steps=3), runtime)
    before = first.weights.stat().st_mtime_ns
    same = pretrain(config(steps=3, name="other", checkpoint_every=2), runtime)
    assert (same.run.path, same.weights.stat().st_mtime_ns) == (first.run.path, before)
    other = [
        config(steps=4),
        config(steps=3, seed=1),
        config(steps=3, objective={"name": "multi_level", "bonds_counted": "undirected"}),
        config(steps=3, data={**MOLECULES, "training": [{"data": "bundled", "limit": 63}]}),
        config(steps=3, optimiser={"lr_of": {"heads": 1e-4}}),
        config(steps=3, encoder={**SMALL, "weights": str(first.weights)}),
    ]
    identities = {pretrain(each, runtime).summary["train_id"] for each in other}
    assert len(identities | {first.summary["train_id"]}) == 7


def test_the_exported_encoder_is_what_an_encoder_loads(runtime: Runtime, tmp_path: Path) -> None:
    trained = pretrain(config(), runtime)
    encoder = Gin(layers=2, width=32, weights=str(trained.weights))
    module = encoder.build()
    fresh = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    encoder.load(module)
    with safe_open(trained.weights, "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        (described,) = (json.loads(text) for text in file.metadata().values())
    assert stored.keys() == fresh.keys()
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in stored.items())
    assert sum(not torch.equal(tensor, fresh[name]) for name, tensor in stored.items()) > len(fresh) / 2
    assert described["encoder"]["layers"] == 2
    assert described["objective"]["name"] == "multi_level"
    assert described["pretraining"] == trained.summary["train_id"]
    assert described["data"]["bundled/train"]["sha256"]
    deeper = Gin(layers=3, width=32, weights=str(trained.weights))
    other = deeper.build()
    with pytest.raises(EncoderError, match="Nothing was loaded"):
        deeper.load(other)


def test_a_pretraining_can_go_on_from_another_ones_weights(runtime: Runtime) -> None:
    first = pretrain(config(steps=40, optimiser={"lr": 5e-3}), runtime)
    second = pretrain(config(steps=1, encoder={**SMALL, "weights": str(first.weights)}), runtime)
    scratch = pretrain(config(steps=1), runtime)
    inherited, fresh = (validation(result)[0] for result in (second, scratch))
    assert inherited.keys() == fresh.keys()
    store = FeatureStore.open_or_build(runtime.cache_folder("features"), Gin().features(), ["CCO"])
    levels = frozenset({"graph"})
    modules = []
    for weights in (first.weights, second.weights, scratch.weights):
        encoder = Gin(layers=2, width=32, weights=str(weights))
        module = encoder.build().eval()
        encoder.load(module)
        modules.append(module(store.batch(["CCO"]), levels)["graph"].values)
    near, far = (float((modules[0] - other).detach().norm()) for other in modules[1:])
    assert near < 0.5 * far


@pytest.fixture
def own_data(tmp_path: Path) -> Catalogue:
    rows = {
        "train": ["C[C@H](N)C(=O)O", "CCCCCO", "CCCCCO", "[Na+].[O-]C(=O)CCCC", "CCO", "OCC(O)C=O", "CC(C)CCN"],
        "test": ["C[C@@H](N)C(=O)O"],
    }
    for split, molecules in rows.items():
        with (tmp_path / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("molecule",), *((smiles,) for smiles in molecules)])
    described = {"columns": {"smiles": "molecule"}, "splits": {split: f"{split}.csv" for split in rows}}
    (tmp_path / "own.yaml").write_text(json.dumps(described))
    return Catalogue([tmp_path / "own.yaml"])


def test_what_is_left_out_is_counted(own_data: Catalogue, runtime: Runtime) -> None:
    data = {
        "training": [{"data": "own"}],
        "exclude": [{"data": "own", "split": "test"}],
        "cleaning": {"min_atoms": 5},
    }
    result = pretrain(config(data=data, steps=1, batch_size=2), runtime, catalogue=own_data)
    assert result.summary["counts"]["training"] == {
        "rows": 7,
        "left_out_by_cleaning": 1,
        "repeated": 1,
        "left_out_as_held_out": 1,
        "unreadable": 0,
        "kept": 4,
    }
    assert result.summary["epochs"] == 0.5


def test_mistakes_are_told(runtime: Runtime, own_data: Catalogue) -> None:
    with pytest.raises(ConfigError, match=r"data\.retrieval: is given, and objective multi_level aligns no texts"):
        config(data=PAIRS)
    with pytest.raises(ConfigError, match=r"optimiser\.lr_of: names `text`, and objective masking reads no text"):
        config(objective="masking", optimiser={"lr_of": {"text": 1.0}})
    with pytest.raises(ConfigError, match=r"objective: unknown objective 'maskin'. Did you mean masking"):
        config(objective="maskin")
    with pytest.raises(EncoderError, match="reads the level 'atom', which encoder none does not provide"):
        pretrain(config(encoder="none"), runtime)
    frozen = {"name": "random", "of": SMALL}
    with pytest.raises(EncoderError, match="encoder random cannot be pretrained: nothing in it is trained"):
        pretrain(config(encoder=frozen), runtime)
    with pytest.raises(TaskError, match="objective contrastive needs a column for the role 'caption'"):
        pretrain(config(objective="contrastive", data={"training": [{"data": "own"}]}), runtime, catalogue=own_data)
    named = {"name": "contrastive", "text_encoder": {**TEXT, "name": "nowhere"}}
    with pytest.raises(ConfigError, match=r"text_encoder\.name: 'nowhere' is no folder"):
        pretrain(config(objective=named), runtime)


@pytest.mark.parametrize("name", sorted(shipped_files("pretraining")))
def test_our_own_pretrainings_can_be_read(name: str) -> None:
    loaded = load_pretraining(name)
    loaded.objective.check(loaded.encoder)
    assert loaded.name == name
    assert {part.split for part in loaded.data.exclude} == {"validation", "test"}


def test_the_learning_rate_over_a_pretraining() -> None:
    def rates(**schedule: Any) -> list[float]:
        """Of 12 steps: three epochs of 35 molecules in batches of 8."""
        chosen = config(schedule=schedule, steps=12, batch_size=8)
        return [rate_at(chosen, 35, step) for step in range(12)]

    cosine = rates(name="cosine", warmup_steps=3)
    assert cosine[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert 0 < cosine[-1] < 0.05  # no step without a rate
    assert set(rates(name="constant", warmup=0)) == {1.0}
    assert rates(name="staircase", warmup=0, floor=0.1) == pytest.approx([1] * 4 + [0.775] * 4 + [0.325] * 4)


def test_roc_auc_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    labels = random.integers(0, 2, size=60)
    for scores in (random.normal(size=60), random.integers(0, 4, size=60).astype(float)):
        assert roc_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_probes_tell_what_features_say_and_how_sure_that_is() -> None:
    random = np.random.default_rng(0)
    labels = {split: random.integers(0, 2, size=size) for split, size in (("train", 300), ("validation", 80))}
    labels["test"] = random.integers(0, 2, size=80)
    telling, noise = {}, {}
    for split, kinds in labels.items():
        noise[split] = random.normal(size=(len(kinds), 6))
        telling[split] = noise[split] + 1.5 * np.outer(kinds, np.eye(6)[0])
    good, bad = fit_probe(telling, labels), fit_probe(noise, labels)
    assert good.test > 0.75
    assert abs(bad.test - 0.5) < 0.2
    compared = compare_probes([good], [bad], labels["test"])
    low, high = compared["ci95"]
    assert compared["difference"] == pytest.approx(good.test - bad.test)
    assert 0 < low < compared["difference"] < high
    same = compare_probes([good, bad], [good, bad], labels["test"])
    assert (same["difference"], same["ci95"]) == (0, [0, 0])


def test_probes_read_real_data_with_the_weights_they_are_given(
    data_folder: Path, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    data, store = read_probe_data(Catalogue().get(REPOSITORY / "benchmarks/probes/bace.yaml"), Gin(), runtime)
    assert {split: len(molecules) for split, molecules in data.molecules.items()} == {
        "train": 1210,
        "validation": 151,
        "test": 152,
    }
    assert int(data.labels["test"].sum()) == 92
    few = replace(data, molecules={split: molecules[:40] for split, molecules in data.molecules.items()})
    encoder = Gin(layers=2, width=32)
    untrained = [frozen_features(encoder, few, store, seed)["test"] for seed in (0, 0, 1)]
    assert np.array_equal(untrained[0], untrained[1])
    assert not np.array_equal(untrained[0], untrained[2])
    started = pretrain(config(steps=1, optimiser={"lr": 1e-30}, encoder={**SMALL, "dropout": 0}), runtime)
    module = encoder.build()
    replace(encoder, weights=str(started.weights)).load(module)
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(0, "encoder"))
        fresh = encoder.build()
    for a, b in zip(module.parameters(), fresh.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-20)
