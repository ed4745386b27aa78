"""Packed batches: one row without padding comes to the losses, gradients and steps of padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from bench.attention import can_pack, may_pack, packed_arguments
from bench.collate import Collator
from bench.config import Lora, Trains
from bench.language_model import attach_lora
from bench.layout import TokenisedExample
from bench.model import IGNORED, GraphLanguageModel, wire
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


@pytest.mark.parametrize("family", PADDED)
def test_architectures_that_read_along_the_row_are_padded_and_left_as_they_were(family: str):
    llm = language_model(family)
    before = llm.config._attn_implementation
    ids = torch.arange(3, 12)[None]
    wanted = llm(ids).logits
    assert not can_pack(llm)
    assert llm.config._attn_implementation == before
    assert torch.equal(llm(ids).logits, wanted)


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
    told = packed_arguments((3, 1, 2), torch.device("cpu"))
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
    losses, states = [], []
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
                norms = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
                states.append(norms)
            optimiser.step()
            found.append(float(loss.detach()))
        losses.append(found)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][-1] < losses[0][3]  # the same batch, learned from
    assert states[0].keys() == states[1].keys()
    for name, norm in states[0].items():
        torch.testing.assert_close(norm, states[1][name], rtol=1e-3, atol=1e-6)


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
    assert float(loss) == 0


def test_no_position_of_a_packed_batch_is_padding(store: FeatureStore):
    examples = drawn(store, [([3] * n, n % 5, [7] * (9 - n)) for n in range(9)], counter(store, Linear()))
    batch = Collator(store, 0, packs=True).training(examples)
    assert batch["input_ids"].shape == (1, sum(len(e.ids) for e in examples))
    assert batch["packed"].targets.numel() == sum(9 - n for n in range(9))
