"""What a leaderboard is: boards of rows that may be ranked together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from results.metrics import Directions
from results.runs import ResultsError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]

RANKING = ("meteor", "exact", "opsin-exact", "roc-auc", "mae", "fact-recall")
"""By which metric a board is ranked unless told otherwise: the first of these that it has, else its first metric."""

BUDGETS = {
    "trained": "trained parameters",
    "parameters": "parameters",
    "tokens": "tokens of training",
    "steps": "steps of training",
    "seconds": "seconds of training",
}
"""What a row may be limited in, by name, in words."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric of a row.

    Args:
        mean: over the row's runs that have it.
        sd: sample standard deviation (ddof 1) over them, from 3 on.
        ci95: of the mean: Student's t over runs from 3 on; of a single run the bootstrap over examples; else None, and
            always below `results.statistics.FEWEST_EXAMPLES` examples.
        counted: `2 of 3 seeds` where some of the runs lack the metric; else empty. Such a mean has no rank, no interval
            and no test (`results.seeds`).
        why: which of the runs lack it, and why.
    """

    mean: float
    sd: float | None = None
    ci95: tuple[float, float] | None = None
    counted: str = ""
    why: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether all runs of the row have it, so that it may be ranked."""
        return not self.counted


@dataclass(frozen=True, slots=True)
class Reliance:
    """How much a row uses the graph.

    Args:
        mean: nats per token, over the board's examples that count and the row's runs of which it is known.
        counted: `2 of 3 seeds` where it is not known of all; else empty.
    """

    mean: float
    counted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A cell that was asked in one way: runs that differ in their seed only; or the predictions of another system.

    Args:
        name: the cell's alias, with what is unusual in how it was asked.
        identity: of the cell and of how it was asked.
        folders: the names of its run folders.
        external: whether these are predictions of another system, of which only the answers are known.
        encoder, projector, llm, text_input: by name; None where unknown.
        seeds: of its runs.
        n_invalid: answers that could not be read, mean over runs.
        metrics: by name; None where undefined.
        reliance: gain of the gold answer's log-likelihood from its own graph; None where it is not known of the board's
            examples.
        budget: by the names of `BUDGETS`, mean over runs; None where unknown.
        examples: `(n,)`, the values of the board's `test_metric` by example, averaged over runs; NaN where an example
            has none; None where they are not known, or where the metric is not their mean.
    """

    name: str
    identity: str
    folders: tuple[str, ...]
    external: bool
    encoder: str | None
    projector: str | None
    llm: str | None
    text_input: str | None
    seeds: tuple[int, ...]
    n_invalid: float | None
    metrics: Mapping[str, Figure | None]
    reliance: Reliance | None
    budget: Mapping[str, float | None]
    examples: Float32Array | None


@dataclass(frozen=True, slots=True)
class Against:
    """How a row compares with the first of its board by the test metric, on the examples that both have.

    Rows are ranked by their own means, which are of other examples where a row lacks some (an answer that is no number
    has no error). Test and means here are of the same examples.

    Args:
        n: examples that both have a value of.
        own, first: the means of the row and of the first over these.
        p: of the paired test, after Holm's correction over the board.
        state: `level` where p is 5% or more; else whether the row is `behind` the first or `ahead` of it.
    """

    n: int
    own: float
    first: float
    p: float
    state: Literal["level", "behind", "ahead"] = "level"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Rows that were asked the same examples and scored by the same protocol, and that alone may be ranked together.

    Args:
        task, data, split: what was asked.
        protocol: with its version.
        identity: of the examples, the protocol's declarations and tokenizer, and what was left out.
        n: examples.
        limited: whether only some examples of the split were asked.
        without: in words, which examples are left out because training data hold their molecules; "" for none.
        ranked: whether the rows may be ranked: not where the examples are unknown, as in an MLflow store without files.
        metrics: names in the protocol's order.
        directions: which values of them are better, as the leaderboard's runs declare it.
        rank_by: the metric that the rows are sorted by, best first.
        test_metric: the mean over examples by which two rows are compared; None where there is none.
        notes: what is to be known of all rows.
        rows: the best first, those without a value last.
        against: for each row how it compares with the first (`against_first`); None where there is no test, and for the
            first.
    """

    task: str
    data: str
    split: str
    protocol: str
    identity: str
    n: int
    limited: bool
    without: str
    ranked: bool
    metrics: tuple[str, ...]
    directions: Directions
    rank_by: str
    test_metric: str | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    against: tuple[Against | None, ...]

    @property
    def level(self) -> tuple[bool | None, ...]:
        """For each row whether it is not told apart from the first, as that one is not; None where there is no test."""
        tested = [None if found is None else found.state == "level" for found in self.against]
        return (True, *tested[1:]) if any(found is not None for found in tested) else tuple(tested)

    @property
    def ranks(self) -> list[int | None]:
        """The place of each row by `rank_by`; equal values share one. None where a run lacks it, or without ranking."""
        places: list[int | None] = []
        before: float | None = None
        for position, row in enumerate(self.rows, start=1):
            figure = row.metrics.get(self.rank_by)
            if figure is None or not figure.is_complete or not self.ranked:
                places.append(None)
                continue
            places.append(places[-1] if figure.mean == before and places else position)
            before = figure.mean
        return places


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """All boards, and what has no score to show.

    Args:
        boards: whole test sets first, by task, data and protocol.
        unscored: runs without scores, each with its state or its error.
    """

    boards: tuple[Board, ...]
    unscored: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which rows are wanted; None for all.

    Args:
        task, data, split: as the run's evaluation says.
        protocol: with or without its version.
        llm: a part of the language model's name, in any case.
        budget: the most of each of `BUDGETS`; a row of which it is not known is left out.
    """

    task: str | None = None
    data: str | None = None
    split: str | None = None
    protocol: str | None = None
    llm: str | None = None
    budget: Mapping[str, float] | None = None


def budget_of(text: str) -> tuple[str, float]:
    """A limit such as `trained=10M`, `seconds=2h` or `tokens=1.5e9`.

    Raises:
        ResultsError: it names nothing of `BUDGETS`, or no number.
    """
    name, _, amount = text.partition("=")
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9} if name != "seconds" else {"s": 1.0, "m": 60.0, "h": 3600.0}
    unit = units.get(amount[-1:])
    try:
        most = float(amount[:-1] if unit is not None else amount) * (unit or 1.0)
    except ValueError:
        most = -1.0
    if name not in BUDGETS or not 0 <= most < float("inf"):
        endings = ", ".join(units)
        raise ResultsError(
            f"--budget {text}: NAME=MOST is needed, such as trained=10M or seconds=2h; a name is one of "
            f"{', '.join(BUDGETS)}, and a number of {name if name in BUDGETS else 'these'} may end in {endings}"
        )
    return name, most
