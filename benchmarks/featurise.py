"""SMILES to nine atom and three bond features, against PyTorch Geometric's `utils.from_smiles`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.utils import from_smiles

from benchmarks.measure import Result, compare
from benchmarks.molecules import some_of_chebi20
from encoders.base import FeatureScheme
from encoders.features import Pgnn2
from encoders.featurising import Rows, featurise_many
from encoders.ogb_features import InstructMol2, Ogb9

_MOLECULES = 1_000
_LEAST = 1.0
# PyG numbers more hybridisations (SP is 2, SP3D2 is 6) and bond types (single, double, triple, aromatic: 1, 2, 3, 12),
# and bond stereo in another order (none, any, Z, E, cis, trans).
_HYBRIDISATION = np.full(9, 5)
_HYBRIDISATION[2:7] = range(5)
_BOND_TYPE = np.full(22, 4)
_BOND_TYPE[[1, 2, 3, 12]] = range(4)
_STEREO = np.array([0, 5, 1, 2, 3, 4])


def run(rounds: int) -> Iterator[Result]:
    """The same features first, then the smaller schemes, which the reference has no counterpart of."""
    torch.set_num_threads(1)
    scheme = Ogb9(chirality_rows=5)
    molecules = some_of_chebi20(_MOLECULES)
    (rows,) = _featurise(scheme, molecules)
    _assert_equal(rows)

    def theirs() -> None:
        for smiles in rows.molecules:
            from_smiles(smiles)

    for ours in (scheme, InstructMol2(), Pgnn2()):
        featurising = partial(_featurise, ours, rows.molecules)
        same = "all atom and bond features" if ours is scheme else "nothing: fewer features"
        yield compare(
            featurising,
            theirs,
            rounds=rounds,
            count=len(rows.molecules),
            case=f"featurise {ours.name}",
            reference="PyG utils.from_smiles (9 + 3)",
            unit="molecules",
            equal=f"{same} of {len(rows.molecules)} ChEBI-20 molecules" if ours is scheme else same,
            least=_LEAST,
        )


def _featurise(scheme: FeatureScheme, molecules: Sequence[str]) -> list[Rows]:
    """The rows as the store would write them."""
    return [parts[0] for _, parts in featurise_many((scheme,), {(0,): molecules}, 1, lambda done: None)]


def _assert_equal(rows: Rows) -> None:
    """Every atom and bond feature of every molecule is the reference's, after its numbering."""
    starts = {name: np.cumsum([0, *counts]) for name, counts in rows.counts.items()}
    for position, smiles in enumerate(rows.molecules):
        data = from_smiles(smiles)
        own = {name: rows.values[name][ptr[position] : ptr[position + 1]] for name, ptr in starts.items()}
        assert np.array_equal(own["atom"], _atoms(data.x.numpy())), smiles
        found = np.concatenate([own["bond_ends"], own["bond"]], axis=1).astype(np.int64)
        bonds = data.edge_attr.numpy().reshape(-1, 3)
        columns = (_BOND_TYPE[bonds[:, :1]], _STEREO[bonds[:, 1:2]], bonds[:, 2:])
        wanted = np.concatenate([data.edge_index.numpy().T, *columns], axis=1)
        assert np.array_equal(_sorted(found), _sorted(wanted)), smiles


def _atoms(x: NDArray[Any]) -> NDArray[Any]:
    own = x.copy()
    own[:, 0] = np.where(x[:, 0] == 0, 118, x[:, 0] - 1)
    own[:, 1] = x[:, 1].clip(max=4)
    own[:, 6] = _HYBRIDISATION[x[:, 6]]
    return own


def _sorted(bonds: NDArray[Any]) -> NDArray[Any]:
    return bonds[np.lexsort(bonds.T[::-1])]
