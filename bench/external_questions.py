"""What another system was asked: the examples of a run, of a data set, or of a file; and which row answers which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.identity import content_hash, examples_hash
from bench.run_store import RunDirectory, read_json, read_jsonl
from tasks.base import AnswerKind, Example, Split, TaskError
from tasks.scoring import Pairing

_TASKS: Mapping[AnswerKind, str] = {
    "caption": "caption",
    "molecule": "design",
    "classification": "property-classification",
    "regression": "property-regression",
}
"""The task that a data set is taken for, by the kind of answer; with other settings a run says what was asked."""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Examples that a system was asked, as runs write them down.

    Args:
        examples_id: as in a run's result, so that rows of the same examples find each other.
        ids: of the examples.
        references: the gold answers, read as answers are.
        originals: the gold answers as the data set has them.
        molecules: the SMILES of each; empty tuples where unknown.
        groups: of each, where metrics are averaged over groups.
        task, answer, data, split: as in a run's result.
        limited: whether these are only some examples of the split.
        read: the answer in a text for the example at a place, or None where it holds none.
    """

    examples_id: str
    ids: Sequence[str]
    references: Sequence[str]
    originals: Sequence[str]
    molecules: Sequence[tuple[str, ...]]
    groups: Sequence[str] | None
    task: str
    answer: AnswerKind
    data: str
    split: str
    limited: bool
    read: Callable[[str, int], str | None] = lambda text, place: text.strip()


def questions_of_data(kind: AnswerKind, data: str, split: Split) -> Questions:
    """The examples of a data set, asked as the default task of this kind of answer asks.

    Raises:
        TaskError: the data set is missing, or does not suit the task.
        UserError: a gold answer cannot be read.
    """
    from bench.registry import registry
    from tasks.data import Catalogue

    task = registry().get("task", _TASKS[kind])(data=data)
    examples: list[Example] = task.examples(split, Catalogue())[0]
    if not examples:
        raise TaskError(f"--data {data}: no example of the {split} split suits the task {task.name}")
    golds = [task.parse(example.reference, example) for example in examples]
    unread = [example.id for example, gold in zip(examples, golds, strict=True) if gold is None]
    if unread:
        raise UserError(f"task {task.name}: cannot read the gold answers of {', '.join(unread[:3])}")
    groups = [example.meta.get("group") for example in examples]
    return Questions(
        examples_id=examples_hash(examples),
        ids=[example.id for example in examples],
        references=[gold for gold in golds if gold is not None],
        originals=[example.reference for example in examples],
        molecules=[example.molecules for example in examples],
        groups=[str(group) for group in groups] if all(group is not None for group in groups) else None,
        task=task.name,
        answer=kind,
        data=data,
        split=split,
        limited=False,
        read=lambda text, place: task.parse(text, examples[place]),
    )


def questions_of_run(folder: Path, kind: AnswerKind, data: str | None = None, split: str | None = None) -> Questions:
    """The examples that a finished run was asked.

    Raises:
        UserError: the folder is no finished run, or not exactly one of its evaluations is meant.
    """
    run = RunDirectory(folder)
    if not run.result_file.exists():
        raise UserError(f"--like {folder}: is no finished run")
    entries = [entry for entry in read_json(run.result_file)["evaluations"] if entry["answer"] == kind]
    meant = [entry for entry in entries if data in (None, entry["data"]) and split in (None, entry["split"])]
    # One run may have been asked the same examples in several ways.
    meant = list({entry["examples_id"]: entry for entry in meant}.values())
    if len(meant) != 1:
        known = ", ".join(f"{e['data']} {e['split']} ({e['n']:,} examples)" for e in entries) or "none"
        raise UserError(
            f"--like {folder}: {len(meant)} of its evaluations are meant; of the kind {kind} there are {known}: choose "
            "with --data and --split"
        )
    (entry,) = meant
    rows = read_jsonl(run.questions_file(entry["predict_id"]))
    groups = [row["meta"].get("group") for row in rows]
    return Questions(
        examples_id=entry["examples_id"],
        ids=[row["example_id"] for row in rows],
        references=[row["reference"] for row in rows],
        originals=[row["reference"] for row in rows],
        molecules=[tuple(row["molecules"]) for row in rows],
        groups=[str(group) for group in groups] if all(group is not None for group in groups) else None,
        task=entry["task"],
        answer=kind,
        data=entry["data"],
        split=entry["split"],
        limited=entry["limited"],
    )


def questions_of_file(pairing: Pairing, kind: AnswerKind, name: str, split: str) -> Questions:
    """The rows of a file as examples of their own: files with the same gold answers in the same order are comparable.

    Args:
        pairing: the file's rows.
        kind: of the answers.
        name: what the data are called.
        split: which part of them the rows are.
    """
    facts = pairing.facts
    molecules = facts.molecules or [()] * len(pairing.references)
    content = {"kind": kind, "references": pairing.references, "molecules": facts.molecules, "groups": facts.groups}
    return Questions(
        examples_id=content_hash(content),
        ids=[f"row-{number}" for number in range(1, len(pairing.references) + 1)],
        references=pairing.references,
        originals=pairing.references,
        molecules=molecules,
        groups=facts.groups,
        task=kind,
        answer=kind,
        data=name,
        split=split,
        limited=False,
    )


def rows_by_id(keys: Sequence[str | None], questions: Questions, column: str) -> list[int]:
    """For each example the row whose cell is its id.

    Raises:
        TaskError: a row has no example, an example no row, or two rows are of one example.
    """
    rows: dict[str, int] = {}
    for row, key in enumerate(keys):
        key = (key or "").strip()
        if key in rows:
            raise TaskError(f"--join {column}: {key!r} stands in two rows")
        rows[key] = row
    known = set(questions.ids)
    _require(sorted(key for key in rows if key not in known), f"rows that are no example of {_named(questions)}")
    _require(
        [example for example in questions.ids if example not in rows], f"examples of {_named(questions)} without a row"
    )
    return [rows[example] for example in questions.ids]


def rows_by_reference(pairing: Pairing, questions: Questions) -> list[int]:
    """For each example its row: by their order where all gold answers agree, else by gold answer.

    White space does not count. Where a gold answer stands in several rows, the molecules tell which is meant, written
    as the data set writes them; rows of the same molecules as well are taken in order.

    Raises:
        TaskError: a row has no example or an example no row, or nothing tells which belong together.
    """
    own = [_plain(text) for text in pairing.references]
    accepted = [(_plain(a), _plain(b)) for a, b in zip(questions.references, questions.originals, strict=True)]
    molecules = pairing.facts.molecules
    in_order = len(own) == len(accepted) and all(text in known for text, known in zip(own, accepted, strict=True))
    if in_order and (molecules is None or len(set(own)) > len(own) / 2 or list(molecules) == list(questions.molecules)):
        return list(range(len(own)))
    times = Counter(own)
    waiting: dict[str, list[int]] = {}
    for row, text in enumerate(own):
        waiting.setdefault(text, []).append(row)
    places: list[int] = []
    lacking: list[str] = []
    for place, example in enumerate(questions.ids):
        rows = next((found for text in accepted[place] if (found := waiting.get(text))), [])
        stands_twice = bool(rows) and times[own[rows[0]]] > 1
        if molecules is not None and stands_twice:
            rows = [row for row in rows if molecules[row] == tuple(questions.molecules[place])]
        elif stands_twice:
            raise TaskError(
                f"the gold answer {own[rows[0]][:60]!r} stands in several rows, which are not in the order of the "
                "examples; name the column of molecules with --molecule-column, or that of the examples' ids with "
                "--join"
            )
        if rows:
            places.append(rows[0])
            waiting[own[rows[0]]].remove(rows[0])
        else:
            lacking.append(example)
    _require(lacking, f"examples of {_named(questions)} without a row of the same gold answer")
    left = sorted(row for rows in waiting.values() for row in rows)
    lines = pairing.lines or range(1, len(own) + 1)
    _require([f"line {lines[row]}" for row in left], f"rows that are no example of {_named(questions)}")
    return places


def _require(lost: Sequence[str], what: str) -> None:
    if lost:
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        raise TaskError(f"{what}: {', '.join(lost[:3])}{more}; no example is left out silently")


def _named(questions: Questions) -> str:
    return f"{questions.data} {questions.split}"


def _plain(text: str) -> str:
    return " ".join(text.split())
