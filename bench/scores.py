"""Scores of stored predictions: from files alone, so that a run can be scored again without loading a model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import UserError
from bench.identity import content_hash, score_id
from bench.run_store import RunDirectory, read_json, read_jsonl, write_json, write_text
from tasks.base import AnswerKind, Basis, Direction, Estimate, ScoreTable, TaskError
from tasks.metrics.base import Protocol, RowFacts, basis_of, mean_estimate

if TYPE_CHECKING:
    from bench.runtime import Runtime
    from tasks.data import Catalogue
    from tasks.decontamination import Decontamination


TRAINING = "training"
"""Where parts of data sets are named: whatever the run was trained on."""


@dataclass(frozen=True, slots=True)
class Without:
    """Examples that are left out of a score because training data hold their molecules.

    Args:
        names: parts of data sets such as `chebi20/train`, or `training` for all that the run was trained on.
        by: what two molecules must share: `canonical`, `inchikey` (its first block) or `scaffold`.
    """

    names: tuple[str, ...]
    by: Literal["canonical", "inchikey", "scaffold"] = "inchikey"


def score_predictions(
    run: RunDirectory, predicted: str, kind: AnswerKind, protocol: Protocol, without: Decontamination | None = None
) -> dict[str, Any]:
    """One protocol's scores of one evaluation; computed once, then read from the run directory.

    A file of an older version, which does not say what each metric is computed from, is computed again.

    Args:
        run, predicted: where the evaluation's files are.
        kind: of the answers.
        protocol: how they are scored.
        without: leaves out examples; by the place that they have among the questions.

    Raises:
        UserError: predictions are missing, so that a part would be scored as if it were the whole.
        TaskError: the protocol does not score this kind of answer, or its tokenizer is missing.
    """
    identity = _identity(predicted, kind, protocol, without)
    file = run.scores_file(identity)
    stored: dict[str, Any] = read_json(file) if file.exists() else {}
    if "basis" in stored:
        better = {metric.name: metric.better for metric in protocol.metrics()[kind]}
        known = dict(stored["summary"])
        summary = {**known, "metrics": _with_directions(known["metrics"], better)}
        if summary != known:  # of a version that did not say which way is better
            _write(file, {**stored, "summary": summary})
        return summary
    questions = read_jsonl(run.questions_file(predicted))
    answers = {row["example_id"]: row["text"] for row in read_jsonl(run.predictions_file(predicted))}
    missing = sum(row["example_id"] not in answers for row in questions)
    if missing or not questions:
        raise UserError(
            f"{run.path}: {missing} of {len(questions)} answers are missing; `molgraft run` goes on with them"
        )
    if without is not None:
        questions = [row for row, is_leaked in zip(questions, without.leaked, strict=True) if not is_leaked]
    table = protocol.score(
        kind,
        [answers[row["example_id"]] for row in questions],
        [row["reference"] for row in questions],
        _facts(run, predicted, questions),
    )
    summary = {
        "protocol": table.protocol,
        "score_id": identity,
        "n": table.n,
        "n_invalid": table.n_invalid,
        "metrics": _with_directions({name: described(e) for name, e in table.metrics.items()}, table.better),
        "identity": dict(table.identity),
        **({"without": dict(without.description)} if without is not None else {}),
    }
    ids = [row["example_id"] for row in questions]
    _write(file, {"summary": summary, "example_ids": ids, **_of_examples(table, ids)})
    return summary


def _write(file: Path, parts: Mapping[str, Any]) -> None:
    """A line for each part: a number to a line would make the file twice as large, and reading it slow."""
    lines = (f'"{name}": {json.dumps(part, ensure_ascii=False, allow_nan=False)}' for name, part in parts.items())
    write_text(file, "{\n" + ",\n".join(lines) + "\n}\n")


def _with_directions(
    metrics: Mapping[str, Mapping[str, Any]], better: Mapping[str, Direction | None]
) -> dict[str, dict[str, Any]]:
    """Described estimates that say which way is better, for readers who do not have the metrics themselves."""
    return {name: {**known, **({"better": better[name]} if name in better else {})} for name, known in metrics.items()}


def _of_examples(table: ScoreTable, ids: Sequence[str]) -> dict[str, Any]:
    """What a protocol says of single examples: values of metrics, what these are computed from, and what is invalid."""
    known = {name: basis_of(estimate) for name, estimate in table.metrics.items()}
    return {
        "per_example": {name: list(e.per_example) for name, e in table.metrics.items() if e.per_example is not None},
        "basis": {name: _as_json(basis) for name, basis in known.items() if basis is not None},
        "invalid": {ids[place]: reason for place, reason in table.invalid.items()},
    }


def _as_json(basis: Basis) -> dict[str, Any]:
    """A basis as JSON; where it has no rows, `per_example` are its rows."""
    rows = None if basis.rows is None else [None if row is None else list(row) for row in basis.rows]
    groups = None if basis.groups is None else list(basis.groups)
    said = {"formula": basis.formula, "rows": rows, "groups": groups}
    return {name: value for name, value in said.items() if value is not None}


def changes(
    run: RunDirectory, predicted: str, kind: AnswerKind, protocol: Protocol, swapped: Mapping[str, str | None]
) -> dict[str, Any]:
    """By metric, the mean over examples of its value for the run's own answers less that for other answers.

    Only metrics that every example has by itself change in this way (a corpus BLEU by its sentences'), and only
    examples count for which both values are defined. Positive says that the own answers are better, except of a metric
    that measures errors.

    Args:
        run, predicted: where the evaluation's files are.
        kind: of the answers.
        protocol: by which both are scored.
        swapped: the other answers by example; only these examples are compared.
    """
    questions = [row for row in read_jsonl(run.questions_file(predicted)) if row["example_id"] in swapped]
    own = {row["example_id"]: row["text"] for row in read_jsonl(run.predictions_file(predicted))}
    references = [row["reference"] for row in questions]
    # Likelihoods of labels were measured for the own answers only, so they have no part here.
    facts = replace(_facts(run, predicted, questions), probabilities=None)
    tables = [
        protocol.score(kind, [answers[row["example_id"]] for row in questions], references, facts)
        for answers in (own, swapped)
    ]
    found = {}
    for name, estimate in tables[0].metrics.items():
        other = tables[1].metrics[name]
        if estimate.per_example is None or other.per_example is None:
            continue
        pairs = zip(estimate.per_example, other.per_example, strict=True)
        differences = [a - b for a, b in pairs if a is not None and b is not None]
        found[name] = {**described(mean_estimate(differences)), "n": len(differences)}
    return found


def probability_of_first(likelihoods: Sequence[float] | None) -> float | None:
    """The share of the first of two candidates in their likelihood; None where there are not two."""
    if likelihoods is None or len(likelihoods) != 2:
        return None
    # Written so that neither a large difference overflows nor a tie is anything but a half.
    difference = likelihoods[1] - likelihoods[0]
    return 1.0 / (1.0 + math.exp(difference)) if difference < 700 else 0.0


def _facts(run: RunDirectory, predicted: str, questions: Sequence[Mapping[str, Any]]) -> RowFacts:
    """What is known of questions beside their answers."""
    likelihoods = {row["example_id"]: row["likelihoods"] for row in read_jsonl(run.candidates_file(predicted))}
    groups = [row["meta"].get("group") for row in questions]
    return RowFacts(
        molecules=[tuple(row["molecules"]) for row in questions],
        probabilities=[probability_of_first(likelihoods.get(row["example_id"])) for row in questions]
        if likelihoods
        else None,
        groups=[str(group) for group in groups] if all(group is not None for group in groups) else None,
    )


def protocol_score_id(predicted: str, kind: AnswerKind, protocol: Protocol) -> str:
    """The identity that scores of these predictions have under a protocol.

    Raises:
        TaskError: the protocol does not score this kind of answer, or its tokenizer is missing.
    """
    return score_id(predicted, protocol, protocol.metrics().get(kind, ()), protocol.identity(kind))


def _identity(predicted: str, kind: AnswerKind, protocol: Protocol, without: Decontamination | None) -> str:
    identity = protocol_score_id(predicted, kind, protocol)
    return identity if without is None else content_hash({"score": identity, "without": without.description})


def rescore(
    folder: Path,
    protocols: Sequence[Protocol] | None,
    without: Without | None = None,
    catalogue: Catalogue | None = None,
    *,
    runtime: Runtime | None = None,
) -> list[dict[str, Any]]:
    """Scores all stored predictions of a finished run under further protocols, and notes them in its result.

    Facts about the examples are written where they are missing, as by a run of this version.

    Args:
        folder: of the run.
        protocols: those that do not score an evaluation's kind of answers are passed over for it. None for all that the
            run was scored under before: what files of older versions lack is added to them.
        without: scores fewer examples; noted under `decontaminated`, so that they are never taken for the others.
        catalogue: the data sets known by name.
        runtime: shows progress, and knows where the cache is.

    Raises:
        UserError: the folder is no finished run, it is being worked on, or no protocol scores any of its answers.
        TaskError: training data cannot be read.
    """
    from bench.facts import facts_of_finished
    from bench.runtime import Runtime

    directory = RunDirectory(folder)
    if directory.status().state != "done":
        raise UserError(f"{folder}: is no finished run ({directory.status().state}); `molgraft run` finishes it")
    with directory.lock():
        result = read_json(folder / "result.json")
        known = result["evaluations"]
        if protocols is None:
            for entry in known:
                _add_what_is_missing(directory, entry, catalogue)
        else:
            _score_anew(directory, known, protocols, without, catalogue)
        facts_of_finished(directory, known, catalogue, runtime or Runtime())
        write_json(folder / "result.json", result)
    evaluations: list[dict[str, Any]] = result["evaluations"]
    return evaluations


def _score_anew(
    directory: RunDirectory,
    entries: Sequence[dict[str, Any]],
    protocols: Sequence[Protocol],
    without: Without | None,
    catalogue: Catalogue | None,
) -> None:
    """Scores evaluations under the protocols that fit them, and notes the scores in them."""
    scored = 0
    for entry in entries:
        leaks = None if without is None else _leaks(directory, entry["predict_id"], without, catalogue)
        fitting = [protocol for protocol in protocols if entry["answer"] in protocol.metrics()]
        fresh = [score_predictions(directory, entry["predict_id"], entry["answer"], p, leaks) for p in fitting]
        scored += len(fresh)
        kept = "scores" if leaks is None else "decontaminated"
        entry[kept] = _merged(entry.get(kept, []), fresh)
    if not scored:
        kinds = sorted({entry["answer"] for entry in entries})
        named = ", ".join(protocol.name for protocol in protocols)
        raise UserError(
            f"{directory.path}: its answers are of the kind {', '.join(kinds)}, which {named} does not score"
        )


def _add_what_is_missing(directory: RunDirectory, entry: Mapping[str, Any], catalogue: Catalogue | None) -> None:
    """Adds to scores of older versions what they do not say, computing them again where that needs the answers.

    Each is made under the settings that it was made with.

    What cannot be made as it was (a setting, a package or a data file has changed) stays as it is.
    """
    predicted, kind = entry["predict_id"], entry["answer"]
    stale = [score for score in _scores_of(entry) if not _says_all(score, directory.scores_file(score["score_id"]))]
    candidates = _protocols_of(directory, [score["protocol"] for score in stale]) if stale else []
    for score in stale:
        try:
            leaks = None
            if "without" in score:
                said = score["without"]
                parts = tuple(corpus["data"] for corpus in said["against"])
                leaks = _leaks(directory, predicted, Without(parts, said["by"]), catalogue)
            for protocol in candidates:
                if kind in protocol.metrics() and _identity(predicted, kind, protocol, leaks) == score["score_id"]:
                    score.update(score_predictions(directory, predicted, kind, protocol, leaks))
        except (TaskError, OSError):
            continue


def _says_all(score: Mapping[str, Any], file: Path) -> bool:
    """Whether a score says what each metric is computed from, and which way is better."""
    directed = all("better" in estimate for estimate in score["metrics"].values())
    return directed and file.exists() and "basis" in read_json(file)


def _scores_of(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All scores of an evaluation, of all examples and of some."""
    return [*entry["scores"], *entry.get("decontaminated", [])]


def _protocols_of(directory: RunDirectory, names: Sequence[str]) -> list[Protocol]:
    """Protocols of these names (with versions): as the run has them set, and as they are by default."""
    from bench.preset import load_config
    from bench.registry import registry

    wanted = {name.partition("@")[0] for name in names}
    is_ours = directory.config_file.exists()  # not so of another system's predictions
    configured = load_config(str(directory.config_file)).evaluation.protocols if is_ours else ()
    default = [protocol() for name, protocol in sorted(registry().all("protocol").items()) if name in wanted]
    return [*(protocol for protocol in configured if protocol.name in wanted), *default]


def _leaks(run: RunDirectory, predicted: str, without: Without, catalogue: Catalogue | None) -> Decontamination:
    """Which of an evaluation's questions ask about molecules that training data hold."""
    from tasks.data import Catalogue
    from tasks.decontamination import decontaminate

    trained_on = sorted(part for part in read_json(run.manifest_file)["data"] if part.endswith("/train"))
    names = [part for name in without.names for part in (trained_on if name == TRAINING else [name])]
    molecules = [row["molecules"] for row in read_jsonl(run.questions_file(predicted))]
    return decontaminate(molecules, list(dict.fromkeys(names)), catalogue or Catalogue(), by=without.by)


def _merged(earlier: Sequence[dict[str, Any]], fresh: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All scores, the fresh ones in the place of earlier ones of the same protocol and the same examples left out."""

    def key(score: Mapping[str, Any]) -> tuple[str, str]:
        return score["protocol"], content_hash(score.get("without"))

    replaced = {key(score) for score in fresh}
    return [*(score for score in earlier if key(score) not in replaced), *fresh]


def described(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON, with the reason where it is undefined."""
    interval = list(estimate.ci95) if estimate.ci95 else None
    known: dict[str, Any] = {"value": estimate.value, "ci95": interval}
    return known if estimate.reason is None else {**known, "reason": estimate.reason}
