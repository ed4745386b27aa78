"""A run of a study in MLflow, brought up to date with its directory."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.run_store import RunDirectory, Status
from bench.tracking.contents import (
    FOLDER,
    Curves,
    DataSource,
    Point,
    artifacts,
    began_of,
    data_sources,
    digest_of,
    manifest_of,
    parameters,
    scores,
    tags,
)
from bench.tracking.experiment import Experiment, insisting, was_taken_away

_STATUS = {
    "planned": "SCHEDULED",
    "running": "RUNNING",
    "interrupted": "KILLED",
    "failed": "FAILED",
    "done": "FINISHED",
}
_ENDED = ("done", "failed", "interrupted")
_POINTS, _FEW = 800, 90  # of metrics, and of parameters or tags, per call; MLflow takes 1,000 in all and 100
_ARTIFACTS = "molgraft.artifacts"


@dataclass(frozen=True, slots=True)
class Change:
    """What bringing a run up to date took.

    Args:
        created: the run was not there.
        points: so many values of metrics were sent.
        rest: something else was not as it should be: tags, parameters, data, files or the status.
        elsewhere: nothing was done, since MLflow has the same run from another folder, finished or gone on with.
    """

    created: bool = False
    points: int = 0
    rest: bool = False
    elsewhere: bool = False

    @property
    def is_one(self) -> bool:
        """Whether anything was changed."""
        return self.created or self.points > 0 or self.rest


@dataclass
class _Held:
    """What MLflow has of a run as far as this process knows, and where its directory has been read to."""

    run_id: str
    location: str
    status: str
    ended: int | None
    tags: dict[str, str]
    parameters: frozenset[str]
    data: frozenset[str]
    values: dict[str, dict[int, float]]
    curves: Curves
    sources: list[DataSource]
    scored: int = 0
    complete: bool = False


class Child:
    """A run of a study in MLflow.

    Args:
        experiment: of the study.
        directory: of the run, with its manifest.
    """

    def __init__(self, experiment: Experiment, directory: RunDirectory) -> None:
        self._experiment, self._client = experiment, experiment.client
        self._directory = directory
        self._train_id = manifest_of(directory)["train_id"]
        self._held: _Held | None = None

    def show(self) -> Change:
        """Sends what MLflow does not have yet.

        Raises:
            Exception: whatever the client raises. What came through is then not known, and asked for the next time.
        """
        try:
            try:
                return self._show()
            except Exception as error:
                if not was_taken_away(error):
                    raise
                # And perhaps the parent.
                self._held = None
                self._experiment.present_parent()
                return self._show()
        except BaseException:
            self._held = None
            raise

    def _show(self) -> Change:
        status = self._directory.status()
        wanted = tags(self._directory, status)
        created = False
        if self._held is None:
            run, created = self._found_or_made(wanted, status)
            if run is None:
                return Change(elsewhere=True)
            self._held = self._asked(run)
        held = self._held
        points, rest = self._send(held, wanted)
        # The status before the files, which may lie where this process cannot write.
        rest |= self._send_data(held) | self._send_status(held, status) | self._send_artifacts(held, status)
        return Change(created, points, rest)

    def _found_or_made(self, wanted: Mapping[str, str], status: Status) -> tuple[Any, bool]:
        """The run in MLflow and whether it is new; None where another folder has more of it than this one."""
        condition = f"tags.`molgraft.train_id` = '{self._train_id}'"
        found = self._experiment.search(condition)
        if len(found) != 1 or _is_thrown_away(found[0], wanted):
            with self._experiment.address.alone():
                found = self._experiment.search(condition)
                for run in [run for run in found if _is_thrown_away(run, wanted)]:
                    self._client.delete_run(run.info.run_id)
                    found.remove(run)
                if not found:
                    own = {"mlflow.parentRunId": self._experiment.present_parent()}
                    own |= {"mlflow.runName": self._directory.path.name}
                    given = {key: value for key, value in wanted.items() if value}
                    return self._experiment.make(condition, given | own, began_of(self._directory)), True
                found = [self._experiment.earliest(found)]
        return (None, False) if self._is_further_elsewhere(found[0], wanted, status) else (found[0], False)

    def _is_further_elsewhere(self, run: Any, wanted: Mapping[str, str], status: Status) -> bool:
        """Whether another folder has, or may have, more of a run than this one.

        This folder may be a copy, made while another machine was at the run. Its lock, which nobody holds, says nothing
        then; what is left is what sessions have written of their own end.
        """
        known, is_done = run.data.tags, status.state == "done"
        nobody_else = run.info.status not in ("RUNNING", "FINISHED")
        if nobody_else or status.state == "running" or _is_same_folder(known, wanted):
            return False
        if run.info.status == "FINISHED":
            return not is_done
        began = known.get("molgraft.began", wanted["molgraft.began"])
        if began != wanted["molgraft.began"]:  # somebody else is at the same run; only a whole one says more
            return not is_done or _is_earlier(wanted["molgraft.began"], began)
        if self._directory.written_status().state == "running":
            return True
        session = ("molgraft.sessions", "molgraft.host", "molgraft.pid")
        is_later = int(wanted["molgraft.sessions"]) > int(known.get("molgraft.sessions", 0))
        return not is_later and any(known.get(key) != wanted[key] for key in session)

    def _asked(self, run: Any) -> _Held:
        """What the store has of a run: asked once, and remembered from then on."""
        run_id, inputs = run.info.run_id, getattr(run, "inputs", None)
        return _Held(
            run_id=run_id,
            location=run.info.artifact_uri,
            status=run.info.status,
            ended=run.info.end_time,
            tags=dict(run.data.tags),
            parameters=frozenset(run.data.params),
            data=frozenset(entry.dataset.name for entry in (inputs.dataset_inputs if inputs else ())),
            values={
                key: {point.step: point.value for point in self._client.get_metric_history(run_id, key)}
                for key in run.data.metrics
            },
            curves=Curves(self._directory),
            sources=data_sources(self._directory),
        )

    def _send(self, held: _Held, wanted: Mapping[str, str]) -> tuple[int, bool]:
        """Points, parameters and tags; how many points, and whether there was anything else."""
        from mlflow.entities import Metric, Param, RunTag

        points = [point for point in held.curves.new() if point.step not in held.values.get(point.key, {})]
        points += self._new_scores(held)
        parent = {"mlflow.parentRunId": self._experiment.parent}
        new_tags = {key: value for key, value in {**wanted, **parent}.items() if held.tags.get(key, "") != value}
        settings = parameters(self._directory) if not held.complete else {}
        new_settings = {key: value for key, value in settings.items() if key not in held.parameters}
        metrics = [Metric(point.key, point.value, point.time, point.step) for point in points]
        described = [Param(key, value) for key, value in new_settings.items()]
        labels = [RunTag(key, value) for key, value in new_tags.items()]
        while metrics or described or labels:
            insisting(self._client.log_batch, held.run_id, metrics[:_POINTS], described[:_FEW], labels[:_FEW])
            metrics, described, labels = metrics[_POINTS:], described[_FEW:], labels[_FEW:]
        for point in points:
            held.values.setdefault(point.key, {})[point.step] = point.value
        held.tags |= new_tags
        held.complete = True
        return len(points), bool(new_settings or new_tags)

    def _new_scores(self, held: _Held) -> list[Point]:
        """Scores that MLflow lacks, or of which it has another value as the latest."""
        result = self._directory.result_file
        changed = result.stat().st_mtime_ns if result.exists() else 0
        if changed == held.scored:
            return []
        held.scored = changed
        points = scores(self._directory)
        found = [point for point in points if point.step not in held.values.get(point.key, {})]
        for counts in {point.key: point for point in points}.values():  # the last of each name
            latest = held.values.get(counts.key, {}) | {p.step: p.value for p in found if p.key == counts.key}
            if latest[max(latest)] != counts.value:  # scored again by other rules: MLflow has no way to change a value
                found.append(replace(counts, step=max(latest) + 1))
        return found

    def _send_data(self, held: _Held) -> bool:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        missing = [data for data in held.sources if data.name not in held.data]
        if missing:
            inputs = [
                DatasetInput(
                    Dataset(name=data.name, digest=data.digest, source_type="molgraft", source=data.source),
                    [InputTag("mlflow.data.context", data.context)],
                )
                for data in missing
            ]
            insisting(self._client.log_inputs, held.run_id, inputs)
            held.data |= {data.name for data in missing}
        return bool(missing)

    def _send_status(self, held: _Held, status: Status) -> bool:
        wanted = _STATUS[status.state]
        ended = int(status.updated * 1000) if status.state in _ENDED else None
        if held.status == wanted and ended in (None, held.ended):
            return False
        if ended is None:
            self._client.update_run(held.run_id, status=wanted)
        else:
            self._client.set_terminated(held.run_id, wanted, ended)
        held.status, held.ended = wanted, ended or held.ended
        return True

    def _send_artifacts(self, held: _Held, status: Status) -> bool:
        if status.state not in _ENDED or not self._is_writable(held.location):
            return False
        files = artifacts(self._directory)
        digest = digest_of(files)
        if held.tags.get(_ARTIFACTS) == digest:
            return False
        for file, place in files.items():
            self._client.log_artifact(held.run_id, str(file), place)
        insisting(self._client.set_tag, held.run_id, _ARTIFACTS, digest)
        held.tags[_ARTIFACTS] = digest
        return True

    def _is_writable(self, location: str) -> bool:
        """Whether files that are sent there arrive: a folder of another machine would only be made anew here."""
        scheme, _, path, _, _ = urlsplit(location)
        if scheme not in ("", "file"):
            return True
        runs = Path(unquote(path)).parents[3:4]  # of RUNS/mlflow-artifacts/STUDY/RUN/artifacts
        return self._experiment.address.is_database and all(folder.is_dir() for folder in runs)


def _is_same_folder(known: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a run in MLflow is shown from this very folder, and not from one that this is a copy of.

    Two of three tell: it was of this machine, under this path, in this place of the disk. A folder that machines share
    has the latter two on all of them, one that was moved the first and the last.
    """
    same = [known.get(key) == wanted[key] for key in ("molgraft.directory", FOLDER)]
    return sum([known.get("molgraft.host") == socket.gethostname(), *same]) >= 2


def _is_thrown_away(run: Any, wanted: Mapping[str, str]) -> bool:
    """Whether a run in MLflow was begun in the same folder as this one, but earlier: `--fresh` came in between."""
    known = run.data.tags
    return all(known.get(key) == wanted[key] for key in ("molgraft.directory", "molgraft.host")) and (
        _is_earlier(known.get("molgraft.began", ""), wanted["molgraft.began"])
    )


def _is_earlier(began: str, other: str) -> bool:
    """Whether a run began before another one did; what does not say when began before all."""
    return not began or datetime.fromisoformat(began) < datetime.fromisoformat(other)
