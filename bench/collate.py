"""Batches of token sequences: packed or padded, with the graphs that they read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bench.attention import bounds_of, positions_of
from bench.batches import IGNORED, PackedSequences, PromptContext
from bench.layout import TokenisedExample
from encoders.base import MoleculeBatch
from encoders.store import FeatureStore
from encoders.store_levels import LevelStore


class Collator:
    """Makes batches for the model.

    Args:
        store: features of all molecules; None where the model reads no graph.
        padding: the id that fills up.
        with_context: whether the projector reads prompts.
        packs: whether sequences of a training batch lie in one row instead of a padded row each.
        levels: what a frozen encoder made of all molecules, read instead of their features; None to encode them.
    """

    def __init__(
        self,
        store: FeatureStore | None,
        padding: int,
        *,
        with_context: bool = False,
        packs: bool = False,
        levels: LevelStore | None = None,
    ) -> None:
        self.store = store
        self.padding = padding
        self.with_context = with_context
        self.packs = packs
        self.levels = levels

    def reading(self, levels: LevelStore) -> Collator:
        """The same, with batches of molecules that are encoded already."""
        return Collator(self.store, self.padding, with_context=self.with_context, packs=self.packs, levels=levels)

    def __call__(self, items: Sequence[Mapping[str, Any]], width: int = 0) -> dict[str, Any]:
        """A training batch, packed or right-padded; `input_ids` comes first, as the trainer expects."""
        examples: list[TokenisedExample] = [item["example"] for item in items]
        return self.training(examples, width)

    def training(self, examples: Sequence[TokenisedExample], width: int = 0) -> dict[str, Any]:
        """The same of examples; `width` is the least width of a row where they are padded."""
        if self.packs:
            return self._packed(examples)
        return self.batch(examples, lambda example: len(example.ids), side="right", width=width)

    def prompts(self, examples: Sequence[TokenisedExample], width: int = 0) -> dict[str, Any]:
        """A left-padded batch of prompts to generate from, padded at least to `width` tokens."""
        return self.batch(examples, lambda example: example.prompt_length, side="left", width=width)

    def batch(
        self,
        examples: Sequence[TokenisedExample],
        length_of: Callable[[TokenisedExample], int],
        side: str,
        width: int = 0,
    ) -> dict[str, Any]:
        """The first `length_of(example)` tokens of each example, padded to the longest or to a greater `width`."""
        lengths = [length_of(example) for example in examples]
        longest = max(*lengths, width)
        ids = np.full((len(examples), longest), self.padding, dtype=np.int64)
        labels = np.full((len(examples), longest), IGNORED, dtype=np.int64)
        mask = np.zeros((len(examples), longest), dtype=np.int64)
        soft = np.zeros((len(examples), longest), dtype=np.bool_)
        for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
            place = slice(0, length) if side == "right" else slice(longest - length, longest)
            ids[row, place] = example.ids[:length]
            labels[row, place] = example.labels[:length]
            mask[row, place] = 1
            soft[row, place] = example.soft[:length]
        supervised = np.flatnonzero((labels != IGNORED).any(axis=0))
        first_target = int(supervised[0]) if len(supervised) else 1
        starts = [longest * row + (longest - length if side == "left" else 0) for row, length in enumerate(lengths)]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.from_numpy(labels),
            "soft_positions": torch.from_numpy(np.flatnonzero(soft)),
            # The position before the first target predicts it, so its logits are the first that are needed.
            "logits_to_keep": longest - max(first_target - 1, 0),
            **self._graphs(examples, lengths, starts),
            "tokens": _tokens_learned_from(examples),
        }

    def _packed(self, examples: Sequence[TokenisedExample]) -> dict[str, Any]:
        """The examples one behind the other in a single row."""
        lengths = [len(example.ids) for example in examples]
        starts = np.cumsum([0, *lengths[:-1]])
        labels = np.concatenate([example.labels for example in examples])
        labels[starts] = IGNORED  # nothing stands before a first token to predict it
        targets = np.flatnonzero(labels != IGNORED)
        counts = np.diff(np.searchsorted(targets, [*starts, len(labels)]))
        packed = PackedSequences(
            tuple(lengths),
            bounds_of(lengths),
            positions_of(lengths),
            torch.from_numpy(targets - 1),
            torch.from_numpy(labels[targets]),
            torch.from_numpy(counts),
        )
        return {
            "input_ids": torch.from_numpy(np.concatenate([example.ids for example in examples]))[None],
            "labels": torch.from_numpy(labels)[None],
            "soft_positions": torch.from_numpy(np.flatnonzero(np.concatenate([example.soft for example in examples]))),
            "packed": packed,
            **self._graphs(examples, lengths, starts.tolist()),
            "tokens": _tokens_learned_from(examples),
        }

    def branched(self, groups: Sequence[Sequence[TokenisedExample]]) -> dict[str, Any]:
        """The examples of each group as one sequence, for a model that is packed: their prompt, and all answers to it.

        Args:
            groups: of examples that differ in their last answer alone, which alone is supervised.
        """
        firsts = [group[0] for group in groups]
        stems = [first.prompt_length for first in firsts]
        answers = [[example.ids[stem:] for example in group] for group, stem in zip(groups, stems, strict=True)]
        lengths = [stem + sum(map(len, ends)) for stem, ends in zip(stems, answers, strict=True)]
        starts = np.cumsum([0, *lengths[:-1]])
        places, targets, counts = [], [], []
        for group, stem, start in zip(groups, stems, starts.tolist(), strict=True):
            begin = start + stem
            for example in group:
                wanted = np.flatnonzero(example.labels[stem:] != IGNORED)
                # What comes first in an answer is predicted by the end of the prompt.
                places.append(np.where(wanted == 0, start + stem - 1, begin + wanted - 1))
                targets.append(example.labels[stem:][wanted])
                counts.append(len(wanted))
                begin += len(example.ids) - stem
        branches = tuple(tuple(map(len, ends)) for ends in answers)
        packed = PackedSequences(
            tuple(lengths),
            bounds_of(lengths),
            positions_of(lengths, branches),
            torch.from_numpy(np.concatenate(places)),
            torch.from_numpy(np.concatenate(targets)),
            torch.tensor(counts),
            branches,
        )
        prompts = [first.ids[:stem] for first, stem in zip(firsts, stems, strict=True)]
        rows = [np.concatenate([prompt, *ends]) for prompt, ends in zip(prompts, answers, strict=True)]
        soft = [
            start + np.flatnonzero(first.soft[: first.prompt_length])
            for first, start in zip(firsts, starts, strict=True)
        ]
        return {
            "input_ids": torch.from_numpy(np.concatenate(rows))[None],
            "soft_positions": torch.from_numpy(np.concatenate(soft)),
            "packed": packed,
            **self._graphs(firsts, stems, starts.tolist()),
        }

    def _graphs(
        self, examples: Sequence[TokenisedExample], lengths: Sequence[int], starts: Sequence[int]
    ) -> dict[str, Any]:
        """The molecules of a batch, and where their prompts are in the flattened sequence."""
        read = [
            (row, molecule)
            for row, (example, length) in enumerate(zip(examples, lengths, strict=True))
            for molecule, (_, end) in zip(example.molecules, example.places, strict=True)
            if end <= length
        ]
        with_context = self.with_context and self.store is not None and bool(read)
        return {
            "molecules": self._molecules([molecule for _, molecule in read]),
            "context": self._context(examples, lengths, starts, read) if with_context else None,
        }

    def _molecules(self, molecules: Sequence[str]) -> MoleculeBatch | None:
        if self.store is None or not molecules:
            return None
        if self.levels is not None:
            return MoleculeBatch(len(molecules), {}, self.store.keys(molecules), self.levels.encoding(molecules))
        return self.store.keyed(molecules)

    @staticmethod
    def _context(
        examples: Sequence[TokenisedExample],
        lengths: Sequence[int],
        starts: Sequence[int],
        read: Sequence[tuple[int, str]],
    ) -> PromptContext:
        """The prompts' text: what stands before the first supervised token of each example."""
        texts = []
        for example, length, start in zip(examples, lengths, starts, strict=True):
            answers = np.flatnonzero(example.labels[:length] != IGNORED)
            end = int(answers[0]) if len(answers) else length
            texts.append(start + np.flatnonzero(~example.soft[:end]))
        rows = np.array([row for row, _ in read], dtype=np.int64)
        return PromptContext(
            torch.from_numpy(np.concatenate(texts)),
            torch.tensor(list(map(len, texts))),
            torch.from_numpy(rows),
            tuple(examples[row].task for row, _ in read),
        )


def _tokens_learned_from(examples: Sequence[TokenisedExample]) -> int:
    """Tokens of the examples, without those that only fill up a batch and so have no label."""
    return sum(len(example.ids) for example in examples if (example.labels != IGNORED).any())
