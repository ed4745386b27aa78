"""Resamples of examples in blocks: swaps of two cells for permutation tests, and counts for the bootstrap.

Blocks are small enough for a processor's cache, and one buffer is filled over and over: allocating a new one for each
block takes several times as long as drawing it. Whoever iterates must be done with a block before asking for the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 9999  # with the observed value 10,000, so that p is a round number
SEED = 20

_BLOCK = 1_000_000  # numbers in a block: 8 MB
_KEPT = 60_000_000  # numbers of which the bootstrap's counts are kept as bytes for the next metric of as many examples


def random_swaps(n: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """Which of `n` examples are swapped in each of `resamples` random permutations: `(block, n)` of 0 and 1."""
    generator = np.random.default_rng(seed)
    width = (n + 7) // 8
    for buffer in _blocks(n, resamples):
        drawn = generator.integers(0, 256, size=(len(buffer), width), dtype=np.uint8)
        np.copyto(buffer, np.unpackbits(drawn, axis=1, count=n))
        yield buffer


def all_swaps(n: int) -> Iterator[FloatArray]:
    """Half of all `2^n` ways to swap `n` examples: the first is never swapped, the other half mirrors these."""
    start, total = 0, 1 << max(0, n - 1)
    for buffer in _blocks(n, total):
        numbers = np.arange(start, start + len(buffer), dtype=np.int64)
        np.copyto(buffer, numbers[:, None] >> np.arange(n)[::-1] & 1)
        start += len(buffer)
        yield buffer


def bootstrap_counts(n: int, resamples: int, seed: int) -> Iterator[FloatArray]:
    """How often each of `n` examples occurs in each of `resamples` bootstrap resamples: `(block, n)`."""
    if n * resamples > _KEPT:
        generator = np.random.default_rng(seed)
        for buffer in _blocks(n, resamples):
            _draw(generator, buffer)
            yield buffer
        return
    kept, start = _kept_counts(n, resamples, seed), 0
    for buffer in _blocks(n, resamples):
        np.copyto(buffer, kept[start : start + len(buffer)])
        start += len(buffer)
        yield buffer


@lru_cache(maxsize=2)
def _kept_counts(n: int, resamples: int, seed: int) -> npt.NDArray[np.uint8]:
    """All counts at once. None of them exceeds a byte: with n > 255 that has a chance below 1e-500."""
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, n), dtype=np.uint8)
    step = max(1, _BLOCK // n)
    for start in range(0, resamples, step):
        _draw(generator, counts[start : start + step])
    return counts


def _draw(generator: np.random.Generator, counts: npt.NDArray[np.float64] | npt.NDArray[np.uint8]) -> None:
    """Fills each row with the counts of one resample."""
    n = counts.shape[1]
    drawn = generator.integers(0, n, size=counts.shape, dtype=np.uint16 if n <= 1 << 16 else np.int64)
    for row, places in enumerate(drawn):
        counts[row] = np.bincount(places, minlength=n)


def _blocks(n: int, total: int) -> Iterator[FloatArray]:
    """Buffers of together `total` rows of `n` numbers, which are the same memory every time."""
    buffer = np.empty((min(total, max(1, _BLOCK // max(1, n))), n))
    for start in range(0, total, len(buffer)):
        yield buffer[: total - start]
