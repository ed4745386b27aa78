"""The protocol of LLaMo (arXiv 2411.00871), as the code that was released with it computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.prediction import Mae
from tasks.metrics.protocol_common import (
    CanonicalBleu,
    CanonicalExact,
    CanonicalLevenshtein,
    CanonicalMaccs,
    CanonicalMorgan,
    CanonicalRdk,
    Reading,
    caption_metrics,
)
from tasks.metrics.tokenizers import Tokenizer, llama2

_READING = Reading(close_up=True)


@dataclass(frozen=True, kw_only=True)
class LLaMo(Protocol):
    """LLaMo's evaluation script (repository mlvlab/LLaMo at a48b3da, `evaluate.py`).

    Captions and IUPAC names (26-82): corpus BLEU-2 and BLEU-4 (unsmoothed), mean METEOR and mean ROUGE-1/2/L F-measure
    (not stemmed); white space around a text is removed. BLEU and METEOR compare the pieces of Llama-2's slow tokenizer
    (210-213), whole texts of them: that tokenizer ignores the cut at 512 that is asked for. A row whose METEOR raises
    an error is left out of that mean and of no other (37-41); with the METEOR that molgraft computes no row does.

    Products and reactants (84-147): spaces are taken out of both sides, and both are made canonical SMILES without
    stereochemistry. A row of which either side cannot be parsed is left out of *every* metric. What is left gives: the
    rate of equal InChI, BLEU-4 over characters, Levenshtein distance, and the mean Tanimoto similarity of MACCS keys,
    of RDKit's path fingerprint (2,048 bits) and of Morgan counts of radius 2. Several molecules are one SMILES, and
    being canonical their order is without effect. The script has no validity.

    Numbers (149-162): the mean absolute error of all properties together, over the rows that Python's `float` reads;
    the others are left out. (An answer `nan` or `inf` stops the script; here it is left out as well.)

    It hides: how many molecules could not be parsed, so that a model which answers only easy questions gains in every
    column; all stereochemistry; how many numbers could not be read, and which of several properties an error is of;
    whether a caption is true. Its BLEU-4 of captions is some .02 above that on SciBERT's pieces. It shows percents
    of caption metrics; molgraft shows fractions.

    Args:
        tokenizer: Llama-2's `tokenizer.model`, or the folder that holds it, where it is not in the data folders.
    """

    name: ClassVar[str] = "llamo"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions, molecules and numbers; its script knows no classification."""
        return {
            "caption": caption_metrics(),
            "molecule": (
                CanonicalExact(reading=_READING),
                CanonicalBleu(reading=_READING),
                CanonicalLevenshtein(reading=_READING),
                CanonicalMaccs(reading=_READING),
                CanonicalRdk(reading=_READING),
                CanonicalMorgan(reading=_READING),
            ),
            "regression": (Mae(),),
        }

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """Llama-2's pieces of texts without the white space around them."""
        return llama2(self.tokenizer, strip=True) if kind == "caption" else None

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """A number as Python reads it; other answers as they are."""
        if kind == "regression" and prediction is not None and _is_number(prediction):
            return repr(float(prediction))
        return super().read(kind, prediction)

    def is_invalid(self, kind: AnswerKind, prediction: str | None) -> bool:
        """Unread, or what the script leaves out."""
        if prediction is None or kind == "caption":
            return prediction is None
        return _READING.smiles(prediction) is None if kind == "molecule" else not _is_number(prediction)

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        """Rows with two molecules, or with a number."""
        if kind == "caption":
            return True
        return not self.is_invalid(kind, prediction) and not self.is_invalid(kind, reference)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
