"""Embeddings of a table's molecules at every level of an encoder, as one `.npz` file."""

from __future__ import annotations

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.device import device_of, seeded
from bench.errors import ConfigError, UserError
from bench.features import open_features
from bench.model_files import contents
from bench.parsing import apply_overrides, build
from bench.registry import Registry, registry
from bench.run_store import write_text
from bench.runtime import Runtime
from encoders.base import Encoder, EncoderModule, Level
from encoders.store import FeatureStore
from tasks.table_files import Table


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class Encoded:
    """What was written.

    Args:
        kept: molecules in the file.
        rejected: reason by row of the input, counted from 0.
        shapes: of each level's array.
    """

    kept: int
    rejected: Mapping[int, str]
    shapes: Mapping[Level, tuple[int, int]]


def choose_encoder(
    name: str, settings: Sequence[str] = (), weights: str | None = None, components: Registry | None = None
) -> Encoder:
    """An encoder by name, with `key=value` settings.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range.
        UserError: there is no such encoder.
    """
    components = components or registry()
    cls = components.get("encoder", name)
    given = [*settings, *([] if weights is None else [f"weights={weights}"])]
    if weights is not None and "weights" not in cls.__dataclass_fields__:
        raise ConfigError("--weights", f"encoder {name} reads no weights")
    mapping = apply_overrides({"encoder": {"name": name}}, [f"encoder.{setting}" for setting in given])
    return build(_Chosen, mapping, components).encoder


def encode_table(
    encoder: Encoder,
    table: Table,
    column: str,
    output: Path,
    runtime: Runtime,
    *,
    levels: Sequence[Level] = (),
    batch_size: int = 64,
    seed: int = 0,
) -> Encoded:
    """Writes a table's molecules as an encoder sees them; rows that it cannot read are listed beside the output.

    The file holds for each level `L` the arrays `L` `(rows, width)` float32 and `L.ptr` `(B + 1,)` int64, and
    `input_index` `(B,)`, the rows of the table that were kept, counted from 0.

    Args:
        encoder: the declaration.
        table: with a column of SMILES.
        column: its name.
        output: the `.npz` file.
        runtime: device, workers, cache.
        levels: which to write; all that the encoder provides if empty.
        batch_size: molecules at once.
        seed: of the weights, where none are loaded.

    Raises:
        UserError: a level is unknown, or no molecule is left.
    """
    contents(encoder.sources(), runtime, "encoder")  # a hub model must be here before it can say what it provides
    provided = encoder.provides()
    unknown = [level for level in levels if level not in provided]
    if unknown:
        offers = ", ".join(provided) or "none"
        raise UserError(f"--level {unknown[0]}: encoder {encoder.name} provides {offers}")
    if not provided:
        raise UserError(f"encoder {encoder.name} provides no level, so there is nothing to write")
    chosen = tuple(levels) or tuple(provided)
    texts = [cell or "" for cell in table.column(column)]
    store = open_features(encoder.features(), texts, runtime)
    rejected = {row: store.rejected[text] for row, text in enumerate(texts) if text in store.rejected}
    kept = np.array([row for row in range(len(texts)) if row not in rejected], dtype=np.int64)
    _write_rejected(output, table, texts, rejected)
    if not len(kept):
        row, reason = next(iter(rejected.items()))
        raise UserError(
            f"{table.path}: no molecule of column {column!r} can be read. The first, line {table.lines[row]}, "
            f"{texts[row][:60]!r}: {reason}"
        )
    molecules = [texts[row] for row in kept]
    module = _module(encoder, runtime, seed)
    shapes = _write(encoder, module, store, molecules, kept, chosen, batch_size, output, runtime)
    return Encoded(len(kept), rejected, shapes)


def rejected_file(output: Path) -> Path:
    """Where rejected rows are listed."""
    return output.with_name(f"{output.name.removesuffix('.npz')}.rejected.csv")


def _module(encoder: Encoder, runtime: Runtime, seed: int) -> EncoderModule:
    with seeded(seed, "encoder"):
        module = encoder.build()
    encoder.load(module)
    return module.eval().to(device_of(runtime))


@torch.no_grad()
def _write(
    encoder: Encoder,
    module: EncoderModule,
    store: FeatureStore,
    molecules: Sequence[str],
    kept: NDArray[np.int64],
    levels: Sequence[Level],
    batch_size: int,
    output: Path,
    runtime: Runtime,
) -> dict[Level, tuple[int, int]]:
    """Fills arrays on disk batch by batch, since all levels of many molecules need not fit into memory."""
    widths = encoder.provides()
    rows = encoder.rows(store.counts(molecules), len(molecules))
    ptr = {level: np.concatenate([[0], np.cumsum(rows[level])]).astype(np.int64) for level in levels}
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), torch.device("cpu"))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as folder:
        files = {level: Path(folder) / f"{position}.npy" for position, level in enumerate(levels)}
        arrays = {
            level: np.lib.format.open_memmap(files[level], "w+", np.float32, (int(ptr[level][-1]), widths[level]))
            if ptr[level][-1]
            else np.zeros((0, widths[level]), np.float32)
            for level in levels
        }
        starts = range(0, len(molecules), batch_size)
        for start in runtime.tracked(starts, "encoding", len(starts)):
            part = molecules[start : start + batch_size]
            encoding = module(store.batch(part).to(device), frozenset(levels))
            for level in levels:
                place = slice(ptr[level][start], ptr[level][start + len(part)])
                arrays[level][place] = encoding[level].values.float().cpu().numpy()
        partial = Path(folder) / "whole.npz"
        _zip(partial, arrays, ptr, kept, files)
        os.replace(partial, output)
    return {level: (int(ptr[level][-1]), widths[level]) for level in levels}


def _zip(
    path: Path,
    arrays: Mapping[Level, NDArray[Any]],
    ptr: Mapping[Level, NDArray[np.int64]],
    kept: NDArray[np.int64],
    files: Mapping[Level, Path],
) -> None:
    """The arrays as `numpy.savez` writes them, the large ones copied from their files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        small = {"input_index": kept, **{f"{level}.ptr": offsets for level, offsets in ptr.items()}}
        for level, array in arrays.items():
            if isinstance(array, np.memmap):
                array.flush()
                archive.write(files[level], f"{level}.npy")
            else:
                small[level] = array
        for name, array in small.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asarray(array))
            archive.writestr(f"{name}.npy", content.getvalue())


def _write_rejected(output: Path, table: Table, texts: Sequence[str], rejected: Mapping[int, str]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("line", "input_index", "smiles", "reason"))
    writer.writerows((table.lines[row], row, texts[row], reason) for row, reason in rejected.items())
    write_text(rejected_file(output), text.getvalue())
