"""Reports of studies: what they say, what they hold, and that they work whatever is missing."""

from __future__ import annotations

import gzip
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import QUICK
from hypothesis import given
from hypothesis import strategies as st
from report_study import HOSTILE_SVG, Written, write_study

from bench.cli import _status
from bench.facts import Asked, write_facts
from bench.runtime import Runtime
from results.depictions import MOST_BYTES, compacted, sanitised
from results.formats import plain, probability
from results.packed import pack, read_study
from results.report import Report, as_html, build_report, headlines, read_source
from results.report.answers import Answer, CellAnswers, Question
from results.report.examples import LISTS, LONGEST_TEXT, browser, choose
from results.report.provenance import origins
from results.report.recipe import ABSENT, differences, in_words, settings_in_common
from results.report.sentences import Compared, Standing, answer, caveats, comparison
from results.runs import ResultsError, read_runs
from results.statistics import Basis, paired
from tasks.depiction import as_svg, read_molecule
from tasks.example_facts import compact

CELLS = {"good": 0.9, "middle": 0.75, "middle-too": 0.74, "poor": 0.5}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells of three seeds: two that differ from the others and two that are alike."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder, Written(CELLS, n=48, gains={"good": 0.05, "middle": 0.0, "poor": -0.05}))
    return folder


@pytest.fixture(scope="module")
def report(runs: Path) -> Report:
    return build_report(read_study("made-up", runs))


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return as_html(report)


def visible(page: str) -> str:
    """The text of a page without its scripts, styles and embedded data."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


# The answer


def test_the_best_cell_is_compared_with_all_others_for_all_pairs(report: Report) -> None:
    (part,) = report.parts
    assert part.reference is None
    assert [standing.cell for standing in part.standings] == sorted(CELLS, key=lambda cell: -CELLS[cell])
    assert {item.cell for item in part.compared} == {"middle", "middle-too", "poor"}
    assert all(item.other == "good" and item.is_shown and not item.is_better for item in part.compared)
    assert all(item.correction == "for all 6 pairs of cells" for item in part.compared)
    (found,) = headlines(report)
    assert found.startswith(f"“good” has the best bleu-2 ({part.standings[0].value:.3f}, 95% interval ")
    assert "is better than all 3 others; the closest is “middle” (\N{MINUS SIGN}0." in found
    assert "48 examples, 3 seeds each" in found
    assert any("came out best" in caveat for caveat in part.caveats)


def test_its_statistics_are_those_of_the_paired_test(runs: Path, report: Report) -> None:
    from results.scores import example_scores

    cells: dict[str, list[Basis]] = {}
    for run in read_study("made-up", runs).runs:
        scores = example_scores(run, run.summary["evaluations"][0]["scores"][0])
        assert scores is not None
        cells.setdefault(run.name, []).append(scores.basis["bleu-2"])
    expected = paired(cells["middle"], cells["good"], two_way=True)
    (found,) = (item for item in report.parts[0].compared if item.cell == "middle")
    assert found.difference == expected.difference
    assert found.ci95 == expected.ci95
    assert expected.p is not None
    assert found.p == pytest.approx(min(1.0, expected.p * 6))
    assert found.n == expected.n == 48
    assert found.is_over_seeds


def test_a_named_reference_says_what_the_table_says(runs: Path) -> None:
    report = build_report(read_study("made-up", runs), compare_to="middle")
    (part,) = report.parts
    (found,) = headlines(report)
    assert part.reference == "middle"
    assert "is better than “middle” in bleu-2; “poor”" in found
    assert "is worse; for “middle-too” no difference could be shown; differences larger than 0.0" in found
    assert found.endswith("would have been found with 80% power.")
    assert "after Holm" in found
    (too,) = (item for item in part.compared if item.cell == "middle-too")
    assert too.correction == "Holm over the table's 12 differences"
    assert too.p is not None
    (html,) = part.tables
    assert probability(too.p) in html  # the same p, to the last digit that is shown
    assert too.detectable is not None
    assert too.ci95 is not None
    # Of a test at 5% / 12 the detectable difference is larger than at 5%, and that is larger than half the interval.
    assert too.detectable > 1.4 * (too.ci95[1] - too.ci95[0]) / 2


def test_a_null_says_what_would_have_been_found() -> None:
    item = Compared("a", "b", "bleu-2", False, 0.002, (-0.010, 0.014), 0.714, 12, (2, 2), 0.034)
    assert comparison(item) == (
        "No difference between “a” and “b” in bleu-2 could be shown (+0.0020, 95% interval \N{MINUS SIGN}0.010 "
        "to +0.014, p = 0.714, 12 examples, 2 seeds each); differences larger than 0.034 would have been found with "
        "80% power."
    )


@pytest.mark.parametrize(("smaller", "said"), [(False, "“a” is better than “b”"), (True, "“a” is worse than “b”")])
def test_errors_are_better_when_smaller(smaller: bool, said: str) -> None:
    item = Compared("a", "b", "mae", smaller, 0.2, (0.1, 0.3), 0.001, 500, (3, 3), 0.1)
    assert comparison(item).startswith(said)


def standing(cell: str, value: float, seeds: int = 3) -> Standing:
    return Standing(cell, value, None, 100, seeds)


def test_what_cannot_be_said_is_not_said() -> None:
    assert answer([], [], reference=None, metric="bleu-2").startswith("There is no answer yet")
    alone = answer([standing("a", 0.5, seeds=1)], [], reference=None, metric="bleu-2")
    assert alone == "There is nothing to compare: only “a” has a score, bleu-2 0.500, 100 examples, 1 seed."
    untested = [
        Compared(cell, "a", "bleu-2", False, -0.1, None, None, 100, (3, 3), None, reason="no paired test: too old")
        for cell in ("b", "c")
    ]
    three = [standing("a", 0.5), standing("b", 0.4), standing("c", 0.4)]
    found = answer(three, untested, reference=None, metric="bleu-2")
    assert found.startswith("Nothing can be said beyond the numbers: “a” has the best bleu-2 (0.500)")
    assert found.endswith("no two cells could be tested against each other: no paired test: too old.")
    same = [replace(item, difference=0.0, p=1.0, reason="") for item in untested]
    found = answer(three, same, reference=None, metric="bleu-2")
    assert found == "All 3 cells have the same bleu-2, 0.500 (100 examples, 3 seeds): by it nothing tells them apart."


def test_caveats_are_those_that_a_reviewer_would_raise() -> None:
    pair = [Compared("b", "a", "bleu-2", False, -0.1, None, 0.2, 12, (2, 2), None, test="permutation (9,999 drawn)")]
    two = [standing("a", 0.5, 2), standing("b", 0.4, 2)]
    found = " ".join(caveats(two, pair, reference="a", split="validation", limited=12, missing=1))
    assert "Only 12 examples of the validation split were asked." in found
    assert "something may have been selected" in found
    assert "that takes 3 seeds of each cell" in found
    assert "1 run of the study has no score." in found
    assert "came out best" not in found
    assert "Only 12 of 100 examples have a value in both cells" in found
    over_seeds = [replace(pair[0], n=100, test="t over examples and seeds (9.0 degrees of freedom)")]
    assert caveats(two, over_seeds, reference="a", split="test", limited=None, missing=0) == []


@given(st.floats(min_value=-1e9, max_value=1e9, allow_nan=False))
def test_numbers_keep_their_sign_and_their_size(value: float) -> None:
    text = plain(value, sign=True)
    assert "e" not in text or abs(value) < 1e-7
    read = float(text.replace("\N{MINUS SIGN}", "-").replace(",", ""))
    assert read == pytest.approx(value, rel=0.06)
    assert math.copysign(1, read) == math.copysign(1, value) or value == 0
    assert text.startswith(("+", "\N{MINUS SIGN}")) or value == 0


def test_p_is_never_said_to_be_0() -> None:
    assert [probability(p) for p in (0.0, 1e-9, 0.0123, 0.4, 1.0)] == [
        "p < 0.001",
        "p < 0.001",
        "p = 0.012",
        "p = 0.400",
        "p = 1.000",
    ]


# Reliance


def test_use_of_the_graph_is_tested_and_corrected(report: Report, page: str) -> None:
    rows = {row.cell: row for row in report.parts[0].reliance}
    assert rows["good"].n == 36
    assert rows["good"].value == pytest.approx(0.05, abs=0.02)
    assert rows["good"].p is not None
    assert rows["good"].p < 0.001
    assert rows["middle"].p is not None
    assert rows["middle"].p > 0.05
    assert rows["middle"].detectable is not None
    assert rows["middle-too"].value is None
    text = visible(page)
    assert re.search(r"The graph is used by “good” \(\+0\.0\d+, p &lt; 0\.001, 36 examples\)\.", text)
    assert "It misleads “poor”" in text
    assert re.search(r"No use could be shown for “middle” .*; gains above 0\.0\d+ would have been found", text)
    assert "Not measured for “middle-too” (not measured: evaluation.reliance is not set)." in text


# Cells without a value, and cells that were asked in several ways


def changed(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the first evaluation of a run."""
    result = json.loads((folder / "result.json").read_text())
    change(result["evaluations"][0])
    (folder / "result.json").write_text(json.dumps(result))


def undefined(entry: dict[str, Any]) -> None:
    """An evaluation whose answers give no BLEU."""
    (score,) = entry["scores"]
    score["metrics"]["bleu-2"] = {"value": None, "ci95": None, "reason": "no answer has a word"}


@pytest.mark.parametrize("reference", [None, "a"])
def test_a_reference_or_cell_without_any_value_is_told_and_divides_by_nothing(
    tmp_path: Path, reference: str | None
) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6, "c": 0.5}, seeds=(0,), n=12, facts=False))
    changed(folders[0], undefined)
    report = build_report(read_study("made-up", tmp_path), metric="bleu-2", compare_to=reference)
    (part,) = report.parts
    assert [standing.cell for standing in part.standings] == ["b", "c"]
    if reference is None:
        assert [(item.cell, item.other) for item in part.compared] == [("c", "b")]
        return
    assert {item.cell: (item.other, item.difference, item.p) for item in part.compared} == {
        "b": ("a", None, None),
        "c": ("a", None, None),
    }
    assert {item.reason for item in part.compared} == {"undefined for a"}
    (found,) = headlines(report)
    assert found.startswith("Nothing can be said beyond the numbers: “b” has the best bleu-2")
    assert "undefined for a" in found
    as_html(report)


def test_a_cell_that_lacks_the_metric_in_a_seed_is_counted_and_never_the_best(tmp_path: Path) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6, "c": 0.5}, n=12, facts=False))
    changed(folders[1], undefined)
    report = build_report(read_study("made-up", tmp_path))
    (part,) = report.parts
    assert [standing.cell for standing in part.standings] == ["b", "c", "a"], "the best of what all seeds have"
    assert part.standings[-1].counted == "2 of 3 seeds"
    assert part.standings[-1].ci95 is None
    tested = {item.cell: item for item in part.compared}
    assert tested["a"].p is None
    assert tested["a"].difference is None
    assert tested["c"].p is not None
    (found,) = headlines(report)
    assert "“b” has the best bleu-2" in found
    assert "1 cell could not be tested." in found
    (told,) = (caveat for caveat in part.caveats if "some of their seeds" in caveat)
    assert "“a” (2 of 3 seeds; seed 1: no answer has a word)" in told
    assert "2 of 3 seeds" in visible(as_html(report))
    for folder in (folders[3], folders[8]):
        changed(folder, undefined)
    (found,) = headlines(build_report(read_study("made-up", tmp_path)))
    assert found == "Nothing can be said: no cell has bleu-2 in all of its seeds."


def test_a_cell_of_reference_that_was_asked_in_two_ways_is_compared_within_each(tmp_path: Path) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6, "c": 0.5}, seeds=(0,), n=12, facts=False))
    for folder in folders[:2]:  # `c` was asked in one way only
        result = json.loads((folder / "result.json").read_text())
        (entry,) = result["evaluations"]
        other = json.loads(json.dumps(entry))
        other |= {"evaluation_id": "asked with beams", "generation": {"beams": 5, "max_new_tokens": 64}}
        result["evaluations"].append(other)
        (folder / "result.json").write_text(json.dumps(result))
    report = build_report(read_study("made-up", tmp_path), compare_to="a")
    (part,) = report.parts
    assert part.reference == "a"
    pairs = {item.cell: item.other for item in part.compared}
    assert len(pairs) == 3
    (beams,) = (name for name in pairs if name.startswith("b") and "5" in name)
    assert "5" in pairs[beams], "the same way of asking"
    assert pairs[beams] != pairs["c"]
    versus = {row for item in part.compared if item.p is not None for row in [item.cell]}
    assert versus == set(pairs), "each has a test, as in the table"
    (html,) = part.tables
    for item in part.compared:
        assert item.p is not None
        assert probability(item.p) in html
    text = visible(as_html(report))
    assert f"{beams} (from {pairs[beams]})" in text


# The page


def test_sections_come_in_the_order_of_a_reviewer(page: str) -> None:
    text = visible(page)
    order = [
        "Is the better cell better?",
        "“good” has the best bleu-2",
        "Results: caption on bundled, test split, protocol strict@1",
        "Differences in bleu-2 from “good”",
        "Is the graph used?",
        "Examples The page holds",
        "All 12 runs are done.",
        "What the cells differ in; all else is the same.",
        "Provenance",
        "Run it again",
        f"git checkout {'c' * 40}",
        "molgraft study made-up --scale smoke",
    ]
    place = 0
    for piece in order:
        assert piece in text[place:], f"{piece!r} is not behind what should stand before it"
        place = text.index(piece, place)


def test_the_page_holds_nothing_of_the_machine(page: str, runs: Path) -> None:
    for secret in ("a-secret-host", "/home/somebody", str(runs)):
        assert secret not in page
    assert "http-equiv" in page
    assert not re.search(r"""(src|href|action)=["']?(https?:)?//""", page)
    assert not re.search(r"@import|url\((?!#)", page)


def test_of_a_path_of_the_machine_only_the_last_part_is_shown(tmp_path: Path) -> None:
    home = "/home/somebody & co/<b>"
    file = f"{home}/data.yaml"
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6}, seeds=(0,), n=8, facts=False))
    for folder in folders:
        config = json.loads((folder / "config.yaml").read_text())
        config |= {"task": {"data": file}, "llm": {"name": "/home/somebody/models/tiny"}}
        config["encoder"]["weights"] = "C:\\Users\\somebody\\gin.pt"
        (folder / "config.yaml").write_text(json.dumps(config))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["llm"]["origin"] = "/home/somebody/models/tiny"
        manifest["files"]["encoder"] = ["/home/somebody/gin.pt"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        changed(folder, lambda entry: entry.update(data=file))
    failed = tmp_path / "c2-s0-0123456789abcdef"
    failed.mkdir()
    message = "[Errno 2] No such file or directory: '/home/somebody/lost one.pt'; see /home/somebody/log.txt"
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "data", "message": message}))
    plan_file = tmp_path / ".studies" / "made-up" / "plan.json"
    plan = json.loads(plan_file.read_text())
    plan["runs"].append({"cell": "c", "train_id": "0123456789abcdef", "config": {"seed": 0}})
    plan["arguments"] = ["/home/somebody/mine.yaml", "--set", "encoder.weights=/home/somebody/gin.pt"]
    plan_file.write_text(json.dumps(plan))
    pack(read_study("made-up", tmp_path), tmp_path / "packed")
    for study in (read_study("made-up", tmp_path), read_study(tmp_path / "packed")):
        page = as_html(build_report(study))
        assert "somebody" not in page
        for shown in ("…/data.yaml", "…/tiny", "…/gin.pt", "…/lost one.pt", "…/log.txt", "molgraft study …/mine.yaml"):
            assert shown in page.replace("&#x27;", ""), shown
        assert "</script>" in page


def test_equal_runs_give_equal_pages(runs: Path, page: str) -> None:
    assert as_html(build_report(read_study("made-up", runs))) == page


def test_cells_stand_in_the_recipe_with_what_they_differ_in(report: Report) -> None:
    (difference,) = report.differences
    assert difference.path == "encoder.width"
    assert dict(difference.values) == {"good": "16", "middle": "17", "middle-too": "18", "poor": "19"}
    assert "layers: 2" in report.common
    assert "width" not in report.common
    assert "width: 19" in report.configs["poor"]


def test_a_report_of_packed_runs_says_what_they_lack(runs: Path, report: Report, tmp_path: Path) -> None:
    pack(read_study("made-up", runs), tmp_path / "packed", molecules="none")
    packed = build_report(read_source(tmp_path / "packed"))
    assert headlines(packed) == headlines(report)
    (part,) = packed.parts
    assert part.examples.embedded > 0  # with their scores
    text = visible(as_html(packed))
    assert "Answers are stored with no run: packed runs keep scores, and answers only where that was asked for." in text
    assert "There are no depictions: facts of these examples were not packed. `molgraft tables STUDY --pack" in text
    pack(read_study("made-up", runs), tmp_path / "with-answers", predictions=True)
    (part,) = build_report(read_source(tmp_path / "with-answers")).parts
    assert part.examples.without == ()
    assert any("own" in known for row in part.examples.data["examples"].values() for known in row["answers"])


def test_a_report_of_packed_runs_has_the_depictions_and_plots_of_live_ones(
    runs: Path, report: Report, tmp_path: Path
) -> None:
    pack(read_study("made-up", runs), tmp_path / "packed")
    (part,) = build_report(read_source(tmp_path / "packed")).parts
    (live,) = report.parts
    assert part.examples.data["chosen"] == live.examples.data["chosen"]
    rows, expected = part.examples.data["examples"], live.examples.data["examples"]
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        (molecule,), (other,) = row["molecules"], expected[name]["molecules"]
        assert molecule["svg"].startswith("<svg")
        assert (molecule["smiles"], molecule["atoms"]) == (other["smiles"], other["atoms"])
        assert molecule["groups"] == sorted(other["groups"])
        assert row["novelty"] == [
            {**known, "nearest": pytest.approx(known["nearest"], rel=1e-5)} for known in expected[name]["novelty"]
        ]
    lost = {plot.title for plot in live.plots} - {plot.title for plot in part.plots}
    assert lost == {f"Length of answers by {by}" for by in ("size", "functional group", "novelty of the scaffold")}
    pack(read_study("made-up", runs), tmp_path / "plain", molecules="plain")
    (part,) = build_report(read_source(tmp_path / "plain")).parts
    assert part.examples.without[-1].startswith(f"{len(rows)} of these {len(rows)} examples have no depiction")


def test_a_report_of_one_run(runs: Path) -> None:
    run = next(runs.glob("c0-s1-*"))
    report = build_report(read_source(run))
    assert report.runs == (1, 1)
    assert headlines(report)[0].startswith("There is nothing to compare: only “good” has a score, bleu-2 0.")
    text = visible(as_html(report))
    assert "There is one cell." in text
    assert "molgraft run CONFIG.yaml" in text
    assert len(report.parts[0].plots) >= 1  # its learning curve


def test_a_report_of_a_folder_of_runs(runs: Path, report: Report) -> None:
    loose = build_report(read_source(runs))
    assert headlines(loose) == headlines(report)
    assert loose.question == ""


def test_runs_that_failed_or_never_began_are_told(tmp_path: Path) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6}, seeds=(0, 1), n=20, facts=False))
    (folders[1] / "result.json").unlink()
    (folders[1] / "status.json").write_text(json.dumps({"state": "failed", "error": "oom", "message": "out of memory"}))
    for file in sorted(folders[3].rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    folders[3].rmdir()
    report = build_report(read_study("made-up", tmp_path))
    assert report.runs == (4, 2)
    assert [(run.cell, run.seed, run.state, run.message) for run in report.unfinished] == [
        ("a", 1, "failed (oom)", "out of memory"),
        ("b", 1, "not begun", ""),
    ]
    assert "2 runs of the study have no score." in report.parts[0].caveats
    text = visible(as_html(report))
    assert "out of memory" in text
    assert "2 cells, 2 of 4 runs done" in text


def test_a_study_without_any_score(tmp_path: Path) -> None:
    (folder,) = write_study(tmp_path, Written({"a": 0.9}, seeds=(0,), n=5, facts=False))
    (folder / "result.json").unlink()
    (folder / "status.json").write_text(json.dumps({"state": "interrupted"}))
    report = build_report(read_study("made-up", tmp_path))
    assert report.parts == ()
    text = visible(as_html(report))
    assert "There is no score yet." in text
    assert "interrupted" in text


def test_wrong_choices_are_refused_with_what_there_is(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="nobody: no cell of made-up; there are good, middle, middle-too, poor"):
        build_report(read_study("made-up", runs), compare_to="nobody")
    with pytest.raises(ResultsError, match=r"--metric bleu-7: no table has it; there are bleu-2, bleu-4"):
        build_report(read_study("made-up", runs), metric="bleu-7")
    with pytest.raises(ResultsError, match="no study of that name"):
        read_source("nothing", tmp_path)


def test_the_metric_that_decides_can_be_chosen(runs: Path) -> None:
    (part,) = build_report(read_study("made-up", runs), metric="meteor").parts
    assert part.metric == "meteor"
    assert part.examples.data["metric"] == "meteor"
    assert all(item.metric == "meteor" for item in part.compared)


# Examples


def made(cell: str, scores: Mapping[str, float], text: str = "said", **others: Any) -> CellAnswers:
    names = list(scores)
    given: dict[str, Any] = {
        "gains": {},
        "invalid": {},
        "seed": 0,
        "own": {name: Answer(f"{text} {name}", f"{text} {name}", False) for name in names},
        "swapped": {},
        "questions": {name: Question("asked", f"gold {name}", ("C",)) for name in names},
        "n_seeds": 1,
    }
    return CellAnswers(cell=cell, scores={"m": dict(scores)}, **(given | others))


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(0, 5).map(float), min_size=1, max_size=30),
    st.booleans(),
    st.integers(1, 8),
)
def test_lists_are_in_order_and_ties_are_decided_by_name(scores: dict[str, float], smaller: bool, few: int) -> None:
    lists = choose([made("x", scores)], "m", smaller_is_better=smaller, per_list=few)["x"]
    sign = -1 if smaller else 1
    assert lists["worst"] == sorted(scores, key=lambda name: (sign * scores[name], name))[:few]
    assert lists["best"] == sorted(scores, key=lambda name: (-sign * scores[name], name))[:few]
    assert set(lists["random"]) <= set(scores)
    assert len(lists["random"]) == min(few, len(scores))
    assert "dependent" not in lists
    backwards = dict(reversed(scores.items()))
    assert choose([made("x", backwards)], "m", smaller_is_better=smaller, per_list=few)["x"] == lists


def test_lists_of_gains_and_of_invalid_answers() -> None:
    cell = made("x", {"a": 1.0, "b": 2.0, "c": 3.0}, gains={"a": 0.5, "b": -0.2, "c": 0.0}, invalid={"b": "no number"})
    lists = choose([cell], "m")["x"]
    assert lists["dependent"] == ["a"]
    assert lists["misled"] == ["b"]
    assert lists["invalid"] == ["b"]
    assert set(lists) <= set(LISTS)


def test_random_examples_are_the_same_for_all_cells_and_no_choice_by_score() -> None:
    names = [f"e{number}" for number in range(500)]
    rising = made("x", {name: float(place) for place, name in enumerate(names)})
    falling = made("y", {name: -float(place) for place, name in enumerate(names)})
    lists = choose([rising, falling], "m", per_list=20)
    assert lists["x"]["random"] == lists["y"]["random"]
    mean = sum(int(name[1:]) for name in lists["x"]["random"]) / 20
    assert 150 < mean < 350


def test_a_page_that_has_no_room_for_all_says_so() -> None:
    scores = {f"e{number:03}": float(number) for number in range(200)}
    cells = [made(name, scores, text=f"{name} " * 300) for name in ("x", "y")]
    whole = browser(cells, "m", {}, per_list=10)
    assert (whole.embedded, whole.n, whole.reached, whole.cut) == (len(whole.data["examples"]), 200, 10, 0)
    small = browser(cells, "m", {}, per_list=10, most_bytes=20_000)
    assert small.embedded < whole.embedded
    assert small.reached < small.asked_for == 10
    assert len(json.dumps(small.data)) < 25_000
    for lists in small.data["chosen"].values():
        for kind, names in lists.items():
            assert set(names) <= set(small.data["examples"])
            assert len(names) >= small.reached, kind  # every list gets its first ones
    none = browser(cells, "m", {}, per_list=0)
    assert none.embedded == 0


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    cell = made("x", {"a": 1.0}, own={"a": Answer("z" * (LONGEST_TEXT + 1234), None, True)})
    found = browser([cell], "m", {})
    (row,) = found.data["examples"].values()
    text = found.data["texts"][row["answers"][0]["own"]]
    assert text == "z" * LONGEST_TEXT + " [cut: 1,234 more letters]"
    assert row["answers"][0]["own-cut"] is True
    assert found.cut == 1


def test_half_a_surrogate_pair_does_not_stop_a_page() -> None:
    found = browser([made("x", {"a": 1.0}, own={"a": Answer("half \ud83d", None, False)})], "m", {})
    assert "half ?" in found.data["texts"]


def test_facts_are_read_from_beside_the_runs_only(runs: Path, tmp_path: Path) -> None:
    from results.facts import example_facts
    from results.tables.gather import Answer as Scored

    (run, *_) = read_runs([runs])
    entry = run.summary["evaluations"][0]
    known = example_facts([Scored(run, entry, entry["scores"][0])])
    assert known["m001"]["molecules"][0]["atoms"] == 11
    outside = runs.parent / "outside.jsonl.gz"
    outside.write_bytes(gzip.compress(b'{"example_id": "m001", "molecules": []}\n'))
    for name in ("../../outside.jsonl.gz", str(outside), "..", "", None, 3):
        assert example_facts([Scored(run, {**entry, "facts": name}, entry["scores"][0])]) == {}
    torn = runs / ".examples" / "torn.jsonl.gz"
    torn.write_bytes((runs / ".examples" / entry["facts"]).read_bytes()[:500])
    assert example_facts([Scored(run, {**entry, "facts": "torn.jsonl.gz"}, entry["scores"][0])]) == {}


def test_examples_show_own_and_swapped_answers_facts_and_scores(report: Report) -> None:
    data = report.parts[0].examples.data
    place = [cell["name"] for cell in data["cells"]].index("good")
    name = data["chosen"]["good"]["dependent"][0]
    row = data["examples"][name]
    known = row["answers"][place]
    own, swapped = (data["texts"][known[key]] for key in ("own", "swapped"))
    assert swapped == f"{own} swapped"
    assert known["gain"] > 0
    assert known["scores"]["bleu-2"] > 0
    assert data["texts"][row["reference"]].startswith("The molecule is")
    (molecule,) = row["molecules"]
    assert molecule["svg"].startswith("<svg")
    (novelty,) = row["novelty"]  # all cells were trained on the same
    assert set(novelty) == {"molecule_seen", "scaffold_seen", "nearest"}
    assert known["novelty"] == 0
    assert row["answers"][[cell["name"] for cell in data["cells"]].index("middle-too")].get("swapped") is None


def test_novelty_is_told_of_each_cell_against_its_own_training_data(tmp_path: Path) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6, "c": 0.5}, seeds=(0,), n=12))
    known = json.loads(next((tmp_path / ".examples").glob("*.key.json")).read_text())
    for folder, near in ((folders[1], 0.75), (folders[2], None)):
        result = json.loads((folder / "result.json").read_text())
        name = result["evaluations"][0]["novelty"].replace(".key.", f".{near}.") if near else None
        if name:
            rows = {example: {**row, "molecule_seen": True, "nearest": near} for example, row in known.items()}
            (tmp_path / ".examples" / name).write_text(json.dumps(rows))
        result["evaluations"][0]["novelty"] = name
        (folder / "result.json").write_text(json.dumps(result))
    pack(read_study("made-up", tmp_path), tmp_path / "packed")
    for study in (read_study("made-up", tmp_path), read_study(tmp_path / "packed")):
        (part,) = build_report(study).parts
        data = part.examples.data
        assert [cell["name"] for cell in data["cells"]] == ["a", "b", "c"]
        for name, row in data["examples"].items():
            first, second, third = row["answers"]
            assert row["novelty"][first["novelty"]]["nearest"] == pytest.approx(known[name]["nearest"], rel=1e-5)
            assert row["novelty"][second["novelty"]]["nearest"] == 0.75
            assert "novelty" not in third


# Depictions


@pytest.mark.parametrize(
    "smiles", ["CC(=O)Oc1ccccc1C(=O)O", "C[N+](C)(C)CC(=O)[O-]", "[Na+].[Cl-]", "C/C=C/[C@H](O)F", "[13CH4]"]
)
def test_pictures_of_molecules_keep_all_that_is_drawn(smiles: str) -> None:
    drawn = compact(as_svg(read_molecule(smiles), embedded=True))
    found = sanitised(drawn)
    assert found is not None
    for element in ("path", "circle", "rect", "text"):
        assert found.count(f"<{element} ") == drawn.count(f"<{element} ")
    numbers = [re.findall(r"-?\d+\.?\d*", "".join(re.findall(r' d="([^"]*)"', text))) for text in (drawn, found)]
    for before, after in zip(*numbers, strict=True):
        assert float(after) == pytest.approx(float(before), abs=0.0501)
    assert "currentColor" in found


@pytest.mark.parametrize(
    "svg",
    [
        None,
        "",
        "text",
        "<svg",
        "<html><body/></html>",
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>',
        f"<svg>{'<g/>' * MOST_BYTES}</svg>",
    ],
    ids=["none", "empty", "text", "torn", "html", "entities", "huge"],
)
def test_what_is_no_picture_is_not_shown(svg: str | None) -> None:
    assert sanitised(svg) is None


def test_nothing_of_a_picture_can_act() -> None:
    found = sanitised(HOSTILE_SVG)
    assert found is not None
    assert found.count("<path") == 1  # the one within a link went with it
    assert 'd="M 1.2,2 L 8,8"' in found
    assert 'style="fill:none;stroke:currentColor"' in found
    for word in ("script", "onload", "href", "url", "import", "image", "foreignObject", "alert", "example.invalid"):
        assert word not in found


# The recipe


@pytest.mark.parametrize(
    "smiles",
    ["CC(=O)Oc1ccccc1C(=O)O", "C[N+](C)(C)CC(=O)[O-]", "F/C=C/[C@H](O)F", "O=S(=O)(O)c1ccc(Cl)cc1Br", "[13CH4]"],
)
def test_a_compact_depiction_is_the_same_picture(smiles: str) -> None:
    whole = sanitised(compact(as_svg(read_molecule(smiles), embedded=True)))
    assert whole is not None
    small = compacted(whole)
    assert compacted(small) == small
    assert sanitised(small) == small  # a page takes it
    assert len(small) < 0.75 * len(whole)
    before, after = (list(ElementTree.fromstring(svg)) for svg in (whole, small))
    assert [path.get("fill") for path in before] == [path.get("fill") for path in after]
    for path, other in zip(before, after, strict=True):
        ends, found = absolute(path.attrib["d"]), absolute(other.attrib["d"])
        # Every point that was drawn has one within a unit, at twice the scale; and none came from nowhere.
        assert all(min(abs(2 * x - u) + abs(2 * y - v) for u, v in found) <= 3 for x, y in ends)
        assert all(min(abs(2 * x - u) + abs(2 * y - v) for x, y in ends) <= 3 for u, v in found)


def absolute(drawn: str) -> list[tuple[float, float]]:
    """The points of path data of the commands M, L, Q and Z, upper or lower case."""
    points: list[tuple[float, float]] = []
    pen = begun = (0.0, 0.0)
    for command, text in re.findall(r"([a-zA-Z])([^a-zA-Z]*)", drawn):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
        size = {"M": 2, "L": 2, "Q": 4, "Z": 1}[command.upper()]
        if command in "zZ":
            pen = begun
        for place in range(0, len(numbers), size):
            pairs = list(zip(numbers[place : place + size : 2], numbers[place + 1 : place + size : 2], strict=True))
            if command.islower():
                pairs = [(pen[0] + dx, pen[1] + dy) for dx, dy in pairs]  # both of a curve from where it begins
            points += pairs
            pen = pairs[-1]
            begun = pen if command in "mM" else begun
    return points


def test_what_molgraft_did_not_draw_stays_as_it_is() -> None:
    for svg in (
        sanitised(HOSTILE_SVG),
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><circle cx="1" cy="1" r="1" /></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M 0 0 A 1 1 0 0 0 2 2" /></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><path d="M 0 0 L 2 2" /></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M 0 0 L 2" stroke-width="x" /></svg>',
        "no svg",
    ):
        assert svg is not None
        assert compacted(svg) in (svg, compacted(compacted(svg)))
        if "path" not in svg or "<circle" in svg:
            assert compacted(svg) == svg


def test_components_are_told_by_name_and_by_what_they_do_not_share() -> None:
    gin = {"name": "gin", "layers": 2, "dropout": 0.0, "eps": True}
    gcn = {"name": "gcn", "layers": 3, "dropout": 0.0}
    stages = [{"name": "align", "steps": 10}, {"name": "tune", "steps": 20}]
    longer = [{"name": "align", "steps": 10}, {"name": "tune", "steps": 40}]
    found = differences(
        {
            "a": {"name": "a", "seed": 0, "encoder": gin, "stages": stages, "llm": {"name": "tiny", "r": 4}},
            "b": {"name": "b", "seed": 1, "encoder": gcn, "stages": longer, "llm": {"name": "tiny"}},
        }
    )
    assert {item.path: dict(item.values) for item in found} == {
        "encoder": {"a": "gin, layers 2, eps yes", "b": "gcn, layers 3"},
        "stages.tune.steps": {"a": "20", "b": "40"},
        "llm.r": {"a": "4", "b": ABSENT},
    }
    assert dict(found[0].short) == {"a": "gin", "b": "gcn"}


def test_equal_names_of_unequal_components_are_spelled_out() -> None:
    lists = ([{"name": "x", "p": 1}, {"name": "y"}], [{"name": "x", "p": 2}], [{"name": "x", "p": 1}])
    (found,) = differences({str(place): {"mix": value} for place, value in enumerate(lists)})
    assert found.path == "mix"
    assert found.short == found.values
    assert len(set(found.values.values())) == 3


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text("ab", max_size=2)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("pqr"), inner, max_size=3)),
    max_leaves=8,
)
CONFIGS = st.dictionaries(st.sampled_from("uvwxyz"), VALUES, max_size=4)


@given(CONFIGS, CONFIGS)
def test_what_differs_and_what_is_shared_are_all_there_is(first: dict[str, Any], second: dict[str, Any]) -> None:
    found = differences({"a": first, "b": second})
    assert (found == []) == (first == second)
    shared = settings_in_common({"a": first, "b": second})
    told = {item.path.split(".")[0] for item in found}
    for key in {*first, *second} - told:
        assert first[key] == second[key] == shared[key]
    assert settings_in_common({"a": first, "b": first}) == first


def test_values_are_written_for_readers() -> None:
    assert in_words({"name": "adam", "lr": 0.001, "betas": [0.9, 0.999], "fused": None, "on": True}) == (
        "adam, lr 0.001, betas (0.9, 0.999), fused none, on yes"
    )
    assert in_words("x" * 1000).endswith("…")


# Provenance


def test_runs_of_different_code_are_marked(tmp_path: Path) -> None:
    folders = write_study(tmp_path, Written({"a": 0.9, "b": 0.6}, seeds=(0,), n=5, facts=False))
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    manifest["sessions"][0]["git"] = {"commit": "e" * 40, "uncommitted_changes": "0123"}
    manifest["sessions"][0]["packages"]["torch"] = "2.14.0"
    (folders[1] / "manifest.json").write_text(json.dumps(manifest))
    found = {line.what: line for line in origins(read_runs([tmp_path]))}
    assert found["Commit"].values == ("c" * 40, "e" * 40)
    assert found["Commit"].warns
    assert found["Uncommitted changes"].values == ("in 1 of 2 sessions",)
    assert found["Uncommitted changes"].warns
    assert "torch 2.13.0 and 2.14.0" in found["Packages"].values
    assert found["Data"].values == (f"bundled/test: sha256 {'d' * 12}…",)
    assert not found["Machine"].warns


# Run it again


def test_what_a_study_was_started_with_stands_in_its_command(tmp_path: Path) -> None:
    write_study(tmp_path, Written({"a": 0.9}, seeds=(0,), n=5, facts=False))
    plan_file = tmp_path / ".studies" / "made-up" / "plan.json"
    plan = json.loads(plan_file.read_text())
    commands = build_report(read_study("made-up", tmp_path)).commands
    assert "was not recorded" in " ".join(commands), "what is not known is not passed over"
    assert commands[2].startswith("molgraft study made-up --scale smoke   #")
    given = ["my study.yaml", "--set", "seeds=[0, 1]", "--set", "llm.name=x; rm -rf /", "--only", "gin-*"]
    plan_file.write_text(json.dumps({**plan, "arguments": given}))
    pack(read_study("made-up", tmp_path), tmp_path / "packed")
    for study in (read_study("made-up", tmp_path), read_study(tmp_path / "packed")):
        line = build_report(study).commands[2]
        assert shlex.split(line) == ["molgraft", "study", *given, "--scale", "smoke"]


def test_the_command_of_a_report_repeats_the_study(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    runs = tmp_path / "runs"
    chosen = [word for setting in (*QUICK, "seeds=[3]") for word in ("--set", setting)]
    rest = ["--runs", str(runs), "--tracking", "none", "--quiet", "--threads", "1", "--offline"]
    file = tmp_path / "twice.yaml"
    file.write_text("name: twice\nextends: demo\nseeds: [0, 1]\ncells: {plain: {}, bare: {encoder: {readout: sum}}}\n")
    assert _status(["study", str(file), *chosen, "--only", "pl*", "--max-rejected", "0.5", *rest]) == 0
    report = build_report(read_source("twice", runs))
    (line,) = (command for command in report.commands if command.startswith("molgraft study"))
    _, _, *words = shlex.split(line)
    assert words[0] == str(file)
    assert all(word in words for word in (*chosen, "pl*", "0.5"))
    capsys.readouterr()
    # Nothing is left to do of what it asks for; with any choice less there is.
    assert _status(["study", *words, *rest, "--max-runs", "0", "--dry-run"]) == 0
    place = words.index("seeds=[3]")
    without = words[: place - 1] + words[place + 1 :]
    assert _status(["study", *without, *rest, "--max-runs", "0", "--dry-run"]) == 2
    assert "runs to do" in capsys.readouterr().err


# The command, and a real run


def test_the_command_writes_a_page(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deep" / "page.html"
    arguments = ["report", "made-up", "--runs", str(runs), "-o", str(file), "--examples", "3", "--quiet"]
    assert _status([*arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == str(file)
    assert said["bytes"] == len(file.read_bytes())
    assert said["found"][0].startswith("“good” has the best bleu-2")
    assert "the first 3 of the worst" in visible(file.read_text(encoding="utf-8"))
    assert _status(arguments) == 0
    assert f"wrote {file} (" in capsys.readouterr().out
    assert _status(["report", "nothing", "--runs", str(runs)]) == 2
    assert "no study of that name" in capsys.readouterr().err


def test_a_real_run_becomes_a_report(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    chosen = [word for setting in QUICK for word in ("--set", setting)]
    rest = ["--runs", str(tmp_path / "runs"), "--tracking", "none", "--quiet", "--threads", "1", "--json"]
    assert _status(["run", "demo", *chosen, *rest]) == 0
    result = json.loads(capsys.readouterr().out)
    report = build_report(read_source(tmp_path / "runs"))
    (part,) = report.parts
    metrics = result["evaluations"][0]["scores"][0]["metrics"]
    assert part.standings[0].value == pytest.approx(metrics["bleu-2"]["value"])
    assert part.reliance[0].value == pytest.approx(result["evaluations"][0]["reliance"]["value"])
    data = part.examples.data
    told = [row["answers"][0] for row in data["examples"].values()]
    assert sum("swapped" in known for known in told) == result["evaluations"][0]["reliance"]["n"]
    assert all("own" in known and "prompt" in known for known in told)
    assert all(row["molecules"][0]["svg"].startswith("<svg") for row in data["examples"].values())
    assert all(row["novelty"][0]["nearest"] is not None for row in data["examples"].values())
    text = visible(as_html(report))
    assert "Only 12 examples of the test split were asked." in text
    assert "An example, verbatim (caption" in text


# Parts of the examples


def test_intervals_that_are_not_drawn_are_not_computed(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from results import statistics
    from results.plots.breakdown import MOST_TOGETHER
    from results.plots.parts import breakdown_plot, part_rows
    from results.plots.rows import cells_of

    cells = cells_of(read_study("made-up", runs).runs, "strict", "test", "caption", "bundled")
    whole = part_rows(cells, "bleu-2", "heavy atoms")
    assert any(row.low is not None for row in whole)
    assert all(row.low is None for row in whole if row.n < 10)

    def resampled(*_: Any, **__: Any) -> None:
        raise AssertionError("examples are resampled for an interval that nobody sees")

    monkeypatch.setattr(statistics, "over_examples", resampled)
    plain = part_rows(cells, "bleu-2", "heavy atoms", intervals=False)
    assert [(row.name, row.part, row.n) for row in plain] == [(row.name, row.part, row.n) for row in whole]
    assert [row.value for row in plain] == pytest.approx([row.value for row in whole])
    assert all(row.low is None for row in plain)
    many = {str(number): next(iter(cells.values())) for number in range(MOST_TOGETHER + 1)}
    assert breakdown_plot(many, "bleu-2", "heavy atoms").axes  # a heat map, which shows none
    with pytest.raises(AssertionError, match="nobody sees"):
        breakdown_plot(dict(list(many.items())[:MOST_TOGETHER]), "bleu-2", "heavy atoms")


# Size


def test_sixteen_cells_of_3300_examples_stay_below_10_mb(tmp_path: Path) -> None:
    write_large(tmp_path, cells=16, n=3300)
    report = build_report(read_source(tmp_path))
    page = as_html(report)
    assert len(page.encode()) < 10_000_000
    (part,) = report.parts
    assert part.examples.n == 3300
    assert part.examples.embedded >= 150
    assert f"The page holds {part.examples.embedded} of 3,300 examples" in visible(page)


def write_large(runs: Path, cells: int, n: int) -> None:
    """Runs with answers as long as those about natural products; scored by a metric that is a mean, to be quick."""
    import random

    drawn = random.Random(0)
    names = [f"example-{number}" for number in range(n)]
    words = ["molecule", "acid", "group", "derived", "hydroxy", "functional", "substituted", "position", "conjugate"]
    asked = [Asked(name, (f"C{'C' * (place % 30)}(=O)Oc1ccccc1",)) for place, name in enumerate(names)]
    write_facts(runs / ".examples", "facts", asked, Runtime(progress=False))
    for cell in range(cells):
        folder = runs / f"cell{cell}-s0-{cell:016x}"
        for part in ("predictions", "scores", "reliance"):
            (folder / part).mkdir(parents=True)

        def lines(file: Path, rows: list[dict[str, Any]]) -> None:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))

        def text() -> str:
            return " ".join(drawn.choices(words, k=50))

        molecules = {item.example_id: list(item.molecules) for item in asked}
        own = [{"example_id": name, "raw": text(), "text": "", "tokens": 50, "stop": "eos"} for name in names]
        questions = [
            {"example_id": name, "prompt": "Describe it.", "reference": text(), "molecules": molecules[name]}
            for name in names
        ]
        lines(folder / "predictions" / "p.jsonl", own)
        lines(folder / "predictions" / "p.questions.jsonl", questions)
        lines(folder / "reliance" / "a.answers.jsonl", [{**row, "raw": text()} for row in own])
        gains = [
            {"example_id": name, "real": drawn.gauss(-50, 9), "swapped": -50, "tokens": 50, "counts": True}
            for name in names
        ]
        lines(folder / "reliance" / "r.jsonl", gains)
        values = [round(drawn.random(), 6) for _ in names]
        stored = {"example_ids": names, "per_example": {"meteor": values}, "basis": {"meteor": {"formula": "mean"}}}
        (folder / "scores" / "s.json").write_text(json.dumps(stored))
        score = {"protocol": "strict@1", "score_id": "s", "n": n, "n_invalid": 0}
        metrics = {"meteor": {"value": sum(values) / n, "ci95": [0.4, 0.6]}}
        entry = {
            **{"task": "caption", "answer": "caption", "data": "large", "split": "test", "n": n, "limited": False},
            **{"evaluation_id": "e", "examples_id": "facts", "predict_id": "p", "facts": "facts.jsonl.gz"},
            **{"graph_input": {"name": "real"}, "generation": {"beams": 1}},
            "scores": [{**score, "metrics": metrics}],
            "reliance": {"value": 0.0, "reliance_id": "r", "answers_id": "a", "n": n, "left_out": 0},
        }
        summary = {"name": f"cell{cell}", "seed": 0, "cell_id": f"c{cell}", "evaluations": [entry], "stages": []}
        (folder / "result.json").write_text(json.dumps(summary))
        (folder / "status.json").write_text(json.dumps({"state": "done"}))
