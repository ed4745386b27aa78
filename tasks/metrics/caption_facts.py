"""Whether captions are true: their claims that RDKit can check, checked on the molecules that they describe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, ClassVar

from tasks.base import Basis, Direction, Estimate, TaskError
from tasks.metrics.base import Metric, Pairs, bootstrap_interval, mean_estimate
from tasks.metrics.claims import Claim, Subject, claims_in, lexicon_sha256

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

NO_MOLECULES = (
    "the molecules that the captions describe are not known; for a file, --molecule-column names their column"
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What one row's captions claim, checked on its molecule.

    Args:
        predicted: the claims of the prediction, each with whether it holds.
        gold: those of the gold caption.
    """

    predicted: Mapping[Claim, bool]
    gold: Mapping[Claim, bool]


@dataclass(frozen=True, kw_only=True)
class _FactMetric(Metric):
    """What the metrics of this file depend on."""

    def identity(self) -> Mapping[str, str]:
        """The version of RDKit and the hash of the words and patterns."""
        return {"rdkit": package_version("rdkit"), "claims-sha256": lexicon_sha256()}


@dataclass(frozen=True, kw_only=True)
class Hallucination(_FactMetric):
    """False claims among all checkable claims of the predictions; a caption without a claim has no share in it."""

    name: ClassVar[str] = "hallucination"
    better: ClassVar[Direction | None] = "smaller"

    def estimate(self, pairs: Pairs) -> Estimate:
        """False claims / claims over all rows, and for each row its own."""
        return _ratio(pairs, lambda row: _false_and_all(row.predicted), "no prediction makes a checkable claim")


@dataclass(frozen=True, kw_only=True)
class HallucinationOfGold(_FactMetric):
    """The same of the gold captions: where they fail, the check or the data are wrong, so that this is the floor."""

    name: ClassVar[str] = "hallucination-of-gold"
    better: ClassVar[Direction | None] = None  # no merit of the model

    def estimate(self, pairs: Pairs) -> Estimate:
        """False claims / claims of the gold captions of the same rows."""
        return _ratio(pairs, lambda row: _false_and_all(row.gold), "no gold caption makes a checkable claim")


@dataclass(frozen=True, kw_only=True)
class FactRecall(_FactMetric):
    """The share of the gold captions' true claims that the predictions make too, word for word of the lexicon.

    "Alcohol" for "tertiary alcohol" is not the same claim.
    """

    name: ClassVar[str] = "fact-recall"

    def estimate(self, pairs: Pairs) -> Estimate:
        """Claims of gold captions that hold and that the prediction makes / claims of gold captions that hold."""
        return _ratio(pairs, _recalled_and_all, "no gold caption makes a checkable claim")


@dataclass(frozen=True, kw_only=True)
class Claims(_FactMetric):
    """Checkable claims per prediction, true or false: a caption that says nothing cannot be wrong."""

    name: ClassVar[str] = "claims"
    better: ClassVar[Direction | None] = None  # a caption that says nothing cannot be wrong

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean number of claims."""
        if pairs.facts.molecules is None:
            return Estimate(value=None, reason=NO_MOLECULES)
        return mean_estimate([None if row is None else float(len(row.predicted)) for row in checked(pairs)])


@dataclass(frozen=True, kw_only=True)
class Unchecked(_FactMetric):
    """How many rows the other metrics leave out: no molecule, several of them, or one that RDKit cannot read."""

    name: ClassVar[str] = "unchecked-rows"
    better: ClassVar[Direction | None] = "smaller"

    def estimate(self, pairs: Pairs) -> Estimate:
        """Their number (not their share)."""
        if pairs.facts.molecules is None:
            return Estimate(value=None, reason=NO_MOLECULES)
        left_out = [float(row is None) for row in checked(pairs)]
        return Estimate(value=math.fsum(left_out), per_example=left_out, basis=Basis("sum"))


def checked(pairs: Pairs) -> Sequence[Checked | None]:
    """The checked claims of each row; None for a row that cannot be checked."""
    return pairs.once("checked claims", lambda: _checked(pairs))


def _checked(pairs: Pairs) -> list[Checked | None]:
    rows: list[Checked | None] = []
    for prediction, reference, molecules in zip(
        pairs.predictions, pairs.references, pairs.facts.molecules or (), strict=True
    ):
        try:
            subject = Subject(molecules[0]) if len(molecules) == 1 else None
        except TaskError:
            subject = None
        if subject is None:
            rows.append(None)
            continue
        rows.append(
            Checked(
                *(
                    {claim: subject.confirms(claim) for claim in claims_in(text or "")}
                    for text in (prediction, reference)
                )
            )
        )
    return rows


def _false_and_all(claims: Mapping[Claim, bool]) -> tuple[int, int]:
    return sum(not holds for holds in claims.values()), len(claims)


def _recalled_and_all(row: Checked) -> tuple[int, int]:
    true = [claim for claim, holds in row.gold.items() if holds]
    return sum(claim in row.predicted for claim in true), len(true)


def _ratio(pairs: Pairs, counts: Callable[[Checked], tuple[int, int]], reason: str) -> Estimate:
    """The ratio of two sums over rows, its bootstrap interval by rows, and each row's own ratio."""
    import numpy as np

    if pairs.facts.molecules is None:
        return Estimate(value=None, reason=NO_MOLECULES)
    by_row = [None if row is None else counts(row) for row in checked(pairs)]
    per_example = [None if row is None or not row[1] else row[0] / row[1] for row in by_row]
    # Rows without a claim add nothing to either sum, and a resample of them alone would have no ratio.
    statistics = np.array([row for row in by_row if row is not None and row[1]], dtype=np.float64).reshape(-1, 2)
    if not len(statistics):
        return Estimate(value=None, reason=reason, per_example=per_example)
    part, whole = statistics.sum(axis=0).tolist()
    interval = bootstrap_interval(statistics, lambda sums: sums[:, 0] / sums[:, 1])
    basis = Basis("ratio", [row if row is not None and row[1] else None for row in by_row])
    return Estimate(value=part / whole, ci95=interval, per_example=per_example, basis=basis)
