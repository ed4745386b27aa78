"""Rows of plots from runs: what is read is what the runs hold."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from results import plots
from results.plots.parts import part_rows, parts_of
from results.plots.rows import (
    answer_rows,
    cells_of,
    cost_rows,
    difference_rows,
    gate_rows,
    loss_rows,
    rank_rows,
    reliance_rows,
)
from results.runs import ResultsError, Run, read_runs

EXAMPLES = [f"m{number}" for number in range(24)]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def evaluation(run: Path, task: str, metric: str, values: list[float]) -> dict[str, Any]:
    """An evaluation's entry in a run's result, and the files that it names."""
    identity = f"{run.name[:3]}-{task}"
    summary = {
        "protocol": "strict@1",
        "score_id": identity,
        "n": len(EXAMPLES),
        "n_invalid": 1,
        "metrics": {metric: {"value": math.fsum(values) / len(values), "ci95": [0.0, 1.0]}},
        "identity": {},
    }
    invalid = {EXAMPLES[3]: "cannot be read"}
    scores = {"summary": summary, "example_ids": EXAMPLES, "per_example": {metric: values}, "invalid": invalid}
    write_json(run / "scores" / f"{identity}.json", scores)
    answers = [
        {"example_id": name, "raw": "x", "text": None if name == EXAMPLES[3] else "Yes" if value > 0.5 else "No or so"}
        for name, value in zip(EXAMPLES, values, strict=True)
    ]
    write_lines(run / "predictions" / f"{identity}.jsonl", answers)
    questions = [{"example_id": name, "reference": "Yes"} for name in EXAMPLES]
    write_lines(run / "predictions" / f"{identity}.questions.jsonl", questions)
    gains = [
        {"example_id": name, "real": -1.0, "swapped": -1.0 - 2 * value, "tokens": 2, "counts": name != EXAMPLES[0]}
        for name, value in zip(EXAMPLES, values, strict=True)
    ]
    write_lines(run / "reliance" / f"{identity}.jsonl", gains)
    return {
        "task": task,
        "answer": "classification" if task == "property" else "caption",
        "data": "bundled",
        "split": "test",
        "n": len(EXAMPLES),
        "limited": False,
        "evaluation_id": task,
        "examples_id": "examples",
        "graph_input": {"name": "real"},
        "generation": {"beams": 1},
        "predict_id": identity,
        "scores": [summary],
        "observed": {"gates": {"mean": [1.25 + len(run.name) % 2, 0.75], "sd": [0.3, 0.4], "n": 24}},
        "reliance": {"reliance_id": identity},
        "facts": "examples.jsonl.gz",
        "novelty": "examples.training.json",
    }


def write_run(runs: Path, name: str, seed: int, level: float, tasks: dict[str, str]) -> None:
    folder = runs / f"{name}-s{seed}-{name}{seed}"
    values = [round(min(1.0, max(0.0, level + 0.4 * math.sin(7 * n + seed))), 4) for n in range(len(EXAMPLES))]
    stages = [{"name": "tune", "validation": {"0": 2.0, "10": 1.0 + level + seed}, "kept_step": 10}]
    summary = {
        "name": name,
        "seed": seed,
        "cell_id": name,
        "encoder": name.partition("-")[0],
        "parameters": {"trained_sum": round(1e5 * (1 + level))},
        "stages": stages,
        "scored_weights": "last of stage tune",
        "evaluations": [evaluation(folder, task, metric, values) for task, metric in tasks.items()],
        "training_seconds": 10.0 + seed,
    }
    write_json(folder / "result.json", summary)
    write_json(folder / "manifest.json", {"cell_id": name})
    write_json(folder / "status.json", {"state": "done"})
    (folder / "config.yaml").write_text("projector: {name: dynamic, levels: [atom, graph]}\n", encoding="utf-8")
    logged = [{"step": 1, "loss": 2.5}, {"step": 10, "validation_loss": 9.0}, {"step": 10, "loss": 1.5}]
    write_lines(folder / "stages" / "0-tune" / "metrics.jsonl", logged)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    for name, level in (("gin-a", 0.3), ("gin-b", 0.5), ("gat-a", 0.7)):
        for seed in (0, 1):
            write_run(folder, name, seed, level, {"caption": "meteor", "property": "accuracy", "solubility": "rmse"})
    facts = [
        {
            "example_id": name,
            "molecules": [{"smiles": "C", "atoms": 5 + place, "groups": ["ester", "amide"][: place % 3]}],
        }
        for place, name in enumerate(EXAMPLES)
    ]
    (folder / ".examples").mkdir()
    with gzip.open(folder / ".examples" / "examples.jsonl.gz", "wt") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in facts))
    novelty = {
        name: {"scaffold_seen": place < 12, "molecule_seen": False, "nearest": place / 23}
        for place, name in enumerate(EXAMPLES)
    }
    write_json(folder / ".examples" / "examples.training.json", novelty)
    (failed := folder / "gin-c-s0-failed").mkdir()
    write_json(failed / "status.json", {"state": "failed", "error": "nan"})
    write_lines(failed / "stages" / "0-align" / "metrics.jsonl", [{"step": 0, "validation_loss": 3.0}])
    write_lines(failed / "stages" / "1-tune" / "metrics.jsonl", [{"step": 5, "validation_loss": math.nan}])
    return read_runs([folder])


def cells(runs: list[Run], task: str = "caption") -> Any:
    return cells_of(runs, task=task)


def mean_of(run: Run, task: str = "caption") -> float:
    (entry,) = [entry for entry in run.summary["evaluations"] if entry["task"] == task]
    return float(next(iter(entry["scores"][0]["metrics"].values()))["value"])


def test_costs_are_of_cells(runs: list[Run]) -> None:
    rows = {row.name: row for row in cost_rows(cells(runs), "meteor")}
    assert list(rows) == ["gat-a", "gin-a", "gin-b"]
    pair = [run for run in runs if run.name == "gin-a"]
    assert rows["gin-a"].value == pytest.approx(sum(map(mean_of, pair)) / 2)
    assert (rows["gin-a"].cost, rows["gin-a"].group) == (130_000, "gin")
    low, high = rows["gin-a"].low, rows["gin-a"].high
    assert low is not None
    assert high is not None
    assert low < (rows["gin-a"].value or 0) < high
    seconds = cost_rows(cells(runs), "meteor", "seconds of training")
    assert [row.cost for row in seconds] == [10.5] * 3
    assert plots.score_against_cost(seconds, metric="meteor", cost="seconds of training").axes


def test_differences_are_paired_and_corrected(runs: list[Run]) -> None:
    rows = {row.name: row for row in difference_rows(cells(runs), "meteor", "gin-a")}
    assert list(rows) == ["gat-a", "gin-b"]
    costs = {row.name: row.value for row in cost_rows(cells(runs), "meteor")}
    for name, row in rows.items():
        assert row.difference == pytest.approx((costs[name] or 0) - (costs["gin-a"] or 0))
        assert row.n == 24
        assert row.p is not None
        assert row.p < 0.05
    assert plots.forest(list(rows.values()), metric="meteor", reference="gin-a").axes
    with pytest.raises(ResultsError, match="'gin' is none of the cells gat-a, gin-a, gin-b"):
        difference_rows(cells(runs), "meteor", "gin")


def test_losses_are_of_all_runs_finished_or_not(runs: list[Run]) -> None:
    rows = loss_rows(runs, training=True)
    of_one = [(row.kind, row.step, row.loss, row.kept) for row in rows if (row.name, row.seed) == ("gin-a", 1)]
    expected = [("validation", 0, 2.0, False), ("validation", 10, 2.3, True), ("training", 1, 2.5, False)]
    assert of_one == [*expected, ("training", 10, 1.5, False)]
    failed = [(row.stage, row.step, str(row.loss)) for row in rows if row.name == "gin-c"]
    assert failed == [("align", 0, "3.0"), ("tune", 5, "nan")]
    assert plots.learning_curves(rows).axes


def test_reliance_is_averaged_over_seeds(runs: list[Run]) -> None:
    row = next(row for row in reliance_rows(cells(runs)) if row.name == "gin-b")
    assert len(row.gains) == 23
    pair = [run.json(f"scores/{run.folder.name[:3]}-caption.json") for run in runs if run.name == "gin-b"]
    values = [[(p or {})["per_example"]["meteor"][place] for p in pair] for place in range(1, 24)]
    assert sorted(row.gains) == pytest.approx(sorted(sum(pair) / 2 for pair in values))
    assert row.low is not None
    assert row.low < sum(row.gains) / 23
    assert plots.reliance_per_example(reliance_rows(cells(runs))).axes


def test_gates_are_named_by_the_projectors_levels(runs: list[Run]) -> None:
    row = next(row for row in gate_rows(cells(runs)) if row.name == "gin-a")
    assert row.levels == ("atom", "graph")
    assert row.means[1] == 0.75
    assert row.sds == pytest.approx((0.3, 0.4))
    assert gate_rows(cells(runs), "weights") == []
    assert plots.gate_heat_map(gate_rows(cells(runs))).axes


def test_ranks_are_over_tasks_and_know_which_way_is_better(runs: list[Run]) -> None:
    rows, critical, blocks, test = rank_rows(runs)
    # gat-a has the largest values, which is best twice and, as an error, worst once.
    assert {row.name: row.mean_rank for row in rows} == pytest.approx({"gat-a": 5 / 3, "gin-b": 2.0, "gin-a": 7 / 3})
    assert blocks == 3
    assert test.startswith("Friedman: chi-squared 0.667, p = ")
    assert plots.critical_difference_diagram(rows, critical, blocks=blocks, test=test).axes


def test_answers_are_counted_over_seeds(runs: list[Run]) -> None:
    rows = answer_rows(cells(runs, "property"))
    assert len([row for row in rows if row.name == "gin-a"]) == 48
    assert {row.gold for row in rows} == {"Yes"}
    assert {row.answer for row in rows} == {"Yes", "No or so", None}
    assert len(plots.confusion(rows).axes) == 3 + 1
    with pytest.raises(ResultsError, match="caption is no classification"):
        answer_rows(cells(runs))


def test_parts_are_by_what_is_known_of_molecules(runs: list[Run]) -> None:
    group = cells(runs)["gin-a"]
    sizes = {part: len(examples) for part, examples in parts_of(group, "heavy atoms").items()}
    assert sizes == {"1 to 10": 6, "11 to 20": 10, "21 to 30": 8}
    groups = {part: len(examples) for part, examples in parts_of(group, "functional group").items()}
    assert groups == {"ester": 16, "amide": 8}
    assert list(parts_of(group, "scaffold")) == ["seen in training", "not seen"]
    assert list(parts_of(group, "molecule")) == ["not seen"]
    similar = parts_of(group, "similarity to training molecules")
    assert list(similar) == ["0 to 0.2", "0.2 to 0.4", "0.4 to 0.6", "0.6 to 0.8", "0.8 to below 1", "1"]
    assert similar["1"] == [EXAMPLES[-1]]
    assert sum(map(len, similar.values())) == 24


def test_a_metric_of_a_part_is_over_its_examples(runs: list[Run]) -> None:
    rows = part_rows(cells(runs), "meteor", "scaffold")
    row = next(row for row in rows if (row.name, row.part) == ("gin-b", "not seen"))
    pair = [run.json(f"scores/{run.folder.name[:3]}-caption.json") for run in runs if run.name == "gin-b"]
    values = [value for p in pair for value in (p or {})["per_example"]["meteor"][12:]]
    assert row.value == pytest.approx(sum(values) / 24)
    assert row.n == 12
    assert row.low is not None
    few = next(row for row in part_rows(cells(runs), "meteor", "heavy atoms") if row.n == 6)
    assert few.low is None
    assert plots.breakdown(rows, quantity="meteor", by="scaffold", ordered=False).axes


def test_lengths_and_invalid_answers_of_parts(runs: list[Run]) -> None:
    words = {row.name: row.value for row in part_rows(cells(runs), "words", "molecule")}
    assert 1 < (words["gat-a"] or 0) < (words["gin-a"] or 0) < 3
    invalid = [row for row in part_rows(cells(runs), "invalid", "heavy atoms") if row.name == "gin-a"]
    assert [row.value for row in invalid] == pytest.approx([1 / 6, 0.0, 0.0])


def test_missing_facts_are_said(runs: list[Run], tmp_path: Path) -> None:
    write_run(tmp_path, "gin-a", 0, 0.3, {"caption": "meteor"})
    alone = cells_of(read_runs([tmp_path]))
    with pytest.raises(ResultsError, match="facts of these examples were not written"):
        part_rows(alone, "meteor", "heavy atoms")
    with pytest.raises(ResultsError, match="how new these examples are to the training data was not written"):
        part_rows(alone, "meteor", "scaffold")
    with pytest.raises(ResultsError, match="no cell has it example by example"):
        part_rows(alone, "bleu-2", "heavy atoms")
