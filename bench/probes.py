"""Linear probes: what a frozen encoder's graph level says about a property, pretrained against untrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device import seeded
from bench.errors import UserError
from bench.features import open_features
from bench.runtime import Runtime
from encoders.base import Encoder
from encoders.store import FeatureStore
from tasks.base import SPLITS, Split
from tasks.data import DataSet

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularisation (`C`) to choose from, by ROC-AUC on validation."""

_BATCH = 128
_RESAMPLES = 2_000

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ProbeData:
    """A binary property: molecules and labels `(n,)` of each split.

    Args:
        left_out: molecules that the encoder's features cannot express, by split.
    """

    name: str
    molecules: Mapping[Split, tuple[str, ...]]
    labels: Mapping[Split, NDArray[np.int64]]
    left_out: Mapping[Split, int]


@dataclass(frozen=True, slots=True)
class Probe:
    """A fitted probe.

    Args:
        strength: the `C` that was chosen.
        validation, test: ROC-AUC.
        scores: of the test molecules, `(n,)`.
    """

    strength: float
    validation: float
    test: float
    scores: Rows


def read_probe_data(dataset: DataSet, encoder: Encoder, runtime: Runtime) -> tuple[ProbeData, FeatureStore]:
    """The molecules of a data set with the roles `smiles` and `label` (0 or 1), and their features for an encoder.

    Raises:
        UserError: a label is neither 0 nor 1, or a split has labels of one kind only.
    """
    dataset.require(("smiles", "label"), "a linear probe")
    rows = {split: dataset.rows(split)[0] for split in SPLITS}
    every = [row.values["smiles"] for split in SPLITS for row in rows[split]]
    store = open_features(encoder.features(), every, runtime)
    molecules: dict[Split, tuple[str, ...]] = {}
    labels: dict[Split, NDArray[np.int64]] = {}
    left_out: dict[Split, int] = {}
    for split in SPLITS:
        kept = [row for row in rows[split] if row.values["smiles"] not in store.rejected]
        wrong = next((row for row in kept if row.values["label"] not in ("0", "1")), None)
        if wrong is not None:
            raise UserError(f"{wrong.file}:{wrong.line}: the label is {wrong.values['label']!r}; a probe takes 0 and 1")
        molecules[split] = tuple(row.values["smiles"] for row in kept)
        labels[split] = np.array([int(row.values["label"]) for row in kept])
        left_out[split] = len(rows[split]) - len(kept)
        if len(set(labels[split].tolist())) < 2:
            raise UserError(f"{dataset.name}: its {split} split has labels of one kind only; ROC-AUC is undefined")
    return ProbeData(dataset.name, molecules, labels, left_out), store


def frozen_features(
    encoder: Encoder, data: ProbeData, store: FeatureStore, seed: int, level: str = "graph"
) -> Mapping[Split, Rows]:
    """The graph level of every molecule under frozen weights, `(n, width)` per split.

    Args:
        encoder: with `weights`, pretrained; without, as the seed initialises it.
        data: the molecules.
        store: their features.
        seed: of the initialisation, which a pretraining of the same seed starts from.
        level: one with a row per molecule.
    """
    with seeded(seed, "encoder"):
        module = encoder.build().eval()
    encoder.load(module)
    found: dict[Split, Rows] = {}
    with torch.no_grad():
        for split, molecules in data.molecules.items():
            chunks = [molecules[start : start + _BATCH] for start in range(0, len(molecules), _BATCH)]
            rows = [module(store.batch(chunk), frozenset({level}))[level].values for chunk in chunks]
            found[split] = torch.cat(rows).double().numpy()
    return found


def fit_probe(features: Mapping[Split, Rows], labels: Mapping[Split, NDArray[np.int64]]) -> Probe:
    """Logistic regression on standardised features; how strongly it is regularised is chosen on validation."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    mean, spread = features["train"].mean(axis=0), features["train"].std(axis=0)
    scaled = {split: (rows - mean) / np.where(spread > 0, spread, 1.0) for split, rows in features.items()}
    best: Probe | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=5_000).fit(scaled["train"], labels["train"])
        validation = roc_auc(model.decision_function(scaled["validation"]), labels["validation"])
        if best is None or validation > best.validation:
            scores = model.decision_function(scaled["test"])
            best = Probe(strength, validation, roc_auc(scores, labels["test"]), scores)
    if best is None:
        raise ValueError("there is no strength to choose from")
    return best


def roc_auc(scores: Rows, labels: NDArray[np.int64]) -> float:
    """The share of pairs of a positive and a negative that stand in the right order, ties counting half."""
    from scipy.stats import rankdata

    positives = int(labels.sum())
    negatives = len(labels) - positives
    ranks = rankdata(scores)[labels == 1].sum()
    return float((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def compare_probes(
    pretrained: Sequence[Probe], untrained: Sequence[Probe], labels: NDArray[np.int64], seed: int = 0
) -> dict[str, Any]:
    """Mean ROC-AUC over seeds of both, and a paired bootstrap interval of the difference.

    Test molecules are drawn with replacement, positives and negatives apart, the same ones for all probes of both; so
    the interval is about other test molecules. What other seeds would change is shown by the single values.

    Args:
        pretrained, untrained: one for each seed.
        labels: of the test molecules, `(n,)`.
        seed: of the draws.
    """
    draw = np.random.default_rng(seed)
    kinds = [np.flatnonzero(labels == kind) for kind in (0, 1)]
    differences = []
    for _ in range(_RESAMPLES):
        chosen = np.concatenate([draw.choice(kind, size=len(kind)) for kind in kinds])
        means = [
            np.mean([roc_auc(probe.scores[chosen], labels[chosen]) for probe in probes])
            for probes in (pretrained, untrained)
        ]
        differences.append(means[0] - means[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    described = {
        name: {
            "roc_auc": float(np.mean([probe.test for probe in probes])),
            "per_seed": [probe.test for probe in probes],
            "strengths": [probe.strength for probe in probes],
        }
        for name, probes in (("pretrained", pretrained), ("untrained", untrained))
    }
    return {
        **described,
        "difference": described["pretrained"]["roc_auc"] - described["untrained"]["roc_auc"],  # type: ignore[operator]
        "ci95": [float(low), float(high)],
        "n_test": len(labels),
    }
