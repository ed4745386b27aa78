"""What of a run directory a tracker shows: a function of what is on disk, which gives the same whenever it is asked.

Even the times of points are taken from the disk: two mirrors of one run then send the same rows, which MLflow keeps
once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.parsing import read_yaml
from bench.run_store import RunDirectory, Status, read_json

LARGEST_ARTIFACT = 5 << 20
"""Bytes; larger predictions and logs stay where they are."""

FOLDER = "molgraft.inode"
"""The tag that tells a folder from its copies on other machines, under whatever path they lie."""

_LONGEST_VALUE = 6000  # characters of a parameter; MLflow refuses more
_LONGEST_TAG = 5000  # characters; old versions of MLflow refuse more
_LONGEST_DIGEST = 36  # characters of a data set's digest; MLflow refuses more
_LONGEST_NAME = 250  # characters of the name of a metric or a parameter; MLflow refuses more
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # MLflow refuses these; a stage may be called `a+b`, a file of data `a (b)`
_CONTEXTS = {"train": "training", "validation": "validation", "test": "evaluation"}  # what the splits serve for


@dataclass(frozen=True, slots=True)
class Point:
    """A value of a metric.

    Args:
        key: the metric, by a name that MLflow accepts.
        value: finite.
        step: optimiser step of its stage; of a score, which evaluation of that name it is.
        time: when it was logged, in milliseconds since 1970.
    """

    key: str
    value: float
    step: int
    time: int


@dataclass(frozen=True, slots=True)
class DataSource:
    """A split of a data set that a run read.

    Args:
        name: `data set/split`.
        digest: the first characters of the file's sha256.
        context: training, validation or evaluation, or several.
        source: all that is known of where it came from, as JSON.
    """

    name: str
    digest: str
    context: str
    source: str


class Curves:
    """The points of a run's training as they come to its disk, each once.

    Steps that were done again after a kill stand twice on the disk; what stands there first counts, since that may have
    been sent already.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._stages: dict[Path, _StageCurves] = {}
        self._began = began_of(directory)

    def new(self) -> list[Point]:
        """What has come since the last call."""
        points: list[Point] = []
        start = self._began
        for folder in sorted((self._directory.path / "stages").glob("*")):
            stage = self._stages.setdefault(folder, _StageCurves(folder))
            points += stage.new(start)
            start = stage.last
        return points


class _StageCurves:
    def __init__(self, folder: Path) -> None:
        self._name = folder.name.partition("-")[2]
        self._metrics = _Tail(folder / "metrics.jsonl")
        self._steps = _Tail(folder / "steps.jsonl")
        self._times: dict[int, int] = {}
        self._given: dict[str, set[int]] = {}
        self.last = 0

    def new(self, start: int) -> Iterator[Point]:
        """Points since the last call; `start` is when the stage began, in milliseconds since 1970."""
        logged = self._metrics.rows()
        for row in self._steps.rows():  # read afterwards: by then the step of every logged value is there
            self._passed(row, start)
        self.last = self.last or start
        for row in logged:
            step = int(row["step"])
            for name, value in row.items():
                given = self._given.setdefault(name, set())
                if name != "step" and value is not None and step not in given:
                    given.add(step)
                    yield Point(_accepted(f"{self._name}/{name}"), float(value), step, self._times.get(step, start))

    def _passed(self, row: Mapping[str, Any], start: int) -> None:
        step = int(row["step"])
        if step in self._times:
            return
        # Runs of earlier versions know how long each step took, but not when it was.
        known = row.get("time")
        elapsed = (self.last or start) + int(row["seconds"] * 1000)
        self._times[step] = self.last = elapsed if known is None else int(known * 1000)


class _Tail:
    """New whole lines of a JSONL file; from its beginning again where it was replaced or has become shorter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = 0
        self._offset = 0

    def rows(self) -> list[dict[str, Any]]:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file or found.st_size < self._offset:
                    self._file, self._offset = found.st_ino, 0
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content.rfind(b"\n") + 1
        self._offset += whole
        return [json.loads(line) for line in content[:whole].splitlines()]


def has_begun(directory: RunDirectory) -> bool:
    """Whether there is a run to show: it has written down what it is made from, and a session that works on it.

    A session that is killed between the two leaves a manifest without any.
    """
    written = directory.config_file.is_file() and directory.manifest_file.is_file()
    return written and bool(manifest_of(directory).get("sessions"))


def manifest_of(directory: RunDirectory) -> Mapping[str, Any]:
    """The manifest, read again only when it has changed."""
    return _read(directory.manifest_file, directory.manifest_file.stat().st_mtime_ns)


def config_of(directory: RunDirectory) -> Mapping[str, Any]:
    """The configuration, read again only when it has changed: YAML takes long compared with all else of a heartbeat."""
    return _read(directory.config_file, directory.config_file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(file: Path, changed: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_yaml(file) if file.suffix == ".yaml" else read_json(file)
    return found


def began_of(directory: RunDirectory) -> int:
    """When a run's first session began, in milliseconds since 1970."""
    return int(datetime.fromisoformat(manifest_of(directory)["sessions"][0]["time"]).timestamp() * 1000)


def scores(directory: RunDirectory) -> list[Point]:
    """All scores of a run, in the order in which they were asked for.

    Several evaluations may give values of one name, as with another generation: they are its steps 0, 1, ..., and the
    last is the one that counts. One of chosen examples only counts no more once there is a complete one.
    """
    if not directory.result_file.exists():
        return []
    result = read_json(directory.result_file)
    written = _changed(directory.result_file)
    figures: Mapping[str, float] = result.get("figures", {})  # of a pretraining
    found = [Point(_accepted(name), value, 0, written) for name, value in figures.items()]
    steps: dict[str, int] = {}
    complete: set[str] = set()
    for entry in result.get("evaluations", ()):
        predictions = directory.predictions_file(entry["predict_id"])
        when = _changed(predictions) if predictions.exists() else written
        for called, value in _scores_of(entry):
            name = _accepted(called)
            step = steps[name] = steps.get(name, -1) + 1
            if name not in complete or not entry["limited"]:
                found.append(Point(name, value, step, when))
            if not entry["limited"]:
                complete.add(name)
    return found


def _scores_of(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and value of every score of one evaluation; MLflow takes no `@` in a name."""
    control = entry["graph_input"]["name"]
    asked = f"{entry['split']}/{entry['task']}/{Path(entry['data']).stem}"
    asked += "" if control == "real" else f"/{control}"
    for score in entry["scores"]:
        protocol = score["protocol"].replace("@", ".")
        for name, estimate in score["metrics"].items():
            if estimate["value"] is not None:
                yield f"{asked}/{protocol}/{name}", estimate["value"]
    for name, values in entry.get("observed", {}).items():
        for position, mean in enumerate(values["mean"]):
            yield f"{asked}/{name}/{position}", mean
    reliance = entry["reliance"]
    if reliance["value"] is not None:
        yield f"{asked}/reliance", reliance["value"]
        for protocol, changes in reliance.get("metrics", {}).items():
            for name, change in changes.items():
                if change["value"] is not None:
                    yield f"{asked}/reliance/{protocol.replace('@', '.')}/{name}", change["value"]


def parameters(directory: RunDirectory) -> dict[str, str]:
    """Every setting by its path."""
    return {_accepted(name): str(value)[:_LONGEST_VALUE] for name, value in _flat(config_of(directory))}


def tags(directory: RunDirectory, status: Status) -> dict[str, str]:
    """What tells a run from others, what it was made with, and where it stands."""
    manifest, config = manifest_of(directory), config_of(directory)
    first, last = manifest["sessions"][0], manifest["sessions"][-1]
    git = last.get("git") or {}
    commit = (first.get("git") or {}).get("commit")
    packages = {name: version for name, version in last.get("packages", {}).items() if version}
    found = {
        "molgraft.kind": "run",
        "molgraft.train_id": manifest["train_id"],
        "molgraft.cell_id": manifest["cell_id"],
        "molgraft.stage_ids": ",".join(manifest.get("stage_ids", ())),
        "molgraft.seed": str(config["seed"]),
        "molgraft.status": status.error or status.state,
        "molgraft.message": status.message or "",
        "molgraft.directory": str(directory.path.resolve()),
        FOLDER: str(directory.path.stat().st_ino),
        "molgraft.began": first["time"],
        "molgraft.sessions": str(len(manifest["sessions"])),
        "molgraft.host": status.host or str(last.get("host", "")),
        "molgraft.pid": str(status.pid),
        "molgraft.version": str(last.get("molgraft")),
        "molgraft.python": str(last.get("python")),
        "molgraft.packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "molgraft.git_dirty": str(git["uncommitted_changes"] or "no") if git else "unknown",
        **({"mlflow.source.git.commit": commit, "molgraft.git_commit": commit} if commit else {}),
    }
    return {key: value[:_LONGEST_TAG] for key, value in found.items()}


def data_sources(directory: RunDirectory) -> list[DataSource]:
    """The data that a run read, and what for."""
    asked = (config_of(directory).get("evaluation") or {}).get("split")
    found = []
    for name, described in manifest_of(directory).get("data", {}).items():
        split = name.rpartition("/")[2]
        context = _CONTEXTS.get(split, split)
        if split == asked and context != "evaluation":
            context += ", evaluation"
        digest = str(described.get("sha256") or "unknown")[:_LONGEST_DIGEST]
        found.append(DataSource(name, digest, context, json.dumps(described)))
    return found


def artifacts(directory: RunDirectory) -> dict[Path, str | None]:
    """The small files of a run, each with the folder below which it is shown."""
    own = (directory.config_file, directory.manifest_file, directory.result_file, directory.log_file)
    found: dict[Path, str | None] = dict.fromkeys(own)
    found |= dict.fromkeys(directory.path / name for name in ("parameters.json", "rejected.csv"))
    found |= dict.fromkeys(sorted(directory.path.glob("predictions/*.jsonl")), "predictions")
    return {file: place for file, place in found.items() if file.exists() and file.stat().st_size <= LARGEST_ARTIFACT}


def digest_of(files: Mapping[Path, str | None]) -> str:
    """A hash of the contents of files and of their names."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _changed(file: Path) -> int:
    return file.stat().st_mtime_ns // 1_000_000


def _accepted(name: str) -> str:
    """A name as MLflow accepts it: other characters become `_`; one that is too long ends in a hash of the whole."""
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return _NOT_IN_NAMES.sub("_", name)


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
