"""What a metric and a protocol are: the declarations that a file in this folder, or in a plug-in folder, adds.

A metric turns answers beside gold answers into one `Estimate`. A protocol says which metrics a kind of answer gets, on
which tokens, and what an answer that could not be read counts as: it is what makes two numbers comparable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as package_version
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tasks.base import AnswerKind, Basis, Direction, Estimate, ScoreTable, TaskError
from tasks.metrics.resampling import RESAMPLES, SEED, percentile_interval, resamples

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tasks.metrics.tokenizers import Tokenizer

    FloatArray = npt.NDArray[np.float64]

T = TypeVar("T")

# What was derived of gold answers, by them and by what it is; the most recently used last.
_of_references: OrderedDict[tuple[Hashable, tuple[str, ...]], Any] = OrderedDict()
_REFERENCES_KEPT = 50_000  # rows in all; one set of them is kept whatever its size


def forget_references() -> None:
    """Drops what was derived of gold answers in earlier scorings; for benchmarks."""
    _of_references.clear()


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known of each row beside its answer and its gold answer; None where nothing is known of any row.

    Args:
        molecules: the SMILES that were asked about.
        probabilities: of the positive label, from a model's likelihoods; None for a row without.
        groups: the part of the data over which metrics are averaged (an assay of Tox21).
    """

    molecules: Sequence[tuple[str, ...]] | None = None
    probabilities: Sequence[float | None] | None = None
    groups: Sequence[str] | None = None

    def of(self, rows: Sequence[int]) -> RowFacts:
        """The facts of some rows, in that order."""
        return RowFacts(*(None if known is None else [known[row] for row in rows] for known in self._all))

    def lengths(self) -> set[int]:
        """How many rows the known facts are about."""
        return {len(known) for known in self._all if known is not None}

    @property
    def _all(self) -> tuple[Sequence[Any] | None, ...]:
        return self.molecules, self.probabilities, self.groups


class Pairs:
    """Answers beside gold answers, row by row, and whatever several metrics derive from them, derived once.

    Args:
        predictions: what the protocol lets the metrics see; None for an answer that could not be read.
        references: the gold answers, as many.
        tokenizer: the protocol's, for the metrics that compare tokens.
        facts: what else is known of each row.
    """

    def __init__(
        self,
        predictions: Sequence[str | None],
        references: Sequence[str],
        tokenizer: Tokenizer | None = None,
        facts: RowFacts | None = None,
    ) -> None:
        self.predictions = predictions
        self.references = references
        self.tokenizer = tokenizer
        self.facts = facts or RowFacts()
        self._derived: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self.references)

    def once(self, key: str, derive: Callable[[], T]) -> T:
        """`derive()`, kept under `key` for the other metrics of the same protocol."""
        if key not in self._derived:
            self._derived[key] = derive()
        kept: T = self._derived[key]
        return kept

    def of_references(self, key: Hashable, derive: Callable[[], T]) -> T:
        """`derive()`, which depends on nothing but `key` and the gold answers; kept for their next scoring.

        Every run of a study has the same gold answers. What is kept is shared: nobody may change it.
        """
        rows = tuple(self.references)
        place = (key, rows)
        if place not in _of_references:
            _of_references[place] = derive()
        _of_references.move_to_end(place)
        kept: T = _of_references[place]
        while len(_of_references) > 1 and sum(len(rows) for _, rows in _of_references) > _REFERENCES_KEPT:
            _of_references.popitem(last=False)
        return kept

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """Predictions and references as texts; an answer that could not be read is an empty text."""
        return self.once("texts", lambda: ([text or "" for text in self.predictions], list(self.references)))

    @property
    def tokens(self) -> tuple[list[list[str]], list[list[str]]]:
        """The protocol's tokens of each prediction and of each reference.

        Raises:
            TaskError: the protocol has no tokenizer.
        """
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise TaskError("this protocol names no tokenizer, which the metric needs")
        predictions, references = self.texts

        def split() -> tuple[list[list[str]], list[list[str]]]:
            golds = self.of_references(("tokens", tokenizer.split), lambda: tokenizer.split(references))
            return tokenizer.split(predictions), golds

        return self.once("tokens", split)


@dataclass(frozen=True, kw_only=True)
class Metric(ABC):
    """One number over a set of rows. A subclass with a `name` is found by it, in whatever file it stands.

    It declares which of its values are `better`, and score files say so: tables, tests and selections go by it. None
    says that neither is, as of a mere count.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same rows begin to give another number
    better: ClassVar[Direction | None] = "larger"

    def __init_subclass__(cls) -> None:
        """Refuses a declaration that nobody could read.

        Raises:
            TaskError: `better` is none of what it may be.
        """
        super().__init_subclass__()
        if cls.better not in ("larger", "smaller", None):
            raise TaskError(f"{cls.__name__}.better is {cls.better!r}; it may be 'larger', 'smaller' or None")

    @abstractmethod
    def estimate(self, pairs: Pairs) -> Estimate:
        """The metric of `pairs`, which holds at least one row; `per_example` has one value (or None) per row.

        An estimate that says its `basis` can be tested for differences between systems; that of a mean is added where
        it is missing.
        """

    def identity(self) -> Mapping[str, str]:
        """What the number depends on beside the rows, the tokens and this class: package versions, hashes of data."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """How answers become numbers. A subclass with a `name` is found by it, in whatever file it stands.

    Fields are settings that a user may give (`--set tokenizer=PATH`). A subclass says in its docstring what exactly it
    computes and what it hides; it lists `metrics`, and overrides `tokenizer_for`, `read`, `is_invalid` or `admits`
    where it departs from: no tokenizer, an unread caption is an empty one, what cannot be read is invalid, and every
    row counts.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raised when the same rows and the same metrics begin to give other numbers

    @abstractmethod
    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """The metrics of each kind of answer that this protocol can score, in the order in which they are shown."""

    def tokenizer_for(self, kind: AnswerKind) -> Tokenizer | None:
        """The tokenizer whose tokens the metrics of `kind` compare, loaded; None where they compare none.

        Raises:
            TaskError: its file is missing or is not what the protocol needs.
        """
        return None

    def read(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """What the metrics see in place of `prediction`."""
        return "" if prediction is None and kind == "caption" else prediction

    def is_invalid(self, kind: AnswerKind, prediction: str | None) -> bool:
        """Whether `prediction` counts into `n_invalid`: unread, or of `kind` molecule or regression without one."""
        return self._refusal(kind, prediction) is not None

    def why_invalid(self, kind: AnswerKind, prediction: str | None, reference: str) -> str | None:
        """Why `prediction` counts into `n_invalid`, in words; None where it does not.

        Beside what `is_invalid` says, a classification is invalid whose answer is no label of the gold answer's kind.
        """
        if self.is_invalid(kind, prediction):
            return self._refusal(kind, prediction) or "is left out by the protocol"
        if kind == "classification":
            from tasks.metrics.prediction_labels import is_label

            return None if is_label(prediction or "", reference) else "names no label"
        return None

    def _refusal(self, kind: AnswerKind, prediction: str | None) -> str | None:
        """Why what the metrics see in place of `prediction` cannot be read, judged by itself."""
        unread = "could not be read out of the answer"
        if prediction is None:
            return unread
        seen = self.read(kind, prediction)
        if seen is None:
            return unread
        if kind == "molecule":
            from tasks.metrics.molecule_records import structure

            return structure(seen).reason
        if kind == "regression":
            from tasks.metrics.prediction_labels import number_of

            return None if number_of(seen) is not None else "holds no finite number, or several"
        return None

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        """Whether the metrics see this row at all. Only protocols that reproduce a survivorship say no."""
        return True

    def identity(self, kind: AnswerKind) -> dict[str, str]:
        """Everything beside the rows that the numbers of `score` depend on.

        Raises:
            TaskError: as `score`.
        """
        return self._identity(self._metrics_of(kind), self.tokenizer_for(kind))

    def score(
        self,
        kind: AnswerKind,
        predictions: Sequence[str | None],
        references: Sequence[str],
        facts: RowFacts | None = None,
    ) -> ScoreTable:
        """The protocol's metrics of `predictions`.

        Args:
            kind: what sort of answer the rows hold.
            predictions: the answers; None for one that could not be parsed.
            references: the gold answers in the same order.
            facts: what else is known of each row, for the metrics that need it.

        Returns:
            One estimate per metric. Without a row that the protocol admits, all values are None with a reason.

        Raises:
            TaskError: the protocol does not score `kind`, the two lists differ in length, or its tokenizer is missing.
        """
        metrics = self._metrics_of(kind)
        if len(predictions) != len(references):
            raise TaskError(f"{len(predictions)} predictions beside {len(references)} references: as many are needed")
        facts = facts or RowFacts()
        if facts.lengths() - {len(references)}:
            raise TaskError(f"facts about {facts.lengths()} rows beside {len(references)}: as many are needed")
        tokenizer = self.tokenizer_for(kind)

        admitted = [
            row
            for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True))
            if self.admits(kind, prediction, reference)
        ]
        pairs = Pairs(
            [self.read(kind, predictions[row]) for row in admitted],
            [references[row] for row in admitted],
            tokenizer,
            facts.of(admitted),
        )
        estimates = {
            metric.name: _spread(metric.estimate(pairs), admitted, len(references)) if admitted else _NO_ROWS
            for metric in metrics
        }
        rows = enumerate(zip(predictions, references, strict=True))
        reasons = {place: self.why_invalid(kind, *row) for place, row in rows}
        invalid = {place: reason for place, reason in reasons.items() if reason is not None}
        return ScoreTable(
            kind=kind,
            protocol=f"{self.name}@{self.version}",
            n=len(references),
            n_invalid=len(invalid),
            metrics=estimates,
            identity=self._identity(metrics, tokenizer),
            invalid=invalid,
            better={metric.name: metric.better for metric in metrics},
        )

    def _metrics_of(self, kind: AnswerKind) -> tuple[Metric, ...]:
        offered = self.metrics()
        if kind not in offered:
            raise TaskError(f"protocol {self.name} does not score {kind!r} answers; it scores: {', '.join(offered)}")
        return offered[kind]

    def _identity(self, metrics: Sequence[Metric], tokenizer: Tokenizer | None) -> dict[str, str]:
        identity = {
            "metrics": " ".join(f"{metric.name}@{metric.version}" for metric in metrics),
            "ci95": f"percentile bootstrap, {RESAMPLES} resamples, seed {SEED}",
            "numpy": package_version("numpy"),
        }
        if tokenizer is not None:
            identity |= {"tokenizer": tokenizer.name, "tokenizer-sha256": tokenizer.sha256, **tokenizer.packages}
        for metric in metrics:
            identity |= metric.identity()
        return identity


_NO_ROWS = Estimate(value=None, reason="there are no rows to score")


def mean_estimate(values: Sequence[float | None]) -> Estimate:
    """The mean over the rows that have a value, with its interval; undefined where none has.

    The sum is exact (`math.fsum`) and the interval is taken from sorted values, so that the order of rows is without
    effect to the last bit.
    """
    import math

    import numpy as np

    scored = [value for value in values if value is not None]
    if not scored:
        return Estimate(value=None, reason="no row could be scored", per_example=list(values))
    interval = bootstrap_interval(np.array(scored, dtype=np.float64)[:, None], lambda sums: sums[:, 0] / len(scored))
    return Estimate(value=math.fsum(scored) / len(scored), ci95=interval, per_example=list(values), basis=Basis("mean"))


def basis_of(estimate: Estimate) -> Basis | None:
    """What an estimate is computed from: as it says, or the mean of its rows where it says nothing and is that mean."""
    import math

    if estimate.value is None or estimate.basis is not None or estimate.per_example is None:
        return estimate.basis
    scored = [value for value in estimate.per_example if value is not None]
    mean = math.fsum(scored) / len(scored) if scored else math.nan
    return Basis("mean") if math.isclose(estimate.value, mean, rel_tol=1e-12, abs_tol=1e-12) else None


def bootstrap_interval(
    statistics: FloatArray, aggregate: Callable[[FloatArray], FloatArray]
) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic that is a function of sums over rows.

    Args:
        statistics: `(n, k)`, what each row adds to the sums.
        aggregate: from the `(resamples, k)` sums over resampled rows to the `(resamples,)` values of the statistic.

    Returns:
        Lower and upper bound, or None where `n` < 2. Rows are sorted first: their order is without effect.
    """
    import numpy as np

    n = len(statistics)
    if n < 2:
        return None
    ordered = statistics[np.lexsort(statistics.T)]
    return percentile_interval(aggregate(np.concatenate([weights @ ordered for weights in resamples(n)])))


def _spread(estimate: Estimate, admitted: Sequence[int], n: int) -> Estimate:
    """`estimate` with what it says of rows put back to the places that the admitted rows have among all `n`."""
    if len(admitted) == n:
        return estimate

    def placed(values: Sequence[T] | None, absent: T) -> list[T] | None:
        if values is None:
            return None
        places = [absent] * n
        for row, value in zip(admitted, values, strict=True):
            places[row] = value
        return places

    basis = estimate.basis
    if basis is not None:
        basis = replace(basis, rows=placed(basis.rows, None), groups=placed(basis.groups, ""))
    return replace(estimate, per_example=placed(estimate.per_example, None), basis=basis)
