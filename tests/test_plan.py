"""The plan of a study: its order, what it refuses, what it says before it starts, and which cell is chosen at last."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench.config import RunConfig
from bench.cost import _elapsed, at_once, estimate
from bench.errors import UserError
from bench.estimate import Machine, StageWork, Work, asking_seconds, measured_speed, stage_seconds
from bench.experiment import run
from bench.plan import PLAN_FILE, Plan, PlannedRun, _ordered, plan_study, study_folder
from bench.plan_report import describe_plan, plan_lines, show_plan
from bench.preset import load_config
from bench.run_store import RunDirectory, read_json
from bench.runtime import Runtime
from bench.selection import Selection, selected
from bench.study import Study, load_study, run_study
from bench.study_states import RunState, StageState, states_of

STUDY: dict[str, Any] = {
    "name": "planned",
    "extends": "demo",
    "seeds": [0, 1],
    "settings": {"evaluation.split": "validation"},
    "factors": {
        "llm.lora.r": {"r2": 2, "r4": 4},
        "projector": {"atoms": {"name": "linear", "level": "atom"}, "prompt": {"name": "soft_prompt", "count": 2}},
    },
    "select": {"metric": "strict/bleu-2"},
}
DEMO = load_config("demo")
MACHINE = Machine(flops=1e10, call=5e-6)


@pytest.fixture
def runtime(tmp_path: Path, session_cache: Path) -> Runtime:
    return Runtime(
        runs=tmp_path / "runs",
        cache=session_cache,
        progress=False,
        tracking="none",
        device="cpu",
        console=Console(file=io.StringIO(), width=200),
    )


def said(runtime: Runtime) -> str:
    file = runtime.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def read(folder: Path, *overrides: str, **changes: Any) -> tuple[Study, dict[str, RunConfig]]:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    study, cells = load_study(str(file), [*QUICK, *overrides], Runtime(progress=False))
    return study, dict(cells)


def planned(cell: str, seed: int, *stage_ids: str) -> PlannedRun:
    config = replace(DEMO, name=cell, seed=seed)
    return PlannedRun(cell, config, f"cell-{cell}", f"{cell}-{seed}", tuple(stage_ids))


# The order


def test_seeds_come_one_after_the_other_and_stages_that_others_need_first(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path)
    plan = plan_study(study, cells, runtime)
    # Cells of one projector share the alignment, which has not read the adapters' rank yet.
    assert [(r.seed, r.cell) for r in plan.runs] == [
        (seed, cell) for seed in (0, 1) for cell in ("r2-atoms", "r2-prompt", "r4-atoms", "r4-prompt")
    ]
    identities = {(r.cell, r.seed): r.stage_ids for r in plan.runs}
    assert identities["r2-atoms", 0][0] == identities["r4-atoms", 0][0]
    assert identities["r2-atoms", 0][0] != identities["r2-atoms", 1][0]
    assert len({r.train_id for r in plan.runs}) == 8
    assert len({r.cell_id for r in plan.runs}) == 4
    assert (plan.cells, plan.seeds) == (tuple(cells), (0, 1))
    assert not list(runtime.runs.glob("*"))  # a plan alone begins nothing
    file = plan.write(study_folder(runtime, plan.study))
    assert file == runtime.runs / ".studies" / "planned" / PLAN_FILE
    assert Plan.read(file) == plan
    assert [row["config"]["seed"] for row in read_json(file)["runs"]] == [0] * 4 + [1] * 4
    file.write_text(json.dumps({"study": "planned", "runs": [{"cell": "a"}]}))
    with pytest.raises(UserError, match=r"is no plan that this version of molgraft can read"):
        Plan.read(file)


def test_leaders_of_shared_stages_come_before_those_who_wait_for_them() -> None:
    runs = [
        planned(cell, seed, *(f"{identity}{seed}" for identity in stages))
        for seed in (0, 1)
        for cell, stages in {"a": "xp", "b": "xq", "c": "yp2", "d": "xp3", "e": "zr"}.items()
    ]
    assert [run.train_id for run in _ordered(runs)] == [
        *("a-0", "c-0", "e-0", "b-0", "d-0"),
        *("a-1", "c-1", "e-1", "b-1", "d-1"),
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.sampled_from("abc"), min_size=0, max_size=3)), min_size=1, max_size=12
    )
)
def test_whatever_is_shared_the_order_holds_every_run_once(drawn: list[tuple[int, list[str]]]) -> None:
    drawn.sort(key=lambda item: item[0])
    runs = [_drawn(k, seed, stages) for k, (seed, stages) in enumerate(drawn)]
    ordered = _ordered(runs)
    assert sorted(r.train_id for r in ordered) == sorted(r.train_id for r in runs)
    assert [r.seed for r in ordered] == sorted(r.seed for r in runs)
    for seed in {r.seed for r in runs}:
        mine, known, depths = [r for r in ordered if r.seed == seed], set[str](), []
        for r in mine:
            new = [k for k, identity in enumerate(r.stage_ids) if identity not in known]
            depths.append(new[0] if new else len(r.stage_ids))
            known.update(r.stage_ids)
        leaders = [k for k, depth in enumerate(depths) if depth == 0]
        assert leaders == list(range(len(leaders)))


def _drawn(number: int, seed: int, stages: list[str]) -> PlannedRun:
    identities = tuple(f"{seed}/{'/'.join(stages[: k + 1])}" for k in range(len(stages)))  # an identity covers a prefix
    return PlannedRun(f"c{number}", replace(DEMO, seed=seed), f"c{number}", f"t{number}", identities)


# What is refused


def test_cells_that_train_the_same_are_refused(tmp_path: Path, runtime: Runtime) -> None:
    factors = {"graph_input.test": ["real", "zero"], "llm.lora.r": [2, 4]}
    study, cells = read(tmp_path, factors=factors)
    with pytest.raises(UserError) as raised:
        plan_study(study, cells, runtime)
    message = str(raised.value)
    assert "cells real-2 and zero-2 train the same model" in message
    assert "they differ in graph_input, which" in message
    assert "molgraft predict" in message
    assert not list(runtime.runs.glob("*"))


def test_more_runs_than_allowed_are_refused_before_anything_is_prepared(
    tmp_path: Path, session_cache: Path, runtime: Runtime
) -> None:
    study, cells = read(tmp_path)
    bare = replace(runtime, cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"--max-runs 7: study planned has 8 runs to do, of 4 cells with 2 seeds each"):
        plan_study(study, cells, bare, max_runs=7)
    assert not (tmp_path / "cache").exists()
    one = {"r2-atoms": cells["r2-atoms"]}
    plan = plan_study(study, one, runtime, max_runs=2)
    _end(plan.runs[0], runtime, "done")
    assert len(plan_study(study, one, runtime, max_runs=1).runs) == 2
    with pytest.raises(UserError, match=r"--max-runs 0: study planned has at least 1 runs to do"):
        plan_study(study, one, runtime, max_runs=0)
    _end(planned("another", 0, "x", "y"), runtime, "done")  # of another study
    with pytest.raises(UserError, match=r"--max-runs 0: study planned has 1 runs to do"):
        plan_study(study, one, runtime, max_runs=0)
    _end(plan.runs[1], runtime, "failed")
    assert plan_study(study, one, runtime, max_runs=0).runs == plan.runs
    with pytest.raises(UserError, match=r"--max-runs 0"):
        plan_study(study, one, runtime, max_runs=0, retry_failed=True)


def test_what_cells_lack_is_said_for_all_of_them_before_anything_runs(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path)
    absent = replace(cells["r2-atoms"].encoder, weights=str(tmp_path / "absent.pth"))
    broken = {alias: replace(c, encoder=absent) if "atoms" in alias else c for alias, c in cells.items()}
    with pytest.raises(UserError) as raised:
        plan_study(study, broken, runtime)
    assert "nothing was run" in str(raised.value)
    assert "cell r2-atoms, r4-atoms: " in str(raised.value)
    assert "absent.pth" in str(raised.value)
    assert not list(runtime.runs.glob("*-*"))


def test_a_study_of_the_same_name_but_other_content_is_told_of(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path)
    some = {alias: cells[alias] for alias in ("r2-atoms", "r4-atoms")}
    plan_study(study, some, runtime).write(study_folder(runtime, study.name))
    plan_study(study, some, runtime)
    assert said(runtime) == ""
    others = {alias: cells[alias] for alias in ("r4-atoms", "r4-prompt", "r2-prompt")}
    plan_study(study, others, runtime)
    assert "A study named planned was planned in" in said(runtime)
    assert "of its 4 runs, 2 are among the 6 of this one" in said(runtime)


# What is said before it starts


def test_a_plan_says_what_is_done_shared_and_left(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path)
    plan = plan_study(study, cells, runtime)
    _end(plan.runs[1], runtime, "failed", "oom")
    _end(plan.runs[2], runtime, "running")  # and nobody holds it
    states = states_of(plan, runtime)
    described = describe_plan(plan, states, runtime, workers=2, machine=MACHINE)
    assert json.loads(json.dumps(described)) == described
    assert {name: described[name] for name in ("runs", "done", "to_resume", "failed", "to_do")} == {
        "runs": 8,
        "done": 0,
        "to_resume": 1,
        "failed": {"oom": 1},
        "to_do": 7,
    }
    assert described["shared"] == {
        "stages": [{"name": "align", "runs": 8, "trained": 4}, {"name": "tune", "runs": 8, "trained": 8}],
        "features": {"schemes": 1, "cells": 4},
        "language_models": 1,
    }
    cell = next(c for c in described["cells"] if c["cell"] == "r4-prompt")
    assert cell["parameters"]["projector"] == 2 * 32
    assert cell["steps"] == [6, 6]
    lines = "\n".join(plan_lines(described))
    assert "study planned: 4 cells x 2 seeds = 8 runs" in lines
    assert "0 done, 1 to resume, 1 failed (1 oom; --retry-failed tries them again), 7 to do" in lines
    assert "stage align is trained 4 times for 8 runs" in lines
    assert "largest strict/bleu-2 on the validation split, mean over seeds" in lines
    assert "roughly" in lines
    shown = show_plan(plan, runtime, workers=2)
    assert shown["to_do"] == 7
    text = said(runtime)
    assert "r4-prompt" in text
    assert "1 failed (oom), 1 planned" in text
    again = describe_plan(plan, states, runtime, retry_failed=True, machine=MACHINE)
    assert again["to_do"] == 8


def test_sizes_are_those_of_the_runs_themselves(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path, seeds=[0], factors={"llm.lora.r": {"r4": 4}})
    run(replace(cells["r4"], seed=9), runtime)  # the first run of a process reads much that later ones find in memory
    elsewhere = replace(runtime, runs=tmp_path / "others")
    plan = plan_study(study, cells, runtime)
    work = plan.work["r4"]
    before = _by_arithmetic(work, runtime)
    (result,) = run_study(study, cells, elsewhere)
    seconds, after = result.run.status().seconds, _by_arithmetic(work, runtime)
    assert seconds > 0
    counted = result.summary["parameters"]
    assert (work.encoder, work.projector, work.llm, work.adapters) == tuple(
        counted["total"][part] for part in ("encoder", "projector", "llm", "adapters")
    )
    assert work.trained == counted["trained_sum"]
    for stage, trained in zip(work.stages, result.summary["stages"], strict=True):
        assert stage.steps == trained["steps"]
        seen = stage.steps * stage.examples * stage.tokens
        assert 0.7 < seen / trained["tokens"] < 1.4
    # Of the right order; the machine may be much busier before or after than meanwhile.
    assert min(before, after) / 20 < seconds < 20 * max(before, after), (before, seconds, after)

    # What the finished run took tells what its other seeds take.
    plan = plan_study(replace(study, seeds=(0, 1, 2)), cells, elsewhere)
    found = estimate(plan, states_of(plan, elsewhere), elsewhere, MACHINE)
    assert found.sources == {"same cell": 2}
    assert sum(found.runs.values()) == pytest.approx(2 * seconds, rel=0.05)


def _by_arithmetic(work: Work, runtime: Runtime) -> float:
    machine = measured_speed(runtime)
    return sum(stage_seconds(work, stage, machine) for stage in work.stages) + asking_seconds(work, machine)


def test_estimates_follow_finished_runs(tmp_path: Path, runtime: Runtime) -> None:
    study, cells = read(tmp_path, seeds=[0, 1])
    plan = plan_study(study, cells, runtime)
    nothing = estimate(plan, states_of(plan, runtime), runtime, MACHINE, workers=1)
    assert nothing.sources == {"arithmetic": 8}
    by_cell = {r.cell: r for r in reversed(plan.runs)}
    leader, follower = by_cell["r2-atoms"], by_cell["r4-atoms"]
    _finish(leader, runtime, {"align": 40.0, "tune": 60.0}, rest=10.0)
    _finish(follower, runtime, {"align": 40.0, "tune": 60.0}, rest=10.0, taken="align")
    states = states_of(plan, runtime)
    found = estimate(plan, states, runtime, MACHINE)
    assert found.sources == {"same cell": 2, "other cells": 4}
    other = {r.cell: r.train_id for r in plan.runs if r.seed == 1}
    # With the next seed too, the first one trains the alignment and the second one takes it.
    assert found.runs[other["r2-atoms"]] == pytest.approx(110, abs=0.1)
    assert found.runs[other["r4-atoms"]] == pytest.approx(70, abs=0.1)
    assert 40 < found.runs[other["r2-prompt"]] < 220
    assert found.seconds == pytest.approx(sum(found.runs.values()))
    # Twice the steps take twice the training.
    longer = {
        cell: replace(work, stages=tuple(_twice(stage) for stage in work.stages)) if "prompt" in cell else work
        for cell, work in plan.work.items()
    }
    twice = estimate(replace(plan, work=longer), states, runtime, MACHINE)
    ratio = twice.runs[other["r2-prompt"]] / found.runs[other["r2-prompt"]]
    assert 1.6 < ratio < 2
    assert twice.runs[other["r2-atoms"]] == found.runs[other["r2-atoms"]]
    _end(plan.runs[-1], runtime, "failed")
    assert len(estimate(plan, states_of(plan, runtime), runtime, MACHINE).runs) == 5


def _twice(stage: StageWork) -> StageWork:
    counts = {name: 2 * getattr(stage, name) for name in ("steps", "validated", "validations")}
    return replace(stage, **counts, checkpoints=2 * stage.checkpoints + 1)


def test_workers_wait_for_stages_that_others_train(runtime: Runtime) -> None:
    seconds = {"a": 10.0, "b": 4.0, "c": 3.0, "d": 1.0}
    order = list(seconds)
    assert _elapsed(order, seconds, {}, 1) == 18
    assert _elapsed(order, seconds, {}, 2) == 10
    assert _elapsed(order, seconds, {"b": "a"}, 2) == 14
    assert _elapsed(order, seconds, {"b": "a", "c": "a", "d": "a"}, 4) == 14
    assert _elapsed([], {}, {}, 2) == 0
    assert at_once(64, replace(runtime, threads=1)) <= 64
    assert at_once(3, replace(runtime, device="cuda")) == 3


def test_more_work_takes_longer_by_arithmetic() -> None:
    stage = StageWork(
        name="tune",
        steps=100,
        examples=16,
        tokens=60.0,
        rows=20.0,
        trained=10_000,
        trains_encoder=True,
        validated=200,
        validations=2,
        checkpoints=1,
    )
    work = Work(
        encoder=60_000,
        projector=8_000,
        llm=500_000,
        adapters=40_000,
        modules=(100, 20),
        stages=(stage,),
        asked=100,
        prompt=30.0,
        new_tokens=32,
        batch=50,
        beams=1,
        likelihoods=100,
    )
    once = stage_seconds(work, stage, MACHINE)
    assert stage_seconds(work, replace(stage, steps=200), MACHINE) > 1.8 * once
    assert stage_seconds(replace(work, llm=7_000_000_000), stage, MACHINE) > 5_000 * once
    assert stage_seconds(work, replace(stage, trains_encoder=False), MACHINE) < once
    assert asking_seconds(replace(work, new_tokens=64), MACHINE) > asking_seconds(work, MACHINE)
    assert asking_seconds(replace(work, beams=5), MACHINE) > asking_seconds(work, MACHINE)


# Which cell is chosen


def _states(figures: dict[str, list[float | None]], **failed: str) -> list[RunState]:
    return [
        RunState(
            planned(cell, seed),
            None,
            "done" if figure is not None else "failed" if cell in failed else "planned",
            error=failed.get(cell) if figure is None else None,  # type: ignore[arg-type]
            figure=figure,
        )
        for cell, found in figures.items()
        for seed, figure in enumerate(found)
    ]


def test_the_best_cell_is_that_of_the_best_mean_over_seeds() -> None:
    states = _states({"a": [1.0, 3.0], "b": [0.5, 2.5], "c": [9.0, 1.0]})
    least = selected(Selection(), states)
    assert [cell.cell for cell in least.ranked] == ["b", "a", "c"]
    assert least.best is not None
    assert (least.best.cell, least.best.mean) == ("b", 1.5)
    most = selected(Selection(metric="strict/bleu-2"), states)
    assert [cell.cell for cell in most.ranked] == ["c", "a", "b"]
    (line,) = least.lines()
    assert line == "selected: b, 1.5 ± 1.4, mean of 2 seeds (smallest validation loss)"
    tie = selected(Selection(), _states({"z": [1.0], "y": [1.0]}))
    assert [cell.cell for cell in tie.ranked] == ["z", "y"]


def test_a_cell_that_lacks_a_seed_is_shown_and_not_chosen() -> None:
    found = selected(Selection(), _states({"a": [1.0, 3.0], "b": [0.5, None], "c": [None, None]}, b="oom", c="nan"))
    assert found.best is not None
    assert found.best.cell == "a"
    lines = list(found.lines())
    assert lines[1] == "  not considered: b, of which seed 1 failed (oom); 0.5, which would be the best"
    assert lines[2] == "  not considered: c, of which seed 0 failed (nan), seed 1 failed (nan)"
    none = selected(Selection(), _states({"b": [0.5, None]}))
    assert none.best is None
    assert next(none.lines()).startswith("selected: no cell, since none has all of its seeds")
    unmeasured = [replace(state, figure=None) for state in _states({"a": [1.0]})]
    assert "seed 0 has no such figure" in list(selected(Selection(), unmeasured).lines())[1]


def _end(run: PlannedRun, runtime: Runtime, state: Any, error: Any = None) -> RunDirectory:
    """Writes a run's status."""
    directory = RunDirectory(runtime.runs / f"{run.cell}-s{run.seed}-{run.train_id}")
    with directory.lock():
        directory.set_status(state, "by hand", error or ("error" if state == "failed" else None))
    if state == "done":
        _result(directory, run, {})
    return directory


def _finish(
    run: PlannedRun, runtime: Runtime, stages: dict[str, float], *, rest: float, taken: str | None = None
) -> None:
    """Writes a finished run that took so many seconds."""
    directory = _end(run, runtime, "done")
    status = read_json(directory.path / "status.json")
    own = sum(seconds for name, seconds in stages.items() if name != taken)
    (directory.path / "status.json").write_text(json.dumps({**status, "seconds": own + rest}))
    if taken:
        directory.log_file.write_text(f"2026-01-01 stage {taken}: taken from ../other, which has the same identity\n")
    _result(directory, run, stages)


def _result(directory: RunDirectory, run: PlannedRun, stages: dict[str, float]) -> None:
    from bench.identity import evaluation_id

    config = run.config
    entries = [
        {"evaluation_id": evaluation_id(config, task), "limited": bool(config.evaluation.limit), "n": 12}
        | {"split": config.evaluation.split, "task": task.name}
        | {"scores": [{"protocol": f"{p.name}@{p.version}", "metrics": {}} for p in config.evaluation.protocols]}
        for task in config.evaluation_tasks()
    ]
    summary = {
        "cell_id": run.cell_id,
        "train_id": run.train_id,
        "stages": [{"name": name, "seconds": seconds} for name, seconds in stages.items()],
        "evaluations": entries,
    }
    directory.result_file.write_text(json.dumps(summary))
    for position, (stage, identity) in enumerate(zip(config.stages, run.stage_ids, strict=True)):
        folder = directory.stage(position, stage.name)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = {"steps": stage.steps, "seconds": stages.get(stage.name, 1.0)}
        (folder / "stage.json").write_text(json.dumps({"stage_id": identity, "outcome": outcome}))


def test_a_stage_that_is_half_done_costs_half() -> None:
    run = planned("a", 0, "x", "y")
    state = RunState(
        run, None, "interrupted", stages=(StageState("align", "x", 10, 10, None, 1.0), StageState("tune", "y", 5, 10))
    )
    from bench.cost import _shares_left

    assert _shares_left(state) == (0.0, 0.5)
