"""Metrics of classification and regression against scikit-learn, and what becomes of answers that say nothing."""

from __future__ import annotations

import math
import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.base import TaskError
from tasks.metrics.base import RowFacts
from tasks.metrics.prediction_labels import areas, number_of, polarity
from tasks.metrics.protocols import MolT5, Strict
from tasks.metrics.resampling import resamples

LABELS = ("yes", "no")


def _classes(predictions, references, *, positive=None, **facts):
    table = Strict(positive=positive).score(
        "classification", predictions, references, RowFacts(**facts) if facts else None
    )
    assert tuple(table.metrics) == ("roc-auc", "accuracy", "f1")
    return table


def _numbers(predictions, references):
    table = Strict().score("regression", predictions, references)
    assert tuple(table.metrics) == ("mae", "rmse", "r2", "parse-rate")
    return table


def _values(table):
    return {name: estimate.value for name, estimate in table.metrics.items()}


@settings(max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(LABELS), st.integers(0, 8).map(lambda k: k / 8), st.sampled_from(LABELS)),
        min_size=2,
        max_size=40,
    )
)
def test_classes_are_counted_as_scikit_learn_counts_them(rows):
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    golds, probabilities, answers = [list(column) for column in zip(*rows, strict=True)]
    values = _values(_classes(answers, golds, probabilities=probabilities))

    assert values["accuracy"] == pytest.approx(accuracy_score(golds, answers), abs=1e-12)
    if "yes" in golds + answers:
        assert values["f1"] == pytest.approx(f1_score(golds, answers, pos_label="yes"), abs=1e-12)
    else:
        assert values["f1"] is None
    if len(set(golds)) == 2:
        truth = [gold == "yes" for gold in golds]
        assert values["roc-auc"] == pytest.approx(roc_auc_score(truth, probabilities), abs=1e-12)
    else:
        assert values["roc-auc"] is None


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["yes", "no"]), st.integers(0, 4), st.sampled_from("ab")), min_size=2, max_size=20
    ),
    data=st.data(),
)
def test_the_order_of_rows_is_without_effect(rows, data):
    order = data.draw(st.permutations(range(len(rows))))

    def scored(chosen):
        golds, scores, groups = [list(column) for column in zip(*chosen, strict=True)]
        answers = ["yes" if score > 2 else "no" for score in scores]
        return _classes(answers, golds, probabilities=[score / 4 for score in scores], groups=groups)

    original, shuffled = scored(rows), scored([rows[i] for i in order])
    for name in original.metrics:
        ours, theirs = original.metrics[name], shuffled.metrics[name]
        assert (ours.value, ours.ci95, ours.reason) == (theirs.value, theirs.ci95, theirs.reason)
    right = original.metrics["accuracy"].per_example
    assert [right[i] for i in order] == list(shuffled.metrics["accuracy"].per_example)


def test_resampled_areas_equal_those_of_rows_repeated():
    from sklearn.metrics import roc_auc_score

    rng = random.Random(2)
    scores = np.array([rng.randint(0, 5) / 5 for _ in range(30)])
    truths = np.array([float(rng.random() < 0.4) for _ in range(30)])
    weights = np.array([[rng.randint(0, 3) for _ in range(30)] for _ in range(20)], dtype=float)
    expected = [
        roc_auc_score(np.repeat(truths, row.astype(int)), np.repeat(scores, row.astype(int))) for row in weights
    ]
    assert areas(scores, truths, weights) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(areas(scores, np.ones(30), weights)[0])


@pytest.mark.parametrize("n", [2, 700, 9000])
def test_resamples_hold_as_many_rows_as_there_are(n):
    drawn = np.concatenate(list(resamples(n)))
    assert drawn.shape == (1000, n)
    assert (drawn.sum(axis=1) == n).all()


def test_the_interval_of_an_area_is_that_of_resampled_rows():
    rng = random.Random(7)
    golds = ["yes" if rng.random() < 0.3 else "no" for _ in range(400)]
    scores = [min(1.0, max(0.0, rng.gauss(0.6 if gold == "yes" else 0.4, 0.2))) for gold in golds]
    estimate = _classes(["yes"] * 400, golds, probabilities=scores).metrics["roc-auc"]
    low, high = estimate.ci95
    assert low < estimate.value < high
    assert 0.05 < high - low < 0.2
    assert estimate.per_example is None


def test_labels_have_many_forms():
    for word in ("Yes", "TRUE", "1", "1.0", " positive ", "Active", "yes.", "Yes, it is.", "The molecule is active."):
        assert polarity(word) == "positive", word
    for word in ("no", "False", "0", "0.0", "negative", "INACTIVE", "No.", "No, it is not."):
        assert polarity(word) == "negative", word
    for word in ("", "maybe", "yes or no", "2", "not active"):
        assert polarity(word) is None, word
    table = _classes(["yes", "No.", "maybe", None, "1"], ["1", "0", "1", "0", "0.0"])
    assert table.metrics["accuracy"].per_example == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert table.n_invalid == 2


def test_labels_alone_rank_nothing():
    estimate = _classes(["yes", "no", "yes"], ["yes", "no", "no"]).metrics["roc-auc"]
    assert (estimate.value, estimate.ci95) == (None, None)
    assert "probability" in estimate.reason


def test_numbers_given_as_answers_are_probabilities():
    table = _classes(["0.9", "0.2", "0.4", "0.6", "what"], ["1", "0", "1", "0", "1"])
    assert table.metrics["roc-auc"].value == pytest.approx(3 / 6)  # the unreadable positive is below all
    assert table.metrics["accuracy"].per_example == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert table.n_invalid == 1
    logits = _classes(["-3.5", "2.1", "7"], ["0", "0", "1"])
    assert logits.metrics["roc-auc"].value == 1.0
    assert logits.metrics["accuracy"].value is None
    assert "beyond 0 to 1" in logits.metrics["accuracy"].reason


def test_a_row_without_probability_is_ranked_wrongly():
    golds = ["yes", "yes", "no", "no"]
    assert _classes(golds, golds, probabilities=[0.9, 0.8, 0.2, 0.1]).metrics["roc-auc"].value == 1.0
    assert _classes(golds, golds, probabilities=[0.9, None, 0.2, 0.1]).metrics["roc-auc"].value == 0.5
    assert _classes(golds, golds, probabilities=[0.9, 0.8, None, 0.1]).metrics["roc-auc"].value == 0.5
    assert _classes(golds, golds, probabilities=[None] * 4).metrics["roc-auc"].value is None


def test_groups_are_averaged_and_those_of_one_class_are_named():
    from sklearn.metrics import roc_auc_score

    rng = random.Random(5)
    groups = [rng.choice(("NR-AR", "SR-p53")) for _ in range(60)] + ["NR-ER"] * 5
    golds = ["yes" if rng.random() < 0.4 else "no" for _ in range(60)] + ["no"] * 5
    scores = [rng.randint(0, 20) / 20 for _ in groups]
    answers = ["yes" if score > 0.5 else "no" for score in scores]
    table = _classes(answers, golds, probabilities=scores, groups=groups)

    def of(name):
        rows = [row for row, group in enumerate(groups) if group == name]
        return roc_auc_score([golds[row] == "yes" for row in rows], [scores[row] for row in rows])

    area = table.metrics["roc-auc"]
    assert area.value == pytest.approx((of("NR-AR") + of("SR-p53")) / 2, abs=1e-12)
    assert "NR-ER" in area.reason
    assert "NR-AR" not in area.reason
    right = table.metrics["accuracy"].per_example
    means = [np.mean([r for r, g in zip(right, groups, strict=True) if g == name]) for name in sorted(set(groups))]
    assert table.metrics["accuracy"].value == pytest.approx(np.mean(means), abs=1e-12)


def test_other_labels_are_compared_as_texts():
    from sklearn.metrics import f1_score

    golds = ["Red", "green", "blue", "red", "green"]
    answers = ["red", "Green.", "red", "blue", "green"]
    values = _values(_classes(answers, golds))
    lower = [[text.lower().strip(".") for text in side] for side in (golds, answers)]
    assert values["accuracy"] == 3 / 5
    assert values["f1"] == pytest.approx(f1_score(*lower, average="macro"), abs=1e-12)
    assert values["roc-auc"] is None


def test_the_positive_label_can_be_named():
    golds, answers = ["toxic", "safe", "toxic", "safe"], ["Toxic", "safe", "safe", "what"]
    table = _classes(answers, golds, positive="toxic", probabilities=[0.9, 0.1, 0.6, 0.2])
    assert _values(table) == {"roc-auc": 1.0, "accuracy": 0.5, "f1": pytest.approx(2 / 3)}
    assert table.identity["positive"] == "toxic"
    wrong = _classes(answers, golds, positive="poison")
    assert all(estimate.value is None and "poison" in estimate.reason for estimate in wrong.metrics.values())


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=30))
def test_errors_are_those_of_scikit_learn(rows):
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    answers, golds = [list(column) for column in zip(*rows, strict=True)]
    values = _values(_numbers([repr(answer) for answer in answers], [repr(gold) for gold in golds]))
    assert values["mae"] == pytest.approx(mean_absolute_error(golds, answers), rel=1e-9, abs=1e-150)
    assert values["rmse"] == pytest.approx(root_mean_squared_error(golds, answers), rel=1e-9, abs=1e-150)
    assert values["parse-rate"] == 1.0
    if np.ptp(golds) > 1e-3:
        assert values["r2"] == pytest.approx(r2_score(golds, answers), rel=1e-6, abs=1e-6)


def test_answers_without_a_number_are_counted_and_have_no_error():
    answers = ["1.5", "The value is -2 eV.", "no idea", None, "nan", "inf", "1e999", "between 1 and 2"]
    table = _numbers(answers, ["1", "-2.5", "0", "0", "0", "0", "0", "0"])
    assert table.metrics["mae"].per_example == [0.5, 0.5, None, None, None, None, None, None]
    assert _values(table) == {"mae": 0.5, "rmse": 0.5, "r2": pytest.approx(0.91836734), "parse-rate": 0.25}
    assert (table.n, table.n_invalid) == (8, 6)
    assert table.metrics["parse-rate"].per_example == [1.0, 1.0, 0, 0, 0, 0, 0, 0]


def test_huge_numbers_overflow_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = _numbers(["1e299", "-1e299", "0.1"], ["-1e299", "1e299", "0.2"])
    assert table.metrics["mae"].value == pytest.approx(4e299 / 3)
    assert table.metrics["rmse"].value == pytest.approx(2e299 * math.sqrt(2 / 3))
    assert table.metrics["r2"].value == pytest.approx(-3.0)
    for estimate in table.metrics.values():
        assert all(map(math.isfinite, estimate.ci95))
    assert [number_of(text) for text in ("1e301", "-inf", "NaN", "1e-320")] == [None, None, None, 1e-320]


def test_what_is_undefined_has_a_reason():
    same = _numbers(["1", "2"], ["3", "3"])
    assert (same.metrics["r2"].value, same.metrics["mae"].value) == (None, 1.5)
    assert "do not vary" in same.metrics["r2"].reason
    unread = _numbers(["x", None], ["1", "2"])
    assert [unread.metrics[name].value for name in ("mae", "rmse", "r2")] == [None] * 3
    assert unread.metrics["parse-rate"].value == 0.0
    assert all("no rows" in estimate.reason for estimate in _numbers([], []).metrics.values())
    assert all("no rows" in estimate.reason for estimate in _classes([], []).metrics.values())
    single = _numbers(["1"], ["2"])
    assert (single.metrics["mae"].value, single.metrics["mae"].ci95) == (1.0, None)


def test_gold_answers_without_a_number_are_refused():
    with pytest.raises(TaskError, match=r"1 of 2 gold answers hold no number.*'N/A'"):
        _numbers(["1", "2"], ["1", "N/A"])


def test_protocols_of_captions_score_no_numbers():
    for kind in ("classification", "regression"):
        with pytest.raises(TaskError, match=f"does not score '{kind}'"):
            MolT5().score(kind, ["1"], ["1"])
