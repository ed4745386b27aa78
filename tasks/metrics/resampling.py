"""Bootstrap resamples: the same for the same number of rows, so that intervals can be repeated and shared."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]

RESAMPLES = 1000
SEED = 20
_WEIGHTS_AT_ONCE = 4_000_000  # entries of the (resamples, n) matrix held at a time: 32 MB


def resamples(n: int) -> Iterator[FloatArray]:
    """How often each of `n` rows occurs in each bootstrap resample, some resamples at a time; none where `n` < 2.

    Yields:
        `(resamples, n)`, together `RESAMPLES` of them, the same for the same `n`.
    """
    import numpy as np

    if n < 2:
        return
    if n * RESAMPLES <= _WEIGHTS_AT_ONCE:
        yield _few_resamples(n).astype(np.float64)
        return
    generator = np.random.default_rng(SEED)
    step = max(1, _WEIGHTS_AT_ONCE // n)
    for start in range(0, RESAMPLES, step):
        yield _draw(generator, min(step, RESAMPLES - start), n).astype(np.float64)


def percentile_interval(values: FloatArray) -> tuple[float, float] | None:
    """The 95 % percentile interval of a statistic of resamples, without those in which it is undefined (NaN)."""
    import numpy as np

    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


@lru_cache(maxsize=2)
def _few_resamples(n: int) -> npt.NDArray[np.uint16]:
    """All resamples at once, for all the metrics of a protocol."""
    import numpy as np

    return _draw(np.random.default_rng(SEED), RESAMPLES, n).astype(np.uint16)


def _draw(generator: np.random.Generator, size: int, n: int) -> npt.NDArray[np.int64]:
    import numpy as np

    drawn = generator.integers(0, n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
