"""What a trained model is asked, and how its answers are scored."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.candidates import candidates_missing, measure_candidates
from bench.errors import UserError
from bench.facts import asked_of, names_of_facts, training_molecules
from bench.generate import Parse, predict
from bench.identity import derived_seed, evaluation_id, examples_hash, predict_id
from bench.observation import observation_missing, observe, observed_of
from bench.parsing import to_mapping
from bench.prepare import Prepared, fitting_protocols
from bench.reading import EvaluationData
from bench.reliance import measure_reliance, reliance_missing, reliance_summary
from bench.run_store import RunDirectory, append_jsonl, read_json, read_jsonl, write_text
from bench.runtime import Runtime
from bench.scores import protocol_score_id, score_predictions
from bench.trained_model import TrainedModel, atoms_of, substitutes
from tasks.base import Example, Prediction, Task
from tasks.prompts import as_text, prompt_of, prompt_sha


def evaluation_missing(prepared: Prepared, run: RunDirectory) -> bool:
    """Whether any prediction or log-likelihood is still to be made, for which the model has to be loaded."""
    config = prepared.config
    for data in prepared.evaluations:
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        if len(read_jsonl(run.predictions_file(identity))) < len(data.examples):
            return True
        if observation_missing(config.projector, run, identity):
            return True
        if candidates_missing(data.readable, run, identity) or reliance_missing(prepared, data, run):
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
        for protocol in fitting_protocols(prepared.config.evaluation.protocols, data.task):
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
        generation = config.evaluation.generation
        asked = [e for e in examples if trained.fits(e.prompt_length + generation.max_new_tokens)]
        _note_unanswerable(trained, data, {example.id for example in asked}, file)
        tokenizer_and_collator = (trained.layout.tokenizer, trained.collator)
        parse = _parser(data)
        predict(trained.model, asked, tokenizer_and_collator, generation, parse, file, runtime, seed=config.seed)
        if candidates_missing(data.readable, run, identity):
            measure_candidates(trained, data.readable, swapped, generation.batch_size, run, identity, runtime)
        if observation_missing(config.projector, run, identity):
            observe(trained.model, trained.collator, asked, generation.batch_size, run, identity, runtime)
        measure_reliance(trained, prepared, data, examples, run, runtime)


def score(prepared: Prepared, run: RunDirectory, runtime: Runtime) -> list[dict[str, Any]]:
    """The scores of a run's predictions under its protocols, and its reliance; one entry per task asked.

    Facts about the examples are written beside the runs. What is no run (answers of an exported model) has none.
    """
    config = prepared.config
    entries: list[dict[str, Any]] = []
    training = training_molecules([data.training for data in prepared.stages])
    for data in prepared.evaluations:
        identity = predict_id(config, prepared.train_id, data.task, data.examples)
        predictions = [Prediction(**row) for row in read_jsonl(run.predictions_file(identity))]
        fitting = fitting_protocols(config.evaluation.protocols, data.task)
        protocols = runtime.tracked(fitting, "scoring", len(fitting))
        examples_id = examples_hash(data.examples)
        scores = [score_predictions(run, identity, data.task.answer, protocol) for protocol in protocols]
        facts: dict[str, str | None] = {"facts": None, "novelty": None}
        if run.manifest_file.exists():
            facts = names_of_facts(run, examples_id, asked_of(data.examples), training, runtime)
        entries.append(
            {
                "task": data.task.name,
                "answer": data.task.answer,
                "data": data.task.data,
                "split": config.evaluation.split,
                "n": len(data.examples),
                "limited": data.limited,
                "evaluation_id": evaluation_id(config, data.task),
                "examples_id": examples_id,
                "graph_input": to_mapping(config.graph_input.test),
                "text_input": to_mapping(config.evaluation.text_input),
                "prompt": to_mapping(config.evaluation.prompt),
                "generation": to_mapping(config.evaluation.generation),
                "predict_id": identity,
                "generated_tokens": sum(prediction.tokens for prediction in predictions),
                "ended_by_length": sum(prediction.stop == "length" for prediction in predictions),
                "scores": scores,
                **facts,
                "observed": observed_of(run, identity),
                "reliance": reliance_summary(prepared, data, run),
            }
        )
    return entries


def _parser(data: EvaluationData) -> Parse:
    examples = {example.id: example for example in data.examples}
    return lambda name, raw: data.task.parse(raw, examples[name])


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
                "reference": _gold(data.task, example),
                "candidates": list(example.candidates),
                "meta": dict(example.meta),
            }
        )
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _gold(task: Task, example: Example) -> str:
    """The gold answer, read as an answer is."""
    gold = task.parse(example.reference, example)
    if gold is None:
        raise UserError(f"task {task.name}: cannot read the gold answer {example.reference!r} of {example.id}")
    return gold


def _note_unanswerable(trained: TrainedModel, data: EvaluationData, asked: Collection[str], file: Path) -> None:
    """Gives examples that cannot be asked an unparsable answer, which counts as wrong."""
    known = {row["example_id"] for row in read_jsonl(file)}
    left = [example for example in data.examples if example.id not in asked and example.id not in known]
    if left:
        prompts = (prompt_sha(prompt_of(trained.layout.render_as_far_as_possible(example))) for example in left)
        rows = [Prediction(e.id, sha, "", None, 0, "length") for e, sha in zip(left, prompts, strict=True)]
        append_jsonl(file, [asdict(row) for row in rows])
