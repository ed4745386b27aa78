"""What several protocols of released code share: how they turn an answer into a molecule before they compare it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Literal

from tasks.base import Estimate
from tasks.metrics.base import Metric, Pairs
from tasks.metrics.molecule import Averaged, Bleu, Exact, Identity, Levenshtein, Maccs, Morgan, Rdk, Validity
from tasks.metrics.molecule_records import structure
from tasks.metrics.text import Bleu2, Bleu4, Meteor, Rouge1, Rouge2, RougeL

Notation = Literal["smiles", "selfies"]


def caption_metrics() -> tuple[Metric, ...]:
    """What all of them compute of captions; they differ in the tokens and in what they do to a text first."""
    return Bleu2(), Bleu4(), Rouge1(), Rouge2(), RougeL(), Meteor()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """From an answer to the SMILES that a script compares: canonical, and without stereochemistry.

    An empty text is a molecule without atoms, as RDKit and selfies have it, and no failure.

    Args:
        notation: what the answers are written in.
        close_up: whether spaces within an answer are taken out (LLaMo).
        cut: whether a SELFIES text is cut behind its last `]`, and gets one where it has none (Mol-Instructions).
    """

    notation: Notation = "smiles"
    close_up: bool = False
    cut: bool = False

    def text(self, answer: str) -> str:
        """The answer as the script holds it when it begins to read it."""
        if self.close_up:
            return answer.replace(" ", "").strip()
        if self.cut and self.notation == "selfies":
            return answer.rpartition("]")[0] + "]" if "]" in answer else answer + "]"
        return answer

    def smiles(self, answer: str | None) -> str | None:
        """The canonical SMILES, or None for what cannot be read as a molecule."""
        if answer is None:
            return None
        text = self.text(answer)
        written = _decoded(text) if self.notation == "selfies" else text
        if written is None:
            return None
        molecule = structure(written)
        return molecule.flat if molecule.is_valid else None

    def selfies(self, answer: str) -> str:
        """The answer in SELFIES: as it stands, or encoded from its SMILES; empty where that cannot be encoded."""
        text = self.text(answer)
        return text if self.notation == "selfies" else _encoded(text)

    def in_smiles(self, pairs: Pairs) -> Pairs:
        """Answers and gold answers as canonical SMILES, made once for all metrics of a protocol."""

        def read() -> Pairs:
            predictions = [self.smiles(prediction) for prediction in pairs.predictions]
            references = [self.smiles(reference) or "" for reference in pairs.references]
            return Pairs(predictions, references, pairs.tokenizer, pairs.facts)

        return pairs.once(f"SMILES of {self}", read)

    def in_selfies(self, pairs: Pairs) -> Pairs:
        """Answers and gold answers in SELFIES, likewise."""

        def write() -> Pairs:
            predictions = [None if prediction is None else self.selfies(prediction) for prediction in pairs.predictions]
            references = [self.selfies(reference) for reference in pairs.references]
            return Pairs(predictions, references, pairs.tokenizer, pairs.facts)

        return pairs.once(f"SELFIES of {self}", write)


# The metrics of `molecule.py` on what a `Reading` makes of the rows, with the settings that the scripts share. They
# expect that the protocol admits only rows of which both sides can be read.


@dataclass(frozen=True, kw_only=True)
class CanonicalExact(Exact):
    """The rate of equal InChI; two molecules without an InChI are equal."""

    reading: Reading
    by: Identity = "inchi"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate of equal rows; per row 1 or 0."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class CanonicalBleu(Bleu):
    """BLEU-4 over the characters of canonical SMILES."""

    reading: Reading

    def estimate(self, pairs: Pairs) -> Estimate:
        """The BLEU of all rows together."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class SelfiesBleu(Bleu):
    """BLEU-4 over the characters of SELFIES."""

    reading: Reading

    def estimate(self, pairs: Pairs) -> Estimate:
        """The BLEU of all rows together."""
        return super().estimate(self.reading.in_selfies(pairs))

    def identity(self) -> Mapping[str, str]:
        """As of the other metrics of molecules, and what encoded or decoded SELFIES."""
        return {**super().identity(), "selfies": package_version("selfies"), "notation": self.reading.notation}


@dataclass(frozen=True, kw_only=True)
class CanonicalLevenshtein(Levenshtein):
    """Mean edit distance of canonical SMILES."""

    reading: Reading

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean distance."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class CanonicalMaccs(Maccs):
    """Mean similarity of MACCS keys."""

    reading: Reading
    over: Averaged = "parsed"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class CanonicalRdk(Rdk):
    """Mean similarity of RDKit's path fingerprint."""

    reading: Reading
    over: Averaged = "parsed"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class CanonicalMorgan(Morgan):
    """Mean similarity of Morgan counts of radius 2."""

    reading: Reading
    over: Averaged = "parsed"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean similarity."""
        return super().estimate(self.reading.in_smiles(pairs))


@dataclass(frozen=True, kw_only=True)
class CanonicalValidity(Validity):
    """The rate of valid rows among those that are left: 1, but for a canonical SMILES that RDKit does not read back."""

    reading: Reading

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate of valid rows; per row 1 or 0."""
        return super().estimate(self.reading.in_smiles(pairs))


def _decoded(selfies_text: str) -> str | None:
    """The SMILES that a SELFIES text stands for, or None."""
    import selfies

    try:
        return str(selfies.decoder(selfies_text))
    except Exception:  # the scripts take any failure of the decoder for an unreadable answer
        return None


def _encoded(smiles: str) -> str:
    """SELFIES of a SMILES, whatever its valences; empty where the encoder gives up."""
    import selfies

    try:
        return str(selfies.encoder(smiles, strict=False))
    except selfies.EncoderError:
        return ""
