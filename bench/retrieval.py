"""Retrieval figures: how often the right text is among the first k that a molecule finds, and the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DEPTHS = (1, 5, 10)
POOLS = (10, 20, 100, 500, 1000)
"""Sizes of smaller pools; MoleculeSTM asks for one of 4, 10 and 20."""

_CHUNK = 512  # queries at once


def retrieval_figures(molecules: Tensor, texts: Tensor) -> dict[str, Any]:
    """Recall at 1, 5 and 10 in both directions, beside chance, among all pairs and among fewer.

    Args:
        molecules, texts: rows `(n, width)` of length 1; row `i` of both is a pair.

    Returns:
        `n`; for each direction the median rank; and for each pool size, the last being all pairs, recall in each
        direction and what guessing gives.
    """
    ranks = {
        "molecule_to_text": ranks_of_pairs(molecules, texts),
        "text_to_molecule": ranks_of_pairs(texts, molecules),
    }
    total = len(molecules)
    pools = [*(size for size in POOLS if size < total), total]
    by_pool = [
        {
            "pool": size,
            "chance": _by_depth([min(1.0, k / size) for k in DEPTHS]),
            **{direction: _by_depth(recalls(found, size)) for direction, found in ranks.items()},
        }
        for size in pools
    ]
    medians = {direction: float(np.median(found)) + 1 for direction, found in ranks.items()}
    return {"n": total, "median_rank": medians, "by_pool": by_pool}


def ranks_of_pairs(queries: Tensor, answers: Tensor) -> NDArray[np.int64]:
    """How many answers each query puts before the right one, `(n,)`.

    Answers that score the same as the right one stand before or behind it at random, by a fixed seed; otherwise a model
    that gives the same row for everything would always be right, or never.
    """
    draw = np.random.default_rng(0)
    found = []
    for start in range(0, len(queries), _CHUNK):
        scores = (queries[start : start + _CHUNK] @ answers.T).double()
        right = scores[torch.arange(len(scores)), torch.arange(start, start + len(scores))][:, None]
        better = (scores > right).sum(dim=1).numpy()
        equal = (scores == right).sum(dim=1).numpy()  # itself included
        found.append(better + draw.integers(0, equal))
    return np.concatenate(found).astype(np.int64)


def recalls(ranks: NDArray[np.int64], pool: int) -> list[float]:
    """Recall at each depth among the right answer and `pool - 1` others drawn from all, in expectation over the draws.

    How many of the answers that stand before the right one are drawn follows the hypergeometric distribution, so that
    nothing has to be drawn.
    """
    from scipy.stats import hypergeom

    others = len(ranks) - 1
    return [float(np.mean(hypergeom.cdf(k - 1, others, ranks, pool - 1))) for k in DEPTHS]


def _by_depth(values: Sequence[float]) -> dict[str, float]:
    return {f"recall_at_{k}": value for k, value in zip(DEPTHS, values, strict=True)}
