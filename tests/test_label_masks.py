"""What training teaches, token by token: exactly the answers and their ends, for every chat format and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from bench.batches import IGNORED
from bench.layout import Layout, TokenisedExample, end_ids
from bench.preset import Choices, load_config
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.base import Projector
from projectors.linear import Linear
from projectors.none import NoProjector
from tasks.base import Example, Turn, slot
from tasks.chat_formats import ChatMl, Galactica, Llama2, Llama3, Mistral, Vicuna
from tasks.metrics.tokenizers import _sentencepieces
from tasks.prompts import ChatFormat, NoText, Plain, PromptStyle, Smiles, TextInput, prompt_of, render
from tasks.text_inputs import Selfies

GIN = Gin(layers=1, width=8)
ETHANOL = "CCO"
CHATS: Mapping[str, ChatFormat] = {
    "plain": Plain(),
    "molca": Plain(separator="", answer_end="\n"),
    "vicuna": Vicuna(),
    "llama2": Llama2(),
    "mistral": Mistral(),
    "llama3": Llama3(),
    "chatml": ChatMl(),
    "galactica": Galactica(),
    "galactica-lines": Galactica(answer_end="\n"),
}
SPECIAL = (
    "<pad>",
    "<s>",
    "</s>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
)
ANSWERS = ("An alcohol.", "Yes, with 1 centre:\tC1.")


def byte_level(**named: str) -> Any:
    """A byte-level BPE tokenizer, as those of GPT-2, OPT, Galactica, Llama 3, Qwen and SmolLM are."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator(["Question: what is it? Answer: an alcohol. USER ASSISTANT [INST] [/INST]"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, clean_up_tokenization_spaces=False, **named)


@pytest.fixture(scope="module")
def llama2_tokenizer(data_folder: Path) -> Any:
    """Llama-2's own tokenizer, which Vicuna's is too."""
    scores = dict(_sentencepieces((data_folder / "llama2_tokenizer" / "tokenizer.model").read_bytes()))
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    return LlamaTokenizer(vocab={piece: place for place, piece in enumerate(scores)}, merges=merges)


Named = Callable[[str], Any]


@pytest.fixture(scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Named:
    made: dict[str, Any] = {
        "llama-3": byte_level(bos_token="<s>", eos_token="<|eot_id|>"),
        "qwen": byte_level(eos_token="<|im_end|>", pad_token="<pad>"),
        "opt": byte_level(bos_token="</s>", eos_token="</s>"),
        "galactica": byte_level(pad_token="<pad>"),  # which has no end token
    }
    return lambda name: request.getfixturevalue("llama2_tokenizer") if name == "llama-2" else made[name]


def layout(
    tokenizer: Any, style: PromptStyle, text_input: TextInput, projector: Projector, store: FeatureStore
) -> Layout:
    return Layout(tokenizer, style, text_input, GIN, projector, store, 2048)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), GIN.features(), [ETHANOL])


def taught(example: TokenisedExample) -> list[list[int]]:
    """The runs of supervised ids."""
    places = np.flatnonzero(example.labels != IGNORED)
    runs = groupby(enumerate(places.tolist()), lambda pair: pair[1] - pair[0])
    return [[int(example.ids[place]) for _, place in run] for _, run in runs]


DIALOGUE = Example(
    "x",
    (ETHANOL,),
    (
        Turn("user", f"{slot(0, 'graph')}\nWhat is {slot(0, 'text')}?"),
        Turn("assistant", ANSWERS[0], supervised=True),
        Turn("user", "Is it chiral?"),
        Turn("assistant", "Not supervised."),
        Turn("user", "And now?"),
        Turn("assistant", ANSWERS[1], supervised=True),
    ),
)


@pytest.mark.parametrize("family", ["llama-2", "qwen"])
@pytest.mark.parametrize("chat", CHATS)
def test_an_answer_that_is_only_read_has_the_tokens_that_were_learned(
    chat: str, family: str, tokenizer: Named, store: FeatureStore
) -> None:
    laid_out = layout(tokenizer(family), PromptStyle(chat=CHATS[chat]), Smiles(), Linear(), store)
    learned = replace(DIALOGUE, turns=tuple(replace(t, supervised=t.role == "assistant") for t in DIALOGUE.turns))
    read, taught_too = laid_out.tokenise([DIALOGUE, learned])
    assert read.ids.tolist() == taught_too.ids.tolist()
    assert (read.prompt_length, read.prompt_sha) == (taught_too.prompt_length, taught_too.prompt_sha)
    assert len(taught(taught_too)) == 3


@pytest.mark.parametrize("family", ["llama-2", "llama-3", "qwen", "opt", "galactica"])
@pytest.mark.parametrize("chat", CHATS)
def test_exactly_the_answers_and_their_ends_are_taught(
    chat: str, family: str, tokenizer: Named, store: FeatureStore
) -> None:
    reads, format_ = tokenizer(family), CHATS[chat]
    style = PromptStyle(chat=format_, system="Be brief.")
    laid_out = layout(reads, style, Smiles(), Linear(), store)
    (example,) = laid_out.tokenise([DIALOGUE])
    end = end_ids(reads, format_.answer_end)
    if family == "galactica" and not format_.answer_end:
        assert end == []  # no such token: a run with this tokenizer needs an `answer_end`
    else:
        assert len(end) == 1
    assert (example.labels == np.where(example.labels == IGNORED, IGNORED, example.ids)).all()
    runs = taught(example)
    assert len(runs) == 2
    for run, answer in zip(runs, ANSWERS, strict=True):
        assert run[len(run) - len(end) :] == end
        words = run[: len(run) - len(end)]
        assert words == reads(answer, add_special_tokens=False)["input_ids"]
        assert reads.decode(words) == answer
    # What a model is given before the last answer is the same sequence, up to it.
    prompt = layout(reads, style, Smiles(), NoProjector(), store)
    assert example.ids[example.prompt_length :].tolist() == runs[1] + _after(laid_out, example)
    text = "".join(s.text for s in prompt_of(render(DIALOGUE, style, Smiles(), graph=False)) if s.kind == "text")
    (bare,) = prompt.tokenise([DIALOGUE])
    read = reads.decode(bare.ids[: bare.prompt_length], skip_special_tokens=False)
    assert "And now?" in text
    assert "And now?" in read
    assert ANSWERS[1] not in read


def _after(laid_out: Layout, example: TokenisedExample) -> list[int]:
    """The ids behind the last answer's end, which some formats have."""
    last = int(np.flatnonzero(example.labels != IGNORED)[-1])
    assert not example.soft[last:].any()
    assert laid_out.max_length >= len(example.ids)
    return [int(token) for token in example.ids[last + 1 :]]


def test_instructmols_mask_is_ours_where_its_tokenizer_is_llamas(llama2_tokenizer: Any, store: FeatureStore) -> None:
    """Its code counts the tokens of all that stands before an answer, its trailing blank included, and takes two off:
    the begin token, and the token that Llama's tokenizer makes of the blank (llava/datasets/preprocess.py:211-216)."""
    style = load_config("instructmol-gs", choices=Choices(scale="paper", fidelity="code")).prompt
    turns = (
        Turn("user", f"{slot(0, 'graph')}\nWhat is it? The product is: {slot(0, 'text')}"),
        Turn("assistant", "[C].[O]", supervised=True),
    )
    (ours,) = layout(llama2_tokenizer, style, Selfies(), Linear(), store).tokenise([Example("x", (ETHANOL,), turns)])

    def read(text: str) -> list[int]:
        ids: list[int] = llama2_tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    before = f"{style.system} USER: "
    question = "\nWhat is it? The product is: [C][C][O] ASSISTANT:"
    graph = [-200]
    whole = [1, *read(before), *graph, *read(f"{question} [C].[O]</s>")]
    masked = 1 + len([1, *read(before), *graph, *read(f"{question} ")]) - 2
    collapsed = [int(t) for t, soft in zip(ours.ids, ours.soft, strict=True) if not soft]
    place = int(np.flatnonzero(ours.soft)[0])
    assert ours.soft.sum() == 3  # an atom, a token
    assert collapsed[:place] + graph + collapsed[place:] == whole
    assert int(np.flatnonzero(ours.labels != IGNORED)[0]) - 2 == masked
    assert taught(ours) == [whole[masked:]]


def test_without_llamas_blank_the_published_mask_would_teach_more_than_the_answer(store: FeatureStore) -> None:
    """The bug that is not carried over: the same count with a tokenizer that makes no token of a trailing blank."""
    question, answer = "USER: What? ASSISTANT:", "Yes"
    words = {word: place for place, word in enumerate(("<s>", "</s>", "<unk>", *question.split(), answer))}
    pieces = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    pieces.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    reads = PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token="<s>", eos_token="</s>")
    before = [words["<s>"], *reads(f"{question} ", add_special_tokens=False)["input_ids"]]
    masked = 1 + len(before) - 2
    assert reads.convert_ids_to_tokens(before[masked:]) == ["ASSISTANT:"]  # which the published mask would teach
    turns = (Turn("user", "What?"), Turn("assistant", answer, supervised=True))
    (ours,) = layout(reads, PromptStyle(chat=Vicuna()), NoText(), NoProjector(), store).tokenise(
        [Example("x", (), turns)]
    )
    assert ours.ids[: len(before)].tolist() == before
    assert taught(ours) == [[words[answer], words["</s>"]]]


@pytest.mark.parametrize("family", ["llama-2", "llama-3", "qwen", "opt", "galactica"])
@pytest.mark.parametrize("text", ["\n", "###", "<|eot_id|>"])
def test_the_end_of_an_answer_is_read_as_behind_an_answer(text: str, family: str, tokenizer: Named) -> None:
    reads = tokenizer(family)
    found = end_ids(reads, text)
    behind = reads(f"An alcohol.{text}", add_special_tokens=False)["input_ids"]
    assert found
    assert reads.decode(found, skip_special_tokens=False) == text
    if family != "llama-2" or text != "<|eot_id|>":
        assert behind[-len(found) :] == found
    assert (len(found) == 1) == (text == "\n" or (text == "<|eot_id|>" and family != "llama-2"))


def test_the_published_tokens_of_molca_end_with_a_line_break(tokenizer: Named, store: FeatureStore) -> None:
    """Galactica's tokenizer names no end token; MolCA's answers end at the line break (blip2_opt.py:191)."""
    config = load_config("molca", choices=Choices(scale="paper", fidelity="code"))
    reads = tokenizer("galactica")
    assert reads.eos_token_id is None
    style = replace(config.prompt, molecule="{text}{graph}")
    turns = (Turn("user", f"{slot(0)}. "), Turn("assistant", "An alcohol.", supervised=True))
    (example,) = layout(reads, style, Smiles(), Linear(), store).tokenise([Example("x", (ETHANOL,), turns)])
    (run,) = taught(example)
    assert reads.decode(run) == "An alcohol.\n"
    assert example.answer_end == "\n"
