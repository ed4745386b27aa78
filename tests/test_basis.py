"""What a metric says it is computed from gives its value, and that of any part of the rows."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from conftest import QUICK
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cli import _status
from bench.experiment import run
from bench.identity import content_hash
from bench.preset import load_config
from bench.registry import registry
from bench.run_store import read_json, write_json
from bench.runtime import Runtime
from bench.scores import Without, rescore
from tasks.base import AnswerKind, Basis, Estimate
from tasks.metrics.base import Metric, Pairs, Protocol, RowFacts, basis_of
from tasks.metrics.protocol_molx import MolX
from tasks.metrics.protocols import MolT5, Strict

Rows = list[tuple[float, ...]]

# The formulas once more, as plainly as they can be written; None where they are undefined.


def _share(over: float, under: float) -> float | None:
    return over / under if under else None


def _mean(rows: Rows) -> float | None:
    return _share(math.fsum(row[0] for row in rows), len(rows))


def _bleu(rows: Rows) -> float | None:
    sums = [math.fsum(column) for column in zip(*rows, strict=True)]
    orders = len(sums) // 2 - 1
    if not sums[0]:
        return 0.0
    logs = [math.log(m / p if m else sys.float_info.min) for m, p in zip(sums[:orders], sums[orders:-2], strict=True)]
    return min(1.0, math.exp(1 - sums[-1] / sums[-2])) * math.exp(math.fsum(logs) / orders)


def _rmse(rows: Rows) -> float | None:
    most = max(row[0] for row in rows) or 1.0
    return most * math.sqrt(math.fsum((row[0] / most) ** 2 for row in rows) / len(rows))


def _r2(rows: Rows) -> float | None:
    mean = math.fsum(gold for gold, _ in rows) / len(rows)
    share = _share(math.fsum((said - gold) ** 2 for gold, said in rows), math.fsum((g - mean) ** 2 for g, _ in rows))
    return None if share is None else 1 - share


def _f1(rows: Rows) -> float | None:
    hits, wrong, missed = (math.fsum(column) for column in zip(*rows, strict=True))
    return _share(2 * hits, 2 * hits + wrong + missed)


def _macro_f1(rows: Rows) -> float | None:
    named = sorted({name for row in rows for name in row if name >= 0})
    found = [_f1([(g == s == name, s == name != g, g == name != s) for g, s in rows]) for name in named]
    return _mean([(value,) for value in found if value is not None])


def _area(rows: Rows) -> float | None:
    positive, negative = ([score for score, label in rows if label == which] for which in (1, 0))
    won = math.fsum((p > n) + (p == n) / 2 for p in positive for n in negative)
    return _share(won, len(positive) * len(negative))


FORMULAS: dict[str, Callable[[Rows], float | None]] = {
    "mean": _mean,
    "sum": lambda rows: math.fsum(row[0] for row in rows),
    "ratio": lambda rows: _share(math.fsum(part for part, _ in rows), math.fsum(whole for _, whole in rows)),
    "rmse": _rmse,
    "r2": _r2,
    "f1": _f1,
    "macro-f1": _macro_f1,
    "roc-auc": _area,
    **{f"bleu-{orders}": _bleu for orders in (2, 4)},
}


def value_of(estimate: Estimate, kept: Sequence[int] | None = None) -> float | None:
    """A metric from its basis, over some rows."""
    basis = basis_of(estimate)
    assert basis is not None
    rows = basis.rows
    if rows is None:
        assert estimate.per_example is not None
        rows = [None if value is None else (value,) for value in estimate.per_example]
    by_group: dict[str, Rows] = defaultdict(list)
    for place in range(len(rows)) if kept is None else kept:
        row = rows[place]
        if row is not None:
            by_group["" if basis.groups is None else basis.groups[place]].append(tuple(row))
    found = [FORMULAS[basis.formula](part) for part in by_group.values()]
    return _mean([(value,) for value in found if value is not None])


def check(table: Any, n: int) -> set[str]:
    """Each value follows from its basis; the names of the formulas."""
    for name, estimate in table.metrics.items():
        if estimate.value is None:
            assert basis_of(estimate) is None, name
            continue
        basis = basis_of(estimate)
        assert basis is not None, f"{name} has no basis, so that no paired test can be made"
        assert basis.rows is None or len(basis.rows) == n
        assert basis.groups is None or len(basis.groups) == n
        assert value_of(estimate) == pytest.approx(estimate.value, rel=1e-12, abs=1e-12), name
    return {basis.formula for e in table.metrics.values() if (basis := basis_of(e)) is not None}


def published(data_folder: Path, name: str) -> list[dict[str, str]]:
    with gzip.open(data_folder / "oracle_predictions" / f"{name}.txt.gz", "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


SHIPPED = sorted(registry().all("protocol"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_metric_of_every_protocol_follows_from_its_basis(
    name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    protocol: Protocol = registry().get("protocol", name)()
    drawn = random.Random(3)
    numbers = [drawn.gauss(0, 2) for _ in range(300)]
    words = [drawn.choice(("Yes", "No")) for _ in range(300)]
    captions, molecules = (published(data_folder, f"molt5-large-{kind}")[:300] for kind in CAPTIONS_AND_MOLECULES)
    smiles = [row.get("SMILES") or row.get("smiles") or "" for row in captions]
    rows: dict[str, tuple[list[str | None], list[str]]] = {
        "caption": ([row["output"] for row in captions], [row["ground truth"] for row in captions]),
        "molecule": ([row["output"] for row in molecules], [row["ground truth"] for row in molecules]),
        "classification": ([drawn.choice((word, "No", "Yes", "perhaps")) for word in words], list(words)),
        "regression": ([f"{number + drawn.gauss(0, 1):.3f}" for number in numbers], [f"{n:.2f}" for n in numbers]),
    }
    assert set(rows) == set(get_args(AnswerKind))
    for kind in protocol.metrics():
        predictions, references = rows[kind]
        for place in range(0, 300, 41):  # what nobody can read, and what some protocols leave out
            predictions[place] = drawn.choice((None, "", "C1CC", "a\tb", "nothing"))
        if name == "instructmol" and kind == "regression":  # its script stops at an answer that is no number
            predictions = [answer if answer and answer[-1].isdigit() else "0.5" for answer in predictions]
        facts = RowFacts(molecules=[(each,) for each in smiles] if kind == "caption" else None)
        table = protocol.score(kind, predictions, references, facts)
        assert check(table, 300)
        assert any(estimate.value is not None for estimate in table.metrics.values())


CAPTIONS_AND_MOLECULES = ("smiles2caption", "caption2smiles")


def test_a_part_of_the_rows_has_the_value_that_these_rows_have_alone(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    rows = published(data_folder, "molt5-large-smiles2caption")[:120]
    kept = random.Random(1).sample(range(120), 50)
    whole, part = (
        MolT5().score("caption", [row["output"] for row in some], [row["ground truth"] for row in some])
        for some in (rows, [rows[place] for place in kept])
    )
    for name, estimate in whole.metrics.items():
        assert value_of(estimate, kept) == pytest.approx(part.metrics[name].value, rel=1e-12), name


LABELS = ("yes", "no")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(LABELS),
            st.sampled_from((*LABELS, None, "well")),
            st.none() | st.integers(0, 6).map(lambda k: k / 6),
            st.sampled_from(("a", "b", "c")),
        ),
        min_size=1,
        max_size=30,
    ),
    st.booleans(),
)
def test_classes_in_groups(rows: list[tuple[str, str | None, float | None, str]], grouped: bool) -> None:
    golds, answers, probabilities, groups = [list(column) for column in zip(*rows, strict=True)]
    facts = RowFacts(probabilities=probabilities, groups=groups if grouped else None)
    table = Strict().score("classification", answers, golds, facts)
    check(table, len(rows))
    known = basis_of(table.metrics["roc-auc"])
    if known is not None and known.rows is not None:
        assert all(math.isfinite(number) for row in known.rows if row for number in row)
    if len(set(groups)) == 1:
        assert all(b.groups is None for e in table.metrics.values() if (b := basis_of(e)) is not None)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("red", "green", "blue")),
            st.sampled_from(("red", "green", "white", None)),
            st.sampled_from("ab"),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_labels_without_a_positive_one(rows: list[tuple[str, str | None, str]]) -> None:
    golds, answers, groups = [list(column) for column in zip(*rows, strict=True)]
    assert check(Strict().score("classification", answers, golds), len(rows)) == {"mean", "macro-f1"}
    grouped = Strict().score("classification", answers, golds, RowFacts(groups=groups)).metrics["f1"]
    if len(set(groups)) == 1:
        assert value_of(grouped) == pytest.approx(grouped.value, abs=1e-12)


def test_scores_that_are_no_probabilities_keep_their_order() -> None:
    answers = ["-3.5", "7", "2e300", None, "-3.5", None]
    golds = ["no", "yes", "yes", "yes", "no", "no"]
    table = Strict().score("classification", answers, golds)
    (area,) = (estimate for name, estimate in table.metrics.items() if name == "roc-auc")
    assert area.basis is not None
    assert area.basis.rows == [(0, 0), (1, 1), (2, 1), (-1, 1), (0, 0), (3, 0)]
    assert value_of(area) == pytest.approx(area.value, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3), st.none() | st.floats(-1e3, 1e3), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_numbers(rows: list[tuple[float, float | None, bool]]) -> None:
    golds = [repr(round(gold, 3)) for gold, _, _ in rows]
    answers = [None if said is None else f"about {said:.4f}" if worded else repr(said) for _, said, worded in rows]
    table = Strict().score("regression", answers, golds)
    for name, estimate in table.metrics.items():
        if estimate.value is not None:
            assert value_of(estimate) == pytest.approx(estimate.value, rel=1e-9, abs=1e-9), name


def test_an_error_whose_square_is_no_number_can_still_be_written() -> None:
    estimate = Strict().score("regression", ["1e300", "2", None], ["1", "2", "3"]).metrics["rmse"]
    assert estimate.basis is not None
    assert estimate.basis.rows == [(1e300,), (0.0,), None]
    assert value_of(estimate) == pytest.approx(estimate.value, rel=1e-12)


def test_rows_that_a_protocol_leaves_out_have_no_part(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLGRAFT_DATA", str(data_folder))
    facts = RowFacts(groups=["one", "two", "two", "one"])
    table = MolX().score("classification", ["Yes", "well", "No", "No"], ["Yes", "Yes", "Yes", "No"], facts)
    basis = basis_of(table.metrics["f1"])
    assert basis == Basis("macro-f1", [(1, 1), None, (1, 0), (0, 0)])
    table = LeavesOut().score("classification", ["yes", "well", "no", "no"], ["yes", "yes", "yes", "no"], facts)
    assert basis_of(table.metrics["f1"]) == Basis(
        "f1", [(1, 0, 0), None, (0, 0, 1), (0, 0, 0)], ["one", "", "two", "one"]
    )
    assert check(table, 4) == {"f1", "mean"}


class LeavesOut(Strict):
    """As strict, without the answers that name no label."""

    def admits(self, kind: AnswerKind, prediction: str | None, reference: str) -> bool:
        return prediction != "well"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Own(Metric):
    name: ClassVar[str] = ""
    value: float

    def estimate(self, pairs: Pairs) -> Estimate:
        return Estimate(self.value, per_example=[1.0, None, 2.0])


def test_a_metric_of_ones_own_that_says_nothing_is_a_mean_where_it_is_one() -> None:
    pairs = Pairs(["a", "b", "c"], ["a", "b", "c"])
    assert basis_of(_Own(value=1.5).estimate(pairs)) == Basis("mean")
    assert basis_of(_Own(value=1.6).estimate(pairs)) is None
    assert basis_of(Estimate(None, reason="nothing", per_example=[None])) is None
    assert basis_of(Estimate(1.5)) is None


# Score files


def test_old_score_files_are_made_again_with_what_they_lack_and_no_number_changes(
    tmp_path: Path, session_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config("demo", [*QUICK, "evaluation.protocols=[strict]"])
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")
    folder = run(config, runtime).run.path
    rescore(folder, [Strict()], Without(("training",)), runtime=runtime)
    files = sorted((folder / "scores").glob("*.json"))
    assert len(files) == 2
    result = read_json(folder / "result.json")
    fresh = {file: file.read_bytes() for file in files}
    for file in files:
        known = read_json(file)
        assert list(known) == ["summary", "example_ids", "per_example", "basis", "invalid"]
        n = len(known["example_ids"])
        for name, metric in known["summary"]["metrics"].items():
            if metric["value"] is None:  # METEOR, where there is no WordNet
                assert name not in known["basis"]
                continue
            said = known["basis"][name]
            estimate = Estimate(metric["value"], per_example=known["per_example"].get(name), basis=Basis(**said))
            assert value_of(estimate) == pytest.approx(metric["value"], rel=1e-12)
            assert said["formula"] == name if name.startswith("bleu") else said == {"formula": "mean"}
            assert len(said.get("rows", known["per_example"][name])) == n
        write_json(file, {key: value for key, value in known.items() if key != "basis"})

    assert _status(["score", str(folder)]) == 0
    assert "strict@1: bleu-2 " in capsys.readouterr().out
    assert {file: file.read_bytes() for file in files} == fresh
    assert content_hash(read_json(folder / "result.json")) == content_hash(result)
    before = [file.stat().st_mtime_ns for file in files]
    rescore(folder, None, runtime=runtime)
    assert [file.stat().st_mtime_ns for file in files] == before
    assert json.loads(files[0].read_text()) == read_json(files[0])


@pytest.mark.parametrize("arguments", [(), ("--without", "training"), ("--set", "tokenizer=words")])
def test_only_a_run_as_it_was_is_scored_without_a_protocol(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path
    if not arguments:
        place = tmp_path / "predictions.tsv"
        place.write_text("output\treference\na\tb\n")
    assert _status(["score", str(place), "--task", "caption", *arguments]) == 2
    assert "--protocol: which one?" in capsys.readouterr().err
