"""Run directories made by hand for the tests of tracking, and processes that mirror them and may be killed meanwhile.

As a program, `python tests/tracked_runs.py JOB.json` starts its processes by forking, so that mlflow is imported once.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench.tracking.mirror
from bench.run_store import RunDirectory, append_jsonl, read_jsonl, write_json, write_text
from bench.runtime import Runtime
from bench.selection import Selection
from bench.tracking import mirror_to

BEGAN = 1_790_000_000  # seconds since 1970
STAGES = ("align", "tune")
EVERY = 5  # steps between validations
_WRITES = ("create_experiment", "create_run", "log_batch", "log_inputs", "log_artifact", "set_tag", "set_terminated")
SHA = "30e97610b7719af15ca835544383a09b52fc719c782f5888daf5561e893be203"


def runtime_of(runs: Path, tracking: str | None = None) -> Runtime:
    return Runtime(runs=runs, tracking=tracking, progress=False)


def begin(runs: Path, name: str = "cell", seed: int = 0, began: int = BEGAN) -> RunDirectory:
    """A run of which only its beginning is on disk."""
    train_id = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()[:16]
    directory = RunDirectory(runs / f"{name}-s{seed}-{train_id}")
    stages = [{"name": stage, "steps": 10} for stage in STAGES]
    settings = {"name": name, "seed": seed, "encoder": {"name": "gin", "layers": 3}, "stages": stages}
    write_text(directory.config_file, yaml.safe_dump({**settings, "evaluation": {"split": "test"}}))
    session = {
        "molgraft": "0.1.0",
        "git": {"commit": "c0ffee", "uncommitted_changes": None},
        "packages": {"torch": "2.13.0", "nltk": None},
        "python": "3.11.7",
        "host": "here",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(began)),
    }
    data = {f"bundled/{split}": {"file": "molecules.csv", "sha256": SHA} for split in ("train", "validation", "test")}
    identity = {"train_id": train_id, "cell_id": f"cell-of-{name}", "stage_ids": ["first", train_id]}
    write_json(directory.manifest_file, {**identity, "data": data, "sessions": [session]})
    return directory


def train(directory: RunDirectory, position: int, steps: range, stage: str | None = None) -> None:
    """Logs steps of a stage, with a validation now and then; a step that is done again gives the same numbers."""
    folder = directory.stage(position, stage or STAGES[position])
    seed = yaml.safe_load(directory.config_file.read_text())["seed"]
    if steps.start == 1 and not read_jsonl(folder / "metrics.jsonl"):
        append_jsonl(folder / "metrics.jsonl", [{"step": 0, "validation_loss": 9.0 + seed}], durable=False)
    for step in steps:
        when = BEGAN + 1000 * position + step + len(read_jsonl(folder / "steps.jsonl")) / 1000
        append_jsonl(folder / "steps.jsonl", [{"step": step, "seconds": 1.0, "pid": 1, "time": when}], durable=False)
        values = {
            "loss": 1 / 3 / step + seed,
            "grad_norm": step / 7,
            "learning_rate": None if step == 3 else 1e-3 / step,
        }
        append_jsonl(folder / "metrics.jsonl", [{"step": step, **values}], durable=False)
        if step % EVERY == 0:
            row = {"step": step, "validation_loss": 2 / step + position}
            append_jsonl(folder / "metrics.jsonl", [row], durable=False)


def evaluation(predict_id: str, value: float, limited: bool = False) -> dict[str, Any]:
    """What the result says of one evaluation."""
    return {
        **{"split": "test", "task": "caption", "data": "bundled", "limited": limited, "predict_id": predict_id},
        "graph_input": {"name": "real"},
        "scores": [{"protocol": "strict@1", "metrics": {"bleu-2": {"value": value}, "meteor": {"value": None}}}],
        "reliance": {"value": value / 2, "metrics": {"strict@1": {"bleu-2": {"value": value / 4}}}},
    }


def finish(directory: RunDirectory, *evaluations: dict[str, Any]) -> None:
    """The result and what belongs to it. Call it while holding the lock."""
    entries = list(evaluations) or [evaluation("aa", 0.5)]
    for entry in entries:
        file = directory.predictions_file(entry["predict_id"])
        if not file.exists():
            append_jsonl(file, [{"id": "m1", "text": "a molecule"}])
    write_json(directory.result_file, {"evaluations": entries})
    directory.set_status("done", "done")


def finished(runs: Path, name: str = "cell", seed: int = 0, steps: int = 10) -> RunDirectory:
    """A run that nobody mirrored."""
    directory = begin(runs, name, seed)
    with directory.lock():
        directory.set_status("running", "stage align")
        for position in range(len(STAGES)):
            train(directory, position, range(1, steps + 1))
        finish(directory)
    return directory


def plan(runs: Path, study: str, *members: RunDirectory) -> None:
    """A study's plan, with as much of it as tracking reads."""
    rows = [{"train_id": member.path.name.rpartition("-")[2]} for member in members]
    content = {"study": study, "question": f"what is {study}?", "select": asdict(Selection()), "runs": rows}
    write_json(runs / ".studies" / study / "plan.json", content)


def session(directory: RunDirectory, tracking: str, steps: int, study: str = "live", stop: int | None = None) -> None:
    """Goes on with a run, to its end or until a step of its last stage, and mirrors it at every few steps."""
    bench.tracking.mirror._PAUSE = 0.0  # a session of a second shall do as much as one of hours
    mirror = mirror_to(study, runtime_of(directory.path.parent, tracking))
    with directory.lock():
        directory.set_status("running", "stage align")
        mirror(directory)
        for position, stage in enumerate(STAGES):
            done = [row["step"] for row in read_jsonl(directory.stage(position, stage) / "steps.jsonl")]
            first = max(1, max(done, default=0) - 1)  # as from a checkpoint: the last steps are done again
            if max(done, default=0) == steps:
                continue
            for start in range(first, steps + 1, 3):
                train(directory, position, range(start, min(start + 3, steps + 1)))
                mirror(directory)
                if stop is not None and (position, start) >= (len(STAGES) - 1, stop):
                    directory.set_status("interrupted", f"stage {stage}")
                    mirror(directory)
                    return
        finish(directory)
        mirror(directory)


def shown(tracking: str, study: str) -> dict[str, Any]:
    """All that MLflow has of a study's runs, by their name, without the ids that it gave them."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking.replace("postgresql://", "postgresql+psycopg2://"))
    experiment = client.get_experiment_by_name(f"molgraft/{study}")
    assert experiment is not None
    found: dict[str, Any] = {}
    for run in client.search_runs([experiment.experiment_id]):
        tags = dict(run.data.tags)
        parent = tags.pop("mlflow.parentRunId", None)
        tags.pop("molgraft.pid", None)
        key = run.info.run_id
        assert run.info.run_name not in found, "two of one name"
        found[run.info.run_name] = {
            "parent": None if parent is None else client.get_run(parent).info.run_name,
            "parent is there": parent is None or client.get_run(parent).info.lifecycle_stage == "active",
            "status": run.info.status,
            "tags": tags,
            "parameters": dict(run.data.params),
            "latest": dict(run.data.metrics),
            "points": {
                name: sorted((p.step, p.value, p.timestamp) for p in client.get_metric_history(key, name))
                for name in run.data.metrics
            },
            "data": sorted(
                (entry.dataset.name, entry.dataset.digest, [(tag.key, tag.value) for tag in entry.tags])
                for entry in run.inputs.dataset_inputs
            ),
            "files": sorted(
                [item.path for item in client.list_artifacts(key)]
                + [item.path for item in client.list_artifacts(key, "predictions")]
            ),
            "times": None if parent is None else (run.info.start_time, run.info.end_time),
        }
    return found


def logged(directory: RunDirectory) -> dict[str, dict[int, float]]:
    """What the run directory says of every curve."""
    found: dict[str, dict[int, float]] = {}
    for position, stage in enumerate(STAGES):
        for row in read_jsonl(directory.stage(position, stage) / "metrics.jsonl"):
            for key, value in row.items():
                if key != "step" and value is not None:
                    found.setdefault(f"{stage}/{key}", {}).setdefault(row["step"], value)
    return found


def curves(run: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Every curve that MLflow has; none has a step twice."""
    names = [name for name in run["points"] if not name.startswith("test/")]
    for name in names:
        steps = [step for step, _, _ in run["points"][name]]
        assert len(steps) == len(set(steps)), name
    return {name: {step: value for step, value, _ in run["points"][name]} for name in names}


def processes(job: dict[str, Any], tmp_path: Path) -> list[int]:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    done = subprocess.run([sys.executable, __file__, str(file)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ends: list[int] = json.loads(done.stdout)
    assert set(ends) <= {0, -9}, done.stderr
    assert "is not up to date" not in done.stderr, done.stderr
    return ends


def _forked(work: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return process


def _die_after(call: int) -> None:
    """Kills this process between a call to MLflow, counted from 0, and whatever follows."""
    from mlflow import MlflowClient

    calls = iter(range(1_000_000))

    def deadly(method: Any) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            found = method(*given, **named)
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return called

    for name in _WRITES:
        setattr(MlflowClient, name, deadly(getattr(MlflowClient, name)))


def _dies_at(directory: RunDirectory, job: dict[str, Any], call: int) -> None:
    _die_after(call)
    session(directory, job["tracking"], job["steps"])


def _job(job: dict[str, Any]) -> list[int]:
    """Does what a job asks for; the exit statuses of its processes, minus the signal where one was killed."""
    from mlflow import MlflowClient

    if job.get("warm"):  # what is done once, is done once for all that are forked
        MlflowClient(job["warm"]).search_experiments()
    directories = [RunDirectory(Path(folder)) for folder in job["directories"]]
    if job["kind"] == "together":
        study = job.get("study", "live")
        started = [_forked(partial(session, d, job["tracking"], job["steps"], study)) for d in directories]
        return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started]
    ends = []
    generator = random.Random(job["seed"])
    for _ in range(job["kills"]):
        if job["kind"] == "killed at calls":
            process = _forked(partial(_dies_at, directories[0], job, generator.randrange(4)))
        else:
            process = _forked(partial(session, directories[0], job["tracking"], job["steps"], job.get("study", "live")))
            time.sleep(generator.uniform(*job["between"]))
            os.kill(process, signal.SIGKILL)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
        if ends[-1] != -signal.SIGKILL:
            return ends
    last = _forked(partial(session, directories[0], job["tracking"], job["steps"], job.get("study", "live")))
    return [*ends, os.waitstatus_to_exitcode(os.waitpid(last, 0)[1])]


if __name__ == "__main__":
    print(json.dumps(_job(json.loads(Path(sys.argv[1]).read_text()))))
