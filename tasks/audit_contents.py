"""What an audit looks at: a data set's rows as their files have them, and named parts of data sets.

A part is named `NAME`, `NAME/SPLIT` or `NAME/SPLIT+SPLIT`, each with `:ROLE` or `:ROLE+ROLE` behind it where other
molecules than the first of a row are meant: `chebi20/test`, `pcdes/validation+test`, `uspto50k/test:product+reactants`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tasks.audit_keys import LEVELS, Keys, KeyStore, Level
from tasks.base import SPLITS, Rejection, Split, TaskError
from tasks.data_files import suggest

if TYPE_CHECKING:
    from tasks.data import Catalogue, DataSet, Row

_REACTION = "reaction"  # the role of a whole reaction in one column
_OTHER_NAMES = {"valid": "validation", "val": "validation", "dev": "validation"}


@dataclass(frozen=True, slots=True)
class Selection:
    """A part of a data set.

    Args:
        text: as it was asked for.
        data: name or YAML path of the data set.
        splits: in the order of reading; empty for all that are here.
        roles: whose molecules are compared, together where there are several; empty for the first that a row has.
    """

    text: str
    data: str
    splits: tuple[Split, ...] = ()
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileUse:
    """A file that rows came from, as its data set names it, and where it lies."""

    split: Split
    file: str
    path: str
    sha256: str
    note: str
    substitute: bool = False


@dataclass(frozen=True, slots=True)
class AuditRow:
    """A row as its file has it, before any defect is mended; `split` is None where it belongs to none."""

    row: Row
    split: Split | None


@dataclass(frozen=True, slots=True)
class Contents:
    """All rows of a data set that are here.

    Args:
        name: of the data set.
        rows: as the files have them, with defects.
        files: where they came from.
        rejections: rows that the reader refuses.
        absent: splits without a file here, and what is said about them.
        molecule_roles: the roles that hold molecules; the first is the one that is compared where none is named.
        label_roles: all other roles.
        mended: the fixes by which the reader mends known defects.
        dealt_out: whether a method dealt all rows out to splits.
    """

    name: str
    rows: tuple[AuditRow, ...]
    files: tuple[FileUse, ...]
    rejections: tuple[Rejection, ...]
    absent: dict[Split, str] = field(default_factory=dict)
    molecule_roles: tuple[str, ...] = ()
    label_roles: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    dealt_out: bool = False

    def roles_of(self, selection: Selection) -> tuple[str, ...]:
        """The roles whose molecules a selection compares.

        Raises:
            TaskError: the data set lacks one, or has no molecules.
        """
        roles = selection.roles or self.molecule_roles[:1]
        for role in roles:
            if role not in self.molecule_roles:
                has = ", ".join(self.molecule_roles) or "none"
                raise TaskError(
                    f"{selection.text}: {self.name} has no molecules under the role {role!r}; it has them under {has}"
                    f"{suggest(role, self.molecule_roles)}"
                )
        if not roles:
            raise TaskError(f"{selection.text}: {self.name} has no molecules, so there is nothing to compare")
        return roles

    def rows_in(self, selection: Selection) -> list[Row]:
        """The rows of a selection; without named splits all rows, those that belong to no split too.

        Raises:
            TaskError: a split is not here, or has no rows.
        """
        for split in selection.splits:
            if split in self.absent:
                raise TaskError(self.absent[split])
        found = [each.row for each in self.rows if not selection.splits or each.split in selection.splits]
        if not found:
            held = ", ".join(split for split in SPLITS if any(each.split == split for each in self.rows))
            raise TaskError(f"{selection.text}: {self.name} has no such rows; it has rows in {held}")
        return found

    def files_of(self, splits: Sequence[Split]) -> tuple[FileUse, ...]:
        """The files that splits come from: all of them where rows were dealt out anew."""
        return tuple(use for use in self.files if self.dealt_out or not splits or use.split in splits)


@dataclass(frozen=True, slots=True)
class Population:
    """The molecules of a part as sets of keys.

    Args:
        text: how the part is named.
        rows: in the part.
        roles: how many molecules of each row are compared together; parts of another number do not compare.
        unreadable: rows without keys: unparsable or empty.
        keys: by level; None where the part was not compared by it.
        files: hashes of the files.
    """

    text: str
    rows: int
    roles: int
    unreadable: int
    keys: dict[Level, frozenset[str] | None]
    files: tuple[FileUse, ...]


def parse_selection(text: str) -> Selection:
    """The part that `text` names; whether the data set has it is found out by reading it.

    Raises:
        TaskError: there is nothing before the slash or behind the colon, or a split is named wrongly.
    """
    rest, colon, role_text = text.rpartition(":")
    if not colon or "/" in role_text or "." in role_text:
        rest, role_text = text, ""
    elif not rest or not all(role_text.split("+")):
        raise TaskError(f"{text!r}: NAME/SPLIT:ROLE is expected, such as uspto50k/test:product")
    data, slash, split_text = rest.rpartition("/")
    parts = split_text.split("+")
    named = [_OTHER_NAMES.get(part, part) for part in parts]
    if not slash or not data or not all(name in SPLITS for name in named):
        if slash and "+" in split_text:
            wrong = next(part for part, name in zip(parts, named, strict=True) if name not in SPLITS)
            raise TaskError(f"{text!r}: no split {wrong!r}; there are {', '.join(SPLITS)}{suggest(wrong, SPLITS)}")
        data, named = rest, []
    if not data:
        raise TaskError(f"{text!r}: the name of a data set, or the path of a YAML file, is expected")
    splits = tuple(split for split in SPLITS if split in named)
    return Selection(text, data, splits, tuple(role_text.split("+")) if role_text else ())


def get(data: str, catalogue: Catalogue) -> DataSet:
    """The data set of a selection; a wrong split after a slash is told as such.

    Raises:
        TaskError: there is none.
    """
    try:
        return catalogue.get(data)
    except TaskError:
        name, slash, split = data.rpartition("/")
        if slash and name in catalogue.names():
            raise TaskError(f"{data!r}: no split {split!r}; there are {', '.join(SPLITS)}") from None
        raise


def read(dataset: DataSet) -> Contents:
    """All rows of a data set that are here, as the files have them.

    Raises:
        TaskError: a file is broken, or none is here.
    """
    from tasks.data_set import SMILES_ROLES

    description = dataset.description
    raw = replace(dataset, description=replace(description, normalise=(), split_method=None), requested=None)
    rows: list[tuple[Row, Split]] = []
    files: list[FileUse] = []
    rejections: list[Rejection] = []
    absent: dict[Split, str] = {}
    for split in raw.splits:
        found = raw.present(split)
        if found is None:
            absent[split] = raw.missing(split)
            continue
        read_rows, refused = raw.rows(split)
        source = raw.source(split)
        files.append(FileUse(split, source.file, str(source.path), source.sha256, source.note, found[0].substitute))
        rows += [(_taken_apart(row), split) for row in read_rows]
        rejections += refused
    if not files:
        raise TaskError(next(iter(absent.values())))
    # a reaction in one column may have no reagents anywhere
    held = {role for role in SMILES_ROLES if role in dataset.roles or any(row.values.get(role) for row, _ in rows)}
    return Contents(
        name=dataset.name,
        rows=tuple(_in_splits(dataset, rows)),
        files=tuple(_as_dealt_out(dataset, files)),
        rejections=tuple(rejections),
        absent=absent,
        molecule_roles=tuple(role for role in SMILES_ROLES if role in held),
        label_roles=tuple(role for role in description.columns if role not in {"id", _REACTION, *SMILES_ROLES}),
        mended=tuple(description.normalise),
        dealt_out=dataset.method is not None,
    )


def _taken_apart(row: Row) -> Row:
    """The row with the parts of a reaction in roles of their own.

    A reaction is written "reactants>reagents>product". What is not written so is left to be found unparsable.
    """
    if _REACTION not in row.values:
        return row
    values = dict(row.values)
    reaction = values.pop(_REACTION)
    parts = reaction.split(">")
    reactants, reagents, product = parts if len(parts) == 3 else ("", "", reaction)
    values |= {"product": product, "reactants": reactants, "reagents": reagents}
    return replace(row, values=values)


def _in_splits(dataset: DataSet, rows: list[tuple[Row, Split]]) -> Iterator[AuditRow]:
    """Each row with the split that the data set has it in, which a method may have dealt out anew."""
    if dataset.method is None:
        yield from (AuditRow(row, split) for row, split in rows)
        return
    dealt: dict[tuple[str, int], Split] = {}
    for split in dataset.splits:
        dealt |= {(row.file, row.line): split for row in dataset.rows(split)[0]}
    yield from (AuditRow(row, dealt.get((row.file, row.line))) for row, _ in rows)


def _as_dealt_out(dataset: DataSet, files: list[FileUse]) -> Iterator[FileUse]:
    for use in files:
        note = f"{use.note}; {dataset.method.described}".removeprefix("; ") if dataset.method else use.note
        yield replace(use, note=note)


def population(selection: Selection, contents: Contents, store: KeyStore) -> Population:
    """The keys of a part's molecules. Several roles are compared together, by canonical SMILES alone.

    Raises:
        TaskError: the data set lacks a role or a split, or has no molecules.
    """
    roles = sorted(contents.roles_of(selection))  # product+reactants is reactants+product
    rows = [tuple(row.values[role] for role in roles) for row in contents.rows_in(selection)]
    found = store.keys((cell for row in rows for cell in row), full=len(roles) == 1)
    keys = [joint([found[cell] for cell in row]) for row in rows]
    levels: dict[Level, frozenset[str] | None] = {}
    for level in LEVELS:
        comparable = len(roles) == 1 or level == "canonical"
        levels[level] = frozenset(filter(None, (each.at(level) for each in keys))) if comparable else None
    unreadable = sum(each.canonical is None for each in keys)
    return Population(selection.text, len(rows), len(roles), unreadable, levels, contents.files_of(selection.splits))


def joint(keys: Sequence[Keys]) -> Keys:
    """The keys of molecules that count as one, such as a reaction's; an empty part (no reagents) is one of its own."""
    if len(keys) == 1:
        return keys[0]
    unreadable = next((each for each in keys if each.canonical is None and each.problem != "empty"), None)
    if unreadable is not None:
        return unreadable
    if all(each.canonical is None for each in keys):
        return keys[0]
    return Keys(canonical=">".join(each.canonical or "" for each in keys))
