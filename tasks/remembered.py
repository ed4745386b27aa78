"""What is computed from many molecules, kept in the cache, so that a dry run and the run after it compute it once."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks import locations

_SHOW_FROM = 2_000  # items; about two seconds


def remembered(
    what: str,
    depends_on: Sequence[str],
    items: Sequence[str],
    compute: Callable[[str], Any],
    types: tuple[type, ...],
    *,
    progress: bool = True,
) -> list[Any]:
    """`compute(item)` of each item, from the cache where it was computed before.

    Args:
        what: names it in the cache and beside the progress bar on standard error.
        depends_on: what the values depend on beside the items: a version of `compute`, of packages, its settings.
        items: any texts.
        compute: gives what JSON can hold.
        types: what it gives, so that a damaged memory is not trusted.
        progress: show a bar where it takes long.
    """
    named = json.dumps([what, list(depends_on), list(items)], ensure_ascii=False)
    file = locations.cache_root() / "computed" / f"{what.replace(' ', '-')}-{_digest(named)}.json"
    known = _read(file, len(items), types)
    if known is None:
        known = _computed(what, items, compute, progress and len(items) >= _SHOW_FROM)
        _write(file, known)
    return known


def _computed(what: str, items: Sequence[str], compute: Callable[[str], Any], show: bool) -> list[Any]:
    if not show:
        return [compute(item) for item in items]
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:  # a log file, where a bar would not move
        console.print(f"{what} of {len(items):,} molecules; kept in the cache for the next time", highlight=False)
    bar = track(items, description=what, console=console, transient=True, disable=not console.is_terminal)
    return [compute(item) for item in bar]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(file: Path, count: int, types: tuple[type, ...]) -> list[Any] | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is not there, or was damaged: then it is computed again
        return None
    is_whole = isinstance(values, list) and len(values) == count and all(isinstance(value, types) for value in values)
    return values if is_whole else None


def _write(file: Path, values: list[Any]) -> None:
    with suppress(OSError):  # a full disk costs the next call some time, and this one nothing
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        try:
            with open(handle, "w", encoding="utf-8") as out:
                json.dump(values, out)
            os.replace(partial, file)
        except OSError:
            os.unlink(partial)
            raise
