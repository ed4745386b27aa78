"""How likely a model holds each label of a classification to be, whatever it writes when it is asked to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.run_store import RunDirectory, append_jsonl, read_jsonl
from bench.runtime import Runtime
from bench.trained_model import TrainedModel
from bench.trainer import log_likelihoods
from tasks.base import Example, Turn


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
    # Sorted by length, so that little is padded; candidates of one example are about equally long.
    order = sorted(range(len(laid_out)), key=lambda place: (-len(laid_out[place].ids), place))
    order = [place for place in order if trained.fits(len(laid_out[place].ids))]
    found = log_likelihoods(
        trained.model,
        [laid_out[place] for place in order],
        trained.collator,
        batch_size,
        rows=runtime.asking_micro_batch,
    )
    values = {
        place: total
        for place, (total, _) in zip(order, runtime.tracked(found, "likelihood of labels", len(order)), strict=True)
    }
    rows, first = [], 0
    for example in asked:
        places = range(first, first + len(example.candidates))
        first += len(example.candidates)
        whole = all(place in values for place in places)
        rows.append({"example_id": example.id, "likelihoods": [values[place] for place in places] if whole else None})
    file = run.candidates_file(predicted)
    file.unlink(missing_ok=True)
    append_jsonl(file, rows)


def _answered(example: Example, text: str) -> Example:
    """The example with another answer in the place of its last one, which alone is measured."""
    last = max(place for place, turn in enumerate(example.turns) if turn.supervised)
    turns = [replace(turn, supervised=False) for turn in example.turns[:last]]
    return replace(example, turns=(*turns, Turn("assistant", text, supervised=True)))
