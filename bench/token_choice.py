"""How the next token is chosen, as steps of transformers' generation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper

from bench.errors import NotFiniteError


class RefusingNaN(LogitsProcessor):  # type: ignore[misc]
    """Stops where a logit is no number: the likeliest token would be one of no meaning, and be scored as an answer."""

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """The scores `(B, V)` as they are; `-inf` only rules a token out.

        Raises:
            NotFiniteError: one is NaN or plus infinity.
        """
        if not bool((scores < torch.inf).all()):
            raise NotFiniteError("the model gives tokens logits that are NaN or infinite")
        return scores


class Drawing(LogitsProcessor):  # type: ignore[misc]
    """Draws the next token of each row; the token that was drawn is then the one of the highest score.

    It is what `torch.multinomial` does for one draw: divide probabilities by exponentially distributed numbers and take
    the largest. Doing it here lets a piece of a batch have the very numbers that its rows have in the whole batch.

    Args:
        temperature: logits are divided by it.
        top_k: as many of the likeliest tokens are drawn from; 0 for all.
        seed: of the random numbers.
        first, total: the first of the batch's rows that is here, and how many it has.
        device: where numbers are drawn.
    """

    def __init__(self, temperature: float, top_k: int, seed: int, first: int, total: int, device: torch.device) -> None:
        self._warpers = [TemperatureLogitsWarper(float(temperature)), *([TopKLogitsWarper(top_k)] if top_k else [])]
        self._generator = torch.Generator(device).manual_seed(seed)
        self._rows, self._total = torch.arange(first, total, device=device), total

    def keep(self, rows: Tensor) -> None:
        """From now on only these of the rows that were here are; they are given the numbers that they always are."""
        self._rows = self._rows[rows]

    def __call__(self, input_ids: Any, scores: Tensor) -> Tensor:
        """Scores `(B, V)` to such whose largest is the token drawn."""
        for warp in self._warpers:
            scores = warp(input_ids, scores)
        probabilities = torch.softmax(scores, dim=-1)
        numbers = torch.empty(self._total, scores.shape[1], dtype=probabilities.dtype, device=probabilities.device)
        numbers.exponential_(1, generator=self._generator)
        return probabilities / numbers[self._rows[: len(scores)]]
