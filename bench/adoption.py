"""Stages that another run of the same identity has trained, or has begun to: taken from there, not trained again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.checkpoints import find_resumable
from bench.errors import UserError
from bench.run_store import RunDirectory, is_whole, read_json, write_bytes
from bench.session import Log
from bench.stage_turns import turn

_FINISHED = ("final.safetensors", "steps.jsonl", "metrics.jsonl", "stage.json")  # last what says that it is finished
_LOGS = ("steps.jsonl", "metrics.jsonl", "best.safetensors")
_INCOMING = "incoming"


@contextmanager
def training_alone(directory: RunDirectory, folder: Path, stage_id: str, log: Log, kind: str) -> Iterator[None]:
    """While a stage is trained or taken over here, other runs that have it in common wait.

    A stage that is not finished here is, once it is this run's turn, taken from a run that has finished it. Failing
    that it is gone on with from the newest checkpoint of the run whose turn it was before, if that has a newer one.

    Args:
        directory: of the run.
        folder: of the stage.
        stage_id: the stage's identity.
        log: of the run.
        kind: of checkpoints that can be resumed from, as in their notes.
    """
    runs, name = directory.path.parent, folder.name.partition("-")[2]
    if is_finished(folder, stage_id):
        yield
        return
    with turn(runs, stage_id, log, stage=name, run=directory.path.name) as before:
        log.status("running", f"stage {name}")
        shutil.rmtree(folder / _INCOMING, ignore_errors=True)  # of a session that was killed while it copied
        found = _take_finished(folder, stage_id, runs)
        if found is not None:
            log.write(f"stage {name}: taken from {found}, which has the same identity")
        elif before and before != directory.path.name:
            checkpoint = _take_checkpoint(folder, stage_id, RunDirectory(runs / before), kind)
            if checkpoint is not None:
                log.write(f"stage {name}: goes on from {checkpoint}, whose run has the stage in common")
        yield


def is_finished(folder: Path, stage_id: str) -> bool:
    """Whether a stage's folder holds its final weights, and they are of this identity.

    A report that cannot be read is of none: another process may be taking it away, as `--fresh` does.
    """
    try:
        known: object = read_json(folder / "stage.json")
    except (FileNotFoundError, UserError):
        return False
    is_its = isinstance(known, dict) and known.get("stage_id") == stage_id
    return is_its and is_whole(folder / "final.safetensors")


def _take_finished(folder: Path, stage_id: str, runs: Path) -> Path | None:
    """Copies what another run has finished; the folder that it came from."""
    for report in sorted(runs.glob("*/stages/*/stage.json")):
        if report.parent == folder:
            continue
        try:
            if not is_finished(report.parent, stage_id):
                continue
            # All of them first, since `--fresh` may take the other run's away meanwhile.
            contents = {name: (report.parent / name).read_bytes() for name in _FINISHED}
        except (FileNotFoundError, UserError):  # taken away, or not readable: another run's, or trained here
            continue
        for name, content in contents.items():
            write_bytes(folder / name, content)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a session before: they only served to resume
        (folder / "best.safetensors").unlink(missing_ok=True)
        return report.parent
    return None


def _take_checkpoint(folder: Path, stage_id: str, other: RunDirectory, kind: str) -> Path | None:
    """Copies the newest checkpoint of another run's stage with its logs; the checkpoint that it came from.

    The other run may be busy, writing down how it failed or waiting for its turn; only who has the turn writes here.
    """
    try:
        stage_ids = read_json(other.manifest_file)["stage_ids"]
    except UserError:  # it has none, or one that cannot be read: this one trains itself
        return None
    if stage_id not in stage_ids:
        return None
    sources = sorted((other.path / "stages").glob(f"{stage_ids.index(stage_id)}-*"))
    checkpoint = find_resumable(sources[0] / "checkpoints", kind) if sources else None
    if checkpoint is None or _step(checkpoint) <= _step(find_resumable(folder / "checkpoints", kind)):
        return None
    try:
        _copy(checkpoint, sources[0], folder)
    except OSError:
        if checkpoint.exists():
            raise
        return None  # taken away meanwhile, by `--fresh`
    return checkpoint


def _copy(checkpoint: Path, source: Path, folder: Path) -> None:
    """Puts a checkpoint into place last, when everything that belongs to it is there."""
    incoming = folder / _INCOMING
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.copytree(checkpoint, incoming)
    for name in _LOGS:
        if (source / name).exists():
            write_bytes(folder / name, (source / name).read_bytes())
    taken = folder / "checkpoints" / checkpoint.name
    shutil.rmtree(taken, ignore_errors=True)  # if there is one, it cannot be resumed from
    taken.parent.mkdir(parents=True, exist_ok=True)
    incoming.rename(taken)
    for older in taken.parent.iterdir():  # only now: a kill before must not leave this run without any
        if older != taken:
            shutil.rmtree(older, ignore_errors=True)


def _step(checkpoint: Path | None) -> int:
    return -1 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
