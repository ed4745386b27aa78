"""What is known of examples and their molecules; written beside the runs, so that reading them needs no chemistry."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from results.packed_examples import FOLDER as PACKED_FOLDER
from results.packed_examples import PackedExamples, examples_file, read_examples
from results.reliance import Asked
from results.runs import ResultsError, read_json

FOLDER = ".examples"
"""Beside the run directories."""

Known = Mapping[str, Mapping[str, Any]]
"""By example, what is known of it."""


def example_facts(asked: Sequence[Asked]) -> Known:
    """By example, its molecules with size, groups and depiction; empty where nothing was written, or packed.

    Of a packed study, scaffolds and questions are not known, and not all depictions.
    """
    for item in asked:
        packed = _packed(item)
        if packed is not None and packed.facts:
            return packed.facts
        file = _beside(item, "facts")
        if file is not None and (found := _facts(file, file.stat().st_mtime_ns)):
            return found
    return {}


def example_novelty(asked: Sequence[Asked]) -> Known:
    """By example, how near the training data came to its molecule; empty where nothing was written, or packed.

    Args:
        asked: of runs that had the same training data: that of the first with such a file is told.
    """
    for item in asked:
        packed = _packed(item)
        if packed is not None and (known := packed.novelty.get(str(item.entry.get("novelty")))):
            return known
        file = _beside(item, "novelty")
        if file is not None:
            return _novelty(file, file.stat().st_mtime_ns)
    return {}


@lru_cache(maxsize=4)  # all cells of a study share them
def _facts(file: Path, changed: int) -> Known:
    try:
        with gzip.open(file, "rb") as stream:
            rows = [orjson.loads(line) for line in stream]
        return {row["example_id"]: row for row in rows}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):  # torn or foreign: nothing is known
        return {}


@lru_cache(maxsize=16)
def _novelty(file: Path, changed: int) -> Known:
    return {name: row for name, row in read_json(file).items() if isinstance(row, dict)}


def _beside(item: Asked, which: str) -> Path | None:
    """The file that an evaluation names, beside its run."""
    name = item.entry.get(which)
    # A file's name alone: a result that anybody may have written must not name any other file of this machine.
    if isinstance(name, str) and Path(name).name == name:
        file = item.run.folder.parent / FOLDER / name
        return file if file.is_file() else None
    return None


def _packed(item: Asked) -> PackedExamples | None:
    """What a packed run's study holds of its examples."""
    name = examples_file(str(item.entry.get("examples_id")))
    if item.run.packed is None or name is None:
        return None
    file = item.run.folder.parent.parent / PACKED_FOLDER / name
    return _packed_file(file, file.stat().st_mtime_ns) if file.is_file() else None


@lru_cache(maxsize=4)
def _packed_file(file: Path, changed: int) -> PackedExamples | None:
    try:
        return read_examples(file)
    except ResultsError:  # decoration, as is all of it; `molgraft tables --check` says what is wrong
        return None


def names_of_novelty(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The files that evaluations name, each once."""
    yield from dict.fromkeys(name for entry in entries if isinstance(name := entry.get("novelty"), str))
