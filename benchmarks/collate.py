"""Features of chosen molecules to one batch, against PyTorch Geometric's `Batch.from_data_list`."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch_geometric.data import Batch, Data

from benchmarks.measure import Result, compare
from benchmarks.molecules import chebi20
from encoders.base import MoleculeBatch
from encoders.features import Pgnn2
from encoders.store import FeatureStore

_LEAST = {16: 3.5, 64: 4.5, 256: 6.0}
_MOLECULES = 4_096  # per round


def run(rounds: int) -> Iterator[Result]:
    """Random batches of ChEBI-20; the reference's graphs lie in memory, ours are read from the store."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.open_or_build(Path(folder), [Pgnn2()], chebi20())
        molecules = list(store.row_of)
        graphs = {smiles: graph(store.batch([smiles])) for smiles in molecules}
        for size, least in _LEAST.items():
            chosen = random.Random(size)
            batches = [chosen.sample(molecules, size) for _ in range(_MOLECULES // size)]
            for batch in batches:
                _assert_equal(store.batch(batch), Batch.from_data_list([graphs[smiles] for smiles in batch]))

            def ours(batches: Sequence[Sequence[str]] = batches) -> None:
                for batch in batches:
                    store.batch(batch)["atom"].molecule_of_row()  # the reference makes this vector too

            def theirs(batches: Sequence[Sequence[str]] = batches) -> None:
                for batch in batches:
                    Batch.from_data_list([graphs[smiles] for smiles in batch])

            yield compare(
                ours,
                theirs,
                rounds=rounds,
                count=len(batches) * size,
                case=f"collate {size}",
                reference="PyG Batch.from_data_list",
                unit="molecules",
                equal="x, edge_index, edge_attr, batch, ptr of every batch",
                least=least,
            )


def graph(batch: MoleculeBatch) -> Data:
    """A batch as PyTorch Geometric's kind of graph."""
    ends = batch["bond_ends"].values.T.contiguous()
    return Data(x=batch["atom"].values, edge_index=ends, edge_attr=batch["bond"].values)


def _assert_equal(ours: MoleculeBatch, theirs: Batch) -> None:
    atoms = ours["atom"]
    assert torch.equal(atoms.values, theirs.x)
    assert torch.equal(ours["bond_ends"].values.T, theirs.edge_index)
    assert torch.equal(ours["bond"].values, theirs.edge_attr)
    assert torch.equal(atoms.molecule_of_row(), theirs.batch)
    assert torch.equal(atoms.ptr, theirs.ptr)
