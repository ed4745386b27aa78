"""Two cells side by side: what is tested, what is refused, and what is said."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from answered_runs import answered_run, plan_file

from bench.cli import _status
from results.compare import compare, runs_of
from results.packed import pack, read_study
from results.runs import ResultsError
from results.scores import example_scores
from results.statistics import holm, mcnemar, paired

N = 80
GOLDS = ["yes" if place % 3 else "no" for place in range(N)]


def classified(runs: Path, name: str, share: float, seeds: Sequence[int] = (0,), **options: Any) -> list[Path]:
    """Runs that give a share of right answers."""
    folders = []
    for seed in seeds:
        generator = random.Random(f"{name}{seed}")
        answers = [gold if generator.random() < share else "no" if gold == "yes" else "yes" for gold in GOLDS]
        kept = {"kind": "classification", "task": "property", **options}
        folders.append(answered_run(runs, name, seed, GOLDS, answers, **kept))
    return folders


def test_every_metric_is_compared_on_the_same_examples(tmp_path: Path) -> None:
    (a,) = classified(tmp_path, "good", 0.95)
    (b,) = classified(tmp_path, "poor", 0.6)
    (found,) = compare(runs_of(str(a), tmp_path), runs_of(str(b), tmp_path))
    assert (found.a, found.b, found.n) == ("good seed 0", "poor seed 0", N)
    assert found.asked == "property on bundled, test split"
    runs = [runs_of(str(folder), tmp_path)[1][0] for folder in (a, b)]
    scores = [example_scores(run, run.summary["evaluations"][0]["scores"][0]) for run in runs]
    one, other = scores
    assert one is not None
    assert other is not None
    metrics = {metric.metric: metric for metric in found.metrics}
    expected = paired([one.basis["accuracy"]], [other.basis["accuracy"]])
    accuracy = metrics["accuracy"]
    assert accuracy.paired == expected
    assert accuracy.a is not None
    assert accuracy.b is not None
    assert expected.difference == pytest.approx(accuracy.a - accuracy.b)
    counted = mcnemar(one.values["accuracy"], other.values["accuracy"])
    assert accuracy.mcnemar == counted
    assert accuracy.wins is not None
    assert (accuracy.wins.a, accuracy.wins.b) == (counted.only_a, counted.only_b)
    assert accuracy.wins.a + accuracy.wins.b + accuracy.wins.ties == N
    ps = {name: metric.paired.p for name, metric in metrics.items() if metric.paired is not None}
    tested = {name: p for name, p in ps.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    assert {name: metrics[name].adjusted for name in tested} == adjusted
    assert metrics["f1"].paired is not None
    assert metrics["f1"].mcnemar is None


def test_the_other_way_round_everything_is_mirrored(tmp_path: Path) -> None:
    classified(tmp_path, "good", 0.9)
    classified(tmp_path, "poor", 0.7)
    sides = [runs_of(name, tmp_path) for name in ("good", "poor")]
    (there,), (back,) = compare(*sides), compare(*sides[::-1])
    for one, other in zip(there.metrics, back.metrics, strict=True):
        if one.paired is None:
            assert other.paired is None
            continue
        assert other.paired is not None
        assert other.paired.p == one.paired.p
        assert other.paired.difference == pytest.approx(-one.paired.difference)
        assert (other.a, other.b) == (one.b, one.a)


def test_cells_with_several_seeds(tmp_path: Path) -> None:
    classified(tmp_path, "good", 0.9, (0, 1, 2))
    classified(tmp_path, "poor", 0.6, (0, 1, 2))
    (found,) = compare(runs_of("good", tmp_path), runs_of("poor", tmp_path))
    assert found.seeds == ((0, 1, 2), (0, 1, 2))
    (accuracy,) = (metric for metric in found.metrics if metric.metric == "accuracy")
    assert accuracy.mcnemar is None
    assert accuracy.paired is not None
    assert accuracy.paired.seeds == (3, 3)
    assert accuracy.paired.test.startswith("t over examples and seeds")


def test_other_examples_are_refused_with_what_both_have(tmp_path: Path) -> None:
    classified(tmp_path, "all", 0.9)
    answered_run(tmp_path, "few", 0, GOLDS[:30], GOLDS[:30], kind="classification", task="property")
    with pytest.raises(ResultsError, match=r"all has strict@1 of 80 examples .* few has strict@1 of 30 examples"):
        compare(runs_of("all", tmp_path), runs_of("few", tmp_path))


def test_other_protocols_are_refused_with_what_both_have(tmp_path: Path) -> None:
    classified(tmp_path, "new", 0.9)
    (old,) = classified(tmp_path, "old", 0.8)
    result = (old / "result.json").read_text().replace('"strict@1"', '"strict@0"')
    (old / "result.json").write_text(result)
    with pytest.raises(ResultsError, match=r"new has strict@1 of 80 examples .*, and old has strict@0 of 80 examples"):
        compare(runs_of("new", tmp_path), runs_of("old", tmp_path))
    with pytest.raises(ResultsError, match="nothing to compare: of the test split"):
        compare(runs_of("new", tmp_path), runs_of("new", tmp_path), protocol="molt5")


def test_sides_may_be_cells_of_studies_and_packed_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    one, other = classified(runs, "one", 0.9), classified(runs, "other", 0.6)
    plan_file(runs, "mine", {"A": one, "B": other, "C": [None]})
    pack(read_study("mine", runs), tmp_path / "kept")
    live = compare(runs_of("mine:A", runs), runs_of("mine:B", runs))
    kept = compare(runs_of(f"{tmp_path / 'kept'}:A", runs), runs_of(f"{tmp_path / 'kept'}:B", runs))
    files = [str(next((tmp_path / "kept" / "runs").glob(f"{name}-s0*"))) for name in ("one", "other")]
    single = compare(runs_of(files[0], runs), runs_of(files[1], runs))
    assert [found[0].metrics for found in (kept, single)] == [kept[0].metrics] * 2
    assert (kept[0].a, kept[0].b) == (live[0].a, live[0].b) == ("A", "B")
    for before, after in zip(live[0].metrics, kept[0].metrics, strict=True):
        assert after.a == before.a
    with pytest.raises(ResultsError, match="study mine has no cell 'D'; it has A, B, C"):
        runs_of("mine:D", runs)
    with pytest.raises(ResultsError, match=r"C: none of its runs is done \(not begun\)"):
        runs_of("mine:C", runs)
    with pytest.raises(ResultsError, match="holds several cells; name one as"):
        runs_of(str(tmp_path / "kept"), runs)
    with pytest.raises(ResultsError, match="nix: is no run, no packed run, no STUDY:CELL, and no cell"):
        runs_of("nix", runs)


def test_settings_in_which_cells_differ_are_told(tmp_path: Path) -> None:
    classified(tmp_path, "one", 0.9, config={"encoder": {"name": "gin", "layers": 2}, "task": {"name": "x"}})
    classified(tmp_path, "other", 0.9, config={"encoder": {"name": "gin", "layers": 5}, "task": {"name": "x"}})
    (found,) = compare(runs_of("one", tmp_path), runs_of("other", tmp_path))
    assert dict(found.settings) == {"encoder.layers": (2, 5)}


def test_the_command_says_it_in_words_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classified(tmp_path, "good", 0.95)
    classified(tmp_path, "poor", 0.6)
    assert _status(["compare", "good", "poor", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "good against poor: property on bundled, test split, protocol strict@1, 80 examples" in out
    assert "McNemar, accuracy: only good is right on" in out
    assert "Difference: good less poor." in out
    assert _status(["compare", "good", "poor", "--runs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["a"], found["b"], found["n"]) == ("good", "poor", N)
    (accuracy,) = (metric for metric in found["metrics"] if metric["metric"] == "accuracy")
    assert accuracy["paired"]["p"] < 0.05
    assert not math.isnan(accuracy["paired"]["difference"])
    assert _status(["compare", "good", "nix", "--runs", str(tmp_path)]) == 2
    assert "there are good, poor" in capsys.readouterr().err
