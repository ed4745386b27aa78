"""Opening features that are made, against PyTorch Geometric's two ways of keeping graphs.

Ours maps narrow columns, checks them against their sums, and compares the list of molecules with the one asked for; the
references are unpickled by `torch.load` and checked by nothing. The last case goes on to a first batch, which includes
the look-up of molecules by SMILES that the references have not.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Batch, Data, InMemoryDataset

from benchmarks.collate import graph
from benchmarks.measure import Result, compare
from benchmarks.molecules import chebi20
from encoders.features import Pgnn2
from encoders.store import FeatureStore

_LEAST_LIST, _LEAST_DATASET, _LEAST_SIZE = 500.0, 1.5, 5.0
_BATCH = 64


def run(rounds: int) -> Iterator[Result]:
    """All of ChEBI-20's validation and test molecules; files are in the page cache."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = FeatureStore.open_or_build(folder / "store", [Pgnn2()], chebi20())
        molecules = list(made.row_of)
        graphs = [graph(made.batch([smiles])) for smiles in molecules]
        torch.save(graphs, folder / "list.pt")
        torch.save(InMemoryDataset.collate(graphs), folder / "dataset.pt")

        def ours() -> FeatureStore:
            return FeatureStore.open_or_build(folder / "store", [Pgnn2()], molecules)

        def as_list() -> list[Data]:
            loaded: list[Data] = torch.load(folder / "list.pt", weights_only=False)
            return loaded

        def as_dataset() -> _Dataset:
            return _Dataset(folder / "dataset.pt")

        _assert_equal(ours(), molecules, as_list())
        _assert_equal(ours(), molecules, list(as_dataset()))
        sizes = {file: (folder / file).stat().st_size for file in ("list.pt", "dataset.pt")}
        own_size = sum(file.stat().st_size for file in (folder / "store").rglob("*.npy"))
        for file, size in sizes.items():
            print(f"{file}: {size / 1e6:.1f} MB, ours {own_size / 1e6:.1f} MB, {size / own_size:.1f} x smaller")
            assert size / own_size >= _LEAST_SIZE, file
        chosen = random.Random(0).sample(range(len(molecules)), _BATCH)
        asked = [molecules[row] for row in chosen]
        pairs: tuple[tuple[str, Callable[[], Any], Callable[[], Any], float, str], ...] = (
            ("open", ours, as_list, _LEAST_LIST, "list of Data"),
            ("open", ours, as_dataset, _LEAST_DATASET, "InMemoryDataset"),
            (
                f"open and read {_BATCH}",
                lambda: ours().batch(asked),
                lambda: Batch.from_data_list([(loaded := as_dataset())[chosen[0]], *map(loaded.get, chosen[1:])]),
                1.0,
                "InMemoryDataset",
            ),
        )
        for case, one, other, least, reference in pairs:
            yield compare(
                one,
                other,
                rounds=rounds,
                count=len(molecules),
                case=case,
                reference=reference,
                unit="molecules",
                equal=f"x, edge_index, edge_attr of all {len(molecules)} molecules",
                least=least,
                clock=time.perf_counter,  # what waits for files waits for them here too
            )


class _Dataset(InMemoryDataset):  # type: ignore[misc]
    """A collated file, loaded as the documentation of PyTorch Geometric has it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.data, self.slices = torch.load(path, weights_only=False)


def _assert_equal(store: FeatureStore, molecules: list[str], graphs: list[Data]) -> None:
    for smiles, theirs in zip(molecules, graphs, strict=True):
        own = graph(store.batch([smiles]))
        for name in ("x", "edge_index", "edge_attr"):
            assert torch.equal(own[name], theirs[name]), smiles
