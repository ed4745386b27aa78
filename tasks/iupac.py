"""Name a molecule by the rules of IUPAC (MolCA's and LLaMo's task on PubChem324k, MolX's on the same)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn
from tasks.question_templates import Question

if TYPE_CHECKING:
    from tasks.data import Catalogue

# What files write where a molecule has no name: PubChem324k "None" (MolCA trains on it as if it were a name), MolX
# "unknown" (which it leaves out).
NO_NAME = frozenset({"none", "unknown", "nan", "null", "n/a"})


def named(name: str) -> str | None:
    """`name` without surrounding blanks; None where it says that there is none."""
    stripped = name.strip()
    return None if not stripped or stripped.lower() in NO_NAME else stripped


@dataclass(frozen=True, kw_only=True)
class Iupac(Task):
    """One molecule in, its IUPAC name out.

    Args:
        data: a data set with the columns `smiles` and `iupac`. Rows whose name is empty, "None" or "unknown" are left
            out and counted.
        question: the user's turn, or the name of a template; `{molecule}` is where the molecule stands.
    """

    name: ClassVar[str] = "iupac"
    answer: ClassVar[AnswerKind] = "caption"
    columns: ClassVar[tuple[str, ...]] = ("smiles", "iupac")

    question: str = "{molecule}\nWhat is the IUPAC name of the molecule?"

    def __post_init__(self) -> None:
        Question(self.name, self.question)

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        dataset = catalogue.get(self.data)
        dataset.require(self.columns, f"task {self.name}")
        rows, rejections = dataset.rows(split)
        asked = Question(self.name, self.question)
        examples = []
        for row in rows:
            smiles, name = row.values["smiles"].strip(), named(row.values["iupac"])
            if not smiles or name is None:
                reason = f"the name is {row.values['iupac'].strip()!r}" if smiles else "the SMILES is empty"
                rejections.append(Rejection(row.file, row.line, smiles, reason, expected=bool(smiles)))
                continue
            turns = (Turn("user", asked.ask(row.id)), Turn("assistant", name, supervised=True))
            examples.append(Example(row.id, (smiles,), turns, meta={"file": row.file, "line": row.line}))
        return examples, rejections
