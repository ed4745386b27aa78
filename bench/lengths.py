"""How long the sequences of a stage are, from a sample of its examples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.batches import IGNORED
from bench.collate import Collator
from bench.config import RunConfig
from bench.layout import Layout, TokenisedExample
from bench.reading import subset
from encoders.store import FeatureStore
from tasks.base import Example
from tasks.prompts import PromptStyle, TextInput, UnwritableMoleculeError

SAMPLE = 256
"""Examples of a stage that are laid out to see how long they are, chosen by a hash of their ids."""

_DEVIATIONS = 4.0  # one batch in 30,000 is heavier, were lengths normal
_CORPUS = 1000  # examples that a tokenizer is made from, where the run would make one of all


@dataclass(frozen=True, slots=True)
class Lengths:
    """Positions of sequences, soft tokens included.

    Args:
        longest: of the longest batch; in it, logits of the `kept` last positions are computed.
        mean: of single examples.
        prompt: of the longest prompt.
        packed: of each sequence of a batch that is about as long as any when packed, and the supervised tokens in it.
        examples: that this was measured on; 0 where `llm.max_length` is taken for all.
    """

    longest: int
    kept: int
    mean: float
    prompt: int
    packed: tuple[tuple[int, ...], int]
    examples: int = 0


def assumed(config: RunConfig, batch: int) -> Lengths:
    """The greatest lengths that there can be, where nothing can be measured."""
    most = config.llm.max_length
    return Lengths(most, most, float(most), most, ((most,) * batch, most * batch))


def measured(
    config: RunConfig,
    examples: Sequence[Example],
    tokenizer: Any,
    batch: int,
    written: tuple[PromptStyle, TextInput],
    *,
    grouped: bool = False,
) -> Lengths:
    """The lengths of a sample of the examples in batches of so many.

    Args:
        config: the run.
        examples: of one part of it, such as a stage.
        tokenizer: of the language model, or one like it.
        batch: examples of one forward pass.
        written: prompt and text input.
        grouped: whether batches are made of examples of similar length.

    Raises:
        EncoderError, TaskError: examples cannot be featurised or written here.
    """
    sample = subset(examples, SAMPLE)
    molecules = [molecule for example in sample for molecule in example.molecules]
    places = config.projector.places_tokens
    with TemporaryDirectory() as folder:
        schemes = config.encoder.features() if places else ()
        store = FeatureStore.open_or_build(Path(folder), schemes, molecules if places else ())
        usable = [e for e in sample if not any(molecule in store.rejected for molecule in e.molecules)]
        layout = Layout(tokenizer, *written, config.encoder, config.projector, store, config.llm.max_length)
        usable = [example for example in usable if _is_writable(layout, example)]
        tokenised = [layout.truncated(t) for t in layout.tokenise(usable) if layout.fits(t)]
        collator = Collator(None, layout.padding)
        batches = [tokenised[start : start + batch] for start in range(0, len(tokenised), batch)]
        made = [collator.batch(items, _length, side="right") for items in batches]
    if not made:
        return assumed(config, batch)
    longest, kept = (max(values) for values in zip(*map(_extent, made), strict=True))
    lengths = [len(t.ids) for t in tokenised]
    targets = [int((t.labels != IGNORED).sum()) for t in tokenised]
    packed = (math.ceil(_heaviest(lengths, batch, grouped) / batch),) * batch, _heaviest(targets, batch, grouped)
    prompt = max(t.prompt_length for t in tokenised)
    return Lengths(longest, kept, sum(lengths) / len(lengths), prompt, packed, len(tokenised))


def _heaviest(counts: Sequence[int], batch: int, grouped: bool) -> int:
    """About the greatest sum over a batch, of all that there will be.

    Batches of similar lengths come to the longest of all; others hardly ever pass the mean by more than a few standard
    deviations.
    """
    if grouped or len(counts) < 2:
        longest = sorted(counts, reverse=True)
        return sum(longest[number % len(longest)] for number in range(batch))
    likely = batch * statistics.mean(counts) + _DEVIATIONS * math.sqrt(batch) * statistics.stdev(counts)
    return math.ceil(min(likely, batch * max(counts)))


def _is_writable(layout: Layout, example: Example) -> bool:
    try:
        layout.render(example)
    except UnwritableMoleculeError:
        return False
    return True


def _extent(batch: Mapping[str, Any]) -> tuple[int, int]:
    return int(batch["input_ids"].shape[1]), int(batch["logits_to_keep"])


def _length(example: TokenisedExample) -> int:
    return len(example.ids)


def stand_in_tokenizer(examples: Sequence[Example], vocabulary: int) -> Any:
    """A tokenizer of the kind that a run makes of its task's text, made of less text."""
    from bench.pretrain_lm import corpus_of, special_tokenizer, train_tokenizer

    return special_tokenizer(train_tokenizer(corpus_of(subset(examples, _CORPUS)), vocabulary))
