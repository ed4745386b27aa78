"""What a projector says of itself on the examples that are asked: gates and weights, summed up per task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bench.collate import Collator
from bench.layout import TokenisedExample
from bench.model import GraphLanguageModel
from bench.pieces import pieces_of
from bench.run_store import RunDirectory, read_json, write_json
from bench.runtime import Runtime
from bench.trainer import on_device
from projectors.base import Projector


def observation_missing(projector: Projector, run: RunDirectory, identity: str) -> bool:
    """Whether there is something to write down that is not there yet."""
    return projector.observes and not run.observed_file(identity).exists()


@torch.no_grad()
def observe(
    model: GraphLanguageModel,
    collator: Collator,
    examples: Sequence[TokenisedExample],
    batch_size: int,
    run: RunDirectory,
    identity: str,
    runtime: Runtime,
) -> None:
    """Writes the mean and the spread over molecules of whatever the projector observes."""
    model.eval()
    device = model.token_embedding.weight.device
    found: dict[str, list[torch.Tensor]] = {}
    starts = range(0, len(examples), batch_size)
    for start in runtime.tracked(starts, "observing the projector", len(starts)):
        chunk = examples[start : start + batch_size]
        width = max(example.prompt_length for example in chunk)
        for piece in pieces_of(chunk, runtime.asking_micro_batch):
            batch = on_device(collator.prompts(piece, width), device)
            if batch["molecules"] is None:
                continue
            for name, values in model.observed(batch["input_ids"], batch["molecules"], batch["context"]).items():
                found.setdefault(name, []).append(values.double().cpu())
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    described = {
        name: {
            "mean": [round(value, 6) for value in rows.mean(dim=0).flatten().tolist()],
            "sd": [round(value, 6) for value in rows.std(dim=0, correction=0).flatten().tolist()],
            "n": len(rows),
        }
        for name, rows in joined.items()
    }
    write_json(run.observed_file(identity), described)


def observed_of(run: RunDirectory, identity: str) -> dict[str, Any]:
    """What was written down for an evaluation; empty where the projector observes nothing."""
    file = run.observed_file(identity)
    return read_json(file) if file.exists() else {}
