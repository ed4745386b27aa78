"""How much cells use the graph: gains of the gold answer's log-likelihood from its own graph, over seeds and examples.

Tables, plots, reports and leaderboards take value, interval and test from `gains_of`, so that all of them show the same
numbers; a leaderboard of whole test sets takes the mean that runs state, which is the same one (`stated_gain`).

What runs state of reliance is of all examples that they were asked. A decontaminated score is of those that are left,
and so is all that is said here of a run under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from results.runs import Run, reliance_gains, reliance_measured
from results.scores import example_scores

if TYPE_CHECKING:
    from results.statistics import Interval, PairedResult


class Asked(Protocol):
    """A run, one way in which it was asked, and a score of that; `results.tables.gather.Answer` is one."""

    @property
    def run(self) -> Run:
        """Whose gains."""

    @property
    def entry(self) -> Mapping[str, Any]:
        """The evaluation, as the run's `result.json` has it."""

    @property
    def score(self) -> Mapping[str, Any]:
        """Its score, whole or decontaminated."""


@dataclass(frozen=True)
class Gains:
    """By how many nats per token the gold answer is likelier with its own graph, of one cell.

    Args:
        by_example: mean over seeds, of the examples that all measured seeds have.
        measured: seeds of which gains of single examples are known.
        seeds: all of the cell's.
    """

    by_example: Mapping[str, float]
    measured: int
    seeds: int

    @property
    def values(self) -> tuple[float, ...]:
        """One gain for each example."""
        return tuple(self.by_example.values())

    @property
    def n(self) -> int:
        """Examples."""
        return len(self.by_example)

    @property
    def counted(self) -> str:
        """`2 of 3 seeds` where it is not known of all; else empty."""
        return f"{self.measured} of {self.seeds} seeds" if 0 < self.measured < self.seeds else ""

    @cached_property
    def interval(self) -> Interval | None:
        """Mean gain and its bootstrap interval over examples, from 10 on; None where nothing was measured."""
        from results.statistics import FEWEST_EXAMPLES, mean_over_examples

        found = mean_over_examples(self.values)
        return replace(found, ci95=None) if found is not None and found.n < FEWEST_EXAMPLES else found

    @cached_property
    def tested(self) -> PairedResult | None:
        """The test that there is no gain; `ci95` is that of `interval`. None where nothing was measured.

        It swaps the two likelihoods of each example, which are exchangeable for a model that reads nothing of the
        graph. Seeds are averaged per example first, so that an example counts once.
        """
        import numpy as np

        from results.statistics import Basis, paired

        if self.interval is None:
            return None
        rows = np.array(self.values, dtype=np.float64)[:, None]
        found = paired([Basis("mean", rows)], [Basis("mean", np.zeros_like(rows))])
        return replace(found, difference=self.interval.mean, ci95=self.interval.ci95)


def example_gains(answer: Asked) -> dict[str, float]:
    """Per example that the score is of, how much likelier the gold answer is with its own graph, in nats per token.

    Empty where gains of single examples are not kept, or where it is not known which examples are left.

    Raises:
        ResultsError: a file cannot be read.
    """
    gains = reliance_gains(answer.run, answer.entry)
    if not gains or not is_of_fewer(answer):
        return gains
    left = _left(answer)
    return {example: gain for example, gain in gains.items() if example in left}


def without_partner(answer: Asked) -> int:
    """How many of the examples that the score is of have no gain, since no other graph fits them.

    Raises:
        ResultsError: a file cannot be read.
    """
    if not is_of_fewer(answer):
        return int((answer.entry.get("reliance") or {}).get("left_out") or 0)
    left = _left(answer)
    return sum(row["example_id"] in left and not row["counts"] for row in reliance_measured(answer.run, answer.entry))


def is_of_fewer(answer: Asked) -> bool:
    """Whether the score is of fewer examples than were asked, so that what the run states of all says nothing of it."""
    return answer.score.get("without") is not None


def gains_of(answers: Sequence[Asked]) -> Gains:
    """The gains of one cell, over the examples that its scores are of.

    Args:
        answers: of its runs, by seed.

    Raises:
        ResultsError: a file cannot be read.
    """
    runs = [found for answer in answers if (found := example_gains(answer))]
    shared = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
    by_example = {example: fmean(run[example] for run in runs) for example in shared}
    return Gains(by_example, len(runs), len(answers))


def stated_gain(entries: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean gain as runs themselves state it, without reading their examples; over the runs that state one.

    It is the mean of `gains_of` for scores of all examples, wherever all runs measured the same ones, as runs of one
    cell do.
    """
    stated = [(entry.get("reliance") or {}).get("value") for entry in entries]
    known = [float(value) for value in stated if value is not None]
    return fmean(known) if known else None


def _left(answer: Asked) -> frozenset[str]:
    """The examples that a score is of; none where its file is missing."""
    scores = example_scores(answer.run, answer.score, ())
    return frozenset(scores.example_ids if scores is not None else ())
