"""What the ways to execute a study's runs have in common: how they are asked, what they come to, when one gives up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import RunBusyError, UserError
from bench.run_store import RunDirectory, read_jsonl
from bench.study_states import states_of

if TYPE_CHECKING:
    from bench.dispatch.assignment import Assignment
    from bench.plan import Plan, PlannedRun
    from bench.runtime import Runtime

Engine = Literal["local", "ray", "slurm"]
ENGINES = ("local", "ray", "slurm")

# How a worker process ends, beside the usual 0, 130 and 143.
MISTAKE = 2  # of the user's; the message is the process's last words
DISK = 74  # EX_IOERR of sysexits.h: nothing can be written any more
SPENT = 75  # EX_TEMPFAIL: this process can do no further run, a new one can

CANNOT_WRITE = "cannot write: "  # how a worker's last words begin where the disk ends it

STRIKES = 3  # deaths of workers at the same place of one run
PATIENCE = 10  # the same at whatever places, without a further checkpoint between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How runs are executed.

    Args:
        engine: where: processes of this machine, a Ray cluster, or SLURM jobs.
        workers: processes, or jobs, that each do one run after the other; for Ray, runs at a time (0: as many as fit).
        address: of a Ray cluster; None starts one on this machine.
        cpus_per_run, gpus_per_run: what a run is given by Ray or SLURM; None for one core, and for one GPU where the
            runs' device is `cuda`.
        slurm: settings of submitit, as `{"partition": "gpu", "timeout_min": 600}`.
        detach: submit jobs and do not wait for them.
    """

    engine: Engine = "local"
    workers: int = 1
    address: str | None = None
    cpus_per_run: int | None = None
    gpus_per_run: float | None = None
    slurm: Mapping[str, Any] = field(default_factory=dict)
    detach: bool = False


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that is not done, and why."""

    planned: PlannedRun
    reason: str

    @property
    def named(self) -> str:
        """Which run, and why it is not done."""
        return f"{self.planned.label}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Where the runs of a plan stand when an engine is through with them.

    Args:
        done: runs that are finished.
        failed: runs whose directory says that they failed.
        missing: all others, with what kept them from being done.
        folders: run directories, of whatever state, and the aliases of their cells.
        disk: what the disk said, where it ended the study.
        detached: jobs were submitted, and nobody waited for them.
    """

    done: tuple[PlannedRun, ...]
    failed: tuple[Unfinished, ...]
    missing: tuple[Unfinished, ...]
    folders: Mapping[Path, str] = field(default_factory=dict)
    disk: str | None = None
    detached: bool = False

    @property
    def complete(self) -> bool:
        """Whether every run is done."""
        return not self.failed and not self.missing


def outcome_of(
    plan: Plan,
    assignment: Assignment,
    runtime: Runtime,
    notes: Sequence[Mapping[str, Any]],
    *,
    disk: str | None = None,
    detached: bool = False,
) -> Outcome:
    """What the run directories say, and what workers noted of runs that have none.

    Args:
        plan, assignment, runtime: what was wanted, and where.
        notes: of the workers.
        disk: what the disk said, where it ended the study.
        detached: nobody waited.
    """
    refused = {int(position): why for note in notes for position, why in note["refused"].items()}
    settled = {position for note in notes for position in note["settled"]}
    states = states_of(plan, runtime)
    done, failed, missing, folders = [], [], [], {}
    for position in assignment.positions:
        found = states[position]
        if found.directory is not None:
            folders[found.directory] = found.planned.cell
        if found.state == "done" or (position in settled and found.directory and _is_done(found.directory)):
            done.append(found.planned)
        elif found.state == "failed":
            failed.append(Unfinished(found.planned, f"{found.error}, in {found.phase}: {found.message}"))
        else:
            why = refused.get(position) or found.message or f"is {found.state}"
            missing.append(Unfinished(found.planned, why))
    return Outcome(tuple(done), tuple(failed), tuple(missing), folders, disk, detached)


def _is_done(folder: Path) -> bool:
    return RunDirectory(folder).status().state == "done"


def next_stage(planned: PlannedRun, folder: Path | None) -> str | None:
    """The identity of the first stage that a run has not finished; None where all are.

    Args:
        planned: the run.
        folder: of the run; None where it has none yet.
    """
    from bench.adoption import is_finished

    for number, (stage, identity) in enumerate(zip(planned.config.stages, planned.stage_ids, strict=True)):
        if folder is None or not is_finished(folder / "stages" / f"{number}-{stage.name}", identity):
            return identity
    return None


class Strikes:
    """Counts how often workers died at a run that came no further in between.

    One death says nothing: a machine is switched off, somebody kills a process. A run that takes a worker with it each
    time must not do so for ever. One that does so for lack of memory dies at the same batch; whoever kills processes
    by hand hits them at different steps, and may do so more often before the run is taken to be the cause.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._died: dict[str, tuple[object, float, list[object]]] = {}

    def died(self, planned: PlannedRun, how: str) -> bool:
        """Takes note of a death; whether the run is given up, which its directory then says."""
        folder = self._folder(planned)
        kept, updated = _kept(folder), RunDirectory(folder).status().updated
        before, wrote, places = self._died.get(planned.train_id, (None, None, []))
        # A process that has not written since the last death died before it came back to where the run stands.
        place = None if updated == wrote else _place(folder)
        places = [*(places if kept == before else []), place]
        self._died[planned.train_id] = (kept, updated, places)
        # Where nothing is computed yet (data, weights) there is one place only, at which anybody's kill may fall.
        same = places.count(places[-1]) if places[-1] is not None else 0
        if same < STRIKES and len(places) < PATIENCE:
            return False
        return _gave_up(RunDirectory(folder), how, max(same, len(places) if len(places) >= PATIENCE else 0))

    def _folder(self, planned: PlannedRun) -> Path:
        """The run's folder, or that which it would have had: it may have died before it had one."""
        runs, name = self._runtime.runs, f"{planned.config.name}-s{planned.seed}-{planned.train_id}"
        return next(iter(sorted(runs.glob(f"*-{planned.train_id}"))), runs / name)


def _kept(folder: Path) -> object:
    """What a run goes on from: its checkpoints, finished stages, and how much was answered and measured."""
    kept = ("stages/*/checkpoints/checkpoint-*", "stages/*/stage.json", "scores/*", "result.json")
    grown = ("predictions/*", "reliance/*")
    return (
        sorted(str(path) for pattern in kept for path in folder.glob(pattern)),
        sorted((str(path), path.stat().st_size) for pattern in grown for path in folder.glob(pattern)),
    )


def _place(folder: Path) -> object:
    """How far a run had come when it died: its phase and last steps; None before it had begun to compute."""
    phase = RunDirectory(folder).status().phase
    if phase in {"", "prepared"}:
        return None
    steps = {str(log): read_jsonl(log)[-1:] for log in folder.glob("stages/*/steps.jsonl")}
    return phase, sorted((log, row["step"]) for log, rows in steps.items() for row in rows)


def _gave_up(directory: RunDirectory, how: str, count: int) -> bool:
    try:
        with directory.lock():
            status = directory.status()
            if status.state == "done":
                return False
            # One that failed before and was tried again is marked anew, or it would be tried for ever.
            message = (
                f"took its worker with it {count} times ({how}) without coming further; most likely for lack of memory"
            )
            directory.set_status("failed", status.phase or "preparing", "killed", message)
            return True
    except RunBusyError:  # another worker is at it already; if it dies too, that will be counted
        return False


def refuse_unknown(engine: str) -> None:
    """Stops where there is no such engine.

    Raises:
        UserError: with those that there are.
    """
    if engine not in ENGINES:
        raise UserError(f"--engine {engine}: unknown; it is one of {', '.join(ENGINES)}")
