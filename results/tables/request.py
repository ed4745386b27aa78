"""What a study wants its table to show, as its file says under `table:` (or `tables:`) and its plan keeps it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from results.runs import ResultsError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_LISTS = ("protocols", "metrics", "cells", "notes")


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """How one cell is shown.

    Args:
        label: its name in the table; None for its alias.
        published: the row of the published table beside which it stands; None for none.
    """

    label: str | None = None
    published: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """One table of a study.

    Args:
        name: of the table's files, where a study has several; None for the task and data set that it shows.
        title: what the table is, in words; it begins the caption.
        task: whose answers; None where the runs are asked only one.
        data: of which data set; None where there is only one.
        split: the split that was asked.
        protocols: protocols that get a part each, the most important first; published numbers stand beside ours by the
            one that is nearest to theirs, or else by the first.
        metrics: columns, in this order; none for all that the protocol has and a table shows.
        cells: which cells it shows, in this order; none for all that are asked the task.
        reference: the cell that all others are compared with; None for the best one.
        rows: how single cells are shown, by alias; cells that are not here are shown all the same, under their aliases.
        published: identity of the table that the numbers stand beside, as `llamo/table4`.
        notes: every deviation of recipe and protocol from the published table, a sentence each.
    """

    name: str | None = None
    title: str = ""
    task: str | None = None
    data: str | None = None
    split: str = "test"
    protocols: tuple[str, ...] = ("strict",)
    metrics: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    reference: str | None = None
    rows: dict[str, RowRequest] = field(default_factory=dict)
    published: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.name is not None and _NAME.fullmatch(self.name) is None:
            raise ResultsError(f"name is {self.name!r}; files are named by it: small letters, digits, `. _ -`")
        if not self.protocols:
            raise ResultsError("protocols is empty; a table needs one, as strict")
        for setting in ("protocols", "metrics", "cells"):
            values = getattr(self, setting)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ResultsError(f"{setting} has {twice!r} twice")
        if self.published is None:
            named = next((cell for cell, row in self.rows.items() if row.published is not None), None)
            if named is not None:
                raise ResultsError(
                    f"rows.{named}.published names a row, and the table has no `published` that it would be a row of"
                )

    @property
    def published_rows(self) -> dict[str, str]:
        """Rows of the published table, by the cell that stands beside each."""
        return {cell: row.published for cell, row in self.rows.items() if row.published is not None}

    def label_of(self, cell: str) -> str:
        """A cell's name in the table."""
        row = self.rows.get(cell)
        return row.label if row is not None and row.label is not None else cell

    def to_mapping(self) -> dict[str, Any]:
        """Plain values, as JSON and YAML have them; `from_mapping` reads them back."""
        mapping = asdict(self)
        return {**mapping, **{key: list(mapping[key]) for key in _LISTS}}

    @classmethod
    def from_mapping(cls, written: Mapping[str, Any]) -> TableRequest:
        """A request as a plan or a packed study keeps it.

        Raises:
            ResultsError: a key is unknown, or a value cannot be used.
        """
        _refuse_unknown(written, [f.name for f in fields(cls)], "table")
        values = dict(written)
        for key in _LISTS:
            if key in values:
                values[key] = _texts(values[key], key)
        rows = values.get("rows") or {}
        if not isinstance(rows, Mapping):
            raise ResultsError(f"table.rows is {rows!r}, where cells with their rows are expected")
        values["rows"] = {str(cell): _row(row, f"table.rows.{cell}") for cell, row in rows.items()}
        return cls(**values)


def check_request(request: TableRequest, cells: Collection[str]) -> None:
    """Stops where a request names what there is not: a cell of the study, a published table, a row of it or a metric.

    Args:
        request: of a study's table.
        cells: aliases of all cells of the study.

    Raises:
        ResultsError: with what there is.
    """
    if request.reference is not None:
        _known(request.reference, cells, "reference", "is no cell")
    for setting in ("cells", "rows"):
        for cell in getattr(request, setting):
            _known(cell, cells, setting, "is no cell")
    if request.published is None:
        return
    from results.published import PublishedError, published

    try:
        table = published(request.published)
        for name in request.published_rows.values():
            table.row(name)
    except PublishedError as error:
        raise ResultsError(f"published: {error}") from None


def _row(written: object, path: str) -> RowRequest:
    if not isinstance(written, Mapping):
        raise ResultsError(f"{path} is {written!r}, where {{label: ..., published: ...}} is expected")
    _refuse_unknown(written, [f.name for f in fields(RowRequest)], path)
    return RowRequest(**written)


def _texts(value: object, key: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise ResultsError(f"table.{key} is {value!r}, where a list of texts is expected")
    return tuple(value)


def _refuse_unknown(written: Mapping[str, Any], known: Collection[str], path: str) -> None:
    for key in written:
        _known(str(key), known, path, "is no setting")


def _known(name: str, known: Collection[str], path: str, what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise ResultsError(f"{path}: {name!r} {what}.{suggestion} There are: {', '.join(known) or 'none'}.")
