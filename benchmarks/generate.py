"""Captions written token by token, and how likely labels are, against what transformers offers for both.

The reference is a batch of 16 prompts in file order, left-padded to the longest, as the published evaluations ask them
(InstructMol and MolCA with batches of 4, which is slower). The language model is a Llama of random weights, which would
not end its answers, so both sides are made to end each where ChEBI-20's own caption ends. What ours does otherwise:
prompts are sorted by length, as `predict` sorts them, and `bench.decoding`.

Of labels the references are 10 tokens that `generate` writes, and a padded forward pass for each label with logits of
every position; ours is `bench.candidates`, which reads each prompt once for all labels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.batches import IGNORED
from bench.candidates import likelihoods_of_answers
from bench.collate import Collator
from bench.decoding import Decoding, can_decode, decode
from bench.layout import Layout, TokenisedExample
from bench.model import GraphLanguageModel
from benchmarks.measure import Result, compare
from benchmarks.training_step import question, set_up

_LEAST = {1: 0.95, 5: 1.2}
_LEAST_OF_LABELS = {"transformers'": 0.85, "a": 2.0}
_PROMPTS = {1: 64, 5: 16}
_BATCH = 16
_LONGEST = 256
_QUESTIONS = 64
_LABELS = ("Yes.", "No.")
_WRITTEN = 10
_WITHIN = 1e-4


def run(rounds: int) -> Iterator[Result]:
    """Greedy answers, and beams."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model, layout, examples = set_up(Path(folder), lora=None)
        model.eval()
        assert can_decode(model.llm)
        collator = Collator(layout.store, layout.padding, packs=True)
        for beams, least in _LEAST.items():
            yield _captions(model, collator, examples[: _PROMPTS[beams]], beams, rounds, least)
        yield from _labels(model, collator, layout, rounds)


def _captions(
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
        is_warm=True,
    )


def _labels(model: GraphLanguageModel, collator: Collator, layout: Layout, rounds: int) -> Iterator[Result]:
    """The likelihoods of both answers to questions of yes or no."""
    molecules = list(layout.store.row_of)[:_QUESTIONS]
    asked = [question(number, smiles, label) for number, smiles in enumerate(molecules) for label in _LABELS]
    examples = layout.tokenise(asked)
    padded = Collator(layout.store, layout.padding)
    firsts = examples[:: len(_LABELS)]
    task = _Task(model, collator, 1)

    def ours() -> Tensor:
        found = dict(likelihoods_of_answers(model, examples, collator, _BATCH))
        return torch.tensor([found[place] for place in range(len(examples))]).view(-1, len(_LABELS))

    @torch.no_grad()
    def forward_each() -> Tensor:
        columns = []
        for column in range(len(_LABELS)):
            chosen = examples[column :: len(_LABELS)]
            totals = []
            for first in range(0, len(chosen), _BATCH):
                batch = padded.training(chosen[first : first + _BATCH])
                embedded = model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
                logits = model.llm(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).logits[:, :-1]
                targets = batch["labels"][:, 1:]
                likelihoods = logits.log_softmax(-1).gather(-1, targets.clamp(min=0)[:, :, None]).squeeze(-1)
                totals += (likelihoods * (targets != IGNORED)).sum(dim=1).tolist()
            columns.append(torch.tensor(totals))
        return torch.stack(columns, dim=1)

    one, other = ours(), forward_each()
    assert float((one - other).abs().max()) <= _WITHIN, float((one - other).abs().max())
    assert torch.equal(one.argmax(dim=1), other.argmax(dim=1))
    equal = f"likelihoods of {one.numel()} answers within {_WITHIN:g}, and which is the likeliest"
    for reference, theirs in (
        (f"transformers' generate of {_WRITTEN} tokens", lambda: task.theirs(firsts, length=_WRITTEN)),
        ("a forward pass for each", forward_each),
    ):
        yield compare(
            ours,
            theirs,
            rounds=rounds,
            count=len(firsts),
            case=f"likelihoods of {len(_LABELS)} labels",
            reference=reference,
            unit="questions",
            equal=equal,
            least=_LEAST_OF_LABELS[reference.partition(" ")[0]],
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

    def theirs(self, examples: Sequence[TokenisedExample], length: int | None = None) -> dict[str, list[int]]:
        """By transformers; if a length is given, so many tokens of each."""
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

        return self._answers(examples, write, length)

    @torch.no_grad()
    def _answers(
        self, examples: Sequence[TokenisedExample], write: Any, length: int | None = None
    ) -> dict[str, list[int]]:
        answers: dict[str, list[int]] = {}
        for first in range(0, len(examples), _BATCH):
            chunk = examples[first : first + _BATCH]
            batch = self.collator.prompts(chunk)
            embedded = self.model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"])
            lengths = [length or len(example.ids) - example.prompt_length for example in chunk]
            ending = _Ending(lengths, int(chunk[0].ids[-1]), self.beams)
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
