"""What a cell answered, example by example: its own answers, those under swapped graphs, scores and gains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.facts import example_novelty
from results.reliance import example_gains
from results.runs import Run
from results.scores import ExampleScores, example_scores
from results.tables.gather import Answer as Scored


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked about an example.

    Args:
        prompt: verbatim.
        reference: the gold answer.
        molecules: their SMILES.
    """

    prompt: str
    reference: str
    molecules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        text: as it was written.
        parsed: what the task read in it; None where it could read nothing.
        ended_by_length: whether it was cut off at the most tokens that were allowed.
    """

    text: str
    parsed: str | None
    ended_by_length: bool


@dataclass(frozen=True, slots=True)
class CellAnswers:
    """One cell's answers over its seeds.

    Args:
        cell: its name in the report.
        scores: by metric and example, the mean over seeds.
        gains: by example, how much likelier the gold answer is with its own graph, in nats per token; mean over seeds.
        invalid: by example, why an answer counts as invalid; of any seed.
        seed: whose answers are shown; None where no answers are stored.
        own: by example, the answers of that seed.
        swapped: by example, its answers under another molecule's graph.
        questions: by example.
        n_seeds: how many seeds the means are over.
        novelty: by example, how near this cell's training data came to it.
        is_packed: whether its runs were read from their packed form.
    """

    cell: str
    scores: Mapping[str, Mapping[str, float]]
    gains: Mapping[str, float]
    invalid: Mapping[str, str]
    seed: int | None
    own: Mapping[str, Answer]
    swapped: Mapping[str, Answer]
    questions: Mapping[str, Question]
    n_seeds: int
    novelty: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_packed: bool = False


def read_answers(cell: str, asked: Sequence[Scored]) -> CellAnswers:
    """One cell's answers; whatever a packed or an older run lacks is empty.

    Args:
        cell: its name.
        asked: its runs by seed; the answers of the first that has any are shown.

    Raises:
        ResultsError: a file cannot be read.
    """
    stored = [found for item in asked if (found := example_scores(item.run, item.score)) is not None]
    shown = next((item for item in asked if item.run.lines(_predictions(item.entry))), None)
    invalid: dict[str, str] = {}
    for scores in stored:
        invalid |= scores.invalid
    return CellAnswers(
        cell=cell,
        scores=_mean_scores(stored),
        gains=_mean_of([example_gains(item) for item in asked]),
        invalid=invalid,
        seed=shown.run.seed if shown else None,
        own=_answers(shown.run.lines(_predictions(shown.entry))) if shown else {},
        swapped=_answers(_swapped_rows(shown.run, shown.entry)) if shown else {},
        questions=_questions(asked),
        n_seeds=len(asked),
        # Seeds of a cell may have drawn other training examples; what is told is about the answers that are shown.
        novelty=example_novelty([shown, *asked] if shown else asked),
        is_packed=any(item.run.packed is not None for item in asked),
    )


def reasons_of(answers: CellAnswers) -> list[tuple[str, int]]:
    """Why answers count as invalid, the most frequent reason first."""
    return Counter(answers.invalid.values()).most_common()


def _mean_scores(stored: Sequence[ExampleScores]) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(name for scores in stored for name in scores.values)
    return {
        name: _mean_of(
            [
                dict(zip(scores.example_ids, scores.values[name].tolist(), strict=True))
                for scores in stored
                if name in scores.values
            ]
        )
        for name in names
    }


def _mean_of(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By example, the mean over the seeds that have a value; NaN is none."""
    found: dict[str, list[float]] = {}
    for values in seeds:
        for example, value in values.items():
            if value == value:
                found.setdefault(example, []).append(value)
    return {example: sum(values) / len(values) for example, values in found.items()}


def _predictions(entry: Mapping[str, Any]) -> str:
    return f"predictions/{entry.get('predict_id')}.jsonl"


def _questions(asked: Sequence[Scored]) -> dict[str, Question]:
    for item in asked:
        rows = item.run.lines(f"predictions/{item.entry.get('predict_id')}.questions.jsonl")
        if rows:
            return {row["example_id"]: _question(row) for row in rows}
    return {}


def _question(row: Mapping[str, Any]) -> Question:
    # Of another system's predictions prompts are not known, and molecules may not be.
    molecules = tuple(map(str, row.get("molecules") or ()))
    return Question(str(row.get("prompt") or ""), str(row.get("reference") or ""), molecules)


def _answers(rows: Iterable[Mapping[str, Any]]) -> dict[str, Answer]:
    return {
        row["example_id"]: Answer(row.get("raw") or row.get("text") or "", row.get("text"), row.get("stop") == "length")
        for row in rows
    }


def _swapped_rows(run: Run, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answers under swapped graphs; older results do not name their file, which is then told by its examples."""
    reliance = entry.get("reliance", {})
    if reliance.get("answers_id"):
        return run.lines(f"reliance/{reliance['answers_id']}.answers.jsonl")
    if not reliance.get("metrics") or run.packed is not None:
        return []
    measured = run.lines(f"reliance/{reliance.get('reliance_id')}.jsonl")
    counted = {row["example_id"] for row in measured if row["counts"]}
    fitting = []
    for file in sorted(run.folder.glob("reliance/*.answers.jsonl")):
        rows = run.lines(f"reliance/{file.name}")
        if {row["example_id"] for row in rows} == counted:
            fitting.append(rows)
    # Two files for the same examples are two ways of asking, and nothing says which is which.
    return fitting[0] if len(fitting) == 1 else []
