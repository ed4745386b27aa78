"""MLflow as a mirror of run directories; the only module that imports mlflow.

Mirroring is a function of what is on disk, so it can be repeated at any time: what MLflow has already is skipped, and a
store can be rebuilt from nothing. A failure here never stops a run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.errors import UserError
from bench.parsing import read_yaml
from bench.run_store import RunDirectory, read_json, read_jsonl
from bench.runtime import Runtime
from bench.session import Mirror

_STATUS = {
    "planned": "SCHEDULED",
    "running": "RUNNING",
    "interrupted": "KILLED",
    "failed": "FAILED",
    "done": "FINISHED",
}
_PAUSE = 10.0  # seconds between mirrorings of a run that goes on; each costs some tens of milliseconds
_BATCH = 500  # metrics per call; MLflow takes 1,000 at most


def mirror_to(study: str, runtime: Runtime) -> Mirror:
    """What `bench.experiment.run` calls to keep MLflow up to date; nothing where tracking is off.

    Args:
        study: the parent run under which the runs stand.
        runtime: its `tracking` is an address; None for a store beside the runs; `none` for no tracking.

    Raises:
        UserError: the address is a folder of files, which MLflow 3 no longer keeps up.
    """
    if runtime.tracking == "none":
        return lambda _: None
    address = runtime.tracking or f"sqlite:///{(runtime.runs / 'mlflow.db').resolve()}"
    if address.startswith("file:") or "://" not in address:
        raise UserError(f"--tracking {address}: give sqlite:///FILE, postgresql://... or http://..., or `none`")
    return _Mirror(address, study, runtime)


class _Mirror:
    def __init__(self, address: str, study: str, runtime: Runtime) -> None:
        self._address = address
        self._study = study
        self._runtime = runtime
        self._last: dict[Path, tuple[float, str]] = {}
        self._client: Any = None
        self._experiment = ""
        self._parent = ""
        self._warned = False

    def __call__(self, directory: RunDirectory) -> None:
        status = directory.status()
        when, state = self._last.get(directory.path, (0.0, ""))
        if status.state == state and time.monotonic() - when < _PAUSE:
            return
        self._last[directory.path] = (time.monotonic(), status.state)
        try:
            self._connect()
            self._write(directory)
        except Exception as error:  # whatever the store's client raises, the run on disk is what counts
            if not self._warned:
                self._warned = True
                reason = str(error).strip().splitlines()[0]
                self._runtime.say(f"MLflow at {self._address} is not up to date: {type(error).__name__}: {reason}")

    def _connect(self) -> None:
        if self._client is not None:
            return
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it announces each table that it creates
        self._runtime.runs.mkdir(parents=True, exist_ok=True)
        # Two processes that both create the tables of a fresh store crash each other.
        with FileLock(self._runtime.runs / ".mlflow.lock"):
            client = MlflowClient(self._address)
            name = f"molgraft/{self._study}"
            found = client.get_experiment_by_name(name)
            if found is None:
                artifacts = (self._runtime.runs / "mlflow-artifacts" / self._study).resolve().as_uri()
                local = self._address.startswith("sqlite:")
                self._experiment = client.create_experiment(name, artifact_location=artifacts if local else None)
            else:
                self._experiment = found.experiment_id
            parents = client.search_runs([self._experiment], "tags.`molgraft.kind` = 'study'", max_results=1)
            tags = {"molgraft.kind": "study", "mlflow.runName": self._study}
            parent = parents[0] if parents else client.create_run(self._experiment, tags=tags)
            self._parent = parent.info.run_id
            self._note_killed(client)
            client.set_terminated(self._parent)  # a study ends when no more runs are added, which nobody announces
        self._client = client

    def _note_killed(self, client: Any) -> None:
        """Runs that were killed say RUNNING for ever, since a killed process says nothing."""
        for run in client.search_runs([self._experiment], "attributes.status = 'RUNNING'"):
            directory = RunDirectory(self._runtime.runs / run.info.run_name)
            if run.data.tags.get("molgraft.kind") != "run" or not directory.path.is_dir():
                continue  # another machine's
            state = directory.status().state
            if state != "running":
                client.set_terminated(run.info.run_id, _STATUS[state])

    def _write(self, directory: RunDirectory) -> None:
        from mlflow.entities import Metric

        client = self._client
        run = self._child(directory)
        run_id = run.info.run_id
        seen = {key: self._last_step(run_id, key) for key in run.data.metrics}
        now = int(time.time() * 1000)
        metrics = [Metric(k, value, now, step) for k, value, step in _curves(directory) if step > seen.get(k, -1)]
        # A score has no step; where a later evaluation gave another value, that one becomes the latest.
        metrics += [
            Metric(k, value, now, seen.get(k, -1) + 1)
            for k, value in _scores(directory)
            if run.data.metrics.get(k) != value
        ]
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        status = directory.status()
        client.set_tag(run_id, "molgraft.status", status.error or status.state)
        if status.state == "done":
            for file in (directory.config_file, directory.manifest_file, directory.path / "result.json"):
                client.log_artifact(run_id, str(file))
            for file in sorted(directory.path.glob("predictions/*.jsonl")):
                client.log_artifact(run_id, str(file), "predictions")
        client.update_run(run_id, status=_STATUS[status.state])
        if status.state in {"done", "failed", "interrupted"}:
            client.set_terminated(run_id, _STATUS[status.state])

    def _child(self, directory: RunDirectory) -> Any:
        manifest, config = read_json(directory.manifest_file), read_yaml(directory.config_file)
        found = self._client.search_runs(
            [self._experiment], f"tags.`molgraft.train_id` = '{manifest['train_id']}'", max_results=1
        )
        return found[0] if found else self._new_child(directory, manifest, config)

    def _new_child(self, directory: RunDirectory, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
        from mlflow.entities import Param

        commit = (manifest["sessions"][0]["git"] or {}).get("commit")
        tags = {
            "mlflow.parentRunId": self._parent,
            "mlflow.runName": directory.path.name,
            "molgraft.kind": "run",
            "molgraft.train_id": manifest["train_id"],
            "molgraft.cell_id": manifest["cell_id"],
            "molgraft.seed": str(config["seed"]),
            **({"mlflow.source.git.commit": commit} if commit else {}),
        }
        run = self._client.create_run(self._experiment, tags=tags)
        params = [Param(key, str(value)[:6000]) for key, value in _flat(config)]
        for start in range(0, len(params), 100):
            self._client.log_batch(run.info.run_id, params=params[start : start + 100])
        return run

    def _last_step(self, run_id: str, key: str) -> int:
        return max(int(point.step) for point in self._client.get_metric_history(run_id, key))


def _curves(directory: RunDirectory) -> Iterator[tuple[str, float, int]]:
    """Name, value and step of everything that was logged in training."""
    for folder in sorted((directory.path / "stages").glob("*")):
        stage = folder.name.partition("-")[2]
        points: dict[tuple[str, int], float] = {}
        for row in read_jsonl(folder / "metrics.jsonl"):  # steps repeated after a kill stand twice
            points |= {(key, row["step"]): value for key, value in row.items() if key != "step" and value is not None}
        for (key, step), value in points.items():
            yield f"{stage}/{key}", value, step


def _scores(directory: RunDirectory) -> Iterator[tuple[str, float]]:
    """Name and value of every score; that of a limited evaluation gives way to the complete one's."""
    if not directory.result_file.exists():
        return
    result = read_json(directory.result_file)
    found: dict[str, float] = dict(result.get("figures", {}))  # of a pretraining
    for entry in sorted(result.get("evaluations", ()), key=lambda entry: not entry["limited"]):
        control = entry["graph_input"]["name"]
        asked = f"{entry['split']}/{entry['task']}/{Path(entry['data']).stem}" + (
            "" if control == "real" else f"/{control}"
        )
        for score in entry["scores"]:
            protocol = score["protocol"].replace("@", ".")
            for name, estimate in score["metrics"].items():
                if estimate["value"] is not None:
                    found[f"{asked}/{protocol}/{name}"] = estimate["value"]
        for name, values in entry.get("observed", {}).items():
            for position, mean in enumerate(values["mean"]):
                found[f"{asked}/{name}/{position}"] = mean
        if entry["reliance"]["value"] is not None:
            found[f"{asked}/reliance"] = entry["reliance"]["value"]
            for protocol, changes in entry["reliance"].get("metrics", {}).items():
                for name, change in changes.items():
                    if change["value"] is not None:
                        found[f"{asked}/reliance/{protocol.replace('@', '.')}/{name}"] = change["value"]
    yield from found.items()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            called = [str(item.get("name", "")) for item in value]
            keys = called if len({*called, ""}) > len(called) else range(len(value))  # by name, where names tell apart
            for called_or_position, item in zip(keys, value, strict=True):
                yield from _flat(item, f"{name}.{called_or_position}")
        else:
            yield name, value
