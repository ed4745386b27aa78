"""What a trained model is asked, how its answers are scored, and whether it uses the graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.collate import Collator, Layout, TokenisedExample
from bench.generate import predict
from bench.identity import derived_seed, evaluation_id, examples_hash, predict_id, reliance_id
from bench.model import GraphLanguageModel
from bench.observation import observation_missing, observe, observed_of
from bench.parsing import to_mapping
from bench.prepare import EvaluationData, Prepared
from bench.run_store import RunDirectory, append_jsonl, read_json, read_jsonl, write_text
from bench.runtime import Runtime
from bench.scores import described, protocol_score_id, score_predictions
from bench.trainer import log_likelihoods
from encoders.base import EncoderError, GraphInput, MoleculeBatch
from encoders.store import FeatureStore
from tasks.base import Example, Prediction
from tasks.metrics.base import mean_estimate
from tasks.prompts import as_text, prompt_of, prompt_sha


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be asked, with what turns examples into its input.

    Args:
        sample: some training molecules, for graph inputs that match their moments; None where no graph is read.
    """

    model: GraphLanguageModel
    layout: Layout
    collator: Collator
    sample: MoleculeBatch | None = None


Sizes = Callable[[Sequence[str]], Sequence[int]]
"""The sizes of molecules, by which substitutes of equal size are found."""


def substitutes(graph_input: GraphInput, examples: Sequence[Example], sizes: Sizes, seed: int) -> Mapping[str, str]:
    """The molecule whose graph is read in the place of each one of these examples' molecules."""
    molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
    return dict(zip(molecules, graph_input.substitute(molecules, sizes(molecules), seed), strict=True))


def atoms_of(store: FeatureStore) -> Sizes:
    """The number of atoms of molecules."""
    return lambda molecules: store.sizes(molecules).tolist()


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


def evaluation_missing(prepared: Prepared, run: RunDirectory) -> bool:
    """Whether any prediction or log-likelihood is still to be made, for which the model has to be loaded."""
    config = prepared.config
    for data in prepared.evaluations:
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        if len(read_jsonl(run.predictions_file(identity))) < len(data.examples):
            return True
        if observation_missing(config.projector, run, identity):
            return True
        if not isinstance(_partners(prepared, data), str):
            identity = reliance_id(config, prepared.train_id, data.examples)
            if len(read_jsonl(run.reliance_file(identity))) < len(data.readable):
                return True
    return False


def score_missing(prepared: Prepared, run: RunDirectory) -> bool:
    """Whether anything that the configuration asks for is not in the run's result yet."""
    if evaluation_missing(prepared, run):
        return True
    known = {
        (entry["predict_id"], entry["evaluation_id"]): entry for entry in read_json(run.result_file)["evaluations"]
    }
    for data in prepared.evaluations:
        predicted = predict_id(prepared.config, prepared.train_id, data.task, data.examples)
        entry = known.get((predicted, evaluation_id(prepared.config, data.task)))
        if entry is None:
            return True
        scored = {score["score_id"] for score in entry["scores"]}
        for protocol in prepared.config.evaluation.protocols:
            if protocol_score_id(predicted, data.task.answer, protocol) not in scored:
                return True
    return False


def ask(trained: TrainedModel, prepared: Prepared, run: RunDirectory, runtime: Runtime) -> None:
    """Makes all missing predictions and log-likelihoods of a run."""
    config = prepared.config
    for data in prepared.evaluations:
        seed = derived_seed(config.seed, "graph_input/test")
        swapped = substitutes(config.graph_input.test, data.readable, atoms_of(trained.layout.store), seed)
        trained.model.read_graphs(config.graph_input.test, sample=trained.sample)
        examples = trained.layout.tokenise(data.readable, swapped)
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        file = run.predictions_file(identity)
        _write_questions(trained, data, run.questions_file(identity))
        asked = [e for e in examples if _fits(trained, e.prompt_length + config.evaluation.generation.max_new_tokens)]
        _note_unanswerable(trained, data, {example.id for example in asked}, file)
        tokenizer_and_collator = (trained.layout.tokenizer, trained.collator)
        predict(trained.model, data.task, asked, tokenizer_and_collator, config.evaluation.generation, file, runtime)
        if observation_missing(config.projector, run, identity):
            size = config.evaluation.generation.batch_size
            observe(trained.model, trained.collator, asked, size, run, identity, runtime)
        partners = _partners(prepared, data)
        if not isinstance(partners, str):
            _measure_reliance(trained, prepared, data, partners, examples, run, runtime)


def score(prepared: Prepared, run: RunDirectory, runtime: Runtime) -> list[dict[str, Any]]:
    """The scores of a run's predictions under its protocols, and its reliance; one entry per task asked."""
    config = prepared.config
    entries = []
    for data in prepared.evaluations:
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        predictions = [Prediction(**row) for row in read_jsonl(run.predictions_file(identity))]
        protocols = runtime.tracked(config.evaluation.protocols, "scoring", len(config.evaluation.protocols))
        entries.append(
            {
                "task": data.task.name,
                "answer": data.task.answer,
                "data": data.task.data,
                "split": config.evaluation.split,
                "n": len(data.examples),
                "limited": data.limited,
                "evaluation_id": evaluation_id(config, data.task),
                "examples_id": examples_hash(data.examples),
                "graph_input": to_mapping(config.graph_input.test),
                "text_input": to_mapping(config.evaluation.text_input),
                "generation": to_mapping(config.evaluation.generation),
                "predict_id": identity,
                "generated_tokens": sum(prediction.tokens for prediction in predictions),
                "ended_by_length": sum(prediction.stop == "length" for prediction in predictions),
                "scores": [score_predictions(run, identity, data.task.answer, protocol) for protocol in protocols],
                "observed": observed_of(run, identity),
                "reliance": reliance_summary(prepared, data, run),
            }
        )
    return entries


def reliance_summary(prepared: Prepared, data: EvaluationData, run: RunDirectory) -> dict[str, Any]:
    """Mean change of the gold answer's log-likelihood per token when its graph is swapped, with its 95% interval."""
    config = prepared.config
    swap, partners = config.evaluation.reliance, _partners(prepared, data)
    if swap is None or isinstance(partners, str):
        return {"value": None, "reason": partners}
    identity = reliance_id(config, prepared.train_id, data.examples)
    rows = read_jsonl(run.reliance_file(identity))
    gains = [(row["real"] - row["swapped"]) / row["tokens"] for row in rows if row["counts"]]
    estimate = mean_estimate(gains)
    tokens = sum(row["tokens"] for row in rows)
    return {
        **described(estimate),
        "unit": "nats per token",
        "swap": swap.name,
        "n": len(gains),
        "left_out": len(rows) - len(gains),
        "loss": -sum(row["real"] for row in rows) / max(tokens, 1),
        "reliance_id": identity,
    }


def _write_questions(trained: TrainedModel, data: EvaluationData, file: Path) -> None:
    """What was asked, verbatim, and the gold answers: with the predictions all that scoring and reports need."""
    if file.exists():
        return
    rows = []
    for example in data.examples:
        prompt = as_text(prompt_of(trained.layout.render_as_far_as_possible(example)))
        rows.append(
            {
                "example_id": example.id,
                "molecules": list(example.molecules),
                "prompt": prompt,
                "reference": example.reference,
                "meta": dict(example.meta),
            }
        )
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _measure_reliance(
    trained: TrainedModel,
    prepared: Prepared,
    data: EvaluationData,
    partner: Mapping[str, str],
    examples: Sequence[TokenisedExample],
    run: RunDirectory,
    runtime: Runtime,
) -> None:
    config, store = prepared.config, trained.layout.store
    swap = config.evaluation.reliance
    assert swap is not None
    file = run.reliance_file(reliance_id(config, prepared.train_id, data.examples))
    if len(read_jsonl(file)) >= len(examples):
        return
    exchanged = trained.layout.tokenise(data.readable, partner)
    fitting = [
        position
        for position, pair in enumerate(zip(examples, exchanged, strict=True))
        if all(_fits(trained, len(example.ids)) for example in pair)
    ]
    sizes_of = atoms_and_tokens(prepared)
    equal = {p for p in fitting if _is_equal(sizes_of, data.readable[p], partner)}
    # Pairs of unequal size go into batches of their own: they would change the padding of the others.
    groups = [[p for p in fitting if p in equal], [p for p in fitting if p not in equal]]

    def measured(laid_out: Sequence[TokenisedExample], what: str) -> dict[int, tuple[float, int]]:
        size = config.evaluation.generation.batch_size
        found = (
            pair
            for group in groups
            for pair in log_likelihoods(trained.model, [laid_out[p] for p in group], trained.collator, size)
        )
        positions = [p for group in groups for p in group]
        return dict(zip(positions, runtime.tracked(found, what, len(fitting)), strict=True))

    real_values = measured(examples, "likelihood, real graphs")
    # Another graph comes in where the real one would; whatever the run itself puts in the place of graphs comes after
    # it, so that a model which is given zeros is measured as one that cannot tell graphs apart.
    trained.model.read_graphs(swap, config.graph_input.test, sample=trained.sample)
    try:
        other_values = measured(exchanged, "likelihood, swapped")
    finally:
        trained.model.read_graphs(config.graph_input.test, sample=trained.sample)
    rows: list[dict[str, Any]] = []
    for position, example in enumerate(data.readable):
        with_real, tokens = real_values.get(position, (0.0, 0))  # no token: too long for the model's context
        with_swapped, _ = other_values.get(position, (0.0, 0))
        sizes = store.sizes(example.molecules)
        swapped_sizes = store.sizes([partner[molecule] for molecule in example.molecules])
        rows.append(
            {
                "example_id": example.id,
                "real": with_real,
                "swapped": with_swapped,
                "tokens": tokens,
                "atoms": int(sizes.sum()),
                "swapped_atoms": int(swapped_sizes.sum()),
                "counts": tokens > 0
                and (position in equal or not swap.keeps_size)
                and all(swap.counts(molecule, partner[molecule]) for molecule in example.molecules),
            }
        )
    file.unlink(missing_ok=True)
    append_jsonl(file, rows)


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
    try:
        # They do not depend on the run's seed. Cells whose projectors count tokens alike have the same swaps.
        # Others can differ in which molecules have an equal, so `n` and `left_out` stand beside the value.
        sizes = atoms_and_tokens(prepared)
        return substitutes(config.evaluation.reliance, data.readable, sizes, derived_seed(0, "reliance"))
    except EncoderError as error:
        return str(error)


def _fits(trained: TrainedModel, tokens: int) -> bool:
    """Whether a sequence is within the context that the language model was made for."""
    context = getattr(trained.model.llm.config, "max_position_embeddings", None)
    return context is None or tokens <= int(context)  # type: ignore[call-overload]


def _note_unanswerable(trained: TrainedModel, data: EvaluationData, asked: Collection[str], file: Path) -> None:
    """Gives examples that cannot be asked an unparsable answer, which counts as wrong."""
    known = {row["example_id"] for row in read_jsonl(file)}
    left = [example for example in data.examples if example.id not in asked and example.id not in known]
    if left:
        prompts = (prompt_sha(prompt_of(trained.layout.render_as_far_as_possible(example))) for example in left)
        rows = [Prediction(e.id, sha, "", None, 0, "length") for e, sha in zip(left, prompts, strict=True)]
        append_jsonl(file, [asdict(row) for row in rows])
