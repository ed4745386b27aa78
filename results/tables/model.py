"""What a table holds, before it is written in any form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from results.formats import Bounds
from results.metrics import Directions
from results.statistics import Interval, Spread


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
        difference: of the means over seeds; None where one of them is not of all seeds, or there is no reference.
        ci95: over examples.
        p: of the paired test; None where there is none, and `note` says why.
        adjusted: p after Holm's correction over all such differences of the table.
        note: why there is no test, or what is to be known of it.
        effect: the difference in standard deviations of a single example's difference (Cohen's d_z); None without test.
        detectable: the difference that would have been found with 80% power, each test at its part of the level of 5%.
        n: examples of which both have a value.
    """

    difference: float | None
    ci95: Bounds | None
    p: float | None
    adjusted: float | None
    note: str = ""
    effect: float | None = None
    detectable: float | None = None
    n: int | None = None

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
        counted: `2 of 3 seeds` where it is undefined in some; such a value is never the best, and in no test.
        lacking: which seeds it is undefined in, and why; empty where it is in none.
    """

    mean: float
    sd: float | None
    n: int
    ci95: Bounds | None = None
    best: bool = False
    versus: Versus | None = None
    counted: str = ""
    lacking: str = ""


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
        reliance_counted: `2 of 3 seeds` where reliance was measured in some only.
        lacking: of metrics without any value, why.
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
    reliance_counted: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that may be compared with each other: scored by one protocol, on the same examples.

    Args:
        protocol: with its version.
        n: examples.
        examples: their identity.
        limited: whether they are a subset of the split.
        without: the examples that were left out since training data hold their molecules, in words; empty for none.
        reference: the cell that the others are compared with, by its alias; empty where there is none.
        reference_name: how that cell is called in the table.
    """

    protocol: str
    n: int
    examples: str
    limited: bool
    without: str
    rows: tuple[Row, ...]
    reference: str = ""
    reference_name: str = ""

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
        directions: which values of the metrics are better, as the runs declare it.
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
    directions: Directions = field(default_factory=Directions)

    @property
    def protocol(self) -> str:
        """Of the first part."""
        return self.parts[0].protocol

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of all parts."""
        return tuple(row for part in self.parts for row in part.rows)

    @property
    def differences_tested(self) -> int:
        """How many differences from the cell of reference have a test: the family of their Holm correction."""
        values = (value for row in self.rows for value in row.metrics.values())
        return sum(value is not None and value.versus is not None and value.versus.p is not None for value in values)
