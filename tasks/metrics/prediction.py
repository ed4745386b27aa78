"""Metrics of classification (ROC-AUC, accuracy, F1) and of regression (MAE, RMSE, R2, rate of readable answers).

Where rows belong to groups (the assays of Tox21), a metric of classification is the mean of the groups' own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from tasks.base import Basis, Direction, Estimate, TaskError
from tasks.metrics.base import Metric, Pairs, bootstrap_interval, mean_estimate
from tasks.metrics.prediction_labels import POSITIVE, Labels, areas, finite, labels_of, number_of
from tasks.metrics.resampling import percentile_interval, resamples

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _OfLabels(Metric):
    """What the metrics of classification have in common.

    Args:
        positive: the gold label that is the positive one, where labels are neither yes nor no in any form.
    """

    positive: str | None = None

    def _labels(self, pairs: Pairs) -> Labels:
        return pairs.once(f"labels {self.positive!r}", lambda: labels_of(pairs, self.positive))

    def identity(self) -> Mapping[str, str]:
        """The positive label, where one is named."""
        return {} if self.positive is None else {"positive": self.positive}


@dataclass(frozen=True, kw_only=True)
class RocAuc(_OfLabels):
    """Area under the ROC curve of the probability of the positive label; a tie counts half.

    Undefined where there are only labels: a yes and a no rank nothing. A row without a probability among rows that have
    one is ranked wrongly: below all if it is positive, else above all. A group of one class has no area and is left out
    of the mean; `reason` names it, also beside a value.
    """

    name: ClassVar[str] = "roc-auc"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The area, or the mean over groups."""
        import numpy as np

        labels = self._labels(pairs)
        problem = labels.problem or _no_ranking(labels)
        if problem is not None or labels.scores is None:
            return Estimate(value=None, reason=problem)
        truths = np.array([truth == POSITIVE for truth in labels.truths], dtype=np.float64)
        scores = np.array([np.nan if score is None else score for score in labels.scores], dtype=np.float64)
        lost = np.isnan(scores)
        scores[lost] = np.where(truths[lost] == 1, -np.inf, np.inf)
        names, group = _groups(pairs)
        basis = Basis("roc-auc", list(zip(finite(scores), truths.tolist(), strict=True)), _several(pairs))

        order = np.lexsort((scores, truths, group))  # so that the order of rows is without effect on resamples
        truths, scores, group = truths[order], scores[order], group[order]
        members = [np.flatnonzero(group == index) for index in range(len(names))]

        def of_groups(weights: FloatArray) -> FloatArray:
            return np.stack([areas(scores[rows], truths[rows], weights[:, rows]) for rows in members])

        found = of_groups(np.ones((1, len(truths))))[:, 0]
        lacking = [name for name, area in zip(names, found.tolist(), strict=True) if math.isnan(area)]
        if len(lacking) == len(names):
            return Estimate(value=None, reason=_of_one_class(lacking))
        drawn = [_mean_of_defined(of_groups(weights)) for weights in resamples(len(truths))]
        return Estimate(
            value=math.fsum(area for area in found.tolist() if not math.isnan(area)) / (len(names) - len(lacking)),
            ci95=percentile_interval(np.concatenate(drawn)) if drawn else None,
            reason=f"without {_of_one_class(lacking)}" if lacking else None,
            basis=basis,
        )


@dataclass(frozen=True, kw_only=True)
class Accuracy(_OfLabels):
    """The rate of right labels; an answer that names none is wrong. Probabilities given as answers are cut at 0.5."""

    name: ClassVar[str] = "accuracy"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate, or the mean over groups; per row 1 or 0."""
        import numpy as np

        labels = self._labels(pairs)
        problem = labels.problem or _no_decision(labels)
        if problem is not None:
            return Estimate(value=None, reason=problem)
        right = [float(a == t) for a, t in zip(labels.answers, labels.truths, strict=True)]
        names, group = _groups(pairs)
        if len(names) == 1:
            return mean_estimate(right)
        member = np.eye(len(names))[group]
        estimate = _of_sums(np.hstack([member * np.array(right)[:, None], member]), _mean_ratio)
        return replace(estimate, per_example=right, basis=Basis("mean", groups=_several(pairs)))


@dataclass(frozen=True, kw_only=True)
class F1(_OfLabels):
    """F1 of the positive label; of labels none of which is positive, the mean F1 of those among the gold answers.

    A class, or a group's positive class, that is neither true nor said of any row has no F1 and no part in the mean.
    """

    name: ClassVar[str] = "f1"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The F1, or the mean over classes or groups."""
        import numpy as np

        labels = self._labels(pairs)
        problem = labels.problem or _no_decision(labels)
        if problem is not None:
            return Estimate(value=None, reason=problem)
        names, group = _groups(pairs)
        classes = (POSITIVE,) if labels.is_binary else labels.names
        member = np.eye(len(names))[group]
        shared, sizes = [], []
        for name in classes:
            said = np.array([answer == name for answer in labels.answers], dtype=np.float64)[:, None]
            true = np.array([truth == name for truth in labels.truths], dtype=np.float64)[:, None]
            shared.append(member * (2 * said * true))
            sizes.append(member * (said + true))
        estimate = _of_sums(
            np.hstack([*shared, *sizes]), _mean_ratio, "the positive label is neither true nor said of any row"
        )
        return estimate if estimate.value is None else replace(estimate, basis=_counts(labels, pairs))


@dataclass(frozen=True, kw_only=True)
class Mae(Metric):
    """Mean absolute error over the rows whose answer holds a number; `parse-rate` says how many do."""

    name: ClassVar[str] = "mae"
    better: ClassVar[Direction | None] = "smaller"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean; per row the absolute error."""
        errors = [None if error is None else abs(error) for error in _errors(pairs)]
        read = [error for error in errors if error is not None]
        if not read:
            return _unread(pairs)
        scale = _scale(max(read))
        mean = mean_estimate([error / scale for error in read])
        value = None if mean.value is None else mean.value * scale
        return Estimate(value=value, ci95=_scaled(mean.ci95, scale), per_example=errors, basis=mean.basis)


@dataclass(frozen=True, kw_only=True)
class Rmse(Metric):
    """Root of the mean squared error over the rows whose answer holds a number."""

    name: ClassVar[str] = "rmse"
    better: ClassVar[Direction | None] = "smaller"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The root; per row the absolute error, whose mean it is not."""
        import numpy as np

        errors = _errors(pairs)
        read = np.array([error for error in errors if error is not None], dtype=np.float64)
        if not len(read):
            return _unread(pairs)
        scale = _scale(float(np.abs(read).max()))
        squares = (read / scale) ** 2
        sizes = [None if error is None else abs(error) for error in errors]
        return Estimate(
            value=scale * math.sqrt(math.fsum(squares.tolist()) / len(read)),
            ci95=_scaled(bootstrap_interval(squares[:, None], lambda sums: np.sqrt(sums[:, 0] / len(read))), scale),
            per_example=sizes,
            basis=Basis("rmse", [None if size is None else (size,) for size in sizes]),
        )


@dataclass(frozen=True, kw_only=True)
class R2(Metric):
    """1 minus the squared error over the squared deviation from the mean, of the rows whose answer holds a number."""

    name: ClassVar[str] = "r2"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The coefficient of determination; undefined where all gold answers are equal."""
        import numpy as np

        read = [(error, gold) for error, gold in zip(_errors(pairs), _golds(pairs), strict=True) if error is not None]
        if not read:
            return _unread(pairs)
        errors, golds = np.array(read, dtype=np.float64).T
        if len(read) < 2 or np.ptp(golds) == 0:
            return Estimate(value=None, reason="the gold answers do not vary, so there is no variance to explain")
        centred = golds - math.fsum(golds.tolist()) / len(golds)
        scale = _scale(max(float(np.abs(errors).max()), float(np.abs(centred).max())))
        errors, centred = errors / scale, centred / scale
        statistics = np.column_stack([errors**2, centred**2, centred, np.ones(len(errors))])

        def explained(sums: FloatArray) -> FloatArray:
            total = sums[:, 1] - sums[:, 2] ** 2 / sums[:, 3]
            share = np.divide(sums[:, 0], total, out=np.full(len(sums), np.nan), where=total > 1e-12 * sums[:, 1])
            return np.asarray(1 - share, dtype=np.float64)

        estimate = _of_sums(statistics, explained, "the errors are too large beside the variance of the gold answers")
        if estimate.value is None:
            return estimate
        both = zip(_golds(pairs), _numbers(pairs), strict=True)
        return replace(estimate, basis=Basis("r2", [None if said is None else (gold, said) for gold, said in both]))


@dataclass(frozen=True, kw_only=True)
class ParseRate(Metric):
    """The rate of answers in which a finite number could be read; the error metrics are over these alone."""

    name: ClassVar[str] = "parse-rate"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The rate; per row 1 or 0."""
        return mean_estimate([float(number is not None) for number in _numbers(pairs)])


def _groups(pairs: Pairs) -> tuple[list[str], Any]:
    """The names of the groups in their order, and the index of each row's; one group where there are none."""
    import numpy as np

    given = pairs.facts.groups or ["all rows"] * len(pairs)
    names = sorted(set(given))
    place = {name: index for index, name in enumerate(names)}
    return names, np.array([place[name] for name in given], dtype=np.int64)


def _several(pairs: Pairs) -> Sequence[str] | None:
    """The group of each row, where there is more than one."""
    given = pairs.facts.groups
    return given if given is not None and len(set(given)) > 1 else None


def _counts(labels: Labels, pairs: Pairs) -> Basis:
    """What F1 counts: of two classes the positive one's hits and misses, else which class is said and which is true."""
    both = list(zip(labels.truths, labels.answers, strict=True))
    groups = _several(pairs)
    if labels.is_binary:
        cells = ((truth == POSITIVE, answer == POSITIVE) for truth, answer in both)
        return Basis("f1", [(int(t and a), int(a and not t), int(t and not a)) for t, a in cells], groups)
    place: dict[str | None, int] = {name: number for number, name in enumerate(labels.names)}
    return Basis("macro-f1", [(place[truth], place.get(answer, -1)) for truth, answer in both], groups)


def _no_ranking(labels: Labels) -> str | None:
    """Why rows cannot be ranked by how likely they are positive."""
    if not labels.is_binary:
        return (
            f"no label of {', '.join(map(repr, labels.names[:5]))} is known as the positive one; name it (positive=...)"
        )
    if labels.scores is None or all(score is None for score in labels.scores):
        return "needs a probability of the positive label for each row; labels alone do not rank the rows"
    return None


def _no_decision(labels: Labels) -> str | None:
    """Why there are no labels to be counted."""
    known = [score for score in labels.scores or () if score is not None]
    if known and not any(labels.answers) and not all(0 <= score <= 1 for score in known):
        return "the answers are numbers beyond 0 to 1, of which it is unknown where positive begins"
    return None


def _of_one_class(groups: Sequence[str]) -> str:
    return f"{', '.join(groups[:12])}{' ...' if len(groups) > 12 else ''}: all gold labels are the same"


def _mean_of_defined(values: FloatArray) -> FloatArray:
    """`(resamples,)` means over the first axis of what is no NaN; NaN where all is."""
    import numpy as np

    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: FloatArray = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return mean


def _mean_ratio(sums: FloatArray) -> FloatArray:
    """From `(resamples, 2 k)` sums the mean of the first k over the last k, where these are not 0."""
    import numpy as np

    over, under = np.split(sums, 2, axis=1)
    return _mean_of_defined(np.divide(over, under, out=np.full(over.shape, np.nan), where=under > 0).T)


def _of_sums(statistics: FloatArray, aggregate: Callable[[FloatArray], FloatArray], reason: str = "") -> Estimate:
    """A function of sums over rows with its interval; `reason` where it is NaN."""
    import numpy as np

    exact = np.array([[math.fsum(column) for column in statistics.T.tolist()]])
    value = float(aggregate(exact)[0])
    if math.isnan(value):
        return Estimate(value=None, reason=reason)
    return Estimate(value=value, ci95=bootstrap_interval(statistics, aggregate))


def _numbers(pairs: Pairs) -> list[float | None]:
    return pairs.once("numbers", lambda: [number_of(prediction) for prediction in pairs.predictions])


def _golds(pairs: Pairs) -> list[float]:
    """The gold answers as numbers.

    Raises:
        TaskError: one holds none.
    """

    def read() -> list[float]:
        numbers = [number_of(reference) for reference in pairs.references]
        if None in numbers:
            first = pairs.references[numbers.index(None)]
            raise TaskError(
                f"{numbers.count(None):,} of {len(numbers):,} gold answers hold no number, the first of them "
                f"{first[:60]!r}; is it the right column?"
            )
        return [number for number in numbers if number is not None]

    return pairs.once("gold numbers", read)


def _errors(pairs: Pairs) -> list[float | None]:
    """Answer minus gold answer; None for an answer without a number."""
    return [None if p is None else p - gold for p, gold in zip(_numbers(pairs), _golds(pairs), strict=True)]


def _scale(largest: float) -> float:
    """What to divide by before squares or sums are taken: 1, unless these could leave the range of a float."""
    return 1.0 if largest == 0 or 1e-140 < largest < 1e140 else largest


def _unread(pairs: Pairs) -> Estimate:
    return Estimate(value=None, reason="no answer holds a number that could be read", per_example=[None] * len(pairs))


def _scaled(interval: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
    return None if interval is None else (interval[0] * scale, interval[1] * scale)
