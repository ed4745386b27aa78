"""Captions written token by token, against transformers' `generate`: the same tokens in less time.

The reference is a batch of 16 prompts in file order, left-padded to the longest, as the published evaluations ask them
(InstructMol and MolCA with batches of 4, which is slower). The language model is a Llama of random weights, which would
not end its answers, so both sides are made to end each where ChEBI-20's own caption ends. What ours does otherwise:
prompts are sorted by length, as `predict` sorts them, and `bench.decoding`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.collate import Collator
from bench.decoding import Decoding, can_decode, decode
from bench.layout import TokenisedExample
from bench.model import GraphLanguageModel
from benchmarks.measure import Result, compare
from benchmarks.training_step import set_up

_LEAST = {1: 0.95, 5: 0.95}
_PROMPTS = {1: 64, 5: 16}
_BATCH = 16
_LONGEST = 256


def run(rounds: int) -> Iterator[Result]:
    """Greedy answers, and beams."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, (_, collator), examples = set_up(Path(folder), lora=None)
        model.eval()
        assert can_decode(model.llm)
        for beams, least in _LEAST.items():
            yield _compared(model, collator, examples[: _PROMPTS[beams]], beams, rounds, least)


def _compared(
    model: GraphLanguageModel,
    collator: Collator,
    examples: Sequence[TokenisedExample],
    beams: int,
    rounds: int,
    least: float,
) -> Result:
    task = _Task(model, collator, beams)
    by_length = sorted(examples, key=lambda example: (-example.prompt_length, example.id))
    ours, theirs = task.ours(by_length), task.theirs(examples)
    assert ours == theirs
    assert {len(ids) for ids in ours.values()} <= set(range(1, _LONGEST + 1))
    how = "greedy" if beams == 1 else f"{beams} beams"
    return compare(
        lambda: task.ours(by_length),
        lambda: task.theirs(examples),
        rounds=rounds,
        count=sum(map(len, ours.values())),
        case=f"captions, {how}",
        reference=f"transformers' generate, {_BATCH} prompts in file order",
        unit="tokens",
        equal=f"all tokens of {len(examples)} answers",
        least=least,
    )


@dataclass(frozen=True)
class _Task:
    """Answers of given lengths to prompts.

    Args:
        model: which.
        collator: makes batches.
        beams: 1 for greedy answers.
    """

    model: GraphLanguageModel
    collator: Collator
    beams: int

    def ours(self, examples: Sequence[TokenisedExample]) -> dict[str, list[int]]:
        """By our own loop."""

        def write(embedded: Tensor, mask: Tensor, ending: _Ending) -> list[list[int]]:
            how = Decoding(
                longest=_LONGEST,
                shortest=0,
                ends=(ending.end,),
                padding=self.collator.padding,
                beams=self.beams,
                length_penalty=1.0,
                choose=ending,
                keep=ending.keep,
                has_stopped=None,
            )
            return decode(self.model.llm, embedded, mask, how)

        return self._answers(examples, write)

    def theirs(self, examples: Sequence[TokenisedExample]) -> dict[str, list[int]]:
        """By transformers."""
        from transformers import GenerationConfig, LogitsProcessorList

        def write(embedded: Tensor, mask: Tensor, ending: _Ending) -> list[list[int]]:
            made: list[list[int]] = self.model.llm.generate(  # type: ignore[operator]
                inputs_embeds=embedded,
                attention_mask=mask,
                logits_processor=LogitsProcessorList([ending]),
                generation_config=GenerationConfig(
                    do_sample=False,
                    num_beams=self.beams,
                    max_new_tokens=_LONGEST,
                    eos_token_id=ending.end,
                    pad_token_id=self.collator.padding,
                ),
            ).tolist()
            return [ids[: ids.index(ending.end) + 1] for ids in made]

        return self._answers(examples, write)

    @torch.no_grad()
    def _answers(self, examples: Sequence[TokenisedExample], write: Any) -> dict[str, list[int]]:
        answers: dict[str, list[int]] = {}
        for first in range(0, len(examples), _BATCH):
            chunk = examples[first : first + _BATCH]
            batch = self.collator.prompts(chunk)
            embedded = self.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
            ending = _Ending([len(e.ids) - e.prompt_length for e in chunk], int(chunk[0].ids[-1]), self.beams)
            made = write(embedded, batch["attention_mask"], ending)
            answers |= {example.id: ids for example, ids in zip(chunk, made, strict=True)}
        return answers


class _Ending:
    """Makes answers end at given lengths, and not before.

    Args:
        lengths: of the answers.
        end: the end token.
        beams: scores of so many rows are given for each answer.
    """

    def __init__(self, lengths: Sequence[int], end: int, beams: int) -> None:
        self.lengths = torch.tensor([min(length, _LONGEST) for length in lengths]).repeat_interleave(beams)
        self.end = end

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `(B, V)` behind tokens `(B, t)`."""
        written = ids.shape[1]
        now = self.lengths == written + 1
        scores = scores.clone()
        scores[~now, self.end] = -torch.inf
        scores[now] = scores[now].where(torch.arange(scores.shape[1]) == self.end, -torch.inf)
        return scores

    def keep(self, rows: Tensor) -> None:
        """Only these rows are given from now on."""
        self.lengths = self.lengths[rows]
