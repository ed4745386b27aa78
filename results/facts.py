"""What is known of examples and their molecules; written beside the runs, so that reading them needs no chemistry."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from results.runs import read_json
from results.tables.gather import Answer

FOLDER = ".examples"
"""Beside the run directories, and in a packed study."""


def example_facts(asked: Sequence[Answer]) -> dict[str, Mapping[str, Any]]:
    """By example, its molecules with size, scaffold, groups and depiction; empty where nothing was written."""
    for file in _files(asked, "facts"):
        if found := _facts(file, file.stat().st_mtime_ns):
            return dict(found)
    return {}


def example_novelty(asked: Sequence[Answer]) -> dict[str, Mapping[str, Any]]:
    """By example, how near the training data came to its molecule; empty where nothing was written."""
    for file in _files(asked, "novelty"):
        return {name: row for name, row in read_json(file).items() if isinstance(row, dict)}
    return {}


@lru_cache(maxsize=4)  # all cells of a study share them
def _facts(file: Path, changed: int) -> Mapping[str, Mapping[str, Any]]:
    try:
        with gzip.open(file, "rb") as stream:
            rows = [orjson.loads(line) for line in stream]
        return {row["example_id"]: row for row in rows}
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError):  # torn or foreign: nothing is known
        return {}


def _files(asked: Sequence[Answer], which: str) -> Iterator[Path]:
    for item in asked:
        name = item.entry.get(which)
        # A file's name alone: a result that anybody may have written must not name any other file of this machine.
        if isinstance(name, str) and Path(name).name == name:
            for folder in (item.run.folder.parent, item.run.folder.parent.parent):
                if (folder / FOLDER / name).is_file():
                    yield folder / FOLDER / name
