"""Chat formats against the text that published templates give; `test_published_prompts` has those of whole systems."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.registry import Registry
from tasks.base import Example, Role, TaskError, Turn
from tasks.chat_formats import (
    ChatMl,
    Galactica,
    GalacticaSmiles,
    Llama2,
    Llama3,
    Mistral,
    Vicuna,
)
from tasks.metrics.tokenizers import llama2
from tasks.prompts import ChatFormat, NoText, PromptStyle, Segment, as_text, prompt_of, render

VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions."
)


def talk(*texts: str, system: str | None = None) -> Example:
    """A dialogue of texts by user and assistant in turns, behind an optional system turn."""
    turns = [] if system is None else [Turn("system", system)]
    turns += [Turn("assistant", t, supervised=True) if n % 2 else Turn("user", t) for n, t in enumerate(texts)]
    return Example("x", (), tuple(turns))


def shown(segments: tuple[Segment, ...], begin: str, end: str) -> str:
    """What a reader sees of a sequence, begin and end tokens included."""
    marks = {"begin": begin, "end": end}
    return "".join(marks.get(segment.kind, segment.text) for segment in segments)


def rendered(chat: ChatFormat, *texts: str, system: str | None = None) -> tuple[Segment, ...]:
    return render(talk(*texts), PromptStyle(chat=chat, system=system), NoText(), graph=False)


# What the templates give, worked out by hand from their text; each chat format's docstring names the template. Prompts
# are those of `add_generation_prompt=True`.

QUESTIONS = ("Q1?", "A1.", "Q2?", "A2.")
EXPECTED = {
    "vicuna": (
        Vicuna(gap=" "),
        "<s>{system} USER: Q1? ASSISTANT: A1.</s>USER: Q2? ASSISTANT: A2.</s>",
        "<s>USER: Q1? ASSISTANT: A1.</s>USER: Q2? ASSISTANT: A2.</s>",
    ),
    "llama2": (
        Llama2(gap=" "),  # behind answers, Meta's template has one more space
        "<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\nQ1? [/INST] A1.</s><s>[INST] Q2? [/INST] A2.</s>",
        "<s>[INST] Q1? [/INST] A1.</s><s>[INST] Q2? [/INST] A2.</s>",
    ),
    "mistral": (
        Mistral(),
        "<s>[INST] {system}\n\nQ1? [/INST]A1.</s>[INST] Q2? [/INST]A2.</s>",
        "<s>[INST] Q1? [/INST]A1.</s>[INST] Q2? [/INST]A2.</s>",
    ),
    "llama3": (
        Llama3(),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA2.<|eot_id|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ1?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA1.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nQ2?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nA2.<|eot_id|>",
    ),
    "chatml": (
        ChatMl(),
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nQ1?<|im_end|>\n<|im_start|>assistant\nA1.<|im_end|>\n"
        "<|im_start|>user\nQ2?<|im_end|>\n<|im_start|>assistant\nA2.<|im_end|>\n",
        "<|im_start|>user\nQ1?<|im_end|>\n<|im_start|>assistant\nA1.<|im_end|>\n"
        "<|im_start|>user\nQ2?<|im_end|>\n<|im_start|>assistant\nA2.<|im_end|>\n",
    ),
    "galactica": (
        Galactica(),
        "{system}\n\nQuestion: Q1?\n\nAnswer: A1.</s>\n\nQuestion: Q2?\n\nAnswer: A2.</s>\n\n",
        "Question: Q1?\n\nAnswer: A1.</s>\n\nQuestion: Q2?\n\nAnswer: A2.</s>\n\n",
    ),
}
TOKENS = {"llama3": ("<|begin_of_text|>", "<|eot_id|>"), "chatml": ("", "<|im_end|>"), "galactica": ("", "</s>")}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dialogue_reads_as_the_models_template_writes_it(name: str):
    chat, with_system, without = EXPECTED[name]
    begin, end = TOKENS.get(name, ("<s>", "</s>"))
    assert chat.name == name
    assert shown(rendered(chat, *QUESTIONS, system=VICUNA), begin, end) == with_system.replace("{system}", VICUNA)
    assert shown(rendered(chat, *QUESTIONS), begin, end) == without


@pytest.mark.parametrize("name", EXPECTED)
def test_a_prompt_ends_where_the_model_is_to_answer(name: str):
    chat, with_system, _ = EXPECTED[name]
    begin, end = TOKENS.get(name, ("<s>", "</s>"))
    prompt = shown(prompt_of(rendered(chat, *QUESTIONS, system="S")), begin, end)
    whole = with_system.replace("{system}", "S")
    assert prompt == whole[: whole.index("A2.")]
    assert shown(prompt_of(rendered(chat, "Q1?", "A1.", system="S")), begin, end) == whole[: whole.index("A1.")]


@pytest.mark.parametrize("name", EXPECTED)
def test_only_answers_and_their_ends_are_taught(name: str):
    taught = [segment for segment in rendered(EXPECTED[name][0], *QUESTIONS, system="S") if segment.supervised]
    assert [(segment.kind, segment.text) for segment in taught] == [
        ("text", "A1."), ("end", ""), ("text", "A2."), ("end", "")
    ]  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_every_format_can_end_answers_with_a_text_of_its_own(name: str):
    chat = replace(EXPECTED[name][0], answer_end="\n")
    begin, end = TOKENS.get(name, ("<s>", "</s>"))
    taught = [segment for segment in rendered(chat, *QUESTIONS, system="S") if segment.supervised]
    assert [(s.kind, s.text) for s in taught] == [("text", "A1."), ("end", "\n"), ("text", "A2."), ("end", "\n")]
    whole = "".join({"begin": begin}.get(s.kind, s.text) for s in rendered(chat, *QUESTIONS, system="S"))
    of_tokens = shown(rendered(EXPECTED[name][0], *QUESTIONS, system="S"), begin, end)
    assert whole == of_tokens.replace(f"A1.{end}", "A1.\n").replace(f"A2.{end}", "A2.\n")


@pytest.mark.parametrize("name", EXPECTED)
def test_a_system_turn_of_the_example_is_written_as_that_of_the_style(name: str):
    chat = EXPECTED[name][0]
    of_example = render(talk(*QUESTIONS, system="S"), PromptStyle(chat=chat), NoText(), graph=False)
    assert of_example == rendered(chat, *QUESTIONS, system="S")


@pytest.mark.parametrize("chat", [Vicuna(), Llama2(), Mistral()])
@pytest.mark.parametrize(
    "roles",
    [
        ["user", "user"],
        ["assistant"],
        ["system", "system", "user"],
        ["user", "system"],
        ["user", "assistant", "assistant"],
    ],
)
def test_an_order_that_the_template_refuses_is_refused(chat: ChatFormat, roles: list[Role]):
    example = Example("x", (), tuple(Turn(role, "t") for role in roles))
    with pytest.raises(
        TaskError, match=rf"prompt.chat {chat.name} has no form for turns by .* is by {roles[-1]}|by sys"
    ):
        render(example, PromptStyle(chat=chat), NoText(), graph=False)


@pytest.mark.parametrize("chat", [Llama3(), ChatMl(), Galactica()])
def test_other_formats_write_any_order(chat: ChatFormat):
    example = Example("x", (), (Turn("user", "one"), Turn("user", "two"), Turn("assistant", "three", supervised=True)))
    text = as_text(render(example, PromptStyle(chat=chat), NoText(), graph=False))
    assert text.index("one") < text.index("two") < text.index("three")


def test_they_are_found_by_name():
    known = Registry().all("chat")
    assert {name: known[name] for name in EXPECTED} == {name: type(chat) for name, (chat, _, _) in EXPECTED.items()}
    assert Registry().get("text_input", "galactica") is GalacticaSmiles


# Tokens, since text that looks alike may be read otherwise


def test_llama2_reads_the_pieces_as_it_reads_the_whole(data_folder: Path):
    """Answers are tokenised apart from what stands before them, and have to get the same tokens all the same."""
    split = llama2(str(data_folder / "llama2_tokenizer" / "tokenizer.model")).split

    def pieces(segments: tuple[Segment, ...]) -> list[str]:
        marks = {"begin": ["<s>"], "end": ["</s>"]}
        return [p for s in segments for p in (marks.get(s.kind) or (split([s.text])[0] if s.text else []))]

    texts = ("What is CC(N)CO?", "The molecule is an amino alcohol.", "Is it chiral?", "Yes, 1 centre.")
    whole = f"{VICUNA} USER: {texts[0]} ASSISTANT: {texts[1]}</s>USER: {texts[2]} ASSISTANT: {texts[3]}</s>"
    # Behind a special token the slow tokenizer begins anew with a space, which `split` of a whole text leaves out.
    expected = [
        "<s>",
        *split([whole.partition("USER: Is")[0]])[0],
        *split(["USER: Is" + whole.partition("USER: Is")[2]])[0],
    ]
    assert pieces(rendered(Vicuna(), *texts, system=VICUNA)) == expected

    opened = f"<s>[INST] <<SYS>>\n{VICUNA}\n<</SYS>>\n\n{texts[0]} [/INST] {texts[1]}</s>"
    parts = opened.removeprefix("<s>")
    assert pieces(rendered(Llama2(), *texts[:2], system=VICUNA)) == ["<s>", *split([parts])[0]]
    assert pieces(rendered(Llama2(), *texts))[-len(split([texts[3]])[0]) - 1 :] == [*split([texts[3]])[0], "</s>"]


SPECIAL = (
    "<s>",
    "</s>",
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
)


def small_tokenizer(begin: str | None, end: str) -> Any:
    """A byte-level BPE tokenizer of transformers, with the special tokens of all formats and hardly any merges."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pieces.train_from_iterator(
        ["Question: what is CCO? Answer: an alcohol. user assistant system [INST] [/INST]"] * 4, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=pieces, bos_token=begin, eos_token=end)


TEMPLATES = {
    "llama3": (
        "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] "
        "+ '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
        "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_start|>",  # as SmolLM's tokenizer says, though its template writes none
        "<|im_end|>",
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "
        "message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}",
        "<s>",
        "</s>",
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_token_ids_are_those_of_apply_chat_template(name: str):
    """The whole path on a real tokenizer: special tokens named in a format's text become one id each."""
    template, begin, end = TEMPLATES[name]
    tokenizer = small_tokenizer(begin, end)
    tokenizer.chat_template = template
    messages = [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(QUESTIONS)]
    system = None if name == "mistral" else "Be brief."
    if system:
        messages.insert(0, {"role": "system", "content": system})

    def ids(segments: tuple[Segment, ...]) -> list[int]:
        marks = {"begin": [tokenizer.bos_token_id], "end": [tokenizer.eos_token_id]}
        read = lambda s: marks.get(s.kind) or tokenizer(s.text, add_special_tokens=False)["input_ids"]  # noqa: E731
        return [token for segment in segments for token in read(segment)]

    segments = rendered(EXPECTED[name][0], *QUESTIONS, system=system)
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert ids(segments) == whole
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=True, return_dict=False, add_generation_prompt=True)
    assert ids(prompt_of(segments)) == prompt
    known = [tokenizer.convert_tokens_to_ids(mark) for mark in SPECIAL if mark in EXPECTED[name][1]]
    assert known
    assert set(known) <= set(whole)


# Molecules


def test_galactica_reads_smiles_character_by_character():
    mark = "SPL1T-TH1S-Pl3A5E"
    assert GalacticaSmiles().write("CCO") == f"{mark}C{mark}C{mark}O{mark}"
    assert GalacticaSmiles().write("C" * 200).count("C") == 128
    assert GalacticaSmiles(max_characters=None).write("C" * 200).count("C") == 200
