"""What changes when graphs are swapped: gold answers' likelihoods and the metrics of answers, paired by example."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import QUICK

from bench.config import RunConfig
from bench.experiment import RunResult, run
from bench.preset import load_config
from bench.run_store import read_json, read_jsonl
from bench.runtime import Runtime
from bench.scores import changes, probability_of_first
from tasks.metrics.protocols import Strict

TRAINS = "{encoder: full, projector: full, llm: full}"
STAGE = f"{{steps: 150, batch_size: 16, name: tune, optimiser: {{lr: 0.01}}, trains: {TRAINS}}}"
SETTINGS = (
    *QUICK,
    "limits={train: 256, validation: 4}",
    "text_input=none",
    "evaluation.limit=12",
    "evaluation.generation={max_new_tokens: 32, batch_size: 4}",
    "evaluation.reliance={name: shuffled, match_size: false}",
    f"stages=[{STAGE}]",
)


def config(*settings: str) -> RunConfig:
    return load_config("demo", [*SETTINGS, *settings])


def runtime(folder: Path, cache: Path) -> Runtime:
    return Runtime(runs=folder, cache=cache, progress=False, tracking="none", device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> RunResult:
    return run(config(), runtime(tmp_path_factory.mktemp("runs"), session_cache))


def test_the_change_of_each_metric_is_the_mean_of_paired_differences(trained: RunResult) -> None:
    entry = trained.summary["evaluations"][0]
    found = entry["reliance"]["metrics"]["strict@1"]
    assert set(found) == {name for name, m in entry["scores"][0]["metrics"].items() if m["value"] is not None}
    (file,) = (trained.run.path / "reliance").glob("*.answers.jsonl")
    swapped = {row["example_id"]: row["text"] for row in read_jsonl(file)}
    own = {r["example_id"]: r["text"] for r in read_jsonl(trained.run.predictions_file(entry["predict_id"]))}
    gold = {r["example_id"]: r["reference"] for r in read_jsonl(trained.run.questions_file(entry["predict_id"]))}
    assert len(swapped) == entry["reliance"]["n"] == 12
    names = list(swapped)
    assert any(own[name] != swapped[name] for name in names)  # or the test would say nothing
    by_hand = [
        [Strict().score("caption", [answers[name]], [gold[name]]).metrics["rouge-1"].value for name in names]
        for answers in (own, swapped)
    ]
    mean = sum(a - b for a, b in zip(*by_hand, strict=True)) / len(names)
    assert found["rouge-1"]["value"] == pytest.approx(mean, abs=1e-12)
    assert found["rouge-1"]["n"] == 12
    low, high = found["rouge-1"]["ci95"]
    assert low <= mean <= high
    assert low < high


def test_answers_under_swapped_graphs_are_made_once_and_go_on_after_a_kill(
    trained: RunResult, session_cache: Path
) -> None:
    (file,) = (trained.run.path / "reliance").glob("*.answers.jsonl")
    whole = file.read_bytes()
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]) + b'{"example_id": "tor')
    again = run(config(), runtime(trained.run.path.parent, session_cache))
    assert sorted(file.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert again.summary["evaluations"][0]["reliance"] == trained.summary["evaluations"][0]["reliance"]


def test_a_model_that_reads_zeros_writes_the_same_words_whatever_the_graph(tmp_path: Path, session_cache: Path) -> None:
    blind = config("graph_input={train: zero, test: zero}", "evaluation.reliance=shuffled")
    result = run(blind, runtime(tmp_path, session_cache))
    reliance = result.summary["evaluations"][0]["reliance"]
    assert reliance["value"] == 0.0
    for change in reliance["metrics"]["strict@1"].values():
        assert (change["value"], change["n"]) == (0.0, reliance["n"])


def test_answers_under_swapped_graphs_can_be_left_out(tmp_path: Path, session_cache: Path) -> None:
    result = run(config("evaluation.reliance_answers=false"), runtime(tmp_path, session_cache))
    assert result.summary["evaluations"][0]["reliance"]["metrics"] == {}
    assert result.summary["evaluations"][0]["reliance"]["value"] is not None
    assert not list((result.run.path / "reliance").glob("*.answers.jsonl"))


def test_a_change_of_nothing_is_zero(trained: RunResult) -> None:
    entry = read_json(trained.run.result_file)["evaluations"][0]
    own = {r["example_id"]: r["text"] for r in read_jsonl(trained.run.predictions_file(entry["predict_id"]))}
    for change in changes(trained.run, entry["predict_id"], "caption", Strict(), own).values():
        assert change["value"] == 0.0
        assert change["ci95"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("likelihoods", "probability"),
    [
        ((-1.0, -1.0), 0.5),
        ((0.0, -5000.0), 1.0),
        ((-5000.0, 0.0), 0.0),
        ((-1.0, -2.0), 0.7310585786300049),
        ((-1.0,), None),
        ((-1.0, -2.0, -3.0), None),
        (None, None),
    ],
)
def test_the_probability_of_the_positive_label(likelihoods: tuple[float, ...] | None, probability: float) -> None:
    found = probability_of_first(likelihoods)
    assert found == (probability if probability is None else pytest.approx(probability, abs=1e-15))


def test_the_identity_of_runs_does_not_depend_on_whether_answers_are_swapped() -> None:
    first, second = config(), config("evaluation.reliance_answers=false")
    assert replace(second, evaluation=replace(second.evaluation, reliance_answers=True)) == first
