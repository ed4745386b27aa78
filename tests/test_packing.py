"""Packed batches: one row without padding comes to the losses, gradients and steps of padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from bench.attention import bounds_of, can_pack, may_pack, packed_arguments, positions_of
from bench.batches import IGNORED
from bench.collate import Collator
from bench.config import Lora, Trains
from bench.experiment import run
from bench.language_model import attach_lora
from bench.layout import TokenisedExample
from bench.model import GraphLanguageModel, wire
from bench.preset import load_config
from bench.runtime import Runtime
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.dynamic import Dynamic
from projectors.linear import Linear

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 200,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PACKED: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "gpt_neox": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0},
    "smollm3": {},
}
PADDED: dict[str, dict[str, Any]] = {
    "bloom": {},  # positions by a bias that counts along the row
    "falcon": {},  # its attention cannot be exchanged
    "mamba": {},  # a state that runs through the row
    "lfm2": {"layer_types": ["conv", "full_attention"], "full_attn_idxs": [1]},  # a convolution along the row
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "recurrent_gemma": {"num_hidden_layers": 3, "head_dim": 8, "lru_width": 32, "attention_window_size": 8},
    "llama4_text": {"attention_chunk_size": 4, "head_dim": 8, "num_local_experts": 1},  # a window in the mask alone
    "phimoe": {"sliding_window": 20, "num_local_experts": 2},  # likewise
}
MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "O", "C1CCCCC1N", "[Na+].[Cl-]", "CCO")
READER = Dynamic(levels=("atom", "graph"), conditioned_on=("instruction",), hidden=16)
WORDS = st.lists(st.integers(3, 199), min_size=0, max_size=14)


def language_model(family: str, seed: int = 0, **extra: Any) -> Any:
    torch.manual_seed(seed)
    known = {**PACKED, **PADDED}[family]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SMALL, **known, **extra})).eval()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), Gin().features(), MOLECULES)


def grafted(family: str, projector: Any = None, lora: Lora | None = None) -> GraphLanguageModel:
    llm = language_model(family)
    if lora is not None:
        llm = attach_lora(llm, lora)
    encoder, projector = Gin(layers=2, width=16), projector or Linear()
    levels = wire(encoder, projector)
    torch.manual_seed(1)
    module = projector.build(levels, 32)
    if isinstance(projector, Dynamic):
        torch.nn.init.normal_(module.u)  # at zero, gates would not depend on the prompt
    return GraphLanguageModel(encoder.build(), module, llm, levels).eval()


def example(
    number: int, before: Sequence[int], molecule: str | None, soft: int, answer: Sequence[int], cut: int = 0
) -> TokenisedExample:
    """Text, a molecule's soft tokens, text, and an answer, of which some end is cut off."""
    places = () if molecule is None else ((len(before), len(before) + soft),)
    count = soft if molecule else 0
    ids = np.array([*before, *[0] * count, 5, *answer], dtype=np.int64)
    labels = np.full(len(ids), IGNORED)
    labels[len(before) + count + 1 :] = answer
    mask = np.zeros(len(ids), dtype=bool)
    mask[len(before) : len(before) + count] = True
    molecules = () if molecule is None else (molecule,)
    return TokenisedExample(str(number), ids, labels, mask, molecules, places, len(ids) - len(answer), "", cut)


def drawn(store: FeatureStore, rows: Sequence[tuple[list[int], int, list[int]]], tokens: Any) -> list[TokenisedExample]:
    made = []
    for number, (before, which, answer) in enumerate(rows):
        molecule = None if which == len(MOLECULES) else MOLECULES[which]
        soft = 0 if molecule is None else int(tokens([molecule])[0])
        made.append(example(number, before, molecule, soft, answer))
    return made


def counter(store: FeatureStore, projector: Any) -> Any:
    encoder = Gin(layers=2, width=16)
    return lambda names: projector.tokens(encoder.rows(store.counts(names), len(names)), len(names))


ROWS = st.lists(st.tuples(WORDS, st.integers(0, len(MOLECULES)), WORDS), min_size=1, max_size=6)


@pytest.mark.parametrize("family", PACKED)
def test_known_architectures_are_packed(family: str):
    llm = language_model(family)
    assert may_pack(llm)
    assert can_pack(llm)
    assert can_pack(llm)  # once more changes nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", PADDED)
def test_architectures_that_read_along_the_row_are_padded_and_left_as_they_were(family: str, dtype: torch.dtype):
    llm = language_model(family).to(dtype)
    before = llm.config._attn_implementation
    ids = torch.arange(3, 12)[None]
    wanted = llm(ids).logits
    assert not may_pack(llm)
    assert not can_pack(llm)
    assert llm.config._attn_implementation == before
    assert torch.equal(llm(ids).logits, wanted)


@pytest.mark.parametrize("family", PACKED)
def test_in_half_precision_too(family: str):
    llm = language_model(family).to(torch.bfloat16)
    assert can_pack(llm)
    rows = [torch.randint(3, 199, (length,), generator=torch.Generator().manual_seed(length)) for length in (7, 40, 1)]
    told = packed_arguments((7, 40, 1), bounds_of((7, 40, 1)), positions_of((7, 40, 1)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        together = llm(torch.cat(rows)[None], **told).logits[0]
        alone = torch.cat([llm(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, rtol=0.05, atol=0.05 * float(alone.abs().max()))


def test_a_packed_batch_is_refused_by_a_model_whose_sequences_would_see_each_other(store: FeatureStore):
    model = grafted("llama")
    batch = Collator(store, 0, packs=True).training([example(0, [3], None, 0, [5, 6])])
    with pytest.raises(RuntimeError, match="would see each other"):
        model(**batch)


@pytest.mark.parametrize("family", PACKED)
def test_what_is_not_packed_is_computed_as_before(family: str):
    llm = language_model(family)
    ids = torch.randint(3, 199, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        wanted = llm(ids, attention_mask=mask).logits
        said = llm.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
        assert can_pack(llm)
        assert torch.equal(llm(ids, attention_mask=mask).logits, wanted)
        assert torch.equal(llm.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False), said)


def test_a_sequence_is_told_its_positions_and_bounds():
    told = packed_arguments((3, 1, 2), bounds_of((3, 1, 2)), positions_of((3, 1, 2)))
    assert told["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert told["cu_seq_lens_q"].tolist() == [0, 3, 4, 6]
    assert told["max_length_q"] == 3


@settings(max_examples=40)
@given(rows=ROWS, reads=st.booleans(), family=st.sampled_from(("llama", "opt", "mistral")))
def test_any_batch_has_the_same_likelihoods_packed_and_padded(store: FeatureStore, rows: Any, reads: bool, family: str):
    projector = READER if reads else Linear()
    model = grafted(family, projector)
    assert can_pack(model.llm)
    examples = drawn(store, rows, counter(store, projector))
    padded, packed = (Collator(store, 0, packs=packs, with_context=reads) for packs in (False, True))
    with torch.no_grad():
        one, other = (model.log_likelihood(collator.training(examples)) for collator in (padded, packed))
    assert one.tokens.tolist() == other.tokens.tolist() == [int((e.labels[1:] != IGNORED).sum()) for e in examples]
    torch.testing.assert_close(one.total, other.total, rtol=2e-5, atol=2e-5)


@settings(max_examples=20)
@given(rows=ROWS, order=st.randoms())
def test_an_example_has_the_same_likelihood_whatever_it_is_packed_with(store: FeatureStore, rows: Any, order: Any):
    model = grafted("llama")
    assert can_pack(model.llm)
    collator = Collator(store, 0, packs=True)
    examples = drawn(store, rows, counter(store, Linear()))
    shuffled = examples[:]
    order.shuffle(shuffled)
    with torch.no_grad():
        together = dict(
            zip([e.id for e in shuffled], model.log_likelihood(collator.training(shuffled)).total, strict=True)
        )
        for each in examples:
            alone = model.log_likelihood(collator.training([each])).total
            torch.testing.assert_close(together[each.id], alone[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_twenty_steps_come_to_the_same_losses_and_weights(store: FeatureStore, family: str, checkpointing: bool):
    generator = np.random.default_rng(0)
    tokens = counter(store, Linear())
    batches = [
        drawn(
            store,
            [
                (
                    generator.integers(3, 199, generator.integers(1, 12)).tolist(),
                    int(generator.integers(0, len(MOLECULES) + 1)),
                    generator.integers(3, 199, generator.integers(1, 12)).tolist(),
                )
                for _ in range(4)
            ],
            tokens,
        )
        for _ in range(4)
    ] * 5
    losses, gradients, weights = [], [], []
    for packs in (False, True):
        model = grafted(family, lora=Lora(r=4))
        assert can_pack(model.llm)
        model.freeze(Trains(projector="full", llm="lora"))
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        collator = Collator(store, 0, packs=packs)
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        found = []
        for number, batch in enumerate(batches):
            loss = model(**collator.training(batch))["loss"]
            optimiser.zero_grad()
            loss.backward()
            if number == 0:
                gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            optimiser.step()
            found.append(float(loss.detach()))
        losses.append(found)
        weights.append(model.trainable_state())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] < losses[0][3]  # the same batch, learned from
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=1e-5 * scale + 1e-7)
    for name, tensor in weights[0].items():
        # AdamW makes steps of equal size of gradients that are nothing but rounding.
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=2e-3)
        assert float((tensor - weights[1][name]).abs().mean()) < 1e-4, name


def test_a_batch_of_nothing_but_fillers_has_a_loss_to_go_back_from(store: FeatureStore):
    model = grafted("llama", lora=Lora(r=2))
    assert can_pack(model.llm)
    model.freeze(Trains(projector="full", llm="lora"))
    model.train()
    filler = example(0, [3, 4], "CCO", 3, [])
    batch = Collator(store, 0, packs=True).training([filler, filler])
    assert batch["tokens"] == 0
    loss = model(**batch, num_items_in_batch=7)["loss"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "processes wait for each"


def test_no_position_of_a_packed_batch_is_padding(store: FeatureStore):
    examples = drawn(store, [([3] * n, n % 5, [7] * (9 - n)) for n in range(9)], counter(store, Linear()))
    batch = Collator(store, 0, packs=True).training(examples)
    assert batch["input_ids"].shape == (1, sum(len(e.ids) for e in examples))
    assert batch["packed"].targets.numel() == sum(9 - n for n in range(9))


@pytest.mark.parametrize("projector", [Linear(), READER])
def test_dialogues_and_graphs_that_are_cut_away(store: FeatureStore, projector: Any):
    """Two answers in one example, and one whose second graph lies beyond the cut."""
    tokens = counter(store, projector)
    soft = int(tokens(["CCO"])[0])
    dialogue = example(0, [3, 4], "CCO", soft, [7, 8, 9, 10, 11])
    dialogue.labels[-3] = IGNORED  # a question between two answers
    cut = replace(
        example(1, [5], "O", int(tokens(["O"])[0]), [12, 13]),
        molecules=("O", "CCO"),
        places=((1, 1 + int(tokens(["O"])[0])), (40, 40 + soft)),
        cut=30,
    )
    model = grafted("llama", projector)
    assert can_pack(model.llm)
    padded, packed = (Collator(store, 0, packs=packs, with_context=projector.reads_context) for packs in (False, True))
    with torch.no_grad():
        one, other = (model.log_likelihood(collator.training([dialogue, cut])) for collator in (padded, packed))
    assert one.tokens.tolist() == other.tokens.tolist() == [4, 2]
    torch.testing.assert_close(one.total, other.total, rtol=2e-5, atol=2e-5)


def test_a_run_packs_unless_it_is_told_not_to(session_cache: Path, tmp_path: Path):
    """Runs differ in identity, and come to the same losses."""
    runtime = Runtime(runs=tmp_path, cache=session_cache, tracking="none", device="cpu", progress=False, threads=1)
    done = [run(load_config("demo", [*QUICK, f"llm.packing={word}"]), runtime) for word in ("true", "false")]
    assert done[0].run.path.name != done[1].run.path.name
    stages = [each.summary["stages"] for each in done]
    for mine, theirs in zip(*stages, strict=True):
        assert mine["tokens"] == theirs["tokens"]
        assert mine["validation"] == pytest.approx(theirs["validation"], abs=1e-4)
    assert not any("padded" in line for line in done[0].summary["computed"])
