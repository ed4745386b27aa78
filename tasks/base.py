"""The types that a task hands on: examples, turns, predictions and scores.

Nothing here knows tokens, tensors or models. A task turns rows of a data set into `Example`s; `tasks.prompts` renders
them as text with placeholders for molecules; `tasks.metrics` turns predictions and references into `Score`s.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from tasks.data import Catalogue

Role = Literal["system", "user", "assistant"]
Split = Literal["train", "validation", "test"]
AnswerKind = Literal["caption", "molecule", "classification", "regression"]
Direction = Literal["larger", "smaller"]
"""Which values of a metric are better."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

MoleculePart = Literal["both", "graph", "text"]

# A molecule's place in a turn: its index and, where one part alone stands there, that part's letter, between two U+FFFC
# (object replacement) characters, which no data set at hand contains; `DataSet.rows` refuses a value that does.
_SLOT_MARK = "\ufffc"
_LETTERS: Mapping[MoleculePart, str] = {"both": "", "graph": "g", "text": "t"}
_PARTS: Mapping[str, MoleculePart] = {letter: part for part, letter in _LETTERS.items()}
_SLOT = re.compile(f"{_SLOT_MARK}(\\d+)([gt]?){_SLOT_MARK}")


class TaskError(ValueError):
    """A mistake in data, in a task's settings or in a file of predictions; the message is meant for the user."""

    is_user_error: ClassVar[bool] = True


@dataclass(frozen=True, slots=True)
class Slot:
    """A molecule's place in a turn.

    Args:
        index: into `Example.molecules`.
        part: what stands there: its `graph`, its `text`, or `both` as `prompt.molecule` puts them together.
    """

    index: int
    part: MoleculePart = "both"


def slot(index: int, part: MoleculePart = "both") -> str:
    """The mark that stands for `Example.molecules[index]`, or for a part of it, inside a turn's text."""
    return f"{_SLOT_MARK}{index}{_LETTERS[part]}{_SLOT_MARK}"


def split_slots(text: str) -> Iterator[str | Slot]:
    """The pieces of a turn's text in order: strings, and slots where molecules are placed."""
    position = 0
    for match in _SLOT.finditer(text):
        if match.start() > position:
            yield text[position : match.start()]
        yield Slot(int(match.group(1)), _PARTS[match.group(2)])
        position = match.end()
    if position < len(text):
        yield text[position:]


def in_part(text: str, part: MoleculePart) -> str:
    """`text` with a part of each molecule in its place; of graphs alone, without what stands between them."""
    pieces = split_slots(text)
    if part == "graph":
        return "".join(slot(piece.index, part) for piece in pieces if isinstance(piece, Slot))
    return "".join(piece if isinstance(piece, str) else slot(piece.index, part) for piece in pieces)


@dataclass(frozen=True, slots=True)
class Turn:
    """One utterance. A supervised turn is an answer that training teaches; all others are read only."""

    role: Role
    text: str
    supervised: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """One question about zero or more molecules, and its gold answer.

    Args:
        id: unique within a data set and split.
        molecules: SMILES; turns refer to them through `slot(index)`, or `slot(index, part)` where graph and text stand
            in different places.
        turns: the dialogue; the last supervised turn is the gold answer that predictions are compared with.
        candidates: label texts of a classification, the positive one first where there are two; else empty.
        meta: JSON values that no model reads: `file` and `line` of the row it came from, `group` where metrics are
            averaged over parts (the assays of Tox21), and what results may show beside the scores (scaffold,
            functional groups).
    """

    id: str
    molecules: tuple[str, ...]
    turns: tuple[Turn, ...]
    candidates: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The gold answer: the text of the last supervised turn."""
        for turn in reversed(self.turns):
            if turn.supervised:
                return turn.text
        raise TaskError(f"example {self.id} has no supervised turn, so nothing to learn or to compare with")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that was left out: where it stands, what it holds, and why.

    Args:
        expected: the row has nothing to ask about, such as a molecule without a label, and there is no fault in it. It
            is listed and counted all the same, but many of them are no reason to stop.
    """

    file: str
    line: int
    value: str
    reason: str
    expected: bool = False


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What is asked and how an answer is read. One subclass, one file in `tasks/`.

    Args:
        data: name of a data set of the registry, or the path of a YAML file that describes one.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same fields begin to give other examples or other parsed answers
    answer: ClassVar[AnswerKind]
    columns: ClassVar[tuple[str, ...]]  # the column roles that a data set must have for this task

    data: str

    @abstractmethod
    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:
        """All usable examples of `split` in file order, and every row that was left out with its reason.

        Raises:
            TaskError: the data set is missing, broken, or lacks a column that the task needs.
        """

    def parse(self, raw: str, example: Example) -> str | None:
        """The answer inside a raw generation, or None where it cannot be read as one (counted, never dropped).

        Gold answers are read in the same way before the two are compared, so that a task may let models write SELFIES
        and be scored on SMILES; every gold answer must be readable.
        """
        return raw.strip()


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of a predictions file.

    Args:
        example_id: the `Example.id` that was asked.
        prompt_sha: first 16 hex digits of the sha256 of the rendered prompt, graph placeholders included.
        raw: the text as generated, special tokens removed.
        text: what `Task.parse` made of it; None where it could not be parsed.
        tokens: number of generated tokens, the end token included.
        stop: why generation ended.
    """

    example_id: str
    prompt_sha: str
    raw: str
    text: str | None
    tokens: int
    stop: Literal["eos", "length"]


@dataclass(frozen=True, slots=True)
class Basis:
    """What a metric is computed from, row by row: with it the metric of any part or resample of the rows is known.

    Args:
        formula: the name of the function from rows to the metric. `results/statistics/formulas.py` has each of them;
            a formula that stands there alone makes a metric of one's own fit for paired tests.
        rows: for each row the formula's columns, or None for a row that has no part in the metric. None as a whole
            where the only column is the estimate's `per_example`.
        groups: the group of each row, where the formula takes the mean over groups; "" for a row without a part.
    """

    formula: str
    rows: Sequence[Sequence[float] | None] | None = None
    groups: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric's value over a set of examples.

    Args:
        value: None where it is undefined; `reason` then says why and what would define it.
        ci95: percentile bootstrap interval over examples; None where `value` is None or n < 2.
        per_example: the metric of each row where it has one (None for a row that cannot be scored), else None.
        basis: what `value` is computed from; None where there is no value, or where a metric does not say.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    reason: str | None = None
    per_example: Sequence[float | None] | None = None
    basis: Basis | None = None


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """What a protocol says about a file of predictions.

    Args:
        kind: the kind of answer that was scored.
        protocol: its name and version, such as `molt5@1`.
        n: rows scored, the invalid ones included.
        n_invalid: rows whose prediction could not be parsed (an empty caption is valid, if poor).
        metrics: by metric name, in the order in which the protocol lists them.
        identity: everything beside the rows that the numbers depend on (tokenizer hash, package versions).
        invalid: why each invalid row is so, by its place among the rows.
        better: by metric name, which of its values are better; None where neither is.
    """

    kind: AnswerKind
    protocol: str
    n: int
    n_invalid: int
    metrics: Mapping[str, Estimate]
    identity: Mapping[str, str]
    invalid: Mapping[int, str] = field(default_factory=dict)
    better: Mapping[str, Direction | None] = field(default_factory=dict)
