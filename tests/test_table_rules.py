"""What is compared with what where a cell was asked in several ways, and where a metric is undefined in some seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answered_runs import answered_run, plan_file, protocol_of

from bench.cli import _status
from bench.run_store import RunDirectory, append_jsonl, write_json
from bench.scores import score_predictions
from results.compare import compare, runs_of
from results.packed import read_study
from results.runs import read_runs
from results.seeds import NOT_ALL_SEEDS
from results.statistics import Basis, paired
from results.statistics.power import detectable_errors
from results.tables import as_text, build_table, cells_of, requested_table
from results.tables.model import Row, Table
from results.tables.request import TableRequest
from results.tables.significance import PerExample
from results.tables.studies import study_tables

N = 60
GOLDS = ["yes" if place % 3 else "no" for place in range(N)]
NUMBERS = [str(place % 7) for place in range(40)]


def right(share: float, seed: int) -> list[str | None]:
    drawn = np.random.default_rng(seed).random(N) < share
    return [gold if hit else "no" if gold == "yes" else "yes" for gold, hit in zip(GOLDS, drawn, strict=True)]


def labelled(runs: Path, name: str, share: float, seed: int = 0, **options: Any) -> Path:
    return answered_run(
        runs, name, seed, GOLDS, right(share, seed + 7), kind="classification", task="property", **options
    )


def numbers(runs: Path, name: str, seed: int, error: float | None) -> Path:
    """A run that is asked numbers, and always wrong by `error` or answers none."""
    answers = [
        "none" if error is None else f"{float(gold) + error * (1 + place % 3)}" for place, gold in enumerate(NUMBERS)
    ]
    return answered_run(runs, name, seed, NUMBERS, answers, kind="regression", task="property")


def asked_again(folder: Path, answers: list[str | None], **entry: Any) -> None:
    """A run is asked the same once more, in another way."""
    result = json.loads((folder / "result.json").read_text())
    first = result["evaluations"][0]
    run, predicted = RunDirectory(folder), f"again{len(result['evaluations'])}"
    ids = [f"m{place}" for place in range(len(answers))]
    append_jsonl(
        run.predictions_file(predicted),
        [{"example_id": i, "text": text} for i, text in zip(ids, answers, strict=True)],
        durable=False,
    )
    questions = run.questions_file(first["predict_id"]).read_text()
    run.questions_file(predicted).write_text(questions)
    protocols = [protocol_of(score["protocol"].partition("@")[0]) for score in first["scores"]]
    scores = [score_predictions(run, predicted, first["answer"], protocol) for protocol in protocols]
    changed = {"predict_id": predicted, "evaluation_id": predicted, "scores": scores, **entry}
    result["evaluations"].append({**first, **changed})
    write_json(folder / "result.json", result)


def by_name(table: Table, part: int = 0) -> dict[str, Row]:
    return {row.name: row for row in table.parts[part].rows}


def difference(row: Row, metric: str = "accuracy") -> float | None:
    value = row.metrics[metric]
    return None if value is None or value.versus is None else value.versus.difference


def mean(row: Row, metric: str = "accuracy") -> float:
    value = row.metrics[metric]
    assert value is not None
    return value.mean


# A cell that was asked in several ways


def test_differences_are_within_the_same_way_of_asking(tmp_path: Path) -> None:
    base, other = labelled(tmp_path, "base", 0.6), labelled(tmp_path, "other", 0.9)
    beams = {"generation": {"beams": 5}}
    asked_again(base, right(0.5, 3), **beams, evaluation_id="beams")
    asked_again(other, right(0.95, 4), **beams, evaluation_id="beams")
    table = build_table(read_runs([tmp_path]), "strict", reference="base")
    rows = by_name(table)
    assert rows.keys() == {"base", "base, 5 beams", "other", "other, 5 beams"}
    assert difference(rows["other"]) == pytest.approx(mean(rows["other"]) - mean(rows["base"]))
    assert difference(rows["other, 5 beams"]) == pytest.approx(
        mean(rows["other, 5 beams"]) - mean(rows["base, 5 beams"])
    )
    assert difference(rows["base"]) is difference(rows["base, 5 beams"]) is None
    notes = " ".join(table.notes)
    assert "less that of base, asked in the same way" in notes
    assert "Nothing is compared" not in notes
    assert any(name == "accuracy Δ" for name in cells_of(table)[0])


def test_ways_are_the_same_whatever_is_measured_beside_them(tmp_path: Path) -> None:
    """Identities of evaluations differ by what reliance swaps, too."""
    base, other = labelled(tmp_path, "base", 0.6), labelled(tmp_path, "other", 0.9)
    asked_again(base, right(0.5, 3), generation={"beams": 5, "batch_size": 8}, evaluation_id="one")
    asked_again(other, right(0.95, 4), generation={"beams": 5, "batch_size": 9}, evaluation_id="two")
    rows = by_name(build_table(read_runs([tmp_path]), "strict", reference="base"))
    assert difference(rows["other, 5 beams"]) == pytest.approx(
        mean(rows["other, 5 beams"]) - mean(rows["base, 5 beams"])
    )


def test_a_way_in_which_the_reference_was_not_asked_has_no_difference_and_says_so(tmp_path: Path) -> None:
    base, other = labelled(tmp_path, "base", 0.6), labelled(tmp_path, "other", 0.9)
    asked_again(base, right(0.5, 3), generation={"beams": 5}, evaluation_id="beams")
    asked_again(other, right(0.8, 4), graph_input={"name": "zero"}, evaluation_id="zeroed")
    table = build_table(read_runs([tmp_path]), "strict", reference="base")
    rows = by_name(table)
    assert difference(rows["other"]) is not None
    assert difference(rows["other, graphs zero at test"]) is None
    assert "accuracy" in (note := next(note for note in table.notes if "no difference" in note))
    assert note.endswith("base was asked in 2 ways, and none is that of this row.")


def test_a_reference_asked_in_one_way_is_that_of_all(tmp_path: Path) -> None:
    labelled(tmp_path, "base", 0.6)
    other = labelled(tmp_path, "other", 0.9)
    asked_again(other, right(0.7, 4), graph_input={"name": "zero"}, evaluation_id="zeroed")
    rows = by_name(build_table(read_runs([tmp_path]), "strict", reference="base"))
    for name in ("other", "other, graphs zero at test"):
        assert difference(rows[name]) == pytest.approx(mean(rows[name]) - mean(rows["base"]))


def test_two_cells_of_the_reference_s_name_are_no_reference(tmp_path: Path) -> None:
    labelled(tmp_path, "base", 0.6, cell="one")
    labelled(tmp_path, "base", 0.7, seed=1, cell="two")
    labelled(tmp_path, "other", 0.9)
    table = build_table(read_runs([tmp_path]), "strict", reference="base")
    assert all(difference(row) is None for row in table.rows)
    assert any("2 cells are called base" in note for note in table.notes)


def test_cells_are_compared_in_each_way_that_both_were_asked(tmp_path: Path) -> None:
    base, other = labelled(tmp_path, "base", 0.6), labelled(tmp_path, "other", 0.9)
    asked_again(base, right(0.5, 3), generation={"beams": 5}, evaluation_id="beams")
    asked_again(other, right(0.95, 4), generation={"beams": 5}, evaluation_id="beams")
    plain, beams = compare(runs_of("base", tmp_path), runs_of("other", tmp_path))
    assert plain.asked.endswith("test split")
    assert beams.asked.endswith("test split, 5 beams")
    rows = by_name(build_table(read_runs([tmp_path]), "strict"))
    for found, ours, theirs in ((plain, "base", "other"), (beams, "base, 5 beams", "other, 5 beams")):
        (accuracy,) = (metric for metric in found.metrics if metric.metric == "accuracy")
        assert (accuracy.a, accuracy.b) == pytest.approx((mean(rows[ours]), mean(rows[theirs])))


# Published numbers


def published_study(runs: Path, config: dict[str, Any]) -> Table:
    text = "The molecule is an acyclic compound. It contains one amide group."
    references = [f"{text} It has {place} carbon atoms." for place in range(12)]
    folder = answered_run(runs, "ours", 0, references, [text] * 12, config=config)
    asked_again(folder, ["The molecule is an amide."] * 12, generation={"beams": 5}, evaluation_id="beams")
    rows = {"ours": {"published": "MGProj"}}
    request = {"task": "caption", "metrics": ["bleu-4"], "published": "llamo/table4", "rows": rows}
    plan_file(runs, "beside", {"ours": [folder]}, tables=[request])
    (table,) = study_tables(read_study("beside", runs))
    return table


@pytest.mark.parametrize(("configured", "expected"), [(1, "ours"), (5, "ours, 5 beams"), (None, "ours")])
def test_a_published_number_stands_beside_one_way_of_asking(
    tmp_path: Path, configured: int | None, expected: str
) -> None:
    config = {} if configured is None else {"evaluation": {"generation": {"beams": configured}}}
    table = published_study(tmp_path, config)
    assert [row.name for row in table.rows if row.published] == [expected]
    note = next(note for note in table.notes if "was asked in 2 ways" in note)
    assert f"its published numbers stand beside {expected}, asked as it was trained and configured." in note


def test_published_numbers_stand_beside_the_protocol_that_is_theirs(tmp_path: Path) -> None:
    molecules = [f"{'C' * (1 + place)}O" for place in range(12)]
    chosen = [protocol_of(name) for name in ("strict", "molt5")]
    options: dict[str, Any] = {"kind": "molecule", "task": "design", "protocols": chosen}
    folder = answered_run(tmp_path, "ours", 0, molecules, [*molecules[1:], "CCO"], **options)
    request = {
        "task": "design", "metrics": ["exact", "validity"], "published": "molt5/molecules",
        "protocols": ["strict", "molt5"], "rows": {"ours": {"published": "molt5-small"}},
    }  # fmt: skip
    plan_file(tmp_path, "beside", {"ours": [folder]}, tables=[request])
    (table,) = study_tables(read_study("beside", tmp_path))
    beside = {part.protocol: [row.name for row in part.rows if row.published] for part in table.parts}
    assert beside == {"strict@1": [], "molt5@1": ["ours"]}
    assert not any("published under a protocol like" in note for note in table.notes)


# Metrics that are undefined in some seeds


def lacking_seed(runs: Path) -> Table:
    for seed, error in enumerate((0.1, 0.1, None)):
        numbers(runs, "lucky", seed, error)
    for seed in range(3):
        numbers(runs, "steady", seed, 0.5)
        numbers(runs, "worse", seed, 0.9)
    request = TableRequest(protocols=("strict",), metrics=("mae", "parse-rate"), reference="steady")
    return requested_table(read_runs([runs]), request)


def test_a_mean_of_some_seeds_is_counted_and_never_the_best_nor_tested(tmp_path: Path) -> None:
    table = lacking_seed(tmp_path)
    rows = by_name(table)
    lucky = rows["lucky"].metrics["mae"]
    assert lucky is not None
    assert lucky.mean < mean(rows["steady"], "mae")  # the best by the numbers alone
    assert (lucky.n, lucky.counted, lucky.best, lucky.ci95) == (2, "2 of 3 seeds", False, None)
    assert lucky.versus is not None
    assert (lucky.versus.difference, lucky.versus.p) == (None, None)
    steady = rows["steady"].metrics["mae"]
    assert steady is not None
    assert steady.best  # of those that have it in all seeds
    whole = rows["lucky"].metrics["parse-rate"]
    assert whole is not None
    assert whole.counted == ""
    assert whole.versus is not None
    assert whole.versus.p is not None
    note = next(note for note in table.notes if "2 of 3 seeds" in note and "mean over" in note)
    assert note.startswith("mae of lucky: a mean over 2 of 3 seeds only (seed 2: ")
    assert f"mae: {NOT_ALL_SEEDS} (lucky: 2 of 3 seeds)." in table.notes
    for form in ("markdown", "latex", "html"):
        assert "(2 of 3 seeds)" in as_text(table, form)
    assert json.loads(as_text(table, "json"))["parts"][0]["rows"][0]["metrics"]["mae"]["counted"] == "2 of 3 seeds"


def test_a_comparison_counts_seeds_too_and_does_not_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking_seed(tmp_path)
    (found,) = compare(runs_of("lucky", tmp_path), runs_of("steady", tmp_path))
    metrics = {metric.metric: metric for metric in found.metrics}
    assert metrics["mae"].counted == ("2 of 3 seeds", "")
    assert metrics["mae"].paired is None
    assert metrics["mae"].adjusted is None
    assert metrics["mae"].wins is None
    assert metrics["mae"].note.startswith(NOT_ALL_SEEDS)
    assert metrics["mae"].lacking[0].startswith("seed 2: ")
    assert metrics["parse-rate"].paired is not None
    assert _status(["compare", "lucky", "steady", "--runs", str(tmp_path)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "(2 of 3 seeds)" in out
    assert "mae of lucky: undefined (seed 2: " in out or "mae, rmse" in out


def test_why_there_is_no_test_is_true(tmp_path: Path) -> None:
    """It was always said that an older version had scored."""
    lacking_seed(tmp_path)
    from results.plots.rows import cells_of as cells

    found = cells(read_runs([tmp_path]))
    reader = PerExample()
    assert reader.compared(found["lucky"], found["steady"], "mae") == f"{NOT_ALL_SEEDS} (lucky: 2 of 3 seeds)"
    assert "older version" not in reader.why_none(found["lucky"], "mae")
    for answer in found["worse"].answers:
        (answer.run.folder / "scores" / f"{answer.score['score_id']}.json").unlink()
    said = PerExample().compared(found["worse"], found["steady"], "mae")
    assert said == "no test: the scores of single examples of worse are missing"


def test_published_numbers_are_not_compared_with_a_mean_of_some_seeds() -> None:
    from results.tables.beside import Beside
    from results.tables.model import Value

    number: Any = type("Figure", (), {"value": 0.5, "shown": "0.50"})()
    beside = Beside("paper", {("row", "mae"): number}, (), (), 0)
    whole, partial = Value(0.25, None, 2), Value(0.25, None, 2, counted="2 of 3 seeds")
    assert beside.numbers("row", {"mae": whole})["mae"].difference == -0.25
    assert beside.numbers("row", {"mae": partial})["mae"].difference is None


# Effects and power


def test_tables_have_effects_of_differences(tmp_path: Path) -> None:
    labelled(tmp_path, "base", 0.6)
    labelled(tmp_path, "other", 0.9)
    table = build_table(read_runs([tmp_path]), "strict", reference="base")
    value = by_name(table)["other"].metrics["accuracy"]
    assert value is not None
    assert value.versus is not None
    (found,) = compare(runs_of("other", tmp_path), runs_of("base", tmp_path))
    (accuracy,) = (metric for metric in found.metrics if metric.metric == "accuracy")
    assert accuracy.paired is not None
    assert value.versus.effect == accuracy.paired.effect
    assert value.versus.n == N
    assert accuracy.paired.effect is not None
    written = json.loads(as_text(table, "json"))["parts"][0]["rows"][1]["metrics"]["accuracy"]["versus"]
    assert written["effect"] == pytest.approx(accuracy.paired.effect)
    html, markdown = as_text(table, "html"), as_text(table, "markdown")
    first = next(name for name in table.metrics if by_name(table)["other"].metrics[name] is not None)
    shown = by_name(table)["other"].metrics[first]
    assert shown is not None
    assert shown.versus is not None
    assert f"<small>effect {shown.versus.effect:+.2f}</small>" in html
    assert "<small>effect" not in markdown
    assert "effect +" not in markdown.partition("\n- ")[0]
    assert any(note.startswith("Effects (Cohen's d_z") for note in table.notes)


def two_cells(seeds: int, n: int = 400) -> tuple[list[Basis], list[Basis]]:
    random = np.random.default_rng(8)
    luck = random.normal(0, 0.05, size=(2, seeds, 1))
    examples = random.normal(0, 0.3, size=(2, seeds, n)) + luck
    return [Basis("mean", row[:, None]) for row in examples[0]], [Basis("mean", row[:, None]) for row in examples[1]]


def test_what_is_detectable_after_correction_has_the_result_s_own_degrees_of_freedom() -> None:
    a, b = two_cells(3)
    found = paired(a, b, two_way=True)
    assert found.freedom is not None
    assert found.freedom < 10  # three seeds of each
    assert found.detectable is not None
    corrected = found.detectable_after(5)
    assert corrected is not None
    ratio = detectable_errors(found.freedom, 0.8, 0.01) / detectable_errors(found.freedom)
    assert corrected == pytest.approx(found.detectable * ratio)
    as_if_of_examples = detectable_errors(found.n - 1, 0.8, 0.01) / detectable_errors(found.n - 1)
    assert corrected > 1.1 * found.detectable * as_if_of_examples  # which it was taken for
    assert found.detectable_after(1) == pytest.approx(found.detectable)


def test_what_is_detectable_of_one_seed_has_the_freedom_of_its_examples() -> None:
    a, b = two_cells(1)
    found = paired(a, b)
    assert found.freedom == found.n - 1
    assert found.detectable is not None
    corrected = found.detectable_after(10)
    assert corrected == pytest.approx(
        found.detectable * detectable_errors(found.n - 1, 0.8, 0.005) / detectable_errors(found.n - 1)
    )
    same = paired(a, a)
    assert same.detectable_after(3) is None


def test_power_after_correction_is_as_stated() -> None:
    """By simulation: a true difference of that size is found in 80% of studies of 3 seeds, at a fifth of the level."""
    from scipy.stats import nct, t

    freedom, level = 4.0, 0.05 / 5
    shift = detectable_errors(freedom, 0.8, level)
    limit = float(t.ppf(1 - level / 2, freedom))
    random = np.random.default_rng(2)
    error = np.sqrt(random.chisquare(freedom, 200_000) / freedom)
    share = float((np.abs(random.normal(shift, 1, 200_000) / error) > limit).mean())
    assert share == pytest.approx(0.8, abs=0.005)
    assert float(nct.sf(limit, freedom, shift)) == pytest.approx(0.8, abs=1e-6)
