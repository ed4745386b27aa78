"""A run that begins with pretrainings of its own, and one that is asked without any training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import QUICK

from bench.errors import ConfigError
from bench.experiment import run
from bench.parsing import to_mapping
from bench.prepare import prepare
from bench.preset import load_config
from bench.pretrained_parts import pretrainings_of
from bench.run_store import read_json
from bench.runtime import Runtime

DATA = "data: {training: [{data: bundled, limit: 48}]}, steps: 4, batch_size: 8"
QFORMER = (
    "projector={name: qformer, num_query_tokens: 3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, "
    "intermediate_size: 48}"
)
TWO = (
    f"pretraining=[{{name: masking, objective: {{name: masking}}, {DATA}}}, "
    f"{{name: stage-1, objective: {{name: qformer, projection: 16, text_encoder: {{max_length: 32, small: "
    f"{{vocabulary: 400}}}}}}, {DATA}}}]"
)
# The mask has rows in the tables of this scheme only.
ENCODER = "encoder={name: gin, layers: 2, width: 16, scheme: pgnn2}"


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, device="cpu", progress=False, tracking="none")


def test_a_run_begins_with_its_pretrainings_and_goes_on_from_their_weights(runtime: Runtime) -> None:
    config = load_config("demo", [*QUICK, ENCODER, QFORMER, TWO])
    assert [p.encoder.layers for p in pretrainings_of(config)] == [2, 2]  # type: ignore[attr-defined]
    result = run(config, runtime)
    assert result.summary["evaluations"][0]["n"] == 12
    manifest = read_json(result.run.manifest_file)
    first, second = (runtime.runs / "pretraining" / name for name in manifest["pretrained"])
    assert first.name.startswith("masking-s0-")
    assert second.name.startswith("stage-1-s0-")
    started = yaml.safe_load((second / "config.yaml").read_text())["encoder"]["weights"]
    assert started == str(first / "encoder.safetensors")
    resolved = yaml.safe_load(result.run.config_file.read_text())
    assert resolved["encoder"]["weights"] == str(second / "encoder.safetensors")
    assert resolved["projector"]["weights"] == str(second / "objective.safetensors")
    assert resolved["pretraining"] == []

    # Nothing is done twice, and who is given the files makes the same run.
    stamps = {path: path.stat().st_mtime_ns for path in runtime.runs.rglob("*.safetensors")}
    assert run(config, runtime).run.path == result.run.path
    assert run(load_config(str(result.run.config_file)), runtime).run.path == result.run.path
    assert {path: path.stat().st_mtime_ns for path in runtime.runs.rglob("*.safetensors")} == stamps


def test_all_seeds_share_one_pretraining(runtime: Runtime) -> None:
    config = load_config(
        "demo", [*QUICK, ENCODER, f"pretraining=[{{name: masking, objective: {{name: masking}}, {DATA}}}]"]
    )
    prepared = [prepare(replace(config, seed=seed), runtime) for seed in (0, 1)]
    assert prepared[0].pretrained == prepared[1].pretrained
    assert prepared[0].cell == prepared[1].cell
    assert prepared[0].train_id != prepared[1].train_id


def test_parts_that_cannot_take_what_is_learned_are_refused_before_anything_is_done(runtime: Runtime) -> None:
    learned = f"pretraining=[{{name: masking, objective: {{name: masking}}, {DATA}}}]"
    with pytest.raises(ConfigError, match=r"pretraining: encoder molx has no setting `weights`"):
        run(load_config("demo", ["encoder=molx", "projector=fusion", learned]), runtime)
    with pytest.raises(ConfigError, match="objective qformer pretrains a projector qformer, and the run's is linear"):
        run(load_config("demo", [ENCODER, TWO]), runtime)
    with pytest.raises(ConfigError, match=r"pretraining: two stages are named 'masking'"):
        load_config("demo", [learned.replace("=[", "=[{name: masking, objective: {name: masking}, " + DATA + "}, ")])
    assert not list((runtime.runs).glob("pretraining/*"))


def test_a_model_is_asked_as_it_is_where_no_stage_is_named(runtime: Runtime) -> None:
    config = load_config("demo", [*(s for s in QUICK if not s.startswith("stages.")), "stages=[]"])
    result = run(config, runtime)
    assert result.summary["stages"] == []
    assert result.summary["scored_weights"] == "the model as it was loaded"
    assert result.summary["evaluations"][0]["n"] == 12
    assert result.summary["parameters"]["trained_sum"] == 0
    other = run(replace(config, seed=1), runtime)  # another encoder, drawn at random
    assert other.run.path != result.run.path
    assert other.summary["cell_id"] == result.summary["cell_id"]
    assert to_mapping(load_config(str(result.run.config_file)))["stages"] == []
