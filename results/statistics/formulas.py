"""Metrics as functions of rows, so that each can be computed again over a part or a resample of the examples.

What a metric's rows are stands in the score file (`basis`), written by the metric itself. Most metrics are functions
of sums over rows (`Additive`); the area under a ROC curve is one of ranks (`Ranked`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from results.runs import ResultsError

FloatArray = npt.NDArray[np.float64]
Part = slice | npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """What a metric is computed from.

    Args:
        formula: a name of `FORMULAS`.
        rows: `(n, k)`, the columns of the formula for each example; NaN in a row of an example without a value.
        groups: of each example; the metric is then the mean over groups of its value in each.
    """

    formula: str
    rows: FloatArray
    groups: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, places: Sequence[int] | npt.NDArray[np.intp]) -> Basis:
        """The basis of some examples, by their places, in that order."""
        groups = None if self.groups is None else tuple(self.groups[place] for place in places)
        return Basis(self.formula, self.rows[np.asarray(places, dtype=np.intp)], groups)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """`(n,)`, which examples have a value."""
        return np.asarray(~np.isnan(self.rows).any(axis=1))


@dataclass(frozen=True, slots=True)
class Additive:
    """A metric that is a function of sums over rows.

    Args:
        columns: what the rows hold.
        parts: from `(n, k)` rows, none of them NaN, to what each adds to the sums, `(n, m)`.
        terms: from sums `(..., m)` to values `(..., c)`, whose mean over the last axis (and over groups) is the metric;
            NaN where one is undefined.
    """

    columns: tuple[str, ...]
    parts: Callable[[FloatArray], FloatArray]
    terms: Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True)
class Ranked:
    """The area under the ROC curve: of columns score and label (1 for positive)."""

    columns: tuple[str, ...] = ("score", "label")


def _with_count(rows: FloatArray) -> FloatArray:
    return np.column_stack([rows, np.ones(len(rows))])


def _as_they_are(rows: FloatArray) -> FloatArray:
    return rows


def _ratio(sums: FloatArray) -> FloatArray:
    """Each sum of the first half over its partner of the second; NaN where that is 0."""
    over, under = np.split(sums, 2, axis=-1)
    found: FloatArray = np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0)
    return found


def _scaled_squares(rows: FloatArray) -> FloatArray:
    """Squared errors, the scale on which they are, and 1; a square must not leave the range of a float."""
    largest = float(np.abs(rows).max(initial=0.0))
    scale = 1.0 if largest == 0 or 1e-140 < largest < 1e140 else largest
    return np.column_stack([(rows / scale) ** 2, np.full(len(rows), scale), np.ones(len(rows))])


def _root_mean_square(sums: FloatArray) -> FloatArray:
    squares, scales, count = np.moveaxis(sums, -1, 0)
    mean = np.divide(squares, count, out=np.full(count.shape, np.nan), where=count > 0)
    # What was swapped away may leave -1e-20 of a sum.
    return np.asarray(np.sqrt(np.maximum(mean, 0.0)) * (scales / np.maximum(count, 1)))[..., None]


def _squares(rows: FloatArray) -> FloatArray:
    """Gold and predicted numbers as squared error, squared gold, gold and 1, with gold counted from its mean."""
    gold, predicted = rows.T
    errors, centred = predicted - gold, gold - (math.fsum(gold) / max(1, len(gold)))
    # One factor for both is without effect on R2, and keeps squares within the range of a float.
    scale = max(np.abs(errors).max(initial=0.0), np.abs(centred).max(initial=0.0)) or 1.0
    errors, centred = errors / scale, centred / scale
    return np.column_stack([errors**2, centred**2, centred, np.ones(len(rows))])


def _explained(sums: FloatArray) -> FloatArray:
    error, square, plain, count = np.moveaxis(sums, -1, 0)
    mean_square = np.divide(plain**2, count, out=np.zeros(count.shape), where=count > 0.5)
    total = square - mean_square
    defined = (total > 1e-12 * square) & (count > 1.5)
    return np.asarray(1 - np.divide(error, total, out=np.full(total.shape, np.nan), where=defined))[..., None]


def _hits_and_sizes(rows: FloatArray) -> FloatArray:
    hits, wrong, missed = rows.T
    return np.column_stack([2 * hits, 2 * hits + wrong + missed])


def _hits_and_sizes_of_classes(rows: FloatArray) -> FloatArray:
    """Gold and answered class numbers as twice the hits of each class, then its answers and golds together."""
    gold, said = rows.T
    classes = np.arange(int(max(gold.max(initial=-1), said.max(initial=-1))) + 1)
    is_gold, is_said = gold[:, None] == classes, said[:, None] == classes
    return np.hstack([2.0 * (is_gold & is_said), 1.0 * is_gold + is_said])


def _bleu(orders: int) -> Additive:
    def terms(sums: FloatArray) -> FloatArray:
        matches, possible = sums[..., :orders], sums[..., orders : 2 * orders]
        predicted, expected = sums[..., 2 * orders], sums[..., 2 * orders + 1]
        with np.errstate(divide="ignore", invalid="ignore"):  # what has no match at all is 0 in the end
            brevity = np.where(predicted > expected, 1.0, np.exp(1 - expected / predicted))
            precisions = np.where(matches > 0.5, matches / possible, sys.float_info.min)
            found = brevity * np.exp((np.log(precisions) / orders).sum(axis=-1))
        return np.asarray(np.where(matches[..., 0] > 0.5, found, 0.0))[..., None]

    numbers = range(1, orders + 1)
    counted = (*(f"matches_{i}" for i in numbers), *(f"possible_{i}" for i in numbers))
    return Additive((*counted, "predicted length", "reference length"), _as_they_are, terms)


FORMULAS: Mapping[str, Additive | Ranked] = {
    "mean": Additive(("value",), _with_count, _ratio),
    "sum": Additive(("value",), _as_they_are, _as_they_are),
    "ratio": Additive(("part", "whole"), _as_they_are, _ratio),
    "rmse": Additive(("absolute error",), _scaled_squares, _root_mean_square),
    "r2": Additive(("gold", "predicted"), _squares, _explained),
    "f1": Additive(("true positive", "false positive", "false negative"), _hits_and_sizes, _ratio),
    "macro-f1": Additive(("gold class", "answered class"), _hits_and_sizes_of_classes, _ratio),
    "roc-auc": Ranked(),
    **{f"bleu-{orders}": _bleu(orders) for orders in range(1, 10)},
}
"""Every formula that a basis may name."""


def formula_of(basis: Basis) -> Additive | Ranked:
    """The formula that a basis names.

    Raises:
        ResultsError: there is none of that name, or the rows have other columns than it needs.
    """
    found = FORMULAS.get(basis.formula)
    if found is None:
        raise ResultsError(f"no formula {basis.formula!r}; there are: {', '.join(sorted(FORMULAS))}")
    if basis.rows.ndim != 2 or (basis.rows.shape[1] != len(found.columns) and len(basis)):
        raise ResultsError(
            f"formula {basis.formula} needs {len(found.columns)} columns ({', '.join(found.columns)}); "
            f"the rows have the shape {basis.rows.shape}"
        )
    return found


def value_of(basis: Basis, weights: FloatArray | None = None) -> FloatArray | float:
    """The metric over all examples, or over each of many resamples of them.

    Args:
        basis: of the metric.
        weights: `(R, n)`, how often each example counts; None for once each.

    Returns:
        A number without weights (sums are exact there, so that the order of examples is without effect), else `(R,)`;
        NaN where the metric is undefined.

    Raises:
        ResultsError: as `formula_of`.
    """
    formula = formula_of(basis)
    codes = group_codes([basis])
    rows = basis.rows[:, None, :]
    if weights is not None:
        return np.asarray(Weighted(formula, rows, codes)(weights)[:, 0])
    if isinstance(formula, Ranked):
        return float(Weighted(formula, rows, codes)(np.ones((1, len(basis))))[0, 0])
    added = contributions(formula, rows)[:, 0]
    sums = [[math.fsum(column) for column in added[part].T.tolist()] for part in parts_of(codes)]
    terms = formula.terms(np.array(sums, dtype=np.float64).reshape(len(sums), added.shape[1])).ravel()
    defined = [term for term in terms.tolist() if not math.isnan(term)]
    return math.fsum(defined) / len(defined) if defined else math.nan


class Weighted:
    """A metric of several bases over the same examples, as a function of how often each example counts.

    Args:
        formula: of all of them.
        rows: `(n, s, k)` of `s` bases.
        codes: `(n,)`, the number of each example's group.
    """

    def __init__(self, formula: Additive | Ranked, rows: FloatArray, codes: npt.NDArray[np.intp]) -> None:
        self._parts = parts_of(codes)
        self._bases = rows.shape[1]
        if isinstance(formula, Ranked):
            self._areas = [[Areas(rows[part, base]) for base in range(self._bases)] for part in self._parts]
        else:
            self._terms = formula.terms
            self._added = contributions(formula, rows)
        self._formula = formula

    def __call__(self, weights: FloatArray) -> FloatArray:
        """From `(R, n)` weights to `(R, s)` values; NaN where one is undefined."""
        if isinstance(self._formula, Ranked):
            by_group = zip(self._parts, self._areas, strict=True)
            areas = [np.stack([area(weights[:, part]) for area in bases], axis=1) for part, bases in by_group]
            return mean_of_defined(np.stack(areas, axis=2))
        sums = [in_sums(weights[:, part], self._added[part]) for part in self._parts]
        return mean_of_terms(np.stack([self._terms(of_group) for of_group in sums], axis=2))


class Areas:
    """Areas under the ROC curve over weighted rows, in which a tie counts half.

    Args:
        rows: `(n, 2)`, score and label (1 for positive); a NaN row counts nowhere.
    """

    def __init__(self, rows: FloatArray) -> None:
        known = ~np.isnan(rows).any(axis=1)
        scores, is_positive = rows[:, 0], rows[:, 1] > 0.5
        self._positive = np.flatnonzero(known & is_positive)
        negative = np.flatnonzero(known & ~is_positive)
        self._negative = negative[np.argsort(scores[negative], kind="stable")]
        ranked = scores[self._negative]
        self._below = np.searchsorted(ranked, scores[self._positive], side="left")
        self._not_above = np.searchsorted(ranked, scores[self._positive], side="right")

    def __call__(self, weights: FloatArray) -> FloatArray:
        """`(R,)` areas from `(R, n)` weights; NaN where only one class occurs."""
        counted = np.zeros((len(weights), len(self._negative) + 1))
        np.cumsum(weights[:, self._negative], axis=1, out=counted[:, 1:])
        positive = weights[:, self._positive]
        won = np.einsum("rp,rp->r", positive, counted[:, self._below])
        won += np.einsum("rp,rp->r", positive, counted[:, self._not_above])
        pairs = positive.sum(axis=1) * counted[:, -1]
        found: FloatArray = np.divide(won / 2, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
        return found


def contributions(formula: Additive, rows: FloatArray) -> FloatArray:
    """What each example adds to the sums of each basis: `(n, s, m)` from `(n, s, k)`; 0 for a NaN row.

    All bases go through `parts` together, so that what is counted from a mean is counted from the same one.
    """
    n, bases, width = rows.shape
    flat = rows.reshape(n * bases, width)
    known = ~np.isnan(flat).any(axis=1)
    found = formula.parts(flat[known])
    added = np.zeros((n * bases, found.shape[1]))
    added[known] = found
    return added.reshape(n, bases, found.shape[1])


def in_sums(weights: FloatArray, added: FloatArray) -> FloatArray:
    """`(R, s, m)` sums of `(n, s, m)` contributions under `(R, n)` weights."""
    n, bases, width = added.shape
    return (weights @ added.reshape(n, bases * width)).reshape(len(weights), bases, width)


def group_codes(bases: Sequence[Basis]) -> npt.NDArray[np.intp]:
    """The number of each example's group, in the order of their names; 0 for all where there are none."""
    groups = bases[0].groups
    if groups is None:
        return np.zeros(len(bases[0]), dtype=np.intp)
    return np.unique(np.array(groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.intp)


def parts_of(codes: npt.NDArray[np.intp]) -> list[Part]:
    """The places of each group's examples: a slice where they stand together, which numpy need not copy."""
    parts: list[Part] = []
    for code in np.unique(codes):
        places = np.flatnonzero(codes == code)
        together = places[-1] - places[0] + 1 == len(places)
        parts.append(slice(int(places[0]), int(places[-1]) + 1) if together else places)
    return parts or [slice(0, 0)]


def mean_of_terms(terms: FloatArray) -> FloatArray:
    """`(R, s)` from `(R, s, groups, c)` terms."""
    return mean_of_defined(terms.reshape(*terms.shape[:2], -1))


def mean_of_defined(values: FloatArray) -> FloatArray:
    """The mean over the last axis of what is no NaN; NaN where all is."""
    if values.shape[-1] == 1:
        return np.asarray(values[..., 0])
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    found: FloatArray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return found
