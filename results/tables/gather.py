"""From runs to what stands in one row: answers of one cell's seeds to the same questions, scored in the same way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from results.runs import NothingScoredError, ResultsError, Run, decontaminated_of, evaluations_of, score_of
from results.seeds import OverRuns, over_runs
from results.settings import comparable

_ASKED = ("graph_input", "text_input", "prompt")
_NO_DECODING = frozenset({"batch_size"})
"""Of the settings of generation, what no answer depends on."""


@dataclass(frozen=True)
class Answer:
    """A run's scores for one way of asking, under one protocol.

    Args:
        run, entry: whose, and how it was asked.
        score: as `score_of` or `decontaminated_of` gives it.
    """

    run: Run
    entry: Mapping[str, Any]
    score: Mapping[str, Any]

    @property
    def n(self) -> int:
        """Examples that were scored."""
        return int(self.score.get("n", self.entry["n"]))

    @cached_property
    def comparable(self) -> tuple[str, ...]:
        """What answers must share to be compared: protocol, examples, and what the protocol's numbers depend on."""
        return comparable(self.entry, self.score)

    @cached_property
    def way(self) -> str:
        """How it was asked, whatever the model: graphs, prompt, texts and decoding; "" where nothing is known of it."""
        generation = self.entry.get("generation")
        decoding = {name: value for name, value in (generation or {}).items() if name not in _NO_DECODING}
        asked = {"generation": decoding, **{name: self.entry.get(name) for name in _ASKED}}
        return "" if generation is None else json.dumps(asked, sort_keys=True)

    @property
    def same(self) -> tuple[str, ...]:
        """What answers must share to be averaged: the cell and how it was asked too."""
        return (self.run.cell, str(self.entry["evaluation_id"]), *self.comparable)


@dataclass(frozen=True)
class Group:
    """The answers that one row stands for: those of one cell's seeds.

    Args:
        answers: at least one, by seed.
    """

    answers: tuple[Answer, ...]

    @property
    def first(self) -> Answer:
        """One of them, for what all share."""
        return self.answers[0]

    @cached_property
    def key(self) -> tuple[tuple[str, str], ...]:
        """What tells it from any other group: the scores of its runs."""
        return tuple((str(answer.run.folder), str(answer.score.get("score_id"))) for answer in self.answers)

    @cached_property
    def alias(self) -> str:
        """The name that most of its runs have; a cell may have been run under several."""
        counts = Counter(answer.run.name for answer in self.answers)
        return min(counts, key=lambda name: (-counts[name], name))

    @property
    def other_aliases(self) -> tuple[str, ...]:
        """The other names of its runs."""
        return tuple(sorted({answer.run.name for answer in self.answers} - {self.alias}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of its runs."""
        return tuple(answer.run.seed for answer in self.answers if answer.run.seed is not None)

    @property
    def way(self) -> str:
        """How it was asked, as `Answer.way`."""
        return self.first.way

    def over(self, metric: str) -> OverRuns:
        """The metric over all of its runs: in some it may be undefined."""
        return over_runs(self.answers, metric)

    def values(self, metric: str) -> list[float]:
        """The metric in each run that has it; `over` tells whether that is all of them."""
        return list(self.over(metric).values)


@dataclass(frozen=True)
class Gathered:
    """What there is for a table.

    Args:
        asked: task and data set, as `caption on bundled`.
        groups: by what makes rows comparable, the most important first.
        unanswered: runs without any such score, by cell.
    """

    asked: str
    groups: Mapping[tuple[str, ...], tuple[Group, ...]]
    unanswered: Mapping[str, tuple[Run, ...]]


def gather(
    runs: Sequence[Run], protocol: str, split: str = "test", task: str | None = None, data: str | None = None
) -> Gathered:
    """The answers of runs on a split under a protocol, grouped by cell, way of asking, examples and protocol.

    Two cells never share a group, whatever their aliases. Where a protocol is named without its version and runs were
    scored by several, the newest counts, and runs that lack it count as not scored.

    Args:
        runs: of one or several cells.
        protocol: name, with or without version.
        split: that was asked.
        task: whose answers; None where runs were asked one only.
        data: of which data set (or task); None where there is one only.

    Raises:
        ResultsError: no run was scored by the protocol on the split, or several tasks or data sets were.
    """
    asked = [
        (run, entry)
        for run in runs
        for entry in evaluations_of(run, split)
        if task in (None, entry["task"]) and data in (None, entry["data"], entry["task"])
    ]
    pairs = {f"{entry['task']}:{entry['data']}" for _, entry in asked}
    if len(pairs) > 1:
        raise ResultsError(
            f"the runs were asked {', '.join(sorted(pairs))}; a table has one of them: choose with --data or --task"
        )
    version = _newest(asked, protocol)
    if version is None:
        raise NothingScoredError(_nothing(runs, protocol, split, task or data))
    answers = list(_answers(asked, version))
    groups: dict[tuple[str, ...], list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.same, []).append(answer)
    apart: dict[tuple[str, ...], list[Group]] = {}
    for members in groups.values():
        apart.setdefault(members[0].comparable, []).append(Group(tuple(members)))
    ordered = sorted(apart.items(), key=lambda item: _importance(item[1]))
    _, entry = asked[0]
    return Gathered(
        asked=f"{entry['task']} on {entry['data']}",
        groups={key: tuple(found) for key, found in ordered},
        unanswered=_unanswered(runs, answers),
    )


def _answers(asked: Iterable[tuple[Run, Mapping[str, Any]]], protocol: str) -> Iterator[Answer]:
    for run, entry in asked:
        if (score := score_of(entry, protocol)) is not None:
            yield Answer(run, entry, score)
        for score in decontaminated_of(entry, protocol):
            yield Answer(run, entry, score)


def _importance(groups: Sequence[Group]) -> tuple[Any, ...]:
    """Whole test sets before decontaminated ones before limited ones; then where most runs are."""
    first = groups[0].first
    return (
        first.entry["limited"],
        first.score.get("without") is not None,
        -sum(len(group.answers) for group in groups),
        -first.n,
        first.comparable,
    )


def _newest(asked: Iterable[tuple[Run, Mapping[str, Any]]], protocol: str) -> str | None:
    known = {
        score["protocol"]
        for _, entry in asked
        for score in (*entry.get("scores", ()), *entry.get("decontaminated", ()))
        if protocol in (score["protocol"], score["protocol"].partition("@")[0])
    }
    return max(known, key=_version, default=None)


def _version(protocol: str) -> tuple[int, str]:
    version = protocol.partition("@")[2]
    return int(version) if version.isdigit() else 0, protocol


def _nothing(runs: Sequence[Run], protocol: str, split: str, asked: str | None) -> str:
    entries = [entry for run in runs for entry in run.summary.get("evaluations", ())]
    here = [entry for entry in entries if entry["split"] == split]
    known = sorted({score["protocol"] for entry in here for score in entry["scores"]})
    about = f" of {asked}" if asked is not None else ""
    message = (
        f"no run was scored by protocol {protocol!r} on the {split} split{about}; there are scores by "
        f"{', '.join(known) or 'none'}"
    )
    if asked is not None and here:
        tasks = sorted({f"{entry['task']} on {entry['data']}" for entry in here})
        return f"{message}; asked were {', '.join(tasks)}"
    others = sorted({entry["split"] for entry in entries} - {split})
    return f"{message}; scored were answers on the {' and '.join(others)} split" if others else message


def _unanswered(runs: Sequence[Run], answers: Sequence[Answer]) -> dict[str, tuple[Run, ...]]:
    answered = {answer.run.folder for answer in answers}
    left: dict[str, list[Run]] = {}
    for run in runs:
        if run.folder not in answered:
            left.setdefault(run.cell, []).append(run)
    return {cell: tuple(members) for cell, members in left.items()}
