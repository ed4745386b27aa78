"""Which differences of a table are more than chance: paired tests between its rows, corrected over the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from results.metrics import Directions
from results.runs import ResultsError
from results.scores import NO_BASIS, ExampleScores, example_scores
from results.seeds import NOT_ALL_SEEDS
from results.statistics import FEWEST_EXAMPLES as FEWEST_EXAMPLES
from results.statistics import FEWEST_SEEDS, Interval, PairedResult, aligned, holm, over_examples, paired
from results.tables.model import Value, Versus
from results.tables.reference import reference_of

if TYPE_CHECKING:
    from results.statistics import Basis
    from results.tables.gather import Group

INTERVAL_RESAMPLES = 2000
"""Of a cell's own interval, of which a table has many: twice as many as scores have, and its third digit is sure."""

_LEVEL = 0.05


class PerExample:
    """Scores of groups example by example, read when they are first asked for, and what they say.

    Args:
        tell: is told what is being done, since it may take minutes.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self._tell = tell
        self._read: dict[tuple[str, str], ExampleScores | None] = {}
        self._compared: dict[tuple[object, object, str], PairedResult | str] = {}

    def bases(self, group: Group, metric: str) -> list[tuple[tuple[str, ...], Basis]]:
        """Example ids and basis of each seed; empty where a run lacks either, and `why_none` says why."""
        found = []
        for answer in group.answers:
            key = str(answer.run.folder), str(answer.score.get("score_id"))
            if key not in self._read:
                self._read[key] = example_scores(answer.run, answer.score)
            scores = self._read[key]
            if scores is None or metric not in scores.basis:
                return []
            found.append((scores.example_ids, scores.basis[metric]))
        return found

    def why_none(self, group: Group, metric: str) -> str:
        """Why `bases` has nothing of a group."""
        over = group.over(metric)
        if not over.values:
            return f"no test: undefined for {group.alias}"
        if not over.is_complete:
            return f"{NOT_ALL_SEEDS} ({group.alias}: {over.counted})"
        for answer in group.answers:
            if self._read.get((str(answer.run.folder), str(answer.score.get("score_id")))) is None:
                return f"no test: the scores of single examples of {group.alias} are missing"
        return NO_BASIS

    def interval(self, group: Group, metric: str) -> Interval | None:
        """The metric over seeds, with its interval over examples; None where the examples' scores are missing."""
        self._tell(f"{group.alias}: interval of {metric}")
        bases = self.bases(group, metric)
        return over_examples(aligned(bases)[0], resamples=INTERVAL_RESAMPLES) if bases else None

    def compared(self, a: Group, b: Group, metric: str) -> PairedResult | str:
        """The difference of two groups, or why there is no test of it; found once, since it takes seconds."""
        key, mirrored = (a.key, b.key, metric), (b.key, a.key, metric)
        if key not in self._compared:
            self._tell(f"{a.alias} against {b.alias}: {metric}")
            known = self._compared.get(mirrored)
            self._compared[key] = self._compare(a, b, metric) if known is None else _mirrored(known)
        return self._compared[key]

    def _compare(self, a: Group, b: Group, metric: str) -> PairedResult | str:
        ours, theirs = (self.bases(group, metric) if group.over(metric).is_complete else [] for group in (a, b))
        for group, bases in ((a, ours), (b, theirs)):
            if not bases:
                return self.why_none(group, metric)
        try:
            first, second = aligned(ours, theirs)
            both = min(len(first), len(second)) >= FEWEST_SEEDS
            return paired(first, second, two_way=both)
        except ResultsError as error:
            return str(error)


def _mirrored(found: PairedResult | str) -> PairedResult | str:
    """The same comparison, the other way round."""
    if isinstance(found, str):
        return found
    return replace(
        found,
        difference=-found.difference,
        ci95=None if found.ci95 is None else (-found.ci95[1], -found.ci95[0]),
        seeds=(found.seeds[1], found.seeds[0]),
        effect=None if found.effect is None else -found.effect,
    )


@dataclass(frozen=True, slots=True)
class Tests:
    """What was tested for the rows of one table.

    Args:
        family: how many tests of the best against the next Holm's correction is over.
        versus: the same for differences from the cell of reference.
        two_way: whether tests were over seeds too: all, none or some of them.
        reasons: why there is no test, each with the metrics of which that is so.
        notes: what the tests have to say of themselves.
        effects: the least and the largest effect of a difference from the cell of reference; None without any.
    """

    family: int
    versus: int
    two_way: frozenset[bool]
    reasons: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    effects: tuple[float, float] | None


Values = list[dict[str, Value | None]]


def mark_best(
    parts: Sequence[tuple[Sequence[Group], Values]],
    metrics: Sequence[str],
    directions: Directions,
    scores: PerExample,
    reference: str | None,
) -> Tests:
    """Marks in each column of each part the best value where it is significantly better than the next, and writes
    beside each value its difference from the cell of reference.

    Args:
        parts: groups with their values, which are changed.
        metrics: the columns.
        directions: which values of them are better.
        scores: of the groups.
        reference: alias of the cell that all others are compared with; None for none.
    """
    best = list(_contests(parts, metrics, directions, scores))
    against = list(_differences(parts, metrics, scores, reference)) if reference is not None else []
    for contest, adjusted in _adjusted(best):
        value = contest.values[contest.place][contest.metric]
        assert value is not None
        contest.values[contest.place][contest.metric] = replace(value, best=adjusted is not None and adjusted < _LEVEL)
    tested = sum(contest.p is not None for contest in against)
    for contest, adjusted in _adjusted(against):
        value = contest.values[contest.place][contest.metric]
        assert value is not None
        versus = _versus(contest, adjusted, tested)
        contest.values[contest.place][contest.metric] = replace(value, versus=versus)
    return _told(best, against)


@dataclass(frozen=True, slots=True)
class _Contest:
    """One comparison: of the row at `place` with another; `other` is None where there is none to compare with."""

    values: Values
    place: int
    other: int | None
    metric: str
    result: PairedResult | str

    @property
    def p(self) -> float | None:
        return None if isinstance(self.result, str) else self.result.p


def _contests(
    parts: Sequence[tuple[Sequence[Group], Values]],
    metrics: Sequence[str],
    directions: Directions,
    scores: PerExample,
) -> Iterator[_Contest]:
    """In each column of each part, the best against the next, of the values that are of all seeds."""
    for groups, values in parts:
        for metric in metrics:
            direction = directions.better(metric)
            known = [
                (value.mean, place)
                for place, row in enumerate(values)
                if (value := row.get(metric)) is not None and not value.counted
            ]
            if direction is None or len(known) < 2:
                continue
            sign = 1 if direction == "smaller" else -1
            (_, first), (_, second), *_ = sorted(known, key=lambda item: sign * item[0])  # stable
            result = scores.compared(groups[first], groups[second], metric)
            yield _Contest(values, first, second, metric, result)


def _differences(
    parts: Sequence[tuple[Sequence[Group], Values]], metrics: Sequence[str], scores: PerExample, reference: str
) -> Iterator[_Contest]:
    """Each row against that of the cell of reference which was asked in the same way."""
    for groups, values in parts:
        for place, group in enumerate(groups):
            found = reference_of(group, groups, reference)
            if found is None:
                continue
            other = None if isinstance(found, str) else list(groups).index(found)
            for metric in metrics:
                if values[place].get(metric) is None or (other is not None and values[other].get(metric) is None):
                    continue
                result = found if isinstance(found, str) else scores.compared(group, found, metric)
                yield _Contest(values, place, other, metric, result)


def _adjusted(contests: Sequence[_Contest]) -> Iterator[tuple[_Contest, float | None]]:
    tested = [contest for contest in contests if contest.p is not None]
    adjusted = dict(zip(map(id, tested), holm([contest.p for contest in tested if contest.p is not None]), strict=True))
    yield from ((contest, adjusted.get(id(contest))) for contest in contests)


def _versus(contest: _Contest, adjusted: float | None, tests: int) -> Versus:
    value = contest.values[contest.place][contest.metric]
    other = None if contest.other is None else contest.values[contest.other][contest.metric]
    assert value is not None
    if other is None or value.counted or other.counted:
        assert isinstance(contest.result, str)
        return Versus(None, None, None, None, contest.result)
    difference = value.mean - other.mean
    if isinstance(contest.result, str):
        return Versus(difference, None, None, None, contest.result)
    found = contest.result
    ci95 = found.ci95 if found.n >= FEWEST_EXAMPLES else None
    return Versus(difference, ci95, found.p, adjusted, found.note, found.effect, found.detectable_after(tests), found.n)


def _told(best: Sequence[_Contest], against: Sequence[_Contest]) -> Tests:
    contests = [*best, *against]
    results = [contest.result for contest in contests if not isinstance(contest.result, str)]
    reasons: dict[str, dict[str, None]] = {}
    for contest in contests:
        if isinstance(contest.result, str):
            reasons.setdefault(contest.result, {})[contest.metric] = None
    effects = [c.result.effect for c in against if not isinstance(c.result, str) and c.result.effect is not None]
    return Tests(
        family=sum(contest.p is not None for contest in best),
        versus=sum(contest.p is not None for contest in against),
        two_way=frozenset(result.test.startswith("t over") for result in results if result.p is not None),
        reasons={reason: tuple(metrics) for reason, metrics in reasons.items()},
        effects=(min(effects), max(effects)) if effects else None,
        notes=tuple(dict.fromkeys(part for result in results for part in result.note.split("; ") if part)),
    )


def value_of_group(group: Group, metric: str, scores: PerExample, *, intervals: bool = True) -> Value | None:
    """A metric of one cell: mean and deviation over seeds, and its interval over examples.

    Of a metric that is undefined in some seeds, the mean is that of the others, `counted` says so, and there is no
    interval (`results.seeds`). None where no seed has a value.
    """
    from results.statistics import over_seeds

    over = group.over(metric)
    spread = over_seeds(over.values)
    if spread is None:
        return None
    ci95 = None
    if intervals and group.first.n >= FEWEST_EXAMPLES and over.is_complete:
        if spread.n == 1:  # the protocol's own, as `molgraft score` shows it
            ci95 = group.first.score["metrics"][metric].get("ci95")
        elif (found := scores.interval(group, metric)) is not None:
            ci95 = found.ci95
    finite = ci95 is not None and all(bound is not None and math.isfinite(bound) for bound in ci95)
    shown = (float(ci95[0]), float(ci95[1])) if finite and ci95 else None
    return Value(spread.mean, spread.sd, spread.n, shown, counted=over.counted, lacking=over.why)
