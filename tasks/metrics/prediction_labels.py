"""How labels and numbers are read from answers, and the area under a ROC curve of many resamples at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.property_answers import read_label, read_number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tasks.metrics.base import Pairs

    FloatArray = npt.NDArray[np.float64]

_POSITIVE = frozenset({"yes", "true", "positive", "active", "y", "t", "pos", "1", "1.0"})
_NEGATIVE = frozenset({"no", "false", "negative", "inactive", "n", "f", "neg", "0", "0.0", "-0.0"})
LARGEST = 1e300  # what is beyond counts as no number: its difference from another may not be one
# What may be looked for in a sentence: not the single letters and digits.
_IN_SENTENCES = ("yes", "no", "true", "false", "positive", "negative", "active", "inactive")


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of all rows.

    Args:
        names: of the two classes, the positive one first; or of all classes of the gold answers.
        is_binary: whether one class is the positive one.
        truths: the class of each gold answer.
        answers: the class of each answer; None for what names none of them.
        scores: what ranks each row as positive; None for a row without; None as a whole where no row has one.
        problem: why there are no classes to compare (then all else is empty).
    """

    names: tuple[str, ...]
    is_binary: bool
    truths: Sequence[str]
    answers: Sequence[str | None]
    scores: Sequence[float | None] | None = None
    problem: str | None = None


POSITIVE, NEGATIVE = "positive", "negative"


def labels_of(pairs: Pairs, positive: str | None) -> Labels:
    """The labels of all rows.

    Gold answers that are all yes or no in some form make two classes, and so does `positive` with any one other label;
    else labels are compared as texts, whatever their case. Answers that are numbers, and not all 0 or 1, are taken for
    probabilities where none are given.
    """
    golds = [_plain(reference) for reference in pairs.references]
    others = sorted(set(golds) - {_plain(positive or "")})
    if positive is not None and len(others) <= 1 and len(others) < len(set(golds)):
        names = (_plain(positive), *(others or ["anything else"]))
        truths = [POSITIVE if gold == names[0] else NEGATIVE for gold in golds]
        answers = [_by_name(answer, names) for answer in pairs.predictions]
    elif positive is not None:
        return Labels((), False, (), (), problem=_no_such_positive(positive, golds))
    elif all(polarity(reference) is not None for reference in pairs.references):
        names = (POSITIVE, NEGATIVE)
        truths = [polarity(reference) or NEGATIVE for reference in pairs.references]
        answers = [None if answer is None else polarity(answer) for answer in pairs.predictions]
    else:
        known = set(golds)
        found = [None if answer is None else _plain(answer) for answer in pairs.predictions]
        said = [answer if answer in known else None for answer in found]
        return Labels(tuple(sorted(known)), False, golds, said, pairs.facts.probabilities)

    scores = pairs.facts.probabilities
    if scores is None:
        scores = _as_probabilities(pairs.predictions)
        if scores is not None:
            answers = [None if score is None else POSITIVE if score >= 0.5 else NEGATIVE for score in scores]
            if any(score is not None and not 0 <= score <= 1 for score in scores):
                answers = [None] * len(scores)
    return Labels(names, True, truths, answers, scores)


def polarity(text: str) -> str | None:
    """`positive` or `negative` for a yes or a no in any of its forms, also in a sentence; None for anything else."""
    word = _plain(text)
    if word not in _POSITIVE | _NEGATIVE:
        word = (read_label(text, _IN_SENTENCES) or "").lower()
    return POSITIVE if word in _POSITIVE else NEGATIVE if word in _NEGATIVE else None


def number_of(text: str | None) -> float | None:
    """The number that an answer gives: as Python reads it, else the only one in its text; None beyond 1e300."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        found = read_number(text)
        number = math.nan if found is None else float(found)
    return number if abs(number) <= LARGEST else None  # NaN is not


def is_label(prediction: str, reference: str) -> bool:
    """Whether an answer can be read as a label at all, next to a gold answer that is yes, no or some other word."""
    if polarity(reference) is None:
        return bool(prediction.strip())
    return polarity(prediction) is not None or _number(prediction) is not None


def areas(scores: FloatArray, truths: FloatArray, weights: FloatArray) -> FloatArray:
    """Areas under the ROC curve, in which a tie counts half.

    Args:
        scores: `(n,)`.
        truths: `(n,)`, 1 for positive.
        weights: `(resamples, n)`, how often each row occurs.

    Returns:
        `(resamples,)`; NaN where only one class occurs.
    """
    import numpy as np

    order = np.argsort(scores, kind="stable")
    ranked, weights = scores[order], weights[:, order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    positives = np.add.reduceat(weights * truths[order], starts, axis=1)
    negatives = np.add.reduceat(weights * (1 - truths[order]), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    won = (positives * (below + negatives / 2)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    found: FloatArray = np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)
    return found


def finite(scores: FloatArray) -> list[float]:
    """Scores that rank as these do, without the infinite ones of rows that are ranked wrongly: JSON has none.

    They stand at -1 and 2, beyond all probabilities; of scores that are none, the ranks stand for all.
    """
    import numpy as np

    is_known = np.isfinite(scores)
    known = scores[is_known]
    below, above = -1.0, 2.0
    if len(known) < len(scores) and len(known) and not (known.min() >= 0 and known.max() <= 1):
        distinct = np.unique(known)
        scores, above = np.where(is_known, np.searchsorted(distinct, scores), scores), float(len(distinct))
    ranked: list[float] = np.where(is_known, scores, np.where(scores < 0, below, above)).tolist()
    return ranked


def _plain(text: str) -> str:
    """A label without case, blanks around it and marks behind it."""
    return text.strip().strip(".,;:!\"'` ").casefold()


def _by_name(answer: str | None, names: tuple[str, ...]) -> str | None:
    if answer is None or _plain(answer) not in names:
        return None
    return POSITIVE if _plain(answer) == names[0] else NEGATIVE


def _no_such_positive(positive: str, golds: Sequence[str]) -> str:
    seen = sorted(set(golds))
    return f"positive={positive!r} does not make two classes of the gold answers: {', '.join(map(repr, seen[:5]))}"


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _as_probabilities(answers: Sequence[str | None]) -> list[float | None] | None:
    """The answers as numbers, where every answer that says anything is one, and they are not just 0 and 1."""
    numbers = [_number(answer) for answer in answers]
    if all(number in (None, 0, 1) for number in numbers):
        return None
    words = (answer for answer, number in zip(answers, numbers, strict=True) if answer and number is None)
    return None if any(polarity(word) is not None for word in words) else numbers
