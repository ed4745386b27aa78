"""Checkpoints of a training stage: what one must hold to be resumed from, and what is noted beside it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.run_store import is_whole, write_json

_WEIGHTS, _STATE, _NOTES = "model.safetensors", "trainer_state.json", "molgraft.json"


@dataclass(frozen=True, slots=True)
class Notes:
    """What a checkpoint does not say otherwise.

    Args:
        processes: that wrote it; each has written its random state.
        kind: `whole`, or `deepspeed` for one whose optimiser only DeepSpeed can read.
        losses: by process, the sum of the losses that were not logged yet.
        logged: the step until which they were.
    """

    processes: int = 1
    kind: str = "whole"
    losses: Sequence[float] = (0.0,)
    logged: int | None = None

    def write(self, checkpoint: Path) -> None:
        """Puts them beside the checkpoint's other files."""
        write_json(checkpoint / _NOTES, asdict(self))


def notes_of(checkpoint: Path) -> Notes:
    """A checkpoint's notes; those of an older version, which has none, are the defaults.

    Raises:
        ValueError: they are not readable.
    """
    try:
        return Notes(**json.loads((checkpoint / _NOTES).read_text()))
    except FileNotFoundError:
        return Notes()
    except TypeError as error:
        raise ValueError(f"{checkpoint}: {error}") from None


def find_resumable(folder: Path, kind: str = "whole") -> Path | None:
    """The newest checkpoint that is whole; one that a kill or a full disk cut short is passed over."""
    whole = [path for path in folder.glob("checkpoint-*") if path.is_dir() and _is_readable(path, kind)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_readable(checkpoint: Path, kind: str) -> bool:
    try:
        json.loads((checkpoint / _STATE).read_text())
        notes = notes_of(checkpoint)
    except (OSError, ValueError):
        return False
    if notes.kind != kind:
        return False
    random = ["rng_state.pth"] if notes.processes == 1 else [f"rng_state_{k}.pth" for k in range(notes.processes)]
    optimiser = [checkpoint / "optimizer.pt"] if kind == "whole" else sorted(checkpoint.glob("global_step*/*.pt"))
    if not optimiser:
        return False
    needed = [*(checkpoint / name for name in ("scheduler.pt", *random)), *optimiser]
    # torch writes zip archives, whose directory is at the end; a file that was cut short has none.
    return is_whole(checkpoint / _WEIGHTS) and all(zipfile.is_zipfile(archive) for archive in needed)
