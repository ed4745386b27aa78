"""Metrics of captions: BLEU-2, BLEU-4, ROUGE-1, ROUGE-2, ROUGE-L and METEOR, each to the last bit what the published
evaluation scripts get from nltk (`corpus_bleu`, `meteor_score`) and from rouge-score (no stemmer).

They are computed here in one pass over arrays of n-gram counts, because the interval of a corpus BLEU needs the counts
of every row, and because the libraries take several times as long.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

from tasks.base import Basis, Estimate
from tasks.metrics.base import Metric, Pairs, bootstrap_interval, mean_estimate
from tasks.metrics.wordnet import Lexicon, load_lexicon, locate, missing_reason, wordnet_sha256

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

Tokens = Sequence[str]
_ORDERS = 4


@dataclass(frozen=True, kw_only=True)
class Bleu2(Metric):
    """Corpus BLEU over 1- and 2-grams, equal weights, unsmoothed; per row, the sentence's own (not averaged)."""

    name: ClassVar[str] = "bleu-2"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The BLEU-2 of all rows together."""
        return bleu_estimate(_bleu_counts(pairs), 2)


@dataclass(frozen=True, kw_only=True)
class Bleu4(Metric):
    """Corpus BLEU over 1- to 4-grams, equal weights, unsmoothed; per row, the sentence's own (not averaged)."""

    name: ClassVar[str] = "bleu-4"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The BLEU-4 of all rows together."""
        return bleu_estimate(_bleu_counts(pairs), 4)


@dataclass(frozen=True, kw_only=True)
class Rouge1(Metric):
    """Mean over rows of the F-measure of shared words (runs of a-z and 0-9, lower-cased, not stemmed)."""

    name: ClassVar[str] = "rouge-1"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean ROUGE-1."""
        return _rouge_n_estimate(pairs, 1)


@dataclass(frozen=True, kw_only=True)
class Rouge2(Metric):
    """Mean over rows of the F-measure of shared pairs of neighbouring words."""

    name: ClassVar[str] = "rouge-2"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean ROUGE-2."""
        return _rouge_n_estimate(pairs, 2)


@dataclass(frozen=True, kw_only=True)
class RougeL(Metric):
    """Mean over rows of the F-measure of the longest common subsequence of words."""

    name: ClassVar[str] = "rouge-l"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean ROUGE-L."""
        predictions, references = pairs.once("rouge words", lambda: _rouge_words(pairs))
        return mean_estimate(
            [
                _f_measure(longest_common_subsequence(prediction, reference), len(prediction), len(reference))
                for prediction, reference in zip(predictions, references, strict=True)
            ]
        )


@dataclass(frozen=True, kw_only=True)
class Meteor(Metric):
    """Mean over rows of METEOR with Porter stems and WordNet synonyms (alpha 0.9, beta 3, gamma 0.5).

    Undefined where WordNet is not at hand, even for rows that would not need it: a set of captions must not get
    another metric because some of its words happen to be unmatched.
    """

    name: ClassVar[str] = "meteor"

    def estimate(self, pairs: Pairs) -> Estimate:
        """The mean METEOR, or no value with the reason."""
        place = locate()
        if place is None:
            return Estimate(value=None, reason=missing_reason())
        lexicon = load_lexicon(place)
        predictions, references = pairs.tokens
        return mean_estimate(
            [meteor(*both, lexicon) for both in zip(predictions, references, strict=True)],
        )

    def identity(self) -> Mapping[str, str]:
        """The version of nltk, which stems and reads WordNet, and the hash of WordNet."""
        place = locate()
        found = "missing" if place is None else wordnet_sha256(place)
        return {"nltk": package_version("nltk"), "wordnet-sha256": found}


def ngram_statistics(predictions: Sequence[Tokens], references: Sequence[Tokens], orders: int) -> IntArray:
    """What each row adds to the sums of which an n-gram metric is a function.

    Args:
        predictions: tokens of each row's answer.
        references: tokens of each row's gold answer.
        orders: the longest n-gram.

    Returns:
        `(rows, orders + 2)`: per order, the predicted n-grams that also stand in the reference (each counted at most as
        often as there); then the number of predicted tokens and of reference tokens.
    """
    import numpy as np

    rows = len(predictions)
    lengths = np.array([len(text) for side in (predictions, references) for text in side], dtype=np.int64)
    tokens, distinct = _token_ids([*predictions, *references])
    text_of = np.repeat(np.arange(2 * rows), lengths)  # text r is row r's answer, text rows + r its gold answer

    statistics = np.zeros((rows, orders + 2), dtype=np.int64)
    statistics[:, orders] = lengths[:rows]
    statistics[:, orders + 1] = lengths[rows:]
    grams, kinds = np.zeros(len(tokens), dtype=np.int64), 1  # the n-gram that begins at each token, and their number
    for order in range(1, orders + 1):
        if len(tokens) < order:
            break
        # An n-gram is the (n-1)-gram that begins where it begins, and the token that ends it.
        grams, kinds = _numbered(grams[: len(tokens) - order + 1], kinds, rows * distinct)
        grams, kinds = _numbered(grams * distinct + tokens[order - 1 :], kinds * distinct, rows)
        within = text_of[: len(grams)] == text_of[order - 1 :]
        text = text_of[: len(grams)][within]
        keys = text % max(1, rows) * kinds + grams[within]
        predicted = text < rows
        (answered, times), (expected, at_most) = (_counted(keys[side]) for side in (predicted, ~predicted))
        if len(answered) and len(expected):
            places = np.minimum(np.searchsorted(expected, answered), len(expected) - 1)
            shared = expected[places] == answered
            clipped = np.minimum(times[shared], at_most[places[shared]])
            np.add.at(statistics[:, order - 1], answered[shared] // kinds, clipped)
    return statistics


def _token_ids(texts: Sequence[Tokens]) -> tuple[IntArray, int]:
    """All tokens of all texts as numbers, and a bound of the numbers."""
    import numpy as np

    if all(isinstance(text, str) for text in texts):  # characters are numbers already
        codes = np.frombuffer("".join(map(str, texts)).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        kept, found = np.unique(codes, return_inverse=True)
        return found.astype(np.int64), max(1, len(kept))
    ids: dict[str, int] = {}
    found = np.array([ids.setdefault(token, len(ids)) for text in texts for token in text], dtype=np.int64)
    return found, max(1, len(ids))


def _numbered(grams: IntArray, kinds: int, factor: int) -> tuple[IntArray, int]:
    """Numbers for n-grams, and a bound of them that `factor` may be multiplied with; others only where it may not."""
    import numpy as np

    if kinds * max(1, factor) < 1 << 62:
        return grams, kinds
    kept, found = np.unique(grams, return_inverse=True)
    return found, len(kept)


def _counted(keys: IntArray) -> tuple[IntArray, IntArray]:
    """The distinct keys in ascending order, and how often each occurs."""
    import numpy as np

    ordered = np.sort(keys)
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=np.int64)
    return ordered[starts], np.diff(np.r_[starts, len(ordered)])


def corpus_bleu(sums: Sequence[float], orders: int) -> float:
    """Unsmoothed corpus BLEU with equal weights, as nltk computes it from the same sums.

    An order without any match counts as the smallest float and not as zero, so that the result is tiny, not 0.

    Args:
        sums: matches of each order, then possible matches of each order, then predicted and reference tokens.
        orders: the longest n-gram.
    """
    matches, possible = sums[:orders], sums[orders : 2 * orders]
    predicted, expected = sums[2 * orders], sums[2 * orders + 1]
    if matches[0] == 0:
        return 0.0
    brevity = 1.0 if predicted > expected else math.exp(1 - expected / predicted)
    precisions = (m / p if m else sys.float_info.min for m, p in zip(matches, possible, strict=True))
    return brevity * math.exp(math.fsum(math.log(precision) / orders for precision in precisions))


def bleu_estimate(counts: IntArray, orders: int) -> Estimate:
    """Corpus BLEU, its bootstrap interval and each row's own BLEU, from one table of counts.

    Args:
        counts: as `ngram_statistics` makes it, of at least `orders` orders.
        orders: the longest n-gram.
    """
    import numpy as np

    predicted, expected = counts[:, -2], counts[:, -1]
    # nltk lets a text that is shorter than the n-gram count as one possible match, so that nothing is divided by zero.
    possible = np.maximum(1, predicted[:, None] - np.arange(orders))
    statistics = np.column_stack([counts[:, :orders], possible, predicted, expected])

    def over(sums: list[list[float]]) -> list[float]:
        return [corpus_bleu(row, orders) for row in sums]

    rows = statistics.tolist()
    return Estimate(
        value=over(statistics.sum(axis=0, keepdims=True).tolist())[0],
        ci95=bootstrap_interval(statistics.astype(np.float64), lambda sums: np.array(over(sums.tolist()))),
        per_example=over(rows),
        basis=Basis(f"bleu-{orders}", rows),
    )


def longest_common_subsequence(first: Tokens, second: Tokens) -> int:
    """The length of the longest common subsequence, by the bit-parallel recurrence of Hyyrö (2004).

    Bit i of `row` is 0 where the table's row grows at `first[i]`; one addition of long integers updates a whole row.
    """
    everything = (1 << len(first)) - 1
    where: dict[str, int] = defaultdict(int)
    for place, token in enumerate(first):
        where[token] |= 1 << place
    row = everything
    for token in second:
        shared = row & where.get(token, 0)
        row = ((row + shared) | (row - shared)) & everything
    return len(first) - row.bit_count()


def meteor(prediction: Tokens, reference: Tokens, lexicon: Lexicon) -> float:
    """METEOR of one row, as nltk's `meteor_score` with its defaults.

    Words are paired off by equal form, then by equal stem, then by synonym. Like nltk's, the search for synonyms is of
    the stems, not of the words that they stem from.
    """
    predicted = [word.lower() for word in prediction]
    expected = [word.lower() for word in reference]
    pairs: list[tuple[int, int]] = []
    left, right = _pair_off(list(enumerate(predicted)), list(enumerate(expected)), pairs)
    if left and right:
        left = [(place, lexicon.stem(word)) for place, word in left]
        right = [(place, lexicon.stem(word)) for place, word in right]
        left, right = _pair_off(left, right, pairs)
    if left and right:
        _pair_off(left, right, pairs, lexicon.synonyms)
    if not pairs:
        return 0.0

    pairs.sort()
    chunks = 1 + sum(later != (i + 1, j + 1) for (i, j), later in itertools.pairwise(pairs))
    precision, recall = len(pairs) / len(predicted), len(pairs) / len(expected)
    f_mean = (precision * recall) / (0.9 * precision + (1 - 0.9) * recall)
    return float((1 - 0.5 * (chunks / len(pairs)) ** 3.0) * f_mean)


Places = list[tuple[int, str]]


def _pair_off(
    left: Places, right: Places, pairs: list[tuple[int, int]], synonyms: Callable[[str], frozenset[str]] | None = None
) -> tuple[Places, Places]:
    """Adds pairs of places to `pairs`: from the last word of `left` on, each takes the last free word that is equal.

    With `synonyms` it takes the last free word that is among them, itself included.

    Returns:
        What is left of both sides, in order.
    """
    free: dict[str, list[int]] = defaultdict(list)
    for place, word in right:
        free[word].append(place)
    unpaired: Places = []
    taken: set[int] = set()
    for place, word in reversed(left):
        if synonyms is None:
            places = free.get(word)
        else:
            alike = [free[other] for other in free.keys() & synonyms(word) if free[other]]
            places = max(alike, key=itemgetter(-1), default=None) if len(alike) > 1 else alike[0] if alike else None
        if places:
            taken.add(places[-1])
            pairs.append((place, places.pop()))
        else:
            unpaired.append((place, word))
    return unpaired[::-1], [(place, word) for place, word in right if place not in taken]


def _bleu_counts(pairs: Pairs) -> IntArray:
    """The counts of both BLEU, over the protocol's tokens."""
    return pairs.once("bleu statistics", lambda: ngram_statistics(*pairs.tokens, orders=_ORDERS))


def _rouge_words(pairs: Pairs) -> tuple[list[list[str]], list[list[str]]]:
    """Both sides as rouge-score tokenizes them: the protocol's tokenizer has no part in ROUGE."""
    word = re.compile("[a-z0-9]+")
    predictions, references = pairs.texts
    golds = pairs.of_references("rouge words", lambda: [word.findall(text.lower()) for text in references])
    return [word.findall(text.lower()) for text in predictions], golds


def _rouge_n_estimate(pairs: Pairs, order: int) -> Estimate:
    """The mean F-measure of shared n-grams."""
    words = pairs.once("rouge words", lambda: _rouge_words(pairs))
    counts = pairs.once("rouge statistics", lambda: ngram_statistics(*words, orders=2)).tolist()
    return mean_estimate(
        [_f_measure(row[order - 1], max(0, row[2] - order + 1), max(0, row[3] - order + 1)) for row in counts]
    )


def _f_measure(shared: int, predicted: int, expected: int) -> float:
    """The harmonic mean of precision and recall, 0 where nothing is shared; symmetric to the last bit."""
    if not shared:
        return 0.0
    precision, recall = shared / predicted, shared / expected
    return 2 * precision * recall / (precision + recall)
