"""How language models are loaded: at random in a known shape, with embeddings in 32 bits, in 8 and in 4 bits."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench import known_models
from bench.config import LanguageModel, Lora, Trains
from bench.errors import ConfigError
from bench.experiment import run
from bench.known_models import Architecture, known_architectures
from bench.language_model import (
    CastEmbedding,
    LocatedModel,
    attach_lora,
    embedding_width,
    embeddings_in_full_precision,
    load,
    locate,
)
from bench.model import GraphLanguageModel, wire
from bench.prepare import prepare
from bench.preset import load_config
from bench.pretrain_lm import special_tokenizer, train_tokenizer
from bench.quantisation import QUANTISED, elements, quantise
from bench.random_model import ensure_random_model
from bench.run_store import read_json
from bench.runtime import Runtime
from encoders.gin import Gin
from projectors.linear import Linear

CORPUS = ["Describe the molecule. It is an acid with one ring.", "CC(=O)Oc1ccccc1C(=O)O", "It holds a metal."]
SMALL = "tests/small-mistral"


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=tmp_path / "cache", device="cpu", offline=True, progress=False)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shape that is small enough to be made in no time, beside the published ones."""
    published = known_architectures()
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = {**published["mistralai/Mistral-7B-Instruct-v0.1"].config, **small, "num_key_value_heads": 2}
    shapes = {**published, SMALL: Architecture("small", SMALL, 0, {**config, "head_dim": 8}, "this test")}
    monkeypatch.setattr(known_models, "known_architectures", lambda: shapes)


def saved_model(folder: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Path:
    tokenizer = special_tokenizer(train_tokenizer(CORPUS, 300))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        initializer_range=0.1,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def located(folder: Path, runtime: Runtime) -> LocatedModel:
    return locate(LanguageModel(name=str(folder)), runtime)


# Random weights in a known shape


def test_random_weights_depend_on_the_seed_and_come_in_the_type_that_is_asked_for(known: None, runtime: Runtime):
    found = ensure_random_model(CORPUS, SMALL, runtime)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, tokenizer = load(found, "bf16")
    torch.manual_seed(6)
    second, _ = load(found, "bf16")
    torch.manual_seed(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    assert len(tokenizer) <= first.config.vocab_size == 32000
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.decode(tokenizer(CORPUS[1])["input_ids"]) == CORPUS[1]
    assert not first.training
    assert not list(found.path.glob("*.safetensors"))


def test_random_weights_cannot_be_taken_for_published_ones(known: None, runtime: Runtime):
    found = ensure_random_model(CORPUS, SMALL, runtime)
    assert found.is_random
    assert found.identity.startswith("random-")
    assert found.origin.startswith("RANDOM WEIGHTS in the architecture of tests/small-mistral")
    assert ensure_random_model(CORPUS[:2], SMALL, runtime).identity != found.identity
    assert ensure_random_model(CORPUS, SMALL, runtime) == found
    with pytest.raises(ConfigError, match="has no known architecture"):
        ensure_random_model(CORPUS, "nobody/nothing", runtime)


def test_a_run_on_random_weights_says_so(known: None, runtime: Runtime):
    changes = [f"llm={{name: {SMALL}, weights: random, dtype: bf16, max_length: 512}}"]
    config = load_config("demo", [*QUICK[:3], *QUICK[4:], *changes])
    result = run(config, runtime)
    manifest = read_json(result.run.manifest_file)
    assert manifest["llm"]["origin"].startswith("RANDOM WEIGHTS")
    assert manifest["llm"]["weights"] == "random"
    assert manifest["llm"]["identity"].startswith("random-")
    assert result.summary["llm"] == f"{SMALL} (RANDOM WEIGHTS)"
    assert all(stage["steps"] == 6 for stage in result.summary["stages"])


# Embeddings that are trained in a model of bfloat16


def grafted(llm: Any) -> GraphLanguageModel:
    encoder, projector = Gin(layers=2, width=8), Linear()
    levels = wire(encoder, projector)
    torch.manual_seed(2)
    return GraphLanguageModel(encoder.build(), projector.build(levels, embedding_width(llm)), llm, levels)


def texts(tokenizer: PreTrainedTokenizerFast) -> Mapping[str, Any]:
    ids = torch.tensor([tokenizer(CORPUS[0])["input_ids"]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids,
        "soft_positions": torch.zeros(0, dtype=torch.long),
    }


def test_trained_embeddings_are_kept_in_32_bits(runtime: Runtime, tmp_path: Path):
    llm, tokenizer = load(located(saved_model(tmp_path / "llm"), runtime), "bf16")
    plain = llm(inputs_embeds=llm.get_input_embeddings()(torch.tensor([[5, 6, 7]]))).logits
    embeddings_in_full_precision(llm)
    table = llm.get_input_embeddings()
    assert isinstance(table, CastEmbedding)
    assert table.weight.dtype == torch.float32
    assert table(torch.tensor([5])).dtype == torch.bfloat16
    assert torch.equal(llm(torch.tensor([[5, 6, 7]])).logits, plain)
    llm = attach_lora(llm.requires_grad_(False), Lora(r=2))
    model = grafted(llm)
    model.freeze(Trains(embeddings="full"))
    batch = texts(tokenizer)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, weight_decay=0.0)
    before, losses = model.token_embedding.weight.detach().clone(), []
    for _ in range(20):
        loss = model(**batch)["loss"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    moved = (model.token_embedding.weight.detach() - before).abs()
    # A step of 1e-5 is lost on most weights of bfloat16, which have 8 bits behind the first.
    assert 0 < moved.max() < 1e-3
    assert torch.isfinite(torch.tensor(losses)).all()
    assert losses[-1] < losses[0]
    read = set(batch["input_ids"].flatten().tolist())
    rest = [row for row in range(len(before)) if row not in read]
    assert (moved[sorted(read)].amax(dim=1) > 0).all()
    assert moved[rest].max() == 0
    answer = llm.generate(input_ids=torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert answer.shape[1] <= 6


def test_trained_embeddings_are_stored_and_put_back_bit_for_bit(runtime: Runtime, tmp_path: Path):
    folder, states = saved_model(tmp_path / "llm"), []
    for seed in (0, 1):
        llm, tokenizer = load(located(folder, runtime), "bf16")
        embeddings_in_full_precision(llm)
        model = grafted(llm)
        model.freeze(Trains(embeddings="full"))
        if not seed:
            with torch.no_grad():
                model.token_embedding.weight.add_(1e-5)
            save_file(model.trainable_state(), tmp_path / "final.safetensors")
        else:
            stored = load_file(tmp_path / "final.safetensors")
            assert stored["llm.model.embed_tokens.weight"].dtype == torch.float32
            model.load_state(stored)
        states.append((model.token_embedding.weight.detach(), model(**texts(tokenizer))["loss"].detach()))
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_tied_embeddings_are_refused_in_bfloat16_and_left_alone_in_fp32(runtime: Runtime, tmp_path: Path):
    where = located(saved_model(tmp_path / "llm", tied=True), runtime)
    llm, _ = load(where, "bf16")
    with pytest.raises(ConfigError, match=r"llm\.dtype: is bf16, and a stage trains embeddings that are tied"):
        embeddings_in_full_precision(llm)
    llm, _ = load(where, "fp32")
    table = llm.get_input_embeddings()
    embeddings_in_full_precision(llm)
    assert llm.get_input_embeddings() is table


# Quantised weights


def test_whole_language_models_are_not_trained_in_few_bits():
    changes = ["stages.tune.trains={llm: full}", "llm.quantisation=4bit"]
    with pytest.raises(ConfigError, match=r"llm\.quantisation: is 4bit, and stage 'tune' trains the whole"):
        load_config("demo", [*QUICK, *changes])


def test_without_bitsandbytes_it_is_said_what_to_install(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    where = located(saved_model(tmp_path / "llm"), runtime)
    with pytest.raises(ConfigError, match=r"llm\.quantisation: is 8bit, .*`pip install 'molgraft\[quantisation\]'"):
        load(where, "bf16", quantisation="8bit")


def test_quantisation_is_part_of_the_identity(runtime: Runtime):
    changes: list[list[str]] = [[], ["llm.quantisation=8bit"], ["llm.quantisation=none"]]
    ids = [prepare(load_config("demo", [*QUICK, *change]), runtime).train_id for change in changes]
    assert ids[0] == ids[2] != ids[1]


# `make test-quantised` has bitsandbytes, and asks for this test.
@pytest.mark.skipif(
    find_spec("bitsandbytes") is None and "MOLGRAFT_QUANTISED" not in os.environ,
    reason="bitsandbytes is absent: `make test-quantised` runs this",
)
@pytest.mark.parametrize("quantisation", ["8bit", "4bit"])
@pytest.mark.parametrize("made", ["from files", "in place"])
def test_quantised_models_carry_adapters_and_answer_alike(
    runtime: Runtime, tmp_path: Path, quantisation: Any, made: str
):
    where = located(saved_model(tmp_path / "llm"), runtime)
    whole, _ = load(where, "bf16")
    if made == "from files":
        llm, _ = load(where, "bf16", quantisation=quantisation)
    else:
        llm, _ = load(where, "bf16")
        quantise(llm, quantisation)
    kinds = [type(module).__name__ for module in llm.modules()]
    assert sum(kind in QUANTISED for kind in kinds) == 14
    assert sum(map(elements, llm.parameters())) == sum(map(elements, whole.parameters()))
    assert type(llm.get_output_embeddings()).__name__ == "Linear"
    ids = torch.arange(3, 40)[None]
    expected, found = whole(ids).logits.float(), llm(ids).logits.float()
    assert torch.nn.functional.cosine_similarity(expected, found, dim=-1).min() > 0.9
    model = grafted(attach_lora(llm.requires_grad_(False), Lora(r=2, targets=("q_proj", "down_proj"))))
    model.freeze(Trains(llm="lora"))
    embedded = model.token_embedding(ids).detach().requires_grad_()
    model.llm(inputs_embeds=embedded).logits.float().logsumexp(-1).sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.abs().max() > 0
    adapters = {name: p.grad for name, p in model.named_parameters() if p.requires_grad and "lora_B" in name}
    assert len(adapters) == 4
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in adapters.values())
