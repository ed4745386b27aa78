"""Hold a conversation about a molecule (LLaMo's GPT-4 dialogues, DrugChat's ChEMBL-QA), every answer supervised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from tasks.base import AnswerKind, Example, MoleculePart, Rejection, Split, Task, TaskError, Turn, slot

if TYPE_CHECKING:
    from tasks.data import Catalogue, Row

_MOLECULE = "{molecule}"
_PLACES: Mapping[str, MoleculePart] = {_MOLECULE: "both", "{molecule.graph}": "graph", "{molecule.text}": "text"}
_RESERVED = slot(0)[0]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation: its id, its molecule, and each question with its answer and the row that it came from."""

    id: str
    smiles: str
    exchanges: tuple[tuple[str, str, Row], ...]


class Malformed(ValueError):
    """A dialogue that cannot be used; the message is the reason that is listed."""


@dataclass(frozen=True, kw_only=True)
class Instruction(Task):
    """One molecule in, then questions and answers in turns.

    In training an example is a whole dialogue and every answer of it is taught. In validation and test the answer
    that is asked for comes after the gold dialogue so far, and only it is supervised.

    Args:
        data: a data set with the columns `smiles` and `dialogue`, a JSON list of objects with `role` (`user` and
            `assistant` in turns) and `content`; or with the columns `smiles`, `question` and `answer`, whose rows are
            gathered by molecule.
        first_question: the first user turn, with `{question}` and `{molecule}`, or `{molecule.graph}` and
            `{molecule.text}` where graph and text stand apart; a dialogue in which any of them stands already is left
            as it is.
        asked: what is asked in validation and test: the `last` answer of each dialogue, or `each` answer.
        turns_per_dialogue: questions and answers of one molecule that make one dialogue, where rows are gathered.
    """

    name: ClassVar[str] = "instruction"
    version: ClassVar[int] = 2  # answers that are only read are tokenised as when they were learned
    answer: ClassVar[AnswerKind] = "caption"
    columns: ClassVar[tuple[str, ...]] = ("smiles",)

    first_question: str = "{molecule}\n{question}"
    asked: Literal["last", "each"] = "last"
    turns_per_dialogue: Annotated[int, Ge(1)] = 5

    def __post_init__(self) -> None:
        if self.first_question.count("{question}") != 1 or not _is_placed_once([self.first_question]):
            raise TaskError(
                f"task.first_question is {self.first_question!r}: it must hold `{{question}}` once, and once "
                "`{molecule}`, or else `{molecule.graph}`, `{molecule.text}` or both"
            )

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        dataset = catalogue.get(self.data)
        dataset.require(self.columns, f"task {self.name}")
        rows, rejections = dataset.rows(split)
        if "dialogue" in dataset.roles:
            dialogues = _written(rows, rejections)
        else:
            dataset.require(("question", "answer"), f"task {self.name}, without a column for the role 'dialogue',")
            dialogues = _gathered(rows, rejections, self.turns_per_dialogue)
        examples: list[Example] = []
        for dialogue in dialogues:
            examples += [self._whole(dialogue)] if split == "train" else self._asked(dialogue)
        return examples, rejections

    def _whole(self, dialogue: Dialogue) -> Example:
        row = dialogue.exchanges[0][2]
        meta = {"file": row.file, "line": row.line, "answers": len(dialogue.exchanges)}
        return Example(dialogue.id, (dialogue.smiles,), tuple(self._turns(dialogue)), meta=meta)

    def _asked(self, dialogue: Dialogue) -> Iterator[Example]:
        turns = list(self._turns(dialogue))
        history = [replace(turn, supervised=False) for turn in turns]
        count = len(dialogue.exchanges)
        for number in range(1 if self.asked == "each" else count, count + 1):
            row = dialogue.exchanges[number - 1][2]
            meta = {"file": row.file, "line": row.line, "answers": 1, "turn": number}
            name = f"{dialogue.id}.{number}" if self.asked == "each" else dialogue.id
            last = 2 * number - 1
            yield Example(name, (dialogue.smiles,), (*history[:last], turns[last]), meta=meta)

    def _turns(self, dialogue: Dialogue) -> Iterator[Turn]:
        placed = any(place in question for question, _, _ in dialogue.exchanges for place in _PLACES)
        for number, (question, answer, _) in enumerate(dialogue.exchanges):
            asked = question
            if number == 0 and not placed:
                asked = self.first_question.replace("{question}", question)
            for place, part in _PLACES.items():
                asked = asked.replace(place, slot(0, part))
            yield Turn("user", asked)
            yield Turn("assistant", answer, supervised=True)


def _written(rows: Iterable[Row], rejections: list[Rejection]) -> Iterator[Dialogue]:
    """The dialogues of rows that hold one each."""
    for row in rows:
        smiles = row.values["smiles"].strip()
        try:
            if not smiles:
                raise Malformed("the SMILES is empty")
            exchanges = tuple((*exchange, row) for exchange in _exchanges(row.values["dialogue"]))
        except Malformed as reason:
            rejections.append(Rejection(row.file, row.line, row.values["dialogue"], str(reason)))
            continue
        yield Dialogue(row.id, smiles, exchanges)


def _exchanges(text: str) -> list[tuple[str, str]]:
    """The questions and answers of a dialogue in JSON."""
    try:
        turns = json.loads(text) if text.strip() else []
    except (json.JSONDecodeError, RecursionError) as error:
        raise Malformed(f"the dialogue is not JSON: {error}") from None
    if not isinstance(turns, list) or not turns:
        raise Malformed("the dialogue is no list of turns" if turns else "the dialogue is empty")
    contents = [_content(turn, number) for number, turn in enumerate(turns, start=1)]
    if len(contents) % 2:
        raise Malformed(f"turn {len(contents)}, the last, is a question without an answer")
    exchanges = list(zip(contents[::2], contents[1::2], strict=True))
    _check_places(exchanges)
    return exchanges


def _content(turn: Any, number: int) -> str:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise Malformed(f"turn {number} is no object with a role and a content that is text")
    expected = "user" if number % 2 else "assistant"
    if turn.get("role") != expected:
        raise Malformed(f"turn {number} has the role {turn.get('role')!r}, not {expected!r}: the two take turns")
    content: str = turn["content"].strip()
    if not content:
        raise Malformed(f"turn {number} ({expected}) is empty")
    return content


def _check_places(exchanges: Sequence[tuple[str, str]]) -> None:
    questions = [question for question, _ in exchanges]
    if any(place in question for question in questions for place in _PLACES) and not _is_placed_once(questions):
        raise Malformed("`{molecule}` stands more than once")
    if any(place in answer for _, answer in exchanges for place in _PLACES):
        raise Malformed("`{molecule}` stands in an answer, where no molecule can be placed")
    if any(_RESERVED in text for exchange in exchanges for text in exchange):  # JSON may have hidden it as \ufffc
        raise Malformed("it holds U+FFFC, which molgraft needs to mark a molecule's place in a text")


def _is_placed_once(questions: Sequence[str]) -> bool:
    """Whether questions place a molecule, and neither its graph nor its text twice."""
    whole, graph, text = (sum(question.count(place) for question in questions) for place in _PLACES)
    return whole + max(graph, text) == 1


def _gathered(rows: Iterable[Row], rejections: list[Rejection], turns: int) -> Iterator[Dialogue]:
    """The dialogues of rows that hold one question each: `turns` of one molecule at a time, in file order."""
    of_molecule: dict[str, list[tuple[str, str, Row]]] = {}
    for row in rows:
        smiles, question, answer = (row.values[role].strip() for role in ("smiles", "question", "answer"))
        empty = next((r for r, v in (("SMILES", smiles), ("question", question), ("answer", answer)) if not v), None)
        try:
            if empty:
                raise Malformed(f"the {empty} is empty")
            _check_places([(question, answer)])
        except Malformed as reason:
            rejections.append(Rejection(row.file, row.line, smiles or question or answer, str(reason)))
            continue
        of_molecule.setdefault(smiles, []).append((question, answer, row))
    for smiles, exchanges in of_molecule.items():
        for start in range(0, len(exchanges), turns):
            chosen = tuple(exchanges[start : start + turns])
            yield Dialogue(chosen[0][2].id, smiles, chosen)
