"""Describe a molecule in words (MolT5's task on ChEBI-20; MolCA's and LLaMo's on PubChem324k)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn
from tasks.question_templates import Question

if TYPE_CHECKING:
    from tasks.data import Catalogue


@dataclass(frozen=True, kw_only=True)
class Caption(Task):
    """One molecule in, its description out.

    Args:
        data: a data set with the columns `smiles` and `caption`.
        question: the user's turn, or the name of a template; `{molecule}` is where the molecule stands.
    """

    name: ClassVar[str] = "caption"
    answer: ClassVar[AnswerKind] = "caption"
    columns: ClassVar[tuple[str, ...]] = ("smiles", "caption")

    question: str = "{molecule}\nDescribe the molecule."

    def __post_init__(self) -> None:
        Question(self.name, self.question)

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        dataset = catalogue.get(self.data)
        dataset.require(self.columns, f"task {self.name}")
        rows, rejections = dataset.rows(split)
        asked = Question(self.name, self.question)
        examples = []
        for row in rows:
            smiles, caption = row.values["smiles"].strip(), row.values["caption"].strip()
            if not smiles or not caption:
                missing = "SMILES" if not smiles else "caption"
                rejections.append(Rejection(row.file, row.line, smiles or caption, f"the {missing} is empty"))
                continue
            turns = (Turn("user", asked.ask(row.id)), Turn("assistant", caption, supervised=True))
            examples.append(Example(row.id, (smiles,), turns, meta={"file": row.file, "line": row.line}))
        return examples, rejections
