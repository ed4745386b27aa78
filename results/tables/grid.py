"""A table as columns of written cells, which the forms lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from results.formats import NO_VALUE, bounds, decimals_of, number, probability
from results.statistics import Spread
from results.tables.model import Row, Table, Value

_NO_SHARE = frozenset({"mae", "rmse", "r2", "levenshtein", "name-levenshtein", "claims", "unchecked-rows"})
_FAILURES = frozenset({"nan", "oom", "disk", "killed", "error"})
_ARROWS = {"larger": "↑", "smaller": "↓", None: ""}


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one place.

    Args:
        text: the figure.
        below: what belongs to it, smaller: an interval, a count.
        more: what a form with room for it shows too; others leave it to the notes.
        bold: whether it is the best.
        sort: the number that it stands for; None where it stands for none.
    """

    text: str
    below: str = ""
    bold: bool = False
    sort: float | None = None
    more: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        return f"{self.text} {self.below}".strip()


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        name: by which a program finds it.
        heading: as it is shown, within `over`.
        over: what it has in common with its neighbours; empty where it stands alone.
        show: from a row to its cell.
    """

    name: str
    heading: str
    over: str
    show: Callable[[Row], Cell]


@dataclass(frozen=True, slots=True)
class Section:
    """The rows of one part."""

    title: str
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """All of a table but its caption and its notes."""

    columns: tuple[Column, ...]
    sections: tuple[Section, ...]


def grid_of(table: Table) -> Grid:
    """The written table; columns in which no row has anything are left out."""
    columns = tuple(_columns(table))
    sections = [
        Section(part.title, tuple(tuple(column.show(row) for column in columns) for row in part.rows))
        for part in table.parts
    ]
    return Grid(columns, tuple(sections))


def _columns(table: Table) -> Iterator[Column]:
    rows = table.rows
    yield Column("cell", "cell", "", lambda row: Cell(row.name + (" (external)" if row.external else "")))
    yield Column("seeds", "seeds", "", _seeds)
    # Of differences from the cell of reference, those of the first metric; of others a star says enough.
    reference = next((part.reference_name for part in table.parts if part.reference), None)
    first = next((name for name in table.metrics if any(row.metrics.get(name) is not None for row in rows)), None)
    for name in table.metrics:
        arrow = _ARROWS[table.directions.better(name)]
        yield from _metric_columns(name, arrow, rows, reference if name == first else None)
    if any(row.invalid for row in rows):
        yield Column("invalid", "invalid", "", _invalid)
    if any(row.reliance is not None for row in rows):
        yield Column("reliance", "reliance", "", _reliance)
    if any(row.loss is not None for row in rows):
        yield Column("validation loss", "validation loss", "", lambda row: _spread(row.loss, 3))
    if any(row.trained is not None for row in rows):
        yield Column("trained parameters", "trained parameters", "", _trained)
    seconds = [row.seconds.mean for row in rows if row.seconds is not None]
    if seconds:
        digits = 0 if min(seconds) >= 10 else 1
        yield Column("training seconds", "training seconds", "", lambda row: _spread(row.seconds, digits))


def _metric_columns(name: str, arrow: str, rows: Sequence[Row], reference: str | None) -> Iterator[Column]:
    values = [value for row in rows if (value := row.metrics.get(name)) is not None]
    # A published number has as many digits as ours, or the difference could not be checked by eye.
    printed = [row.published[name].value for row in rows if name in row.published]
    known = [*(value.mean for value in values), *printed]
    share = name not in _NO_SHARE and all(abs(value) <= 1 for value in known)
    digits = decimals_of(known, share=share)
    versus = reference is not None and any(value.versus for value in values)
    over = name if printed or versus else ""
    heading = f"{name} {arrow}".strip()
    yield Column(
        name, "ours" if printed else "value" if versus else heading, over and heading, partial(_value, name, digits)
    )
    if printed:
        yield Column(f"{name} published", "published", heading, partial(_published, name, digits))
        yield Column(f"{name} difference", "difference", heading, partial(_difference, name, digits))
    if versus:
        yield Column(f"{name} Δ", f"Δ to {reference}", heading, partial(_versus, name, digits))


def _seeds(row: Row) -> Cell:
    if row.external and not row.seeds:
        return Cell(NO_VALUE)
    states = [f"failed ({state})" if state in _FAILURES else state for state in row.states]
    unfinished = "".join(f", {count} {state}" for state, count in Counter(states).items())
    return Cell(f"{len(row.seeds)}{unfinished}", sort=len(row.seeds))


def _value(name: str, digits: int, row: Row) -> Cell:
    value = row.metrics.get(name)
    if value is None:
        return Cell(NO_VALUE)
    deviation = f" ± {number(value.sd, digits)}" if value.sd is not None else ""
    star = "*" if value.versus is not None and value.versus.is_significant else ""
    below = f"{bounds(value.ci95, digits)} {f'({value.counted})' if value.counted else ''}".strip()
    return Cell(f"{number(value.mean, digits)}{deviation}{star}", below, value.best, value.mean)


def _published(name: str, digits: int, row: Row) -> Cell:
    found = row.published.get(name)
    return Cell("") if found is None else Cell(found.text, sort=found.value)


def _difference(name: str, digits: int, row: Row) -> Cell:
    found = row.published.get(name)
    if found is None or found.difference is None:
        return Cell("")
    return Cell(number(found.difference, digits, sign=True), sort=found.difference)


def _versus(name: str, digits: int, row: Row) -> Cell:
    value = _of(row, name)
    found = value.versus if value is not None else None
    if found is None:
        return Cell("")
    below = f"{bounds(found.ci95, digits, sign=True)} {probability(found.adjusted)}".strip()
    effect = "" if found.effect is None else f"effect {number(found.effect, 2, sign=True)}"
    return Cell(number(found.difference, digits, sign=True), below, sort=found.difference, more=effect)


def _of(row: Row, name: str) -> Value | None:
    return row.metrics.get(name)


def _invalid(row: Row) -> Cell:
    if row.invalid is None:
        return Cell(NO_VALUE)
    return Cell(f"{row.invalid:.1f}".removesuffix(".0"), sort=row.invalid)


def _reliance(row: Row) -> Cell:
    found = row.reliance
    if found is None:
        return Cell(NO_VALUE)
    size = max(abs(found.mean), *(abs(bound) for bound in found.ci95 or (0.0,)))
    digits = 3 if size >= 0.0995 or size == 0 else 4
    seeds = f", {row.reliance_counted}" if row.reliance_counted else ""
    below = f"{bounds(found.ci95, digits, sign=True)} (n {found.n:,}{seeds})".strip()
    return Cell(number(found.mean, digits, sign=True), below, sort=found.mean)


def _spread(value: Spread | None, digits: int) -> Cell:
    if value is None:
        return Cell(NO_VALUE)
    deviation = f" ± {number(value.sd, digits)}" if value.sd is not None else ""
    return Cell(f"{number(value.mean, digits)}{deviation}", sort=value.mean)


def _trained(row: Row) -> Cell:
    return Cell(NO_VALUE) if row.trained is None else Cell(f"{row.trained:,}", sort=row.trained)
