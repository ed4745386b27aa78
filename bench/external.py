"""Predictions of other systems among the runs: scored as ours are, and marked as theirs.

The folder looks like a finished run's, so that tables, leaderboards and `molgraft score RUN` read it; its result says
`"external": true`, and what is not known of such a system (seeds, parameters, training) is null.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.external_questions import (
    Questions,
    questions_of_data,
    questions_of_file,
    questions_of_run,
    rows_by_id,
    rows_by_reference,
)
from bench.identity import content_hash
from bench.provenance import provenance
from bench.run_store import RunDirectory, read_json, write_json, write_text
from bench.scores import score_predictions
from tasks.base import SPLITS, AnswerKind, Prediction
from tasks.metrics.base import Protocol
from tasks.scoring import Pairing, pair
from tasks.table_files import read_table

_CERTAIN = 745.0  # nats; a probability of 0 has no finite logarithm, and exp(-745) is the smallest number above 0
_LONGEST = 60  # characters of a name in a folder's name


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Where it stands what a system was asked.

    Args:
        like: a run that was asked the same examples.
        data, split: the data set and its part, where no run is named; of several evaluations of a run, which is meant.
        reference: a file with the gold answers.
        join: the column of both files that says which rows belong together; without `reference`, the column that holds
            the ids of the examples.
        columns: of predictions, gold answers, molecules, probabilities and groups, where they are named.
    """

    like: Path | None = None
    data: str | None = None
    split: str | None = None
    reference: Path | None = None
    join: str | None = None
    columns: tuple[str | None, str | None, str | None, str | None, str | None] = (None,) * 5


def enter_file(
    file: Path, name: str, kind: AnswerKind, protocols: Sequence[Protocol], asked: Asked, runs: Path
) -> Path:
    """Enters a file of predictions among the runs.

    Without `like` and `data` the file's own rows are the examples: then it can be ranked with others of the same rows.

    Args:
        file: TSV, CSV or JSONL.
        name: of the system.
        kind: of its answers.
        protocols: how they are scored.
        asked: what it was asked.
        runs: the folder of runs.

    Returns:
        The folder of the entry.

    Raises:
        TaskError: the file cannot be used, or its rows are not those of the examples.
        UserError: what it was asked is not known, or other predictions of that name are there.
    """
    known = _known_questions(kind, asked)
    if known is not None and asked.join is not None and asked.reference is None:
        pairing = _answers_by_id(file, asked, known)
        rows = list(range(len(known.ids)))
    else:
        pairing = _pairing(file, asked)
        rows = list(range(len(pairing.references))) if known is None else rows_by_reference(pairing, known)
    if known is None:
        title = (asked.reference or file).name.partition(".")[0]
        known = questions_of_file(pairing, kind, asked.data or title, asked.split or "test")
    probabilities = pairing.facts.probabilities
    return enter(
        name,
        known,
        [pairing.predictions[row] for row in rows],
        protocols,
        runs=runs,
        source=file,
        probabilities=None if probabilities is None else [probabilities[row] for row in rows],
    )


def enter(
    name: str,
    questions: Questions,
    predictions: Sequence[str | None],
    protocols: Sequence[Protocol],
    *,
    runs: Path,
    source: Path,
    probabilities: Sequence[float | None] | None = None,
) -> Path:
    """Writes and scores a system's predictions as a folder among the runs; doing it again changes nothing.

    Args:
        name: of the system.
        questions: what it was asked.
        predictions: its answers, in the order of the examples; None where there is none.
        protocols: how they are scored; those that do not score this kind of answer are refused.
        runs: the folder of runs.
        source: the file that the predictions are from.
        probabilities: of the positive label, in the order of the examples.

    Returns:
        The folder.

    Raises:
        UserError: other predictions have been entered under this name for these examples, or the name is empty.
        TaskError: a protocol does not score this kind of answer.
    """
    if not name.strip():
        raise UserError("--enter: a name is needed, by which the system is shown")
    told = {"external": name, "examples": questions.examples_id, "predictions": list(predictions)}
    identity = content_hash({**told, "probabilities": None if probabilities is None else list(probabilities)})
    for earlier in sorted(runs.glob(f"{_slug(name)}-external-*/result.json")):
        known = read_json(earlier)
        is_same = known["name"] == name and known["evaluations"][0]["examples_id"] == questions.examples_id
        if is_same and known["train_id"] != identity:
            raise UserError(
                f"--enter {name}: {earlier.parent} holds other predictions of that name for the same examples; "
                "remove it, or choose another name"
            )
    run = RunDirectory(runs / f"{_slug(name)}-external-{identity}")
    with run.lock():
        run.begin_attempt()
        _write_answers(run, identity, questions, predictions, probabilities)
        scores = [score_predictions(run, identity, questions.answer, protocol) for protocol in protocols]
        cell = content_hash({"external": name})
        _write_manifest(run, identity, cell, len(questions.ids), source)
        write_json(run.result_file, _result(run, name, identity, cell, questions, source, scores))
        run.set_status("done", "done")
    return run.path


def _known_questions(kind: AnswerKind, asked: Asked) -> Questions | None:
    if asked.like is not None:
        return questions_of_run(asked.like, kind, asked.data, asked.split)
    if asked.data is None:
        if asked.split is not None:
            raise UserError("--split: of which data set? Give --data as well")
        return None
    split = asked.split or "test"
    if split not in SPLITS:
        raise UserError(f"--split {split}: unknown; it is one of {', '.join(SPLITS)}")
    return questions_of_data(kind, asked.data, split)


def _pairing(file: Path, asked: Asked) -> Pairing:
    predictions, references, molecules, probabilities, groups = asked.columns
    return pair(
        read_table(file),
        prediction_column=predictions,
        reference_column=references,
        reference=None if asked.reference is None else read_table(asked.reference),
        join=asked.join,
        molecule_column=molecules,
        probability_column=probabilities,
        group_column=groups,
    )


def _answers_by_id(file: Path, asked: Asked, questions: Questions) -> Pairing:
    """The answers of a file without gold answers, in the order of the examples."""
    table = read_table(file)
    assert asked.join is not None
    rows = rows_by_id(table.column(asked.join), questions, asked.join)
    # The gold answers are those of the examples, so that the column of ids may stand for them.
    pairing = _pairing(file, replace(asked, join=None, columns=(asked.columns[0], asked.join, *asked.columns[2:])))
    return Pairing(
        [pairing.predictions[row] for row in rows], list(questions.references), pairing.facts.of(rows), pairing.lines
    )


def _write_answers(
    run: RunDirectory,
    identity: str,
    questions: Questions,
    predictions: Sequence[str | None],
    probabilities: Sequence[float | None] | None,
) -> None:
    asked, answered, likelihoods = [], [], []
    for place, example in enumerate(questions.ids):
        meta = {} if questions.groups is None else {"group": questions.groups[place]}
        reference = questions.references[place]
        row = {
            "example_id": example,
            "molecules": list(questions.molecules[place]),
            "prompt": "",
            "reference": reference,
        }
        asked.append({**row, "candidates": [], "meta": meta})
        raw = predictions[place]
        text = None if raw is None else questions.read(raw, place)
        answered.append(asdict(Prediction(example, "", raw or "", text, 0, "eos")))
        probability = None if probabilities is None else probabilities[place]
        if probability is not None:
            pair = [_logarithm(probability), _logarithm(1.0 - probability)]
            likelihoods.append({"example_id": example, "likelihoods": pair})
    _write_lines(run.questions_file(identity), asked)
    _write_lines(run.predictions_file(identity), answered)
    if likelihoods:
        _write_lines(run.candidates_file(identity), likelihoods)


def _result(
    run: RunDirectory,
    name: str,
    identity: str,
    cell: str,
    questions: Questions,
    source: Path,
    scores: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    earlier = read_json(run.result_file)["evaluations"][0] if run.result_file.exists() else {}
    fresh = {score["protocol"] for score in scores}
    facts = f"{questions.examples_id}.jsonl.gz"
    entry = {
        **{key: getattr(questions, key) for key in ("task", "answer", "data", "split")},
        "n": len(questions.ids),
        "limited": questions.limited,
        "evaluation_id": content_hash({"external": name}),
        "examples_id": questions.examples_id,
        **dict.fromkeys(("graph_input", "text_input", "prompt", "generation")),
        "predict_id": identity,
        "scores": [*(s for s in earlier.get("scores", ()) if s["protocol"] not in fresh), *scores],
        **({"decontaminated": earlier["decontaminated"]} if "decontaminated" in earlier else {}),
        "facts": facts if (run.path.parent / ".examples" / facts).exists() else None,
        "novelty": None,
        "observed": {},
        "reliance": {"value": None, "reason": "predictions of another system"},
    }
    unknown = ("seed", "encoder", "projector", "llm", "text_input", "graph_input", "parameters")
    return {
        "name": name,
        "external": True,
        "cell_id": cell,
        "train_id": identity,
        "source": source.name,
        **dict.fromkeys((*unknown, "training_seconds")),
        "evaluations": [entry],
    }


def _write_manifest(run: RunDirectory, identity: str, cell: str, n: int, source: Path) -> None:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    write_json(
        run.manifest_file,
        {
            "train_id": identity,
            "cell_id": cell,
            "external": True,
            "source": {"file": source.name, "sha256": digest},
            "data": {},
            "examples": {"evaluation": [n]},
            "sessions": [provenance()],
        },
    )


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _logarithm(probability: float) -> float:
    return max(math.log(probability), -_CERTAIN) if probability > 0 else -_CERTAIN


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", name)[:_LONGEST].strip("-.") or "system"
