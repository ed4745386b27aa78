"""Features of molecules, made with a progress bar where the cache lacks them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.progress import Progress

from bench.runtime import Runtime
from encoders.base import FeatureScheme
from encoders.store import FeatureStore


def open_features(schemes: Sequence[FeatureScheme], molecules: Iterable[str], runtime: Runtime) -> FeatureStore:
    """The store of these molecules' features; each molecule once, in order of first appearance."""
    distinct = list(dict.fromkeys(molecules))
    with Progress(console=runtime.console, disable=not runtime.bars, transient=True) as progress:
        bar = progress.add_task("featurising molecules", total=len(distinct))
        return FeatureStore.open_or_build(
            runtime.cache_folder("features"),
            schemes,
            distinct,
            workers=runtime.workers,
            advance=lambda done: progress.advance(bar, done),
        )
