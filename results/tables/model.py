"""What a table holds, before it is written in any form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from results.statistics import Interval, Spread

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Published:
    """A published number beside ours.

    Args:
        value: on our scale.
        text: with the digits that the paper gives, and a mark behind it unless it is verified.
        difference: ours less the published one; None where there is none of ours.
    """

    value: float
    text: str
    difference: float | None


@dataclass(frozen=True, slots=True)
class Versus:
    """A cell's difference from the cell of reference: its value less the reference's, on the same examples.

    Args:
        difference: of the means over seeds.
        ci95: over examples.
        p: of the paired permutation test; None where there is none, and `note` says why.
        adjusted: p after Holm's correction over all such differences of the table.
        note: why there is no test, or what is to be known of it.
    """

    difference: float
    ci95: Bounds | None
    p: float | None
    adjusted: float | None
    note: str = ""

    @property
    def is_significant(self) -> bool:
        """At 5%, after correction."""
        return self.adjusted is not None and self.adjusted < 0.05


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of one cell.

    Args:
        mean: over its seeds.
        sd: sample standard deviation over seeds (ddof 1); None below 3 of them.
        n: seeds.
        ci95: over examples, of the mean over these seeds; None where it is not known.
        best: whether it is significantly better than the next best.
        versus: its difference from the cell of reference.
    """

    mean: float
    sd: float | None
    n: int
    ci95: Bounds | None = None
    best: bool = False
    versus: Versus | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One cell, asked in one way.

    Args:
        name: as it is shown.
        cell: its alias.
        seeds: the seeds of its finished runs.
        metrics: by name; None where no run has a value.
        loss: validation loss of the weights that were scored, nats per token.
        reliance: gain of the gold answer's log-likelihood from its own graph, nats per token; None where not measured.
        trained: trained parameters; None where nothing is known of them.
        seconds: training time, wherever a stage was trained.
        invalid: answers that could not be parsed, mean over seeds.
        states: how its unfinished runs stand.
        external: whether these are another system's predictions.
        published: published numbers of this cell, by metric.
    """

    name: str
    cell: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Value | None]
    loss: Spread | None
    reliance: Interval | None
    trained: int | None
    seconds: Spread | None
    invalid: float | None
    states: tuple[str, ...]
    external: bool = False
    published: Mapping[str, Published] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that may be compared with each other: scored by one protocol, on the same examples.

    Args:
        protocol: with its version.
        n: examples.
        examples: their identity.
        limited: whether they are a subset of the split.
        without: the training data whose molecules were left out, in words; empty where none were.
        reference: the cell that the others are compared with; empty where there is none.
        tests: how many tests of the best against the next Holm's correction is over.
    """

    protocol: str
    n: int
    examples: str
    limited: bool
    without: str
    rows: tuple[Row, ...]
    reference: str = ""

    @property
    def title(self) -> str:
        """What its rows have in common."""
        count = f"{self.n:,} example{'' if self.n == 1 else 's'}"
        limited = " (LIMITED: a subset of the split)" if self.limited else ""
        return f"protocol {self.protocol}, {count}{limited}{self.without and f', without {self.without}'}"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that were asked the same.

    Args:
        title: in words; may be empty.
        asked: task and data set.
        split: that was asked.
        metrics: the columns.
        parts: sets of rows that are comparable; the first is the one that matters.
        notes: what has to be known to read it.
        name: of its files.
        task, data: what `asked` is made of.
    """

    title: str
    asked: str
    split: str
    metrics: tuple[str, ...]
    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    name: str = "table"
    task: str = ""
    data: str = ""

    @property
    def protocol(self) -> str:
        """Of the first part."""
        return self.parts[0].protocol

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of all parts."""
        return tuple(row for part in self.parts for row in part.rows)
