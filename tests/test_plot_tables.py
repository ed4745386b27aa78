"""Plots that belong to tables: the p values of the table, stages in their order, parts of the examples."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run
from hypothesis import given
from hypothesis import strategies as st

from results import plots
from results.plots.learning import in_order
from results.plots.parts import breakdown_plot
from results.plots.rows import all_pairs, cells_of, cost_rows, difference_rows, loss_rows, stage_order, table_rows
from results.runs import ResultsError, Run, read_runs
from results.statistics import holm
from results.tables import build_table
from results.tables.plots import plots_of, write_plots

N = 60
GOLDS = ["yes" if place % 3 else "no" for place in range(N)]
STAGES = ["pretrain", "align", "tune", "polish"]


def labelled(runs: Path, name: str, share: float, seed: int = 0) -> Path:
    drawn = np.random.default_rng(seed + sum(map(ord, name))).random(N) < share
    answers = [gold if hit else "no" if gold == "yes" else "yes" for gold, hit in zip(GOLDS, drawn, strict=True)]
    return answered_run(runs, name, seed, GOLDS, answers, kind="classification", task="property")


def texts_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text"))]


# Differences


def test_a_forest_has_the_p_values_and_the_family_of_its_table(tmp_path: Path) -> None:
    for name, share in (("base", 0.6), ("one", 0.75), ("two", 0.9), ("three", 0.62)):
        labelled(tmp_path, name, share)
    runs = read_runs([tmp_path])
    table = build_table(runs, "strict", reference="base")
    rows = {row.name: row for row in table_rows(table, "accuracy")}
    assert rows.keys() == {"one", "two", "three"}
    every = [
        value.versus
        for row in table.rows
        for value in row.metrics.values()
        if value is not None and value.versus is not None
    ]
    assert table.differences_tested == sum(versus.p is not None for versus in every) > 3  # of several metrics
    adjusted = holm([versus.p for versus in every if versus.p is not None])
    for row in table.rows:
        value = row.metrics["accuracy"]
        assert value is not None
        if value.versus is None:
            continue
        found = rows[row.name]
        assert (found.difference, found.p, found.n) == (value.versus.difference, value.versus.adjusted, N)
        assert found.p in adjusted
        assert (found.low, found.high) == (value.versus.ci95 or (None, None))
        assert found.detectable == value.versus.detectable
    said = " ".join(" ".join(texts_of(plots_of(table, runs)["differences"]())).split())
    assert f"(Holm over the table's {table.differences_tested} differences)" in said
    assert "difference in accuracy from base" in said


def test_from_the_best_cell_all_pairs_are_corrected_for(tmp_path: Path) -> None:
    for name, share in (("a", 0.6), ("b", 0.75), ("c", 0.9)):
        labelled(tmp_path, name, share)
    cells = cells_of(read_runs([tmp_path]))
    alone = {row.name: row for row in difference_rows({name: cells[name] for name in ("a", "c")}, "accuracy", "c")}
    chosen = {row.name: row for row in difference_rows(cells, "accuracy", "c", chosen=True)}
    named = {row.name: row for row in difference_rows(cells, "accuracy", "c")}
    assert all_pairs(3) == 3
    assert alone["a"].p is not None
    assert chosen["a"].p == pytest.approx(min(1.0, 3 * alone["a"].p))
    assert named["a"].p == pytest.approx(2 * alone["a"].p)  # the smaller of two, by Holm
    assert (alone["a"].detectable or 0) < (named["a"].detectable or 0) < (chosen["a"].detectable or 0)


def test_cells_that_lack_the_metric_in_a_seed_are_on_no_front_and_never_the_best(tmp_path: Path) -> None:
    golds = [str(place % 7) for place in range(30)]
    for seed, error in enumerate((0.1, None)):
        answers = ["none" if error is None else f"{float(gold) + error}" for gold in golds]
        answered_run(tmp_path, "lucky", seed, golds, answers, kind="regression", task="property")
        for name, own in (("steady", 0.5), ("worse", 0.9)):
            answers = [f"{float(gold) + own * (1 + place % 2)}" for place, gold in enumerate(golds)]
            answered_run(tmp_path, name, seed, golds, answers, kind="regression", task="property")
    runs = read_runs([tmp_path])
    cells = cells_of(runs)
    assert [row.name for row in cost_rows(cells, "mae") if row.value is None] == ["lucky"]
    drawn = plots_of(build_table(runs, "strict", metrics=("mae",)), runs)
    said = " ".join(" ".join(texts_of(drawn["differences"]())).split())
    assert "difference in mae from steady" in said
    assert "corrected for all 1 pair of cells" in said
    assert "Not drawn: 1 cell without a difference." in said


# Stages


def staged(runs: Path, name: str, stages: list[str], logged: list[str] | None = None, seed: int = 0) -> None:
    folder = labelled(runs, name, 0.7, seed)
    result = json.loads((folder / "result.json").read_text())
    shown = stages if logged is None else logged
    result["stages"] = [
        {"name": stage, "validation": {"0": 2.0, "5": 1.0} if stage in shown else {}, "kept_step": 5, "steps": 5}
        for stage in stages
    ]
    (folder / "result.json").write_text(json.dumps(result))


def starts_of(figure: Any) -> list[str]:
    """Names of stages in the order of the axis."""
    axes = figure.axes[0]
    named = [(text.xy[0], text.get_text()) for text in axes.texts if text.get_text() in STAGES]
    return [name for _, name in sorted(named)]


def test_stages_stand_in_the_order_of_all_runs_not_of_the_first(tmp_path: Path) -> None:
    staged(tmp_path, "a-without-first", ["tune", "polish"])
    staged(tmp_path, "b", ["align", "tune"])
    staged(tmp_path, "c", ["pretrain", "align"])
    runs = read_runs([tmp_path])
    assert next(row.stage for row in loss_rows(runs)) == "tune"  # as rows name them first
    assert starts_of(plots.learning_curves(loss_rows(runs))) == STAGES
    assert stage_order(runs) == STAGES


def test_configurations_order_stages_that_no_run_has_both_of(tmp_path: Path) -> None:
    staged(tmp_path, "a", STAGES, ["tune"])
    staged(tmp_path, "b", STAGES, ["align"])
    runs = read_runs([tmp_path])
    rows = loss_rows(runs)
    assert starts_of(plots.learning_curves(rows, stages=stage_order(runs))) == ["align", "tune"]


def test_runs_that_have_not_finished_have_the_stages_of_their_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "a-s0-a"
    folder.mkdir()
    (folder / "status.json").write_text('{"state": "failed", "error": "nan"}')
    (folder / "config.yaml").write_text("stages: [{name: align}, {name: tune}]\n")
    assert stage_order(read_runs([tmp_path])) == ["align", "tune"]


@given(st.lists(st.lists(st.sampled_from(range(6)), unique=True)))
def test_an_order_of_stages_is_that_of_every_run_where_there_is_one(chosen: list[list[int]]) -> None:
    runs = [[str(stage) for stage in sorted(stages)] for stages in chosen]
    order = in_order(runs)
    assert sorted(order) == sorted({stage for stages in runs for stage in stages})
    for stages in runs:
        assert [stage for stage in order if stage in stages] == stages


def test_runs_that_contradict_each_other_have_every_stage_once() -> None:
    assert in_order([["a", "b"], ["b", "a"], ["b", "c"]]) == ["a", "b", "c"]
    assert in_order([]) == in_order([[]]) == []


# Parts of the examples


def captioned(runs: Path, name: str, gap: int, *, invalid: int = 7) -> Path:
    """Captions that are longer for larger molecules; every `invalid`-th answer could not be read."""
    golds = [f"The molecule has {place} atoms." for place in range(24)]
    answers = [
        None if invalid and place % invalid == 0 else f"{gold} {'so ' * (place // gap)}"
        for place, gold in enumerate(golds)
    ]
    folder = answered_run(runs, name, 0, golds, answers)
    result = json.loads((folder / "result.json").read_text())
    result["evaluations"][0] |= {"facts": "facts.jsonl.gz", "novelty": "novelty.json"}
    (folder / "result.json").write_text(json.dumps(result))
    place = runs / ".examples"
    place.mkdir(exist_ok=True)
    with gzip.open(place / "facts.jsonl.gz", "wt") as stream:
        for number in range(24):
            molecule = {"smiles": "C", "atoms": 4 + number, "groups": ["amide", "ester"][: 1 + number % 2]}
            stream.write(json.dumps({"example_id": f"m{number}", "molecules": [molecule]}) + "\n")
    seen = {f"m{number}": {"scaffold_seen": number % 2 == 0, "molecule_seen": False} for number in range(24)}
    (place / "novelty.json").write_text(json.dumps(seen))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("captions")
    captioned(folder, "short", 12)
    captioned(folder, "long", 3)
    return read_runs([folder])


def test_score_length_and_invalid_answers_are_drawn_by_size_novelty_and_group(runs: list[Run], tmp_path: Path) -> None:
    table = build_table(runs, "strict")
    written = list(write_plots(table, runs, tmp_path))
    names = {file.name for file in written if isinstance(file, Path)}
    for quantity in ("score", "words", "invalid"):
        for by in ("size", "scaffold", "group"):
            assert {f"table-{quantity}-by-{by}.svg", f"table-{quantity}-by-{by}.png"} <= names
    drawn = plots_of(table, runs)
    invalid, words = texts_of(drawn["invalid-by-size"]()), texts_of(drawn["words-by-scaffold"]())
    assert {"share of invalid answers (lower is better)", "heavy atoms"} <= set(invalid)
    assert {"words of the answer", "novelty of the scaffold"} <= set(words)


def test_what_says_nothing_is_not_drawn_and_said_once(tmp_path: Path) -> None:
    captioned(tmp_path, "clean", 3, invalid=0)
    cells = cells_of(read_runs([tmp_path]))
    with pytest.raises(ResultsError, match="invalid answers by heavy atoms: there is none"):
        breakdown_plot(cells, "invalid", "heavy atoms")
    with pytest.raises(ResultsError, match="fewer than two parts have 5 examples"):
        breakdown_plot(cells, "words", "molecule")
    labelled(tmp_path / "other", "one", 0.6)
    labelled(tmp_path / "other", "two", 0.8)
    found = read_runs([tmp_path / "other"])
    said = [
        line for line in write_plots(build_table(found, "strict"), found, tmp_path / "drawn") if isinstance(line, str)
    ]
    facts = [line for line in said if "facts of these examples" in line and "functional group" in line]
    assert facts == [line for line in said if line.startswith("no plot score-by-group, invalid-by-group: ")]
    assert len(facts) == 1
