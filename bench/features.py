"""Features of molecules, made with a progress bar where the cache lacks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.progress import Progress

from bench.identity import content_hash
from bench.runtime import Runtime
from encoders.base import FeatureScheme
from encoders.store import FeatureStore


def open_features(schemes: Sequence[FeatureScheme], molecules: Iterable[str], runtime: Runtime) -> FeatureStore:
    """The store of these molecules' features; each molecule once, in order of first appearance."""
    distinct = tuple(dict.fromkeys(molecules))
    root = runtime.cache_folder("features").resolve()
    described = tuple((type(scheme), content_hash(scheme)) for scheme in schemes)
    return runtime.memo.get(
        "features", (root, described, distinct), lambda: _opened(schemes, distinct, runtime), _bytes
    )


def _opened(schemes: Sequence[FeatureScheme], distinct: Sequence[str], runtime: Runtime) -> FeatureStore:
    with Progress(console=runtime.console, disable=not runtime.bars, transient=True) as progress:
        bar = progress.add_task("featurising molecules", total=len(distinct))
        return FeatureStore.open_or_build(
            runtime.cache_folder("features"),
            schemes,
            distinct,
            workers=runtime.workers,
            advance=lambda done: progress.advance(bar, done),
        )


def _bytes(store: FeatureStore) -> int:
    """About what a view takes beside the mapped files: files that are read, and the place of each molecule."""
    return 4_000_000 + 300 * len(store.row_of)
