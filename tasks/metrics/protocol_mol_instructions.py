"""The protocol of Mol-Instructions (arXiv 2306.08018), as the code that was released with it computes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.prediction import Mae
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

Split = Callable[[Sequence[str]], list[list[str]]]
_END = "</s>"
_LAST_NUMBER = re.compile(r"(-?\d+\.?\d*)\s*</s>")


@dataclass(frozen=True, kw_only=True)
class MolInstructions(Protocol):
    """Mol-Instructions' evaluation (repository zjunlp/Mol-Instructions at d08a15f, `evaluation/molecule`).

    Answers go through a table of tabs, in which each ends with `</s>` (`generate_example.py:117-132`). So an answer is
    cut at its first line break, and a row with a tab in its answer is left out (`evaluate.py:22`). Files for molgraft
    need not hold `</s>`; it is added where it is missing.

    Captions (`evaluate.py:52-63`, `text_translation_metrics.py`): the answer is cut behind its last full stop; one
    without any keeps `</s>` and gets a full stop. A text with a `"` gets further ones on its way through the table, on
    both sides. Then as `molt5`: SciBERT's uncased word pieces, the first 512 of each text.

    Molecules (`evaluate.py:38-50`, `mol_translation_selfies.py`, `fingerprint_metrics.py`): answers are SELFIES, cut
    behind their last `]`. The rest is as in `instructmol`: rows of which a side cannot be decoded are left out of every
    metric; equal InChI, BLEU-4 over characters of SELFIES, Levenshtein distance of canonical SMILES without
    stereochemistry, mean Tanimoto similarity of MACCS keys, RDKit's path fingerprint and Morgan counts of radius 2.
    Validity is that of the rows that are left, and so 1.000 for every model that the paper lists with SELFIES.

    Numbers (`evaluate.py:25-36`): the number right before `</s>`, of which an exponent counts alone (`1e-3` is -3);
    rows without one are left out. The mean absolute error of all properties together.

    It hides: how many answers could not be read, of any kind; text behind the last full stop, such as a sentence
    without an end; that an empty caption earns its full stop; all stereochemistry; whether a caption is true.

    Args:
        tokenizer: SciBERT's `vocab.txt`, or the folder that holds it, where it is not in the data folders.
        notation: what the molecules of the file are written in: `smiles`, which molgraft's tasks hand on (BLEU is then
            of the SELFIES that they are encoded to), or `selfies`, as the script reads them.
    """

    name: ClassVar[str] = "mol-instructions"

    tokenizer: str | None = None
    notation: Notation = "smiles"

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions, molecules and numbers; of molecules the script knows no classification."""
        reading = self._reading
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
            "regression": (Mae(),),
        }

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """SciBERT's word pieces of texts as the table quotes them."""
        if kind != "caption":
            return None
        pieces = scibert(self.tokenizer)
        return replace(pieces, split=_of_quoted(pieces.split))

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """What is left of the answer behind the table."""
        stored = _stored(prediction or "")
        if stored is None:
            return None
        if kind == "caption":
            text = stored.rpartition(".")[0] + "." if "." in stored else stored + "."
            return text if '"' in text else text.removeprefix("[CLS] ")  # a quoted field does not begin with the mark
        if kind == "regression":
            found = _LAST_NUMBER.search(stored)
            return None if prediction is None or found is None else repr(float(found.group(1)))
        if prediction is None:
            return None
        return stored if self.notation == "selfies" else stored.removesuffix(_END)

    def is_invalid(self, kind: AnswerKind, prediction: str | None) -> bool:
        """Unread, or what the script leaves out."""
        read = self.read(kind, prediction)
        return prediction is None or read is None or (kind == "molecule" and self._reading.smiles(read) is None)

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        """Rows that the table holds whole and, of molecules and numbers, on both sides readable."""
        if kind == "caption":
            return self.read(kind, prediction) is not None and re.search("^$|[\t\r\n]", reference) is None
        return not self.is_invalid(kind, prediction) and not self.is_invalid(kind, reference)

    @property
    def _reading(self) -> Reading:
        return Reading(notation=self.notation, cut=True)


def _stored(answer: str) -> str | None:
    """The answer as it comes back from a table of tabs with a row per line; None where the row is lost."""
    answer = answer.strip()
    line = re.split("[\r\n]", answer if _END in answer else answer + _END, maxsplit=1)[0]
    return None if "\t" in line else line


@lru_cache(maxsize=2)  # the same function for the same tokenizer: what was tokenized with it can be found again
def _of_quoted(split: Split) -> Split:
    return lambda texts: split([_quoted(text) for text in texts])


def _quoted(text: str) -> str:
    """The text as a table with quotation marks holds it, read by one who takes them for part of the text."""
    return '"' + text.replace('"', '""') + '"' if '"' in text else text
