"""Every encoder with every projector: those that fit train, generate and score; those that do not are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import QUICK, REPOSITORY

from bench.config import RunConfig
from bench.errors import ConfigError
from bench.experiment import run
from bench.matrix import as_markdown, wiring_matrix
from bench.preset import load_config
from bench.registry import Registry
from bench.run_store import read_jsonl
from bench.runtime import Runtime
from encoders.base import EncoderError
from encoders.controls import Rewired

COMPONENTS = Registry()
MATRIX = wiring_matrix(COMPONENTS)
STAGE = "{steps: 3, batch_size: 4, name: tune, trains: {encoder: full, projector: full, llm: lora}}"
SETTINGS = (
    *QUICK,
    "limits={train: 12, validation: 4}",
    "evaluation.limit=4",
    "evaluation.generation={max_new_tokens: 4, batch_size: 4}",
    f"stages=[{STAGE}]",
)


def pair(encoder: str, projector: str) -> RunConfig:
    config = load_config("demo", SETTINGS, COMPONENTS)
    parts = COMPONENTS.get("encoder", encoder).small(), COMPONENTS.get("projector", projector).small()
    fitted = replace(parts[1], **(MATRIX[encoder][projector].settings or {}))
    return replace(config, name=f"{encoder}-{projector}", encoder=parts[0], projector=fitted)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    ("encoder", "projector"),
    [
        (encoder, projector)
        for encoder, row in MATRIX.items()
        for projector, fit in row.items()
        if fit.settings is not None
    ],
)
def test_a_pair_that_fits_trains_generates_and_scores(
    encoder: str, projector: str, runs: Path, session_cache: Path
) -> None:
    runtime = Runtime(runs=runs, cache=session_cache, progress=False, tracking="none", device="cpu")
    result = run(pair(encoder, projector), runtime).summary
    entry = result["evaluations"][0]
    assert (result["encoder"], result["projector"]) == (encoder, projector)
    assert result["stages"][0]["steps"] == 3
    assert entry["n"] == 4
    assert entry["scores"][0]["metrics"]["bleu-4"]["value"] is not None
    if projector == "none":
        assert entry["reliance"]["value"] is None
    else:
        assert entry["reliance"]["n"] + entry["reliance"]["left_out"] == 4


@pytest.mark.parametrize(
    ("encoder", "projector"),
    [(name, other) for name, row in MATRIX.items() for other, fit in row.items() if fit.settings is None],
)
def test_a_pair_that_does_not_fit_is_refused_before_anything_is_built(
    encoder: str, projector: str, tmp_path: Path
) -> None:
    runtime = Runtime(runs=tmp_path / "runs", cache=tmp_path / "cache", progress=False, tracking="none")
    with pytest.raises(ConfigError) as raised:
        run(pair(encoder, projector), runtime)
    message = str(raised.value)
    assert f"encoder {encoder}" in message
    assert projector in message
    assert "needs the level" in message
    assert not list(tmp_path.iterdir())


def test_the_readme_shows_the_matrix() -> None:
    assert as_markdown(MATRIX) in (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_gates_are_written_down_per_task(tmp_path: Path, session_cache: Path) -> None:
    config = pair("hierarchical", "dynamic")
    conditions = ("task", "instruction", "molecule")
    config = replace(config, projector=replace(config.projector, tasks=("caption",), conditioned_on=conditions))
    runtime = Runtime(runs=tmp_path, cache=session_cache, progress=False, tracking="none", device="cpu")
    result = run(config, runtime)
    gates = result.summary["evaluations"][0]["observed"]["gates"]
    assert gates["n"] == 4
    assert len(gates["mean"]) == 3
    assert abs(sum(gates["mean"]) - 3) < 0.5  # a molecule without motifs has a gate of 0 for them, and 2 in sum
    assert any(spread > 0 for spread in gates["sd"])


def test_what_cannot_stand_in_the_place_of_graphs_is_refused_before_training(
    tmp_path: Path, session_cache: Path
) -> None:
    runtime = Runtime(runs=tmp_path, cache=session_cache, progress=False, tracking="none", device="cpu")
    config = pair("smiles", "linear")
    rewired = replace(config, evaluation=replace(config.evaluation, reliance=Rewired()))
    with pytest.raises(EncoderError, match="reads smiles_token, which tell of the real bonds"):
        run(rewired, runtime)
    assert not list(tmp_path.glob("*/stages"))


def test_a_test_molecule_that_cannot_be_written_counts_as_wrong(tmp_path: Path, session_cache: Path) -> None:
    for split, count in (("train", 24), ("validation", 6), ("test", 23)):
        lines = [f"{'C' * (n + 1)}O,an alcohol of {n + 1} carbons" for n in range(count)]
        if split == "test":
            lines[3] = "C*,a wildcard"
        (tmp_path / f"{split}.csv").write_text("SMILES,text\n" + "\n".join(lines) + "\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ncolumns: {smiles: SMILES, caption: text}\n"
        "splits: {train: train.csv, validation: validation.csv, test: test.csv}\n"
    )
    settings = [*SETTINGS, f"task.data={tmp_path / 'own.yaml'}", "text_input=selfies", "evaluation.limit=null"]
    runtime = Runtime(runs=tmp_path / "runs", cache=session_cache, progress=False, tracking="none", device="cpu")
    config = replace(
        load_config("demo", settings, COMPONENTS), encoder=COMPONENTS.get("encoder", "moleculestm").small()
    )
    result = run(config, runtime)
    entry = result.summary["evaluations"][0]
    assert entry["n"] == 23
    questions = read_jsonl(result.run.questions_file(entry["predict_id"]))
    asked = [row["example_id"] for row in questions if row["molecules"] == ["C*"]]
    answers = {row["example_id"]: row["text"] for row in read_jsonl(result.run.predictions_file(entry["predict_id"]))}
    assert [answers[name] for name in asked] == [None]
    assert entry["scores"][0]["n_invalid"] == sum(text is None for text in answers.values())
    assert "it has no SELFIES" in (result.run.path / "rejected.csv").read_text()
