"""Language models of the published families, loaded by path: what is taught in each chat format, a step, an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from bench.batches import IGNORED
from bench.collate import Collator
from bench.config import Generation, LanguageModel, Lora, Trains
from bench.errors import ConfigError
from bench.generate import generate
from bench.language_model import attach_lora, embedding_width, load, locate
from bench.layout import Layout, TokenisedExample
from bench.model import GraphLanguageModel, wire
from bench.runtime import Runtime
from encoders.gin import Gin
from encoders.store import FeatureStore
from projectors.linear import Linear
from tasks.base import Example, Turn, slot
from tasks.chat_formats import ChatMl, Galactica, GalacticaSmiles, Llama2, Llama3, Mistral, Vicuna
from tasks.prompts import ChatFormat, NoText, Plain, PromptStyle, Smiles

ASPIRIN, ALANINE, ETHANOL = MOLECULES = ("CC(=O)Oc1ccccc1C(=O)O", "C[C@@H](N)C(=O)O", "CCO")
ANSWERS = (
    "It is an acid with one ring.",
    ALANINE,
    "-0.2385",
    "Yes",
    "β-D-glucose, or [C@H](O) 2,4-dione",
    "First (a).  Second: 1,2.",
)
CORPUS = [
    *MOLECULES,
    *ANSWERS,
    "A chat between a curious user and an artificial intelligence assistant, who gives helpful and polite answers.",
    "Describe the molecule. It is an acid with one ring and three carbon atoms. USER: ASSISTANT: [INST] [/INST]",
    "Question: Compare the two molecules. Answer: The first one is larger; the second one holds a metal.",
]
SHAPE: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
GATED: dict[str, Any] = {**SHAPE, "intermediate_size": 24, "num_key_value_heads": 1, "initializer_range": 0.3}


# Tokenizers in the styles of the families


def sentencepiece_style() -> Tokenizer:
    """Llama 2's and Mistral's: a blank is put before every text, blanks are `▁`, unknown characters become bytes."""
    octets = [f"<0x{number:02X}>" for number in range(256)]
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")  # for training only
    special = ["<unk>", "<s>", "</s>", *octets]
    pieces.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=480, special_tokens=special, show_progress=False))
    pieces.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    described = json.loads(pieces.to_str())
    described["pre_tokenizer"] = None
    described["added_tokens"] = [t for t in described["added_tokens"] if t["content"] not in octets]
    return Tokenizer.from_str(json.dumps(described))


def byte_style(*special: str, split: str | None = None) -> Tokenizer:
    """GPT's and its successors'; with `split`, Galactica's, which takes the text apart there and removes it."""
    pieces = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.pre_tokenizer = (
        whole if split is None else pre_tokenizers.Sequence([pre_tokenizers.Split(split, "removed"), whole])
    )
    pieces.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(CORPUS, trainer)
    return pieces


@dataclass(frozen=True)
class Family:
    """A configuration, its tokenizer, and what the tokenizer calls its special tokens."""

    config: Callable[[int], Any]
    tokenizer: Callable[[], Tokenizer]
    special: Mapping[str, str]


def llama(tied: bool, **more: Any) -> Callable[[int], Any]:
    return lambda vocabulary: LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=tied, **GATED, **more)


BEGIN_END = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
LLAMA_3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
CHAT_ML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
FAMILIES: Mapping[str, Family] = {
    "llama-2": Family(llama(False), sentencepiece_style, BEGIN_END),
    "vicuna": Family(
        llama(False, max_position_embeddings=2048), sentencepiece_style, BEGIN_END | {"pad_token": "<unk>"}
    ),
    "llama-3.2": Family(
        llama(True), lambda: byte_style(*LLAMA_3), {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    ),
    "smollm": Family(
        llama(True),
        lambda: byte_style(*CHAT_ML),
        {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"},
    ),
    "mistral": Family(
        lambda n: MistralConfig(vocab_size=n, sliding_window=64, tie_word_embeddings=False, **GATED),
        sentencepiece_style,
        BEGIN_END,
    ),
    "qwen2": Family(
        lambda n: Qwen2Config(vocab_size=n, tie_word_embeddings=True, **GATED),
        lambda: byte_style(*CHAT_ML),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "qwen3": Family(
        lambda n: Qwen3Config(vocab_size=n, head_dim=8, tie_word_embeddings=True, **GATED),
        lambda: byte_style(*CHAT_ML),
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    ),
    "gpt-neox": Family(
        lambda n: GPTNeoXConfig(vocab_size=n, intermediate_size=24, initializer_range=0.3, **SHAPE),
        lambda: byte_style("<|endoftext|>"),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    ),
    "gpt2": Family(
        lambda n: GPT2Config(vocab_size=n, n_embd=16, n_layer=2, n_head=2, initializer_range=0.3),
        lambda: byte_style("<|endoftext|>"),
        {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    ),
    "opt": Family(
        lambda n: OPTConfig(vocab_size=n, word_embed_proj_dim=16, ffn_dim=24, init_std=0.3, **SHAPE),
        lambda: byte_style("<s>", "<pad>", "</s>"),
        {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"},
    ),
    # Its tokenizer names no special token at all; </s> is the end token of the model's configuration, with the id 2.
    "galactica": Family(
        lambda n: OPTConfig(
            vocab_size=n,
            word_embed_proj_dim=16,
            ffn_dim=24,
            init_std=0.3,
            activation_function="gelu",
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            **SHAPE,
        ),
        lambda: byte_style(
            "<s>", "<pad>", "</s>", "<unk>", "[START_I_SMILES]", "[END_I_SMILES]", split="SPL1T-TH1S-Pl3A5E"
        ),
        {},
    ),
}
every_family = pytest.mark.parametrize("family", FAMILIES)

CHATS: Sequence[ChatFormat] = (
    Plain(),
    Plain(separator="", answer_end="\n"),
    Vicuna(),
    Llama2(),
    Mistral(),
    Mistral(opening="[INST]", closing="[/INST]"),
    Llama3(),
    ChatMl(),
    Galactica(),
)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    root = tmp_path_factory.mktemp("runtime")
    return Runtime(runs=root / "runs", cache=root / "cache", device="cpu", offline=True, progress=False)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("families")
    for seed, (name, family) in enumerate(FAMILIES.items()):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=family.tokenizer(), clean_up_tokenization_spaces=False, **family.special
        )
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(family.config(len(tokenizer))).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


Loaded = Callable[[str], tuple[nn.Module, Any]]


@pytest.fixture(scope="module")
def loaded(checkpoints: Mapping[str, Path], runtime: Runtime) -> Loaded:
    return lambda family: load(locate(LanguageModel(name=str(checkpoints[family])), runtime), "fp32")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore.open_or_build(tmp_path_factory.mktemp("features"), Gin().features(), MOLECULES)


def layout_of(tokenizer: Any, store: FeatureStore, style: PromptStyle, text: Any = None) -> Layout:
    return Layout(tokenizer, style, text or Smiles(), Gin(layers=2, width=8), Linear(), store, 512)


def talk(answers: Sequence[str]) -> Example:
    turns = []
    for number, answer in enumerate(answers):
        turns += [Turn("user", f"What of {slot(number % 3)}?"), Turn("assistant", answer, supervised=True)]
    return Example("talk", MOLECULES, tuple(turns))


def taught(example: TokenisedExample) -> Iterator[list[int]]:
    """Runs of supervised positions."""
    run: list[int] = []
    for token, label in zip(example.ids.tolist(), example.labels.tolist(), strict=True):
        if label != IGNORED:
            assert label == token
            run.append(label)
        elif run:
            yield run
            run = []
    if run:
        yield run


@every_family
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_exactly_the_answers_and_their_ends_are_taught(
    loaded: Loaded, store: FeatureStore, family: str, system: str | None
):
    _, tokenizer = loaded(family)
    end_token = tokenizer.eos_token_id
    assert end_token is not None
    for chat in CHATS:
        layout = layout_of(tokenizer, store, PromptStyle(chat=chat, system=system))
        for answers in (*((answer,) for answer in ANSWERS), ANSWERS[:3], ANSWERS[3:]):
            (example,) = layout.tokenise([talk(answers)])
            runs = list(taught(example))
            assert len(runs) == len(answers)
            for run, answer in zip(runs, answers, strict=True):
                if chat.answer_end:
                    assert tokenizer.decode(run) == answer + chat.answer_end
                    assert end_token not in run
                else:
                    assert run[-1] == end_token
                    assert end_token not in run[:-1]
                    assert tokenizer.decode(run[:-1]) == answer
            assert not (example.soft & (example.labels != IGNORED)).any()
            assert example.labels[: example.prompt_length].max(initial=IGNORED) == IGNORED or len(answers) > 1
            begins = chat.begins and tokenizer.bos_token_id is not None
            assert (example.ids[0] == tokenizer.bos_token_id) or not begins


def test_galactica_has_an_end_token_though_its_tokenizer_names_none(
    checkpoints: Mapping[str, Path], loaded: Loaded, store: FeatureStore
):
    named = PreTrainedTokenizerFast.from_pretrained(checkpoints["galactica"])
    assert named.eos_token_id is None
    _, tokenizer = loaded("galactica")
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("</s>", 2)
    assert tokenizer.decode([*tokenizer("Yes")["input_ids"], 2], skip_special_tokens=True) == "Yes"
    plain = Plain(separator="", answer_end="\n")
    style = PromptStyle(chat=plain, molecule="[START_I_SMILES]{text}[END_I_SMILES]{graph}")
    layout = layout_of(tokenizer, store, style, GalacticaSmiles())
    question = Turn("user", f"{slot(0)}. ")
    (example,) = layout.tokenise([Example("x", (ETHANOL,), (question, Turn("assistant", "An alcohol.", True)))])
    text = [tokenizer.decode([token]) for token in example.ids[~example.soft]]
    assert text[:5] == ["[START_I_SMILES]", "C", "C", "O", "[END_I_SMILES]"]
    assert int(example.soft.sum()) == 3


def test_a_tokenizer_without_any_end_token_is_refused(
    checkpoints: Mapping[str, Path], runtime: Runtime, tmp_path: Path
):
    model = AutoModelForCausalLM.from_pretrained(checkpoints["opt"])
    model.config.eos_token_id = None
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=byte_style("<s>")).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="without an end token"):
        load(locate(LanguageModel(name=str(tmp_path)), runtime), "fp32")


@every_family
def test_a_step_with_adapters_lowers_the_loss_and_answers_are_written(loaded: Loaded, store: FeatureStore, family: str):
    llm, tokenizer = loaded(family)
    torch.manual_seed(1)
    llm = attach_lora(llm.requires_grad_(False), Lora(r=4))
    encoder, projector = Gin(layers=2, width=8), Linear()
    levels = wire(encoder, projector)
    model = GraphLanguageModel(encoder.build(), projector.build(levels, embedding_width(llm)), llm, levels)
    model.freeze(Trains(llm="lora"))
    layout = layout_of(tokenizer, store, PromptStyle(chat=Plain()))
    collator = Collator(store, layout.padding)
    tokenised = layout.tokenise([talk(ANSWERS[:1]), talk(ANSWERS[1:3])])
    batch = collator([{"example": example} for example in tokenised])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=3e-3)
    losses = []
    for _ in range(4):
        loss = model(**batch)["loss"]
        loss.backward()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trained)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    answers = generate(model.eval(), tokenizer, collator.prompts(tokenised), Generation(max_new_tokens=5))
    assert len(answers) == 2
    for answer in answers:
        assert 1 <= len(answer) <= 5
        assert max(answer) < llm.config.vocab_size
        assert isinstance(tokenizer.decode(answer, skip_special_tokens=True), str)


def test_sentencepiece_puts_a_blank_before_each_text_that_it_is_given(loaded: Loaded):
    """So a text behind a graph begins with one too, and an answer needs none of its own."""
    _, tokenizer = loaded("llama-2")
    first = tokenizer("Yes", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(first)[0].startswith("▁")
    assert tokenizer.decode(first) == "Yes"
    assert tokenizer.decode(tokenizer("é\n", add_special_tokens=False)["input_ids"]) == "é\n"
    assert NoText().write(ETHANOL) == ""
