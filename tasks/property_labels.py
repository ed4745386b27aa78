"""Which labels of a data set a property task asks about, and their values row by row.

A data set holds its labels in columns, one role each, or row by row: then the role `task` says which label a row is
about, and the role `label` has its value, so that each label can have a split of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.base import Rejection, Split, TaskError
from tasks.data import DataSet, Row
from tasks.data_files import suggest

Labels = Sequence[str] | Literal["all"]

# Roles that name or describe a molecule; every other role of a data set is a label.
_DESCRIBING = frozenset({"id", "smiles", "caption", "iupac", "name", "selfies", "inchi", "scaffold", "task"})


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One value: where it stands, which label it is of, and the molecule that it belongs to.

    Args:
        row: where it stands.
        id: the row's, with the label where several are asked about.
        label: its name.
        smiles: the molecule; not empty.
        value: as the file has it, without surrounding blanks; not empty.
        group: the label where several are asked about, else None.
    """

    row: Row
    id: str
    label: str
    smiles: str
    value: str
    group: str | None


def labelled_rows(
    dataset: DataSet, split: Split, label: str | None, labels: Labels | None, *, numeric: bool, purpose: str
) -> tuple[list[LabelledRow], list[Rejection]]:
    """Every value of the labels that are asked about, in file order, and what was left out.

    Args:
        dataset: where they stand.
        split: which rows.
        label: one label; or else
        labels: several, or `all`.
        numeric: whether numbers are wanted; a data set that states units tells its numbers from its yes-or-no labels.
        purpose: what the values are for, for messages.

    Raises:
        TaskError: a label is lacking, or the data set has several and none is chosen.
    """
    if label is not None and labels is not None:
        raise TaskError(f"{purpose}: label {label!r} and labels are both given; one of them is enough")
    if isinstance(labels, str) and labels != "all":
        raise TaskError(f"{purpose}: labels is {labels!r}; a list of labels or 'all' is expected")
    dataset.require(("smiles",), purpose)
    by_row = {"task", "label"} <= dataset.roles
    rows, rejections = dataset.rows(split)
    listed = dict.fromkeys(row.values["task"] for row in rows) if by_row else dataset.description.columns
    known = tuple(role for role in listed if by_row or role not in _DESCRIBING)
    if not known:
        raise TaskError(f"{purpose}: data set {dataset.name} has no label, only {', '.join(sorted(dataset.roles))}")
    chosen = _chosen(known, _of_kind(known, dataset, numeric), label, labels, f"{purpose}: data set {dataset.name}")

    found = []
    for row in rows:
        smiles, values = row.values["smiles"].strip(), _values(row, chosen, by_row)
        if values and not smiles:
            rejections.append(Rejection(row.file, row.line, "", "the SMILES is empty"))
            continue
        for name, value in values:
            if not value:
                rejections.append(Rejection(row.file, row.line, smiles, f"no label: {name} is empty", expected=True))
                continue
            several = len(chosen) > 1
            identity = f"{row.id}/{name}" if several else row.id
            found.append(LabelledRow(row, identity, name, smiles, value, name if several else None))
    return found, rejections


def _values(row: Row, chosen: Sequence[str], by_row: bool) -> list[tuple[str, str]]:
    if not by_row:
        return [(name, row.values[name].strip()) for name in chosen]
    name = row.values["task"]
    return [(name, row.values["label"].strip())] if name in chosen else []


def _of_kind(known: Sequence[str], dataset: DataSet, numeric: bool) -> tuple[str, ...]:
    """The labels that hold numbers, or those that do not; all where the data set does not tell."""
    units = dataset.description.units
    if not units:
        return tuple(known)
    return tuple(name for name in known if (name in units) is numeric)


def _chosen(
    known: Sequence[str], suited: Sequence[str], label: str | None, labels: Labels | None, where: str
) -> tuple[str, ...]:
    if label is None and (labels is None or labels == "all"):
        if labels == "all" or len(suited) == 1:
            if suited:
                return tuple(suited)
            raise TaskError(f"{where} has no label of this kind, but {', '.join(known)}")
        raise TaskError(
            f"{where} has {', '.join(known)}. Set task.label to one of them, or task.labels to several or to 'all'"
        )
    return named(label, labels or (), known, f"{where} has no label")


def named(label: str | None, labels: Sequence[str], known: Sequence[str], there_is_no: str) -> tuple[str, ...]:
    """The labels that are named, each known and each once.

    Raises:
        TaskError: none is named, or one is unknown or stands twice; the message begins with `there_is_no`.
    """
    wanted = (label,) if label is not None else tuple(labels)
    if not wanted:
        raise TaskError(f"task.labels is empty; there are {', '.join(known)}")
    for name in wanted:
        if name not in known:
            raise TaskError(f"{there_is_no} {name!r}, but {', '.join(known)}{suggest(name, known)}")
        if wanted.count(name) > 1:
            raise TaskError(f"task.labels names {name!r} twice")
    return wanted
