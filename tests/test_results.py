"""Tables from run folders: what is averaged with what, what is said beside the numbers, and the forms they come in."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK

from bench.cli import _status
from results.runs import ResultsError, evaluations_of, read_runs, reliance_gains, score_of
from results.statistics import averaged_per_example, mean_over_examples, over_seeds
from results.tables import as_text, build_table, cells_of


def write_run(
    runs: Path,
    name: str,
    seed: int,
    values: Mapping[str, float | None],
    *,
    cell: str | None = None,
    limited: bool = False,
    split: str = "test",
    invalid: int = 0,
    loss: float = 1.0,
    gains: Mapping[str, tuple[float, bool]] | None = None,
    protocol: str = "strict@1",
) -> Path:
    """A finished run's folder, by hand: what `results` reads."""
    folder = runs / f"{name}-s{seed}-{cell or name}{seed}"
    (folder / "reliance").mkdir(parents=True)
    metrics: dict[str, Any] = {}
    for metric, value in values.items():
        metrics[metric] = {"value": value, "ci95": None}
        if value is None:
            metrics[metric]["reason"] = "WordNet is missing"
    reliance: dict[str, Any] = {"value": None, "reason": "not measured"}
    if gains is not None:
        reliance = {"value": 0.1, "reliance_id": "r"}
        lines = [
            {"example_id": example, "real": -1.0 + 2 * gain, "swapped": -1.0, "tokens": 2, "counts": counts}
            for example, (gain, counts) in gains.items()
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "reliance" / "r.jsonl").write_text(text)
    entry = {
        "task": "caption",
        "data": "bundled",
        "split": split,
        "limited": limited,
        "n": 7 if limited else 40,
        "evaluation_id": f"{split}-asked",
        "examples_id": "few" if limited else "all",
        "graph_input": {"name": "real"},
        "generation": {"beams": 1},
        "scores": [{"protocol": protocol, "n_invalid": invalid, "metrics": metrics}],
        "reliance": reliance,
    }
    summary = {
        "name": name,
        "seed": seed,
        "cell_id": cell or name,
        "parameters": {"trained_sum": 12345},
        "stages": [{"validation": {"5": loss, "10": 9.0}, "kept_step": 5}],
        "scored_weights": "best of stage tune",
        "evaluations": [entry],
        "training_seconds": 10.0 + seed,
        "seconds": 99.0,
    }
    (folder / "result.json").write_text(json.dumps(summary))
    (folder / "manifest.json").write_text(json.dumps({"cell_id": cell or name}))
    write_status(folder, "done")
    return folder


def write_status(folder: Path, state: str, error: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status.json").write_text(json.dumps({"state": state, "error": error}))


def table_of(runs: Path, **options: Any) -> Any:
    return build_table(read_runs([runs]), "strict", **options)


# Runs


def test_runs_are_read_from_folders_of_runs_and_from_run_directories(tmp_path: Path) -> None:
    second = write_run(tmp_path, "b", 0, {"bleu-2": 0.5})
    write_run(tmp_path, "a", 1, {"bleu-2": 0.5})
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5})
    (tmp_path / "not-a-run").mkdir()
    assert [(run.name, run.seed) for run in read_runs([tmp_path])] == [("a", 0), ("a", 1), ("b", 0)]
    assert [run.name for run in read_runs([second])] == ["b"]


def test_a_run_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", 0, {"bleu-2": 0.5})
    assert len(read_runs([tmp_path, folder, tmp_path])) == 1


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no run"):
        read_runs([tmp_path])
    with pytest.raises(ResultsError, match="nowhere: no such folder of runs"):
        read_runs([tmp_path / "nowhere"])
    folder = write_run(tmp_path, "a", 0, {"bleu-2": 0.5})
    (folder / "result.json").write_text("{")
    with pytest.raises(ResultsError, match=r"result\.json: not readable as JSON"):
        read_runs([tmp_path])


def test_the_complete_evaluation_goes_before_a_limited_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path, "a", 0, {"bleu-2": 0.1}, limited=True)
    result = json.loads((folder / "result.json").read_text())
    complete = {**result["evaluations"][0], "limited": False, "n": 40}
    other_split = {**result["evaluations"][0], "limited": False, "split": "validation"}
    result["evaluations"] = [other_split, result["evaluations"][0], complete]
    (folder / "result.json").write_text(json.dumps(result))
    (run,) = read_runs([tmp_path])
    (found,) = evaluations_of(run, "test")
    assert found["n"] == 40
    assert evaluations_of(run, "train") == []
    assert score_of(found, "strict") == score_of(found, "strict@1") is not None
    assert score_of(found, "strict@2") is None


# Statistics


def test_a_spread_is_told_from_three_seeds_on_with_ddof_1() -> None:
    assert over_seeds([]) is None
    for few in ([0.5], [0.5, 0.7]):
        found = over_seeds(few)
        assert found is not None
        assert (found.mean, found.sd, found.n) == (pytest.approx(statistics.mean(few)), None, len(few))
    found = over_seeds([1.0, 2.0, 4.0])
    assert found is not None
    assert found.mean == pytest.approx(7 / 3)
    assert found.sd == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))


def test_an_interval_over_examples_is_the_percentile_bootstrap() -> None:
    assert mean_over_examples([]) is None
    one = mean_over_examples([2.0])
    assert one is not None
    assert (one.mean, one.ci95, one.n) == (2.0, None, 1)
    # Of two values 0 and 1, a quarter of all resamples are (0, 0) and a quarter (1, 1): the interval is [0, 1].
    two = mean_over_examples([0.0, 1.0])
    assert two is not None
    assert (two.mean, two.ci95, two.n) == (0.5, (0.0, 1.0), 2)
    # The sum of 100 draws of 0 or 1 is binomial(100, 1/2), whose 2.5% and 97.5% quantiles are 40 and 60.
    many = mean_over_examples([0.0, 1.0] * 50)
    assert many is not None
    assert many.ci95 == (pytest.approx(0.40, abs=0.011), pytest.approx(0.60, abs=0.011))
    same = mean_over_examples([0.3] * 10)
    assert same is not None
    assert same.ci95 == (pytest.approx(0.3), pytest.approx(0.3))
    assert mean_over_examples([0.0, 1.0] * 50) == many


def test_seeds_are_averaged_per_example_before_examples_are_drawn() -> None:
    assert averaged_per_example([]) == []
    assert averaged_per_example([{"a": 1.0, "b": 2.0}]) == [1.0, 2.0]
    assert averaged_per_example([{"a": 1.0, "b": 2.0}, {"b": 4.0, "c": 9.0, "a": 3.0}]) == [2.0, 3.0]
    assert averaged_per_example([{"a": 1.0}, {"b": 1.0}]) == []


# Tables


def test_runs_are_grouped_by_cell_and_not_by_alias(tmp_path: Path) -> None:
    write_run(tmp_path, "same-alias", 0, {"bleu-2": 0.2}, cell="one")
    write_run(tmp_path, "same-alias", 1, {"bleu-2": 0.4}, cell="one")
    write_run(tmp_path, "other-alias", 2, {"bleu-2": 0.6}, cell="one")
    write_run(tmp_path, "same-alias", 3, {"bleu-2": 0.9}, cell="two")
    table = table_of(tmp_path)
    found = {row.seeds: row for row in table.rows}
    assert {tuple(sorted(seeds)) for seeds in found} == {(0, 1, 2), (3,)}
    means = sorted(row.metrics["bleu-2"].mean for row in table.rows)
    assert means == [pytest.approx(0.4), pytest.approx(0.9)]


def test_a_deviation_is_shown_from_three_seeds_on(tmp_path: Path) -> None:
    for seed, value in enumerate((0.1, 0.2, 0.6)):
        write_run(tmp_path, "three", seed, {"bleu-2": value})
    for seed, value in enumerate((0.1, 0.2)):
        write_run(tmp_path, "two", seed, {"bleu-2": value})
    table = table_of(tmp_path)
    header, body = cells_of(table)
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert shown["three"]["bleu-2"] == "0.300 ± 0.265"
    assert shown["three"]["seeds"] == "3"
    assert shown["two"]["bleu-2"] == "0.150"
    assert "±" not in "".join(shown["two"].values())
    assert shown["two"]["trained parameters"] == "12,345"
    assert shown["two"]["validation loss"] == "1.000"


def test_what_is_undefined_is_na_with_its_reason(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5, "meteor": None})
    write_run(tmp_path, "b", 0, {"bleu-2": 0.5, "meteor": 0.25})
    table = table_of(tmp_path)
    header, body = cells_of(table)
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert (shown["a"]["meteor"], shown["b"]["meteor"]) == ("n/a", "0.250")
    assert "reliance" not in header  # which no run has
    assert "meteor of a is n/a: WordNet is missing." in " ".join(table.notes)


def test_a_metric_that_no_run_has_is_named_in_the_notes(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5, "meteor": None})
    assert "- meteor is n/a: WordNet is missing." in as_text(table_of(tmp_path), "markdown")


def test_runs_that_are_not_done_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5})
    write_status(tmp_path / "lost-s0-f00", "failed", "nan")
    write_status(tmp_path / "begun-s0-f01", "running")
    header, body = cells_of(table_of(tmp_path))
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert set(shown) == {"a", "lost", "begun"}
    assert shown["lost"]["seeds"] == "0, 1 failed (nan)"
    assert shown["begun"]["seeds"] == "0, 1 running"
    assert shown["lost"]["bleu-2"] == "n/a"


def test_a_failed_run_stands_in_the_row_of_its_cell(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "a", seed, {"bleu-2": 0.5}, cell="one")
    failed = tmp_path / "a-s3-f00"
    write_status(failed, "failed", "nan")
    (failed / "manifest.json").write_text(json.dumps({"cell_id": "one", "train_id": "f00"}))
    (row,) = table_of(tmp_path).rows
    assert sorted(row.seeds) == [0, 1, 2]
    assert row.states == ("nan",)
    assert row.trained == 12345


def test_limited_results_are_stamped_and_invalid_answers_counted(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5}, limited=True, invalid=2)
    write_run(tmp_path, "b", 0, {"bleu-2": 0.5}, invalid=1)
    table = table_of(tmp_path)
    notes = " ".join(table.notes)
    assert "LIMITED: 7 examples" in notes
    assert "3 answers could not be parsed" in notes
    assert "Scored weights: best of stage tune." in notes
    assert "LIMITED" not in " ".join(table_of(tmp_path / "b-s0-b0").notes)


def test_reliance_is_averaged_over_seeds_per_example_and_leaves_out_unequal_pairs(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5}, gains={"x": (0.2, True), "y": (0.4, True), "z": (9.0, False)})
    write_run(tmp_path, "a", 1, {"bleu-2": 0.5}, gains={"x": (0.4, True), "y": (0.6, True), "z": (9.0, False)})
    first = read_runs([tmp_path])[0]
    (entry,) = evaluations_of(first, "test")
    assert reliance_gains(first, entry) == {"x": pytest.approx(0.2), "y": pytest.approx(0.4)}
    (row,) = table_of(tmp_path).rows
    assert row.reliance.mean == pytest.approx(0.4)
    assert row.reliance.n == 2
    assert row.reliance.ci95 is None  # two examples: an interval would say more than is known
    assert "+0.400 (n 2)" in as_text(table_of(tmp_path), "markdown")


def test_reliance_has_an_interval_from_ten_examples_on(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5}, gains={f"x{i}": (0.2 + 0.2 * (i % 2), True) for i in range(9)})
    assert table_of(tmp_path).rows[0].reliance.ci95 is None
    write_run(tmp_path, "b", 0, {"bleu-2": 0.5}, gains={f"x{i}": (0.2 + 0.2 * (i % 2), True) for i in range(10)})
    low, high = table_of(tmp_path).rows[1].reliance.ci95
    assert 0.2 <= low < 0.3 < high <= 0.4
    text = as_text(table_of(tmp_path), "markdown")
    assert re.search(r"\+0\.300 \[\+0\.2\d+, \+0\.3\d+\] \(n 10\)", text)
    assert "no interval below 10" in text


def test_one_table_has_one_protocol_and_one_split(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5}, protocol="molt5@1")
    write_run(tmp_path, "b", 0, {"bleu-2": 0.5})
    table = table_of(tmp_path)
    assert table.protocol == "strict@1"
    found = {row.name: row.metrics["bleu-2"] for row in table.rows}
    assert found["a"] is None
    assert found["b"].mean == 0.5
    with pytest.raises(ResultsError, match=r"protocol 'mine' on the test split.*molt5@1, strict@1"):
        build_table(read_runs([tmp_path]), "mine")
    with pytest.raises(ResultsError, match="on the validation split"):
        table_of(tmp_path, split="validation")


def test_forms_of_a_table(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "50%_of|a&b#{x}", seed, {"bleu-2": 0.5 + seed / 10, "meteor": None}, cell="c")
    table = table_of(tmp_path)
    markdown = as_text(table, "markdown").splitlines()
    assert markdown[0].startswith("caption on bundled, test split, protocol strict@1, 40 examples.")
    assert markdown[2].startswith("| cell")
    assert set(markdown[3]) == {"|", "-", ":"}
    assert len({line.replace("\\|", "").count("|") for line in markdown[2:5]}) == 1
    assert markdown[-1].startswith("- ")

    latex = as_text(table, "latex")
    assert r"50\%\_of\textbar{}a\&b\#\{x\}" in latex
    assert r"0.600 $\pm$ 0.100" in latex
    for line in latex.splitlines():
        if line.endswith(r"\\"):
            assert line.replace(r"\&", "").count("&") == len(cells_of(table)[0]) - 1
    for kind in ("table", "tabular", "minipage"):
        assert latex.count(rf"\begin{{{kind}}}") == latex.count(rf"\end{{{kind}}}") == 1

    data = json.loads(as_text(table, "json"))
    assert data["protocol"] == "strict@1"
    ((row,),) = (part["rows"] for part in data["parts"])
    assert row["name"] == "50%_of|a&b#{x}"
    found = row["metrics"]["bleu-2"]
    assert (found["mean"], found["sd"], found["n"]) == (pytest.approx(0.6), pytest.approx(0.1), 3)
    assert row["seeds"] == [0, 1, 2]


def test_backslashes_and_signs_survive_latex(tmp_path: Path) -> None:
    write_run(tmp_path, r"a\b^c~d$e", 0, {"bleu-2": 0.5}, cell="c")
    latex = as_text(table_of(tmp_path), "latex")
    assert r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d\$e" in latex


# A real run


def test_a_real_run_becomes_a_table(
    tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOLGRAFT_CACHE", str(session_cache))
    runs = tmp_path / "runs"
    chosen = [word for setting in QUICK for word in ("--set", setting)]
    for seed in ("0", "1"):
        rest = ["--runs", str(runs), "--tracking", "none", "--quiet", "--threads", "1", "--seed", seed, "--json"]
        assert _status(["run", "demo", *chosen, *rest]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = [result["evaluations"][0]["scores"][0]["metrics"]["rouge-l"]["value"] for result in results]
    output = tmp_path / "table.json"
    assert _status(["tables", str(runs), "--format", "json", "-o", str(output)]) == 0
    table = json.loads(output.read_text())
    ((row,),) = (part["rows"] for part in table["parts"])
    assert row["name"] == "demo"
    assert row["seeds"] == [0, 1]
    found = row["metrics"]["rouge-l"]
    assert (found["mean"], found["sd"], found["n"]) == (pytest.approx(statistics.mean(values)), None, 2)
    assert found["ci95"][0] <= found["mean"] <= found["ci95"][1]
    losses = [result["stages"][-1]["validation"]["6"] for result in results]
    assert row["loss"]["mean"] == pytest.approx(statistics.mean(losses))
    assert row["trained"] == results[0]["parameters"]["trained_sum"]
    assert any("LIMITED: 12 examples" in note for note in table["notes"])
    gained = [result["evaluations"][0]["reliance"] for result in results]
    assert row["reliance"]["n"] == gained[0]["n"]
    assert row["reliance"]["mean"] == pytest.approx(statistics.mean(gain["value"] for gain in gained))
    capsys.readouterr()
    assert _status(["tables", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "caption on bundled, test split, protocol strict@1, 12 examples (LIMITED: a subset of the split)." in shown


def test_another_way_of_asking_the_same_runs_has_a_row_of_its_own(tmp_path: Path) -> None:
    for seed in range(2):
        folder = write_run(tmp_path, "a", seed, {"bleu-2": 0.5}, cell="one")
        result = json.loads((folder / "result.json").read_text())
        (real,) = result["evaluations"]
        scores = [{**real["scores"][0], "metrics": {"bleu-2": {"value": 0.1, "ci95": None}}}]
        control = {**real, "evaluation_id": "zeroed", "graph_input": {"name": "zero"}, "scores": scores}
        result["evaluations"] = [real, control]
        (folder / "result.json").write_text(json.dumps(result))
    header, body = cells_of(table_of(tmp_path))
    shown = {row[0]: dict(zip(header, row, strict=True)) for row in body}
    assert {name: row["bleu-2"] for name, row in shown.items()} == {"a": "0.500", "a, graphs zero at test": "0.100"}
    assert [row["seeds"] for row in shown.values()] == ["2", "2"]


def test_seeds_that_were_asked_other_examples_are_not_averaged(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, {"bleu-2": 0.5}, cell="one")
    write_run(tmp_path, "a", 1, {"bleu-2": 0.1}, cell="one", limited=True)
    table = table_of(tmp_path)
    assert [(part.n, part.limited, [row.seeds for row in part.rows]) for part in table.parts] == [
        (40, False, [(0,)]),
        (7, True, [(1,)]),
    ]
    assert "Numbers compare within a part only" in " ".join(table.notes)
