"""Write a molecule's canonical SMILES: MolX's auxiliary task, by which soft tokens learn to tell the whole molecule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Interval

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn
from tasks.descriptors import drawn_share, molecules_of
from tasks.question_templates import Question
from tasks.reaction_answers import read_molecules

if TYPE_CHECKING:
    from tasks.data import Catalogue


@dataclass(frozen=True, kw_only=True)
class CanonicalSmiles(Task):
    """One molecule in, its canonical SMILES as RDKit writes it out.

    Where the question shows the data set's SMILES, as MolX's does (train.py:31 sets `use_smiles` for this task), the
    answer is that molecule rewritten.

    Args:
        data: a data set with the column `smiles`.
        question: the user's turn, or the name of a template; `{molecule}` is where the molecule stands.
        share: of the training molecules, drawn by a hash of their ids. MolX takes a tenth
            (source/datasets/molx/generation.py:121).
        max_characters: training molecules with longer SMILES are left out; None for none. MolX: 200
            (source/datasets/molx/generation.py:112-113).
    """

    name: ClassVar[str] = "canonical-smiles"
    answer: ClassVar[AnswerKind] = "molecule"
    columns: ClassVar[tuple[str, ...]] = ("smiles",)

    question: str = "{molecule}\nWrite the canonical SMILES of this molecule."
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    max_characters: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        Question(self.name, self.question)

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        from rdkit import Chem, rdBase

        asked = Question(self.name, self.question)
        rows, rejections = molecules_of(self, split, catalogue)
        if split == "train":
            limit = self.max_characters
            for row, smiles in rows:
                if limit is not None and len(smiles) > limit:
                    reason = f"its SMILES has more than {limit} characters"
                    rejections.append(Rejection(row.file, row.line, smiles, reason, expected=True))
            rows = drawn_share([(row, s) for row, s in rows if limit is None or len(s) <= limit], self.share)
        examples = []
        for row, smiles in rows:
            with rdBase.BlockLogs():
                molecule = Chem.MolFromSmiles(smiles)
            if molecule is None or not molecule.GetNumAtoms():
                rejections.append(Rejection(row.file, row.line, smiles, "RDKit cannot parse it"))
                continue
            answer = Turn("assistant", Chem.MolToSmiles(molecule), supervised=True)
            meta = {"file": row.file, "line": row.line}
            examples.append(Example(row.id, (smiles,), (Turn("user", asked.ask(row.id)), answer), meta=meta))
        return examples, rejections

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_molecules(raw, "smiles")
