"""Published numbers, to stand beside ours: which there are, one of them, and why it may not compare.

The files are `results/published/*.yaml` (docs/published.md). No number without its protocol, its source and its status:
whoever shows one shows `PublishedFigure.mark` behind it, and `legend` below the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from results.published_files import read_published
from results.published_table import (
    KINDS,
    STATUSES,
    Direction,
    Kind,
    PublishedError,
    PublishedFigure,
    PublishedMetric,
    PublishedRow,
    PublishedTable,
    Status,
    legend,
    unknown,
)

__all__ = [
    "KINDS",
    "STATUSES",
    "Direction",
    "Kind",
    "PublishedError",
    "PublishedFigure",
    "PublishedMetric",
    "PublishedRow",
    "PublishedTable",
    "Status",
    "columns_for",
    "differences",
    "figure",
    "has_figure",
    "legend",
    "listing",
    "published",
    "published_files",
    "published_tables",
    "read_published",
]


def published_files() -> dict[str, Path]:
    """The files that ship with molgraft, by name."""
    folder = Path(str(resources.files("results"))) / "published"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def published_tables() -> list[PublishedTable]:
    """All tables, by file and as they stand there."""
    return [table for path in published_files().values() for table in _read(path)]


def published(identity: str) -> PublishedTable:
    """A table by its identity, as `llamo/table4`.

    Raises:
        PublishedError: there is no such table; with those that there are.
    """
    # One file is read, not all of them, where the name is right.
    path = published_files().get(identity.partition("/")[0])
    found = {table.id: table for table in (_read(path) if path else ())}
    if identity not in found:
        raise PublishedError(unknown("published table", identity, [table.id for table in published_tables()]))
    return found[identity]


def columns_for(
    table: PublishedTable, metric: str, *, task: str | None = None, dataset: str | None = None
) -> list[PublishedMetric]:
    """The columns of a table that hold a metric.

    Args:
        table: where to look.
        metric: `bleu-4`, `mae:homo`, or the key of a column (`caption/bleu-4`).
        task: molgraft's task; columns of others are left out.
        dataset: molgraft's data set: where several columns are left, those of this set. A paper's set that molgraft
            does not have is none that could be asked for, so that a single column counts whatever its set;
            `differences` tells it.
    """
    found = [column for column in table.metrics if metric in (column.name, column.key)]
    if task is not None:
        found = [column for column in found if column.task == task]
    if len(found) > 1 and dataset is not None:
        found = [column for column in found if column.dataset == dataset]
    return found


def has_figure(identity: str, row: str, metric: str, *, task: str | None = None, dataset: str | None = None) -> bool:
    """Whether `figure` would find a column, and one only, in which the row has a number.

    Raises:
        PublishedError: there is no such table or row.
    """
    table = published(identity)
    columns = columns_for(table, metric, task=task, dataset=dataset)
    figures = table.row(row).figures
    found = [figures.get(column.key) for column in columns]
    return len(found) == 1 and found[0] is not None and found[0].value is not None


def figure(
    identity: str, row: str, metric: str, *, task: str | None = None, dataset: str | None = None
) -> PublishedFigure:
    """One number.

    Args:
        identity: the table's.
        row: the row's name.
        metric: as for `columns_for`, as the two others are.

    Raises:
        PublishedError: there is no such table, row or column, the row has no cell in it, or several columns are meant.
    """
    table = published(identity)
    figures = table.row(row).figures
    columns = columns_for(table, metric, task=task, dataset=dataset)
    asked = " ".join(filter(None, (metric, task and f"of {task}", dataset and f"on {dataset}")))
    if len(columns) > 1:
        keys = ", ".join(column.key for column in columns)
        raise PublishedError(f"{identity}: {asked}: several columns hold it: {keys}; name one of them")
    if not columns or columns[0].key not in figures:
        raise PublishedError(unknown(f"{identity}: {row}:", asked, list(figures)))
    return figures[columns[0].key]


def differences(
    number: PublishedFigure,
    *,
    dataset: str | None = None,
    split: str | None = None,
    n: int | None = None,
    protocol: str | None = None,
) -> tuple[str, ...]:
    """Why a published number does not compare with ours, a clause each; empty where nothing is known to differ.

    Args:
        number: the published one.
        dataset: ours, as the three others; None for what shall not be looked at.
        protocol: ours, with or without its version.
    """
    column = number.column
    found = []
    if dataset is not None and column.dataset != dataset:
        found.append(f"published on {column.data}, ours on {dataset}")
    elif dataset is not None and not column.same_examples:
        found.append(f"the published examples of {column.data} are not those of {dataset}")
    if split is not None and column.split != split:
        found.append(f"published on the {column.split} split, ours on {split}")
    if n is not None and column.n is not None and column.n != n:
        found.append(f"published over {column.n:,} examples, ours over {n:,}")
    if protocol is not None:
        ours = protocol.partition("@")[0]
        if number.protocol is None:
            found.append(f"the protocol of the published number is not known ({column.protocol_note})")
        elif number.protocol != ours:
            found.append(f"published under a protocol like {number.protocol}, ours under {ours}")
        if column.outside:
            found.append(column.outside)
    return tuple(found)


def listing() -> list[dict[str, Any]]:
    """Every table in a line: its name, what it is, what can be compared with it, and how sure its numbers are."""
    return [
        {
            "name": table.id,
            "summary": f"{table.caption} [{table.status}]",
            "status": table.status,
            "kind": table.kind,
            "tasks": _each(column.task for column in table.metrics),
            "datasets": _each(column.dataset for column in table.metrics),
            "protocols": _each(column.protocol for column in table.metrics),
            "columns": [column.key for column in table.metrics],
            "rows": [row.name for row in table.rows],
        }
        for table in published_tables()
    ]


def _each(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


@lru_cache
def _read(path: Path) -> tuple[PublishedTable, ...]:
    return read_published(path)
