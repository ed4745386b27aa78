"""MolCA's three stages: the Q-Former learns from texts, then from captions, then with adapters beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from conftest import QUICK
from safetensors.torch import load_file

from bench.experiment import build_model, run
from bench.objectives.qformer import QFormerObjective
from bench.parsing import build
from bench.prepare import prepare
from bench.preset import load_config
from bench.pretrain_encoder import pretrain
from bench.pretraining_config import PretrainingConfig, load_pretraining
from bench.registry import registry
from bench.runtime import Runtime
from encoders.gin import Gin
from projectors.qformer import QFormer

SIZES = {
    "num_query_tokens": 3,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TEXT = {"max_length": 48, "small": {"vocabulary": 400}}


def test_all_three_losses_fall_and_the_projector_goes_on_from_there(tmp_path: Path, session_cache: Path) -> None:
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, device="cpu", progress=False, tracking="none")
    data = [{"data": "bundled", "limit": 64}]
    settings = {
        "name": "trial",
        "encoder": {"name": "gin", "layers": 2, "width": 16},
        "objective": {
            "name": "qformer",
            "projector": {"name": "qformer", **SIZES},
            "text_encoder": TEXT,
            "projection": 16,
        },
        "data": {"training": data, "validation": data},
        "steps": 60,
        "batch_size": 16,
        "optimiser": {"lr": 3e-3},
        "schedule": {"name": "constant", "warmup": 0},
        "validate_every": 0,
        "checkpoint_every": 100,
    }
    result = pretrain(build(PretrainingConfig, settings, registry()), runtime)
    found = list(result.summary["validation"].values())
    before, after = found[0], found[-1]
    assert set(before) == {f"validation_{name}" for name in ("loss", "contrastive", "matching", "captioning")}
    assert after["validation_captioning"] < 0.8 * before["validation_captioning"]
    assert after["validation_contrastive"] < 0.95 * before["validation_contrastive"]

    folder = result.run.path
    heads, encoder = folder / "objective.safetensors", folder / "encoder.safetensors"
    small = [setting for setting in QUICK if not setting.startswith("encoder.")]
    config = load_config("demo", small)
    config = replace(
        config,
        encoder=Gin(layers=2, width=16, weights=str(encoder)),
        projector=QFormer(weights=str(heads), **SIZES),  # type: ignore[arg-type]
    )
    prepared = prepare(config, runtime)
    assert len(prepared.files["projector"]) == 1
    model, _ = build_model(prepared, runtime)
    trained = load_file(heads)
    queries = trained["pretraining.query_tokens"]
    assert torch.equal(model.projector.state_dict()["query_tokens"], queries)
    summary = run(config, runtime).summary
    assert summary["projector"] == "qformer"
    assert summary["evaluations"][0]["n"] == 12


def test_the_shipped_pretraining_reads() -> None:
    loaded = load_pretraining("qformer")
    assert isinstance(loaded.objective, QFormerObjective)
    assert loaded.objective.levels() == {"atom"}
