"""Statistics of scores against independent references: scipy, enumeration by hand, and printed tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from results.runs import ResultsError
from results.statistics import (
    FORMULAS,
    Basis,
    achieved_power,
    aligned,
    averaged_per_example,
    cliques,
    critical_difference,
    detectable_difference,
    examples_needed,
    friedman,
    holm,
    mcnemar,
    mean_over_examples,
    over_examples,
    over_seeds,
    paired,
    permutation_test,
    seed_interval,
    value_of,
    wins,
)
from results.statistics.resampling import all_swaps, bootstrap_counts, random_swaps

FloatArray = npt.NDArray[np.floating[Any]]


def mean_basis(values: Sequence[float] | FloatArray, groups: tuple[str, ...] | None = None) -> Basis:
    return Basis("mean", np.asarray(values, dtype=np.float64).reshape(-1, 1), groups)


def drawn(formula: str, n: int, seed: int) -> Basis:
    """Rows that a metric could have written, gold answers the same for every seed."""
    gold, model = np.random.default_rng(4), np.random.default_rng(seed)
    label = np.r_[1.0, 0.0, gold.integers(0, 2, max(0, n - 2)).astype(float)][:n]
    if formula in ("mean", "sum", "rmse"):
        rows = model.exponential(size=(n, 1))
    elif formula == "ratio":
        whole = model.integers(1, 6, n)
        rows = np.column_stack([model.integers(0, whole + 1), whole]).astype(float)
    elif formula == "r2":
        number = gold.normal(300.0, 5.0, n)
        rows = np.column_stack([number, number + model.normal(0, 3.0, n)])
    elif formula == "f1":
        said = np.where(model.uniform(size=n) < 0.7, label, 1 - label)
        rows = np.column_stack([said * label, said * (1 - label), (1 - said) * label])
    elif formula == "macro-f1":
        rows = np.column_stack([gold.integers(0, 3, n), model.integers(-1, 3, n)]).astype(float)
    elif formula == "roc-auc":
        rows = np.column_stack([np.round(label + model.normal(size=n), 1), label])
    else:
        orders = int(formula.removeprefix("bleu-"))
        said, expected = model.integers(3, 30, n), gold.integers(3, 30, n)
        possible = np.maximum(1, said[:, None] - np.arange(orders))
        matches = np.floor(possible * model.uniform(size=(n, orders)) / (1 + np.arange(orders)))
        rows = np.column_stack([matches, possible, said, expected]).astype(float)
    return Basis(formula, rows)


# What a metric is, from its definition


def test_mean_ratio_and_sum_leave_out_rows_without_a_value() -> None:
    assert value_of(mean_basis([1.0, math.nan, 4.0])) == 2.5
    assert value_of(Basis("sum", np.array([[1.0], [0.0], [1.0]]))) == 2.0
    assert value_of(Basis("ratio", np.array([[1.0, 4.0], [math.nan, math.nan], [2.0, 2.0], [0.0, 0.0]]))) == 0.5


def test_metrics_without_a_row_that_counts_are_undefined() -> None:
    assert math.isnan(float(value_of(mean_basis([math.nan]))))
    assert math.isnan(float(value_of(Basis("ratio", np.zeros((2, 2))))))
    assert math.isnan(float(value_of(Basis("f1", np.zeros((2, 3))))))
    assert math.isnan(float(value_of(Basis("r2", np.array([[5.0, 1.0], [5.0, 2.0]])))))
    assert math.isnan(float(value_of(Basis("roc-auc", np.array([[0.1, 1.0], [0.2, 1.0]])))))
    assert math.isnan(float(value_of(Basis("mean", np.zeros((0, 1))))))


def test_rmse_and_r2_are_those_of_numpy() -> None:
    rows = drawn("r2", 200, 1).rows
    gold, predicted = rows.T
    assert value_of(Basis("rmse", np.abs(predicted - gold)[:, None])) == pytest.approx(
        math.sqrt(np.mean((predicted - gold) ** 2)), rel=1e-13
    )
    assert value_of(Basis("rmse", np.array([[3e300], [4e300]]))) == pytest.approx(math.sqrt(12.5) * 1e300, rel=1e-13)
    expected = 1 - ((predicted - gold) ** 2).sum() / ((gold - gold.mean()) ** 2).sum()
    assert value_of(Basis("r2", rows)) == pytest.approx(expected, rel=1e-12)
    shifted = Basis("r2", rows + 1e6)  # a mean far from zero costs no digits
    assert value_of(shifted) == pytest.approx(expected, rel=1e-6)


def test_f1_counted_by_hand() -> None:
    # 2 true positives, 1 false positive, 3 false negatives, 1 true negative.
    rows = np.repeat(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]), (2, 1, 3, 1), axis=0)
    assert value_of(Basis("f1", rows)) == pytest.approx(2 * 2 / (2 * 2 + 1 + 3), rel=1e-15)


def test_macro_f1_counted_by_hand() -> None:
    # Class 0: 1 hit, 2 golds, 1 said. Class 1: 1 hit, 1 gold, 2 said. Class 2: never gold, said once: F1 0.
    rows = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 2.0], [1.0, -1.0]])
    expected = (2 * 1 / (2 + 1) + 2 * 1 / (3 + 2) + 0.0) / 3
    assert value_of(Basis("macro-f1", rows)) == pytest.approx(expected, rel=1e-15)


def test_roc_auc_is_mann_whitneys_u() -> None:
    scores, labels = drawn("roc-auc", 150, 3).rows.T
    u = scipy.stats.mannwhitneyu(scores[labels == 1], scores[labels == 0]).statistic
    expected = u / (labels.sum() * (1 - labels).sum())
    assert len(set(scores)) < len(scores)  # ties
    assert value_of(Basis("roc-auc", np.column_stack([scores, labels]))) == pytest.approx(expected, rel=1e-13)
    extremes = np.array([[-1e308, 1.0], [1e308, 0.0], [0.5, 1.0], [0.4, 0.0]])
    assert value_of(Basis("roc-auc", extremes)) == 0.25


@pytest.mark.parametrize("orders", [1, 2, 4])
def test_bleu_is_nltks(orders: int) -> None:
    from nltk.translate.bleu_score import corpus_bleu

    generator = np.random.default_rng(6)
    words = ["the", "acid", "is", "a", "conjugate", "base", "of", "an", "ester"]
    texts = [[str(word) for word in generator.choice(words, generator.integers(4, 15))] for _ in range(30)]
    answers = [text[:1] + text[generator.integers(1, 4) :] for text in texts]  # some words are left out
    answers[0] = []

    def counts(answer: list[str], gold: list[str]) -> list[float]:
        def grams(text: list[str], order: int) -> list[tuple[str, ...]]:
            return [tuple(text[i : i + order]) for i in range(len(text) - order + 1)]

        found = []
        for order in range(1, orders + 1):
            said, expected = grams(answer, order), grams(gold, order)
            found.append(float(sum(min(said.count(gram), expected.count(gram)) for gram in set(said))))
        possible = [float(max(1, len(answer) - i)) for i in range(orders)]
        return [*found, *possible, float(len(answer)), float(len(gold))]

    rows = np.array([counts(answer, text) for answer, text in zip(answers, texts, strict=True)])
    expected = corpus_bleu([[text] for text in texts], answers, weights=[1 / orders] * orders)
    assert value_of(Basis(f"bleu-{orders}", rows)) == pytest.approx(expected, rel=1e-13)
    assert value_of(Basis("bleu-1", np.array([[0.0, 3.0, 3.0, 4.0]]))) == 0.0
    assert value_of(Basis("bleu-1", np.array([[0.0, 1.0, 0.0, 4.0]]))) == 0.0  # an empty answer


@pytest.mark.parametrize("formula", ["mean", "ratio", "rmse", "r2", "f1", "macro-f1", "roc-auc", "bleu-4"])
@pytest.mark.parametrize("grouped", [False, True])
def test_weights_count_examples_as_often_as_copies_of_them(formula: str, grouped: bool) -> None:
    basis = drawn(formula, 40, 2)
    if grouped:
        basis = Basis(formula, basis.rows, tuple(f"assay {i % 3}" for i in range(40)))
    weights = np.random.default_rng(0).integers(0, 3, (6, 40)).astype(float)
    copies = [basis.of(np.repeat(np.arange(40), row.astype(int))) for row in weights]
    expected = [float(value_of(copy)) for copy in copies]
    assert np.allclose(value_of(basis, weights), expected, rtol=1e-12, atol=0, equal_nan=True)
    assert np.allclose(value_of(basis, np.ones((1, 40))), value_of(basis), rtol=1e-12)


def test_groups_are_averaged_with_equal_weight_and_undefined_ones_left_out() -> None:
    basis = mean_basis([1.0, 2.0, 3.0, 10.0, math.nan], ("a", "a", "a", "b", "c"))
    assert value_of(basis) == pytest.approx((2.0 + 10.0) / 2)
    rows = np.array([[0.9, 1.0], [0.1, 0.0], [0.3, 1.0], [0.2, 1.0]])
    assert value_of(Basis("roc-auc", rows, ("a", "a", "b", "b"))) == 1.0  # b has no negative


@given(st.permutations(range(30)), st.sampled_from(sorted(set(FORMULAS) - {"sum"})))
@settings(max_examples=60)
def test_the_order_of_examples_is_without_effect_on_a_value(order: list[int], formula: str) -> None:
    basis = drawn(formula, 30, 5)
    assert value_of(basis.of(order)) == pytest.approx(value_of(basis), rel=1e-13)


def test_a_basis_that_does_not_fit_its_formula_is_refused() -> None:
    with pytest.raises(ResultsError, match=r"no formula 'kappa'; there are: bleu-1"):
        value_of(Basis("kappa", np.zeros((3, 1))))
    with pytest.raises(ResultsError, match="roc-auc needs 2 columns"):
        value_of(Basis("roc-auc", np.zeros((3, 1))))


# Resamples


def test_all_swaps_are_half_of_all_ways() -> None:
    rows = {tuple(row) for block in all_swaps(5) for row in block.tolist()}
    assert len(rows) == 16
    assert len(rows | {tuple(1 - value for value in row) for row in rows}) == 32


def test_random_swaps_are_fair_and_bootstrap_counts_sum_to_n() -> None:
    swaps = np.concatenate([block.copy() for block in random_swaps(37, 4000, 1)])
    assert set(np.unique(swaps)) == {0.0, 1.0}
    assert np.abs(swaps.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(4000)
    counts = np.concatenate([block.copy() for block in bootstrap_counts(37, 4000, 1)])
    assert (counts.sum(axis=1) == 37).all()
    assert np.abs(counts.var(axis=0) - 36 / 37).max() < 0.15
    # What is too large to be kept is drawn block by block, the same.
    first = next(bootstrap_counts(70_000, 1000, 1))
    assert (first.sum(axis=1) == 70_000).all()


# The permutation test


@pytest.mark.parametrize("seeds", [(1, 1), (2, 2), (2, 3)])
def test_exact_p_of_means_is_scipys(seeds: tuple[int, int]) -> None:
    generator = np.random.default_rng(sum(seeds))
    a, b = (generator.normal(size=(count, 9)) for count in seeds)
    reference = scipy.stats.permutation_test(
        (a.mean(axis=0), b.mean(axis=0)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    found = paired([mean_basis(row) for row in a], [mean_basis(row) for row in b])
    assert found.p == pytest.approx(reference.pvalue, rel=1e-12)
    assert found.difference == pytest.approx(reference.statistic, rel=1e-12)
    assert found.test == "permutation (all 512)"
    assert found.seeds == seeds


def test_drawn_p_of_means_is_scipys_to_sampling_error() -> None:
    generator = np.random.default_rng(8)
    a = generator.normal(size=400)
    b = a + generator.normal(0.08, 1.0, size=400)
    reference = scipy.stats.permutation_test(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    found = paired([mean_basis(a)], [mean_basis(b)])
    assert found.p is not None
    assert found.p == pytest.approx(reference.pvalue, abs=4 * math.sqrt(2 * found.p * (1 - found.p) / 9999))


def brute_force(a: Sequence[Basis], b: Sequence[Basis]) -> float:
    """p by swapping the rows of every set of examples and computing the metric anew."""

    def mean(cell: Sequence[npt.NDArray[np.float64]]) -> float:
        return float(np.mean([float(value_of(Basis(a[0].formula, rows, a[0].groups))) for rows in cell]))

    first, second = [basis.rows for basis in a], [basis.rows for basis in b]
    observed = mean(first) - mean(second)
    found = []
    for swapped in itertools.product((False, True), repeat=len(a[0])):
        where = np.array(swapped)[:, None]
        other, another = (
            [np.where(which, y, x) for x, y in zip(first, second, strict=True)] for which in (where, ~where)
        )
        found.append(mean(other) - mean(another))
    defined = [value for value in found if not math.isnan(value)]
    return sum(abs(value) >= abs(observed) - 1e-12 for value in defined) / len(defined)


@pytest.mark.parametrize("formula", ["mean", "sum", "ratio", "rmse", "r2", "f1", "macro-f1", "bleu-2", "bleu-4"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seeds", [1, 2])
def test_exact_p_of_any_metric_is_that_of_swapping_rows_by_hand(formula: str, grouped: bool, seeds: int) -> None:
    groups = ("x", "y", "x", "y", "x", "x", "y") if grouped else None
    a, b = ([Basis(formula, drawn(formula, 7, start + i).rows, groups) for i in range(seeds)] for start in (10, 20))
    assert paired(a, b).p == pytest.approx(brute_force(a, b), rel=1e-12)


def test_exact_p_of_roc_auc_is_that_of_swapping_ranks_by_hand() -> None:
    a, b = drawn("roc-auc", 8, 1), drawn("roc-auc", 8, 2)
    ranked = [Basis("roc-auc", np.column_stack([scipy.stats.rankdata(c.rows[:, 0]), c.rows[:, 1]])) for c in (a, b)]
    found = paired([a], [b])
    assert found.p == pytest.approx(brute_force(ranked[:1], ranked[1:]), rel=1e-12)
    # Probabilities on another scale rank the same.
    stretched = Basis("roc-auc", np.column_stack([1000 + b.rows[:, 0] ** 3, b.rows[:, 1]]))
    assert paired([a], [stretched]).p == found.p


def test_rows_without_a_value_take_part_in_swaps_as_they_are() -> None:
    a, b = mean_basis([1.0, math.nan, 3.0, 0.5, 0.2]), mean_basis([0.5, 1.0, math.nan, math.nan, 0.9])
    found = paired([a], [b])
    assert found.difference == pytest.approx((1 + 3 + 0.5 + 0.2) / 4 - (0.5 + 1 + 0.9) / 3)
    assert found.p == pytest.approx(brute_force([a], [b]))
    assert found.n == 2
    assert "3 examples have a value in one of the cells only" in found.note


def test_unequal_numbers_of_seeds_compare_means_over_seeds() -> None:
    a = [drawn("bleu-2", 60, seed) for seed in (1, 2, 3)]
    b = [drawn("bleu-2", 60, seed) for seed in (4, 5)]
    found = paired(a, b, resamples=999)
    values = [float(value_of(basis)) for basis in (*a, *b)]
    assert found.difference == pytest.approx(sum(values[:3]) / 3 - sum(values[3:]) / 2, rel=1e-12)
    assert found.seeds == (3, 2)
    assert found.p is not None
    assert 0 < found.p <= 1


# Edges


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (2, 0.5), (3, 0.25)])
def test_so_few_examples_that_no_difference_is_significant(n: int, p: float) -> None:
    found = paired([mean_basis(np.arange(n) + 1.0)], [mean_basis(np.zeros(n))])
    assert found.p == p
    assert (found.ci95 is None) == (n == 1)
    assert (found.detectable is None) == (n == 1)
    assert "too few" in found.note


def test_cells_without_any_difference() -> None:
    values = np.random.default_rng(1).uniform(size=50)
    found = paired([mean_basis(values)], [mean_basis(values)])
    assert (found.difference, found.p, found.ci95, found.effect, found.detectable) == (0.0, 1.0, (0.0, 0.0), None, None)
    assert found.test == "permutation (no example differs)"


def test_a_difference_that_is_the_same_on_every_example() -> None:
    values = np.arange(50) / 4
    found = paired([mean_basis(values + 0.5)], [mean_basis(values)])
    assert found.p == 1e-4  # 1 of 10,000: the observed one
    assert found.ci95 == (0.5, 0.5)
    assert found.effect is None


def test_heavy_ties_leave_only_what_differs_to_be_swapped() -> None:
    a, b = np.ones(3300), np.ones(3300)
    b[:5] = 0.0
    found = paired([mean_basis(a)], [mean_basis(b)])
    assert found.test == "permutation (all 32)"
    assert found.p == 2 / 32  # as McNemar's exact test
    assert mcnemar(a, b).p == 2 / 32


def test_ties_that_rounding_would_break_count_as_equal() -> None:
    # 0.1 + 0.2 - 0.3 is not 0 in floats; every way to swap gives a difference of the same size.
    a, b = mean_basis([0.1, 0.2, -0.3]), mean_basis([0.3, 0.0, -0.3])
    found = paired([a], [b])
    assert found.p == 1.0


def test_an_undefined_metric_has_no_p() -> None:
    found = paired([Basis("f1", np.zeros((30, 3)))], [drawn("f1", 30, 1)])
    assert math.isnan(found.difference)
    assert (found.p, found.ci95, found.note) == (None, None, "undefined for one of the cells")


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ResultsError, match="different formulas"):
        paired([drawn("mean", 5, 1)], [drawn("rmse", 5, 1)])
    with pytest.raises(ResultsError, match="different examples"):
        paired([drawn("mean", 5, 1)], [drawn("mean", 6, 1)])
    with pytest.raises(ResultsError, match="without a run"):
        paired([], [drawn("mean", 6, 1)])
    with pytest.raises(ResultsError, match="different groups"):
        paired([mean_basis([1.0, 2.0], ("x", "y"))], [mean_basis([1.0, 2.0], ("x", "x"))])
    with pytest.raises(ResultsError, match="no example"):
        paired([mean_basis([])], [mean_basis([])])


def test_alignment_takes_what_all_have_in_the_order_of_the_first() -> None:
    a = (("x", "y", "z"), mean_basis([1.0, 2.0, 3.0], ("g", "h", "g")))
    b = (("z", "w", "x"), mean_basis([30.0, 0.0, 10.0], ("g", "h", "g")))
    first, second = aligned([a], [b, b])
    assert first[0].rows.ravel().tolist() == [1.0, 3.0]
    assert second[1].rows.ravel().tolist() == [10.0, 30.0]
    assert first[0].groups == second[0].groups == ("g", "g")
    assert aligned([a], [a])[0][0] is a[1]
    with pytest.raises(ResultsError, match="no example was answered in all"):
        aligned([a], [(("v",), mean_basis([1.0]))])
    with pytest.raises(ResultsError, match="3 example ids, 2 of them different"):
        aligned([(("x", "x", "y"), a[1])])


def test_the_group_of_an_example_is_known_from_any_basis_that_it_has_a_part_in() -> None:
    a, b = mean_basis([1.0, math.nan, 3.0], ("x", "", "y")), mean_basis([1.0, 5.0, 2.0], ("x", "y", "y"))
    assert paired([a], [b]).difference == pytest.approx((1 + 3) / 2 - (1 + (5 + 2) / 2) / 2)


# Properties

VALUES = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1 / 3])


@st.composite
def two_cells(draw: Any) -> tuple[list[FloatArray], list[FloatArray]]:
    n = draw(st.integers(1, 25))
    row = st.lists(VALUES, min_size=n, max_size=n)
    cells = [draw(st.lists(row, min_size=1, max_size=3)) for _ in range(2)]
    return [np.array(seed) for seed in cells[0]], [np.array(seed) for seed in cells[1]]


@given(two_cells())
@settings(max_examples=60)
def test_swapping_the_cells_mirrors_the_result(cells: tuple[list[FloatArray], list[FloatArray]]) -> None:
    a, b = ([mean_basis(seed) for seed in cell] for cell in cells)
    one, other = paired(a, b, resamples=199), paired(b, a, resamples=199)
    assert one.difference == -other.difference
    assert one.p == other.p
    assert one.seeds == other.seeds[::-1]
    assert (one.ci95 is None) == (other.ci95 is None)
    if one.ci95 is not None and other.ci95 is not None:
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-12)
    assert one.p is not None
    assert 0 < one.p <= 1


@given(two_cells(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_examples_is_without_effect(cells: tuple[list[FloatArray], list[FloatArray]], random: Any) -> None:
    order = list(range(len(cells[0][0])))
    random.shuffle(order)
    a, b = ([mean_basis(seed) for seed in cell] for cell in cells)
    shuffled = ([basis.of(order) for basis in cell] for cell in (a, b))
    one, other = paired(a, b, resamples=199), paired(*shuffled, resamples=199)
    assert one.p == other.p
    assert one.difference == pytest.approx(other.difference, abs=1e-15)
    if abs(one.difference) > 1e-12:  # else the resamples of either way round are averaged, and rounding decides
        assert (one.ci95 is None) or one.ci95 == pytest.approx(other.ci95, abs=1e-12)


@pytest.mark.parametrize("formula", ["bleu-4", "roc-auc", "r2", "macro-f1"])
def test_corpus_metrics_mirror_and_ignore_order_too(formula: str) -> None:
    a, b = [drawn(formula, 80, seed) for seed in (1, 2)], [drawn(formula, 80, seed) for seed in (3, 4)]
    order = np.random.default_rng(0).permutation(80)
    one, other = paired(a, b, resamples=499), paired(b, a, resamples=499)
    moved = paired([basis.of(order) for basis in a], [basis.of(order) for basis in b], resamples=499)
    assert one.p == other.p == moved.p
    assert one.ci95 is not None
    assert other.ci95 is not None
    assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]), abs=1e-12)
    assert one.ci95 == pytest.approx(moved.ci95, abs=1e-12)


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(ps: list[float]) -> None:
    """The adjusted p of a test is the largest Bonferroni p of any set of tests that it is in."""
    sets = [s for size in range(1, len(ps) + 1) for s in itertools.combinations(range(len(ps)), size)]
    expected = [max(min(1.0, len(s) * min(ps[i] for i in s)) for s in sets if place in s) for place in range(len(ps))]
    assert holm(ps) == pytest.approx(expected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_monotone_and_never_below_p(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    order = np.argsort(ps, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert min(adjusted) == pytest.approx(min(1.0, len(ps) * min(ps)))


def test_holm_refuses_what_is_no_probability() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(ValueError, match=r"not \[nan\]"):
        holm([0.5, math.nan])


# Intervals


def test_interval_of_a_difference_is_scipys_bootstrap() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.exponential(size=(2, 300))
    reference = scipy.stats.bootstrap(
        (a - b,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(3)
    )
    found = paired([mean_basis(a)], [mean_basis(b)])
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval), abs=0.006)
    assert found.effect == pytest.approx((a - b).mean() / (a - b).std(ddof=1), rel=1e-12)
    assert found.detectable == pytest.approx(detectable_difference((a - b).std(ddof=1), 300), rel=1e-9)


@pytest.mark.parametrize("formula", ["bleu-4", "roc-auc", "r2", "f1"])
def test_interval_of_corpus_metrics_is_scipys_bootstrap(formula: str) -> None:
    bases = [drawn(formula, 150, seed) for seed in (1, 2)]

    def statistic(places: npt.NDArray[np.int64]) -> float:
        return float(value_of(bases[0].of(places))) - float(value_of(bases[1].of(places)))

    reference = scipy.stats.bootstrap(
        (np.arange(150),), statistic, method="percentile", n_resamples=1500, vectorized=False,
        rng=np.random.default_rng(3),
    )  # fmt: skip
    found = paired(bases[:1], bases[1:])
    error = float(reference.standard_error)
    assert found.ci95 == pytest.approx(tuple(reference.confidence_interval), abs=0.2 * error)
    assert found.effect == pytest.approx(found.difference / error / math.sqrt(150), rel=0.1)


def test_interval_of_one_cell_is_that_of_its_mean() -> None:
    values = np.random.default_rng(5).exponential(size=300)
    found = over_examples([mean_basis(values)])
    drawn = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(6))
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx(tuple(drawn.confidence_interval), abs=0.006)
    assert mean_over_examples(values.tolist()) == found  # there is one bootstrap
    assert over_examples([mean_basis([math.nan, math.nan])]) is None
    assert over_examples([mean_basis([0.5])]) is not None


def test_interval_over_seeds_is_students() -> None:
    values = [0.31, 0.35, 0.30, 0.36]
    reference = scipy.stats.ttest_1samp(values, 0.0).confidence_interval()
    found = seed_interval(values)
    assert found is not None
    assert found.ci95 == pytest.approx((reference.low, reference.high), rel=1e-12)
    two = seed_interval(values[:2])
    assert two is not None
    assert (two.ci95, two.n) == (None, 2)
    assert seed_interval([]) is None


def test_two_way_adds_the_variance_over_seeds() -> None:
    generator = np.random.default_rng(2)
    rows = [generator.normal(np.array(shifts)[:, None], 1, (3, 400)) for shifts in ((0.1, 0.3, 0.5), (0, 0.1, 0.0))]
    a, b = ([mean_basis(row) for row in cell] for cell in rows)
    over, both = paired(a, b), paired(a, b, two_way=True)
    assert over.ci95 is not None
    assert both.ci95 is not None
    assert both.ci95[1] - both.ci95[0] > over.ci95[1] - over.ci95[0]
    assert (both.difference, both.n, both.effect) == (over.difference, over.n, over.effect)

    # By hand: of the variance of seeds' means, what single examples make of it (the two-way table's residuals) is in
    # the variance over examples already.
    examples = (rows[0].mean(axis=0) - rows[1].mean(axis=0)).var(ddof=1) / 400
    variance, doubt = examples, examples**2 / 399
    for cell in rows:
        of_seeds = cell.mean(axis=1).var(ddof=1)
        residual = cell - cell.mean(axis=0) - cell.mean(axis=1, keepdims=True) + cell.mean()
        own = of_seeds - (residual**2).sum() / (2 * 399) / 400
        if own > 0:
            variance, doubt = variance + own / 3, doubt + (of_seeds / 3) ** 2 / 2
    freedom = variance**2 / doubt
    assert both.p == pytest.approx(2 * scipy.stats.t.sf(both.difference / math.sqrt(variance), freedom), rel=1e-9)
    assert both.test == f"t over examples and seeds ({freedom:.1f} degrees of freedom)"
    assert both.detectable is not None
    assert over.detectable is not None
    assert both.detectable > over.detectable
    single = paired(a[:1], b, two_way=True)
    assert single.p == paired(a[:1], b).p
    assert "variance over seeds needs 2 seeds" in single.note


def test_two_way_finds_by_the_bootstrap_what_is_known_of_means() -> None:
    """In one group a mean is the same metric, but is treated as one of which nothing else is known."""
    generator = np.random.default_rng(3)
    rows = [generator.normal(0, 1, 150) + generator.normal(shift, 1, (3, 150)) for shift in (0.0, 0.2)]
    plain, grouped = (
        paired(*([mean_basis(row, groups) for row in cell] for cell in rows), two_way=True)
        for groups in (None, ("one",) * 150)
    )
    assert plain.p == pytest.approx(grouped.p, rel=0.05)
    assert plain.ci95 == pytest.approx(grouped.ci95, abs=0.01)


def test_two_way_of_cells_that_do_not_differ() -> None:
    same = [mean_basis([0.5, 1.0, 0.0] * 10)] * 3
    found = paired(same, same, two_way=True)
    assert (found.difference, found.p, found.ci95) == (0.0, 1.0, (0.0, 0.0))


# Power


def test_power_is_that_of_printed_tables() -> None:
    # R's pwr.t.test(type = "paired"): d = 0.5, power 0.8 needs n = 33.37; d = 0.5, n = 20 has power 0.5645.
    assert examples_needed(0.5, 1.0) == 34
    assert achieved_power(0.5, 1.0, 20) == pytest.approx(0.5645044, abs=1e-6)
    assert achieved_power(detectable_difference(2.0, 57), 2.0, 57) == pytest.approx(0.8, abs=1e-8)
    # Of thousands it is the normal distribution's 1.960 + 0.842.
    assert detectable_difference(1.0, 3300) == pytest.approx((1.959964 + 0.841621) / math.sqrt(3300), rel=1e-3)


def test_power_at_its_edges() -> None:
    assert achieved_power(0.0, 1.0, 50) == pytest.approx(0.05)
    assert achieved_power(10.0, 1.0, 5000) == 1.0
    assert achieved_power(1.0, 1.0, 1) == 0.0
    assert achieved_power(0.1, 0.0, 5) == 1.0
    assert achieved_power(0.0, 0.0, 5) == 0.05
    assert detectable_difference(0.0, 5) == 0.0
    assert detectable_difference(1.0, 1) == math.inf
    assert achieved_power(detectable_difference(1.0, 2), 1.0, 2) == pytest.approx(0.8, abs=1e-6)
    for wrong in (
        lambda: detectable_difference(1.0, 10, power=0.01),
        lambda: achieved_power(1.0, -1.0, 10),
        lambda: achieved_power(1.0, 1.0, 10, alpha=0.0),
        lambda: examples_needed(0.0, 1.0),
    ):
        with pytest.raises(ValueError, match=r"power|negative|alpha|found"):
            wrong()


@given(st.floats(0.05, 2.0), st.floats(0.1, 3.0))
@settings(max_examples=30)
def test_examples_needed_are_the_fewest(difference: float, sd: float) -> None:
    n = examples_needed(difference, sd)
    assert achieved_power(difference, sd, n) >= 0.8 - 1e-9
    assert n == 2 or achieved_power(difference, sd, n - 1) < 0.8


# Right and wrong, ranks


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 3), (10, 2), (2, 10), (120, 90)])
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    a = np.repeat([1.0, 0.0, 1.0, 0.0, math.nan], (only_a, only_b, 7, 5, 2))
    b = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0], (only_a, only_b, 7, 5, 2))
    found = mcnemar(a, b)
    discordant = only_a + only_b
    expected = scipy.stats.binomtest(only_a, discordant).pvalue if discordant else 1.0
    assert (found.only_a, found.only_b, found.exact) == (only_a, only_b, True)
    assert found.p == pytest.approx(expected, rel=1e-12)
    counted = wins(a, b)
    assert (counted.a, counted.b, counted.ties) == (only_a, only_b, 12)


def test_mcnemar_refuses_what_is_not_right_or_wrong() -> None:
    with pytest.raises(ResultsError, match="right"):
        mcnemar([0.5, 1.0], [1.0, 1.0])
    with pytest.raises(ResultsError, match="same examples"):
        mcnemar([1.0, 1.0], [1.0])


@pytest.mark.parametrize("rounded", [6, 1])
def test_friedman_is_scipys_with_and_without_ties(rounded: int) -> None:
    scores = np.round(np.random.default_rng(3).uniform(size=(12, 5)) + np.arange(5) * 0.1, rounded)
    found = friedman(scores)
    reference = scipy.stats.friedmanchisquare(*scores.T)
    assert found.statistic == pytest.approx(reference.statistic, rel=1e-12)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-10)
    assert sum(found.mean_ranks) == pytest.approx(15)
    assert int(np.argmin(found.mean_ranks)) == int(np.argmin(scipy.stats.rankdata(-scores, axis=1).mean(axis=0)))
    assert friedman(-scores, higher_is_better=False) == found


# Demsar 2006, table 6: the AUC of C4.5 with m, with cf, and with both, on 14 data sets. In the last row but one the
# paper ranks 0.975 before 0.975: it ranks before it rounds.
DEMSAR = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.97501 0.975
0.957 0.978 0.946 0.970
"""


def test_demsars_example() -> None:
    scores = np.array([line.split() for line in DEMSAR.strip().splitlines()], dtype=float)
    found = friedman(scores)
    assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=5e-3)
    assert critical_difference(4, 14, alpha=0.1) == pytest.approx(1.12, abs=5e-3)
    assert found.statistic > 9.28  # as printed, without the correction for ties
    assert found.p < 0.05
    assert found.p_f < found.p


@pytest.mark.parametrize(
    ("alpha", "printed"),
    [
        (0.05, (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)),
        (0.10, (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920)),
    ],
)
def test_critical_values_are_demsars(alpha: float, printed: tuple[float, ...]) -> None:
    """Demsar 2006, table 5(a), for 2 to 10 classifiers; printed from tables of the studentized range of 3 digits."""
    found = [critical_difference(k, 1, alpha) / math.sqrt(k * (k + 1) / 6) for k in range(2, 11)]
    assert found == pytest.approx(printed, abs=1.5e-3)


def test_ranks_at_their_edges() -> None:
    same = friedman(np.ones((4, 3)))
    assert (same.statistic, same.p, same.mean_ranks) == (0.0, 1.0, (2.0, 2.0, 2.0))
    unanimous = friedman([[0.1, 0.2, 0.3]] * 5)
    assert (unanimous.statistic, unanimous.p_f, unanimous.mean_ranks) == (10.0, 0.0, (3.0, 2.0, 1.0))
    assert friedman([[0.1, 0.2], [0.3, 0.4], [math.nan, 1.0]]).blocks == 2
    for wrong in ([[0.1, 0.2]], [[0.1], [0.2]], [[0.1, math.nan], [0.1, 0.2]]):
        with pytest.raises(ResultsError, match="at least 2"):
            friedman(wrong)


def test_cliques_are_the_largest_sets_within_a_critical_difference() -> None:
    assert cliques([1.0, 2.0, 3.0, 4.5], 1.0) == [(0, 1), (1, 2)]
    assert cliques([1.0, 1.2, 1.4, 4.0], 1.0) == [(0, 1, 2)]
    assert cliques([1.0, 4.0], 1.0) == []
    assert cliques([2.0, 1.0], 1.0) == [(1, 0)]


@given(st.lists(st.floats(1, 8), min_size=2, max_size=8), st.floats(0.1, 3))
def test_cliques_hold_every_pair_that_is_not_told_apart(ranks: list[float], critical: float) -> None:
    found = cliques(ranks, critical)
    for first, second in itertools.combinations(range(len(ranks)), 2):
        together = any(first in group and second in group for group in found)
        assert together == (abs(ranks[first] - ranks[second]) <= critical)
    assert not any(set(one) <= set(other) for one, other in itertools.permutations(found, 2))


# Names that stay


def test_spread_over_seeds_and_values_averaged_per_example() -> None:
    spread = over_seeds([1.0, 2.0, 4.0])
    assert spread is not None
    assert spread.mean == pytest.approx(7 / 3)
    assert spread.n == 3
    assert spread.sd == pytest.approx(math.sqrt(7 / 3))
    assert averaged_per_example([{"x": 1.0, "y": 0.0}, {"x": 0.0, "z": 1.0}]) == [0.5]


def test_permutation_test_by_itself() -> None:
    a, b = mean_basis([1.0, 2.0, 3.0]), mean_basis([0.0, 0.0, 0.0])
    assert permutation_test([a], [b], (2.0, 0.0)) == (0.25, "permutation (all 8)")
