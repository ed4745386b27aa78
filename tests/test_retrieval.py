"""Retrieval figures: recall on known scores, among fewer candidates, and where everything looks the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.retrieval import DEPTHS, ranks_of_pairs, recalls, retrieval_figures


def test_recall_on_known_scores() -> None:
    molecules = torch.eye(4)
    # Row i: what text i scores with each molecule. Text 0 is right, 1 is second, 2 is third, 3 is last.
    texts = torch.tensor([[9.0, 1, 1, 1], [8, 7, 1, 2], [5, 6, 4, 1], [5, 6, 7, 0]])
    assert ranks_of_pairs(texts, molecules).tolist() == [0, 1, 2, 3]
    found = retrieval_figures(molecules, texts)
    (all_of_them,) = found["by_pool"]
    assert all_of_them["text_to_molecule"] == {"recall_at_1": 0.25, "recall_at_5": 1.0, "recall_at_10": 1.0}
    assert all_of_them["chance"]["recall_at_1"] == 0.25
    assert found["median_rank"]["text_to_molecule"] == 2.5
    # Columns: molecule 0 is told its own text first, molecule 3 last.
    columns = [int((texts[:, k] > texts[k, k]).sum()) for k in range(4)]
    assert ranks_of_pairs(molecules, texts).tolist() == columns


def test_a_model_that_says_the_same_of_everything_is_no_better_than_chance() -> None:
    rows = torch.ones(2000, 3)
    by_pool = retrieval_figures(rows, rows)["by_pool"]
    assert [row["pool"] for row in by_pool] == [10, 20, 100, 500, 1000, 2000]
    for row in by_pool:
        assert row["molecule_to_text"] == pytest.approx(row["chance"], abs=0.03)


def test_recall_among_fewer_is_that_of_drawn_pools() -> None:
    random = np.random.default_rng(0)
    for rank in (0, 2, 11, 39):  # so many of the 39 others stand before the right one
        before = [int((random.permutation(39)[:9] < rank).sum()) for _ in range(3000)]
        drawn = [np.mean([count < k for count in before]) for k in DEPTHS]
        assert recalls(np.full(40, rank), 10) == pytest.approx(drawn, abs=0.04)
    ranks = random.integers(0, 40, size=40)
    assert recalls(ranks, 40) == pytest.approx([np.mean(ranks < k) for k in DEPTHS])
