"""What the tasks about chemical reactions share: how a row is read, how its molecules stand in a question.

A reaction is reactants > reagents > product. Reactants give atoms to the product, reagents do not (solvents,
catalysts, salts); each side may be several molecules, with dots between.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn, slot
from tasks.prompts import UnwritableMoleculeError
from tasks.question_templates import Question
from tasks.reaction_answers import Notation, read_molecules, write_molecules
from tasks.reaction_templates import ALONE, TEMPLATES

if TYPE_CHECKING:
    from tasks.data import Catalogue, Row


@dataclass(frozen=True, slots=True)
class Reaction:
    """One row: the molecules of each side in file order, and the row's other values."""

    row: Row
    reactants: tuple[str, ...]
    reagents: tuple[str, ...]
    product: tuple[str, ...]

    def __str__(self) -> str:
        return ">".join(".".join(side) for side in (self.reactants, self.reagents, self.product))


class Unusable(ValueError):
    """A reaction that a task cannot ask about; the message is the reason that is listed."""


class NothingToAsk(Unusable):
    """A sound reaction that lacks what the task asks for."""


class Placed:
    """The molecules of one question, each in its place.

    Args:
        molecules: `each` molecule has a place of its own; `joined` gives one place to a whole side, whose graph then
            has several components.
        separator: what stands between places.
    """

    def __init__(self, molecules: Literal["each", "joined"], separator: str) -> None:
        self._joined = molecules == "joined"
        self._separator = separator
        self.molecules: list[str] = []

    def side(self, molecules: Sequence[str]) -> str:
        """The text for one side; the empty text where it has no molecule."""
        if not molecules:
            return ""
        placed = [".".join(molecules)] if self._joined else list(molecules)
        self.molecules += placed
        first = len(self.molecules) - len(placed)
        return self._separator.join(slot(first + index) for index in range(len(placed)))


@dataclass(frozen=True, kw_only=True)
class ReactionTask(Task):
    """A question about a reaction whose answer is one or more molecules.

    Args:
        data: a data set with the columns that the task names, or with one column `reaction`, whose values are
            `reactants>reagents>product` and may carry atom maps.
        output: how answers are written; they are scored as SMILES either way.
        molecules: `each` molecule of a side has a place of its own in the prompt; `joined` makes a side one molecule
            of several components, as InstructMol reads the reactants of a reagent question.
        separator: what stands between the molecules of a side; the dot makes SMILES and SELFIES of several molecules.
        question: the user's turn, or the name of a template; the task says which placeholders it may hold. A part of a
            side's molecules may stand alone, as by `{product.graph}` and `{product.text}`; several graphs of a side
            then stand without the separator.
    """

    answer: ClassVar[AnswerKind] = "molecule"
    placeholder: ClassVar[str]  # what must stand in the question
    further: ClassVar[tuple[str, ...]] = ()  # what may
    parted: ClassVar[tuple[str, ...]]  # of what a part alone may stand

    output: Notation = "smiles"
    molecules: Literal["each", "joined"] = "each"
    separator: str = "."
    question: str

    def __post_init__(self) -> None:
        self._question()

    @abstractmethod
    def ask(self, reaction: Reaction, placed: Placed) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """What stands in place of each placeholder of the question, and the molecules of the answer.

        Raises:
            Unusable: nothing can be asked about this reaction.
        """

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        dataset = catalogue.get(self.data)
        if "reaction" not in dataset.roles:
            dataset.require(self.columns, f"task {self.name}")
        for role in self.further:
            if f"{{{role}}}" in self.question:
                dataset.require([role], f"task {self.name}, whose question holds `{{{role}}}`,")
        rows, rejections = dataset.rows(split)
        asked = self._question()
        examples = []
        for row in rows:
            try:
                reaction = _from_sides(row) if "product" in row.values else _from_one_column(row)
                examples.append(self._example(reaction, asked))
            except (Unusable, UnwritableMoleculeError) as reason:
                expected = isinstance(reason, NothingToAsk)
                rejections.append(Rejection(row.file, row.line, _shown(row), str(reason), expected))
        return examples, rejections

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_molecules(raw, self.output)

    def _question(self) -> Question:
        own = TEMPLATES.get(self.name)
        return Question(self.name, self.question, self.placeholder, self.further, self.parted, own)

    def _example(self, reaction: Reaction, asked: Question) -> Example:
        placed = Placed(self.molecules, self.separator)
        filled, gold = self.ask(reaction, placed)
        alone = ALONE if len(placed.molecules) == 1 else ""
        question = asked.ask(reaction.row.id, alone, filled)
        try:
            answer = write_molecules(".".join(gold), self.output)
        except UnwritableMoleculeError as error:
            raise Unusable(f"the gold answer cannot be written: {error}") from None
        meta: dict[str, Any] = {"file": reaction.row.file, "line": reaction.row.line}
        if set(reaction.product) <= set(reaction.reactants):
            meta["product_among_reactants"] = True
        if reaction.row.values.get("class"):
            meta["class"] = reaction.row.values["class"]
        turns = (Turn("user", question), Turn("assistant", answer, supervised=True))
        return Example(reaction.row.id, tuple(placed.molecules), turns, meta=meta)


def _from_sides(row: Row) -> Reaction:
    """The reaction of a row with a column for each side; data sets without reagents have no column for them."""
    reactants, product = (_components(row.values[role], f"the {role}") for role in ("reactants", "product"))
    reagents = row.values.get("reagents", "")
    return Reaction(row, reactants, _components(reagents, "the reagents") if reagents.strip() else (), product)


def _components(text: str, what: str) -> tuple[str, ...]:
    if not text.strip():
        raise Unusable(f"{what} {'are' if what.endswith('s') else 'is'} empty")
    components = tuple(component.strip() for component in text.split("."))
    if not all(components):
        raise Unusable(f"a molecule of {what} is missing: two dots follow each other, or one stands at an end")
    return components


def _from_one_column(row: Row) -> Reaction:
    """The reaction of a row with one column, its atom maps taken away.

    Where the product carries atom maps, a precursor that shares none with it is a reagent; else all that stands before
    the product is a reactant, unless it stands between the two `>`.
    """
    sides = row.values["reaction"].split()[0].split(">") if row.values["reaction"].strip() else []
    if len(sides) != 3:
        raise Unusable("it is no reaction: `reactants>reagents>product` is expected")
    left, between, right = (list(_unmapped(side)) for side in sides)
    of_product = {number for _, numbers in right for number in numbers}
    given = [smiles for smiles, numbers in left if not of_product or numbers & of_product]
    aside = [smiles for smiles, numbers in left if of_product and not numbers & of_product]
    if not given or not right:
        raise Unusable("the reactants are empty" if right else "the product is empty")
    reagents = sorted([*aside, *(smiles for smiles, _ in between)])
    return Reaction(row, tuple(sorted(given)), tuple(reagents), tuple(sorted(smiles for smiles, _ in right)))


def _unmapped(side: str) -> Iterator[tuple[str, set[int]]]:
    """The canonical SMILES of each molecule of a side without atom maps, and the map numbers that it had."""
    from rdkit import Chem, rdBase

    for component in filter(None, side.split(".")):
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(component)
        if molecule is None:
            raise Unusable(f"RDKit cannot parse {component}")
        numbers = {atom.GetAtomMapNum() for atom in molecule.GetAtoms()} - {0}
        for atom in molecule.GetAtoms():
            atom.SetAtomMapNum(0)
        yield Chem.MolToSmiles(molecule), numbers


def _shown(row: Row) -> str:
    if "product" not in row.values:
        return row.values["reaction"]
    return ">".join(row.values.get(role, "") for role in ("reactants", "reagents", "product"))
