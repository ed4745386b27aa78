"""What a worker is told: a JSON file, so that a process on another machine can be given it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.registry import PLUGINS_VARIABLE
from bench.run_store import read_json, write_json
from bench.runtime import Runtime

_FILE = "assignment.json"
_PATHS = ("plan_file", "folder", "runs", "cache", "directory")
_KEPT = 20  # folders of earlier starts, with what their workers said
_HANDED_ON = (
    *("device", "threads", "max_rejected", "tracking", "offline"),
    *("micro_batch", "asking_micro_batch", "activation_checkpointing", "synchronise_batch_norm"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """The part of a plan that one start of a study is to see done, and how.

    Args:
        study: its name.
        plan_file: the plan; a copy of this start's own, which another start with other settings does not change.
        folder: of this start, where workers write what they are at.
        positions: of the plan's runs that are wanted.
        again: positions of runs that are passed to `bench.experiment.run` even if their directory says `done`, since
            something else may be asked of them: another cell that trains the same, or another evaluation.
        retried: position -> when it failed, of runs that are tried again; one that fails anew is not.
        runs, cache: see `Runtime`.
        settings: the other fields of `Runtime` that workers share.
        data: YAML files of further data sets.
        plugins: folders of plug-ins.
        directory: where the command was started, which relative paths in a configuration start from.
        environment: variables that say where data are.
    """

    study: str
    plan_file: Path
    folder: Path
    positions: tuple[int, ...]
    again: tuple[int, ...] = ()
    retried: dict[int, float] = field(default_factory=dict)
    runs: Path
    cache: Path
    settings: dict[str, Any] = field(default_factory=dict)
    data: tuple[Path, ...] = ()
    plugins: tuple[Path, ...] = ()
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Where it is written."""
        return self.folder / _FILE

    def write(self) -> Path:
        """Writes it; the file."""
        described = asdict(self)
        described |= {name: str(described[name]) for name in _PATHS}
        described |= {name: [str(path) for path in described[name]] for name in ("data", "plugins")}
        described["retried"] = {str(position): when for position, when in self.retried.items()}
        write_json(self.file, described)
        return self.file

    @classmethod
    def read(cls, file: Path) -> Assignment:
        """One that was written.

        Raises:
            UserError: it is not there, as on a machine that does not share the folder of runs.
        """
        if not file.exists():
            raise UserError(
                f"{socket.gethostname()} does not see {file}; give --runs a folder that all machines share, under the "
                "same path"
            )
        found = read_json(file)
        found |= {name: Path(found[name]) for name in _PATHS}
        found |= {name: tuple(Path(path) for path in found[name]) for name in ("data", "plugins")}
        found |= {name: tuple(found[name]) for name in ("positions", "again")}
        found["retried"] = {int(position): when for position, when in found["retried"].items()}
        return cls(**found)

    def runtime(self) -> Runtime:
        """How a worker executes runs: without progress bars, which nobody would see."""
        return Runtime(runs=self.runs, cache=self.cache, progress=False, **self.settings)

    def settle_in(self) -> None:
        """Makes this process one that was started where the command was, for a worker of another machine."""
        os.environ.update(self.environment)
        if self.plugins:
            os.environ[PLUGINS_VARIABLE] = os.pathsep.join(map(str, self.plugins))
        if self.directory.is_dir():
            os.chdir(self.directory)


def settings_of(runtime: Runtime) -> dict[str, Any]:
    """The fields of a runtime that workers share."""
    return {name: getattr(runtime, name) for name in _HANDED_ON}


def with_threads(assignment: Assignment, threads: int | None) -> Assignment:
    """The assignment for processes of so many threads each; None leaves it as it is."""
    return assignment if threads is None else replace(assignment, settings={**assignment.settings, "threads": threads})


def environment_of() -> dict[str, str]:
    """What of this process's environment says where things are, with absolute paths."""
    names = ("MOLGRAFT_DATA", "MOLGRAFT_CACHE")
    return {name: str(Path(os.environ[name]).resolve()) for name in names if os.environ.get(name)}


def plugins_of() -> tuple[Path, ...]:
    """The folders of plug-ins that this process was given."""
    return tuple(Path(path).resolve() for path in os.environ.get(PLUGINS_VARIABLE, "").split(os.pathsep) if path)


def new_folder(study: Path) -> Path:
    """A folder for one start of a study; the oldest of many are taken away."""
    parent = study / "workers"
    parent.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y%m%d-%H%M%S")
    folder = parent / f"{started}-{socket.gethostname()}-{os.getpid()}"
    number = 1
    while folder.exists():  # several starts of one process in one second
        number += 1
        folder = parent / f"{started}-{socket.gethostname()}-{os.getpid()}-{number}"
    folder.mkdir(mode=0o700)  # the address of the tracking store, which is in the assignment, may hold a password
    for old in sorted(path for path in parent.iterdir() if path.is_dir())[:-_KEPT]:
        _remove(old)
    return folder


def notes_of(folder: Path) -> Sequence[Mapping[str, Any]]:
    """What the workers of a start have last written of themselves."""
    return [read_json(file) for file in sorted(folder.glob("*.worker.json"))]


def _remove(folder: Path) -> None:
    """Takes a folder of an earlier start away, unless its workers still write there."""
    newest = max((item.stat().st_mtime for item in folder.rglob("*")), default=0.0)
    if time.time() - newest > 24 * 3600:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
