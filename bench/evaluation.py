"""What a trained model is asked, how its answers are scored, and whether it uses the graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.collate import Collator, Layout, TokenisedExample
from bench.config import RunConfig
from bench.generate import predict
from bench.identity import derived_seed, evaluation_id, examples_hash, predict_id, reliance_id
from bench.model import GraphLanguageModel
from bench.parsing import to_mapping
from bench.prepare import EvaluationData, Prepared
from bench.run_store import RunDirectory, append_jsonl, read_json, read_jsonl, write_text
from bench.runtime import Runtime
from bench.scores import described, protocol_score_id, score_predictions
from bench.trainer import log_likelihoods
from encoders.base import GraphInput
from encoders.store import FeatureStore
from tasks.base import Example, Prediction
from tasks.metrics.base import mean_estimate
from tasks.prompts import as_text, prompt_of


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be asked, with what turns examples into its input."""

    model: GraphLanguageModel
    layout: Layout
    collator: Collator


def substitutes(
    graph_input: GraphInput, examples: Sequence[Example], store: FeatureStore, seed: int
) -> Mapping[str, str]:
    """The molecule whose graph is read in the place of each one of these examples' molecules."""
    molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
    sizes = store.sizes(molecules).tolist()
    return dict(zip(molecules, graph_input.substitute(molecules, sizes, seed), strict=True))


def evaluation_missing(prepared: Prepared, run: RunDirectory) -> bool:
    """Whether any prediction or log-likelihood is still to be made, for which the model has to be loaded."""
    config = prepared.config
    for data in prepared.evaluations:
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        if len(read_jsonl(run.predictions_file(identity))) < len(data.examples):
            return True
        if _measures_reliance(config):
            identity = reliance_id(config, prepared.train_id, data.examples)
            if len(read_jsonl(run.reliance_file(identity))) < len(data.examples):
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
        swapped = substitutes(config.graph_input.test, data.examples, trained.layout.store, seed)
        trained.model.graph_input = config.graph_input.test
        examples = trained.layout.tokenise(data.examples, swapped)
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        file = run.predictions_file(identity)
        _write_questions(trained, data, run.questions_file(identity))
        asked = _note_too_long(examples, trained, config, file)
        tokenizer_and_collator = (trained.layout.tokenizer, trained.collator)
        predict(trained.model, data.task, asked, tokenizer_and_collator, config.evaluation.generation, file, runtime)
        if _measures_reliance(config):
            _measure_reliance(trained, prepared, data, examples, run, runtime)


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
                "generation": to_mapping(config.evaluation.generation),
                "predict_id": identity,
                "generated_tokens": sum(prediction.tokens for prediction in predictions),
                "ended_by_length": sum(prediction.stop == "length" for prediction in predictions),
                "scores": [score_predictions(run, identity, data.task.answer, protocol) for protocol in protocols],
                "reliance": reliance_summary(prepared, data, run),
            }
        )
    return entries


def reliance_summary(prepared: Prepared, data: EvaluationData, run: RunDirectory) -> dict[str, Any]:
    """Mean change of the gold answer's log-likelihood per token when its graph is swapped, with its 95% interval."""
    config = prepared.config
    swap = config.evaluation.reliance
    if swap is None:
        return {"value": None, "reason": "not measured: evaluation.reliance is not set"}
    if not config.projector.places_tokens:
        return {"value": None, "reason": "the language model is given no graph"}
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
        prompt = as_text(prompt_of(trained.layout.render(example)))
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
    # The partners do not depend on the run's seed: all cells and seeds are measured on the same swaps.
    partner = substitutes(swap, data.examples, store, derived_seed(0, "reliance"))
    batch_size = config.evaluation.generation.batch_size
    real = log_likelihoods(trained.model, examples, trained.collator, batch_size)
    real_values = list(runtime.tracked(real, "likelihood, real graphs", len(examples)))
    trained.model.graph_input = swap
    try:
        swapped = log_likelihoods(
            trained.model, trained.layout.tokenise(data.examples, partner), trained.collator, batch_size
        )
        swapped_values = list(runtime.tracked(swapped, "likelihood, swapped graphs", len(examples)))
    finally:
        trained.model.graph_input = config.graph_input.test
    rows: list[dict[str, Any]] = []
    for example, (with_real, tokens), (with_swapped, _) in zip(data.examples, real_values, swapped_values, strict=True):
        sizes = store.sizes(example.molecules)
        swapped_sizes = store.sizes([partner[molecule] for molecule in example.molecules])
        equal = bool((sizes == swapped_sizes).all())
        rows.append(
            {
                "example_id": example.id,
                "real": with_real,
                "swapped": with_swapped,
                "tokens": tokens,
                "atoms": int(sizes.sum()),
                "swapped_atoms": int(swapped_sizes.sum()),
                "counts": tokens > 0 and (equal or not swap.keeps_size),
            }
        )
    file.unlink(missing_ok=True)
    append_jsonl(file, rows)


def _measures_reliance(config: RunConfig) -> bool:
    return config.evaluation.reliance is not None and config.projector.places_tokens


def _note_too_long(
    examples: Sequence[TokenisedExample], trained: TrainedModel, config: RunConfig, file: Any
) -> list[TokenisedExample]:
    """The examples that fit the model's context; the others get an unparsable answer, which counts as wrong."""
    llm_config = trained.model.llm.config
    context = getattr(llm_config, "max_position_embeddings", None)
    room = None if context is None else int(context) - config.evaluation.generation.max_new_tokens  # type: ignore[call-overload]
    fitting = [example for example in examples if room is None or example.prompt_length <= room]
    if len(fitting) < len(examples):
        known, kept = {row["example_id"] for row in read_jsonl(file)}, {example.id for example in fitting}
        too_long = [example for example in examples if example.id not in kept | known]
        append_jsonl(file, [asdict(Prediction(e.id, e.prompt_sha, "", None, 0, "length")) for e in too_long])
    return fitting
