"""Studies by several workers: killed, stopped, started twice, on a disk that fills up; each run is done once."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY

from bench.adoption import is_finished
from bench.command_study import _options
from bench.dispatch import worker
from bench.dispatch.assignment import Assignment
from bench.dispatch.base import MISTAKE, Options, Outcome, Strikes
from bench.dispatch.local import LocalWorkers
from bench.dispatch.start import run_plan
from bench.errors import UserError
from bench.plan import Plan, plan_study
from bench.registry import PLUGINS_VARIABLE
from bench.run_store import RunDirectory, append_jsonl, write_json
from bench.runtime import Runtime
from bench.study import load_study
from bench.study_states import states_of

CELLS = """
name: little
extends: demo
seeds: [0]
cells:
  linear: {}
  mlp: {projector: mlp}
  shuffled: {graph_input: {train: {name: shuffled, match_size: false}}}
  mlp-shuffled: {projector: mlp, graph_input: {train: {name: shuffled, match_size: false}}}
"""
# Dropout, so that random numbers that one run leaves to the next would show.
SETTINGS = (
    *QUICK,
    "encoder.dropout=0.1",
    "llm.lora.dropout=0.1",
    "stages.align.steps=16",
    "stages.tune.steps=16",
    "stages.align.validate_every=8",
    "stages.tune.validate_every=8",
)
STEPS = list(range(1, 17))
STAGES = ("0-align", "1-tune")


@pytest.fixture(scope="module")
def cache(session_cache: Path) -> Iterator[Path]:
    """The environment of all processes here, and of those that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MOLGRAFT_DATA", raising=False)
        patch.setenv("MOLGRAFT_CACHE", str(session_cache))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        yield session_cache


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    file = tmp_path_factory.mktemp("study") / "little.yaml"
    file.write_text(CELLS)
    return file


def runtime_at(runs: Path, tracking: str | None = "none") -> Runtime:
    return Runtime(runs=runs, device="cpu", threads=1, tracking=tracking, offline=True, progress=False)


def planned(file: Path, runtime: Runtime, *only: str) -> Plan:
    study, cells = load_study(str(file), SETTINGS, runtime, only=only)
    return plan_study(study, cells, runtime)


def command(file: Path, runs: Path, *options: str) -> list[str]:
    chosen = [word for setting in SETTINGS for word in ("--set", setting)]
    rest = ["--runs", str(runs), "--device", "cpu", "--threads", "1", "--offline", "--quiet", *options]
    return [sys.executable, "-m", "bench.cli", "study", str(file), *chosen, *rest]


@contextmanager
def started(arguments: list[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a process of its own, which is gone at the end whatever happens."""
    with said.open("ab") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=output, cwd=REPOSITORY)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(reached: Callable[[], Any], process: subprocess.Popen[bytes], said: Path) -> Any:
    """Waits for something while a process works on it."""
    deadline = time.monotonic() + 300
    while not (found := reached()):
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.02)
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def outcome_of(run: Path) -> dict[str, str]:
    """Hashes of all that a run is for."""
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    found = [path for pattern in patterns for path in run.glob(pattern)]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


def outcomes(runs: Path) -> dict[str, dict[str, str]]:
    return {path.parent.name: outcome_of(path.parent) for path in runs.glob("*/result.json")}


def steps_by_process(runs: Path) -> dict[Path, dict[int, list[int]]]:
    """The steps that each process did at each stage."""
    found: dict[Path, dict[int, list[int]]] = {}
    for file in runs.glob("*/stages/*/steps.jsonl"):
        for row in rows(file):
            found.setdefault(file.parent, {}).setdefault(row["pid"], []).append(row["step"])
    return found


def at_work(runs: Path, least: int = 1) -> list[int]:
    """Processes that have done so many steps of a stage that is not finished."""
    return [
        pid
        for stage, processes in steps_by_process(runs).items()
        if not (stage / "stage.json").exists()
        for pid, steps in processes.items()
        if len(steps) >= least and is_alive(pid)
    ]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def workers_of(runs: Path) -> set[int]:
    return {json.loads(file.read_text())["pid"] for file in runs.glob(".studies/*/workers/*/*.worker.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, study_file: Path) -> Path:
    """The study in this process, one run after the other."""
    runs = tmp_path_factory.mktemp("undisturbed")
    outcome = run_plan(planned(study_file, runtime_at(runs)), runtime_at(runs))
    assert outcome.complete
    assert [run.cell for run in outcome.done] == ["linear", "mlp", "shuffled", "mlp-shuffled"]
    assert {pid for processes in steps_by_process(runs).values() for pid in processes} == {os.getpid()}
    return runs


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory, study_file: Path, undisturbed: Path) -> Path:
    """The study by two workers, which are killed, then their successors are asked to end, then the parent is killed."""
    folder = tmp_path_factory.mktemp("survivor")
    runs, said = folder / "runs", folder / "said.txt"
    arguments = command(study_file, runs, "--workers", "2")

    with started(arguments, said) as parent:
        victims: set[int] = set()
        while len(victims) < 2:
            victim = until(lambda: {*at_work(runs, 3)} - victims, parent, said).pop()
            os.kill(victim, signal.SIGKILL)
            victims.add(victim)
        until(lambda: said.read_text().count("ended (signal SIGKILL)") == 2, parent, said)
        until(lambda: {*at_work(runs)} - victims, parent, said)
        parent.terminate()
        assert parent.wait(120) == 128 + signal.SIGTERM
    assert "workers write checkpoints and end" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert not any(map(is_alive, workers_of(runs)))
    runtime = runtime_at(runs)
    assert {state.state for state in states_of(planned(study_file, runtime), runtime)} <= {
        *("planned", "interrupted", "done"),
    }

    with started(arguments, said) as parent:
        until(lambda: at_work(runs, 3), parent, said)
        left = [pid for pid in workers_of(runs) if is_alive(pid)]
        parent.kill()
        assert parent.wait(60) == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while any(map(is_alive, left)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.05)

    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for cell in ("linear", "mlp", "shuffled", "mlp-shuffled"):
        assert cell in done.stdout
    assert "selected: " in done.stdout
    return runs


def test_a_study_whose_workers_and_parent_were_killed_ends_as_one_that_nobody_disturbed(
    survivor: Path, undisturbed: Path
) -> None:
    assert outcomes(survivor) == outcomes(undisturbed)
    assert len(outcomes(survivor)) == 4


def test_what_a_run_comes_to_does_not_depend_on_the_runs_that_its_process_did_before(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    arguments = command(study_file, runs, "--tracking", "none", "--only", "mlp-shuffled")
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (alone,) = outcomes(runs)
    assert alone.startswith("mlp-shuffled-s0-")
    assert outcomes(runs)[alone] == outcomes(undisturbed)[alone]  # which was the last of four


def test_after_kills_steps_are_repeated_only_from_the_last_checkpoint(survivor: Path) -> None:
    for stage, processes in steps_by_process(survivor).items():
        sessions = list(processes.values())
        assert [step for step in sessions[-1] if step == 16] == [16], stage
        reached = 0
        for steps in sessions:
            assert steps == list(range(steps[0], steps[-1] + 1))
            assert reached - 2 <= steps[0] - 1 <= reached, f"{stage}: a checkpoint is written every two steps"
            reached = steps[-1]
        assert reached == 16


def test_mlflow_holds_each_run_once_with_whole_histories(survivor: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{survivor / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("molgraft/little")
    found = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in found} == {"FINISHED"}
    children = [run for run in found if run.data.tags.get("molgraft.kind") == "run"]
    assert sorted(run.info.run_name for run in children) == sorted(outcomes(survivor))
    for child in children:
        for stage in STAGES:
            logged = {
                row["step"]: row["loss"]
                for row in rows(survivor / child.info.run_name / "stages" / stage / "metrics.jsonl")
                if row.get("loss") is not None
            }
            history = client.get_metric_history(child.info.run_id, f"{stage[2:]}/loss")
            assert sorted(point.step for point in history) == sorted(logged)
            assert {point.step: point.value for point in history} == pytest.approx(logged)


def test_two_starts_in_one_folder_share_the_work(study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    arguments = command(study_file, runs, "--tracking", "none")
    with started(arguments, tmp_path / "first.txt") as first, started(arguments, tmp_path / "second.txt") as second:
        assert first.wait(600) == 0, (tmp_path / "first.txt").read_text()
        assert second.wait(600) == 0, (tmp_path / "second.txt").read_text()
    assert outcomes(runs) == outcomes(undisturbed)
    done = steps_by_process(runs)
    assert [list(processes.values()) for processes in done.values()] == [[STEPS]] * len(done)
    assert {pid for processes in done.values() for pid in processes} == {first.pid, second.pid}
    for said in ("first.txt", "second.txt"):
        assert "selected: " in (tmp_path / said).read_text()


def test_a_run_that_lacks_but_its_last_stage_is_gone_on_with(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (whole,) = undisturbed.glob("mlp-s0-*")
    run = tmp_path / "runs" / whole.name
    shutil.copytree(whole, run)
    for file in ("result.json", "stages/1-tune/stage.json"):
        (run / file).unlink()
    write_json(run / "status.json", {"state": "interrupted", "phase": "stage tune"})
    done = subprocess.run(
        command(study_file, run.parent, "--tracking", "none", "--only", "mlp"),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,  # a run has the identity of its last stage; claiming both by that alone would never end
    )
    assert done.returncode == 0, done.stderr
    assert outcome_of(run) == outcome_of(whole)


def test_a_second_start_does_nothing(study_file: Path, undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*/*/**/*") if path.is_file()}
    runtime = runtime_at(undisturbed)
    outcome = run_plan(planned(study_file, runtime), runtime, Options(workers=2))
    assert outcome.complete
    after = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*/*/**/*") if path.is_file()}
    assert {path: after[path] for path in before if ".studies" not in path.parts} == {
        path: when for path, when in before.items() if ".studies" not in path.parts
    }


# Disks


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Callable[[], None]]:
    """A disk of so many bytes, and what makes it larger; where none may be made, a limit on the size of each file."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield lambda: subprocess.run(["mount", "-o", "remount,size=100m", str(folder)], check=True) and None
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # handed on to workers, as the limit is
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 100, hard))
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def plan_and_run(file: Path, runtime: Runtime, workers: int) -> Outcome:
    return run_plan(planned(file, runtime), runtime, Options(workers=workers))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_ends_the_study_and_room_lets_it_go_on(
    workers: int, study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    needed = sum(file.stat().st_size for run in outcomes(undisturbed) for file in (undisturbed / run).rglob("*"))
    with small_disk(runs, needed // 2) as enlarge:
        runtime = runtime_at(runs)
        outcome = plan_and_run(study_file, runtime, workers)
        assert outcome.disk is not None
        assert outcome.disk.startswith("cannot write: ")
        assert outcome.missing
        assert not outcome.failed, "a full disk is no failure of a run"
        assert outcomes(runs).items() <= outcomes(undisturbed).items()
        enlarge()
        assert plan_and_run(study_file, runtime, workers).complete
        assert outcomes(runs) == outcomes(undisturbed)


# Runs that take their workers with them

DEADLY = """
import os, signal, sys
from dataclasses import dataclass
from projectors.linear import Linear

@dataclass(frozen=True, kw_only=True)
class Deadly(Linear):
    '''A linear map that ends the process that trains it.'''
    name = "deadly"
    def build(self, widths, llm_width):
        module = super().build(widths, llm_width)
        if "dispatch" in sys.argv[0]:
            module.register_forward_hook(lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        return module
"""


def test_a_run_that_kills_its_workers_is_given_up_and_the_others_are_done(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "deadly.py").write_text(DEADLY)
    monkeypatch.setenv(PLUGINS_VARIABLE, str(plugins))
    file = tmp_path / "study.yaml"
    file.write_text("name: deadly\nextends: demo\nseeds: [0]\ncells:\n  deadly: {projector: deadly}\n  linear: {}\n")
    runtime = runtime_at(tmp_path / "runs")
    outcome = plan_and_run(file, runtime, 2)
    assert [run.cell for run in outcome.done] == ["linear"]
    (failed,) = outcome.failed
    assert failed.planned.cell == "deadly"
    assert "3 times (signal SIGKILL)" in failed.reason
    assert not outcome.missing
    (directory,) = (folder for folder, cell in outcome.folders.items() if cell == "deadly")
    assert RunDirectory(directory).status().error == "killed"
    # Started again it stays as it is; nobody asked for a retry.
    assert plan_and_run(file, runtime, 2).failed == outcome.failed


def test_a_worker_that_cannot_start_says_why(
    study_file: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text("import os\nos.write(2, b'no library of this name\\n')\nos._exit(7)\n")
    runtime = runtime_at(tmp_path / "runs")
    plan = planned(study_file, runtime)
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(UserError, match=r"cannot start \(exit status 7\).*\n.*no library of this name"):
        run_plan(plan, runtime, Options(workers=2))


# Parts


def assignment_of(plan: Plan, runtime: Runtime, folder: Path) -> Assignment:
    folder.mkdir(parents=True, exist_ok=True)
    return Assignment(
        study=plan.study,
        plan_file=plan.write(folder),
        folder=folder,
        positions=(0, 2),
        again=(2,),
        retried={2: 17.25},
        runs=runtime.runs,
        cache=Path("/cache"),
        settings={"device": "cpu", "threads": 3, "tracking": None},
        data=(Path("/a/b.yaml"),),
        plugins=(Path("/plug"),),
        directory=Path("/"),
        environment={"MOLGRAFT_DATA": "/data"},
    )


def test_a_mistake_that_a_worker_finds_is_told_in_its_words(
    study_file: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # a worker goes to where the command was
    runtime = runtime_at(undisturbed)
    assignment = replace(assignment_of(planned(study_file, runtime), runtime, tmp_path / "start"), plugins=())
    assignment = replace(assignment, settings={**assignment.settings, "tracking": "./mlruns"}, environment={})
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert worker.main([str(assignment.write()), "--name", "worker-1"]) == MISTAKE
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().err
    assert said.startswith("error: --tracking ./mlruns: give sqlite:///FILE")
    workers = LocalWorkers(Plan.read(assignment.plan_file), assignment, runtime, 1)
    (slot,) = workers.processes.slots
    slot.log.write_text(said)
    with pytest.raises(UserError, match=r"^--tracking \./mlruns: give"):
        workers._ended(slot, 1, MISTAKE)


def test_workers_that_are_always_asked_to_end_are_not_replaced_for_ever(
    study_file: Path, undisturbed: Path, tmp_path: Path
) -> None:
    runtime = runtime_at(undisturbed)
    assignment = assignment_of(planned(study_file, runtime), runtime, tmp_path / "start")
    workers = LocalWorkers(Plan.read(assignment.plan_file), assignment, runtime, 1)
    (slot,) = workers.processes.slots
    slot.log.touch()
    asked = 128 + signal.SIGTERM
    assert [workers._ended(slot, 1, asked) for _ in range(9)] == ["another"] * 9
    with pytest.raises(UserError, match=r"cannot start \(exit status 143\)"):
        workers._ended(slot, 1, asked)


def test_a_stage_report_that_cannot_be_read_is_of_no_stage(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"steps": 3}'):
        (tmp_path / "stage.json").write_text(text)
        assert not is_finished(tmp_path, "0123456789abcdef")


def test_an_assignment_is_read_as_it_was_written(study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    runtime = runtime_at(undisturbed)
    assignment = assignment_of(planned(study_file, runtime), runtime, tmp_path / "start")
    assert Assignment.read(assignment.write()) == assignment
    assert assignment.runtime().threads == 3
    assert not assignment.runtime().progress
    with pytest.raises(UserError, match="give --runs a folder that all machines share"):
        Assignment.read(tmp_path / "elsewhere" / "assignment.json")


def test_workers_share_the_cores_and_the_gpus(
    study_file: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = replace(runtime_at(undisturbed), device="cuda")
    assignment = assignment_of(planned(study_file, runtime), runtime, tmp_path / "start")
    monkeypatch.setattr("bench.dispatch.local.cores", lambda: 6)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    asked = replace(assignment, settings={**assignment.settings, "threads": None})
    workers = LocalWorkers(Plan.read(assignment.plan_file), asked, runtime, 3)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in workers.processes.slots] == ["4", "6", "4"]
    assert Assignment.read(assignment.file).settings["threads"] == 2
    LocalWorkers(Plan.read(assignment.plan_file), asked, runtime, 9)
    assert Assignment.read(assignment.file).settings["threads"] == 1
    LocalWorkers(Plan.read(assignment.plan_file), assignment, runtime, 3)
    assert Assignment.read(assignment.file).settings["threads"] == 3, "as it was asked for"


def test_only_deaths_that_come_no_further_are_counted(study_file: Path, undisturbed: Path, tmp_path: Path) -> None:
    plan = planned(study_file, runtime_at(undisturbed))
    runtime = runtime_at(tmp_path / "runs")
    run = plan.runs[0]
    strikes = Strikes(runtime)
    assert not strikes.died(run, "before it began"), "there is nothing to mark"
    directory = RunDirectory(runtime.runs / f"linear-s0-{run.train_id}")
    sessions = itertools.count(1)

    def died() -> bool:
        """A session begins, which the run's status says, and is killed."""
        written = {"state": "running", "phase": "stage align", "updated": next(sessions)}
        write_json(directory.path / "status.json", written)
        return strikes.died(run, "signal SIGKILL")

    checkpoints = directory.path / "stages/0-align/checkpoints"
    assert not died()
    assert not died()
    (checkpoints / "checkpoint-2").mkdir(parents=True)
    for step in range(3, 10):  # killed by hand, at other steps each time
        append_jsonl(directory.stage(0, "align") / "steps.jsonl", [{"step": step}])
        assert not died()
    assert not strikes.died(run, "signal SIGKILL"), "it had not come back to where the run stands"
    assert [died() for _ in range(2)] == [False, True]
    status = directory.status()
    assert (status.state, status.error, status.phase) == ("failed", "killed", "stage align")


NOTHING: dict[str, Any] = {
    **{"engine": "local", "workers": None, "address": None, "cpus": None, "gpus": None, "slurm": (), "detach": False}
}
GIVEN = ("timeout_min=60", "partition=gpu", "constraint=a=b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "cloud"}, "--engine cloud: unknown; it is one of local, ray, slurm"),
        ({"address": "auto"}, "--address: says nothing to --engine local"),
        ({"cpus": 2, "gpus": 1.0}, "--cpus-per-run, --gpus-per-run: says nothing to --engine local"),
        (
            {"engine": "ray", "slurm": ["partition=x"], "detach": True},
            "--slurm, --detach: says nothing to --engine ray",
        ),
        ({"engine": "slurm", "slurm": ["partition"]}, "--slurm partition: is not of the form KEY=VALUE"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _options(**{**NOTHING, **given})


def test_options_of_the_engines() -> None:
    assert _options(**NOTHING) == Options()
    assert _options(**{**NOTHING, "engine": "ray"}).workers == 0, "as many runs at a time as fit"
    jobs = _options(**{**NOTHING, "engine": "slurm", "workers": 4, "slurm": GIVEN})
    assert jobs.slurm == {"timeout_min": 60, "partition": "gpu", "constraint": "a=b"}
