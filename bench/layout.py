"""Examples as token sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.batches import IGNORED
from bench.identity import content_hash, examples_hash
from bench.memo import Memo, is_ours
from encoders.base import Encoder
from encoders.store import FeatureStore
from projectors.base import Projector
from tasks.base import Example
from tasks.prompts import (
    NoText,
    PromptStyle,
    Segment,
    TextInput,
    UnwritableMoleculeError,
    prompt_of,
    prompt_sha,
    render,
)


@dataclass(frozen=True, slots=True)
class TokenisedExample:
    """One example laid out for the language model.

    Args:
        id: of the example.
        ids: `(L,)` token ids; the padding id at soft positions.
        labels: `(L,)` token ids where supervised, else `IGNORED`.
        soft: `(L,)` bool, where soft tokens stand.
        molecules: the molecules whose graphs are read, in the order of their placeholders.
        places: where each one's soft tokens begin and end, `[begin, end)`.
        prompt_length: tokens before the last answer.
        prompt_sha: hash of the rendered prompt.
        cut: answer tokens lost to `max_length`.
        task: the name of its task.
        answer_end: the text that ends its answers; empty for the tokenizer's end token.
    """

    id: str
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    soft: NDArray[np.bool_]
    molecules: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    prompt_length: int
    prompt_sha: str
    cut: int = 0
    task: str = ""
    answer_end: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Turns examples into token sequences.

    Args:
        tokenizer: of the language model.
        style: what surrounds questions.
        text_input: how molecules are written.
        encoder, projector: declarations; they know how many soft tokens a molecule has.
        store: features of all molecules.
        max_length: longest training sequence.
        shared: where tokenised examples are kept for other runs of the process, and the identity of the tokenizer's
            files; None to keep none.
    """

    tokenizer: Any
    style: PromptStyle
    text_input: TextInput
    encoder: Encoder
    projector: Projector
    store: FeatureStore
    max_length: int
    shared: tuple[Memo, str] | None = None

    def render(self, example: Example) -> tuple[Segment, ...]:
        """The example's segments, with placeholders where the projector gives tokens."""
        return render(example, self.style, self.text_input, graph=self.projector.places_tokens)

    def render_as_far_as_possible(self, example: Example) -> tuple[Segment, ...]:
        """The same; of an example whose molecule cannot be written, which is never asked, without its text."""
        try:
            return self.render(example)
        except UnwritableMoleculeError:
            return render(example, self.style, NoText(), graph=self.projector.places_tokens)

    def soft_counts(self, molecules: Sequence[str]) -> NDArray[np.int64]:
        """The number of soft tokens of each molecule, `(B,)`."""
        if not self.projector.places_tokens or not molecules:
            return np.zeros(len(molecules), dtype=np.int64)
        rows = self.encoder.rows(self.store.counts(molecules), len(molecules))
        return self.projector.tokens(rows, len(molecules))

    def tokenise(
        self, examples: Sequence[Example], substitutes: Mapping[str, str] | None = None
    ) -> list[TokenisedExample]:
        """All examples as tokens, untruncated.

        Args:
            examples: what is asked.
            substitutes: the molecule whose graph is read in the place of another one's; None for the real ones.
        """
        swapped = substitutes or {}
        if self.shared is None or not is_ours((self.style, self.text_input)):
            return self._tokenised(examples, swapped)
        memo, tokenizer = self.shared
        used = list(dict.fromkeys(swapped.get(m, m) for example in examples for m in example.molecules))
        read = [used, self.soft_counts(used).tolist(), [[m, swapped[m]] for m in sorted(swapped) if swapped[m] != m]]
        key = (
            tokenizer,
            content_hash([self.style, self.text_input, self.projector.places_tokens, read]),
            examples_hash(examples),
            tuple(str(example.meta.get("task", "")) for example in examples),
        )
        found = memo.get("tokenised", key, lambda: tuple(self._tokenised(examples, swapped)), _bytes)
        return list(found)

    def _tokenised(self, examples: Sequence[Example], swapped: Mapping[str, str]) -> list[TokenisedExample]:
        rendered = [self.render(example) for example in examples]
        texts = list(dict.fromkeys(s.text for segments in rendered for s in segments if s.kind == "text"))
        tokens_of = dict(zip(texts, self._token_ids(texts), strict=True))
        end = end_ids(self.tokenizer, self.style.chat.answer_end)
        used = list(dict.fromkeys(swapped.get(m, m) for example in examples for m in example.molecules))
        soft_of = dict(zip(used, self.soft_counts(used).tolist(), strict=True))
        return [
            self._lay_out(example, segments, tokens_of, end, soft_of, swapped)
            for example, segments in zip(examples, rendered, strict=True)
        ]

    def truncated(self, example: TokenisedExample) -> TokenisedExample:
        """The example with its answer cut at `max_length`; the prompt is never cut."""
        if len(example.ids) <= self.max_length:
            return example
        # A graph is read whole or not at all.
        end = min([self.max_length, *(begin for begin, end in example.places if begin < self.max_length < end)])
        keep, cut = slice(0, end), len(example.ids) - end
        return replace(example, ids=example.ids[keep], labels=example.labels[keep], soft=example.soft[keep], cut=cut)

    def fits(self, example: TokenisedExample) -> bool:
        """Whether anything supervised is left within `max_length`; of a dialogue, that is its first answers."""
        return bool((example.labels[: self.max_length] != IGNORED).any())

    @property
    def padding(self) -> int:
        """The id that fills up batches and soft positions."""
        tokenizer = self.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids

    def _lay_out(
        self,
        example: Example,
        segments: Sequence[Segment],
        tokens_of: Mapping[str, list[int]],
        end: list[int],
        soft_of: Mapping[str, int],
        swapped: Mapping[str, str],
    ) -> TokenisedExample:
        prompt_segments = prompt_of(segments)
        ids: list[int] = []
        labels: list[int] = []
        soft: list[bool] = []
        molecules: list[str] = []
        places: list[tuple[int, int]] = []
        prompt_length = 0
        for position, segment in enumerate(segments):
            if position == len(prompt_segments):
                prompt_length = len(ids)
            if segment.kind == "graph":
                molecule = example.molecules[segment.molecule]
                molecule = swapped.get(molecule, molecule)
                molecules.append(molecule)
                places.append((len(ids), len(ids) + soft_of[molecule]))
                piece = [self.padding] * soft_of[molecule]
            else:
                piece = self._piece(segment, tokens_of, end)
            ids += piece
            soft += [segment.kind == "graph"] * len(piece)
            labels += piece if segment.supervised else [IGNORED] * len(piece)
        return TokenisedExample(
            example.id,
            np.array(ids, dtype=np.int64),
            np.array(labels, dtype=np.int64),
            np.array(soft, dtype=np.bool_),
            tuple(molecules),
            tuple(places),
            prompt_length,
            prompt_sha(prompt_segments),
            task=str(example.meta.get("task", "")),
            answer_end=self.style.chat.answer_end,
        )

    def _piece(self, segment: Segment, tokens_of: Mapping[str, list[int]], end: list[int]) -> list[int]:
        if segment.kind == "text":
            return tokens_of[segment.text]
        if segment.kind == "begin":
            begin = self.tokenizer.bos_token_id
            return [] if begin is None else [int(begin)]
        return end if segment.kind == "end" else []


def _bytes(tokenised: Sequence[TokenisedExample]) -> int:
    """What tokenised examples take."""
    return sum(900 + example.ids.nbytes + example.labels.nbytes + example.soft.nbytes for example in tokenised)


def end_ids(tokenizer: Any, text: str) -> list[int]:
    """The ids that end an answer: those of `text` as it stands behind other text, or the end token where it is empty.

    Sentencepiece tokenizers put a space before a text that they are given alone, which is no part of an answer's end.
    """
    if not text:
        return [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    alone, before, both = tokenizer([text, "a", f"a{text}"], add_special_tokens=False)["input_ids"]
    found: list[int] = both[len(before) :] if both[: len(before)] == before else alone
    return found


class TrainingExamples:
    """Tokenised examples cut to the longest length, whose graphs may be other ones in every epoch.

    Args:
        layout: turns examples into tokens.
        examples: in data-set order; those whose prompt alone is too long are left out.
        substitutes: the molecule whose graph is read in the place of another one's, in an epoch.
        redrawn: whether that differs from epoch to epoch.
    """

    def __init__(
        self,
        layout: Layout,
        examples: Sequence[Example],
        substitutes: Callable[[int], Mapping[str, str]],
        redrawn: bool = False,
    ) -> None:
        self._layout = layout
        self._substitutes = substitutes
        self._redrawn = redrawn
        tokenised = layout.tokenise(examples, substitutes(0))
        self._examples = [example for example, t in zip(examples, tokenised, strict=True) if layout.fits(t)]
        self.first = [layout.truncated(t) for t in tokenised if layout.fits(t)]
        self.too_long = len(tokenised) - len(self.first)
        self.shortest_prompt = min((t.prompt_length for t in tokenised), default=0)
        self.shortened = sum(example.cut > 0 for example in self.first)

    def at(self, epoch: int) -> Sequence[TokenisedExample]:
        """The examples of an epoch, counted from 0; equally many in each."""
        if epoch == 0 or not self._redrawn:
            return self.first
        drawn = self._layout.tokenise(self._examples, self._substitutes(epoch))
        # A larger graph may leave no room for the answer; such a one keeps the first epoch's.
        return [
            self._layout.truncated(new) if self._layout.fits(new) else first
            for new, first in zip(drawn, self.first, strict=True)
        ]


class ExampleDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenised examples as items for the trainer and the collator."""

    def __init__(self, source: TrainingExamples) -> None:
        self._source = source
        self.examples = source.at(0)

    def enter(self, epoch: int) -> None:
        """Makes the items those of an epoch."""
        self.examples = self._source.at(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The example of a number; for `-1 - number` the same without anything supervised, to fill up a batch."""
        if index >= 0:
            return {"example": self.examples[index]}
        filler = self.examples[-1 - index]
        return {"example": replace(filler, labels=np.full_like(filler.labels, IGNORED))}
