"""The protocols that ship with molgraft: our own, and two that published numbers of captioning were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.text import Bleu2, Bleu4, Meteor, Rouge1, Rouge2, RougeL
from tasks.metrics.tokenizers import Tokenizer, scibert, t5, words


@dataclass(frozen=True, kw_only=True)
class Strict(Protocol):
    """Ours, for comparisons among runs of molgraft; needs no tokenizer file.

    Captions: corpus BLEU-2 and BLEU-4 (unsmoothed), mean ROUGE-1/2/L F-measure (not stemmed) and mean METEOR. BLEU and
    METEOR compare lower-cased words and single marks. A prediction that could not be parsed counts as an empty caption.

    It hides: whether a caption is true (one wrong number or locant costs as little as a wrong article), and word order
    beyond 4-grams. Its words are not the word pieces of published protocols (the BLEU-2 of MolT5-small's captions is
    .543 here and .532 under `molt5`): its numbers must not be set beside theirs.
    """

    name: ClassVar[str] = "strict"

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions only."""
        return {"caption": _caption_metrics()}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """Words and marks."""
        return words()


@dataclass(frozen=True, kw_only=True)
class MolT5(Protocol):
    """MolT5's evaluation script (`text_translation_metrics.py`), which most captioning papers report.

    Captions: as in `strict`, but BLEU and METEOR compare SciBERT's uncased word pieces, of which each text keeps the
    first 512; a `[CLS] ` in front of a prediction is removed. ROUGE has its own words. InstructMol, Mol-Instructions,
    BioT5+ and MolCA use the same tokens.

    It hides: that word pieces reward a name for its fragments (a wrong systematic name shares most pieces with the
    right one), what stands after the 512th piece, and how often an answer could not be read: such an answer counts as
    an empty caption here; the script knows none.

    Args:
        tokenizer: SciBERT's `vocab.txt`, or the folder that holds it, where it is not in the data folders.
    """

    name: ClassVar[str] = "molt5"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions only."""
        return {"caption": _caption_metrics()}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """SciBERT's word pieces."""
        return scibert(self.tokenizer)

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """The prediction without the mark that some of MolT5's files carry."""
        return (prediction or "").removeprefix("[CLS] ")


@dataclass(frozen=True, kw_only=True)
class MolReGPT(Protocol):
    """MolReGPT's evaluation (`naive_test.py`), whose published captioning numbers its released files reproduce.

    Captions: as in `molt5`, but BLEU and METEOR compare the pieces of T5's tokenizer, whole texts of them. These
    are cased and carry the space before a word, and the same captions score some .03 higher in BLEU-2 than on
    SciBERT's pieces: the two are not comparable. An answer that could not be read counts as an empty caption.

    It hides: what `molt5` hides; and it pays for letter case, so that a caption in lower case loses what is no fault.

    Args:
        tokenizer: T5's `tokenizer.json`, also gzipped, where it is not in the data folders.
    """

    name: ClassVar[str] = "molregpt"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions only."""
        return {"caption": _caption_metrics()}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """T5's pieces."""
        return t5(self.tokenizer)


def _caption_metrics() -> tuple[Metric, ...]:
    return Bleu2(), Bleu4(), Rouge1(), Rouge2(), RougeL(), Meteor()
