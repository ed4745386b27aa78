"""Where the runs of a study stand, read from the directories of real runs and of runs written by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import REPOSITORY
from study_folders import (
    answer,
    at_work,
    config_of,
    directory_of,
    fail,
    finish,
    finish_stage,
    plan_of,
    write_manifest,
    write_result,
    write_steps,
)

from bench.config import RunConfig, Stage
from bench.errors import RunBusyError
from bench.experiment import run
from bench.plan import Plan, PlannedRun
from bench.prepare import prepare
from bench.run_store import RunDirectory, append_jsonl, is_held, write_text
from bench.runtime import Runtime
from bench.selection import Selection
from bench.study_states import RunState, StudyStates, states_of, steps_of

HALF_AN_EPOCH = (
    "stages.tune={epochs: 0.5, batch_size: 4, accumulation: 3, validate_every: 3, checkpoint_every: 2, name: tune, "
    "trains: {encoder: full, projector: full, llm: lora}}"
)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The configuration of all runs here."""
    return config_of()


def _runtime(runs: Path) -> Runtime:
    return Runtime(runs=runs, progress=False, tracking="none")


def _only(plan: Plan, runs: Path) -> RunState:
    (state,) = states_of(plan, _runtime(runs))
    return state


def test_a_real_run_is_followed_from_its_directory_to_its_end(tmp_path: Path, session_cache: Path) -> None:
    runtime = replace(_runtime(tmp_path), cache=session_cache)
    configs = [replace(config_of(HALF_AN_EPOCH), name="real", seed=seed) for seed in (0, 1)]
    planned = []
    for config in configs:
        prepared = prepare(config, runtime)
        planned.append(PlannedRun("real", config, prepared.cell, prepared.train_id, prepared.stage_ids))
    plan = Plan("real", tuple(planned), Selection())
    reader = StudyStates(plan, runtime)
    seen: list[list[RunState]] = [reader.now()]
    result = run(configs[0], runtime, mirror=lambda _: seen.append(reader.now()))
    seen.append(reader.now())

    assert [state.state for state in seen[0]] == ["planned", "planned"]
    assert [state.steps_total for state in seen[0]] == [None, None]  # epochs of data that nobody has counted yet
    firsts = [states[0] for states in seen]
    assert [state.state for state in firsts] == ["planned"] + ["running"] * (len(seen) - 3) + ["done", "done"]
    phases = list(dict.fromkeys(state.phase for state in firsts))
    assert [phase for phase in phases if phase.startswith("stage ")] == ["stage align", "stage tune"]
    assert phases.index("generating") > phases.index("stage tune")
    steps = [state.steps_done for state in firsts]
    assert steps == sorted(steps)
    assert {state.pid for state in firsts[1:]} == {os.getpid()}
    training = [state for state in firsts if state.phase == "stage tune" and state.steps_done > 6]
    assert training
    assert training[-1].loss is not None
    assert training[-1].validation is not None

    last, other = seen[-1]
    trained = sum(stage["steps"] for stage in result.summary["stages"])
    assert last.steps_done == last.steps_total == trained == 6 + 3
    assert last.answers_done == last.answers_total == 12
    assert last.figure == result.summary["stages"][-1]["validation"][str(result.summary["stages"][-1]["kept_step"])]
    assert last.seconds == pytest.approx(result.summary["seconds"], abs=1)
    # Its sibling has not begun, but how many examples it trains on is known by now; during training already.
    assert other.state == "planned"
    assert other.steps_total == trained
    assert training[0].steps_total == trained
    # Who comes later and reads all at once sees the same.
    assert [_still(state) for state in states_of(plan, runtime)] == [_still(state) for state in seen[-1]]


def test_a_real_run_that_was_interrupted_keeps_its_steps_and_goes_on(tmp_path: Path, session_cache: Path) -> None:
    runtime = replace(_runtime(tmp_path), cache=session_cache)
    config = replace(config_of(), name="real")
    prepared = prepare(config, runtime)
    plan = Plan(
        "real", (PlannedRun("real", config, prepared.cell, prepared.train_id, prepared.stage_ids),), Selection()
    )

    def interrupt(directory: RunDirectory) -> None:
        if directory.status().phase == "stage tune" and directory.status().state == "running":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, runtime, mirror=interrupt)
    state = _only(plan, tmp_path)
    assert (state.state, state.phase, state.steps_done, state.steps_total) == ("interrupted", "stage tune", 6, 12)
    assert state.stages[0].finished is not None
    assert state.stages[1].finished is None
    assert state.figure is None
    run(config, runtime)
    assert (_only(plan, tmp_path).state, _only(plan, tmp_path).steps_done) == ("done", 12)


def test_each_state_is_told_from_the_others(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a", "b", "c", "d", "e"], [0], config)
    finish(tmp_path, plan.runs[0], loss=2.5)
    fail(tmp_path, plan.runs[1], "oom", "OutOfMemoryError: too much")
    held = directory_of(tmp_path, plan.runs[3])
    with held.lock():
        held.set_status("running", "stage align")
        write_steps(held, plan.runs[3], 0, 4)
    with at_work(tmp_path, plan.runs[2], steps=8):
        done, failed, running, interrupted, planned = states_of(plan, _runtime(tmp_path))
    assert (done.state, done.figure, done.steps_done, done.answers_done) == ("done", 2.5, 12, 12)
    assert (failed.state, failed.error, failed.message) == ("failed", "oom", "OutOfMemoryError: too much")
    assert (running.state, running.phase, running.steps_done, running.steps_total) == ("running", "stage tune", 8, 12)
    assert (interrupted.state, interrupted.steps_done) == ("interrupted", 4)
    assert (planned.state, planned.directory, planned.steps_done, planned.steps_total) == ("planned", None, 0, 12)
    assert states_of(plan, _runtime(tmp_path))[2].state == "interrupted"  # nobody holds it any more


def test_a_killed_process_leaves_a_run_that_is_seen_as_interrupted(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a"], [0], config)
    folder = directory_of(tmp_path, plan.runs[0]).path
    script = f"""
import time
from pathlib import Path
from bench.run_store import RunDirectory
run = RunDirectory(Path({str(folder)!r}))
with run.lock():
    run.set_status("running", "stage align")
    print("holds it", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds it\n"
    held = _only(plan, tmp_path)
    assert (held.state, held.pid) == ("running", process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _only(plan, tmp_path).state == "interrupted"


def test_working_time_of_a_run_that_goes_on_is_counted_up_to_now(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a"], [0], config)
    reader = StudyStates(plan, _runtime(tmp_path))
    with at_work(tmp_path, plan.runs[0]):
        before = reader.now()[0].seconds
        time.sleep(0.05)
        assert reader.now()[0].seconds >= before + 0.05


def test_looking_whether_a_run_is_held_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        pass
    stop, mistaken = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            mistaken.append(is_held(tmp_path / "run" / "lock"))
            time.sleep(0.002)

    watchers = [threading.Thread(target=look) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    time.sleep(0.2)
    assert not any(mistaken)  # those who look do not see each other
    for _ in range(100):  # RunBusyError, if one of them were in the way
        with RunDirectory(tmp_path / "run").lock():
            pass
    stop.set()
    for watcher in watchers:
        watcher.join()


def test_a_run_that_is_held_stays_refused_while_others_look(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run").lock():
        assert is_held(tmp_path / "run" / "lock")
        assert is_held(tmp_path / "run" / "lock")
        with pytest.raises(RunBusyError), RunDirectory(tmp_path / "run").lock():
            pass
    assert not is_held(tmp_path / "run" / "lock")
    assert not is_held(tmp_path / "absent" / "lock")
    assert not (tmp_path / "absent").exists()


def test_a_lock_may_be_looked_at_without_the_right_to_write(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        (run.path / "lock").chmod(0o444)
        assert is_held(run.path / "lock")
    assert not is_held(run.path / "lock")


def test_a_stage_taken_from_another_run_counts_as_done(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a", "b"], [0], config, shared_align=True)
    finish(tmp_path, plan.runs[0])
    directory = directory_of(tmp_path, plan.runs[1])
    with directory.lock():
        write_manifest(directory)
        finish_stage(directory, plan.runs[1], 0)
        directory.set_status("running", "stage tune")
        state = states_of(plan, _runtime(tmp_path))[1]
    assert (state.steps_done, state.steps_total) == (6, 12)
    assert state.stages[0].stage_id == plan.runs[0].stage_ids[0]
    assert state.stages[0].finished is not None


def test_a_report_of_another_identity_is_not_this_stage_s(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a"], [0], config)
    finish(tmp_path, plan.runs[0])
    other = replace(plan.runs[0], stage_ids=("another", plan.runs[0].train_id))
    assert _only(Plan("by-hand", (other,)), tmp_path).stages[0].finished is None


@pytest.mark.parametrize(
    "change",
    [
        "evaluation.generation.max_new_tokens=13",
        "evaluation.split=validation",
        "evaluation.protocols=[strict, molt5]",
    ],
)
def test_a_finished_run_that_is_now_asked_something_else_is_not_done(
    tmp_path: Path, config: RunConfig, change: str
) -> None:
    plan = plan_of(["a"], [0], config)
    finish(tmp_path, plan.runs[0])
    changed = replace(plan.runs[0], config=config_of(change))
    state = _only(replace(plan, runs=(changed,)), tmp_path)
    assert (state.state, state.phase, state.figure) == ("planned", "to be asked something else", None)
    assert state.steps_done == state.steps_total == 12  # its training stays
    assert _only(plan, tmp_path).state == "done"


def test_nothing_that_a_killed_or_foreign_writer_left_stops_a_look(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a", "b", "c"], [0], config)
    with at_work(tmp_path, plan.runs[0], steps=3) as torn:
        append_jsonl(torn.predictions_file("0123456789abcdef"), [{"text": "\u2028"}], durable=False)
        for file in (torn.stage(0, "align") / "steps.jsonl", torn.predictions_file("0123456789abcdef")):
            with file.open("ab") as stream:
                stream.write(b'{"step": 4, "sec')
        assert (states_of(plan, _runtime(tmp_path))[0].steps_done) == 3
        assert (states_of(plan, _runtime(tmp_path))[0].answers_done) == 1
    write_text(directory_of(tmp_path, plan.runs[1]).path / "status.json", '{"state": "asleep", "colour": "red"}')
    write_text(directory_of(tmp_path, plan.runs[2]).path / "status.json", "[1, 2")
    assert [state.state for state in states_of(plan, _runtime(tmp_path))] == ["interrupted"] * 3
    assert [state.state for state in states_of(plan, _runtime(tmp_path / "nowhere"))] == ["planned"] * 3


def test_the_first_of_two_folders_of_one_identity_counts_as_it_does_for_a_run(
    tmp_path: Path, config: RunConfig
) -> None:
    plan = plan_of(["a"], [0], config)
    identity = plan.runs[0].train_id
    for name, phase in (("zeta", "second"), ("alpha", "first")):
        directory = RunDirectory(tmp_path / f"{name}-s0-{identity}")
        with directory.lock():
            directory.set_status("interrupted", phase)
    assert _only(plan, tmp_path).phase == "first"
    existing = sorted(tmp_path.glob(f"*-{identity}"))
    assert _only(plan, tmp_path).directory == existing[0]


def test_what_changes_is_read_again_and_answers_are_counted_as_they_come(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a"], [0], config)
    reader = StudyStates(plan, _runtime(tmp_path))
    found = []
    with at_work(tmp_path, plan.runs[0], steps=12) as directory:
        for number in (0, 5, 4, 3):
            answer(directory, number)
            found.append(reader.now()[0].answers_done)
        write_result(directory, plan.runs[0], 2.0)
        directory.set_status("done", "done")
        assert (reader.now()[0].state, reader.now()[0].figure) == ("done", 2.0)
    assert found == [0, 5, 9, 12]
    with directory.lock():
        write_result(directory, plan.runs[0], 1.0)
    assert reader.now()[0].figure == 1.0


def test_two_hundred_runs_are_looked_at_in_passing(
    tmp_path: Path, config: RunConfig, record_property: Callable[[str, object], None]
) -> None:
    plan = plan_of([f"cell-{number}" for number in range(40)], range(5), config)
    for planned in plan.runs[:150]:
        finish(tmp_path, planned)
    for planned in plan.runs[150:190]:
        fail(tmp_path, planned, "nan", "the loss is NaN")
    reader = StudyStates(plan, _runtime(tmp_path))
    looks, states = [], []
    for _ in range(5):
        began = time.perf_counter()
        states = reader.now()
        looks.append(time.perf_counter() - began)
    print(f"200 runs: first look {looks[0] * 1000:.0f} ms, later {min(looks[1:]) * 1000:.1f} ms")
    record_property("seconds", looks)
    assert [state.state for state in states] == ["done"] * 150 + ["failed"] * 40 + ["planned"] * 10
    assert [_still(state) for state in states] == [_still(state) for state in states_of(plan, _runtime(tmp_path))]


def test_a_long_log_is_read_from_its_end(tmp_path: Path, config: RunConfig) -> None:
    plan = plan_of(["a"], [0], config_of("stages.align.steps=20000"))
    directory = directory_of(tmp_path, plan.runs[0])
    with directory.lock():
        write_steps(directory, plan.runs[0], 0, 9_000, seconds=1.0)
        directory.set_status("running", "stage align")
        write_steps(directory, plan.runs[0], 0, 12_345, seconds=0.25)
        state = _only(plan, tmp_path)
    assert state.stages[0].steps_done == 12_345
    assert state.stages[0].pace == 0.25  # of late, which is how it will go on


def test_steps_are_known_once_examples_are_counted() -> None:
    # As transformers' Trainer counts them, by which the run above was trained.
    tune = Stage(name="tune", epochs=0.5, batch_size=4, accumulation=3)
    assert [steps_of(tune, examples) for examples in (None, 1, 64, 66)] == [None, 1, 3, 3]
    assert steps_of(replace(tune, epochs=2.0), 64) == 12
    assert [steps_of(Stage(name="tune", steps=7), examples) for examples in (None, 64)] == [7, 7]


def _still(state: RunState) -> RunState:
    """A state without the clock."""
    return replace(state, seconds=0.0)
