"""Answers to prompts, kept line by line, so that a killed generation goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.collate import Collator, TokenisedExample
from bench.config import Generation
from bench.model import GraphLanguageModel
from bench.run_store import append_jsonl, read_jsonl
from bench.runtime import Runtime
from bench.trainer import on_device
from tasks.base import Prediction

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
) -> list[Prediction]:
    """The predictions of the wanted examples in their order; those that `file` already holds are not made again.

    Batches are formed from all examples sorted by length, whatever is already there, so that an answer does not depend
    on where a run was interrupted.

    Args:
        examples: laid out for the model.
        layout: the tokenizer and the collator.
        generation: how.
        parse: reads an answer.
        file: where they are kept.
        runtime: for the progress bar.
        wanted: ids of the examples that are answered, among others that batches are formed with; None for all.
        what: the progress bar says.
    """
    tokenizer, collator = layout
    wanted = {example.id for example in examples} if wanted is None else wanted
    done = {row["example_id"]: Prediction(**row) for row in read_jsonl(file)}
    by_length = sorted(examples, key=lambda example: (-example.prompt_length, example.id))
    starts = range(0, len(by_length), generation.batch_size)
    batches = [by_length[start : start + generation.batch_size] for start in starts]
    missing = [batch for batch in batches if any(example.id in wanted and example.id not in done for example in batch)]
    for batch in runtime.tracked(missing, what, len(missing)):
        answers = generate(model, tokenizer, collator.prompts(batch), generation)
        fresh = []
        for example, ids in zip(batch, answers, strict=True):
            if example.id in wanted and example.id not in done:
                done[example.id] = _prediction(parse, tokenizer, example, ids)
                fresh.append(asdict(done[example.id]))
        append_jsonl(file, fresh)
    return [done[example.id] for example in examples if example.id in wanted]


@torch.no_grad()
def generate(
    model: GraphLanguageModel, tokenizer: Any, batch: Mapping[str, Any], generation: Generation
) -> list[list[int]]:
    """New token ids of each prompt of a left-padded batch, the end token included where it was reached."""
    from transformers import GenerationConfig

    model.eval()
    batch = on_device(batch, model.token_embedding.weight.device)
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    made: Tensor = model.llm.generate(  # type: ignore[operator]
        inputs_embeds=model.embed(batch["input_ids"], batch["soft_positions"], batch["molecules"], batch["context"]),
        attention_mask=batch["attention_mask"],
        generation_config=GenerationConfig(
            do_sample=False,
            num_beams=generation.beams,
            max_new_tokens=generation.max_new_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding,
        ),
    )
    return [_until_end(ids, tokenizer.eos_token_id) for ids in made.tolist()]


def _until_end(ids: Sequence[int], end: int) -> list[int]:
    return list(ids[: ids.index(end) + 1]) if end in ids else list(ids)


def _prediction(parse: Parse, tokenizer: Any, example: TokenisedExample, ids: Sequence[int]) -> Prediction:
    raw = tokenizer.decode(ids, skip_special_tokens=True)
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
    answer = parse(example.id, raw)
    return Prediction(example.id, example.prompt_sha, raw, answer, len(ids), "eos" if ended else "length")
