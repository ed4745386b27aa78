"""What RDKit says of a molecule, asked as questions: gold answers for any list of SMILES, without a labelled data set.

MolX trains on nine descriptors beside captions (its auxiliary tasks, `source/datasets/molx/regression.py:112-144`). Its
values come with a data set that was never published; these are RDKit's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Interval

from tasks.base import AnswerKind, Example, Rejection, Split, Task, TaskError, Turn
from tasks.data import Row
from tasks.molecule_facts import GROUPS, facts_of
from tasks.property_answers import as_number, check_answers, check_rounding, number_text, read_label, read_number
from tasks.property_labels import named
from tasks.question_templates import Question
from tasks.remembered import remembered

if TYPE_CHECKING:
    from rdkit.Chem import Mol

    from tasks.data import Catalogue

_PHRASES = {
    "heavy-atoms": "number of heavy atoms",
    "h-bond-acceptors": "number of hydrogen bond acceptors",
    "h-bond-donors": "number of hydrogen bond donors",
    "rotatable-bonds": "number of rotatable bonds",
    "aromatic-rings": "number of aromatic rings",
    "tpsa": "topological polar surface area in square angstrom",
    "molecular-weight": "molecular weight in g/mol",
    "logp": "LogP (estimated by Crippen's method)",
    "qed": "quantitative estimate of drug-likeness (QED)",
    "rings": "number of rings",
    "stereocentres": "number of stereocentres",
    "charge": "formal charge",
}
"""What completes "what is the ... of this molecule?", by descriptor. The first nine are MolX's."""

DESCRIPTORS = tuple(_PHRASES)
MOLX = DESCRIPTORS[:9]


@dataclass(frozen=True, kw_only=True)
class Descriptor(Task):
    """One molecule in, a number that RDKit computes from it out.

    Args:
        data: a data set with the column `smiles`.
        label: the one descriptor that is asked about.
        labels: or several, or `all`; by default MolX's nine. Each molecule gives one example for each of them, and
            metrics are averaged over the descriptors.
        question: the user's turn, or the name of a template. `{molecule}` is where the molecule stands, `{property}`
            the descriptor in words.
        decimals: the most digits after the point that an answer has; rounding is held in bounds as it is for
            `property-regression`.
        share: of the training molecules, drawn by a hash of their ids and the same for every descriptor. MolX takes a
            tenth (`regression.py:114`).
    """

    name: ClassVar[str] = "descriptor"
    answer: ClassVar[AnswerKind] = "regression"
    columns: ClassVar[tuple[str, ...]] = ("smiles",)

    label: str | None = None
    labels: tuple[str, ...] | Literal["all"] | None = None
    question: str = "{molecule}\nWhat is the {property} of this molecule?"
    decimals: Annotated[int, Interval(ge=0, le=12)] = 3
    share: Annotated[float, Interval(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        self._question()
        self._wanted()

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        wanted, asked = self._wanted(), self._question()
        rows, rejections = molecules_of(self, split, catalogue)
        if split == "train":
            rows = drawn_share(rows, self.share)
        values: dict[str, list[Decimal]] = {name: [] for name in wanted}
        examples = []
        for (row, smiles), found in zip(rows, _computed([smiles for _, smiles in rows], wanted), strict=True):
            if isinstance(found, str):
                rejections.append(Rejection(row.file, row.line, smiles, found))
                continue
            for name, value in found.items():
                values[name].append(value)
                place = _Place(row, smiles, name, several=len(wanted) > 1)
                text = asked.ask(place.id, name, {"property": _PHRASES[name]})
                examples.append(place.example(text, number_text(value, self.decimals)))
        for name, numbers in values.items():
            if numbers:
                check_rounding(name, numbers, self.decimals)
        return examples, rejections

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_number(raw)

    def _wanted(self) -> tuple[str, ...]:
        return _names(self.label, self.labels, DESCRIPTORS, MOLX, "descriptor")

    def _question(self) -> Question:
        return Question(self.name, self.question, allowed=("property",))


@dataclass(frozen=True, kw_only=True)
class FunctionalGroup(Task):
    """One molecule and the name of a functional group in, whether it has one out.

    Args:
        data: a data set with the column `smiles`.
        label: the one group that is asked about.
        labels: or several, or `all` (the default). Each molecule gives one example for each of them, and metrics are
            averaged over the groups.
        question: the user's turn. `{molecule}` is where the molecule stands, `{property}` the group's name,
            `{positive}` and `{negative}` the two answers.
        positive: the answer where it has the group.
        negative: the answer where it has not.
    """

    name: ClassVar[str] = "functional-group"
    answer: ClassVar[AnswerKind] = "classification"
    columns: ClassVar[tuple[str, ...]] = ("smiles",)

    label: str | None = None
    labels: tuple[str, ...] | Literal["all"] | None = None
    question: str = "{molecule}\nDoes this molecule have the group {property}? Answer {positive} or {negative}."
    positive: str = "Yes"
    negative: str = "No"

    def __post_init__(self) -> None:
        self._question()
        self._wanted()
        check_answers(self.positive, self.negative)

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:  # noqa: D102 - inherited
        wanted, asked = self._wanted(), self._question()
        answers = (self.positive, self.negative)
        rows, rejections = molecules_of(self, split, catalogue)
        examples = []
        for row, smiles in rows:
            try:
                facts = facts_of(smiles)
            except TaskError as error:
                rejections.append(Rejection(row.file, row.line, smiles, str(error)))
                continue
            for name in wanted:
                place = _Place(row, smiles, name, several=len(wanted) > 1)
                filled = {"property": name, "positive": self.positive, "negative": self.negative}
                text = asked.ask(place.id, name, filled)
                examples.append(place.example(text, answers[0] if facts[name] else answers[1], answers))
        return examples, rejections

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_label(raw, (self.positive, self.negative))

    def _wanted(self) -> tuple[str, ...]:
        return _names(self.label, self.labels, tuple(GROUPS), tuple(GROUPS), "functional group")

    def _question(self) -> Question:
        return Question(self.name, self.question, allowed=("property", "positive", "negative"))


def descriptors_of(smiles: str, names: Sequence[str] = DESCRIPTORS) -> dict[str, Decimal]:
    """Descriptors of a molecule by name, as RDKit computes them by default.

    Raises:
        TaskError: RDKit cannot parse it, or a descriptor is not defined for it.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            raise TaskError("RDKit cannot parse it")
        found = {}
        for name in names:
            number = as_number(str(_functions()[name](molecule)))
            if number is None:
                raise TaskError(f"RDKit's {name} is no finite number")
            found[name] = number
    return found


def _computed(molecules: Sequence[str], names: Sequence[str]) -> list[dict[str, Decimal] | str]:
    """Descriptors of each molecule, or the reason why it has none; QED alone takes milliseconds a molecule."""
    import rdkit

    def texts(smiles: str) -> dict[str, str] | str:
        try:
            return {name: str(value) for name, value in descriptors_of(smiles, names).items()}
        except TaskError as error:
            return str(error)

    found = remembered("descriptors", [rdkit.__version__, *names], molecules, texts, (str, dict))
    return [each if isinstance(each, str) else {name: Decimal(text) for name, text in each.items()} for each in found]


@cache
def _functions() -> Mapping[str, Callable[[Mol], float]]:
    from rdkit import Chem
    from rdkit.Chem import QED, Crippen, Descriptors, rdMolDescriptors

    return {
        "heavy-atoms": rdMolDescriptors.CalcNumHeavyAtoms,
        "h-bond-acceptors": rdMolDescriptors.CalcNumHBA,
        "h-bond-donors": rdMolDescriptors.CalcNumHBD,
        "rotatable-bonds": rdMolDescriptors.CalcNumRotatableBonds,
        "aromatic-rings": rdMolDescriptors.CalcNumAromaticRings,
        "tpsa": rdMolDescriptors.CalcTPSA,
        "molecular-weight": Descriptors.MolWt,  # type: ignore[attr-defined]
        "logp": Crippen.MolLogP,  # type: ignore[attr-defined]
        "qed": QED.qed,
        "rings": rdMolDescriptors.CalcNumRings,
        "stereocentres": rdMolDescriptors.CalcNumAtomStereoCenters,
        "charge": Chem.GetFormalCharge,
    }


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an example comes from, and what it is about."""

    row: Row
    smiles: str
    label: str
    several: bool

    @property
    def id(self) -> str:
        return f"{self.row.id}/{self.label}" if self.several else self.row.id

    def example(self, question: str, answer: str, candidates: tuple[str, ...] = ()) -> Example:
        meta = {"file": self.row.file, "line": self.row.line, **({"group": self.label} if self.several else {})}
        turns = (Turn("user", question), Turn("assistant", answer, supervised=True))
        return Example(self.id, (self.smiles,), turns, candidates, meta)


def molecules_of(task: Task, split: Split, catalogue: Catalogue) -> tuple[list[tuple[Row, str]], list[Rejection]]:
    """The rows of a split that have a SMILES, and those that have not."""
    dataset = catalogue.get(task.data)
    dataset.require(task.columns, f"task {task.name}")
    rows, rejections = dataset.rows(split)
    written = [(row, row.values["smiles"].strip()) for row in rows]
    rejections += [Rejection(row.file, row.line, "", "the SMILES is empty") for row, smiles in written if not smiles]
    return [(row, smiles) for row, smiles in written if smiles], rejections


def drawn_share(rows: Sequence[tuple[Row, str]], share: float) -> list[tuple[Row, str]]:
    """A share of the rows in file order, chosen by nothing but their ids; a larger one holds every smaller one."""
    by_hash = sorted((hashlib.sha256(row.id.encode()).digest(), place) for place, (row, _) in enumerate(rows))
    chosen = sorted(place for _, place in by_hash[: max(1, round(share * len(rows)))])
    return [rows[place] for place in chosen]


def _names(
    label: str | None,
    labels: tuple[str, ...] | Literal["all"] | None,
    known: Sequence[str],
    default: tuple[str, ...],
    what: str,
) -> tuple[str, ...]:
    if label is not None and labels is not None:
        raise TaskError(f"task.label is {label!r} and task.labels is set too; one of them is enough")
    if label is None and labels is None:
        return default
    if labels == "all":
        return tuple(known)
    return named(label, labels or (), known, f"there is no {what}")
