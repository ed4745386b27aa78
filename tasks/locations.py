"""Where files that molgraft reads but does not ship are looked for: `$MOLGRAFT_DATA` first, then the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

DATA_VARIABLE = "MOLGRAFT_DATA"
CACHE_VARIABLE = "MOLGRAFT_CACHE"


def cache_root() -> Path:
    """The folder for whatever can be made or downloaded again: `$MOLGRAFT_CACHE`, else the platform's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("molgraft", appauthor=False))


def data_roots() -> tuple[Path, ...]:
    """The folders searched for data files, in order; they need not exist."""
    roots = []
    chosen = os.environ.get(DATA_VARIABLE)
    if chosen:
        roots.append(Path(chosen).expanduser())
    roots.append(cache_root() / "data")
    return tuple(roots)


def find(relative: str) -> Path | None:
    """The first existing file or folder `relative` below the data roots, or None."""
    for root in data_roots():
        candidate = root / relative
        if candidate.exists():
            return candidate
    return None


def where_looked(relative: str) -> str:
    """Where `find` looked for `relative`, in words, for messages about a missing file."""
    places = ", ".join(str(root / relative) for root in data_roots())
    hint = "" if os.environ.get(DATA_VARIABLE) else f" (${DATA_VARIABLE} is not set)"
    return f"looked at {places}{hint}"
