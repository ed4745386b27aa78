"""The protocol of InstructMol (arXiv 2311.16208), as the code that was released with it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tasks.base import AnswerKind, Basis, Estimate
from tasks.metrics.base import Metric, Pairs, Protocol, bootstrap_interval
from tasks.metrics.prediction import Mae, RocAuc
from tasks.metrics.protocol_common import (
    CanonicalExact,
    CanonicalLevenshtein,
    CanonicalMaccs,
    CanonicalMorgan,
    CanonicalRdk,
    CanonicalValidity,
    Notation,
    Reading,
    SelfiesBleu,
    caption_metrics,
)
from tasks.metrics.tokenizers import Tokenizer, scibert

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

_LABELS = {"active": 1, "yes": 1, "true": 1, "inactive": 0, "no": 0, "false": 0}
_UNKNOWN = -1


@dataclass(frozen=True, kw_only=True)
class InstructMol(Protocol):
    """InstructMol's evaluation (repository IDEA-XL/InstructMol at 454b761, `llava/eval`).

    Captions (`eval_molcap.py:17-57`): as `molt5` (SciBERT's uncased word pieces, the first 512 of each text), except
    that a `[CLS] ` in front of a prediction stays, which ROUGE counts as a word.

    Products, reactants and reagents (`molecule_metrics/mol_translation_selfies.py`, `fingerprint_metrics.py`): answers
    are SELFIES. Each is decoded and made a canonical SMILES without stereochemistry; where that fails the row is left
    out (`mol_translation_selfies.py:65`) of *every* metric. What is left gives: the rate of equal InChI, BLEU-4 over
    the characters of the SELFIES text, Levenshtein distance of the canonical SMILES, and the mean Tanimoto similarity
    of MACCS keys, of RDKit's path fingerprint (2,048 bits) and of Morgan counts of radius 2. Validity is that of the
    rows that are left, which is why the paper's tables say 1.000. Several molecules are one text; order counts in BLEU
    only.

    Classes (`MoleculeNet_classification.py:42-50,173-175`): `yes`, `true`, `active` are 1; `no`, `false`, `inactive`
    are 0; any other answer is -1. The ROC-AUC is taken of these three values and not of probabilities, so that with all
    answers readable it is the balanced accuracy, and an unreadable answer is a very sure "no".

    Numbers (`property_metrics.py:6-18`): the mean absolute error of all properties together. The script stops at an
    answer that is no number, so that there is no value for such a file; and it leaves out the rows listed in a file
    that was not released (those that are in the training data too), which cannot be done here.

    It hides: how many molecules could not be decoded (a text without any `[` decodes to a molecule without atoms and
    counts as valid); all stereochemistry; in BLEU, that SELFIES share brackets and frequent symbols, which lifts it far
    above BLEU of SMILES for the same molecules; how sure a model was of a class; whether a caption is true.

    Args:
        tokenizer: SciBERT's `vocab.txt`, or the folder that holds it, where it is not in the data folders.
        notation: what the molecules of the file are written in: `smiles`, which molgraft's tasks hand on (BLEU is then
            of the SELFIES that they are encoded to), or `selfies`, as the script reads them.
    """

    name: ClassVar[str] = "instructmol"

    tokenizer: str | None = None
    notation: Notation = "smiles"

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """All kinds of answer."""
        reading = Reading(notation=self.notation)
        return {
            "caption": caption_metrics(),
            "molecule": (
                CanonicalExact(reading=reading),
                SelfiesBleu(reading=reading),
                CanonicalLevenshtein(reading=reading),
                CanonicalMaccs(reading=reading),
                CanonicalRdk(reading=reading),
                CanonicalMorgan(reading=reading),
                CanonicalValidity(reading=reading),
            ),
            "classification": (HardRocAuc(),),
            "regression": (MaeOfAll(),),
        }

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """SciBERT's word pieces."""
        return scibert(self.tokenizer) if kind == "caption" else None

    def is_invalid(self, kind: AnswerKind, prediction: str | None) -> bool:
        """Unread, not decodable, a label that the script does not know, or no number."""
        if prediction is None or kind == "caption":
            return prediction is None
        if kind == "molecule":
            return Reading(notation=self.notation).smiles(prediction) is None
        return _label(prediction) == _UNKNOWN if kind == "classification" else _number(prediction) is None

    def why_invalid(self, kind: AnswerKind, prediction: str | None, reference: str) -> str | None:
        """The same in words; what is a label depends on no gold answer."""
        if kind == "classification":
            return "is no label that the script knows" if self.is_invalid(kind, prediction) else None
        return super().why_invalid(kind, prediction, reference)

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        """Of molecules, rows with two that can be decoded; otherwise all."""
        return kind != "molecule" or not (self.is_invalid(kind, prediction) or self.is_invalid(kind, reference))


@dataclass(frozen=True, kw_only=True)
class HardRocAuc(RocAuc):
    """The ROC-AUC of answers as 1, 0 or -1 (unreadable); undefined where a gold answer is unreadable or one-sided."""

    def estimate(self, pairs: Pairs) -> Estimate:
        """The AUC over all rows, ties counted half."""
        import numpy as np

        answers = [_UNKNOWN if answer is None else _label(answer) for answer in pairs.predictions]
        gold = [_label(reference) for reference in pairs.references]
        if _UNKNOWN in gold:
            strange = pairs.references[gold.index(_UNKNOWN)]
            return Estimate(value=None, reason=f"the gold answer {strange!r} is none of {', '.join(_LABELS)}")
        if len(set(gold)) < 2:
            return Estimate(value=None, reason="all gold answers are of one class")
        cells = np.zeros((len(gold), 6))  # which of the (class, answer) cells each row is in
        cells[np.arange(len(gold)), [3 * label + answer + 1 for label, answer in zip(gold, answers, strict=True)]] = 1

        def area(sums: FloatArray) -> FloatArray:
            negative, positive = sums[:, :3], sums[:, 3:]
            below = np.cumsum(negative, axis=1) - negative / 2
            with np.errstate(invalid="ignore"):  # a resample of one class has no area
                areas: FloatArray = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
            return areas

        value = float(area(cells.sum(axis=0, keepdims=True))[0])
        basis = Basis("roc-auc", list(zip(map(float, answers), map(float, gold), strict=True)))
        return Estimate(value=value, ci95=bootstrap_interval(cells, area), basis=basis)


@dataclass(frozen=True, kw_only=True)
class MaeOfAll(Mae):
    """The mean absolute error, which does not exist where any answer is no number."""

    def estimate(self, pairs: Pairs) -> Estimate:
        """The error over all rows, or no value with the reason."""
        unread = [row for row, answer in enumerate(pairs.predictions) if answer is None or _number(answer) is None]
        if unread:
            answer = pairs.predictions[unread[0]]
            first = "an answer that could not be read" if answer is None else repr(answer[:40])
            stops = "InstructMol's script stops at an answer that is no number"
            return Estimate(value=None, reason=f"{stops}: {len(unread):,} rows, the first {first}")
        return super().estimate(pairs)


def _label(text: str) -> int:
    return _LABELS.get(text.strip().lower(), _UNKNOWN)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
