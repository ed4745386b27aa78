"""Properties of a molecule: yes-or-no labels (MoleculeNet) and numbers (energies of QM9, ESOL, FreeSolv, ...)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Interval

from tasks.base import AnswerKind, Example, Rejection, Split, Task, Turn
from tasks.property_answers import as_number, check_answers, check_rounding, number_text, read_label, read_number
from tasks.property_labels import LabelledRow, labelled_rows
from tasks.question_templates import Question

if TYPE_CHECKING:
    from tasks.data import Catalogue
    from tasks.data_description import Description


@dataclass(frozen=True, kw_only=True)
class _Property(Task):
    """What both kinds of property share.

    Args:
        data: a data set with the column `smiles` and one per label, or with `task` and `label`.
        label: the one label that is asked about; needed where the data set has several.
        labels: several labels, or `all`: one example per molecule and label, grouped by label.
    """

    columns: ClassVar[tuple[str, ...]] = ("smiles",)
    _wanted: ClassVar[str]  # what a value must be, for the list of rejections

    label: str | None = None
    labels: tuple[str, ...] | Literal["all"] | None = None

    def examples(self, split: Split, catalogue: Catalogue) -> tuple[list[Example], list[Rejection]]:
        dataset = catalogue.get(self.data)
        numeric = self.answer == "regression"
        purpose = f"task {self.name}"
        rows, rejections = labelled_rows(dataset, split, self.label, self.labels, numeric=numeric, purpose=purpose)
        self._check(rows)
        asked, candidates = self._question(), self._candidates()
        examples = []
        for found in rows:
            answer = self._gold(found.value)
            if answer is None:
                reason = f"{found.label} is {found.value[:60]!r}, not {self._wanted}"
                rejections.append(Rejection(found.row.file, found.row.line, found.smiles, reason))
                continue
            question = asked.ask(found.id, found.label, self._values(found.label, dataset.description))
            meta = {"file": found.row.file, "line": found.row.line}
            if found.group is not None:
                meta["group"] = found.group
            turns = (Turn("user", question), Turn("assistant", answer, supervised=True))
            examples.append(Example(found.id, (found.smiles,), turns, candidates, meta))
        return examples, rejections

    def _candidates(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def _question(self) -> Question:
        """The setting `question`, checked."""

    @abstractmethod
    def _gold(self, value: str) -> str | None:
        """The answer that stands for a field's value, or None where it is none."""

    @abstractmethod
    def _values(self, label: str, description: Description) -> Mapping[str, str]:
        """What fills the question's placeholders."""

    def _check(self, rows: Sequence[LabelledRow]) -> None:
        """Refuses settings that do not suit the values."""


@dataclass(frozen=True, kw_only=True)
class PropertyClassification(_Property):
    """One molecule in, yes or no out.

    Args:
        data: a data set with the column `smiles` and one per label, or with `task` and `label`. Values are 1 or 0 (also
            1.0 and 0.0); an empty one is no label, and every other is refused.
        label: the one label that is asked about; needed where the data set has several.
        labels: several labels, or `all`: one example per molecule and label, and metrics averaged over the labels.
        question: the user's turn, or the name of a template. `{molecule}` is where the molecule stands; `{property}` is
            what the data set says about the label, `{positive}` and `{negative}` the two answers.
        positive: the answer for 1.
        negative: the answer for 0.
    """

    name: ClassVar[str] = "property-classification"
    answer: ClassVar[AnswerKind] = "classification"
    _wanted: ClassVar[str] = "1 or 0"

    question: str = "{molecule}\nDoes this molecule {property}? Answer {positive} or {negative}."
    positive: str = "Yes"
    negative: str = "No"

    def __post_init__(self) -> None:
        self._question()
        check_answers(self.positive, self.negative)

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_label(raw, self._candidates())

    def _candidates(self) -> tuple[str, ...]:
        return (self.positive, self.negative)

    def _question(self) -> Question:
        return Question(self.name, self.question, allowed=("property", "positive", "negative"))

    def _gold(self, value: str) -> str | None:
        return {"1": self.positive, "1.0": self.positive, "0": self.negative, "0.0": self.negative}.get(value)

    def _values(self, label: str, description: Description) -> Mapping[str, str]:
        phrase = description.questions.get(label, f"have the label {label}")
        return {"property": phrase, "positive": self.positive, "negative": self.negative}


@dataclass(frozen=True, kw_only=True)
class PropertyRegression(_Property):
    """One molecule in, a number out.

    The gold answer is the file's number, rounded half to even to `decimals` places. Errors are measured against the
    rounded number, which is what a model is taught; rounding that would move it by more than 1 % of the standard
    deviation of the values (root mean square, per label) is refused, so that it never decides a comparison.

    Args:
        data: a data set with the column `smiles` and one per label, or with `task` and `label`. An empty value is no
            label; one that is no finite number is refused.
        label: the one label that is asked about; needed where the data set has several.
        labels: several labels, or `all`: one example per molecule and label, and metrics averaged over the labels.
        question: the user's turn, or the name of a template. `{molecule}` is where the molecule stands; `{property}` is
            what the data set says about the label, `{unit}` ` in ` and its unit, if it has one.
        unit: whether `{unit}` is filled in.
        decimals: the most digits after the point that an answer has; 4 as in Mol-Instructions' answers.
        trailing_zeros: write all of them even where they are zeros.
    """

    name: ClassVar[str] = "property-regression"
    answer: ClassVar[AnswerKind] = "regression"
    _wanted: ClassVar[str] = "a number"

    question: str = "{molecule}\nWhat is the {property} of this molecule{unit}?"
    unit: bool = True
    decimals: Annotated[int, Interval(ge=0, le=12)] = 4
    trailing_zeros: bool = False

    def __post_init__(self) -> None:
        self._question()

    def parse(self, raw: str, example: Example) -> str | None:  # noqa: D102 - inherited
        return read_number(raw)

    def _question(self) -> Question:
        return Question(self.name, self.question, allowed=("property", "unit"))

    def _gold(self, value: str) -> str | None:
        number = as_number(value)
        return None if number is None else number_text(number, self.decimals, self.trailing_zeros)

    def _values(self, label: str, description: Description) -> Mapping[str, str]:
        unit = description.units.get(label, "") if self.unit else ""
        return {"property": description.questions.get(label, label), "unit": f" in {unit}" if unit else ""}

    def _check(self, rows: Sequence[LabelledRow]) -> None:
        numbers: dict[str, list[Decimal]] = {}
        for row in rows:
            number = as_number(row.value)
            if number is not None:
                numbers.setdefault(row.label, []).append(number)
        for label, values in numbers.items():
            check_rounding(label, values, self.decimals)
