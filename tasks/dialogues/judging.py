"""Whether a claim is right: the value computed anew from the SMILES, compared with the value that the text states."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tasks.dialogues.claims import Claim
from tasks.dialogues.quantities import ELEMENT_NAMES, Truth

# Tables of atomic weights differ in the last digits; heavier molecules add up more of that.
_WEIGHT_TOLERANCE = 2e-4

LOGP_BANDS = (
    (0.0, "hydrophilic"),
    (3.0, "moderately lipophilic"),
    (5.0, "lipophilic"),
    (float("inf"), "highly lipophilic"),
)
"""Upper end of each band of Crippen's logP, and its word in a sentence that names Crippen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim, what the molecule says about it, and whether the two agree."""

    claim: Claim
    found: str
    right: bool


def judge(claim: Claim, truth: Truth) -> Verdict:
    """Compare one claim with a molecule."""
    found, right = _JUDGES[claim.kind](claim, truth)
    return Verdict(claim, found, right)


def logp_band(value: float) -> str:
    """The word for a logP."""
    return next(word for upper, word in LOGP_BANDS if value < upper)


def _count(claim: Claim, truth: Truth) -> tuple[str, bool]:
    low, high = truth.count(claim.quantity)
    stated = int(claim.value)
    right = stated <= high and (claim.relation == "at least" or low <= stated)
    return str(low) if low == high else f"{low} to {high}", right


def _formula(claim: Claim, truth: Truth) -> tuple[str, bool]:
    match = re.fullmatch(r"((?:[A-Z][a-z]?\d*)+)(\d*[+-]|[+-]\d+)?", claim.value)
    stated: Counter[str] = Counter()
    for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", match.group(1) if match else ""):
        stated[symbol] += int(number or 1)
    charge = _written_charge(match.group(2)) if match and match.group(2) else truth.charge
    found = "".join(f"{symbol}{truth.elements[symbol]}" for symbol in sorted(truth.elements))
    return f"{found}, charge {truth.charge:+d}", dict(stated) == dict(truth.elements) and charge == truth.charge


def _written_charge(text: str) -> int:
    number = int(text.strip("+-") or 1)
    return -number if "-" in text else number


def _weight(claim: Claim, truth: Truth) -> tuple[str, bool]:
    average, exact = truth.weights
    allowed = {"average weight": (average,), "exact weight": (exact,), "weight": (average, exact)}[claim.kind]
    return " or ".join(f"{value:.4f}" for value in allowed), any(_rounds_to(value, claim.value) for value in allowed)


def _rounds_to(value: float, stated: str) -> bool:
    """Whether a value, rounded or cut to the stated decimals, is what is stated."""
    decimals = len(stated.partition(".")[2])
    tolerance = 10.0**-decimals * (0.5 if decimals else 1.0) + abs(value) * _WEIGHT_TOLERANCE
    return abs(value - float(stated)) <= tolerance


def _charge(claim: Claim, truth: Truth) -> tuple[str, bool]:
    return f"{truth.charge:+d}", int(claim.value) == truth.charge


def _logp(claim: Claim, truth: Truth) -> tuple[str, bool]:
    decimals = len(claim.value.partition(".")[2])
    near = abs(truth.logp - float(claim.value)) <= 0.5 * 10.0**-decimals + 1e-6
    words = [word for _, word in LOGP_BANDS if re.search(rf"(?<!moderately )(?<!highly )\b{word}\b", claim.quote)]
    banded = all(word == logp_band(float(claim.value)) for word in words)
    return f"{truth.logp:.3f} ({logp_band(truth.logp)})", near and banded


def _elements(claim: Claim, truth: Truth) -> tuple[str, bool]:
    names = [name for name in re.split(r",? and |, ", claim.value) if name]
    stated = {ELEMENT_NAMES.get(name.lower(), name) for name in names}
    return ", ".join(sorted(truth.elements)), stated == set(truth.elements)


_JUDGES: Mapping[str, Callable[[Claim, Truth], tuple[str, bool]]] = {
    "count": _count,
    "formula": _formula,
    "average weight": _weight,
    "exact weight": _weight,
    "weight": _weight,
    "charge": _charge,
    "logp": _logp,
    "elements": _elements,
}
