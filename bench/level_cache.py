"""A frozen encoder runs once over the molecules of a stage; what it made of them is kept for all that share it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn

from bench.errors import UserError
from bench.identity import content_hash
from bench.model import GraphLanguageModel
from bench.prepare import Prepared
from bench.runtime import Runtime
from bench.stage import StageJob
from encoders.base import Encoder, MoleculeEncoding
from encoders.store import FeatureStore
from encoders.store_levels import FORMAT, LevelStore

_BATCH = 64  # molecules; which ones share a batch depends on nothing but the list of them


def with_cached_levels(
    job: StageJob, model: GraphLanguageModel, prepared: Prepared, position: int, runtime: Runtime
) -> StageJob:
    """The job with batches of molecules that are encoded already, where its stage asks for it.

    A stage that is finished, or in which no graph is read, needs none. Where a graph input alters the molecules
    themselves, the encoder runs in every step as it would without.

    Args:
        job: of the stage.
        model: with the weights that the stage begins with, frozen as the stage has it.
        prepared: the run.
        position: of the stage.
        runtime: where what was encoded is kept.

    Raises:
        UserError: the disk has no room.
    """
    store, group = job.collator.store, runtime.processes
    if not job.stage.cache_encoder or store is None or not model.levels or prepared.config.graph_input.train.alters:
        return job
    data = prepared.stages[position]
    # Those of the examples, not of the batches: other graphs of them may be read in every epoch.
    molecules = list(dict.fromkeys(m for e in (*data.training, *data.validation) for m in e.molecules))
    if not molecules or group.agreed(lambda: job.outcome() is not None):
        return job
    levels = group.first(lambda: encoded_levels(model, prepared.config.encoder, store, molecules, runtime))
    return replace(job, collator=job.collator.reading(levels))


def encoded_levels(
    model: GraphLanguageModel, encoder: Encoder, store: FeatureStore, molecules: Sequence[str], runtime: Runtime
) -> LevelStore:
    """The levels that the projector reads, of all molecules; read from the cache, or encoded and put there.

    Rows are those of fp32 whatever the precision of training: encoders are kept in it, and questions are asked in it.

    Args:
        model: its encoder is in evaluation mode.
        encoder: its declaration.
        store: features of the molecules.
        molecules: distinct SMILES. The list is part of what identifies the rows, so that they are the same to the bit
            whoever made them.
        runtime: where they are kept.

    Raises:
        UserError: the disk has no room.
    """
    key = content_hash(
        {
            "format": FORMAT,
            "encoder": encoder,
            "weights": weights_hash(model.encoder),
            "features": store.names,
            "levels": sorted(model.levels),
            "batch": _BATCH,
            "molecules": hashlib.sha256("\n".join(molecules).encode()).hexdigest(),
        }
    )
    folder = runtime.cache_folder("levels") / f"{encoder.name}-{key}"
    rows = encoder.rows(store.counts(molecules), len(molecules))
    widths = {level: width for level, width in encoder.provides().items() if level in model.levels}
    levels = LevelStore(folder, molecules, widths, rows)
    if levels.open():
        return levels
    with levels.lock:
        if not levels.open():  # somebody else may have written them meanwhile
            refuse_full_disk(levels, len(molecules), runtime)
            with torch.no_grad():
                levels.write(_encoded(model, store, molecules, runtime))
    return levels


def weights_hash(module: nn.Module) -> str:
    """Hash of all tensors that a module is saved with, buffers included."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encoded(
    model: GraphLanguageModel, store: FeatureStore, molecules: Sequence[str], runtime: Runtime
) -> Iterator[MoleculeEncoding]:
    device = model.token_embedding.weight.device
    starts = range(0, len(molecules), _BATCH)
    for start in runtime.tracked(starts, "encoding molecules, in batches", len(starts)):
        batch = store.keyed(molecules[start : start + _BATCH]).to(device)
        encoding: MoleculeEncoding = model.encoder(batch, model.levels)
        yield encoding


def refuse_full_disk(levels: LevelStore, molecules: int, runtime: Runtime) -> None:
    """Says how much room the rows take, and stops where there is less."""
    place = levels.folder.parent
    free = shutil.disk_usage(place).free
    needed = f"{levels.size / (1 << 20):,.1f} MiB for what the encoder makes of {molecules:,} molecules, in {place}"
    if levels.size > free:
        raise UserError(
            f"cache_encoder: needs {needed}, where {free / (1 << 20):,.1f} MiB are free. Make room, set "
            "$MOLGRAFT_CACHE to a folder on another disk, or cache_encoder to false"
        )
    if runtime.progress:
        runtime.say(f"  {needed}")
