"""Token by token from prompts, with the keys and values of what was read kept: the tokens of transformers' `generate`.

What is done otherwise costs less and changes no token. Answers of a batch end at different lengths, and rows whose
answer has ended are taken out of the cache when they are more than a quarter of it (transformers computes them until
the longest answer ends). The cache is not copied anew for each token. Beams of a prompt share its first pass. A model
for which this comes to other logits than its plain forward pass is left to transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bench.attention import is_close, tried_sequences
from bench.errors import NotFiniteError

GROWTH = 64
"""Tokens by which a cache is made longer at a time."""
_LEAST_ALIVE = 0.75  # share of a cache's rows that are still written; below it the others are taken out
_RULED_OUT = -1e9  # what is added to the score of a beam that may not be chosen, as transformers does


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are written.

    Args:
        longest, shortest: tokens of an answer, what ends it included; no end token is written before the shortest.
        ends: tokens each of which ends an answer.
        padding: what stands behind the end of an answer.
        beams: answers that are followed at once; 1 for the likeliest token each time.
        length_penalty: the power of an answer's length by which its log-likelihood is divided, where there are beams.
        choose: from the tokens so far `(B, t)` and scores `(B, V)` to scores whose largest is chosen.
        keep: told which rows of those that `choose` is given are given to it from now on.
        has_stopped: from tokens `(B, t)` to `(B,)` whether what they say ends the answer; None where only tokens do.
    """

    longest: int
    shortest: int
    ends: tuple[int, ...]
    padding: int
    beams: int
    length_penalty: float
    choose: Callable[[Tensor, Tensor], Tensor]
    keep: Callable[[Tensor], None]
    has_stopped: Callable[[Tensor], Tensor] | None

    def ruled_out(self, scores: Tensor, written: int) -> Tensor:
        """The scores without end tokens where answers would be too short."""
        if written < self.shortest and self.ends:
            scores[:, list(self.ends)] = -torch.inf
        return scores

    def ended(self, tokens: Tensor) -> Tensor:
        """`(B,)` whether answers `(B, t)` end with their last token."""
        ends = torch.tensor(self.ends, dtype=tokens.dtype, device=tokens.device)
        found = torch.isin(tokens[:, -1], ends)
        if tokens.shape[1] >= self.longest:
            found = torch.ones_like(found)
        return found if self.has_stopped is None else found | self.has_stopped(tokens)


def can_decode(llm: nn.Module) -> bool:
    """Whether rows can be taken out of what the model keeps of the tokens that it read, and repeated in it.

    It is tried, on random tokens: an architecture that keeps a state instead, or counts positions along the padded row,
    gives other logits than for each row alone, and is left to transformers.

    Args:
        llm: a causal language model of transformers, with or without adapters, whose weights are in place.
    """
    known = _KNOWN.get(llm)
    if known is None:
        training = llm.training
        llm.eval()
        try:
            known = _KNOWN[llm] = _is_same_in_rows(llm)
        except NotFiniteError:  # which says nothing of other weights
            known = False
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, NotImplementedError):
            known = _KNOWN[llm] = False
        finally:
            llm.train(training)
    return known


_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@torch.no_grad()
def decode(llm: nn.Module, embedded: Tensor, mask: Tensor, how: Decoding) -> list[list[int]]:
    """The answers to left-padded prompts, what ends them included where it was reached.

    Args:
        llm: a model that `can_decode`.
        embedded: `(B, L, d)` the prompts.
        mask: `(B, L)` 1 where they are not padding.
        how: answers are written.
    """
    rows = KeptRows(llm, embedded, mask)
    return _with_beams(rows, how) if how.beams > 1 else _one_by_one(rows, how)


def _one_by_one(rows: KeptRows, how: Decoding) -> list[list[int]]:
    count, device = rows.logits.shape[0], rows.logits.device
    written = torch.full((count, how.longest), how.padding, device=device)
    lengths = torch.full((count,), how.longest, device=device)
    places = torch.arange(count, device=device)  # of the cache's rows, in the batch
    alive = torch.ones(count, dtype=torch.bool, device=device)
    for step in range(how.longest):
        scores = how.ruled_out(rows.logits.float(), step)
        tokens = how.choose(written[places, :step], scores).argmax(dim=-1)
        tokens = tokens.where(alive, how.padding)
        written[places, step] = tokens
        ended = alive & how.ended(written[places, : step + 1])
        lengths[places[ended]] = step + 1
        alive &= ~ended
        left = int(alive.sum())
        if not left:
            break
        if left < _LEAST_ALIVE * len(places):
            kept = alive.nonzero().squeeze(1)
            rows.select(kept)
            how.keep(kept)
            places, alive, tokens = places[kept], alive[kept], tokens[kept]
        rows.read(tokens)
    return [ids[:length] for ids, length in zip(written.tolist(), lengths.tolist(), strict=True)]


def _with_beams(rows: KeptRows, how: Decoding) -> list[list[int]]:
    """Beam search as transformers has it (`_beam_search`, with `early_stopping` off).

    Of each prompt the likeliest continuations of its open beams are looked at. Of those that are among the first
    `beams` and end, the best by score are kept as answers; of those that do not end, the likeliest stay open. A prompt
    is through when its likeliest open beam scores less at its present length than the worst of its answers.
    """
    count, device = rows.logits.shape[0], rows.logits.device
    beams = how.beams
    looked_at = max(2, 1 + len(how.ends)) * beams  # as many may end, and enough are left to go on with
    open_beams = torch.full((count, beams, how.longest), how.padding, device=device)
    open_scores = torch.zeros(count, beams, device=device)
    open_scores[:, 1:] = _RULED_OUT  # at first all beams of a prompt are the same one
    answers = _Answers.none(count, beams, how, device)
    best: dict[int, list[int]] = {}
    places = list(range(count))
    for step in range(how.longest):
        likelihoods = how.ruled_out(torch.log_softmax(rows.logits.float(), dim=-1), step)
        if step == 0:  # the prompts were read once each
            likelihoods = likelihoods.repeat_interleave(beams, dim=0)
        likelihoods = how.choose(open_beams.flatten(0, 1)[:, :step], likelihoods)
        words = likelihoods.shape[-1]
        sums = likelihoods.view(-1, beams, words) + open_scores[:, :, None]
        scores, found = sums.flatten(1).topk(looked_at)
        beam_of = found // words
        tried = _taken(open_beams, beam_of)
        tried[:, :, step] = found % words
        ended = how.ended(tried[:, :, : step + 1].flatten(0, 1)).view(-1, looked_at)

        still_open = scores + ended.float() * _RULED_OUT
        going_on = still_open.topk(beams)[1]
        open_beams, open_scores = _taken(tried, going_on), still_open.gather(1, going_on)
        answers = answers.with_those_of(tried, scores, ended, step + 1, how)
        answers.hope(open_scores, step + 1, how)
        hopeful = answers.is_hopeful.squeeze(1)
        if not bool(hopeful.any()) or bool(ended.all()):
            break

        rows_of = beam_of.gather(1, going_on) + beams * torch.arange(len(places), device=device)[:, None]
        tokens = open_beams[:, :, step]
        if int(hopeful.sum()) < _LEAST_ALIVE * len(places):
            for number, ids in zip((~hopeful).nonzero().squeeze(1).tolist(), answers.best(~hopeful), strict=True):
                best[places[number]] = ids
            kept = hopeful.nonzero()
            how.keep((beams * kept + torch.arange(beams, device=device)).flatten())
            places = [places[number] for number in kept.squeeze(1).tolist()]
            open_beams, open_scores = open_beams[hopeful], open_scores[hopeful]
            answers, rows_of, tokens = answers.of(hopeful), rows_of[hopeful], tokens[hopeful]
        chosen = rows_of.flatten()
        rows.select(chosen // beams if step == 0 else chosen)
        rows.read(tokens.flatten())
    best.update(zip(places, answers.best(torch.ones(len(places), dtype=torch.bool, device=device)), strict=True))
    return [best[number] for number in range(count)]


@dataclass(slots=True)
class _Answers:
    """The best answers found of each prompt, best first.

    Args:
        tokens: `(B, beams, longest)`.
        lengths: `(B, beams)`.
        scores: `(B, beams)` log-likelihoods divided by a power of the length.
        are_whole: `(B, beams)` False where nothing has ended yet.
        is_hopeful: `(B, 1)` whether better ones may be found.
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    are_whole: Tensor
    is_hopeful: Tensor

    @classmethod
    def none(cls, count: int, beams: int, how: Decoding, device: torch.device) -> _Answers:
        return cls(
            torch.full((count, beams, how.longest), how.padding, device=device),
            torch.zeros(count, beams, dtype=torch.int64, device=device),
            torch.full((count, beams), _RULED_OUT, device=device),
            torch.zeros(count, beams, dtype=torch.bool, device=device),
            torch.ones(count, 1, dtype=torch.bool, device=device),
        )

    def with_those_of(self, tried: Tensor, scores: Tensor, ended: Tensor, length: int, how: Decoding) -> _Answers:
        """The best of these answers and of the continuations that have just ended."""
        counts = torch.arange(ended.shape[1], device=ended.device) < how.beams
        new = ended & counts
        scored = scores / length**how.length_penalty
        scored = scored + (~self.is_hopeful).float() * _RULED_OUT
        scored = scored + (~new).float() * _RULED_OUT
        all_scores = torch.cat([self.scores, scored], dim=1)
        best = all_scores.topk(how.beams)[1]
        lengths = torch.cat([self.lengths, torch.full_like(ended, length, dtype=torch.int64)], dim=1)
        return _Answers(
            _taken(torch.cat([self.tokens, tried], dim=1), best),
            lengths.gather(1, best),
            all_scores.gather(1, best),
            torch.cat([self.are_whole, new], dim=1).gather(1, best),
            self.is_hopeful,
        )

    def hope(self, open_scores: Tensor, length: int, how: Decoding) -> None:
        """Takes note of prompts whose open beams will not give a better answer; they never will again."""
        reachable = open_scores[:, :1] / length**how.length_penalty
        worst = torch.where(self.are_whole, self.scores.min(dim=1, keepdim=True)[0], _RULED_OUT)
        self.is_hopeful = self.is_hopeful & (reachable > worst).any(dim=-1, keepdim=True)

    def of(self, prompts: Tensor) -> _Answers:
        """Those of the prompts `(B,)` that are marked."""
        return _Answers(
            *(t[prompts] for t in (self.tokens, self.lengths, self.scores, self.are_whole, self.is_hopeful))
        )

    def best(self, prompts: Tensor) -> list[list[int]]:
        """The best answer of each of the prompts `(B,)` that are marked."""
        found = zip(self.tokens[prompts, 0].tolist(), self.lengths[prompts, 0].tolist(), strict=True)
        return [ids[:length] for ids, length in found]


def _taken(tensor: Tensor, places: Tensor) -> Tensor:
    """The `(B, k, L)` that stand at places `(B, k)` of `(B, n, L)`."""
    return tensor.gather(1, places[:, :, None].expand(-1, -1, tensor.shape[2]))


class KeptRows:
    """Left-padded rows that a model has read, to which tokens are added.

    Args:
        llm: the model.
        embedded: `(B, L, d)`.
        mask: `(B, L)` 1 where there is no padding.

    Attributes:
        logits: `(B, V)` of what comes next.
    """

    def __init__(self, llm: nn.Module, embedded: Tensor, mask: Tensor) -> None:
        # Adapters are in the model's own layers; what peft puts around it is for other kinds of them.
        self._llm: Any = llm.get_base_model() if hasattr(llm, "get_base_model") else llm  # type: ignore[operator]
        self._cache = _cache_of(self._llm)
        self._told = {"use_cache": True, "past_key_values": self._cache}
        known = signature(self._llm.forward).parameters
        if "logits_to_keep" in known:
            self._told["logits_to_keep"] = 1
        self._takes_positions = "position_ids" in known
        self._mask = None if bool(mask.all()) else mask
        positions = (mask.long().cumsum(-1) - 1).masked_fill(mask == 0, 0)
        self._positions = positions[:, -1:]
        self.logits = self._next(inputs_embeds=embedded, positions=positions)

    def read(self, tokens: Tensor) -> None:
        """Adds a token `(B,)` to each row."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._positions = self._positions + 1
        self.logits = self._next(input_ids=tokens[:, None], positions=self._positions)

    def select(self, rows: Tensor) -> None:
        """Makes the rows of these numbers the rows; one may be there twice."""
        self._cache.reorder_cache(rows)
        self._positions = self._positions[rows]
        self._mask = None if self._mask is None else self._mask[rows]

    def _next(self, positions: Tensor, **read: Tensor) -> Tensor:
        told = {**self._told, "position_ids": positions} if self._takes_positions else self._told
        logits: Tensor = self._llm(**read, attention_mask=self._mask, **told).logits
        return logits[:, -1]


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's keys and values, with room for tokens to come: transformers' own copies all of them for each token."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes it empty, for rows and heads as these `(B, H, L, d)` have them."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self._buffers = tuple(states[:, :, :0] for states in (key_states, value_states))
        self.keys, self.values = self._buffers
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens, and gives all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, after = self.keys.shape[2], self.keys.shape[2] + key_states.shape[2]
        if after > self._buffers[0].shape[2]:
            self._buffers = tuple(_longer(held, after + GROWTH) for held in (self.keys, self.values))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = states
        self._show(after)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Makes the rows of these numbers the rows."""
        length = self.keys.shape[2]
        self._buffers = tuple(buffer.index_select(0, beam_idx) for buffer in self._buffers)
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _longer(held: Tensor, length: int) -> Tensor:
    made = held.new_empty(held.shape[0], held.shape[1], length, held.shape[3])
    made[:, :, : held.shape[2]] = held
    return made


def _cache_of(llm: Any) -> DynamicCache:
    """An empty cache as transformers makes it for the model, of layers with room.

    Raises:
        NotImplementedError: a layer keeps something else than the keys and values of tokens.
    """
    cache = DynamicCache(config=copy.copy(llm.config).get_text_config(decoder=True))
    kinds = {type(layer) for layer in cache.layers}
    if not kinds or not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        raise NotImplementedError(f"a cache of {', '.join(sorted(kind.__name__ for kind in kinds)) or 'no layers'}")
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@torch.no_grad()
def _is_same_in_rows(llm: nn.Module) -> bool:
    """Whether padded rows that are read token by token, cut and repeated have the logits that each has alone.

    Raises:
        NotFiniteError: these are no numbers.
    """
    table = llm.get_input_embeddings()  # type: ignore[operator]
    sequences = tried_sequences(llm)
    longest = max(map(len, sequences))
    embedded = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in sequences])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in sequences], device=embedded.device)
    rows = KeptRows(llm, embedded, mask)
    for selected in (range(len(sequences)), (2, 0), (1, 1, 0)):
        chosen = torch.tensor(list(selected), device=embedded.device)
        rows.select(chosen)
        tokens = torch.arange(1, len(chosen) + 1, device=embedded.device) % table.num_embeddings
        rows.read(tokens)
        sequences = [torch.cat([sequences[n], table(t[None])]) for n, t in zip(selected, tokens, strict=True)]
        apart = torch.stack([llm(inputs_embeds=row[None], use_cache=False).logits[0, -1] for row in sequences])
        if not bool(apart.isfinite().all()):
            raise NotFiniteError("the model gives tokens logits that are NaN or infinite")
        if not is_close(rows.logits, apart):
            return False
    return True
