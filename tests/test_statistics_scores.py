"""Metrics as `tasks` computes them, and again from what they say they are computed from, on real predictions."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from bench.registry import registry
from results.statistics import FORMULAS, Basis, mcnemar, over_examples, paired, value_of
from tasks.base import AnswerKind, Estimate
from tasks.metrics.base import Protocol, RowFacts, basis_of
from tasks.metrics.protocols import MolT5, Strict

Rows = tuple[list[str | None], list[str], RowFacts]


def stored(estimate: Estimate) -> Basis:
    """A basis as the reading side has it."""
    said = basis_of(estimate)
    assert said is not None
    rows: Sequence[Sequence[float] | None]
    if said.rows is None:
        assert estimate.per_example is not None
        rows = [None if value is None else (value,) for value in estimate.per_example]
    else:
        rows = said.rows
    width = len(FORMULAS[said.formula].columns)
    table = np.array([[np.nan] * width if row is None else row for row in rows], dtype=np.float64)
    return Basis(said.formula, table, None if said.groups is None else tuple(said.groups))


def published(data_folder: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(data_folder / "oracle_predictions" / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def esol(data_folder: Path) -> list[dict[str, str]]:
    with gzip.open(data_folder / "moleculenet" / "esol.csv.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def answers(data_folder: Path) -> Mapping[AnswerKind, Rows]:
    """Real answers of each kind: MolT5's, and the solubilities that ESOL's authors predicted, also as classes."""
    captions = published(data_folder, "molt5-small-smiles2caption")[:400]
    molecules = published(data_folder, "molt5-small-caption2smiles")[:400]
    solubilities = esol(data_folder)
    measured = [float(row["measured log solubility in mols per litre"]) for row in solubilities]
    predicted = [float(row["ESOL predicted log solubility in mols per litre"]) for row in solubilities]
    spread = random.Random(1)
    said: list[str | None] = ["yes" if value > -3 else "no" for value in predicted]
    for place in spread.sample(range(len(said)), 30):
        said[place] = None
    return {
        "caption": (
            [row["output"] for row in captions],
            [row["ground truth"] for row in captions],
            RowFacts(molecules=[(row["SMILES"],) for row in captions]),
        ),
        "molecule": ([row["output"] for row in molecules], [row["ground truth"] for row in molecules], RowFacts()),
        "regression": ([str(value) for value in predicted], [str(value) for value in measured], RowFacts()),
        "classification": (
            said,
            ["Yes" if value > -3 else "No" for value in measured],
            RowFacts(
                probabilities=[None if place % 50 == 0 else 1 / (1 + 2.0 ** (-value - 3)) for place, value in
                               enumerate(predicted)],
                groups=[row["Number of Rings"] for row in solubilities],
            ),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(registry().all("protocol")))
def test_the_formula_of_all_rows_is_the_stored_value(
    name: str, answers: Mapping[AnswerKind, Rows], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    protocol: Protocol = registry().get("protocol", name)()
    found = 0
    for kind in protocol.metrics():
        predictions, references, facts = answers[kind]
        if name == "molx" and kind == "classification":  # it reads "Yes" and "No" only
            predictions = [None if answer is None else answer.capitalize() for answer in predictions]
        table = protocol.score(kind, predictions, references, facts)
        for metric, estimate in table.metrics.items():
            if estimate.value is None:
                continue
            basis = stored(estimate)
            assert len(basis) == len(references)
            assert value_of(basis) == pytest.approx(estimate.value, rel=1e-12, abs=1e-300), metric
            assert np.asarray(value_of(basis, np.ones((2, len(basis))))) == pytest.approx(estimate.value, rel=1e-9)
            found += 1
    assert found


def test_intervals_are_those_of_the_score_file_to_sampling_error(
    answers: Mapping[AnswerKind, Rows], data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    for kind, (predictions, references, facts) in answers.items():
        for metric, estimate in Strict().score(kind, predictions, references, facts).metrics.items():
            if estimate.ci95 is None or metric == "r2":
                continue
            interval = over_examples([stored(estimate)])
            assert interval is not None
            assert interval.ci95 == pytest.approx(
                estimate.ci95, abs=0.2 * (estimate.ci95[1] - estimate.ci95[0]) + 1e-12
            ), (kind, metric)


def test_two_published_systems_on_3300_real_captions(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MolT5-large writes better captions than MolT5-small by every metric, and far beyond chance."""
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    large, small = (published(data_folder, f"molt5-{size}-smiles2caption") for size in ("large", "small"))
    assert [row["SMILES"] for row in large] == [row["SMILES"] for row in small]
    tables = [
        MolT5().score("caption", [row["output"] for row in rows], [row["ground truth"] for row in rows])
        for rows in (large, small)
    ]
    for name, estimate in tables[0].metrics.items():
        other = tables[1].metrics[name]
        assert estimate.value is not None
        assert other.value is not None
        found = paired([stored(estimate)], [stored(other)])
        assert found.difference == pytest.approx(estimate.value - other.value, abs=1e-12)
        assert (found.p, found.n) == (1e-4, 3300), name
        assert found.ci95 is not None
        assert 0.02 < found.ci95[0] < found.difference < found.ci95[1]
        assert found.detectable is not None
        assert found.detectable < found.difference
    same = [float(row["output"].strip() == row["ground truth"].strip()) for row in large]
    others = [float(row["output"].strip() == row["ground truth"].strip()) for row in small]
    counted = mcnemar(same, others)
    assert counted.only_a > counted.only_b
    assert counted.p < 1e-6
