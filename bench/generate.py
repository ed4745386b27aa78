"""Answers to prompts, kept line by line, so that a killed generation goes on where it stopped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench.collate import Collator
from bench.config import Generation
from bench.decoding import Decoding, can_decode, decode
from bench.identity import derived_seed
from bench.layout import TokenisedExample, end_ids
from bench.merging import adapters_merged
from bench.model import GraphLanguageModel
from bench.pieces import pieces_of
from bench.run_store import append_jsonl, read_jsonl
from bench.runtime import Runtime
from bench.trainer import on_device
from tasks.base import Prediction

if TYPE_CHECKING:
    from bench.token_choice import Drawing, RefusingNaN

Parse = Callable[[str, str], str | None]
"""From an example's id and a raw generation to the answer in it, or None where it cannot be read as one."""


def predict(
    model: GraphLanguageModel,
    examples: Sequence[TokenisedExample],
    layout: tuple[Any, Collator],
    generation: Generation,
    parse: Parse,
    file: Path,
    runtime: Runtime,
    *,
    wanted: Collection[str] | None = None,
    what: str = "generating",
    seed: int = 0,
) -> list[Prediction]:
    """The predictions of the wanted examples in their order; those that `file` already holds are not made again.

    Batches are formed from all examples sorted by length, whatever is already there, and each draws its random numbers
    from its own seed, so that an answer does not depend on where a run was interrupted. A batch that is computed in
    pieces keeps its padding and its random numbers.

    Args:
        examples: laid out for the model.
        layout: the tokenizer and the collator.
        generation: how.
        parse: reads an answer.
        file: where they are kept.
        runtime: for the progress bar, and how many prompts are computed at once.
        wanted: ids of the examples that are answered, among others that batches are formed with; None for all.
        what: the progress bar says.
        seed: of the run, where answers are drawn.
    """
    tokenizer, collator = layout
    wanted = {example.id for example in examples} if wanted is None else wanted
    done = {row["example_id"]: Prediction(**row) for row in read_jsonl(file)}
    by_length = sorted(examples, key=lambda example: (-example.prompt_length, example.id))
    starts = range(0, len(by_length), generation.batch_size)
    batches = [by_length[start : start + generation.batch_size] for start in starts]
    missing = [batch for batch in batches if any(example.id in wanted and example.id not in done for example in batch)]
    for batch in runtime.tracked(missing, what, len(missing)):
        answer_end, drawn = batch[0].answer_end, derived_seed(seed, f"generation/{batch[0].id}")
        ends = _single_ends(tokenizer, answer_end)
        width, first = max(example.prompt_length for example in batch), 0
        for piece in pieces_of(batch, runtime.asking_micro_batch):
            rows, first = Rows(first, len(batch)), first + len(piece)
            left = {example.id for example in piece if example.id in wanted and example.id not in done}
            if not left:
                continue
            prompts = collator.prompts(piece, width)
            answers = generate(model, tokenizer, prompts, generation, answer_end=answer_end, seed=drawn, rows=rows)
            for example, ids in zip(piece, answers, strict=True):
                if example.id in left:
                    done[example.id] = _prediction(parse, tokenizer, example, ids, ends)
            append_jsonl(file, [asdict(done[example.id]) for example in piece if example.id in left])
    return [done[example.id] for example in examples if example.id in wanted]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where a piece stands in the batch that it was cut from.

    Args:
        first: of the batch's rows.
        total: rows of the batch.
    """

    first: int
    total: int


@torch.no_grad()
def generate(
    model: GraphLanguageModel,
    tokenizer: Any,
    batch: Mapping[str, Any],
    generation: Generation,
    *,
    answer_end: str = "",
    seed: int = 0,
    rows: Rows | None = None,
) -> list[list[int]]:
    """New token ids of each prompt of a left-padded batch, what ends the answer included where it was reached.

    Tokens that are drawn are drawn from the whole distribution: transformers would leave all but the 50 likeliest out.

    Args:
        model, tokenizer: which, with its tokenizer.
        batch: as the collator makes it of prompts.
        generation: how.
        answer_end: the text that ends an answer beside the tokenizer's end token, if any.
        seed: of the numbers by which tokens are drawn.
        rows: which rows of a larger batch these are; they are given the random numbers that they have in it.

    Raises:
        NotFiniteError: the model gives a token a logit that is no number.
    """
    from bench.token_choice import Drawing, RefusingNaN

    model.eval()
    device = model.token_embedding.weight.device
    batch = on_device(batch, device)
    drawing = None
    if generation.temperature:
        place = rows or Rows(0, len(batch["input_ids"]))
        drawing = Drawing(generation.temperature, generation.top_k, seed, place.first, place.total, device)
    how = _Choice(generation, tokenizer, answer_end, tuple(_single_ends(tokenizer, answer_end)), RefusingNaN(), drawing)
    embedded = model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"], batch["context"])
    write = by_ourselves if can_decode(model.llm) else by_transformers
    with adapters_merged(model.llm):
        made = write(model.llm, embedded, batch["attention_mask"], how)
    return [_until_end(ids, how.ends, tokenizer, answer_end) for ids in made]


@dataclass(frozen=True, slots=True)
class _Choice:
    """How answers are written.

    Args:
        generation: as it was asked for.
        tokenizer: of the model.
        answer_end: the text that ends an answer, if any.
        ends: the tokens each of which ends one.
        refusing: looks at logits.
        drawing: where tokens are drawn.
    """

    generation: Generation
    tokenizer: Any
    answer_end: str
    ends: tuple[int, ...]
    refusing: RefusingNaN
    drawing: Drawing | None

    @property
    def padding(self) -> int:
        """What stands behind the end of an answer."""
        tokenizer = self.tokenizer
        return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)

    @property
    def beams(self) -> int:
        """How many are followed; where tokens are drawn, one."""
        return 1 if self.drawing is not None else self.generation.beams

    @property
    def stops_by_text(self) -> bool:
        """Whether no token stands for the answer's end, but several."""
        return bool(self.answer_end) and len(end_ids(self.tokenizer, self.answer_end)) > 1


def by_ourselves(llm: nn.Module, embedded: Tensor, mask: Tensor, how: _Choice) -> list[list[int]]:
    """New tokens of prompts `(B, L, d)`, by our own loop."""
    from transformers import StopStringCriteria

    refusing, drawing = how.refusing, how.drawing
    stopping = StopStringCriteria(how.tokenizer, [how.answer_end]) if how.stops_by_text else None

    def choose(ids: Tensor, scores: Tensor) -> Tensor:
        scores = refusing(ids, scores)
        return scores if drawing is None else drawing(ids, scores)

    decoding = Decoding(
        longest=how.generation.max_new_tokens,
        shortest=how.generation.min_new_tokens,
        ends=how.ends,
        padding=how.padding,
        beams=how.beams,
        length_penalty=how.generation.length_penalty,
        choose=choose,
        keep=lambda rows: None if drawing is None else drawing.keep(rows),
        has_stopped=None if stopping is None else lambda ids: stopping(ids, None),
    )
    return decode(llm, embedded, mask, decoding)


def by_transformers(llm: nn.Module, embedded: Tensor, mask: Tensor, how: _Choice) -> list[list[int]]:
    """The same by transformers, with padding behind answers that have ended."""
    from transformers import GenerationConfig, LogitsProcessorList

    beams = {"length_penalty": how.generation.length_penalty} if how.beams > 1 else {}
    stops = {"stop_strings": [how.answer_end], "tokenizer": how.tokenizer} if how.stops_by_text else {}
    made: Tensor = llm.generate(  # type: ignore[operator]
        inputs_embeds=embedded,
        attention_mask=mask,
        logits_processor=LogitsProcessorList([how.refusing, *([how.drawing] if how.drawing else [])]),
        generation_config=GenerationConfig(
            do_sample=False,  # where tokens are drawn, the likeliest of what is drawn
            num_beams=how.beams,
            **beams,
            max_new_tokens=how.generation.max_new_tokens,
            min_new_tokens=how.generation.min_new_tokens or None,
            bos_token_id=how.tokenizer.bos_token_id,
            eos_token_id=list(how.ends) or None,
            pad_token_id=how.padding,
        ),
        **stops,
    )
    answers: list[list[int]] = made.tolist()
    return answers


def _single_ends(tokenizer: Any, answer_end: str) -> list[int]:
    """The tokens each of which ends an answer: the tokenizer's end token, and the one that `answer_end` is."""
    found = [ids[0] for text in dict.fromkeys(("", answer_end)) if len(ids := end_ids(tokenizer, text)) == 1]
    return list(dict.fromkeys(found))


def _until_end(ids: Sequence[int], ends: Collection[int], tokenizer: Any, answer_end: str) -> list[int]:
    """The ids up to the first at which the answer has ended.

    The text that ends it may stand in the middle of a token (a full stop and a line break may be one), or in several.
    """
    kept = next((place + 1 for place, token in enumerate(ids) if token in ends), len(ids))
    if not answer_end:
        return list(ids[:kept])

    def has_ended(count: int) -> bool:
        return answer_end in tokenizer.decode(ids[:count], skip_special_tokens=True)

    return list(ids[: bisect_left(range(kept), True, key=has_ended)])


def _prediction(
    parse: Parse, tokenizer: Any, example: TokenisedExample, ids: Sequence[int], ends: Collection[int]
) -> Prediction:
    raw = tokenizer.decode(ids, skip_special_tokens=True)
    ended = bool(ids) and ids[-1] in ends
    if example.answer_end and example.answer_end in raw:
        raw, ended = raw.partition(example.answer_end)[0], True
    answer = parse(example.id, raw)
    return Prediction(example.id, example.prompt_sha, raw, answer, len(ids), "eos" if ended else "length")
