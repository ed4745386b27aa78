"""Metrics of molecules written as SMILES: exact match, BLEU, Levenshtein distance, fingerprint similarities, validity.

Row by row they are to the last bit what the published evaluation scripts get from RDKit, nltk and python-Levenshtein;
means are sums without rounding, from which numpy's differ by an ulp. Where scripts differ, a field says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import ClassVar, Literal

from tasks.base import Direction, Estimate, TaskError
from tasks.metrics.base import Metric, Pairs, mean_estimate
from tasks.metrics.guarded import limit_seconds
from tasks.metrics.molecule_records import Fingerprint, Structure, structures
from tasks.metrics.text import bleu_estimate, ngram_statistics

Form = Literal["written", "canonical"]
Identity = Literal["inchi", "canonical", "string"]
Averaged = Literal["all", "parsed"]
Structures = Sequence[Structure | None]


class _OfMolecules(Metric):
    """What all metrics of this file depend on beside the rows."""

    def identity(self) -> Mapping[str, str]:
        """RDKit's version, and after what time a molecule counts as unreadable."""
        return {"rdkit": package_version("rdkit"), "rdkit-seconds": f"{limit_seconds():g}"}


@dataclass(frozen=True, kw_only=True)
class Exact(_OfMolecules):
    """The rate of answers that are the gold molecule, over all rows.

    Args:
        by: what must be equal. `inchi` (MolT5's `mol_translation_metrics.py`:97) takes tautomers and salts of different
            drawing for equal, and also any two molecules without an InChI; `canonical` compares canonical SMILES, in
            which neither the order of atoms nor that of molecules matters; `string` compares the texts.
    """

    name: ClassVar[str] = "exact"

    by: Identity = "canonical"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate of equal rows; per row 1 or 0."""
        if self.by == "string":
            return mean_estimate([float(p == r) for p, r in zip(pairs.predictions, pairs.references, strict=True)])
        return mean_estimate([float(self._are_equal(*both)) for both in zip(*structures_of(pairs), strict=True)])

    def _are_equal(self, prediction: Structure | None, reference: Structure) -> bool:
        if prediction is None or not (prediction.is_valid and reference.is_valid):
            return False
        if self.by == "inchi":
            return prediction.has_same_inchi(reference)
        return prediction.smiles == reference.smiles or prediction.canonical == reference.canonical


@dataclass(frozen=True, kw_only=True)
class Bleu(_OfMolecules):
    """Corpus BLEU over 1- to 4-grams of characters, unsmoothed; per row, the molecule's own (not averaged).

    Args:
        form: which text is compared: as `written`, or `canonical` SMILES where there is a molecule.
    """

    name: ClassVar[str] = "bleu"

    form: Form = "written"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The BLEU of all rows together; an answer that could not be read is an empty text."""
        predictions, references = _texts(pairs, self.form)
        counts = pairs.once(f"characters {self.form}", lambda: ngram_statistics(predictions, references, 4))
        return bleu_estimate(counts, 4)


@dataclass(frozen=True, kw_only=True)
class Levenshtein(_OfMolecules):
    """Mean number of characters to be inserted, deleted or replaced; 0 is best.

    Args:
        form: as in `Bleu`.
    """

    name: ClassVar[str] = "levenshtein"
    better: ClassVar[Direction | None] = "smaller"

    form: Form = "written"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean distance; an answer that could not be read is an empty text."""
        from rapidfuzz.distance import Levenshtein as Distance

        return mean_estimate([float(Distance.distance(*both)) for both in zip(*_texts(pairs, self.form), strict=True)])

    def identity(self) -> Mapping[str, str]:
        """As of the other metrics of molecules, and the package that counts."""
        return {**super().identity(), "rapidfuzz": package_version("rapidfuzz")}


class _Similarity(_OfMolecules):
    """Mean Tanimoto similarity of a fingerprint."""

    over: Averaged

    def _mean(self, pairs: Pairs, fingerprint: Fingerprint) -> Estimate:
        """The mean over rows; a row that either side makes incomparable counts 0, or has no value."""
        missing = 0.0 if self.over == "all" else None
        estimate = mean_estimate(
            [
                prediction.similarity(reference, fingerprint)
                if prediction is not None and prediction.is_valid and reference.is_valid
                else missing
                for prediction, reference in zip(*structures_of(pairs), strict=True)
            ]
        )
        if estimate.value is None:
            return Estimate(
                value=None, reason="no answer could be read as a molecule", per_example=estimate.per_example
            )
        return estimate


@dataclass(frozen=True, kw_only=True)
class Maccs(_Similarity):
    """Mean Tanimoto similarity of MACCS keys (166 bits).

    Args:
        over: `all` rows, an unreadable answer counting 0; or those that could be `parsed`, as the published scripts do.
    """

    name: ClassVar[str] = "maccs"

    over: Averaged = "all"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return self._mean(pairs, "maccs")


@dataclass(frozen=True, kw_only=True)
class Rdk(_Similarity):
    """Mean Tanimoto similarity of RDKit's fingerprint of paths and branches of 1 to 7 bonds (2,048 bits).

    That of a molecule without bonds is empty, and the similarity of two empty ones is 0: a sodium ion is unlike itself.
    Its values moved with RDKit: those of 2026.09 are .006 below those published with 2022.03.

    Args:
        over: as in `Maccs`.
    """

    name: ClassVar[str] = "rdk"

    over: Averaged = "all"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return self._mean(pairs, "rdk")


@dataclass(frozen=True, kw_only=True)
class Morgan(_Similarity):
    """Mean Tanimoto similarity of Morgan fingerprints of radius 2, without chirality.

    Args:
        over: as in `Maccs`.
        counts: how often each surrounding occurs, unfolded, as in MolT5's script; else 2,048 bits.
    """

    name: ClassVar[str] = "morgan"

    over: Averaged = "all"
    counts: bool = True

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return self._mean(pairs, "morgan" if self.counts else "morgan-bits")


@dataclass(frozen=True, kw_only=True)
class Validity(_OfMolecules):
    """The rate of answers that RDKit reads as a molecule."""

    name: ClassVar[str] = "validity"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate of valid rows; per row 1 or 0."""
        answers = structures_of(pairs)[0]
        return mean_estimate([float(answer is not None and answer.is_valid) for answer in answers])


def structures_of(pairs: Pairs) -> tuple[Structures, list[Structure]]:
    """The structure of each answer (None for one that could not be read) and of each gold answer.

    Raises:
        TaskError: RDKit reads none of the gold answers.
    """
    return pairs.once("structures", lambda: _structures(pairs))


def _structures(pairs: Pairs) -> tuple[Structures, list[Structure]]:
    references = structures(list(pairs.references))
    if references and not any(reference.is_valid for reference in references):
        first = references[0]
        raise TaskError(
            f"RDKit reads no gold answer as a molecule: the first, {first.smiles[:60]!r}, {first.reason}. "
            "Is it the right column? SMILES are needed"
        )
    answers = iter(structures([prediction for prediction in pairs.predictions if prediction is not None]))
    return [None if prediction is None else next(answers) for prediction in pairs.predictions], references


def _texts(pairs: Pairs, form: Form) -> tuple[list[str], list[str]]:
    """What is compared by characters."""
    if form == "written":
        return pairs.texts
    answers, references = structures_of(pairs)
    return [_text(answer) for answer in answers], [_text(reference) for reference in references]


def _text(structure: Structure | None) -> str:
    """Canonical SMILES; the text itself where there is no molecule."""
    if structure is None:
        return ""
    return structure.canonical if structure.is_valid else structure.smiles
