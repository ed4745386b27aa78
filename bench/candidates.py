"""How likely a model holds each label of a classification to be, whatever it writes when it is asked to answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from bench.batches import IGNORED
from bench.collate import Collator
from bench.errors import NotFiniteError
from bench.layout import TokenisedExample
from bench.model import GraphLanguageModel
from bench.run_store import RunDirectory, append_jsonl, read_jsonl
from bench.runtime import Runtime
from bench.trained_model import TrainedModel
from bench.trainer import log_likelihoods, on_device
from tasks.base import Example, Turn

_MOST_BRANCHED = 512  # tokens of answers that share a prompt in one sequence; each is held against all of them


def candidates_missing(examples: Sequence[Example], run: RunDirectory, predicted: str) -> bool:
    """Whether likelihoods of candidates are still to be measured."""
    wanted = sum(bool(example.candidates) for example in examples)
    return len(read_jsonl(run.candidates_file(predicted))) < wanted


def measure_candidates(
    trained: TrainedModel,
    examples: Sequence[Example],
    swapped: Mapping[str, str],
    batch_size: int,
    run: RunDirectory,
    predicted: str,
    runtime: Runtime,
) -> None:
    """Writes the log-likelihood (nats, summed over tokens, the end token included) of every candidate as the answer.

    An example whose prompt with a candidate is longer than the model's context is written down without any.

    Args:
        trained: the model.
        examples: those without candidates are passed over.
        swapped: the molecule whose graph is read in the place of another one's.
        batch_size: candidates at once.
        run, predicted: where the evaluation's files are.
        runtime: for the progress bar, and how many are computed at once.
    """
    asked = [example for example in examples if example.candidates]
    variants = [_answered(example, text) for example in asked for text in example.candidates]
    laid_out = trained.layout.tokenise(variants, swapped)
    fitting = [place for place, example in enumerate(laid_out) if trained.fits(len(example.ids))]
    found = likelihoods_of_answers(
        trained.model,
        [laid_out[place] for place in fitting],
        trained.collator,
        batch_size,
        rows=runtime.asking_micro_batch,
    )
    values = {fitting[place]: total for place, total in runtime.tracked(found, "likelihood of labels", len(fitting))}
    rows, first = [], 0
    for example in asked:
        places = range(first, first + len(example.candidates))
        first += len(example.candidates)
        whole = all(place in values for place in places)
        rows.append({"example_id": example.id, "likelihoods": [values[place] for place in places] if whole else None})
    file = run.candidates_file(predicted)
    file.unlink(missing_ok=True)
    append_jsonl(file, rows)


def likelihoods_of_answers(
    model: GraphLanguageModel,
    examples: Sequence[TokenisedExample],
    collator: Collator,
    batch_size: int,
    rows: int | None = None,
) -> Iterator[tuple[int, float]]:
    """The place and the log-likelihood (nats) of each example, in any order.

    Where sequences are packed, a prompt is read once for all answers to it that are among the examples. There are at
    most as many tokens in a pass as a padded batch of `batch_size` examples has.

    Args:
        model: which.
        examples: laid out for it; their last answers alone are supervised.
        collator: makes batches.
        batch_size: examples at once.
        rows: most examples per forward pass; None for the whole batch.

    Raises:
        NotFiniteError: a likelihood is NaN or infinite.
    """
    # Sorted by length, so that little is padded, and no pass is much smaller than others.
    order = sorted(range(len(examples)), key=lambda place: (-len(examples[place].ids), place))
    if not collator.packs or not all(map(_has_prompt, examples)):
        found = log_likelihoods(model, [examples[place] for place in order], collator, batch_size, rows=rows)
        yield from ((place, total) for place, (total, _) in zip(order, found, strict=True))
        return
    most = min(batch_size, rows or batch_size) * max((len(example.ids) for example in examples), default=0)
    training, device = model.training, model.token_embedding.weight.device
    model.eval()
    try:
        for groups in _passes(_by_prompt(examples, order, most), examples, most):
            batch = collator.branched([[examples[place] for place in group] for group in groups])
            with torch.no_grad():
                totals = model.log_likelihood(on_device(batch, device)).total.tolist()
            if not all(map(math.isfinite, totals)):
                raise NotFiniteError("the log-likelihood of an example is NaN or infinite")
            yield from zip((place for group in groups for place in group), totals, strict=True)
    finally:
        model.train(training)


def _has_prompt(example: TokenisedExample) -> bool:
    """Whether anything stands before the answer, all that is read of graphs included."""
    begin = example.prompt_length
    return begin > 0 and not example.soft[begin:].any() and not (example.labels[:begin] != IGNORED).any()


def _by_prompt(examples: Sequence[TokenisedExample], order: Sequence[int], most: int) -> list[list[int]]:
    """Places of examples with the same prompt, of at most so many tokens together if each alone has no more."""
    groups: dict[tuple[bytes, tuple[str, ...], str], list[list[int]]] = {}
    for place in order:
        example = examples[place]
        prompt = (example.ids[: example.prompt_length].tobytes(), example.molecules, example.task)
        known = groups.setdefault(prompt, [[]])
        answers = sum(len(examples[other].ids) - example.prompt_length for other in known[-1])
        if known[-1] and (len(example.ids) + answers > most or answers > _MOST_BRANCHED):
            known.append([])
        known[-1].append(place)
    return [group for same in groups.values() for group in same]


def _passes(groups: Iterable[list[int]], examples: Sequence[TokenisedExample], most: int) -> Iterator[list[list[int]]]:
    """The groups of each forward pass, of at most so many tokens if no group alone has more."""
    held: list[list[int]] = []
    tokens = 0
    for group in groups:
        stem = examples[group[0]].prompt_length
        size = stem + sum(len(examples[place].ids) - stem for place in group)
        if held and tokens + size > most:
            yield held
            held, tokens = [], 0
        held.append(group)
        tokens += size
    if held:
        yield held


def _answered(example: Example, text: str) -> Example:
    """The example with another answer in the place of its last one, which alone is measured."""
    last = max(place for place, turn in enumerate(example.turns) if turn.supervised)
    turns = [replace(turn, supervised=False) for turn in example.turns[:last]]
    return replace(example, turns=(*turns, Turn("assistant", text, supervised=True)))
