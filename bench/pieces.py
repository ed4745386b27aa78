"""Batches cut into pieces that are computed one after the other, where a whole one is more than memory holds.

A run whose memory ran out and that is tried again computes pieces of half the size, each further time of half of that.
Which examples share a batch, and how far they are padded, stays as it was, so that the run keeps its identity and its
numbers, but for rounding and for dropout, which is drawn for each piece; what was done is written into the manifest and
the result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from bench.batch_norm import trained_norms
from bench.config import RunConfig, Stage
from bench.distributed import share_of
from bench.model import GraphLanguageModel
from bench.run_store import RunDirectory, Status
from bench.runtime import Runtime
from bench.session_account import last_session

T = TypeVar("T")

_ALL = 1 << 62  # more examples than any batch has


def pieces_of(batch: Sequence[T], rows: int | None) -> Iterator[Sequence[T]]:
    """The batch in pieces of at most `rows`; whole where it is None."""
    size = rows or len(batch)
    return (batch[start : start + size] for start in range(0, len(batch), size))


def within_memory(config: RunConfig, runtime: Runtime, directory: RunDirectory, found: Status) -> Runtime:
    """The runtime with the pieces that this session of a run has to compute in.

    Pieces stay as small as those of the session before, and are halved where memory ran out in that. What the user asks
    for counts where it is smaller.

    Args:
        config: the run.
        runtime: as the user gave it.
        directory: the run.
        found: the run's status as this session found it.
    """
    session = last_session(directory)
    limits: dict[str, Any] = dict(session.get("limits", {}))
    phase = _short_in(found, session)
    kind, _, name = phase.partition(" ")
    stage = next((stage for stage in config.stages if kind == "stage" and stage.name == name), None)
    if stage is not None:
        earlier = share_of(stage, runtime.processes.world, _least(runtime.micro_batch, limits.get("training")))
        limits["training"] = max(1, earlier.size // 2)
    elif phase == "generating":
        earlier_rows = _least(runtime.asking_micro_batch, limits.get("asking"))
        limits["asking"] = max(1, min(earlier_rows or _ALL, config.evaluation.generation.batch_size) // 2)
    given = {"training": runtime.micro_batch, "asking": runtime.asking_micro_batch}
    binding = {part for part, limit in limits.items() if limit < (given[part] or _ALL)}
    return replace(
        runtime,
        micro_batch=_least(runtime.micro_batch, limits.get("training")),
        asking_micro_batch=_least(runtime.asking_micro_batch, limits.get("asking")),
        after_oom=frozenset(binding),
    )


def for_stage(model: GraphLanguageModel, stage: Stage, runtime: Runtime) -> tuple[Runtime, str | None]:
    """The runtime for one stage, and a line about what it does in another way than others would.

    Batch norms that are trained norm by the whole forward pass, so a stage with such keeps it; memory is then saved by
    computing the language model's activations twice, which changes no number either.

    Args:
        model: with the stage's parts trainable.
        stage: what is trained.
        runtime: with the limits of this session.
    """
    passes = share_of(stage, runtime.processes.world, runtime.micro_batch).passes
    if passes == 1:
        return runtime, None
    if "training" in runtime.after_oom and trained_norms(model):
        line = f"stage {stage.name} computed with activations made twice after out-of-memory"
        return replace(runtime, micro_batch=None, activation_checkpointing=True), line
    return runtime, in_words(f"stage {stage.name}", stage.batch_size // passes, runtime, "training")


def limits_of(runtime: Runtime) -> dict[str, int]:
    """What later sessions of a run must keep to, since memory ran out."""
    all_limits = {"training": runtime.micro_batch, "asking": runtime.asking_micro_batch}
    return {part: limit for part, limit in all_limits.items() if part in runtime.after_oom and limit is not None}


def in_words(what: str, rows: int, runtime: Runtime, part: str) -> str:
    """A line for the manifest and the result."""
    return f"{what} computed in pieces of {rows} {'after out-of-memory' if part in runtime.after_oom else 'as asked'}"


def _short_in(found: Status, session: Mapping[str, Any]) -> str:
    """The phase in which memory ran out in the session before; empty where it did not.

    The session's own account counts first: one that was killed as it began has since left another status behind.
    """
    end = session.get("end", {})
    if end.get("reason") == "oom":
        return str(end["phase"])
    return found.phase if found.state == "failed" and found.error == "oom" else ""


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
