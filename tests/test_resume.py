"""Runs that are killed, stopped and refused: nothing is lost, nothing is done twice, and the end is the same."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, REPOSITORY
from safetensors import safe_open

from bench.cli import _status
from bench.run_store import RunDirectory

# Dropout and graphs that are redrawn in every epoch, so that a random state which is lost on the way shows.
LONG = (
    "encoder.dropout=0.1",
    "llm.lora.dropout=0.1",
    "graph_input.train={name: shuffled, match_size: false}",
    "stages.align.steps=40",
    "stages.align.checkpoint_every=5",
    "stages.align.validate_every=20",
    "stages.tune.steps=40",
    "stages.tune.checkpoint_every=5",
    "stages.tune.validate_every=20",
    "evaluation.limit=60",
    "evaluation.generation={max_new_tokens: 24, batch_size: 2}",
)

# Starts commands without paying for their imports each time: forks itself, as yet without a thread or a tensor.
_ZYGOTE = """
import json, os, signal, sys

import bench.cli, bench.experiment, bench.pretrain_lm, bench.tracking, peft
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer

def deadly(name, replace=os.replace):
    def replace_or_die(source, target, **rest):
        if os.path.basename(target) == name:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target, **rest)
    return replace_or_die

def child(job):
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["molgraft", *job["arguments"]]
    if job["dies_at"]:
        os.replace = deadly(job["dies_at"])
    bench.cli.main(job["arguments"])

for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        pid, status = os.waitpid(job["wait"], 0 if job["block"] else os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        continue
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            child(job)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 98
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(json.dumps(pid), flush=True)
"""


class Molgraft:
    """The command line in processes of its own.

    Args:
        environment: of the processes.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ZYGOTE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=REPOSITORY,
        )

    def start(self, arguments: list[str], output: Path, dies_at: str = "") -> Process:
        """Starts a command; one that is to put a file of the name `dies_at` into its place is killed before it does."""
        job = {"arguments": arguments, "output": str(output), "dies_at": dies_at}
        return Process(self, self._asked(job), output)

    def exit_code(self, pid: int, block: bool) -> int | None:
        return self._asked({"wait": pid, "block": block})

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _asked(self, job: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Process:
    """A command that was started."""

    def __init__(self, molgraft: Molgraft, pid: int, output: Path) -> None:
        self._molgraft = molgraft
        self.pid = pid
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    def wait(self) -> int:
        code = self._molgraft.exit_code(self.pid, block=True)
        assert code is not None
        return code

    def stop_when(self, reached: Callable[[], bool], number: int = signal.SIGKILL) -> int:
        """Sends a signal as soon as a condition holds, and waits for the end."""
        deadline = time.monotonic() + 120
        looks = 0
        while not reached():
            looks += 1
            if looks % 100 == 0:
                ended = self._molgraft.exit_code(self.pid, block=False)
                assert ended is None, f"it ended with {ended} before it could be stopped: {self.said}"
                assert time.monotonic() < deadline, f"what was waited for did not happen: {self.said}"
            time.sleep(0.002)
        os.kill(self.pid, number)
        return self.wait()


@pytest.fixture(scope="module")
def environment(session_cache: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MOLGRAFT_")}
    return {**kept, "MOLGRAFT_CACHE": str(session_cache), "MLFLOW_DISABLE_TELEMETRY": "true"}


@pytest.fixture(scope="module")
def molgraft(environment: dict[str, str]) -> Iterator[Molgraft]:
    started = Molgraft(environment)
    yield started
    started.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """This process, for commands that end by themselves, in the same environment."""
    monkeypatch.delenv("MOLGRAFT_DATA", raising=False)
    monkeypatch.setenv("MOLGRAFT_CACHE", environment["MOLGRAFT_CACHE"])
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="module")
def unbroken_long(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """A run that nobody disturbed, by the real command."""
    runs = tmp_path_factory.mktemp("unbroken-long")
    command = [sys.executable, "-m", "bench.cli", *run_of(runs, *LONG)]
    subprocess.run(command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    return only_run(runs)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, molgraft: Molgraft) -> Path:
    """A short run that nobody disturbed."""
    runs = tmp_path_factory.mktemp("unbroken")
    process = molgraft.start(run_of(runs), runs / "said.txt")
    assert process.wait() == 0, process.said
    return only_run(runs)


@pytest.fixture(scope="module")
def before_handing_on(tmp_path_factory: pytest.TempPathFactory, molgraft: Molgraft) -> Path:
    """A folder of runs with one that was killed after the last step of `align`, so that two checkpoints are there."""
    runs = tmp_path_factory.mktemp("killed")
    process = molgraft.start(run_of(runs), runs / "said.txt", dies_at="final.safetensors")
    assert process.wait() == -signal.SIGKILL, process.said
    held = {path.name for path in (only_run(runs) / "stages/0-align/checkpoints").iterdir()}
    assert held == {"checkpoint-4", "checkpoint-6"}
    return runs


def run_of(runs: Path, *settings: str, tracking: bool = False, options: tuple[str, ...] = ()) -> list[str]:
    chosen = [word for setting in (*QUICK, *settings) for word in ("--set", setting)]
    untracked = () if tracking else ("--tracking", "none")
    return ["run", "demo", *chosen, "--runs", str(runs), *untracked, "--quiet", "--threads", "1", *options]


def only_run(runs: Path) -> Path:
    (found,) = (path.parent for path in runs.glob("*/lock"))
    return found


def begun(runs: Path) -> Path:
    """The run directory, or a folder that is not there while there is none."""
    return next((path.parent for path in runs.glob("*/lock")), runs / "none-yet")


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def outcome_of(run: Path) -> dict[str, str]:
    """Hashes of all that a run is for."""
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    return {str(path.relative_to(run)): sha(path) for pattern in patterns for path in sorted(run.glob(pattern))}


def logged(run: Path, stage: str) -> dict[tuple[int, str], Any]:
    lines = rows(run / "stages" / stage / "metrics.jsonl")
    return {(row["step"], key): value for row in lines for key, value in row.items()}


def newest_checkpoint(stage: Path) -> int:
    """The step of the newest checkpoint whose last file, the trainer's state, was written whole."""
    steps = [0]
    for state in stage.glob("checkpoints/checkpoint-*/trainer_state.json"):
        try:
            steps.append(json.loads(state.read_text())["global_step"])
        except ValueError:
            continue
    return max(steps)


def sessions_of(stage: Path) -> list[list[int]]:
    """The steps that each process did, in order."""
    by_process: dict[int, list[int]] = {}
    for row in rows(stage / "steps.jsonl"):
        by_process.setdefault(row["pid"], []).append(row["step"])
    return list(by_process.values())


@dataclass
class Survivor:
    """A run that was killed in every phase, and the step from which each stage had to go on after each kill."""

    run: Path
    resumed_from: dict[str, list[int]] = field(default_factory=lambda: {"0-align": [], "1-tune": []})
    aligned: list[tuple[str, int]] = field(default_factory=list)  # steps and time of `align`, whenever it was finished

    def lines(self, pattern: str) -> int:
        files = [path for path in self.run.glob(pattern) if ".questions" not in path.name]
        return sum(count_lines(path) for path in files)

    def look(self) -> None:
        assert RunDirectory(self.run).status().state == "interrupted"
        assert not (self.run / "result.json").exists()
        for name, starts in self.resumed_from.items():
            stage = self.run / "stages" / name
            if stage.exists() and not (stage / "stage.json").exists():
                starts.append(newest_checkpoint(stage))
        finished = self.run / "stages/0-align/final.safetensors"
        if finished.exists():
            self.aligned.append((sha(self.run / "stages/0-align/steps.jsonl"), finished.stat().st_mtime_ns))


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory, molgraft: Molgraft, unbroken_long: Path) -> Survivor:
    folder = tmp_path_factory.mktemp("survivor")
    found = Survivor(folder / "runs" / unbroken_long.name)
    asked = 60
    phases: dict[str, Callable[[], bool]] = {
        "align, first epoch": lambda: found.lines("stages/0-align/steps.jsonl") >= 8,
        "align, later": lambda: found.lines("stages/0-align/steps.jsonl") >= 28,
        "tune": lambda: found.lines("stages/1-tune/steps.jsonl") >= 18,
        "generation": lambda: 6 <= found.lines("predictions/*.jsonl") < asked,
        "reliance": lambda: found.lines("predictions/*.jsonl") == asked,
    }
    for phase, reached in phases.items():
        process = molgraft.start(run_of(folder / "runs", *LONG), folder / "said.txt")
        assert process.stop_when(reached) == -signal.SIGKILL, phase
        found.look()
        if phase == "generation":
            assert 0 < found.lines("predictions/*.jsonl") < asked
    process = molgraft.start(run_of(folder / "runs", *LONG), folder / "said.txt")
    assert process.wait() == 0, process.said
    assert RunDirectory(found.run).status().state == "done"
    return found


def test_a_run_that_is_killed_in_every_phase_ends_as_one_that_never_was(
    survivor: Survivor, unbroken_long: Path
) -> None:
    assert outcome_of(survivor.run) == outcome_of(unbroken_long)


def test_steps_are_repeated_only_from_the_last_checkpoint_before_a_kill(survivor: Survivor) -> None:
    assert len(survivor.resumed_from["0-align"]) == 2
    for name, starts in survivor.resumed_from.items():
        sessions = sessions_of(survivor.run / "stages" / name)
        assert [steps[0] for steps in sessions] == [1, *(start + 1 for start in starts)]
        for steps in sessions:
            assert steps == list(range(steps[0], steps[-1] + 1))
        assert sessions[-1][-1] == 40
        repeated = {step for step, times in Counter(step for s in sessions for step in s).items() if times > 1}
        allowed = {step for s, start in zip(sessions, starts, strict=False) for step in range(start + 1, s[-1] + 1)}
        assert repeated == allowed


def test_what_is_finished_is_not_done_again_after_a_kill(survivor: Survivor) -> None:
    assert len(survivor.aligned) == 3
    assert len(set(survivor.aligned)) == 1
    asked = [row["example_id"] for path in survivor.run.glob("predictions/*") for row in rows(path)]
    assert set(Counter(asked).values()) == {2}  # once among the questions, once among the predictions


def test_kills_leave_no_mark_in_logged_losses_or_the_result(survivor: Survivor, unbroken_long: Path) -> None:
    for stage in ("0-align", "1-tune"):
        assert logged(survivor.run, stage) == logged(unbroken_long, stage)
    mine, theirs = (json.loads((folder / "result.json").read_text()) for folder in (survivor.run, unbroken_long))
    for result in (mine, theirs):
        result.pop("seconds")
        result.pop("training_seconds")
        for stage in result["stages"]:
            stage.pop("seconds")
    assert mine == theirs


@pytest.mark.parametrize("file", ["final.safetensors", "stage.json", "parameters.json", "scores", "result.json"])
def test_a_kill_just_before_a_file_stands_in_its_place(
    file: str, unbroken: Path, molgraft: Molgraft, tmp_path: Path, here: None
) -> None:
    runs = tmp_path / "runs"
    name = next(unbroken.glob("scores/*.json")).name if file == "scores" else file
    process = molgraft.start(run_of(runs), tmp_path / "said.txt", dies_at=name)
    assert process.wait() == -signal.SIGKILL, process.said
    run = only_run(runs)
    assert RunDirectory(run).status().state == "interrupted"
    assert _status(run_of(runs)) == 0
    assert outcome_of(run) == outcome_of(unbroken)
    assert RunDirectory(run).status().state == "done"
    for stage in ("0-align", "1-tune"):
        assert [row["step"] for row in rows(run / "stages" / stage / "steps.jsonl")] == [1, 2, 3, 4, 5, 6]


def _remove(checkpoint: Path) -> None:
    (checkpoint / "trainer_state.json").unlink()


def _empty(checkpoint: Path) -> None:
    (checkpoint / "optimizer.pt").write_bytes(b"")


def _cut(name: str) -> Callable[[Path], None]:
    def cut(checkpoint: Path) -> None:
        file = checkpoint / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return cut


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_remove, id="without state"),
        pytest.param(_empty, id="empty optimiser"),
        pytest.param(_cut("model.safetensors"), id="cut weights"),
        pytest.param(_cut("trainer_state.json"), id="cut state"),
        pytest.param(_cut("optimizer.pt"), id="cut optimiser"),
        pytest.param(_cut("rng_state.pth"), id="cut random state"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    damage: Callable[[Path], None], before_handing_on: Path, unbroken: Path, tmp_path: Path, here: None
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(before_handing_on, runs)
    run = only_run(runs)
    damage(run / "stages/0-align/checkpoints/checkpoint-6")
    assert _status(run_of(runs)) == 0
    assert sessions_of(run / "stages/0-align") == [[1, 2, 3, 4, 5, 6], [5, 6]]
    assert outcome_of(run) == outcome_of(unbroken)


def test_the_best_weights_are_the_same_after_a_kill_down_to_the_bytes(
    molgraft: Molgraft, tmp_path: Path, here: None
) -> None:
    runs, undisturbed = tmp_path / "runs", tmp_path / "undisturbed"
    best = ("stages.align.keep=best", "stages.align.optimiser.lr=0.3")
    process = molgraft.start(run_of(runs, *best), tmp_path / "said.txt", dies_at="final.safetensors")
    assert process.wait() == -signal.SIGKILL, process.said
    assert _status(run_of(runs, *best)) == 0
    assert _status(run_of(undisturbed, *best)) == 0
    outcome = json.loads((only_run(runs) / "stages/0-align/stage.json").read_text())["outcome"]
    assert outcome["kept_step"] == min((loss, int(step)) for step, loss in outcome["validation"].items())[1]
    final = only_run(runs) / "stages/0-align/final.safetensors"
    with safe_open(final, "pt") as file:  # several entries stand in an order that changes from one time to the next
        assert len(file.metadata() or {}) <= 1
    assert outcome_of(only_run(runs)) == outcome_of(only_run(undisturbed))


def test_a_finished_stage_whose_weights_were_cut_is_trained_again(unbroken: Path, tmp_path: Path, here: None) -> None:
    runs = tmp_path / "runs"
    run = runs / unbroken.name
    shutil.copytree(unbroken, run)
    _cut("final.safetensors")(run / "stages/1-tune")
    shutil.rmtree(run / "predictions")
    assert _status(run_of(runs)) == 0
    assert outcome_of(run) == outcome_of(unbroken)
    assert len(sessions_of(run / "stages/0-align")) == 1


def test_sigterm_leaves_a_run_interrupted_and_the_same_command_ends_it(
    unbroken_long: Path, molgraft: Molgraft, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    process = molgraft.start(run_of(runs, *LONG), tmp_path / "said.txt")
    code = process.stop_when(lambda: count_lines(begun(runs) / "stages/0-align/steps.jsonl") >= 12, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in process.said
    run = only_run(runs)
    written = json.loads((run / "status.json").read_text())
    assert (written["state"], written["phase"]) == ("interrupted", "stage align")
    process = molgraft.start(run_of(runs, *LONG), tmp_path / "said.txt")
    assert process.wait() == 0, process.said
    assert outcome_of(run) == outcome_of(unbroken_long)


def test_a_run_that_is_done_does_nothing_and_is_found_under_another_alias(
    unbroken: Path, tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    run = runs / unbroken.name
    shutil.copytree(unbroken, run)

    def state() -> dict[str, int]:
        made = {path for part in ("stages", "predictions", "reliance", "scores") for path in (run / part).rglob("*")}
        return {str(path): path.stat().st_mtime_ns for path in made}

    before, told = state(), json.loads((run / "result.json").read_text())
    for more in ((), ("name=other",)):
        capsys.readouterr()
        assert _status(run_of(runs, *more, options=("--json",))) == 0
        again = json.loads(capsys.readouterr().out)
        assert again["run"] == str(run)
        assert again["evaluations"] == told["evaluations"]
        assert again["stages"] == told["stages"]
        assert state() == before
    assert [path.name for path in runs.glob("[!.]*")] == [run.name]


def test_a_session_that_does_nothing_leaves_the_account_of_how_the_run_was_made(
    unbroken: Path, tmp_path: Path, here: None
) -> None:
    runs = tmp_path / "runs"
    run = runs / unbroken.name
    shutil.copytree(unbroken, run)
    before = json.loads((run / "manifest.json").read_text())["sessions"]
    assert _status(run_of(runs)) == 0
    assert json.loads((run / "manifest.json").read_text())["sessions"] == before


def test_fresh_starts_over(unbroken: Path, tmp_path: Path, here: None) -> None:
    runs = tmp_path / "runs"
    run = runs / unbroken.name
    shutil.copytree(unbroken, run)
    (run / "left-behind").write_text("by an earlier session")
    assert _status(run_of(runs, options=("--fresh",))) == 0
    assert not (run / "left-behind").exists()
    assert sessions_of(run / "stages/0-align") == [[1, 2, 3, 4, 5, 6]]
    assert {row["pid"] for row in rows(run / "stages/0-align/steps.jsonl")} == {os.getpid()}
    assert outcome_of(run) == outcome_of(unbroken)


def test_of_two_processes_that_start_the_same_run_one_is_told_who_has_it(molgraft: Molgraft, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    first = molgraft.start(run_of(runs, *LONG), tmp_path / "first.txt")
    deadline = time.monotonic() + 60
    while not count_lines(begun(runs) / "stages/0-align/steps.jsonl"):
        assert time.monotonic() < deadline, first.said
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # it holds its lock and goes no further while the other one tries
    try:
        second = molgraft.start(run_of(runs, *LONG), tmp_path / "second.txt")
        assert second.wait() == 2
        assert f"is being worked on by process {first.pid} on" in second.said
        assert "Traceback" not in second.said
        assert len(second.said.strip().splitlines()) == 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.stop_when(lambda: True) == -signal.SIGKILL


def test_a_stage_of_equal_identity_is_taken_from_another_run(unbroken: Path, tmp_path: Path, here: None) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(unbroken, runs / unbroken.name)
    changed = "stages.tune.optimiser.lr=5e-4"
    assert _status(run_of(runs, changed, "name=other")) == 0
    (other,) = runs.glob("other-s0-*")
    assert sha(other / "stages/0-align/final.safetensors") == sha(unbroken / "stages/0-align/final.safetensors")
    assert sessions_of(other / "stages/0-align") == sessions_of(unbroken / "stages/0-align")
    assert unbroken.name in (other / "log.txt").read_text()
    alone = tmp_path / "alone"
    assert _status(run_of(alone, changed, "name=other")) == 0
    assert outcome_of(other) == outcome_of(only_run(alone))
    assert outcome_of(other) != outcome_of(unbroken)


def test_a_loss_that_is_no_number_fails_the_run_until_it_is_retried(
    tmp_path: Path, here: None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    # Validation, which would notice too, is far away: a night must not be spent on training that is lost.
    exploding = (
        "stages.align.optimiser={lr: 1e30, max_grad_norm: 0}",
        "stages.align.steps=60",
        "stages.align.validate_every=0",
        "stages.align.checkpoint_every=60",
    )
    assert _status(run_of(runs, *exploding)) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    run = only_run(runs)
    status = RunDirectory(run).status()
    assert (status.state, status.error, status.phase) == ("failed", "nan", "stage align")
    done = count_lines(run / "stages/0-align/steps.jsonl")
    assert _status(run_of(runs, *exploding)) == 2
    said = capsys.readouterr().err
    assert "failed before (nan, in stage align)" in said
    assert "--retry-failed" in said
    assert count_lines(run / "stages/0-align/steps.jsonl") == done
    assert _status(run_of(runs, *exploding, options=("--retry-failed",))) == 1
    assert count_lines(run / "stages/0-align/steps.jsonl") > done
    assert done < 30, f"the loss was no number for most of {done} steps before it was noticed"


def test_mlflow_has_each_number_once_whatever_happened_to_the_run(
    molgraft: Molgraft, tmp_path: Path, here: None
) -> None:
    from mlflow import MlflowClient

    runs = tmp_path / "runs"
    command = run_of(runs, *LONG, tracking=True)
    store = f"sqlite:///{runs / 'mlflow.db'}"

    def mirrored() -> tuple[Any, Any, list[Any]]:
        client = MlflowClient(store)
        experiment = client.get_experiment_by_name("molgraft/demo")
        found = client.search_runs([experiment.experiment_id])
        (parent,) = (run for run in found if run.data.tags["molgraft.kind"] == "study")
        return client, parent, [run for run in found if run.data.tags["molgraft.kind"] == "run"]

    process = molgraft.start(command, tmp_path / "said.txt")  # on SIGTERM it still mirrors what there is
    process.stop_when(lambda: count_lines(begun(runs) / "stages/1-tune/steps.jsonl") >= 12, signal.SIGTERM)
    _, _, (child,) = mirrored()
    assert child.info.status == "KILLED"
    assert "align/loss" in child.data.metrics
    process = molgraft.start(command, tmp_path / "said.txt")
    process.stop_when(lambda: count_lines(begun(runs) / "stages/1-tune/steps.jsonl") >= 30)
    process = molgraft.start(command, tmp_path / "said.txt")
    assert process.wait() == 0, process.said

    client, parent, (child,) = mirrored()
    assert child.info.status == "FINISHED"
    assert parent.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    run = only_run(runs)
    for stage in ("0-align", "1-tune"):
        for key in ("loss", "validation_loss"):
            expected = {step: value for (step, name), value in logged(run, stage).items() if name == key}
            history = client.get_metric_history(child.info.run_id, f"{stage[2:]}/{key}")
            assert sorted(point.step for point in history) == sorted(expected)
            assert {point.step: point.value for point in history} == pytest.approx(expected)
    result = json.loads((run / "result.json").read_text())
    (entry,) = result["evaluations"]
    assert child.data.metrics["test/caption/bundled/reliance"] == pytest.approx(entry["reliance"]["value"])
    assert child.data.tags["molgraft.train_id"] == result["train_id"]


def test_mlflow_knows_the_settings_of_a_run(tmp_path: Path, here: None) -> None:
    from mlflow import MlflowClient

    runs = tmp_path / "runs"
    assert _status(run_of(runs, tracking=True)) == 0
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("molgraft/demo")
    (child,) = (r for r in client.search_runs([experiment.experiment_id]) if r.data.tags["molgraft.kind"] == "run")
    assert child.info.status == "FINISHED"
    result = json.loads((only_run(runs) / "result.json").read_text())
    assert child.data.tags["molgraft.cell_id"] == result["cell_id"]
    assert child.data.tags["molgraft.seed"] == "0"
    assert child.data.params["encoder.name"] == "gin"
    assert child.data.params["stages.tune.steps"] == "6"
