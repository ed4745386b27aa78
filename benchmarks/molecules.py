"""The real molecules that are measured on, from the data folders (`$MOLGRAFT_DATA`, else the cache)."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from tasks.locations import find, where_looked

_MOLECULENET = ("bace", "bbbp", "clintox", "esol", "freesolv", "hiv", "lipophilicity", "sider", "tox21")
# Columns of reactions, whose molecules are separated by dots.
_REACTIONS = {
    "uspto50k.csv.gz": ("product", "reactants"),
    "uspto_full_gln_test.csv.gz": ("product", "reactants"),
    "uspto_full_gln_val.csv.gz": ("product", "reactants"),
    "uspto_mit_forward.csv.gz": ("product", "reactants", "reagents"),
}
_FROM_REACTIONS = 100_000


def chebi20() -> list[str]:
    """The 6,601 molecules of ChEBI-20's validation and test splits, in file order."""
    return [row for name in ("validation", "test") for row in _column(f"chebi20/{name}.csv.gz", "SMILES")]


def captions() -> list[tuple[str, str]]:
    """Molecules of ChEBI-20's validation and test splits with their descriptions, in an order of their own."""
    rows = [
        (smiles, text)
        for name in ("validation", "test")
        for smiles, text in zip(
            *(_column(f"chebi20/{name}.csv.gz", column) for column in ("SMILES", "description")), strict=True
        )
    ]
    return sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).digest())


def some_of_chebi20(count: int) -> list[str]:
    """A pick of ChEBI-20 that is the same everywhere."""
    return by_hash(chebi20())[:count]


def sets() -> dict[str, list[str]]:
    """All sets by name, each with duplicates as its files have them."""
    moleculenet = {name: list(_column(f"moleculenet/{name}.csv.gz", "smiles")) for name in _MOLECULENET}
    reactions = by_hash(
        molecule
        for file, columns in _REACTIONS.items()
        for column in columns
        for side in _column(f"reactions/{file}", column)
        for molecule in side.split(".")
        if molecule
    )
    if len(reactions) < _FROM_REACTIONS:
        raise ValueError(f"the reactions hold {len(reactions):,} distinct molecules, not {_FROM_REACTIONS:,}")
    return {"chebi20": chebi20(), **moleculenet, "uspto": reactions[:_FROM_REACTIONS]}


def by_hash(molecules: Iterable[str]) -> list[str]:
    """Distinct molecules in an order that depends on nothing but them."""
    return sorted(set(molecules), key=lambda smiles: hashlib.sha256(smiles.encode()).digest())


def _column(file: str, column: str) -> Iterator[str]:
    path = find(file)
    if path is None:
        raise FileNotFoundError(f"{file}: {where_looked(file)}")
    yield from _cells(path, column)


def _cells(path: Path, column: str) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield row[column]
