"""Chat formats of language models, and what surrounds a molecule in the prompts of published systems.

A prompt ends where the model's own template ends it before an answer, and the answer is tokenised apart. Llama's and
Mistral's tokenizers put a space before whatever they are given, so the space that their templates have before an answer
is in its first token, and `gap` is empty; for a tokenizer that does not do so, set `gap: " "`.

The end of an answer is the tokenizer's end token, on which generation stops: `</s>`, `<|eot_id|>` and `<|im_end|>` for
the models that these formats are made for. A base model that shares the vocabulary has its own end token there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tasks.base import Role
from tasks.prompts import ChatFormat, NoText, Plain, PromptStyle, TextInput
from tasks.text_inputs import Rewritten, Selfies

VICUNA_SYSTEM = (
    "A chat between a curious {} and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the {}'s questions."
)
"""Of Vicuna v1.1 to v1.5 with `user` in both places (lm-sys/FastChat fastchat/conversation.py); LLaVA has `human`."""

LLAMO_SYSTEM = "The following is a conversation between a curious human and AI assistant."


@dataclass(frozen=True, kw_only=True)
class Vicuna(ChatFormat):
    """`SYSTEM USER: question ASSISTANT: answer</s>USER: ...`, Vicuna v1.1 to v1.5, as InstructMol uses it.

    Source: lm-sys/FastChat fastchat/conversation.py, `SeparatorStyle.ADD_COLON_TWO` with the separators " " and `</s>`.

    Args:
        gap: what stands before an answer.
    """

    name: ClassVar[str] = "vicuna"
    alternates: ClassVar[bool] = True

    gap: str = ""

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        if role == "assistant":
            return f"ASSISTANT:{self.gap}", ""
        return ("" if role == "system" else "USER: "), " "


@dataclass(frozen=True, kw_only=True)
class Llama2(ChatFormat):
    """`[INST] <<SYS>>\\nSYSTEM\\n<</SYS>>\\n\\nquestion [/INST]answer</s><s>[INST] ...`, Llama-2-chat as in LLaMo.

    Source: mlvlab/LLaMo pipeline/data_utils/datasets/base.py:48-111 and the chat template of
    meta-llama/Llama-2-7b-chat-hf. The latter has one more space, before `</s>`, which LLaMo leaves out.

    Args:
        gap: what stands before an answer.
        begin: what stands before each question but the first, whose begin token is the tokenizer's.
    """

    name: ClassVar[str] = "llama2"
    alternates: ClassVar[bool] = True

    gap: str = ""
    begin: str = "<s>"

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        if role == "system":
            return "[INST] <<SYS>>\n", "\n<</SYS>>\n\n"
        if role == "assistant":
            return self.gap, ""
        # Turns alternate, so the turn before that at position 1 is the system's, which has opened the question.
        opening = {0: "[INST] ", 1: ""}.get(position, f"{self.begin}[INST] ")
        return opening, " [/INST]"


@dataclass(frozen=True, kw_only=True)
class Mistral(ChatFormat):
    """`[INST] SYSTEM\\n\\nquestion [/INST]answer</s>[INST] ...`, Mistral-7B-Instruct v0.2; one begin token in all.

    Source: the chat template of mistralai/Mistral-7B-Instruct-v0.2, which has no system turn; later templates put it
    before the first question as here. v0.1 has a space behind `</s>`. MolX writes `[INST]` and `[/INST]` without spaces
    (lhkhiem28/MolX molx_llm.py:228-296).

    Args:
        gap: what stands before an answer.
        opening, closing: what stands around a question.
    """

    name: ClassVar[str] = "mistral"
    alternates: ClassVar[bool] = True

    gap: str = ""
    opening: str = "[INST] "
    closing: str = " [/INST]"

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        if role == "system":
            return self.opening, "\n\n"
        if role == "assistant":
            return self.gap, ""
        return ("" if position == 1 else self.opening), self.closing


@dataclass(frozen=True, kw_only=True)
class Llama3(ChatFormat):
    """`<|start_header_id|>user<|end_header_id|>\\n\\nquestion<|eot_id|>...`, Llama 3 Instruct and its successors.

    Source: the chat template of meta-llama/Meta-Llama-3-8B-Instruct. From 3.1 on the template begins each conversation
    with a system turn that names two dates; `prompt.system: "Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul
    2024\\n\\n"` writes it, with a system text of one's own behind.
    """

    name: ClassVar[str] = "llama3"

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n", "" if role == "assistant" else "<|eot_id|>"


@dataclass(frozen=True, kw_only=True)
class ChatMl(ChatFormat):
    """`<|im_start|>user\\nquestion<|im_end|>\\n...`, Qwen and SmolLM Instruct.

    Source: the chat templates of Qwen/Qwen2.5-0.5B-Instruct and HuggingFaceTB/SmolLM2-135M-Instruct. Where no system
    turn is given, they write one of their own (`You are Qwen, created by Alibaba Cloud. You are a helpful assistant.`,
    `You are a helpful AI assistant named SmolLM, trained by Hugging Face`); give it as `prompt.system` for the same.
    """

    name: ClassVar[str] = "chatml"
    begins: ClassVar[bool] = False

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        return f"<|im_start|>{role}\n", "\n" if role == "assistant" else "<|im_end|>\n"


@dataclass(frozen=True, kw_only=True)
class Galactica(ChatFormat):
    """`Question: question\\n\\nAnswer: answer`, the paper of Galactica's form (paperswithcode/galai README.md).

    MolCA's prompts have neither word: they are `plain` with an empty separator.

    Args:
        gap: what stands before an answer.
    """

    name: ClassVar[str] = "galactica"

    gap: str = " "

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        if role == "assistant":
            return f"Answer:{self.gap}", "\n\n"
        return ("" if role == "system" else "Question: "), "\n\n"


@dataclass(frozen=True, kw_only=True)
class GalacticaSmiles(TextInput):
    """A SMILES whose characters Galactica's tokenizer reads one by one, as it was trained and as MolCA writes them.

    The tokenizer splits at `marker` and removes it. The tags around belong to `prompt.molecule`.

    Args:
        max_characters: where it is cut (MolCA: 128, data_provider/stage2_dm.py:43-62); None for never.
        marker: what Galactica's tokenizer.json splits at.
    """

    name: ClassVar[str] = "galactica"

    max_characters: int | None = 128
    marker: str = "SPL1T-TH1S-Pl3A5E"

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        kept = smiles[: self.max_characters]
        return "".join(f"{self.marker}{character}" for character in kept) + self.marker


@dataclass(frozen=True, kw_only=True)
class PublishedPrompt:
    """What surrounds the question in the prompts of a published system; the questions are templates of the tasks.

    Args:
        style: chat format, system turn and how a molecule stands in a turn.
        text_input: how it is written.
        source: where this was read.
        note: what is different there.
    """

    style: PromptStyle
    text_input: TextInput = field(default_factory=NoText)
    source: str
    note: str = ""


PROMPT_STYLES: Mapping[str, PublishedPrompt] = {
    "llamo": PublishedPrompt(
        style=PromptStyle(chat=Llama2(), molecule="{text}{graph}", system=LLAMO_SYSTEM),
        text_input=Rewritten(form="flat", max_characters=128),
        source="mlvlab/LLaMo pipeline/data_utils/datasets/base.py:48-111, tokenization_llamo.py:68-145",
        note="blanks next to a graph are stripped, so a question is `{molecule}Describe this molecule.`",
    ),
    "instructmol": PublishedPrompt(
        style=PromptStyle(chat=Vicuna(), molecule="{graph}", system=VICUNA_SYSTEM.format("user", "user")),
        source="IDEA-XL/InstructMol llava/train, `--version v1`; the variant -G",
        note="a question is `{molecule}\\nDescribe this molecule.`; the variant -GS names the SELFIES behind it",
    ),
    "instructmol-evaluation": PublishedPrompt(
        style=PromptStyle(chat=Vicuna(), molecule="{graph}", system=VICUNA_SYSTEM.format("human", "human")),
        source="IDEA-XL/InstructMol, `--conv-mode llava_v1`, the default when answers are generated",
        note="trained with the wording of `instructmol`, asked with this one",
    ),
    "molca": PublishedPrompt(
        style=PromptStyle(chat=Plain(separator=""), molecule="[START_I_SMILES]{text}[END_I_SMILES]{graph}"),
        text_input=GalacticaSmiles(),
        source="acharkq/MolCA data_provider/stage2_dm.py:43-62, README.md",
        note="a question is `{molecule}. `; an answer ends with a line break, not with the end token",
    ),
    "molx": PublishedPrompt(
        style=PromptStyle(chat=Mistral(opening="[INST]", closing="[/INST]"), molecule="{graph}"),
        source="lhkhiem28/MolX molx_llm.py:228-296, with Llama-2-chat as with Mistral",
        note="no SMILES in the released jobs; four learned vectors follow the molecule's",
    ),
    "m3llm": PublishedPrompt(
        style=PromptStyle(chat=Llama3(), molecule="{graph}{text}"),
        text_input=Selfies(),
        source="arXiv 2411.04708: LLaMA-3.2-1B, a user turn with graph, SELFIES and instruction",
        note="the wording of its system turn and the order of graph and SELFIES are not published",
    ),
}
"""By system. `m3llm` is a reconstruction; the others are read from released code."""
