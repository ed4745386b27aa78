"""The protocols that ship with molgraft: our own, and two that published numbers of captioning were made with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.molecule import Bleu, Exact, Levenshtein, Maccs, Morgan, Rdk, Validity
from tasks.metrics.prediction import F1, R2, Accuracy, Mae, ParseRate, Rmse, RocAuc
from tasks.metrics.text import Bleu2, Bleu4, Meteor, Rouge1, Rouge2, RougeL
from tasks.metrics.tokenizers import Tokenizer, scibert, t5, words


@dataclass(frozen=True, kw_only=True)
class Strict(Protocol):
    """Ours, for comparisons among runs of molgraft; needs no tokenizer file.

    Captions: corpus BLEU-2 and BLEU-4 (unsmoothed), mean ROUGE-1/2/L F-measure (not stemmed) and mean METEOR. BLEU and
    METEOR compare lower-cased words and single marks. A prediction that could not be parsed counts as an empty caption.

    Molecules: both sides are made canonical SMILES, so that neither the order of atoms nor that of the reactants of a
    reaction matters; stereochemistry does. Exact match is that of canonical SMILES. An answer that is empty, holds
    white space, or is no molecule for RDKit within its time limit is wrong, and its similarities (MACCS, RDK, Morgan
    counts of radius 2) are 0: all means are over all rows. BLEU-4 and Levenshtein compare the characters of the
    canonical SMILES, of an invalid answer those of its text. A gold answer that RDKit cannot read makes its row wrong.

    Classes: ROC-AUC of the probability of the positive label, accuracy, and F1 of the positive label; each the mean
    over the groups where rows have groups. An answer that names no label is wrong.

    Numbers: MAE, RMSE and R2 over the rows whose answer holds one finite number, and `parse-rate`, which says how many
    do and without which they must not be quoted.

    It hides: whether a caption is true (one wrong number or locant costs as little as a wrong article), and word order
    beyond 4-grams. Its words are not the word pieces of published protocols (the BLEU-2 of MolT5-small's captions is
    .543 here and .532 under `molt5`): its numbers must not be set beside theirs. Of molecules it hides tautomers and
    salts that are the right one drawn otherwise (they are wrong), and how alike the valid answers alone are: that is
    the similarity divided by the validity. Of numbers, whatever the answers without one would have been.

    Args:
        positive: the label that is the positive one, where labels are neither yes nor no in any form.
    """

    name: ClassVar[str] = "strict"

    positive: str | None = field(default=None, metadata={"neutral": None})

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """All kinds of answer."""
        return {
            "caption": _caption_metrics(),
            "molecule": (
                Exact(by="canonical"),
                Bleu(form="canonical"),
                Levenshtein(form="canonical"),
                Maccs(over="all"),
                Rdk(over="all"),
                Morgan(over="all"),
                Validity(),
            ),
            "classification": (
                RocAuc(positive=self.positive),
                Accuracy(positive=self.positive),
                F1(positive=self.positive),
            ),
            "regression": (Mae(), Rmse(), R2(), ParseRate()),
        }

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """Words and marks, of captions."""
        return words() if kind == "caption" else None

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """An unread caption is an empty one; a molecule is a text without white space, and nothing beside it."""
        if kind != "molecule" or prediction is None:
            return super().read(kind, prediction)
        text = prediction.strip()
        return None if len(text.split()) != 1 else text


@dataclass(frozen=True, kw_only=True)
class MolT5(Protocol):
    """MolT5's evaluation scripts (`text_translation_metrics.py`, `mol_translation_metrics.py`,
    `fingerprint_metrics.py`; repository blender-nlp/MolT5 at 754f9bf), which most papers on captions report.

    Captions: as in `strict`, but BLEU and METEOR compare SciBERT's uncased word pieces, of which each text keeps the
    first 512; a `[CLS] ` in front of a prediction is removed. ROUGE has its own words. InstructMol, Mol-Instructions,
    BioT5+ and MolCA use the same tokens.

    Molecules, as the texts stand: exact match is equality of InChI over all rows (mol_translation_metrics.py:94-109);
    corpus BLEU-4 over characters (:59-70); Levenshtein distance (:104); validity, whether RDKit reads the answer; and
    the mean Tanimoto similarity of MACCS keys, RDK fingerprints and Morgan counts of radius 2 over the rows whose
    answer it reads (fingerprint_metrics.py:42, 62-68). For RDKit an empty text is a molecule without atoms, and what
    stands behind white space is a title. A row whose gold answer is no molecule, which ends the script, is wrong here
    and has no similarity.

    It hides: that word pieces reward a name for its fragments (a wrong systematic name shares most pieces with the
    right one), what stands after the 512th piece, and how often an answer could not be read: such an answer counts as
    an empty caption here; the script knows none. Of molecules it hides that similarities leave the invalid answers out:
    a model that writes fewer valid molecules can have higher ones. BLEU and Levenshtein pay for writing a molecule's
    atoms in the gold answer's order. InChI takes most tautomers for equal, and any two molecules that have none.

    Args:
        tokenizer: SciBERT's `vocab.txt`, or the folder that holds it, where it is not in the data folders.
    """

    name: ClassVar[str] = "molt5"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions and molecules."""
        return {"caption": _caption_metrics(), "molecule": _molt5_molecules()}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """SciBERT's word pieces, of captions."""
        return scibert(self.tokenizer) if kind == "caption" else None

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """A caption without the mark that some of MolT5's files carry; a molecule as it stands."""
        return (prediction or "").removeprefix("[CLS] ") if kind == "caption" else prediction


@dataclass(frozen=True, kw_only=True)
class MolReGPT(Protocol):
    """MolReGPT's evaluation (`naive_test.py`; repository phenixace/MolReGPT at b270006), whose published numbers its
    released files reproduce.

    Captions: as in `molt5`, but BLEU and METEOR compare the pieces of T5's tokenizer, whole texts of them. These
    are cased and carry the space before a word, and the same captions score some .03 higher in BLEU-2 than on
    SciBERT's pieces: the two are not comparable. An answer that could not be read counts as an empty caption.

    Molecules: exactly as in `molt5`, whose code it copies (`evaluations/mol_translation_metrics.py`,
    `evaluations/fingerprint_metrics.py`). Its published table follows but for the RDK similarity, which is .007 lower
    with the RDKit of 2026 than with that of 2022, and only against the gold answers as ChEBI-20's file has them: 484 of
    3,300 hold doubled backslashes, which cost .008 of BLEU and .34 of Levenshtein distance. molgraft's data sets mend
    them. Its FCD and Text2Mol scores are not computed. It has neither classes nor numbers.

    It hides: what `molt5` hides; and it pays for letter case, so that a caption in lower case loses what is no fault.

    Args:
        tokenizer: T5's `tokenizer.json`, also gzipped, where it is not in the data folders.
    """

    name: ClassVar[str] = "molregpt"

    tokenizer: str | None = None

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions and molecules."""
        return {"caption": _caption_metrics(), "molecule": _molt5_molecules()}

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """T5's pieces, of captions."""
        return t5(self.tokenizer) if kind == "caption" else None


def _caption_metrics() -> tuple[Metric, ...]:
    return Bleu2(), Bleu4(), Rouge1(), Rouge2(), RougeL(), Meteor()


def _molt5_molecules() -> tuple[Metric, ...]:
    return (
        Exact(by="inchi"),
        Bleu(form="written"),
        Levenshtein(form="written"),
        Maccs(over="parsed"),
        Rdk(over="parsed"),
        Morgan(over="parsed", counts=True),
        Validity(),
    )
