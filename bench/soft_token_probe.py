"""What the soft tokens of a trained run carry, by linear probes, beside what the language model says of it.

Information that a probe finds and the answers do not use points at the language model; information that no probe
finds, at the encoder or the projector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.collate import Collator
from bench.errors import UserError
from bench.experiment import build_model, run_directory, trained_model
from bench.identity import derived_seed, predict_id
from bench.prepare import Prepared, prepare
from bench.preset import load_config
from bench.reading import subset
from bench.run_store import read_json, read_jsonl, write_json
from bench.runtime import Runtime
from bench.session import Log
from bench.trained_model import TrainedModel, atoms_of, substitutes
from bench.trainer import on_device
from tasks.base import Example
from tasks.data import Catalogue
from tasks.molecule_facts import COUNTS, GROUPS, facts_of, groups_named

FILE = "soft_token_probe.json"

_STRENGTHS = (1e-3, 1e-1, 10.0)  # of regularisation, to choose from on held-out training molecules
_LEAST = 10  # molecules that must have a fact, and lack it, for its probe to mean anything
_BATCH = 64
_ROUNDING = 1e-5  # of the largest value

Rows = NDArray[np.float64]
Facts = Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some examples, the mean soft token of each `(n, d_llm)`, and what is true of its molecule."""

    examples: Sequence[Example]
    rows: Rows
    facts: Facts


def probe_run(
    folder: Path, runtime: Runtime, *, catalogue: Catalogue | None = None, limit: int = 2_000
) -> dict[str, Any]:
    """Probes a finished run's soft tokens, writes the result into its folder and returns it.

    For `atoms` and `rings` the value is R2 of ridge regression, for functional groups ROC-AUC of logistic regression,
    both on test molecules; `initial` is the same with weights as they were before training. `answers` is the balanced
    accuracy with which the run's answers name a group that the molecule has, `references` that of the gold answers.

    Args:
        folder: the run directory.
        runtime: where and on what.
        catalogue: the data sets known by name.
        limit: training molecules to fit on.

    Raises:
        UserError: the run is not done, places no soft token, or what it was made from has changed.
    """
    if not (folder / "result.json").is_file():
        raise UserError(f"{folder}: is no finished run; it has no result.json")
    config = load_config(str(folder / "config.yaml"))
    if not config.projector.places_tokens:
        raise UserError(f"{folder}: projector {config.projector.name} gives the language model no soft token to probe")
    prepared = prepare(config, replace(runtime, runs=folder.resolve().parent), catalogue)
    if prepared.train_id != read_json(folder / "manifest.json")["train_id"]:
        raise UserError(f"{folder}: what it was trained from has changed; its soft tokens cannot be made again")
    directory = run_directory(prepared, replace(runtime, runs=folder.resolve().parent))
    trained = trained_model(prepared, directory, runtime, Log(directory, lambda _: None))
    initial = TrainedModel(build_model(prepared, runtime)[0], trained.layout, trained.collator, trained.sample)
    for model in (trained, initial):  # what the run itself puts in the place of graphs is what its tokens are made of
        model.model.read_graphs(config.graph_input.test, sample=trained.sample)
    values = {
        name: _probed(model, prepared, limit, runtime) for name, model in (("value", trained), ("initial", initial))
    }
    said = _said(prepared, directory.predictions_file)
    names = [name for name in (*COUNTS, *GROUPS) if name in values["value"]]
    found = {
        "train_id": prepared.train_id,
        "n": len(prepared.evaluations[0].readable),
        "facts": {
            name: {
                "measure": "r2" if name in COUNTS else "roc-auc",
                **{key: probes[name] for key, probes in values.items()},
                **said.get(name, {}),
            }
            for name in names
        },
        "left_out": [name for name in (*COUNTS, *GROUPS) if name not in names],
    }
    write_json(folder / FILE, found)
    return found


def _probed(trained: TrainedModel, prepared: Prepared, limit: int, runtime: Runtime) -> dict[str, float]:
    training = subset(prepared.stages[-1].training, limit)
    parts = [
        _part(trained, prepared, [example for example in examples if example.molecules], what, runtime)
        for what, examples in (("training", training), ("test", prepared.evaluations[0].readable))
    ]
    fit, test = parts
    mean, spread = fit.rows.mean(axis=0), fit.rows.std(axis=0)
    # A channel that differs by rounding only says nothing; scaled up, it would: the mean of n equal rows tells n.
    says_something = spread > _ROUNDING * np.abs(fit.rows).max()
    scaled = [np.where(says_something, (part.rows - mean) / np.where(spread > 0, spread, 1.0), 0.0) for part in parts]
    values = {}
    for name in (*COUNTS, *GROUPS):
        pair = fit.facts[name], test.facts[name]
        if name in GROUPS and any(min(facts.sum(), len(facts) - facts.sum()) < _LEAST for facts in pair):
            continue
        values[name] = (_ridge if name in COUNTS else _logistic)(scaled[0], pair[0], scaled[1], pair[1])
    return values


@torch.no_grad()
def _part(trained: TrainedModel, prepared: Prepared, examples: Sequence[Example], what: str, runtime: Runtime) -> _Part:
    model, collator = trained.model.eval(), trained.collator
    swapped = substitutes(prepared.config.graph_input.test, examples, atoms_of(prepared.store), _seed(prepared))
    tokenised = trained.layout.tokenise(examples, swapped)
    pooled = []
    starts = range(0, len(tokenised), _BATCH)
    for start in runtime.tracked(starts, f"soft tokens, {what}", len(starts)):
        pooled.append(_mean_tokens(model, collator, tokenised[start : start + _BATCH]))
    facts = [facts_of(example.molecules[0]) for example in examples]
    columns = {name: np.array([row[name] for row in facts], dtype=np.int64) for name in (*COUNTS, *GROUPS)}
    return _Part(examples, np.concatenate(pooled), columns)


def _seed(prepared: Prepared) -> int:
    return derived_seed(prepared.config.seed, "graph_input/test")


def _mean_tokens(model: Any, collator: Collator, chunk: Sequence[Any]) -> Rows:
    """The mean of the soft tokens of each example's first molecule; zeros where it has none."""
    batch = on_device(collator.prompts(chunk), model.token_embedding.weight.device)
    tokens = model.soft_tokens(batch["input_ids"], batch["molecules"], batch["context"])
    first = np.cumsum([0, *(len(example.molecules) for example in chunk)])
    ptr = tokens.ptr.tolist()
    places = [(ptr[m], ptr[m + 1]) if following > m else (0, 0) for m, following in pairwise(first.tolist())]
    rows = [tokens.embeds[begin:end].float() for begin, end in places]
    means = [row.mean(dim=0) if len(row) else row.new_zeros(row.shape[1]) for row in rows]
    return torch.stack(means).double().cpu().numpy()


def _ridge(x: Rows, y: NDArray[np.int64], test_x: Rows, test_y: NDArray[np.int64]) -> float:
    from sklearn.linear_model import RidgeCV
    from sklearn.metrics import r2_score

    return round(float(r2_score(test_y, RidgeCV(alphas=np.logspace(-2, 4, 13)).fit(x, y).predict(test_x))), 4)


def _logistic(x: Rows, y: NDArray[np.int64], test_x: Rows, test_y: NDArray[np.int64]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    held_out = np.arange(len(x)) % 5 == 0
    best_strength, best = _STRENGTHS[0], -1.0
    for strength in _STRENGTHS:
        if len(set(y[held_out])) < 2 or len(set(y[~held_out])) < 2:
            break
        model = LogisticRegression(C=strength, max_iter=500).fit(x[~held_out], y[~held_out])
        area = roc_auc_score(y[held_out], model.decision_function(x[held_out]))
        best_strength, best = (strength, area) if area > best else (best_strength, best)
    model = LogisticRegression(C=best_strength, max_iter=500).fit(x, y)
    return round(float(roc_auc_score(test_y, model.decision_function(test_x))), 4)


def _said(prepared: Prepared, file_of: Any) -> dict[str, dict[str, float]]:
    """How well the answers, and the gold answers, name each group that a molecule has."""
    data = prepared.evaluations[0]
    identity = predict_id(prepared.config, prepared.train_id, data.task, data.examples)
    answers = {row["example_id"]: row["raw"] for row in read_jsonl(file_of(identity))}
    examples = [example for example in data.readable if example.id in answers and example.molecules]
    truth = [facts_of(example.molecules[0]) for example in examples]
    texts = {"answers": [answers[e.id] for e in examples], "references": [e.reference for e in examples]}
    named = {key: [groups_named(text) for text in group] for key, group in texts.items()}
    return {
        name: {
            key: balanced
            for key, rows in named.items()
            if (balanced := _balanced([row[name] for row in rows], [row[name] for row in truth])) is not None
        }
        for name in GROUPS
    }


def _balanced(said: Sequence[int], true: Sequence[int]) -> float | None:
    """The mean of the shares of present and of absent groups that are said rightly; None where either is lacking."""
    says, is_there = np.array(said, dtype=bool), np.array(true, dtype=bool)
    if not is_there.any() or is_there.all():
        return None
    return round(float((says[is_there].mean() + (~says[~is_there]).mean()) / 2), 4)
