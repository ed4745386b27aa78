"""Our own decoding writes the tokens that transformers' `generate` does, for any prompts and settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from bench.config import Lora
from bench.decoding import GROWTH, Decoding, GrowingLayer, can_decode, decode
from bench.errors import NotFiniteError
from bench.language_model import attach_lora
from bench.token_choice import Drawing, RefusingNaN

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 60,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,  # so that answers differ
}
DECODED: dict[str, dict[str, Any]] = {
    "llama": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0, "init_std": 0.3},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {"sliding_window": 4},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},
    "gpt_neox": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "bloom": {"n_head": 4, "n_layer": 2},
}
LEFT: dict[str, dict[str, Any]] = {"mamba": {}, "recurrent_gemma": {"head_dim": 8}, "jamba": {"num_experts": 2}}
PROMPTS = st.lists(st.lists(st.integers(3, 59), min_size=1, max_size=12), min_size=1, max_size=7)
ENDS = st.lists(st.integers(1, 59), max_size=12, unique=True).map(tuple)
GREEDY = Decoding(
    longest=20,
    shortest=0,
    ends=(2,),
    padding=0,
    beams=1,
    length_penalty=1.0,
    choose=RefusingNaN(),
    keep=lambda _: None,
    has_stopped=None,
)


@cache
def language_model(family: str) -> Any:
    torch.manual_seed(0)
    known = {**DECODED, **LEFT}[family]
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SMALL, **known})).eval()
    llm.generation_config = GenerationConfig()  # as `language_model.load` does
    return llm


def padded(llm: Any, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return llm.get_input_embeddings()(ids).detach(), mask


def by_transformers(llm: Any, prompts: Sequence[Sequence[int]], how: Decoding, *choosing: Any) -> list[list[int]]:
    """What transformers writes, up to the end."""
    embedded, mask = padded(llm, prompts)
    made = llm.generate(
        inputs_embeds=embedded,
        attention_mask=mask,
        logits_processor=LogitsProcessorList([*choosing, RefusingNaN()]),
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=how.beams,
            **({"length_penalty": how.length_penalty} if how.beams > 1 else {}),
            max_new_tokens=how.longest,
            min_new_tokens=how.shortest or None,
            eos_token_id=list(how.ends) or None,
            pad_token_id=0,
        ),
        stopping_criteria=StoppingCriteriaList([] if how.has_stopped is None else [how.has_stopped]),
    ).tolist()
    return [until_end(ids, how.ends) for ids in made]


def until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    return ids[: next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))]


# The same tokens


@pytest.mark.parametrize("family", DECODED)
@settings(max_examples=15)
@given(prompts=PROMPTS, ends=ENDS, shortest=st.integers(0, 4))
def test_the_likeliest_tokens_are_those_of_transformers(
    family: str, prompts: list[list[int]], ends: tuple[int, ...], shortest: int
) -> None:
    llm = language_model(family)
    assert can_decode(llm)
    how = replace(GREEDY, ends=ends, shortest=shortest)
    assert decode(llm, *padded(llm, prompts), how) == by_transformers(llm, prompts, how)


@pytest.mark.parametrize("family", DECODED)
@settings(max_examples=15)
@given(
    prompts=PROMPTS,
    ends=ENDS,
    beams=st.integers(2, 5),
    penalty=st.sampled_from((1.0, 0.0, -2.0, 2.0)),
    shortest=st.integers(0, 4),
)
def test_beams_find_what_those_of_transformers_find(
    family: str, prompts: list[list[int]], ends: tuple[int, ...], beams: int, penalty: float, shortest: int
) -> None:
    llm = language_model(family)
    how = replace(GREEDY, ends=ends[:3], beams=beams, length_penalty=penalty, shortest=shortest, longest=12)
    assert decode(llm, *padded(llm, prompts), how) == by_transformers(llm, prompts, how)


@settings(max_examples=25)
@given(prompts=PROMPTS, ends=ENDS, seed=st.integers(0, 99), top_k=st.sampled_from((0, 5)), rows=st.integers(0, 3))
def test_drawn_tokens_are_those_that_transformers_is_made_to_draw(
    prompts: list[list[int]], ends: tuple[int, ...], seed: int, top_k: int, rows: int
) -> None:
    """Rows whose answers have ended are taken out, and the others keep their random numbers."""
    llm = language_model("llama")

    def drawing() -> Drawing:
        return Drawing(2.0, top_k, seed, rows, rows + len(prompts) + 1, torch.device("cpu"))

    ours = drawing()
    how = replace(GREEDY, ends=ends, choose=ours, keep=ours.keep)
    assert decode(llm, *padded(llm, prompts), how) == by_transformers(llm, prompts, how, drawing())


@settings(max_examples=30)
@given(prompts=PROMPTS, beams=st.sampled_from((1, 3)), pair=st.tuples(st.integers(0, 6), st.integers(0, 15)))
def test_answers_that_end_with_several_tokens_are_those_of_transformers(
    prompts: list[list[int]], beams: int, pair: tuple[int, int]
) -> None:
    llm = language_model("llama")
    row, place = pair
    free = decode(llm, *padded(llm, prompts), replace(GREEDY, ends=(2,)))
    end = torch.tensor(free[row % len(free)][place : place + 2] or [0])

    def has_stopped(ids: Tensor, _: Any = None) -> Tensor:
        if ids.shape[1] < len(end):
            return torch.zeros(len(ids), dtype=torch.bool)
        return (ids[:, -len(end) :] == end).all(dim=1)

    how = replace(GREEDY, beams=beams, has_stopped=has_stopped)
    found = decode(llm, *padded(llm, prompts), how)
    theirs = by_transformers(llm, prompts, how)
    for ours, other in zip(found, theirs, strict=True):
        assert ours == other[: len(ours)]
        assert set(other[len(ours) :]) <= {0, 2}  # what fills up


def test_long_answers_make_the_cache_longer_and_are_the_same() -> None:
    llm = language_model("llama")
    how = replace(GREEDY, longest=2 * GROWTH + 9, ends=())
    prompts = [[5, 9, 3], [7]]
    assert decode(llm, *padded(llm, prompts), how) == by_transformers(llm, prompts, how)


def test_adapters_take_part() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **SMALL)
    base = AutoModelForCausalLM.from_config(config)
    base.generation_config = GenerationConfig()
    llm = attach_lora(base, Lora(r=4)).eval()
    prompts = [[5, 9, 3], [7], [11, 4]]
    before = decode(llm, *padded(llm, prompts), GREEDY)
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    after = decode(llm, *padded(llm, prompts), GREEDY)
    assert after != before
    assert after == by_transformers(llm, prompts, GREEDY)


# What is computed


def test_rows_that_have_ended_are_computed_no_longer() -> None:
    llm = language_model("llama")
    prompts = [[number] for number in range(3, 15)]
    free = decode(llm, *padded(llm, prompts), replace(GREEDY, ends=()))
    ends = tuple(dict.fromkeys(ids[3] for ids in free[:9]))
    rows: list[int] = []
    hook = llm.register_forward_pre_hook(
        lambda module, args, told: rows.append(len(told.get("input_ids", told.get("inputs_embeds")))), with_kwargs=True
    )
    try:
        found = decode(llm, *padded(llm, prompts), replace(GREEDY, ends=ends))
    finally:
        hook.remove()
    assert found == [until_end(ids, ends) for ids in free]
    assert rows[0] == 12
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 6


def test_beams_of_a_prompt_share_its_first_pass() -> None:
    llm = language_model("llama")
    shapes: list[tuple[int, ...]] = []
    hook = llm.register_forward_pre_hook(
        lambda module, args, told: shapes.append(tuple(told.get("inputs_embeds", told.get("input_ids")).shape[:2])),
        with_kwargs=True,
    )
    try:
        decode(llm, *padded(llm, [[5, 9, 3], [7]]), replace(GREEDY, beams=4, longest=3, ends=()))
    finally:
        hook.remove()
    assert shapes == [(2, 3), (8, 1), (8, 1)]


def test_a_growing_layer_holds_what_transformers_layer_holds() -> None:
    torch.manual_seed(0)
    grown, known = GrowingLayer(), DynamicCache().layer_class_to_replicate()
    rows = 3
    for length, order in ((5, None), (1, [2, 0]), (1, None), (70, [1, 1, 0, 0]), (1, None)):
        states = torch.randn(2, rows, 2, length, 4)
        for layer in (grown, known):
            layer.update(states[0], states[1])
        if order is not None:
            rows = len(order)
            for layer in (grown, known):
                layer.reorder_cache(torch.tensor(order))
        assert torch.equal(grown.keys, known.keys)
        assert torch.equal(grown.values, known.values)
        assert grown.get_seq_length() == known.get_seq_length()
        assert grown.get_mask_sizes(1) == known.get_mask_sizes(1)


# Who decodes


@pytest.mark.parametrize("family", LEFT)
def test_models_that_keep_a_state_are_left_to_transformers(family: str) -> None:
    assert not can_decode(language_model(family))


def test_a_model_that_reads_padding_is_left_to_transformers() -> None:
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).eval()
    forward = llm.forward

    def careless(attention_mask: Any = None, **told: Any) -> Any:
        return forward(**told)

    llm.forward = careless
    assert not can_decode(llm)


def test_weights_that_are_no_numbers_say_nothing_of_the_architecture() -> None:
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SMALL)).eval()
    weight = llm.lm_head.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(torch.nan)
        assert not can_decode(llm)
        with pytest.raises(NotFiniteError):
            decode(llm, *padded(llm, [[5]]), GREEDY)
        weight.copy_(before)
    assert can_decode(llm)
