"""Two cells on the same examples: the difference of a metric, its p, its interval and what could have been seen."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from results.runs import ResultsError
from results.statistics.formulas import Basis, Weighted, formula_of, group_codes, value_of
from results.statistics.permutation import permutation_test
from results.statistics.power import LEVEL, POWER, detectable_difference, detectable_errors
from results.statistics.resampling import RESAMPLES, SEED, FloatArray, bootstrap_counts
from results.statistics.spread import Interval

FEW = 20
"""Below this many examples a bootstrap interval is noticeably too narrow, which a note says."""


@dataclass(frozen=True, slots=True)
class PairedResult:
    """How one cell's metric differs from another's on the same examples.

    Args:
        difference: the first cell's metric less the second's, each a mean over its seeds; NaN where one is undefined.
        ci95: of the difference; None below 2 examples.
        p: two-sided; None where the difference is undefined.
        n: examples of which both cells have a value.
        seeds: of the first and of the second cell.
        effect: the difference in standard deviations of a single example's (Cohen's d_z); None where that is 0.
        detectable: the true difference that a test at 5% finds in 80% of comparisons with such variances (those over
            seeds too where `test` is over them); None where they are 0.
        test: how `p` was found.
        note: what a reader must know to read the rest; empty where there is nothing.
        freedom: degrees of freedom of the standard error that `detectable` is made of.
    """

    difference: float
    ci95: tuple[float, float] | None
    p: float | None
    n: int
    seeds: tuple[int, int]
    effect: float | None
    detectable: float | None
    test: str
    note: str = ""
    freedom: float | None = None

    def detectable_after(self, tests: int) -> float | None:
        """`detectable` where this is one of so many tests and each gets its part of the level of 5% (Bonferroni).

        Holm's correction lets through what Bonferroni's does and sometimes more, so that its power is at least this.
        With few degrees of freedom the smaller level takes far more standard errors, which are those of this result.
        """
        if self.detectable is None or self.freedom is None or not math.isfinite(self.detectable):
            return None
        alone, shared = (detectable_errors(self.freedom, POWER, LEVEL / count) for count in (1, max(1, tests)))
        return self.detectable * shared / alone


def paired(
    a: Sequence[Basis],
    b: Sequence[Basis],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    two_way: bool = False,
) -> PairedResult:
    """The difference of a metric between two cells that answered the same examples.

    p is that of a permutation test that swaps the two cells' rows of each example, the interval a percentile bootstrap
    over examples. Both take the trained models as they are: they say whether *these* models differ on other examples of
    the same kind, not whether training them again would. `two_way` asks that: it adds the variance over seeds to that
    over examples, and takes p and interval from Student's t with Satterthwaite's degrees of freedom.

    Args:
        a, b: one basis for each seed of each cell; the same examples in the same order (`aligned`).
        resamples: of the permutation test and of the bootstrap.
        seed: of both.
        two_way: whether to speak about other seeds too; without 2 seeds of each cell a note says that it is not so.

    Raises:
        ResultsError: a cell without a seed, or bases of other examples or of another formula.
    """
    a, b = _comparable(a, b)
    seeds = len(a), len(b)
    by_seed = [[float(value_of(basis)) for basis in cell] for cell in (a, b)]
    known = [np.any([basis.known for basis in cell], axis=0) for cell in (a, b)]
    n = int((known[0] & known[1]).sum())
    first, second = (math.fsum(values) / len(values) for values in by_seed)
    difference = first - second
    if math.isnan(difference):
        lacking = "both cells" if math.isnan(first) and math.isnan(second) else "one of the cells"
        return PairedResult(math.nan, None, None, n, seeds, None, None, "none", f"undefined for {lacking}")

    notes = []
    only = int((known[0] ^ known[1]).sum())
    if only:
        notes.append(f"{only:,} examples have a value in one of the cells only")
    if n < FEW:
        notes.append(f"{n} examples are too few for an interval to be trusted")
    if two_way and min(seeds) < 2:
        notes.append("over examples only: variance over seeds needs 2 seeds of each cell")
    found = PairedResult(difference, None, None, n, seeds, None, None, "none", "; ".join(notes))
    cells, (a, b) = (a, b), _averaged(a, b)
    if len(a[0]) > 1:
        drawn, error = _bootstrap(a, b, difference, resamples, seed)
        effect, detectable = _sizes(difference, error, n)
        freedom = None if detectable is None else float(n - 1)
        found = replace(found, ci95=_percentiles(drawn), effect=effect, detectable=detectable, freedom=freedom)
        if two_way and min(seeds) > 1:
            luck = [_luck_on_examples(cell, resamples, seed) for cell in cells]
            found = _two_way(found, error, by_seed, luck)
    if found.p is None:
        p, test = permutation_test(a, b, (first, second), resamples, seed)
        found = replace(found, p=p, test=test)
    return found


def over_examples(bases: Sequence[Basis], *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """A cell's metric (the mean over its seeds) and its percentile bootstrap interval over examples.

    Assumes that examples are independent draws, and takes the trained models as they are. None where it is undefined.

    Raises:
        ResultsError: bases of other examples or of another formula.
    """
    (bases,) = _comparable(bases)
    mean = math.fsum(float(value_of(basis)) for basis in bases) / len(bases)
    if math.isnan(mean):
        return None
    n = int(np.any([basis.known for basis in bases], axis=0).sum())
    if len(bases[0]) < 2:
        return Interval(mean, None, n)
    values = _resampled(bases, resamples, seed)
    return Interval(mean, _percentiles(values.mean(axis=1)), n)


def mean_over_examples(values: Sequence[float]) -> Interval | None:
    """Mean and percentile bootstrap interval of one value for each example, as `over_examples`; None without values."""
    if not len(values):
        return None
    return over_examples([Basis("mean", np.asarray(values, dtype=np.float64)[:, None])])


def aligned(*cells: Sequence[tuple[Sequence[str], Basis]]) -> tuple[tuple[Basis, ...], ...]:
    """The bases of cells on the examples that all have, in the order of the first.

    Args:
        cells: of each, the example ids and the basis of each seed.

    Returns:
        The bases, as they came in; as they are where all are of the same examples already.

    Raises:
        ResultsError: no example is in all of them, or one basis has an example twice.
    """
    given = [tuple(ids) for cell in cells for ids, _ in cell]
    for ids, basis in (pair for cell in cells for pair in cell):
        if len(set(ids)) != len(ids) or len(ids) != len(basis):
            raise ResultsError(f"{len(ids)} example ids, {len(set(ids))} of them different, for {len(basis)} rows")
    if all(ids == given[0] for ids in given):
        return tuple(tuple(basis for _, basis in cell) for cell in cells)
    shared = set.intersection(*(set(ids) for ids in given))
    if not shared:
        raise ResultsError("no example was answered in all of the runs that are to be compared")
    order = [example for example in given[0] if example in shared]

    def taken(ids: Sequence[str], basis: Basis) -> Basis:
        place = {example: number for number, example in enumerate(ids)}
        return basis.of([place[example] for example in order])

    return tuple(tuple(taken(ids, basis) for ids, basis in cell) for cell in cells)


def _comparable(*cells: Sequence[Basis]) -> tuple[Sequence[Basis], ...]:
    """The bases, with the same groups in all.

    Raises:
        ResultsError: they are of other examples or of another formula, or there is none.
    """
    if not all(cells):
        raise ResultsError("a cell without a run has nothing to be compared")
    bases = [basis for cell in cells for basis in cell]
    first = bases[0]
    for basis in bases:
        formula_of(basis)
        if basis.formula != first.formula:
            raise ResultsError(f"metrics of different formulas cannot be compared: {first.formula}, {basis.formula}")
        if len(basis) != len(first):
            raise ResultsError(f"bases of different examples ({len(first):,} and {len(basis):,}): align them first")
    if not len(first):
        raise ResultsError("there is no example to compare on")
    groups = _common_groups(bases)
    return tuple(
        [basis if basis.groups == groups else replace(basis, groups=groups) for basis in cell] for cell in cells
    )


def _common_groups(bases: Sequence[Basis]) -> tuple[str, ...] | None:
    """Each example's group: a basis does not name ("") that of an example without a part in it; another may."""
    kinds = dict.fromkeys(basis.groups for basis in bases)
    if len(kinds) == 1:
        return bases[0].groups
    named: list[tuple[str, ...]] = [groups for groups in kinds if groups is not None]
    found = [set(names) - {""} for names in zip(*named, strict=True)]
    if len(named) < len(kinds) or any(len(names) > 1 for names in found):
        raise ResultsError("bases whose examples belong to different groups: align them first")
    return tuple(next(iter(names), "") for names in found)


def _averaged(a: Sequence[Basis], b: Sequence[Basis]) -> tuple[Sequence[Basis], Sequence[Basis]]:
    """One basis of each cell where that changes nothing: a mean over seeds of means is one of each example's mean."""
    if not _is_plain_mean([*a, *b]):
        return a, b
    # Sorted, so that the order of seeds is without effect to the last bit.
    means = [np.sort(np.stack([basis.rows for basis in cell]), axis=0).mean(axis=0) for cell in (a, b)]
    return [replace(a[0], rows=means[0])], [replace(a[0], rows=means[1])]


def _is_plain_mean(bases: Sequence[Basis]) -> bool:
    return all(basis.formula == "mean" and basis.known.all() for basis in bases)


def _bootstrap(
    a: Sequence[Basis], b: Sequence[Basis], difference: float, resamples: int, seed: int
) -> tuple[FloatArray, float]:
    """Differences of resamples, and the standard error of the difference over examples.

    The cell with the larger metric goes first, so that swapping the cells gives the same resamples and the mirror image
    of the interval. Of equal cells, both ways are averaged.
    """
    if difference < 0:
        drawn, error = _bootstrap(b, a, -difference, resamples, seed)
        return -drawn, error
    drawn = _differences(a, b, resamples, seed)
    if difference == 0:
        mirrored = _differences(b, a, resamples, seed)
        drawn = (np.sort(drawn) - np.sort(mirrored)[::-1]) / 2
    if _is_plain_mean([*a, *b]) and a[0].groups is None:  # known without drawing
        apart = np.mean([basis.rows for basis in a], axis=0) - np.mean([basis.rows for basis in b], axis=0)
        return drawn, float(np.std(apart, ddof=1)) / math.sqrt(len(apart))
    defined = drawn[~np.isnan(drawn)]
    return drawn, float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan


def _differences(a: Sequence[Basis], b: Sequence[Basis], resamples: int, seed: int) -> FloatArray:
    values = _resampled([*a, *b], resamples, seed)
    return np.asarray(values[:, : len(a)].mean(axis=1) - values[:, len(a) :].mean(axis=1))


def _resampled(bases: Sequence[Basis], resamples: int, seed: int) -> FloatArray:
    """`(resamples, s)` values of each basis; resamples are the same for the same examples in any order."""
    rows = np.stack([basis.rows for basis in bases], axis=1)
    codes = group_codes(bases)
    keys = np.where(np.isnan(rows), np.finfo(np.float64).min, rows).reshape(len(rows), -1)
    order = np.lexsort((*keys.T[::-1], codes))
    metric = Weighted(formula_of(bases[0]), rows[order], codes[order])
    return np.concatenate([metric(counts) for counts in bootstrap_counts(len(rows), resamples, seed)])


def _percentiles(values: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95% percentile interval of what is defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


def _sizes(difference: float, error: float, n: int) -> tuple[float | None, float | None]:
    """Effect and detectable difference from the standard error of the difference; None where that is 0."""
    deviation = error * math.sqrt(n)
    if n < 2 or not deviation > 1e-14 * max(1e-300, abs(difference)):
        return None, None
    return difference / deviation, detectable_difference(deviation, n)


def _luck_on_examples(cell: Sequence[Basis], resamples: int, seed: int) -> float:
    """The part of the variance of a cell's metric over seeds that is due to single examples.

    Another seed is luckier on some examples and unluckier on others. That varies between seeds and between examples,
    so that it is in the variance over either, and must be taken from one of them.
    """
    if _is_plain_mean(cell) and cell[0].groups is None:
        rows = np.hstack([basis.rows for basis in cell])
        apart = rows - rows.mean(axis=1, keepdims=True)
        return float(apart.var(axis=0, ddof=1).sum() / (len(cell) - 1) / len(rows))
    values = _resampled(cell, resamples, seed)
    values = values[~np.isnan(values).any(axis=1)]
    if len(values) < 2:
        return 0.0
    apart = values - values.mean(axis=1, keepdims=True)
    return float(apart.var(axis=0, ddof=1).sum() / (len(cell) - 1))


def _two_way(
    found: PairedResult, error: float, by_seed: Sequence[Sequence[float]], luck: Sequence[float]
) -> PairedResult:
    """`found` with what it says over seeds and examples: the variances of both add up; unchanged where they are 0."""
    from scipy.stats import t

    variance, doubt = error**2, error**4 / max(1, found.n - 1)
    for values, on_examples in zip(by_seed, luck, strict=True):
        over_seeds = statistics.variance(values)
        if over_seeds > on_examples:
            variance += (over_seeds - on_examples) / len(values)
            doubt += (over_seeds / len(values)) ** 2 / (len(values) - 1)
    if not variance > 0:  # or unknown
        return found
    freedom = variance**2 / doubt
    rounded = round(freedom, 1)  # what is detectable is kept by it, and takes a while to find
    error = math.sqrt(variance)
    half = float(t.ppf(0.975, freedom)) * error
    return replace(
        found,
        ci95=(found.difference - half, found.difference + half),
        p=float(2 * t.sf(abs(found.difference) / error, freedom)),
        detectable=detectable_errors(rounded) * error,
        test=f"t over examples and seeds ({freedom:.1f} degrees of freedom)",
        freedom=rounded,
    )
