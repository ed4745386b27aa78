"""Examples rendered as text: how a molecule is written, how turns are wrapped, and where its graph is placed.

A rendered example is a list of segments. Text segments are tokenised one by one, so the boundary between prompt and
answer, and between text and graph, never depends on how a tokenizer merges across it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tasks.base import Example, Role, Slot, TaskError, Turn, split_slots

SegmentKind = Literal["text", "graph", "begin", "end", "answer", "boundary"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a rendered example.

    Args:
        kind: `text`, `graph` (the soft tokens of `molecule`), the tokenizer's `begin` token, the `end` of an answer,
            `answer`: no token, but the place where a supervised answer begins, or `boundary`: no token, but the place
            where one that is only read begins, which is tokenised apart from its prompt as it was when it was learned.
        text: the text of a `text` segment, or of an `end` that is no end token of the tokenizer; else empty.
        molecule: index into `Example.molecules` of a `graph` segment, else -1.
        supervised: whether training teaches this piece.
    """

    kind: SegmentKind
    text: str = ""
    molecule: int = -1
    supervised: bool = False


class UnwritableMoleculeError(ValueError):
    """A molecule that cannot be written in some way; the message is the reason that is listed."""


@dataclass(frozen=True, kw_only=True)
class TextInput(ABC):
    """How a molecule is written in the prompt. One subclass per way; a study varies it as a factor."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def write(self, smiles: str) -> str:
        """The text that stands for `smiles`, or the empty string for none.

        Raises:
            UnwritableMoleculeError: it cannot be written in this way.
        """


@dataclass(frozen=True, kw_only=True)
class Smiles(TextInput):
    """The SMILES as the data set gives it, cut after `max_characters` (None: never)."""

    name: ClassVar[str] = "smiles"

    max_characters: int | None = None

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        return smiles if self.max_characters is None else smiles[: self.max_characters]


@dataclass(frozen=True, kw_only=True)
class NoText(TextInput):
    """No text at all: whatever the language model knows of the molecule, it knows from the graph."""

    name: ClassVar[str] = "none"

    def write(self, smiles: str) -> str:  # noqa: D102 - inherited
        return ""


@dataclass(frozen=True, kw_only=True)
class ChatFormat(ABC):
    """How turns are wrapped for a language model: the strings around each and where its begin and end tokens stand.

    Strings may name special tokens, such as `<|im_start|>`; a tokenizer that knows them reads each as one token.

    Args:
        answer_end: the text that ends an answer, which is taught and at which generation stops; the answer read from a
            generation is what stands before it. Empty for the tokenizer's end token. An answer that holds this text
            itself has blanks in its place, as MolCA joins the lines of a caption (molecule_caption_dataset.py:125-126).
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    begins: ClassVar[bool] = True
    """Whether the tokenizer's begin token comes first; where a template has none, a tokenizer may have one all the same
    (SmolLM's is `<|im_start|>`)."""
    alternates: ClassVar[bool] = False
    """Whether questions and answers must take turns, behind at most one system turn; where a template refuses all else,
    other orders would be written in a way that no model has seen."""

    answer_end: str = field(default="", metadata={"neutral": ""})

    @abstractmethod
    def wrap(self, role: Role, position: int) -> tuple[str, str]:
        """The strings before and after the turn at `position` (0-based); after an answer, they follow its end token."""

    def check(self, roles: Sequence[Role]) -> None:
        """Make sure that turns can follow each other so, the style's system turn included.

        Raises:
            TaskError: the format has no form for it.
        """
        if not self.alternates:
            return
        talk = roles[1:] if roles and roles[0] == "system" else roles
        for place, role in enumerate(talk):
            expected = "assistant" if place % 2 else "user"
            if role != expected:
                raise TaskError(
                    f"prompt.chat {self.name} has no form for turns by {', '.join(roles)}: behind at most one system "
                    f"turn, user and assistant take turns, but turn {place + 1 + len(roles) - len(talk)} is by {role}"
                )


@dataclass(frozen=True, kw_only=True)
class Plain(ChatFormat):
    """No template: the question, `separator`, the answer. For base models and small models trained from scratch.

    MolCA's answers, and those of InstructMol's first stage, end with a line break: `answer_end: "\\n"`.
    """

    name: ClassVar[str] = "plain"

    separator: str = "\n"

    def wrap(self, role: Role, position: int) -> tuple[str, str]:  # noqa: D102 - inherited
        return ("", "") if role == "assistant" else ("", self.separator)


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """What surrounds a task's question.

    Args:
        chat: the wrapping of turns.
        molecule: how a molecule stands in a turn whose question has one place for it; `{graph}` and `{text}` are
            replaced, by nothing where the run has no graph or no text. Where a question has places of their own for
            graph and text, each stands in its place as it is, or nothing where the run has none of it.
        system: a system turn put first, if any.
    """

    chat: ChatFormat
    molecule: str = "{graph}{text}"
    system: str | None = None

    def __post_init__(self) -> None:
        leftover = self.molecule.replace("{graph}", "", 1).replace("{text}", "", 1)
        if "{" in leftover or "}" in leftover:
            raise TaskError(
                f"prompt.molecule is {self.molecule!r}: it may hold `{{graph}}` and `{{text}}` once each and no other "
                "braces"
            )


def render(example: Example, style: PromptStyle, text_input: TextInput, *, graph: bool) -> tuple[Segment, ...]:
    """The segments of a whole example, gold answers included.

    Args:
        example: what is asked.
        style: what surrounds it.
        text_input: how molecules are written.
        graph: whether molecules have soft tokens; without, no placeholder is left behind.
    """
    turns: Sequence[Turn] = example.turns
    if style.system is not None:
        turns = (Turn("system", style.system), *turns)
    style.chat.check([turn.role for turn in turns])
    segments = [Segment("begin")] if style.chat.begins else []
    for position, turn in enumerate(turns):
        before, after = style.chat.wrap(turn.role, position)
        segments += _text(before)
        if turn.role == "assistant":
            segments.append(Segment("answer" if turn.supervised else "boundary"))
        for piece in split_slots(turn.text):
            if isinstance(piece, str):
                segments += _text(_without_end(piece, turn, style.chat), turn.supervised)
            elif turn.supervised:  # a model can write a molecule, but no soft tokens
                if piece.part != "graph":
                    segments += _text(text_input.write(_molecule_of(example, piece)), supervised=True)
            else:
                segments += _molecule(example, piece, style.molecule, text_input, graph)
        if turn.role == "assistant":
            segments.append(Segment("end", style.chat.answer_end, supervised=turn.supervised))
        segments += _text(after)
    return tuple(_merged(segments))


def written_molecules(example: Example, style: PromptStyle) -> frozenset[int]:
    """The molecules, by index, whose text `render` writes; no others need to be writable."""
    found = set()
    for turn in example.turns:
        with_text = {"text", "both"} if turn.supervised or "{text}" in style.molecule else {"text"}
        found |= {p.index for p in split_slots(turn.text) if isinstance(p, Slot) and p.part in with_text}
    return frozenset(found)


def prompt_of(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """The part that a model is given before it writes the last answer."""
    last = max((place for place, segment in enumerate(segments) if segment.kind == "answer"), default=len(segments))
    return tuple(segments[:last])


def as_text(segments: Sequence[Segment], end: str = "") -> str:
    """Segments as one readable string, graphs as `<graph:i>`; what a run record shows and `prompt_sha` hashes.

    Args:
        segments: as `render` gives them.
        end: stands for the tokenizer's end token, which has no text.
    """
    return "".join(
        f"<graph:{s.molecule}>" if s.kind == "graph" else s.text or (end if s.kind == "end" else "") for s in segments
    )


def prompt_sha(segments: Sequence[Segment]) -> str:
    """First 16 hex digits of the sha256 of the prompt as text."""
    return hashlib.sha256(as_text(segments).encode()).hexdigest()[:16]


def _text(text: str, supervised: bool = False) -> list[Segment]:
    return [Segment("text", text, supervised=supervised)] if text else []


def _without_end(text: str, turn: Turn, chat: ChatFormat) -> str:
    """`text` as it stands; of an answer, without what ends answers, or all behind it would be taught for nothing."""
    return text.replace(chat.answer_end, " ") if chat.answer_end and turn.role == "assistant" else text


def _molecule(example: Example, place: Slot, template: str, text_input: TextInput, graph: bool) -> Iterator[Segment]:
    """What stands in a place; a molecule is not written where its text is not asked for, for it may not be writable."""
    molecule = _molecule_of(example, place)
    shown = {"both": template, "graph": "{graph}", "text": "{text}"}[place.part]
    written = text_input.write(molecule) if "{text}" in shown else ""
    before, placeholder, after = shown.partition("{graph}")
    yield from _text(before.replace("{text}", written))
    if placeholder and graph:
        yield Segment("graph", molecule=place.index)
    yield from _text(after.replace("{text}", written))


def _molecule_of(example: Example, place: Slot) -> str:
    if place.index >= len(example.molecules):
        raise TaskError(f"example {example.id} refers to molecule {place.index}, but has {len(example.molecules)}")
    return example.molecules[place.index]


def _merged(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Neighbouring texts of the same supervision joined, so that tokenising sees what a reader sees."""
    pending: Segment | None = None
    for segment in segments:
        if pending and segment.kind == "text" and segment.supervised == pending.supervised:
            pending = Segment("text", pending.text + segment.text, supervised=segment.supervised)
            continue
        if pending:
            yield pending
        pending = segment if segment.kind == "text" else None
        if segment.kind != "text":
            yield segment
    if pending:
        yield pending
