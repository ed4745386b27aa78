"""Dry runs: parameters per part against those of the published systems, memory, steps, and data that are not here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from torch import nn

from bench.check import inspect
from bench.check_report import report
from bench.config import Lora
from bench.errors import ConfigError
from bench.known_models import configuration, known_architecture, known_architectures, skeleton_of
from bench.language_model import attach_lora, embedding_width
from bench.memory import weights_of
from bench.model import GraphLanguageModel, wire
from bench.preset import load_config
from bench.runtime import Runtime
from encoders.base import Encoder
from encoders.functional_groups import FunctionalGroup
from encoders.gin import Gin
from encoders.moleculestm import MoleculeStm
from encoders.molx import MolX
from encoders.motifs import MotifScheme
from encoders.ogb_features import InstructMol2, MolCa2, Ogb9
from encoders.smiles import Smiles
from projectors.base import Projector
from projectors.fusion import Fusion
from projectors.linear import Linear
from projectors.mlp import Mlp
from projectors.multilevel import Multilevel
from projectors.qformer import QFormer
from tasks.data import Catalogue

LLAMA, VICUNA = "meta-llama/Llama-2-7b-chat-hf", "lmsys/vicuna-7b-v1.3"
MLP_MAPS = ("gate_proj", "up_proj", "down_proj")
CHEMBERTA = Smiles(model="DeepChem/ChemBERTa-10M-MTR", pool="mean_unmasked", truncate=True, pooler=True)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def on_meta(llm: str, encoder: Encoder, projector: Projector, lora: Lora | None = None) -> GraphLanguageModel:
    model = skeleton_of(configuration(known_architecture(llm)), torch.bfloat16)
    levels = wire(encoder, projector)
    with torch.device("meta"):
        if lora is not None:
            model = attach_lora(model, lora)
        parts = encoder.build(), projector.build(levels, embedding_width(model))
    return GraphLanguageModel(*parts, model, levels)


@pytest.mark.parametrize("name", sorted({known.shape: name for name, known in known_architectures().items()}.values()))
def test_a_known_architecture_has_as_many_parameters_as_the_published_weights(name: str):
    architecture = known_architecture(name)
    assert architecture.source
    model = skeleton_of(configuration(architecture), torch.bfloat16)
    assert count(model) == architecture.parameters
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == architecture.config["tie_word_embeddings"]


def test_the_models_of_the_published_systems_are_known():
    wanted = {LLAMA, VICUNA, "lmsys/vicuna-13b-v1.3", "meta-llama/Llama-3.2-1B", "facebook/galactica-1.3b"}
    assert wanted | {"mistralai/Mistral-7B-Instruct-v0.1", "facebook/galactica-125m"} <= set(known_architectures())
    with pytest.raises(ConfigError, match=r"llm\.name: 'some/model' has no known architecture"):
        known_architecture("some/model")


# The counts are those of the papers' released code.


def test_llamo():
    motifs = MotifScheme(segmenter=FunctionalGroup(), fallback="none")
    encoder = MoleculeStm(scheme=Ogb9(chirality_rows=4), motifs=motifs, motif_rows="described")
    lora = Lora(r=8, alpha=32, targets=("q_proj", "v_proj"))
    model = on_meta(LLAMA, encoder, Multilevel(), lora)
    assert count(model.projector) == 85_892_756
    assert count(model.encoder) == 1_884_905
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == 4_194_304
    assert model.token_embedding.weight.numel() == 131_072_000
    assert count(model.llm) - 4_194_304 == 6_738_415_616


def test_instructmol():
    encoder = MoleculeStm(scheme=InstructMol2())
    model = on_meta(VICUNA, encoder, Linear(), Lora(r=64, alpha=16))
    assert count(model.projector) == 1_232_896
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == 159_907_840
    assert count(on_meta(VICUNA, encoder, Mlp()).projector) == 18_014_208


def test_molx():
    lora = Lora(r=8, alpha=32, targets=("q_proj", "k_proj", "v_proj", "o_proj", *MLP_MAPS))
    model = on_meta(LLAMA, MolX(smiles=CHEMBERTA, graph=Gin(scheme=MolCa2())), Fusion(), lora)
    assert count(model.encoder.towers["smiles"]) == 3_427_440
    assert count(model.encoder.towers["graph"]) == 1_857_900
    maps = [count(model.projector.project[level]) for level in ("smiles", "graph", "fingerprint")]
    assert maps == [9_181_184, 9_009_152, 12_589_056]
    assert model.projector.prompt.numel() == 16_384
    assert count(model.encoder) + count(model.projector) == 36_081_116
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) == 19_988_480
    # The shares that the abstract gives.
    assert pytest.approx(0.0053, abs=5e-5) == 36_081_116 / (6_738_415_616 + 36_081_116)
    assert pytest.approx(0.0082, abs=1e-4) == (36_081_116 + 19_988_480) / (6_738_415_616 + 36_081_116 + 19_988_480)


def test_molca():
    model = on_meta("facebook/galactica-1.3b", Gin(scheme=MolCa2()), QFormer())
    assert count(model.projector.qformer) == 94_926_336
    assert model.projector.query_tokens.numel() == 6_144


def test_a_smiles_model_of_known_shape_is_counted_without_its_files():
    with torch.device("meta"):
        whole, without = (replace(CHEMBERTA, pooler=keep).build() for keep in (True, False))
    assert count(whole) - count(without) == 147_840  # a pooler that nothing reads
    assert CHEMBERTA.provides() == {"smiles": 384}
    random = replace(CHEMBERTA, weights="random")
    assert random.sources() == ()
    assert count(random.build()) == 3_427_440


# Weights and memory


@pytest.mark.parametrize(("quantisation", "bytes_each"), [("none", 2.0), ("8bit", 1.0), ("4bit", 0.516)])
def test_weights_take_what_their_types_take(quantisation: str, bytes_each: float):
    model = on_meta(LLAMA, MoleculeStm(), Linear())
    maps = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    others = (6_738_415_616 - maps) * 2 + 4 * (count(model.encoder) + count(model.projector))
    assert weights_of(model, quantisation) == pytest.approx(maps * bytes_each + others, rel=1e-3)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=tmp_path / "cache", device="cpu", offline=True, progress=False)


def test_a_dry_run_tells_parameters_lengths_memory_and_steps(runtime: Runtime):
    found = inspect(load_config("demo", QUICK), runtime, Catalogue())
    assert found["missing"] == []
    align, tune = found["stages"]
    assert (align["steps"], tune["steps"]) == (6, 6)
    assert align["trained_by_part"]["adapters"] == 0 < tune["trained_by_part"]["adapters"]
    assert sum(tune["trained_by_part"].values()) == tune["trained"]
    for stage in (align, tune):
        lengths, memory = stage["lengths"], stage["memory_gib"]
        assert 0 < lengths["examples"] <= 64
        assert 0 < lengths["mean"] <= lengths["longest"] <= 512
        assert 0 < lengths["kept"] <= lengths["longest"]
        assert memory["peak"] >= memory["weights"] + memory["optimiser"] + memory["activations"] > 0
        assert memory["peak_checkpointed"] <= memory["peak"]
    assert found["generation"]["memory_gib"]["cache"] > 0
    text = report(found)
    assert f"trains {tune['trained']:,} parameters: " in text
    assert "with activation checkpointing" in text
    assert not runtime.runs.exists()


def described_data(folder: Path, rows: int | None) -> Path:
    count_line = f", rows: {rows}" if rows else ""
    file = folder / "absent.yaml"
    file.write_text(
        "columns: {smiles: SMILES, caption: text}\n"
        f"splits: {{train: {{file: nowhere.csv{count_line}}}, validation: {{file: nowhere.csv}}, "
        "test: {file: nowhere.csv}}\n"
    )
    return file


@pytest.mark.parametrize(("rows", "steps", "said"), [(1000, 1000, "by the rows"), (None, None, "no description")])
def test_steps_of_data_that_are_not_here(
    runtime: Runtime, tmp_path: Path, rows: int | None, steps: int | None, said: str
):
    file = described_data(tmp_path, rows)
    epochs: list[str] = [
        "stages=[{name: align, epochs: 4, batch_size: 4, trains: {projector: full}}]",
        f"task={{name: caption, data: {file}}}",
        "llm.max_length=64",
    ]
    found = inspect(load_config("demo", [*QUICK[2:5], *epochs, "limits={}"]), runtime, Catalogue())
    (stage,) = found["stages"]
    assert found["missing"]
    assert stage["steps"] == steps
    assert stage["lengths"]["examples"] == 0
    assert stage["lengths"]["longest"] == 64
    assert said in report(found)


def test_a_model_that_is_not_here_is_counted_by_its_shape(runtime: Runtime):
    changes = ["llm.name=HuggingFaceTB/SmolLM2-135M", "llm.max_length=128"]
    found: dict[str, Any] = inspect(load_config("demo", [*QUICK[:3], *QUICK[4:], *changes]), runtime, Catalogue())
    assert found["parameters"]["llm"] == 134_515_008
    (missing,) = found["missing"]
    assert "SmolLM2-135M is not in the local hub cache" in missing
    assert "llm.weights: random" in missing
    assert all(stage["stand_in"] and stage["lengths"]["examples"] for stage in found["stages"])
