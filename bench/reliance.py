"""Whether a trained model uses the graph: what changes when each molecule's graph is swapped for another one's.

Two changes are measured on the same pairs: of the gold answer's log-likelihood, and of every metric of the answers that
the model writes. Both are paired by example, so that their intervals are about the change itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.generate import predict
from bench.identity import derived_seed, predict_id, reliance_id, swapped_answers_id
from bench.layout import TokenisedExample
from bench.prepare import Prepared, fitting_protocols
from bench.reading import EvaluationData
from bench.run_store import RunDirectory, append_jsonl, read_jsonl
from bench.runtime import Runtime
from bench.scores import changes, described
from bench.trained_model import Sizes, TrainedModel, substitutes
from bench.trainer import log_likelihoods
from encoders.base import EncoderError
from tasks.base import Example, Prediction
from tasks.metrics.base import mean_estimate


def reliance_missing(prepared: Prepared, data: EvaluationData, run: RunDirectory) -> bool:
    """Whether anything is still to be measured, for which the model has to be loaded."""
    if isinstance(_partners(prepared, data), str):
        return False
    config = prepared.config
    rows = read_jsonl(run.reliance_file(reliance_id(config, prepared.train_id, data.examples)))
    return len(rows) < len(data.readable) or _answers_missing(prepared, data, run, rows)


def measure_reliance(
    trained: TrainedModel,
    prepared: Prepared,
    data: EvaluationData,
    examples: Sequence[TokenisedExample],
    run: RunDirectory,
    runtime: Runtime,
) -> None:
    """Measures both changes and writes them into the run directory; what is there is not measured again.

    Args:
        trained: the model, reading graphs as the run's tests do.
        prepared: the run.
        data: what is asked.
        examples: its readable examples, laid out with the run's own graphs.
        run: the run directory.
        runtime: for progress bars, and how many are computed at once.
    """
    partners = _partners(prepared, data)
    if isinstance(partners, str):
        return
    config = prepared.config
    exchanged = trained.layout.tokenise(data.readable, partners)
    file = run.reliance_file(reliance_id(config, prepared.train_id, data.examples))
    if len(read_jsonl(file)) < len(examples):
        rows = _likelihoods(trained, prepared, data, partners, examples, exchanged, runtime)
        file.unlink(missing_ok=True)
        append_jsonl(file, rows)
    rows = read_jsonl(file)
    if _answers_missing(prepared, data, run, rows):
        _answer(trained, prepared, data, examples, exchanged, _counted(rows), run, runtime)


def reliance_summary(prepared: Prepared, data: EvaluationData, run: RunDirectory) -> dict[str, Any]:
    """Mean change of the gold answer's log-likelihood per token when its graph is swapped, with its 95% interval.

    `metrics` has the change of every metric by protocol, where answers were generated.
    """
    config = prepared.config
    swap, partners = config.evaluation.reliance, _partners(prepared, data)
    if swap is None or isinstance(partners, str):
        return {"value": None, "reason": partners}
    identity = reliance_id(config, prepared.train_id, data.examples)
    rows = read_jsonl(run.reliance_file(identity))
    gains = [(row["real"] - row["swapped"]) / row["tokens"] for row in rows if row["counts"]]
    tokens = sum(row["tokens"] for row in rows)
    return {
        **described(mean_estimate(gains)),
        "unit": "nats per token",
        "swap": swap.name,
        "n": len(gains),
        "left_out": len(rows) - len(gains),
        "loss": -sum(row["real"] for row in rows) / max(tokens, 1),
        "reliance_id": identity,
        # So that a reader finds the answers without knowing how identities are made.
        "answers_id": _answers_id(prepared, data) if config.evaluation.reliance_answers else None,
        "metrics": _changes_of_metrics(prepared, data, run),
    }


def atoms_and_tokens(prepared: Prepared) -> Sizes:
    """Atoms and soft tokens of molecules as one number, so that equals are equal in both; atoms weigh more.

    A swap that changed the number of tokens would be seen by a model that is given nothing but zeros.
    """
    config, store = prepared.config, prepared.store

    def sizes(molecules: Sequence[str]) -> Sequence[int]:
        rows = config.encoder.rows(store.counts(molecules), len(molecules))
        both: list[int] = (store.sizes(molecules) * 100_000 + config.projector.tokens(rows, len(molecules))).tolist()
        return both

    return sizes


def _likelihoods(
    trained: TrainedModel,
    prepared: Prepared,
    data: EvaluationData,
    partners: Mapping[str, str],
    examples: Sequence[TokenisedExample],
    exchanged: Sequence[TokenisedExample],
    runtime: Runtime,
) -> list[dict[str, Any]]:
    """A row for each example: the gold answer's log-likelihood under both graphs, and whether the pair counts."""
    config, store = prepared.config, trained.layout.store
    swap = config.evaluation.reliance
    assert swap is not None
    fitting = [
        position
        for position, pair in enumerate(zip(examples, exchanged, strict=True))
        if all(trained.fits(len(example.ids)) for example in pair)
    ]
    sizes_of = atoms_and_tokens(prepared)
    equal = {p for p in fitting if _is_equal(sizes_of, data.readable[p], partners)}
    # Pairs of unequal size go into batches of their own: they would change the padding of the others.
    groups = [[p for p in fitting if p in equal], [p for p in fitting if p not in equal]]

    def measured(laid_out: Sequence[TokenisedExample], what: str) -> dict[int, tuple[float, int]]:
        size = config.evaluation.generation.batch_size
        found = (
            pair
            for group in groups
            for pair in log_likelihoods(
                trained.model, [laid_out[p] for p in group], trained.collator, size, rows=runtime.asking_micro_batch
            )
        )
        positions = [p for group in groups for p in group]
        return dict(zip(positions, runtime.tracked(found, what, len(fitting)), strict=True))

    real_values = measured(examples, "likelihood, real graphs")
    with _Swapped(trained, prepared):
        other_values = measured(exchanged, "likelihood, swapped")
    rows: list[dict[str, Any]] = []
    for position, example in enumerate(data.readable):
        with_real, tokens = real_values.get(position, (0.0, 0))  # no token: too long for the model's context
        with_swapped, _ = other_values.get(position, (0.0, 0))
        sizes = store.sizes(example.molecules)
        swapped_sizes = store.sizes([partners[molecule] for molecule in example.molecules])
        rows.append(
            {
                "example_id": example.id,
                "real": with_real,
                "swapped": with_swapped,
                "tokens": tokens,
                "atoms": int(sizes.sum()),
                "swapped_atoms": int(swapped_sizes.sum()),
                "counts": tokens > 0
                and bool(example.molecules)
                and (position in equal or not swap.keeps_size)
                and all(swap.counts(molecule, partners[molecule]) for molecule in example.molecules),
            }
        )
    return rows


def _answer(
    trained: TrainedModel,
    prepared: Prepared,
    data: EvaluationData,
    examples: Sequence[TokenisedExample],
    exchanged: Sequence[TokenisedExample],
    counted: set[str],
    run: RunDirectory,
    runtime: Runtime,
) -> None:
    """Generates the answers of the pairs that count under the swapped graphs."""
    config = prepared.config
    generation = config.evaluation.generation
    both = zip(examples, exchanged, strict=True)
    # Pairs that do not count keep their own graph and only fill up batches, which then are shaped as those of the run's
    # own answers: a model that reads nothing of a graph must write the same words to the letter.
    mixed = [other if own.id in counted else own for own, other in both]
    asked = [example for example in mixed if trained.fits(example.prompt_length + generation.max_new_tokens)]
    file = run.swapped_answers_file(_answers_id(prepared, data))
    readable = {example.id: example for example in data.readable}
    with _Swapped(trained, prepared):
        predict(
            trained.model,
            asked,
            (trained.layout.tokenizer, trained.collator),
            generation,
            lambda name, raw: data.task.parse(raw, readable[name]),
            file,
            runtime,
            wanted=counted,
            what="generating, graphs swapped",
            seed=config.seed,
        )
    known = {row["example_id"] for row in read_jsonl(file)}
    left = [example for example in mixed if example.id in counted - known]
    append_jsonl(file, [asdict(Prediction(e.id, e.prompt_sha, "", None, 0, "length")) for e in left])


class _Swapped:
    """The model while other molecules' graphs are read.

    Another graph comes in where the real one would; whatever the run itself puts in the place of graphs comes after it,
    so that a model which is given zeros is measured as one that cannot tell graphs apart.
    """

    def __init__(self, trained: TrainedModel, prepared: Prepared) -> None:
        self._trained, self._config = trained, prepared.config

    def __enter__(self) -> None:
        swap, test = self._config.evaluation.reliance, self._config.graph_input.test
        assert swap is not None
        self._trained.model.read_graphs(swap, test, sample=self._trained.sample)

    def __exit__(self, *_: object) -> None:
        self._trained.model.read_graphs(self._config.graph_input.test, sample=self._trained.sample)


def _changes_of_metrics(prepared: Prepared, data: EvaluationData, run: RunDirectory) -> dict[str, Any]:
    config = prepared.config
    answered = read_jsonl(run.swapped_answers_file(_answers_id(prepared, data)))
    if not config.evaluation.reliance_answers or not answered:
        return {}
    swapped = {row["example_id"]: row["text"] for row in answered}
    own = predict_id(config, prepared.train_id, data.task, data.examples)
    return {
        f"{protocol.name}@{protocol.version}": changes(run, own, data.task.answer, protocol, swapped)
        for protocol in fitting_protocols(config.evaluation.protocols, data.task)
    }


def _answers_missing(
    prepared: Prepared, data: EvaluationData, run: RunDirectory, rows: Sequence[Mapping[str, Any]]
) -> bool:
    if not prepared.config.evaluation.reliance_answers:
        return False
    answered = read_jsonl(run.swapped_answers_file(_answers_id(prepared, data)))
    return bool(_counted(rows) - {row["example_id"] for row in answered})


def _answers_id(prepared: Prepared, data: EvaluationData) -> str:
    return swapped_answers_id(prepared.config, prepared.train_id, data.task, data.examples)


def _counted(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["example_id"] for row in rows if row["counts"]}


def _is_equal(sizes: Sizes, example: Example, partner: Mapping[str, str]) -> bool:
    """Whether each molecule and the one swapped in for it are of equal size."""
    return list(sizes(example.molecules)) == list(sizes([partner[molecule] for molecule in example.molecules]))


def _partners(prepared: Prepared, data: EvaluationData) -> Mapping[str, str] | str:
    """The molecules whose graphs are swapped in to measure reliance, or the reason why it is not measured."""
    config = prepared.config
    if config.evaluation.reliance is None:
        return "not measured: evaluation.reliance is not set"
    if not config.projector.places_tokens:
        return "the language model is given no graph"
    if not any(example.molecules for example in data.readable):
        return "no question holds a molecule"
    try:
        # They do not depend on the run's seed. Cells whose projectors count tokens alike have the same swaps.
        # Others can differ in which molecules have an equal, so `n` and `left_out` stand beside the value.
        sizes = atoms_and_tokens(prepared)
        return substitutes(config.evaluation.reliance, data.readable, sizes, derived_seed(0, "reliance"))
    except EncoderError as error:
        return str(error)
