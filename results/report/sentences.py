"""Statistics in words: what was found, how sure it is, and what could not have been found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.formats import counted, interval, plain, probability, signed

LEVEL = 0.05
"""Two-sided, after Holm's correction."""

_FEW_SEEDS = 3
_MOST_NAMED = 3
"""Cells that the answer names one by one; the others are in the list below it."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two cells on the same examples, by one metric.

    Args:
        cell, other: their names; the difference is the first's value less the second's. The second is the one that all
            are compared with.
        metric: by which they are compared.
        smaller_is_better: whether a negative difference is good.
        difference: None where the two cannot be compared.
        ci95: its interval.
        p: of the paired test, corrected.
        n: examples.
        seeds: of both.
        detectable: the difference that would have been found with 80% power, at 5% after correction.
        test: how p was made.
        reason: why they cannot be compared, or what limits the comparison.
        correction: for how many tests; empty for a single one.
    """

    cell: str
    other: str
    metric: str
    smaller_is_better: bool
    difference: float | None
    ci95: tuple[float, float] | None
    p: float | None
    n: int
    seeds: tuple[int, int]
    detectable: float | None
    test: str = ""
    reason: str = ""
    correction: str = ""

    @property
    def is_over_seeds(self) -> bool:
        """Whether the test is about training again too, and not about these trained models only."""
        return self.test.startswith("t over")

    @property
    def is_shown(self) -> bool:
        """Whether there is a difference beyond chance."""
        return self.p is not None and self.p < LEVEL and self.difference is not None

    @property
    def is_better(self) -> bool:
        """Whether the first cell is the better one, by the numbers alone."""
        return self.difference is not None and (self.difference < 0) == self.smaller_is_better and self.difference != 0


@dataclass(frozen=True, slots=True)
class Standing:
    """A cell's value of the metric that decides.

    Args:
        cell: its name.
        value: mean over seeds.
        ci95: its interval over examples, where it is known.
        n: examples.
        seeds: over which the mean is.
        counted: `2 of 3 seeds` where the metric is undefined in some; such a cell is never the best, and not tested.
        lacking: in which, and why.
    """

    cell: str
    value: float
    ci95: tuple[float, float] | None
    n: int
    seeds: int
    counted: str = ""
    lacking: str = ""


def answer(standings: Sequence[Standing], compared: Sequence[Compared], *, reference: str | None, metric: str) -> str:
    """What a study found, in one or two sentences.

    Args:
        standings: of all cells that have a value, best first.
        compared: each cell with the one that all are compared with.
        reference: the cell that the study named for this; None where it is the best one.
        metric: that decides.
    """
    if not standings:
        return "There is no answer yet: no run of the study has a score."
    best = standings[0]
    if len(standings) == 1:
        return (
            f"There is nothing to compare: only {quoted(best.cell)} has a score, {metric} {level(best)}, {_size(best)}."
        )
    if best.counted:
        return f"Nothing can be said: no cell has {metric} in all of its seeds."
    if _is_tie(compared):
        both = "Both cells have" if len(standings) == 2 else f"All {len(standings)} cells have"
        return f"{both} the same {metric}, {level(best)} ({_size(best)}): by it nothing tells them apart."
    if len(compared) == 1:
        return comparison(compared[0])
    testable = [item for item in compared if item.p is not None]
    if not testable:
        return (
            f"Nothing can be said beyond the numbers: {quoted(best.cell)} has the best {metric} ({level(best)}), and "
            f"no two cells could be tested against each other{_why(compared)}."
        )
    if reference is None:
        return _against_best(best, testable, len(compared), metric)
    return _against_reference(reference, testable, len(compared), metric)


def comparison(item: Compared) -> str:
    """Two cells in one sentence."""
    if item.difference is None or item.p is None:
        found = "" if item.difference is None else f" ({signed(item.difference)} in {item.metric})"
        return f"{quoted(item.cell)} and {quoted(item.other)} could not be tested{found}{_why([item])}."
    if not item.is_shown:
        return (
            f"No difference between {quoted(item.cell)} and {quoted(item.other)} in {item.metric} could be shown "
            f"({evidence(item)}){_power([item])}."
        )
    direction = "better" if item.is_better else "worse"
    return f"{quoted(item.cell)} is {direction} than {quoted(item.other)} in {item.metric}: {evidence(item)}."


def evidence(item: Compared) -> str:
    """Difference, interval, p, examples and seeds."""
    parts = [] if item.difference is None else [signed(item.difference)]
    if item.ci95 is not None:
        parts.append(interval(item.ci95, sign=True))
    if item.p is not None:
        parts.append(_corrected(item))
    parts.append(f"{counted(item.n, 'example')}")
    parts.append(_seeds(item.seeds))
    return ", ".join(parts)


def caveats(
    standings: Sequence[Standing],
    compared: Sequence[Compared],
    *,
    reference: str | None,
    split: str,
    limited: int | None,
    missing: int,
) -> list[str]:
    """What the answer does not say, as a reviewer would ask it.

    Args:
        standings, compared, reference: as for `answer`.
        split: that was asked.
        limited: how many examples of the split were asked, where not all were.
        missing: runs that have no score.
    """
    found = []
    partial = [standing for standing in standings if standing.counted]
    if partial:
        named = listed([f"{quoted(standing.cell)} ({standing.counted}; {standing.lacking})" for standing in partial])
        found.append(
            f"Without a value in some of their seeds: {named}. What is shown of such a cell is the mean of the others; "
            "it is not ranked and in no test."
        )
    asked = max((standing.n for standing in standings), default=0)
    used = sorted({item.n for item in compared if item.n < asked})
    if used:
        count = f"{used[0]:,}" if len(used) == 1 else f"{used[0]:,} to {used[-1]:,}"
        found.append(
            f"Only {count} of {counted(asked, 'example')} have a value in both cells that are compared (answers that "
            "could not be read have none): a cell that answers fewer is not thereby better."
        )
    if limited is not None:
        found.append(f"Only {counted(limited, 'example')} of the {split} split were asked.")
    if split != "test":
        found.append(f"These are answers on the {split} split, by which something may have been selected.")
    if _is_tie(compared):
        pass  # nothing was chosen, and there is no p to explain
    elif any(item.p is not None and not item.is_over_seeds for item in compared):
        few = [standing for standing in standings if standing.seeds < _FEW_SEEDS]
        found.append(
            "p-values and intervals are about these trained models on other examples, not about training again"
            + (f": that takes {_FEW_SEEDS} seeds of each cell." if few else ".")
        )
    if reference is None and len(standings) > 2 and not _is_tie(compared):
        found.append(
            "The study names no cell to compare with, so all are compared with the one that came out best. It was "
            "found by the same numbers, so that its own value is flattered, and p is corrected for all pairs of cells."
        )
    if missing:
        found.append(f"{counted(missing, 'run')} of the study {'has' if missing == 1 else 'have'} no score.")
    return found


def quoted(name: str) -> str:
    """A cell's name within a sentence."""
    return f"“{name}”"


def level(standing: Standing) -> str:
    """A value with its interval over examples."""
    if standing.ci95 is None:
        return plain(standing.value)
    return f"{plain(standing.value)}, {interval(standing.ci95)}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_tie(compared: Sequence[Compared]) -> bool:
    """Whether all cells have exactly the same value."""
    return bool(compared) and all(item.difference == 0 for item in compared)


def _against_reference(reference: str, testable: Sequence[Compared], n: int, metric: str) -> str:
    shown = [item for item in testable if item.is_shown]
    same = [item for item in testable if not item.is_shown]
    if not shown:
        return (
            f"No difference between {quoted(reference)} and any of {counted(n, 'other cell')} in {metric} could be "
            f"shown{_smallest_p(testable)}{_power(same)}.{_untested(n, testable)}"
        )
    better = sorted((item for item in shown if item.is_better), key=_size_of, reverse=True)
    worse = sorted((item for item in shown if not item.is_better), key=_size_of, reverse=True)
    parts = []
    if better:
        parts.append(f"{_named(better)} {_is_or_are(better)} better than {quoted(reference)} in {metric}")
    if worse:
        than = "" if better else f" than {quoted(reference)} in {metric}"
        parts.append(f"{_named(worse)} {_is_or_are(worse)} worse{than}")
    text = "; ".join(parts)
    if same:
        rest = quoted(same[0].cell) if len(same) == 1 else f"the other {len(same)}"
        text += f"; for {rest} no difference could be shown{_power(same)}"
    return f"{text[0].upper()}{text[1:]}.{_untested(n, testable)}"


def _against_best(best: Standing, testable: Sequence[Compared], n: int, metric: str) -> str:
    beaten = [item for item in testable if item.is_shown]
    level_with = [item for item in testable if not item.is_shown]
    head = f"{quoted(best.cell)} has the best {metric} ({level(best)}; {_size(best)})"
    if not beaten:
        return (
            f"{head}, and no difference from any of {counted(n, 'other cell')} could be shown"
            f"{_smallest_p(testable)}{_power(level_with)}.{_untested(n, testable)}"
        )
    if not level_with:
        closest = min(beaten, key=_size_of)
        others = f"all {n} others" if len(testable) == n else f"the {len(testable)} others that could be tested"
        return (
            f"{head} and is better than {others}; the closest is {quoted(closest.cell)} ({evidence(closest)})."
            f"{_untested(n, testable)}"
        )
    closest_names = [quoted(item.cell) for item in level_with]
    rest = listed(closest_names) if len(closest_names) <= _MOST_NAMED else f"{len(closest_names)} of them"
    return (
        f"{head}. It is better than {len(beaten)} of {counted(n, 'other cell')}{_in_brackets(beaten)}; from {rest} "
        f"no difference could be shown{_power(level_with)}.{_untested(n, testable)}"
    )


def _named(items: Sequence[Compared]) -> str:
    """Cells with the evidence for each, as many as a sentence bears."""
    named = [f"{quoted(item.cell)} ({evidence(item)})" for item in items[:_MOST_NAMED]]
    left = len(items) - len(named)
    return listed([*named, f"{left} more"] if left else named)


def _corrected(item: Compared) -> str:
    """p with what it was corrected for."""
    return f"{probability(item.p)}{_by([item])}"


def _in_brackets(items: Sequence[Compared]) -> str:
    by = _by(items).strip()
    return f" (p {by})" if by else ""


def _by(items: Sequence[Compared]) -> str:
    correction = next((item.correction for item in items if item.correction), "")
    if not correction:
        return ""
    return " after Holm" if correction.startswith("Holm") else f" corrected {correction}"


def _is_or_are(items: Sequence[Compared]) -> str:
    return "is" if len(items) == 1 else "are"


def _smallest_p(items: Sequence[Compared]) -> str:
    smallest = min(items, key=lambda item: 1.0 if item.p is None else item.p)
    return f" (smallest {_corrected(smallest)}, {counted(smallest.n, 'example')}, {_seeds(smallest.seeds)})"


def _power(items: Sequence[Compared]) -> str:
    """Which difference would have been found; without it, that none was found says nothing."""
    known = sorted(item.detectable for item in items if item.detectable is not None and item.detectable > 0)
    if not known:
        return ""
    low, high = plain(known[0]), plain(known[-1])
    size = low if low == high else f"{low} to {high}, depending on the pair,"
    return f"; differences larger than {size} would have been found with 80% power"


def _untested(n: int, testable: Sequence[Compared]) -> str:
    left = n - len(testable)
    return f" {counted(left, 'cell')} could not be tested." if left else ""


def _why(items: Sequence[Compared]) -> str:
    reasons = list(dict.fromkeys(item.reason for item in items if item.reason))
    return f": {'; '.join(reasons)}" if reasons else ""


def _size_of(item: Compared) -> float:
    return abs(item.difference or 0.0)


def _size(standing: Standing) -> str:
    return f"{counted(standing.n, 'example')}, {standing.counted or counted(standing.seeds, 'seed')}"


def _seeds(seeds: tuple[int, int]) -> str:
    first, second = seeds
    if first == second:
        return f"{counted(first, 'seed')} each"
    return f"{first} and {counted(second, 'seed')}"
