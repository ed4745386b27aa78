"""Write the molecule that a text describes (MolT5's text-to-molecule on ChEBI-20), or that an IUPAC name names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn
from tasks.iupac import named
from tasks.prompts import UnwritableMoleculeError
from tasks.question_templates import Question
from tasks.text_inputs import Selfies

if TYPE_CHECKING:
    from tasks.data import Catalogue

_SELFIES = re.compile(r"(?:\[[^\[\]]+\]|\.)+")


@dataclass(frozen=True, kw_only=True)
class Design(Task):
    """A text in, the molecule out. The prompt holds no molecule, and so no graph.

    Args:
        data: a data set with the columns `smiles` and `caption`, or `smiles` and `iupac`.
        source: the column that is read: `caption`, or `iupac` for structures from names.
        format: how the answer is written. SELFIES are read back as SMILES before they are scored; a molecule that
            SELFIES cannot express is left out and counted.
        question: the user's turn, or the name of a template; `{description}` is where the text stands, `{format}` the
            format's name.
    """

    name: ClassVar[str] = "design"
    answer: ClassVar[AnswerKind] = "molecule"
    columns: ClassVar[tuple[str, ...]] = ("smiles",)

    source: Literal["caption", "iupac"] = "caption"
    format: Literal["smiles", "selfies"] = "smiles"
    question: str = "{description}\nWrite the {format} of this molecule."

    def __post_init__(self) -> None:
        self._question()

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        dataset = catalogue.get(self.data)
        dataset.require((*self.columns, self.source), f"task {self.name}")
        rows, rejections = dataset.rows(split)
        asked = self._question()
        examples = []
        for row in rows:
            smiles, text = row.values["smiles"].strip(), row.values[self.source].strip()
            nameless = self.source == "iupac" and named(text) is None
            if not smiles or not text or nameless:
                reason = f"the {self.source} is {text!r}" if smiles else "the SMILES is empty"
                expected = bool(smiles) and nameless
                rejections.append(Rejection(row.file, row.line, smiles or text, reason, expected))
                continue
            try:
                answer = smiles if self.format == "smiles" else Selfies().write(smiles)
            except UnwritableMoleculeError as error:
                rejections.append(Rejection(row.file, row.line, smiles, str(error)))
                continue
            question = asked.ask(row.id, values={"description": text, "format": self.format.upper()})
            turns = (Turn("user", question), Turn("assistant", answer, supervised=True))
            examples.append(Example(row.id, (), turns, meta={"file": row.file, "line": row.line}))
        return examples, rejections

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        if self.format == "smiles":
            return raw.strip() or None
        return smiles_of_selfies(raw)

    def _question(self) -> Question:
        return Question(self.name, self.question, needed="description", allowed=("format",), parted=())


def smiles_of_selfies(raw: str) -> str | None:
    """The SMILES of SELFIES, blanks between symbols allowed; None where they cannot be decoded or stand for nothing."""
    import selfies

    symbols = "".join(raw.split())
    if not _SELFIES.fullmatch(symbols):  # the decoder skips what stands before the first symbol
        return None
    try:
        decoded = selfies.decoder(symbols)
    except (selfies.DecoderError, ValueError, IndexError, KeyError):
        return None
    return str(decoded) or None
