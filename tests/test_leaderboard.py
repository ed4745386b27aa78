"""Leaderboards: which rows share a board, what is ranked and tested, what is embedded, and external predictions."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_runs import IDENTITY, random_values, scored_run

from bench.cli import _status
from results.leaderboard import Filter, Leaderboard, as_csv, as_html, as_json, budget_of, build
from results.leaderboard.board import Reliance
from results.leaderboard.embedding import _in_four_bytes, _in_two_bytes, _text, examples_as_data, unpacked
from results.leaderboard.examples import ExampleReader
from results.leaderboard.leading import against_first
from results.metrics import Directions
from results.packed import StudyOnFile
from results.packing import pack
from results.page import as_script_data, document, escape, fill, join
from results.runs import ResultsError, read_runs
from results.scores import example_scores
from results.statistics import paired

HOSTILE = "<img src=x onerror=alert(1)>"


def board_of(runs: Path, **options: Any) -> Leaderboard:
    return build(read_runs([runs]), **options)


# ---- the shell of pages ----


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    assert not set(escape(text)) & set("<>\"'")
    filled = fill('<p title="{}">{}</p>', text, text)
    assert filled.count("<") == 2
    assert join([text, fill("<b>{}</b>", text)]).count("<") == 2
    embedded = as_script_data({"name": text})
    assert not set(embedded) & set("<>&\u2028\u2029")
    assert json.loads(embedded) == {"name": text.encode("utf-8", "replace").decode()}


def test_a_page_forbids_every_request_and_runs_only_its_own_scripts() -> None:
    page = document(HOSTILE, fill("<h1>{}</h1>", HOSTILE), scripts=["data('x');"], data={"x": {"a": "</script>"}})
    assert "<img" not in page
    assert page.count("</script>") == 3
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy[1]
    assert "*" not in policy[1]
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    for broken in ({"styles": ["</style>"]}, {"scripts": ["'</script>'"]}, {"data": {"not a name": 1}}):
        with pytest.raises(ValueError, match=r"holds `</s`|letters and dashes"):
            document("", fill(""), **broken)  # type: ignore[arg-type]


# ---- boards ----


def test_rows_of_other_examples_or_rules_are_never_ranked_together(tmp_path: Path) -> None:
    values = {"meteor": [0.1, 0.2, 0.3]}
    scored_run(tmp_path, "a", values)
    scored_run(tmp_path, "b", values, entry={"examples_id": "others"})
    scored_run(tmp_path, "c", values, protocol="molt5@1")
    scored_run(tmp_path, "d", values, protocol="strict@2")
    scored_run(tmp_path, "e", values, identity={**IDENTITY, "tokenizer-sha256": "another"})
    scored_run(tmp_path, "f", values, entry={"split": "validation"})
    without = {"against": [{"data": "bundled/train"}], "by": "inchikey", "n": 4, "n_left": 3}
    scored_run(tmp_path, "g", values, without=without)
    scored_run(tmp_path, "h", values, identity={**IDENTITY, "numpy": "1.26.0"})
    boards = board_of(tmp_path).boards
    assert [[row.name for row in board.rows] for board in boards if len(board.rows) > 1] == [["a", "h"]]
    assert len(boards) == 7
    assert len({board.identity for board in boards}) == 7
    (shared,) = [board for board in boards if len(board.rows) > 1]
    assert shared.notes == ("Scored with several versions of numpy: 1.26.0, 2.4.6.",)
    assert boards[-1].without == "1 example whose molecules are in bundled/train (by inchikey)"


def test_seeds_of_a_cell_are_one_row_and_controls_are_another(tmp_path: Path) -> None:
    for seed, shift in enumerate((0.0, 0.1, 0.2)):
        scored_run(tmp_path, "gin", {"meteor": [0.2 + shift, 0.4] * 5}, seed=seed)
    asked = {"evaluation_id": "zeroed", "graph_input": {"name": "zero"}, "generation": {"beams": 5}}
    scored_run(tmp_path, "gin", {"meteor": [0.1, 0.1] * 5}, cell="cell of gin 2", entry=asked)
    scored_run(tmp_path, "same name", {"meteor": [0.3, 0.5] * 5}, cell="one")
    scored_run(tmp_path, "same name", {"meteor": [0.3, 0.4] * 5}, cell="two")
    (board,) = board_of(tmp_path).boards
    names = [row.name for row in board.rows]
    assert names[-1] == "gin, graphs zero at test, 5 beams"
    first, second = (row for row in board.rows if row.name.startswith("same name ("))
    assert first.name != second.name
    (gin,) = [row for row in board.rows if row.name == "gin"]
    figure = gin.metrics["meteor"]
    assert figure is not None
    assert (gin.seeds, len(gin.folders)) == ((0, 1, 2), 3)
    assert figure.mean == pytest.approx(0.35)
    assert figure.sd == pytest.approx(0.05)
    assert figure.ci95 == pytest.approx((0.35 - 4.302653 * 0.05 / math.sqrt(3), 0.35 + 4.302653 * 0.05 / math.sqrt(3)))
    assert gin.examples is not None
    np.testing.assert_allclose(gin.examples, [0.3, 0.4] * 5, rtol=1e-6)
    assert gin.reliance == Reliance(pytest.approx(0.01))
    assert dict(gin.budget) == {"trained": 50, "parameters": 150, "tokens": 500, "steps": 20, "seconds": 30}
    assert (first.metrics["meteor"] or figure).ci95 == pytest.approx((0.38, 0.42))  # of one run, as it was scored


def test_ranks_follow_the_metric_and_equal_values_share_one(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.7), ("c", 0.5), ("d", 0.4)):
        scored_run(tmp_path, name, {"meteor": [value, value], "levenshtein": [10 * value, 10 * value]})
    scored_run(tmp_path, "e", {"levenshtein": [1.0, 2.0]})
    (board,) = board_of(tmp_path).boards
    assert board.rank_by == board.test_metric == "meteor"
    assert [row.name for row in board.rows] == ["b", "a", "c", "d", "e"]
    assert board.ranks == [1, 2, 2, 4, None]
    (board,) = board_of(tmp_path, sort="levenshtein").boards
    assert [row.name for row in board.rows] == ["e", "d", "a", "c", "b"]  # the smaller is the better
    assert board.test_metric == "levenshtein"
    with pytest.raises(ResultsError, match="no board has this metric; there are levenshtein, meteor"):
        board_of(tmp_path, sort="bleu-9")


def test_a_corpus_metric_ranks_but_another_is_tested(tmp_path: Path) -> None:
    for name, value in (("a", 0.5), ("b", 0.6)):
        scored_run(tmp_path, name, {"bleu-2": [0.1, 0.2], "meteor": [value, value]}, corpus={"bleu-2": value})
    (board,) = board_of(tmp_path, sort="bleu-2").boards
    assert (board.rank_by, board.test_metric) == ("bleu-2", "meteor")
    assert board.level == (None, None)
    assert all(row.examples is not None for row in board.rows)


def test_filters_and_budgets(tmp_path: Path) -> None:
    values = {"meteor": [0.5, 0.6]}
    scored_run(tmp_path, "small", values, summary={"llm": "/models/Galactica-1.3b"})
    scored_run(tmp_path, "large", values, summary={"parameters": {"total": {"llm": 9}, "trained_sum": 10**7}})
    scored_run(tmp_path, "other", values, entry={"task": "iupac", "data": "/home/me/own.yaml", "examples_id": "x"})
    scored_run(tmp_path, "bare", values, summary={"parameters": None, "training_seconds": None, "stages": None})

    def names(**wanted: Any) -> list[str]:
        return sorted(r.name for board in board_of(tmp_path, wanted=Filter(**wanted)).boards for r in board.rows)

    assert names(task="iupac") == names(data="own") == ["other"]
    assert names(llm="galactica") == ["small"]
    assert names(protocol="strict") == names(protocol="strict@1") == names(split="test")
    assert names(budget=dict([budget_of("trained=1k")])) == ["other", "small"]
    assert names(budget=dict([budget_of("seconds=1m")])) == ["large", "other", "small"]
    with pytest.raises(ResultsError, match=r"no row is left.*iupac on own \(test\).*strict@1.*Galactica-1.3b"):
        names(task="forward")
    with pytest.raises(ResultsError, match="no row stays within trained=1"):
        names(budget={"trained": 1.0})
    for wrong in ("trained", "trained=", "trained=x", "weights=3", "seconds=3M", "trained=-1", "tokens=inf", "=3"):
        with pytest.raises(ResultsError, match="NAME=MOST is needed"):
            budget_of(wrong)
    assert budget_of("trained=1.5M") == ("trained", 1.5e6)
    assert budget_of("seconds=2h") == ("seconds", 7200.0)


def test_runs_without_scores_are_named(tmp_path: Path) -> None:
    scored_run(tmp_path, "a", {"meteor": [0.5, 0.6]})
    failed = tmp_path / "b-s0-1"
    failed.mkdir()
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "oom"}))
    assert board_of(tmp_path).unscored == (("b-s0-1", "oom"),)
    (tmp_path / "only").mkdir()
    failed.rename(tmp_path / "only" / HOSTILE.replace("/", ""))
    with pytest.raises(ResultsError, match="none of 1 runs has a score: 1 oom"):
        board_of(tmp_path / "only")


# ---- values by example ----


def test_values_by_example_are_those_of_the_score_file(tmp_path: Path) -> None:
    odd = ['"per_example": {"meteor": [9]', "meteor", "é\u2028]", "[", 'x"']
    folder = scored_run(tmp_path, "a", {"bleu-2": [1, 1, 1, 1, 1], "meteor": [0.5, None, 0, 1, 0.25]}, ids=odd)
    (run,) = read_runs([tmp_path])
    score = run.summary["evaluations"][0]["scores"][0]
    found = ExampleReader().read(run, score, "meteor")
    whole = example_scores(run, score)
    assert found is not None
    assert whole is not None
    assert found[0] == whole.example_ids == tuple(odd)
    np.testing.assert_array_equal(found[1], whole.values["meteor"].astype(np.float32))
    assert found[2] is True
    assert ExampleReader().read(run, score, "rouge-l") is None
    (file,) = folder.glob("scores/*.json")
    reordered = dict(reversed(json.loads(file.read_text()).items()))
    file.write_text(json.dumps(reordered, indent=1))  # as another program, or an older version, may write it
    again = ExampleReader().read(run, score, "meteor")
    assert again is not None
    np.testing.assert_array_equal(again[1], found[1])
    file.unlink()
    assert ExampleReader().read(run, score, "meteor") is None
    assert board_of(tmp_path).boards[0].test_metric is None


def test_examples_in_another_order_are_brought_into_one(tmp_path: Path) -> None:
    scored_run(tmp_path, "a", {"meteor": [0.1, 0.2, 0.9]}, ids=["x", "y", "z"])
    scored_run(tmp_path, "b", {"meteor": [0.9, 0.1, 0.2]}, ids=["z", "x", "y"])
    scored_run(tmp_path, "c", {"meteor": [0.9, 0.1, 0.2]}, ids=["z", "x", "w"])
    rows = {row.name: row.examples for row in board_of(tmp_path).boards[0].rows}
    assert rows["c"] is None  # other examples under the same identity: not compared
    assert rows["a"] is not None
    np.testing.assert_array_equal(rows["a"], rows["b"])


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1, width=32)), min_size=1, max_size=40))
def test_embedded_values_are_kept_to_a_hundred_thousandth(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    small = unpacked({"bytes": 2, "steps": 65534, "rows": [_text(_in_two_bytes(array))]}, 0)
    whole = unpacked({"bytes": 4, "rows": [_text(_in_four_bytes(array))]}, 0)
    np.testing.assert_allclose(small, array, atol=1e-5)
    np.testing.assert_array_equal(whole, array)
    exact = np.array([0, 1, 0.5, 1, 0], dtype=np.float32)
    np.testing.assert_array_equal(
        unpacked({"bytes": 2, "steps": 65534, "rows": [_text(_in_two_bytes(exact))]}, 0), exact
    )


def test_errors_above_one_are_embedded_whole(tmp_path: Path) -> None:
    scored_run(tmp_path, "a", {"mae": [0.5, 1e6, None]}, entry={"answer": "regression"})
    leaderboard = board_of(tmp_path)
    (data,) = examples_as_data(leaderboard)
    assert data is not None
    np.testing.assert_array_equal(unpacked(data, 0), np.array([0.5, 1e6, np.nan], dtype=np.float32))
    scored_run(tmp_path, "b", {"mae": [0.5, 0.5, 0.5]}, entry={"examples_id": "x"})
    assert examples_as_data(board_of(tmp_path, with_examples=False)) == [None, None]


# ---- the first and the rest ----


@pytest.mark.parametrize("n", [40, 600])
def test_rows_level_with_the_first_are_those_of_the_paired_test(tmp_path: Path, n: int) -> None:
    skills = (0.1, 0.095, 0.09, 0.06, 0.0)
    for number, skill in enumerate(skills):
        scored_run(tmp_path, f"run {number}", {"meteor": random_values(n, number, skill)})
    (board,) = board_of(tmp_path).boards
    runs = {run.name: run for run in read_runs([tmp_path])}

    def basis(name: str) -> Any:
        found = example_scores(runs[name], runs[name].summary["evaluations"][0]["scores"][0])
        assert found is not None
        return found.basis["meteor"]

    first, *others = (row.name for row in board.rows)
    ps = [paired([basis(first)], [basis(name)]).p for name in others]
    ordered = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    holm, before = [0.0] * len(ps), 0.0
    for position, (p, place) in enumerate(ordered):
        before = max(before, min(1.0, p * (len(ps) - position)))
        holm[place] = before
    assert all(abs(p - 0.05) > 0.01 for p in holm)  # none is so close that chance may turn it
    assert list(board.level) == [True, *(p >= 0.05 for p in holm)]
    assert board.level[-1] is False


def test_level_is_unknown_without_values() -> None:
    assert against_first([], "meteor", Directions()) == []


# ---- the forms ----


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    scored_run(tmp_path, "=HYPERLINK(1)", {"meteor": [0.5, 0.7] * 5})
    scored_run(tmp_path, HOSTILE, {"meteor": [0.25, 0.25] * 5}, summary={"external": True, "llm": None})
    leaderboard = board_of(tmp_path)
    (board,) = json.loads(as_json(leaderboard))["boards"]
    rows = list(csv.DictReader(io.StringIO(as_csv(leaderboard))))
    assert [row["name"] for row in board["rows"]] == ["=HYPERLINK(1)", HOSTILE]
    assert [row["name"] for row in rows] == ["'=HYPERLINK(1)", HOSTILE]
    for ours, line in zip(board["rows"], rows, strict=True):
        assert float(line["meteor"]) == ours["metrics"]["meteor"]["mean"]
        assert line["level_with_first"] == str(ours["level_with_first"]).lower()
        assert float(line["meteor low"]) == ours["metrics"]["meteor"]["ci95"][0]
        assert int(line["rank"]) == ours["rank"]
        assert line["external"] == str(ours["external"]).lower()
        assert line["board"] == board["board"]
        assert line["protocol"] == board["protocol"] == "strict@1"
    assert rows[1]["llm"] == ""
    test = board["rows"][1]["against_first"]
    assert (test["state"], test["shared n"], test["shared mean"], test["shared first"]) == ("behind", 10, 0.25, 0.6)
    assert [rows[1][name] for name in test] == [str(value) for value in test.values()]
    assert board["rows"][0]["against_first"] is None
    assert board["metrics"] == [{"name": "meteor", "better": "larger"}]


def test_the_page_names_everything_as_text(tmp_path: Path) -> None:
    scored_run(tmp_path, HOSTILE, {"meteor": [0.5, 0.7]}, entry={"task": HOSTILE, "data": "</script>"})
    page = as_html(board_of(tmp_path), HOSTILE)
    assert "<img" not in page
    assert page.count("</script>") == page.count("<script")
    assert as_html(board_of(tmp_path), HOSTILE) == page  # the same bytes again


def test_a_packed_study_gives_the_same_board(tmp_path: Path) -> None:
    live = tmp_path / "runs"
    for number in range(3):
        scored_run(live, f"run {number}", {"meteor": random_values(50, number)})
    packing = StudyOnFile("small", "", (), tuple(read_runs([live])), (), (), {})
    pack(packing, tmp_path / "packed")
    ours, packed = board_of(live).boards[0], board_of(tmp_path / "packed").boards[0]
    assert [row.name for row in ours.rows] == [row.name for row in packed.rows]
    assert packed.test_metric == "meteor"
    for one, other in zip(ours.rows, packed.rows, strict=True):
        assert one.examples is not None
        np.testing.assert_allclose(one.examples, other.examples, rtol=1e-5)


# ---- the command ----


def test_the_command_writes_what_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scored_run(tmp_path / "runs", "a", {"meteor": [0.5, 0.7]})
    scored_run(tmp_path / "runs", "b", {"meteor": [0.4, 0.7]})
    assert _status(["leaderboard"]) == 0
    assert "wrote leaderboard.html: 2 rows on 1 board\n" in capsys.readouterr().out
    assert Path("leaderboard.html").read_text().startswith("<!doctype html>")
    for form in ("json", "csv"):
        assert _status(["leaderboard", "runs", f"--{form}"]) == 0
        printed = capsys.readouterr().out
        assert _status(["leaderboard", "runs", "-o", f"board.{form}"]) == 0
        capsys.readouterr()
        assert Path(f"board.{form}").read_text() == printed
    assert json.loads(Path("board.json").read_text())["boards"][0]["rows"][0]["name"] == "a"
    for wrong, why in (
        (["--json", "--csv"], "one of the two"),
        (["-o", "board.pdf"], "ends in .html, .json, .csv"),
        (["--budget", "x=1"], "NAME=MOST"),
        (["--task", "forward"], "no row is left"),
        (["no-such-study"], "no-such-study"),
        (["--tracking", "sqlite:///nowhere.db"], "there is no such file"),
        (["runs", "--tracking", "sqlite:///nowhere.db"], "is not read as well"),
    ):
        assert _status(["leaderboard", *wrong]) == 2
        assert why in capsys.readouterr().err
    assert not Path("nowhere.db").exists()
