"""Searches that really train: what is pruned, fails, is shared, selected and asked on test."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK
from optuna.trial import TrialState

from bench.experiment import run
from bench.preset import load_config
from bench.run_store import RunDirectory, read_json
from bench.runtime import Runtime
from bench.search import Definition, SearchResult, load_search, run_search
from bench.search.claims import SESSIONS, Claimed, Claims
from bench.search.storage import SearchFolder, open_storage
from bench.search.trial import ERROR, STOPPED_AT, Trials
from tasks.data import Catalogue

# Every part of the path is real, and hardly anything is computed.
CHEAP = (
    *QUICK,
    "limits={train: 24, validation: 8}",
    "evaluation.limit=4",
    "evaluation.generation={max_new_tokens: 4, batch_size: 4}",
    "evaluation.reliance=null",
    "stages.align={steps: 2, batch_size: 4, validate_every: 1, checkpoint_every: 1, name: align, "
    "trains: {encoder: full, projector: full}}",
    "stages.tune={steps: 2, batch_size: 4, validate_every: 1, checkpoint_every: 1, name: tune, "
    "optimiser: {lr: 2.0e-3}, "
    "trains: {encoder: full, projector: full, llm: lora}}",
)
LR = "stages.tune.optimiser.lr"
RATES: Mapping[str, Any] = {LR: {"low": 1e-4, "high": 1e-2, "log": True}}


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(runs=tmp_path / "runs", cache=session_cache, threads=1, tracking="none", progress=False)


def loaded(folder: Path, overrides: Sequence[str] = CHEAP, **changes: Any) -> Definition:
    file = folder / "mine.yaml"
    search = {"name": "mine", "extends": "demo", "sampler": {"name": "random"}, "space": RATES, "trials": 3, **changes}
    file.write_text(yaml.safe_dump(search))
    return load_search(str(file), overrides)


def trainings(runs: Path) -> dict[str, list[int]]:
    """The steps that were done in each stage of each run that trained it itself."""
    found = {}
    for file in sorted(runs.glob("*/stages/*/steps.jsonl")):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        found[str(file.parent.relative_to(runs))] = steps
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> tuple[SearchResult, Runtime]:
    """A search over parts that do not all go together."""
    folder = tmp_path_factory.mktemp("whole")
    runtime = Runtime(runs=folder / "runs", cache=session_cache, threads=1, tracking="none", progress=False)
    space = {
        LR: [1e-3, 2e-3, 4e-3],
        "encoder": {"choices": {"gin": {"name": "gin"}, "nothing": "none"}},
    }
    definition = loaded(folder, space=space, trials=6, objective={"metric": "strict/bleu-2"})
    return run_search(definition, runtime), runtime


def test_a_search_ends_with_a_trial_that_is_selected_by_validation(whole: tuple[SearchResult, Runtime]) -> None:
    result, runtime = whole
    assert result.complete
    assert [row.number for row in result.rows] == list(range(6))
    assert result.rows[0].values == {LR: "0.002", "encoder": "gin"}
    complete = [row for row in result.rows if row.state == "complete"]
    assert result.best in complete
    assert result.best is not None
    for row in complete:
        (name,) = row.runs
        summary = read_json(runtime.runs / name / "result.json")
        validated = [entry for entry in summary["evaluations"] if entry["split"] == "validation"]
        (score,) = (score for entry in validated for score in entry["scores"])
        assert row.figures == (score["metrics"]["bleu-2"]["value"],)
        assert row.figures is not None
        assert row.figures <= (result.best.figures or ())


def test_what_does_not_fit_together_is_pruned_with_its_reason(whole: tuple[SearchResult, Runtime]) -> None:
    result, _ = whole
    unfit = [row for row in result.rows if row.values["encoder"] == "nothing"]
    assert unfit
    for row in unfit:
        assert (row.state, row.error, row.runs) == ("pruned", "does not fit", ())
        assert "linear needs the level atom, but encoder none provides" in (row.reason or "")


def test_trials_of_equal_values_share_their_runs(whole: tuple[SearchResult, Runtime]) -> None:
    result, runtime = whole
    by_values: dict[str, int] = {}
    repeated = 0
    for row in result.rows:
        if row.state != "complete":
            continue
        key = json.dumps(dict(row.values))
        assert row.same_as == by_values.get(key)
        repeated += key in by_values
        by_values.setdefault(key, row.number)
    assert repeated, "the seed of this search draws no values twice; choose another"
    assert len(list(runtime.runs.glob("mine-*"))) == len(by_values)
    assert set(map(tuple, trainings(runtime.runs).values())) == {(1, 2)}, "each step was done once"


def test_the_selected_configuration_alone_is_asked_on_test(whole: tuple[SearchResult, Runtime]) -> None:
    result, runtime = whole
    (tested,) = result.tested
    assert result.best is not None
    assert tested.run.path.name in result.best.runs
    asked = {
        file.parent.name: {entry["split"] for entry in read_json(file)["evaluations"]}
        for file in runtime.runs.glob("*/result.json")
    }
    assert [name for name, splits in asked.items() if "test" in splits] == [tested.run.path.name]
    assert all("validation" in splits for splits in asked.values())


def test_the_selected_configuration_is_a_preset(whole: tuple[SearchResult, Runtime]) -> None:
    result, runtime = whole
    assert result.best is not None
    file = result.folder / "best.yaml"
    config = load_config(str(file))
    assert config == result.definition.test_config(result.best.number, result.best.values, 0)
    before = trainings(runtime.runs)
    again = run(config, runtime)
    assert again.run.path == result.tested[0].run.path
    assert trainings(runtime.runs) == before
    assert f"trial {result.best.number}" in file.read_text()


def test_the_same_call_does_nothing_again(whole: tuple[SearchResult, Runtime]) -> None:
    result, runtime = whole
    before = trainings(runtime.runs)
    again = run_search(result.definition, runtime)
    assert again.rows == result.rows
    assert trainings(runtime.runs) == before
    assert {row.sessions for row in again.rows} == {1}


def test_what_is_written_of_a_search(whole: tuple[SearchResult, Runtime]) -> None:
    result, _ = whole
    with (result.folder / "trials.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [int(line["trial"]) for line in listed] == list(range(6))
    for line, row in zip(listed, result.rows, strict=True):
        assert line["state"] == row.state
        assert line["strict/bleu-2"] == ("" if row.figures is None else str(row.figures[0]))
        assert line["strict/bleu-2 seed 0"] == line["strict/bleu-2"]
        assert line[LR] == row.values[LR]
    described = read_json(result.folder / "search.json")
    assert described["complete"]
    assert described["best"]["trial"] == result.best.number if result.best else False
    assert (result.folder / "history.svg").exists()
    assert "importance.svg" not in {file.name for file in result.files}
    assert any("10 are needed" in note for note in result.notes)


def test_a_search_goes_on_with_more_trials(tmp_path: Path, runtime: Runtime) -> None:
    first = run_search(loaded(tmp_path, trials=1), runtime, test=False)
    assert (len(first.rows), first.tested) == (1, ())
    second = run_search(loaded(tmp_path, trials=2), runtime, test=False)
    assert second.rows[0] == first.rows[0]
    assert [row.number for row in second.rows] == [0, 1]


def test_a_hopeless_training_is_stopped_early_and_its_run_is_kept(tmp_path: Path, runtime: Runtime) -> None:
    pruner = {"name": "threshold", "options": {"upper": 1e-3, "n_warmup_steps": 3}}
    result = run_search(loaded(tmp_path, trials=2, pruner=pruner), runtime)
    assert {row.state for row in result.rows} == {"pruned"}
    assert (result.best, result.tested) == (None, ())
    for row in result.rows:
        assert "stopped early, at step 3" in row.note
        (name,) = row.runs
        status = RunDirectory(runtime.runs / name).status()
        assert (status.state, status.phase) == ("interrupted", "stopped early")
        assert list((runtime.runs / name).glob("stages/1-tune/checkpoints/checkpoint-1"))
    claims = claims_of(result.definition, runtime)
    assert [list(trial.intermediate_values) for trial in claims.study.get_trials()] == [[1, 2, 3], [1, 2, 3]]


def test_a_worker_that_dies_after_the_pruner_has_decided_trains_no_further(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1)
    claims = claims_of(definition, runtime)
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        claimed.trial.set_user_attr(STOPPED_AT, "step 3")
    result = run_search(definition, runtime)
    assert (result.rows[0].state, result.rows[0].reason) == ("pruned", "stopped early, at step 3")
    assert trainings(runtime.runs) == {}


def test_a_training_that_goes_on_reports_what_earlier_sessions_saw(tmp_path: Path, runtime: Runtime) -> None:
    pruner = {"name": "threshold", "options": {"upper": 1e-3, "n_warmup_steps": 2}}
    space = {LR: [1e-3, 2e-3]}
    first = loaded(tmp_path, trials=1, space=space, pruner=pruner)
    run_search(first, runtime)
    again = loaded(tmp_path, name="other", trials=1, space=space)  # the same run, and nobody to stop it
    result = run_search(again, runtime, test=False)
    assert result.rows[0].state == "complete"
    (trial,) = claims_of(again, runtime).study.get_trials()
    assert list(trial.intermediate_values) == [1, 2, 3, 4]


def test_the_pruner_of_a_score_is_told_losses_the_other_way_round(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1, objective={"metric": "strict/bleu-2"})
    run_search(definition, runtime, test=False)
    (trial,) = claims_of(definition, runtime).study.get_trials()
    assert len(trial.intermediate_values) == 4
    assert all(value < 0 for value in trial.intermediate_values.values())


def test_wilcoxon_goes_by_seeds(tmp_path: Path, runtime: Runtime) -> None:
    pruner = {"name": "wilcoxon", "options": {"p_threshold": 0.3}}
    definition = loaded(
        tmp_path, trials=3, seeds=[0, 1, 2], pruner=pruner, space={LR: {"choices": {"usual": 2e-3, "none": 1e-9}}}
    )
    result = run_search(definition, runtime, test=False)
    claims = claims_of(definition, runtime)
    trials = claims.study.get_trials()
    assert list(trials[0].intermediate_values) == [0, 1, 2]
    assert result.rows[0].figures == (pytest.approx(sum(trials[0].intermediate_values.values()) / 3),)
    worse = [row for row in result.rows if row.values[LR] == "none"]
    assert worse, "the seed of this search draws the usual rate only; choose another"
    for row in worse:
        assert row.state == "pruned"
        assert list(row.by_seed) == ["0", "1"], "the third seed was not needed to see that it is worse"
        assert len(row.runs) == 2


def test_sessions_that_were_asked_to_end_are_no_deaths(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1)
    claims = claims_of(definition, runtime)
    trials = Trials(definition, claims.study, runtime, Catalogue(), lambda _: None)
    for end in (KeyboardInterrupt(), SystemExit(143), OSError(28, "no space is left")) * 4:

        def ends(directory: RunDirectory, end: BaseException = end) -> None:
            raise end

        with claims.next() as claimed:
            assert isinstance(claimed, Claimed)
            with pytest.raises(type(end)):
                replace(trials, mirror=ends).work_on(claimed)
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        sessions = claimed.attributes[SESSIONS]
        assert [session.get("ended") for session in sessions[:3]] == ["KeyboardInterrupt", "SystemExit", "OSError"]
        trials.work_on(claimed)
    (trial,) = claims.study.get_trials()
    assert trial.state == TrialState.COMPLETE


def test_a_trial_at_which_its_workers_die_is_given_up(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1)
    claims = claims_of(definition, runtime)
    trials = Trials(definition, claims.study, runtime, Catalogue(), lambda _: None)
    for _ in range(10):  # each looks how far it has come, and dies without a word
        with claims.next() as claimed:
            assert isinstance(claimed, Claimed)
            trials._refuse_hopeless(claimed)
    with claims.next() as claimed:
        assert isinstance(claimed, Claimed)
        trials.work_on(claimed)
    (trial,) = claims.study.get_trials()
    assert (trial.state, trial.user_attrs[ERROR]) == (TrialState.FAIL, "killed")


def test_the_value_of_a_trial_is_the_mean_over_its_seeds(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1, seeds=[3, 5], objective=[{"metric": "loss"}, {"metric": "parameters"}])
    result = run_search(definition, runtime)
    (row,) = result.rows
    losses = []
    for name in row.runs:
        summary = read_json(runtime.runs / name / "result.json")
        stage = summary["stages"][-1]
        losses.append(stage["validation"][str(stage["kept_step"])])
        assert row.figures is not None
        assert row.figures[1] == summary["parameters"]["trained_sum"]
    assert len(losses) == 2
    assert row.figures is not None
    assert row.figures[0] == pytest.approx(sum(losses) / 2)
    assert [tested.summary["seed"] for tested in result.tested] == [3, 5]


def test_a_run_that_fails_is_a_failed_trial_with_its_class(tmp_path: Path, runtime: Runtime) -> None:
    space = {LR: {"choices": {"usual": 2e-3, "absurd": 1e30}}}
    definition = loaded(tmp_path, trials=4, space=space)
    result = run_search(definition, runtime)
    failed = [row for row in result.rows if row.values[LR] == "absurd"]
    assert failed
    for row in failed:
        assert (row.state, row.error) == ("failed", "nan")
        assert "NaN" in (row.reason or "")
    assert result.best is not None
    assert result.best.values[LR] == "usual"
    assert [row.number for row in result.failed] == [row.number for row in failed]
    (name,) = {name for row in failed for name in row.runs}
    assert RunDirectory(runtime.runs / name).status().error == "nan"

    sessions = len(read_json(runtime.runs / name / "manifest.json")["sessions"])
    assert len(run_search(definition, runtime).rows) == 4, "a failed trial is not tried again unasked"
    assert len(read_json(runtime.runs / name / "manifest.json")["sessions"]) == sessions
    retried = run_search(definition, runtime, retry_failed=True)
    assert [row.retry_of for row in retried.rows[4:]] == [row.number for row in failed]
    assert {(row.state, row.error) for row in retried.rows[4:]} == {("failed", "nan")}
    assert len(read_json(runtime.runs / name / "manifest.json")["sessions"]) > sessions


def test_a_mistake_that_all_trials_share_ends_the_search_before_there_is_one(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, [*CHEAP, "task={name: caption, data: chebi20}"])
    catalogue = Catalogue()
    from bench.errors import is_user_error

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLGRAFT_DATA", str(tmp_path / "none"))
        patch.setenv("MOLGRAFT_OFFLINE", "1")
        with pytest.raises(Exception, match="chebi20") as caught:
            run_search(definition, runtime, catalogue=catalogue)
    assert is_user_error(caught.value)
    claims = claims_of(definition, runtime)
    assert [trial.state for trial in claims.study.get_trials()] == [TrialState.WAITING]


def test_a_command_that_has_no_time_left_begins_nothing(tmp_path: Path, runtime: Runtime) -> None:
    result = run_search(loaded(tmp_path, trials=50, timeout=1e-6), runtime)
    assert not result.complete
    assert result.best is None
    assert {row.state for row in result.rows} == {"waiting"}


def test_workers_that_are_at_equal_values_at_once_train_them_once(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=6, space={LR: [1e-3, 2e-3]})
    result = run_search(definition, runtime, workers=2)
    assert {row.state for row in result.rows} == {"complete"}
    assert len({name for row in result.rows for name in row.runs}) == len(list(runtime.runs.glob("mine-*"))) == 2
    assert set(map(tuple, trainings(runtime.runs).values())) == {(1, 2)}
    assert list(result.folder.glob("workers/*/worker-2.log"))
    assert len(result.tested) == 1


def test_a_trial_that_takes_its_workers_with_it_is_given_up(tmp_path: Path, runtime: Runtime) -> None:
    definition = loaded(tmp_path, trials=1)
    for _ in range(10):
        claims = claims_of(definition, runtime)
        trials = Trials(definition, claims.study, runtime, Catalogue(), lambda _: None)
        with claims.next() as claimed:
            assert isinstance(claimed, Claimed)
            trials._refuse_hopeless(claimed)  # and is killed before it comes any further
    result = run_search(definition, runtime)
    assert (result.rows[0].state, result.rows[0].error) == ("failed", "killed")


def claims_of(definition: Definition, runtime: Runtime) -> Claims:
    folder = SearchFolder(runtime.runs, definition.search.name)
    folder.prepare()
    claims = Claims(definition, open_storage(None, folder), folder)
    claims.enqueue_preset()
    return claims
