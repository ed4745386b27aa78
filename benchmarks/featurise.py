"""SMILES to atom and bond features, against PyTorch Geometric, OGB's and InstructMol's recipes, and bare parsing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import rdBase
from rdkit.Chem import MolFromSmiles
from torch_geometric.utils import from_smiles

from benchmarks import recipes
from benchmarks.measure import Result, compare
from benchmarks.molecules import chebi20, some_of_chebi20
from encoders.base import FeatureScheme
from encoders.features import Pgnn2
from encoders.featurising import Rows, featurise_many
from encoders.ogb_features import InstructMol2, Ogb9

_MOLECULES = 1_000
# PyG numbers more hybridisations (SP is 2, SP3D2 is 6) and bond types (single, double, triple, aromatic: 1, 2, 3, 12),
# and bond stereo in another order (none, any, Z, E, cis, trans).
_HYBRIDISATION = np.full(9, 5)
_HYBRIDISATION[2:7] = range(5)
_BOND_TYPE = np.full(22, 4)
_BOND_TYPE[[1, 2, 3, 12]] = range(4)
_STEREO = np.array([0, 5, 1, 2, 3, 4])


def run(rounds: int) -> Iterator[Result]:
    """Each reference against the scheme that has its features, and the parsing alone against each."""
    torch.set_num_threads(1)
    ogb9, instructmol2 = Ogb9(chirality_rows=5), InstructMol2()
    everything = list(dict.fromkeys(chebi20()))
    _assert_equal(ogb9, everything)
    _assert_equal_to(recipes.ogb, ogb9, everything)
    _assert_equal_to(recipes.instructmol, instructmol2, everything)
    equal = f"all atom and bond features of {len(everything)} ChEBI-20 molecules"
    molecules = some_of_chebi20(_MOLECULES)
    cases: tuple[tuple[FeatureScheme, str, Callable[[str], object], float, str], ...] = (
        (ogb9, "PyG utils.from_smiles (9 + 3)", from_smiles, 1.75, equal),
        (ogb9, "OGB's recipe (9 + 3)", recipes.ogb, 1.3, equal),
        (instructmol2, "InstructMol's recipe (2 + 2)", recipes.instructmol, 1.0, equal),
        (Pgnn2(), "InstructMol's recipe (2 + 2)", recipes.instructmol, 1.0, "nothing: tables of another size"),
        *((scheme, "MolFromSmiles alone", _parse, 0.35, "nothing") for scheme in (ogb9, instructmol2)),
    )
    for scheme, reference, call, least, same in cases:
        yield compare(
            partial(_featurise, scheme, molecules),
            partial(_each, call, molecules),
            rounds=rounds,
            count=len(molecules),
            case=f"featurise {scheme.name}",
            reference=reference,
            unit="molecules",
            equal=same,
            least=least,
        )


def _each(call: Callable[[str], object], molecules: Sequence[str]) -> None:
    with rdBase.BlockLogs():  # as ours has it
        for smiles in molecules:
            call(smiles)


def _parse(smiles: str) -> None:
    MolFromSmiles(smiles)


def _featurise(scheme: FeatureScheme, molecules: Sequence[str]) -> list[Rows]:
    """The rows as the store would write them."""
    return [parts[0] for _, parts in featurise_many((scheme,), {(0,): molecules}, 1, lambda done: None)]


def _each_of(scheme: FeatureScheme, molecules: Sequence[str]) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """The rows of each molecule, as the fast path made them of many."""
    for rows in _featurise(scheme, molecules):
        ends = {name: np.cumsum(counts) for name, counts in rows.counts.items()}
        pieces = {name: np.split(rows.values[name], end[:-1]) for name, end in ends.items()}
        for position, smiles in enumerate(rows.molecules):
            yield smiles, {name: piece[position] for name, piece in pieces.items()}


def _assert_equal(scheme: FeatureScheme, molecules: Sequence[str]) -> None:
    """Every atom and bond feature of every molecule is PyG's, after its numbering."""
    seen = 0
    for smiles, own in _each_of(scheme, molecules):
        data = from_smiles(smiles)
        assert np.array_equal(own["atom"], _atoms(data.x.numpy())), smiles
        found = np.concatenate([own["bond_ends"], own["bond"]], axis=1).astype(np.int64)
        bonds = data.edge_attr.numpy().reshape(-1, 3)
        columns = (_BOND_TYPE[bonds[:, :1]], _STEREO[bonds[:, 1:2]], bonds[:, 2:])
        wanted = np.concatenate([data.edge_index.numpy().T, *columns], axis=1)
        assert np.array_equal(_sorted(found), _sorted(wanted)), smiles
        seen += 1
    assert seen == len(molecules)


def _assert_equal_to(recipe: Callable[[str], recipes.Graph], scheme: FeatureScheme, molecules: Sequence[str]) -> None:
    """Every feature is the recipe's, bonds in its order; what ours rejects, it fails on."""
    kept = set()
    for smiles, own in _each_of(scheme, molecules):
        graph = recipe(smiles)
        kept.add(smiles)
        assert np.array_equal(own["atom"], graph["node_feat"]), smiles
        assert np.array_equal(own["bond_ends"].T, graph["edge_index"]), smiles
        assert np.array_equal(own["bond"], graph["edge_feat"].reshape(own["bond"].shape)), smiles
    for smiles in molecules:
        if smiles not in kept:
            try:
                recipe(smiles)
            except ValueError:
                continue
            raise AssertionError(smiles)


def _atoms(x: NDArray[Any]) -> NDArray[Any]:
    own = x.copy()
    own[:, 0] = np.where(x[:, 0] == 0, 118, x[:, 0] - 1)
    own[:, 1] = x[:, 1].clip(max=4)
    own[:, 6] = _HYBRIDISATION[x[:, 6]]
    return own


def _sorted(bonds: NDArray[Any]) -> NDArray[Any]:
    return bonds[np.lexsort(bonds.T[::-1])]
