"""Chat formats of language models. The presets of the published systems say which of them each one has.

A prompt ends where the model's own template ends it before an answer, and the answer is tokenised apart. Llama's and
Mistral's tokenizers put a space before whatever they are given, so the space that their templates have before an answer
is in its first token, and `gap` is empty; for a tokenizer that does not do so, set `gap: " "`.

The end of an answer is the tokenizer's end token, on which generation stops: `</s>`, `<|eot_id|>` and `<|im_end|>` for
the models that these formats are made for. A base model that shares the vocabulary has its own end token there;
`answer_end: "<|eot_id|>"` makes it end answers as the template does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tasks.base import Role
from tasks.prompts import ChatFormat, TextInput


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
