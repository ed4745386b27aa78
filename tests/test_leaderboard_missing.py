"""Leaderboards where something is missing: examples without a value, seeds without a metric, too few examples."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_runs import IDENTITY, random_values, scored_run

from results.leaderboard import Board, Row, as_csv, as_json, build
from results.leaderboard.board import Reliance
from results.leaderboard.leading import against_first
from results.metrics import Directions
from results.runs import evaluations_of, read_runs
from results.statistics import FEWEST_EXAMPLES, Basis, paired
from results.tables.gather import Answer

ASKED = {"task": "property-regression", "answer": "regression"}


def board_of(runs: Path, **options: Any) -> Board:
    (board,) = build(read_runs([runs]), **options).boards
    return board


def lines_of(runs: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(build(read_runs([runs]))))))


def row_with(examples: list[float]) -> Row:
    nothing: dict[str, Any] = dict.fromkeys(("encoder", "projector", "llm", "text_input", "n_invalid", "reliance"))
    values = np.array(examples, dtype=np.float32)
    return Row(
        name="a", identity="a", folders=(), external=False, seeds=(), metrics={}, budget={}, examples=values, **nothing
    )


# ---- examples without a value ----


def without_hard_ones(runs: Path) -> None:
    """Of 40 examples `easy` answers half, and well; `whole` answers all, and these better; `alike` just as well."""
    easy, hard = [0.1 + n / 1000 for n in range(20)], [1.0] * 20
    scored_run(runs, "easy", {"mae": [*easy, *[None] * 20]}, entry=ASKED)
    scored_run(runs, "whole", {"mae": [*(value / 2 for value in easy), *hard]}, entry=ASKED)
    scored_run(
        runs, "alike", {"mae": [*(value + 0.01 * (-1) ** n for n, value in enumerate(easy)), *hard]}, entry=ASKED
    )
    scored_run(runs, "worse", {"mae": [*(3 * value for value in easy), *hard]}, entry=ASKED)
    scored_run(runs, "other half", {"mae": [*[None] * 20, *hard]}, entry=ASKED)


def test_rows_are_tested_on_the_examples_that_both_have(tmp_path: Path) -> None:
    without_hard_ones(tmp_path)
    board = board_of(tmp_path)
    assert [row.name for row in board.rows] == ["easy", "whole", "alike", "worse", "other half"]
    assert board.ranks == [1, 2, 3, 4, 5]  # by their own means
    first, whole, alike, worse, other = board.against
    assert first is other is None
    assert whole is not None
    assert alike is not None
    assert worse is not None
    assert [test.n for test in (whole, alike, worse)] == [20, 20, 20]
    assert [test.state for test in (whole, alike, worse)] == ["ahead", "level", "behind"]
    assert (whole.own, whole.first) == pytest.approx((0.05475, 0.1095), rel=1e-5)
    assert worse.own == pytest.approx(0.3285, rel=1e-5)
    assert board.level == (True, False, True, False, None)
    (exported,) = json.loads(as_json(build(read_runs([tmp_path]))))["boards"]
    assert [row["level_with_first"] for row in exported["rows"]] == list(board.level)
    for line, test in zip(lines_of(tmp_path), board.against, strict=True):
        shown = [line[name] for name in ("state", "shared n", "shared mean", "shared first", "p")]
        assert shown == ([""] * 5 if test is None else [test.state, *map(str, (test.n, test.own, test.first, test.p))])


def test_few_shared_examples_among_many_are_tested_exactly(tmp_path: Path) -> None:
    """Five differences of one sign: p is 2 / 32, while that of a normal distribution would be 0.025."""
    few = [1.0 if n < 5 else None for n in range(600)]
    scored_run(tmp_path, "whole", {"mae": [0.5] * 600}, entry=ASKED)
    scored_run(tmp_path, "few", {"mae": few}, entry=ASKED)
    test = board_of(tmp_path).against[1]
    assert test is not None
    assert (test.n, test.own, test.first, test.p, test.state) == (5, 1.0, 0.5, 2 / 32, "level")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_p_is_that_of_the_statistics_on_the_shared_examples(data: st.DataObject) -> None:
    n = data.draw(st.sampled_from((3, 9, 13, 40, 260)), label="n")
    random = np.random.default_rng(data.draw(st.integers(0, 10**6), label="seed"))
    values = random.normal(0, 1, (4, n)) + data.draw(st.floats(0, 0.5), label="shift") * np.arange(4)[:, None]
    values[random.random((4, n)) < data.draw(st.sampled_from((0.0, 0.2)), label="missing")] = math.nan
    values = values.astype(np.float32)
    found = against_first([row_with(row.tolist()) for row in values], "mae", Directions())
    ps = []
    for row, test in zip(values[1:], found[1:], strict=True):
        shared = ~np.isnan(row) & ~np.isnan(values[0])
        if not shared.any():
            assert test is None
            continue
        ours = paired(*([Basis("mean", some[shared, None].astype(np.float64))] for some in (row, values[0])))
        assert test is not None
        assert ours.p is not None
        assert test.n == ours.n == shared.sum()
        assert test.own - test.first == pytest.approx(ours.difference, abs=2e-5)  # of six digits
        ps.append((ours.p, test.p, int(shared.sum())))
    for rank, (ours_p, adjusted, shared_n) in enumerate(sorted(ps)):
        if rank == 0:  # Holm multiplies the smallest by how many there are
            expected, n_tests = min(1.0, ours_p * len(ps)), len(ps)
            # Five standard errors of the difference of two shares of 10,000, and what a normal distribution is off by.
            by_chance = 5 * n_tests * (2 * max(ours_p, 1e-4) * (1 - ours_p) / 1e4) ** 0.5 + 3e-3 * n_tests
            assert adjusted == pytest.approx(expected, abs=1e-9 if shared_n <= 13 else by_chance)


# ---- seeds without a metric ----


def test_a_mean_of_some_seeds_is_counted_and_has_no_rank(tmp_path: Path) -> None:
    for seed in range(4):
        values = {"mae": [0.5 + seed / 100] * 20}
        scored_run(tmp_path, "whole", values, corpus={"r2": 0.5}, seed=seed, entry=ASKED)
        scored_run(tmp_path, "lucky", values, corpus={"r2": None if seed == 2 else 0.9}, seed=seed, entry=ASKED)
    scored_run(tmp_path, "nothing", {"mae": [0.1] * 20}, corpus={"r2": None}, entry=ASKED)
    board = board_of(tmp_path, sort="r2")
    assert [row.name for row in board.rows] == ["whole", "lucky", "nothing"]
    assert board.ranks == [1, None, None]
    whole, lucky, nothing = (row.metrics["r2"] for row in board.rows)
    assert whole is not None
    assert lucky is not None
    assert nothing is None
    assert (whole.counted, whole.is_complete, whole.ci95 is not None) == ("", True, True)
    assert (lucky.counted, lucky.is_complete) == ("3 of 4 seeds", False)
    assert lucky.mean == pytest.approx(0.9)
    assert (lucky.sd, lucky.ci95, lucky.why) == (None, None, "seed 2: no answer is a number")
    (note,) = board.notes
    assert note.endswith("take part in no test: lucky in r2: 3 of 4 seeds (seed 2: no answer is a number).")
    lines = {line["name"]: line for line in lines_of(tmp_path)}
    assert [lines[name]["r2 seeds"] for name in ("whole", "lucky", "nothing")] == ["", "3 of 4 seeds", ""]
    (exported,) = json.loads(as_json(build(read_runs([tmp_path]))))["boards"]
    of_lucky = next(row for row in exported["rows"] if row["name"] == "lucky")["metrics"]["r2"]
    assert (of_lucky["seeds"], of_lucky["why"]) == (lucky.counted, lucky.why)


def test_a_cell_that_lacks_the_tested_metric_in_a_seed_is_not_tested(tmp_path: Path) -> None:
    for seed in range(3):
        scored_run(tmp_path, "whole", {"mae": random_values(30, seed)}, seed=seed, entry=ASKED)
        values = {"mae": random_values(30, seed + 5)}
        scored_run(tmp_path, "lucky", values, corpus={"mae": None} if seed else None, seed=seed, entry=ASKED)
    board = board_of(tmp_path)
    assert [row.name for row in board.rows] == ["whole", "lucky"]
    assert board.rows[1].examples is None
    assert board.against == (None, None)
    assert board.level == (None, None)


# ---- too few examples ----


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("n", [FEWEST_EXAMPLES - 1, FEWEST_EXAMPLES])
def test_there_is_no_interval_below_as_many_examples_as_elsewhere(tmp_path: Path, n: int, seeds: int) -> None:
    for seed in range(seeds):
        scored_run(tmp_path, "a", {"meteor": random_values(n, seed)}, seed=seed)
    figure = board_of(tmp_path).rows[0].metrics["meteor"]
    assert figure is not None
    assert (figure.ci95 is not None) == (n == FEWEST_EXAMPLES)


# ---- examples that are left out ----


def test_reliance_is_of_the_examples_that_are_left(tmp_path: Path) -> None:
    without = {"against": [{"data": "bundled/train"}], "by": "inchikey", "n": 4, "n_left": 2}
    for seed in (0, 1):
        stated = {"reliance": {"value": 0.4, "reliance_id": "gains"}}
        folder = scored_run(tmp_path, "a", {"meteor": [0.1, 0.2, 0.3, 0.4]}, seed=seed, entry=stated)
        scored_run(tmp_path, "a", {"meteor": [0.1, 0.2]}, seed=seed, ids=["m0", "m3"], without=without)
        gains = [0.1 + seed / 10, 0.6, 0.6, 0.3 + seed / 10]
        lines = [{"example_id": f"m{n}", "gain": gain, "counts": n != 1} for n, gain in enumerate(gains)]
        (folder / "reliance").mkdir()
        (folder / "reliance" / "gains.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def reliances() -> dict[str, Reliance | None]:
        return {board.without: board.rows[0].reliance for board in build(read_runs([tmp_path])).boards}

    left = "2 examples whose molecules are in bundled/train (by inchikey)"
    assert reliances() == {"": Reliance(pytest.approx(0.4)), left: Reliance(pytest.approx(0.25))}
    (folder / "reliance" / "gains.jsonl").unlink()
    assert reliances()[left] == Reliance(pytest.approx(0.2), "1 of 2 seeds")
    for file in tmp_path.glob("*/reliance/gains.jsonl"):
        file.unlink()
    whole, decontaminated = build(read_runs([tmp_path])).boards
    assert (whole.rows[0].reliance, decontaminated.rows[0].reliance) == (Reliance(pytest.approx(0.4)), None)
    assert not whole.notes
    assert "also of those that are left out here" in decontaminated.notes[0]


def test_reliance_says_of_how_many_seeds_it_is(tmp_path: Path) -> None:
    for seed, value in enumerate((0.1, None, 0.3)):
        scored_run(tmp_path, "a", {"meteor": [0.5, 0.6]}, seed=seed, entry={"reliance": {"value": value}})
    assert board_of(tmp_path).rows[0].reliance == Reliance(pytest.approx(0.2), "2 of 3 seeds")
    assert lines_of(tmp_path)[0]["reliance seeds"] == "2 of 3 seeds"


# ---- what separates rows ----


@pytest.mark.parametrize(
    ("key", "together"),
    [("ci95", True), ("scipy", True), ("opsin", True), ("positive", False), ("limit", False), ("metrics", False)],
)
def test_rows_share_a_board_where_they_share_a_table(tmp_path: Path, key: str, together: bool) -> None:
    for number in (1, 2):
        values = {"meteor": random_values(20, number)}
        scored_run(tmp_path, f"run {number}", values, identity={**IDENTITY, key: f"value {number}"})
    runs = read_runs([tmp_path])
    answers = [Answer(run, entry, entry["scores"][0]) for run in runs for entry in evaluations_of(run, "test")]
    assert (answers[0].comparable == answers[1].comparable) == together
    boards = build(runs).boards
    assert len(boards) == 2 - together
    assert len(boards[0].notes) == together
