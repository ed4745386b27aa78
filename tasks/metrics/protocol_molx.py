"""The protocol of MolX (arXiv 2406.06777), as the code that was released with it computes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.base import AnswerKind, Basis, Estimate
from tasks.metrics.base import Metric, Pairs, Protocol, bootstrap_interval, mean_estimate
from tasks.metrics.molecule import Exact, Levenshtein, Maccs, Morgan, Validity, structures_of
from tasks.metrics.prediction import F1, Accuracy, Rmse
from tasks.metrics.protocol_common import caption_metrics
from tasks.metrics.text import Bleu2, Meteor
from tasks.metrics.tokenizers import Tokenizer, llama2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

# Class of the gold answer and of the answer in each cell of `_confusion`; 1 is yes.
_GOLD_AND_SAID = ((1, 1), (0, 0), (0, 1), (1, 0))
_ANSWER = re.compile(r"\b(Yes|No)\b")
_NUMBER = re.compile(r"-?\d+\.?\d*")  # theirs goes on with `e??\d*?`, which being reluctant never takes anything


@dataclass(frozen=True, kw_only=True)
class MolX(Protocol):
    """MolX's evaluation (repository lhkhiem28/MolX at e7e77cd, `source/utils/evaluation.py`).

    Captions and IUPAC names (85-121): corpus BLEU-2 and BLEU-4 (unsmoothed), mean ROUGE-1/2/L F-measure (not stemmed)
    and mean METEOR. BLEU and METEOR compare the pieces of the language model's own slow tokenizer
    (`source/models/molx_llm.py:94`), whole texts of them; here always Llama-2's, which is that of the released jobs for
    Llama-2-7b-chat (those for Mistral compare Mistral's).

    Reactants and modified molecules (122-182): exact means that the two texts are the same, character by character;
    BLEU-2 and METEOR are of Llama-2's pieces of the SMILES; Levenshtein distance is of the texts as written. These are
    of all rows. The mean Tanimoto similarity of MACCS keys and of Morgan counts of radius 2 is over the rows of which
    both sides can be parsed; the rate of such rows is the validity. There is no similarity of RDKit's fingerprint.

    Classes (19-50): the first whole word `Yes` or `No`, in this case of letters, anywhere in the answer; rows without
    one are left out. Accuracy, and F1 as the mean over both classes. Gold answers must be `Yes` and `No`.

    Numbers (52-73): the first number in the answer, of which an exponent is not read (`1e-3` is 1); rows without one
    are left out. The root of the mean squared error.

    It hides: that a molecule written in another atom order is counted as wrong, and as far away in Levenshtein distance
    and BLEU; how many answers had no class or no number (the script shows a rate beside the score; here it is
    `n_invalid`); how sure a model was of a class; whether a caption is true. Its BLEU and METEOR of captions are of
    other pieces than MolCA's, so that the two must not be compared.

    Args:
        tokenizer: Llama-2's `tokenizer.model`, or the folder that holds it, where it is not in the data folders.
    """

    name: ClassVar[str] = "molx"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """All kinds of answer."""
        return {
            "caption": caption_metrics(),
            "molecule": (
                Exact(by="string"),
                Bleu2(),
                Meteor(),
                Levenshtein(),
                Maccs(over="parsed"),
                Morgan(over="parsed"),
                BothValid(),
            ),
            "classification": (YesNoAccuracy(), YesNoF1()),
            "regression": (Rmse(),),
        }

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """Llama-2's pieces, of SMILES too."""
        return llama2(self.tokenizer) if kind in ("caption", "molecule") else None

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """The answer without the white space around it; of a number, what the script reads."""
        if prediction is None:
            return "" if kind == "caption" else None
        if kind != "regression":
            return prediction.strip()
        found = _NUMBER.search(prediction)
        return None if found is None else repr(float(found.group()))

    def is_invalid(self, kind: AnswerKind, prediction: str | None) -> bool:
        """Unread, without a class or a number, or no molecule (which its metrics see all the same)."""
        if prediction is None or kind in ("caption", "molecule"):
            return super().is_invalid(kind, prediction)
        return (_ANSWER if kind == "classification" else _NUMBER).search(prediction) is None

    def why_invalid(self, kind: AnswerKind, prediction: str | None, reference: str) -> str | None:
        """The same in words; what is a class depends on no gold answer."""
        if kind == "classification":
            return "holds neither Yes nor No" if self.is_invalid(kind, prediction) else None
        return super().why_invalid(kind, prediction, reference)

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        """All captions and molecules; of classes and numbers, the rows where one is found."""
        return kind in ("caption", "molecule") or not self.is_invalid(kind, prediction)


@dataclass(frozen=True, kw_only=True)
class BothValid(Validity):
    """The rate of rows of which RDKit reads both sides."""

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate of such rows; per row 1 or 0."""
        answers, references = structures_of(pairs)
        return mean_estimate(
            [
                float(answer is not None and answer.is_valid and reference.is_valid)
                for answer, reference in zip(answers, references, strict=True)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class YesNoAccuracy(Accuracy):
    """The rate of rows that say yes or no as the gold answer does."""

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate, with 1 or 0 for each row."""
        if (problem := _problem(pairs)) is not None:
            return Estimate(value=None, reason=problem)
        cells = _confusion(pairs)
        interval = bootstrap_interval(cells, lambda sums: sums[:, :2].sum(axis=1) / len(cells))
        right = cells[:, :2].sum(axis=1)
        return Estimate(value=float(right.mean()), ci95=interval, per_example=right.tolist(), basis=Basis("mean"))


@dataclass(frozen=True, kw_only=True)
class YesNoF1(F1):
    """The mean of the F1 of yes and the F1 of no; of one of them only, where the other is nowhere."""

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean over both classes."""
        if (problem := _problem(pairs)) is not None:
            return Estimate(value=None, reason=problem)
        cells = _confusion(pairs)
        value = float(_macro_f1(cells.sum(axis=0, keepdims=True))[0])
        basis = Basis("macro-f1", [_GOLD_AND_SAID[cell] for cell in cells.argmax(axis=1).tolist()])
        return Estimate(value=value, ci95=bootstrap_interval(cells, _macro_f1), basis=basis)


def _problem(pairs: Pairs) -> str | None:
    """Why the script has nothing to compare: it would take any other gold answer for a no."""
    strange = next((reference for reference in pairs.references if _ANSWER.search(reference) is None), None)
    return None if strange is None else f"the gold answer {strange[:40]!r} is neither Yes nor No"


def _confusion(pairs: Pairs) -> FloatArray:
    """`(n, 4)`: 1 in the cell of each row, which are yes rightly, no rightly, yes wrongly and no wrongly."""
    import numpy as np

    cells = np.zeros((len(pairs), 4))
    for row, (answer, reference) in enumerate(zip(pairs.predictions, pairs.references, strict=True)):
        found = _ANSWER.search(answer or "")
        says_yes, is_yes = found is not None and found.group() == "Yes", "Yes" in reference
        cells[row, (0 if says_yes else 1) + (0 if says_yes == is_yes else 2)] = 1
    return cells


def _macro_f1(sums: FloatArray) -> FloatArray:
    """`(resamples,)` from `(resamples, 4)` counts; a class that is neither said nor true has no part in the mean."""
    import numpy as np

    yes, no, wrong_yes, wrong_no = sums.T
    sizes = np.stack([2 * yes + wrong_yes + wrong_no, 2 * no + wrong_yes + wrong_no])
    scores = np.divide(2 * np.stack([yes, no]), sizes, out=np.zeros_like(sizes), where=sizes > 0)
    means: FloatArray = scores.sum(axis=0) / (sizes > 0).sum(axis=0)
    return means
