"""A forward pass of GIN, 5 layers of width 300, against the same network of PyTorch Geometric's layers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import MessagePassing, global_mean_pool
from torch_geometric.utils import add_self_loops

from benchmarks.collate import graph
from benchmarks.measure import Result, compare
from benchmarks.molecules import chebi20
from encoders.base import EncoderModule
from encoders.gin import Gin
from encoders.store import FeatureStore

_LEAST = 0.9
_SIZES = (16, 64)
_BATCHES = 8
_LEVELS = frozenset({"atom", "graph"})


class _Convolution(MessagePassing):  # type: ignore[misc]
    """The layer of pretrain-gnns (Hu et al. 2020; `chem/model.py:20-52`): self loops of bond type 4, sum, MLP."""

    def __init__(self, width: int) -> None:
        super().__init__(aggr="add")
        self.types, self.directions = nn.Embedding(6, width), nn.Embedding(3, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        loops = edge_attr.new_zeros((len(x), 2))
        loops[:, 0] = 4
        edge_index, _ = add_self_loops(edge_index, num_nodes=len(x))
        edge_attr = torch.cat([edge_attr, loops])
        bonds = self.types(edge_attr[:, 0]) + self.directions(edge_attr[:, 1])
        found: Tensor = self.mlp(self.propagate(edge_index, x=x, bonds=bonds))
        return found

    def message(self, x_j: Tensor, bonds: Tensor) -> Tensor:
        return x_j + bonds


class _Network(nn.Module):
    """Atom embeddings, layers with batch norm, ReLU but after the last, mean over atoms (`chem/model.py:207-310`)."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.elements, self.chiralities = nn.Embedding(120, width), nn.Embedding(3, width)
        self.convolutions = nn.ModuleList(_Convolution(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))

    def forward(self, data: Batch) -> tuple[Tensor, Tensor]:
        rows = self.elements(data.x[:, 0]) + self.chiralities(data.x[:, 1])
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            rows = norm(convolution(rows, data.edge_index, data.edge_attr))
            if number + 1 < len(self.norms):
                rows = rows.relu()
        return rows, global_mean_pool(rows, data.batch)


def run(rounds: int) -> Iterator[Result]:
    """Random batches of ChEBI-20, collated before; equal weights on both sides, inference in float32."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    declared = Gin()
    module = declared.build().eval()
    network = _same_network(module, declared.layers, declared.width)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        store = FeatureStore.open_or_build(Path(folder), declared.features(), chebi20())
        molecules = list(store.row_of)
        for size in _SIZES:
            chosen = random.Random(size)
            picked = [chosen.sample(molecules, size) for _ in range(_BATCHES)]
            batches = [store.batch(batch) for batch in picked]
            graphs = [Batch.from_data_list([graph(store.batch([smiles])) for smiles in batch]) for batch in picked]
            furthest = 0.0
            for batch, data in zip(batches, graphs, strict=True):
                encoding = module(batch, _LEVELS)
                for found, wanted in zip((encoding["atom"], encoding["graph"]), network(data), strict=True):
                    torch.testing.assert_close(found.values, wanted, rtol=1e-5, atol=1e-5)
                    furthest = max(furthest, float((found.values - wanted).abs().max()))
            yield compare(
                partial(_each, lambda batch: module(batch, _LEVELS), batches),
                partial(_each, network, graphs),
                rounds=rounds,
                count=size * _BATCHES,
                case=f"encode-forward gin 5x300, batches of {size}",
                reference="the recipe of pretrain-gnns in PyG's layers",
                unit="molecules",
                equal=f"atom and graph rows of every batch within {furthest:.1e}",
                least=_LEAST,
            )


def _each(forward: Callable[[Any], object], batches: Sequence[object]) -> None:
    for batch in batches:
        forward(batch)


def _same_network(module: EncoderModule, layers: int, width: int) -> _Network:
    """The reference with the weights of ours; every tensor has its counterpart."""
    network = _Network(layers, width)
    names = {
        "atom_embeddings.0.": "elements.",
        "atom_embeddings.1.": "chiralities.",
        "layers.": "convolutions.",
        ".convolution.": ".",
        ".bonds.tables.0.": ".types.",
        ".bonds.tables.1.": ".directions.",
    }
    state = {}
    for name, tensor in module.state_dict().items():
        for own, other in names.items():
            name = name.replace(own, other)
        if ".norm." in name:
            _, number, _, rest = name.split(".")
            name = f"norms.{number}.{rest}"
        state[name] = tensor
    network.load_state_dict(state)
    return network.eval()
