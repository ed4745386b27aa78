"""Likelihoods of answers to a prompt that is read once are those of a forward pass for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packing import MOLECULES, PACKED, READER, SMALL, WORDS, counter, example, grafted
from torch import Tensor

from bench.attention import can_pack
from bench.candidates import likelihoods_of_answers
from bench.collate import Collator
from bench.errors import NotFiniteError
from bench.layout import TokenisedExample
from bench.model import GraphLanguageModel
from bench.trainer import log_likelihoods
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.linear import Linear

ANSWERS = st.lists(st.lists(st.integers(3, 199), min_size=1, max_size=6), min_size=1, max_size=6)
QUESTIONS = st.lists(st.tuples(WORDS, st.integers(0, len(MOLECULES)), ANSWERS), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), Gin().features(), MOLECULES)


def laid_out(store: FeatureStore, questions: Any, projector: Any = None) -> list[TokenisedExample]:
    """An example for each answer to each question."""
    soft_of = counter(store, projector or Linear())
    made: list[TokenisedExample] = []
    for before, which, answers in questions:
        molecule = None if which == len(MOLECULES) else MOLECULES[which]
        soft = 0 if molecule is None else int(soft_of([molecule])[0])
        made += [example(len(made) + n, before, molecule, soft, answer) for n, answer in enumerate(answers)]
    return made


def one_by_one(model: GraphLanguageModel, examples: list[TokenisedExample], collator: Collator) -> list[float]:
    """Padded, and a forward pass for each."""
    padded = Collator(collator.store, collator.padding, with_context=collator.with_context)
    return [total for total, _ in log_likelihoods(model, examples, padded, 1)]


def at_once(
    model: GraphLanguageModel, examples: list[TokenisedExample], collator: Collator, size: int = 4
) -> list[float]:
    found = dict(likelihoods_of_answers(model, examples, collator, size))
    assert sorted(found) == list(range(len(examples)))
    return [found[place] for place in range(len(examples))]


@contextmanager
def watched(model: GraphLanguageModel) -> Iterator[list[int]]:
    """The tokens of each forward pass."""
    tokens: list[int] = []
    hook = model.llm.register_forward_pre_hook(
        lambda module, args, told: tokens.append(told["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    try:
        yield tokens
    finally:
        hook.remove()


@pytest.mark.parametrize("family", PACKED)
@settings(max_examples=12)
@given(questions=QUESTIONS, size=st.integers(1, 8))
def test_answers_are_as_likely_as_each_alone(store: FeatureStore, family: str, questions: Any, size: int) -> None:
    model = grafted(family)
    assert can_pack(model.llm)
    examples, collator = laid_out(store, questions), Collator(store, 0, packs=True)
    found, wanted = at_once(model, examples, collator, size), one_by_one(model, examples, collator)
    assert found == pytest.approx(wanted, abs=1e-4)


@settings(max_examples=12)
@given(questions=QUESTIONS)
def test_a_projector_that_reads_prompts_is_told_of_the_prompt_alone(store: FeatureStore, questions: Any) -> None:
    model = grafted("llama", READER)
    assert can_pack(model.llm)
    examples, collator = laid_out(store, questions, READER), Collator(store, 0, packs=True, with_context=True)
    assert at_once(model, examples, collator) == pytest.approx(one_by_one(model, examples, collator), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_models_that_are_padded_are_asked_answer_by_answer(store: FeatureStore, family: str) -> None:
    model = grafted(family)
    examples = laid_out(store, [([4, 5], 0, [[6], [7, 8]]), ([9], 2, [[6], [7, 8]])])
    collator = Collator(store, 0)
    assert at_once(model, examples, collator) == pytest.approx(one_by_one(model, examples, collator), abs=1e-4)


def test_a_prompt_is_read_once_for_all_answers_to_it(store: FeatureStore) -> None:
    model = grafted("llama")
    assert can_pack(model.llm)
    answers = [[n, n + 1] for n in range(3, 13)]
    examples = laid_out(store, [([4] * 30, len(MOLECULES), answers), ([5] * 30, len(MOLECULES), answers)])
    with watched(model) as tokens:
        at_once(model, examples, Collator(store, 0, packs=True), size=8)
    assert tokens == [2 * (31 + 20)]


def test_no_pass_has_more_tokens_than_a_padded_batch(store: FeatureStore) -> None:
    model = grafted("llama")
    assert can_pack(model.llm)
    answers = [[n, n + 1, n + 2] for n in range(3, 33)]
    examples = laid_out(store, [([4] * 10, len(MOLECULES), answers), ([5] * 12, 1, answers[:7])])
    most = 3 * max(len(e.ids) for e in examples)
    collator = Collator(store, 0, packs=True)
    with watched(model) as tokens:
        found = at_once(model, examples, collator, size=3)
    assert max(tokens) <= most
    assert found == pytest.approx(one_by_one(model, examples, collator), abs=1e-4)
    with watched(model) as tokens:
        list(likelihoods_of_answers(model, examples, collator, 3, rows=1))
    assert max(tokens) <= most // 3


def test_examples_of_which_more_than_the_last_answer_is_learned_are_asked_one_by_one(store: FeatureStore) -> None:
    model = grafted("llama")
    assert can_pack(model.llm)
    first, *others = laid_out(store, [([4, 5], 0, [[6], [7, 8]])])
    labels = np.where(np.arange(len(first.ids)) == 1, first.ids, first.labels)
    examples, collator = [replace(first, labels=labels), *others], Collator(store, 0, packs=True)
    assert at_once(model, examples, collator) == pytest.approx(one_by_one(model, examples, collator), abs=1e-4)


def test_a_likelihood_that_is_no_number_is_refused(store: FeatureStore) -> None:
    model = grafted("llama")
    assert can_pack(model.llm)
    weight: Tensor = model.llm.lm_head.weight  # type: ignore[union-attr, assignment]
    with torch.no_grad():
        weight[7] = torch.nan
    with pytest.raises(NotFiniteError):
        at_once(model, laid_out(store, [([4, 5], 0, [[6], [7, 8]])]), Collator(store, 0, packs=True))
    assert int(SMALL["vocab_size"]) == len(weight)
