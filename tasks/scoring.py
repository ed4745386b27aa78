"""Scores a file of predictions from any system: what `molgraft score FILE` does, as a library.

>>> score_file("predictions.tsv", "caption", [MolT5()], prediction_column="output", reference_column="ground truth")
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.base import AnswerKind, Estimate, ScoreTable, TaskError
from tasks.metrics.base import Protocol, RowFacts
from tasks.table_files import Table, clipped, read_table

# Names that the files of published systems and of molgraft use, tried where the user names no column.
PREDICTION_COLUMNS = ("prediction", "output", "text", "generated", "pred", "predicted", "answer")
REFERENCE_COLUMNS = ("reference", "ground truth", "description", "caption", "target", "gold", "label")
MOLECULE_COLUMNS = ("smiles", "molecule", "molecules")


@dataclass(frozen=True)
class Pairing:
    """Predictions beside references, in the order of the file of predictions.

    Args:
        predictions: None where the file says `null`.
        references: as many.
        facts: what else the columns say of each row.
        lines: on which each row of the file of predictions begins.
    """

    predictions: list[str | None]
    references: list[str]
    facts: RowFacts = field(default_factory=RowFacts)
    lines: Sequence[int] = ()

    def where(self, kept: Sequence[bool]) -> Pairing:
        """The rows that are kept."""
        rows = [row for row, is_kept in enumerate(kept) if is_kept]
        return Pairing(
            [self.predictions[row] for row in rows],
            [self.references[row] for row in rows],
            self.facts.of(rows),
            [self.lines[row] for row in rows] if self.lines else (),
        )


def pair(
    predictions: Table,
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    reference: Table | None = None,
    join: str | None = None,
    molecule_column: str | None = None,
    probability_column: str | None = None,
    group_column: str | None = None,
) -> Pairing:
    """Sets each prediction beside its reference: of the same row, or of the row of `reference` with the same key.

    Args:
        predictions: the table with the predictions and, without `reference`, the references too.
        prediction_column: by default the only column that is named as predictions usually are.
        reference_column: likewise; a column of `reference` where that is given.
        reference: a table with the references.
        join: the column of both tables that says which rows belong together; spaces around a key do not count.
        molecule_column: the SMILES that each row asks about; by default the only column that is named so, if any.
        probability_column: of the positive label, for classification.
        group_column: the part of the data over which metrics are averaged, such as an assay.

    Raises:
        TaskError: a column is missing or cannot be guessed, a reference is null, a probability is none, `join` and
            `reference` do not come together, or a key is missing on one side or stands twice.
    """
    if (reference is None) != (join is None):
        raise TaskError("a reference file and the column to join on (--reference FILE --join COLUMN) go together")
    answers = predictions.column(_column_name(predictions, prediction_column, PREDICTION_COLUMNS, "prediction"))
    gold_table = predictions if reference is None else reference
    gold = _complete(gold_table, _column_name(gold_table, reference_column, REFERENCE_COLUMNS, "reference"))
    named = (molecule_column, probability_column, group_column)
    if reference is None or join is None:
        return Pairing(answers, gold, _facts(predictions, *named), predictions.lines)

    rows, gold_rows = _rows_by_key(predictions, join), _rows_by_key(reference, join)
    _require_all(rows, gold_rows, join, f"{predictions.path} has rows that {reference.path} lacks")
    _require_all(gold_rows, rows, join, f"{reference.path} has rows that {predictions.path} lacks")
    order = [gold_rows[key] for key in rows]
    # What is known of a row may stand in either file; where in both, the one with the predictions is nearer.
    own, others = (
        _facts(predictions, *(_present(predictions, name) for name in named)),
        _facts(gold_table, *(None if _present(predictions, name) else name for name in named)).of(order),
    )
    facts = RowFacts(
        own.molecules or others.molecules, own.probabilities or others.probabilities, own.groups or others.groups
    )
    return Pairing(answers, [gold[row] for row in order], facts, predictions.lines)


def score_file(
    path: str | Path,
    kind: AnswerKind,
    protocols: Sequence[Protocol],
    *,
    prediction_column: str | None = None,
    reference_column: str | None = None,
    reference_file: str | Path | None = None,
    join: str | None = None,
) -> list[ScoreTable]:
    """Scores a TSV, CSV or JSONL file, plain or gzipped, under each of `protocols`; columns as in `pair`.

    Raises:
        TaskError: a file or a column of it cannot be used, or a protocol does not score `kind`.
    """
    pairing = pair(
        read_table(path),
        prediction_column=prediction_column,
        reference_column=reference_column,
        reference=None if reference_file is None else read_table(reference_file),
        join=join,
    )
    return [table for table, _ in timed_scores(pairing, kind, protocols)]


def timed_scores(
    pairing: Pairing, kind: AnswerKind, protocols: Sequence[Protocol]
) -> Iterator[tuple[ScoreTable, float]]:
    """Each protocol's scores and the wall seconds that they took, as they become known.

    Raises:
        TaskError: as `Protocol.score`.
    """
    for protocol in protocols:
        started = time.perf_counter()
        table = protocol.score(kind, pairing.predictions, pairing.references, pairing.facts)
        yield table, time.perf_counter() - started


def rows_csv(pairing: Pairing, tables: Sequence[ScoreTable]) -> str:
    """Every row with its value of each metric that rows have, and why it is invalid where it is, as CSV.

    Columns: `line` of the file of predictions, `prediction`, `reference`, then `PROTOCOL METRIC` for each metric and
    `PROTOCOL invalid`. What a protocol leaves out, and what has no value, is empty.
    """
    columns: dict[str, Sequence[Any]] = {}
    for table in tables:
        for name, estimate in table.metrics.items():
            if estimate.per_example is not None:
                columns[f"{table.protocol} {name}"] = estimate.per_example
        columns[f"{table.protocol} invalid"] = [table.invalid.get(row, "") for row in range(table.n)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("line", "prediction", "reference", *columns))
    writer.writerows(zip(pairing.lines, pairing.predictions, pairing.references, *columns.values(), strict=True))
    return text.getvalue()


def to_json(table: ScoreTable, seconds: float) -> dict[str, Any]:
    """The object that `molgraft score --json` prints; `protocol` is the name as given, without its version."""
    return {
        "task": table.kind,
        "protocol": table.protocol.partition("@")[0],
        "n": table.n,
        "n_invalid": table.n_invalid,
        "metrics": {name: _estimate_json(estimate) for name, estimate in table.metrics.items()},
        "seconds": round(seconds, 3),
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    values: dict[str, Any] = {"value": estimate.value, "ci95": None if estimate.ci95 is None else list(estimate.ci95)}
    if estimate.value is None:
        values["reason"] = estimate.reason
    return values


def _column_name(table: Table, name: str | None, usual: Sequence[str], role: str) -> str:
    """The column named by the user, else the only one with a usual name."""
    if name is not None:
        return name
    found = [column for column in table.columns if column.lower() in usual]
    if len(found) == 1:
        return found[0]
    why = f"several could be it ({', '.join(found)})" if found else "none has a usual name"
    raise TaskError(
        f"{table.path}: which column is the {role}? {why}; say --{role}-column. Columns: {', '.join(table.columns)}"
    )


def _present(table: Table, name: str | None) -> str | None:
    return name if name in table.columns else None


def _facts(table: Table, molecules: str | None, probabilities: str | None, groups: str | None) -> RowFacts:
    """What the named columns say of each row; the molecules' column is found by its name where it is not named."""
    if molecules is None:
        found = [column for column in table.columns if column.lower() in MOLECULE_COLUMNS]
        molecules = found[0] if len(found) == 1 else None
    return RowFacts(
        molecules=None if molecules is None else [(cell or "",) for cell in table.column(molecules)],
        probabilities=None if probabilities is None else _probabilities(table, probabilities),
        groups=None if groups is None else [cell or "" for cell in table.column(groups)],
    )


def _probabilities(table: Table, name: str) -> list[float | None]:
    values: list[float | None] = []
    for line, cell in zip(table.lines, table.column(name), strict=True):
        text = (cell or "").strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and not 0.0 <= value <= 1.0:  # NaN is within no bounds
            raise TaskError(f"{table.path}:{line}: {name!r} holds {clipped(text)!r}; a number from 0 to 1 is needed")
        values.append(value)
    return values


def _complete(table: Table, name: str) -> list[str]:
    """The cells of a column that must not be null."""
    cells = table.column(name)
    for line, cell in zip(table.lines, cells, strict=True):
        if cell is None:
            raise TaskError(f"{table.path}:{line}: {name!r} is null; every row needs it")
    return [cell for cell in cells if cell is not None]


def _rows_by_key(table: Table, join: str) -> dict[str, int]:
    """The row of each key, in file order."""
    rows: dict[str, int] = {}
    for row, key in enumerate(_complete(table, join)):
        key = key.strip()
        if key in rows:
            raise TaskError(
                f"{table.path}:{table.lines[row]}: {join} {_shown(key)} stands on line {table.lines[rows[key]]} "
                "already; joining needs keys that differ"
            )
        rows[key] = row
    return rows


def _require_all(keys: dict[str, int], others: dict[str, int], join: str, what: str) -> None:
    lost = [key for key in keys if key not in others]
    if lost:
        more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
        raise TaskError(
            f"{what}: {join} {', '.join(_shown(key) for key in lost[:3])}{more}; no row is left out silently"
        )


def _shown(key: str) -> str:
    return repr(key if len(key) <= 60 else key[:57] + "...")
