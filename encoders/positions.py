"""Laplacian positions: where atoms, motifs and the graph node stand in a molecule's whole graph, by eigenvectors.

HIGHT puts them beside the rows of its encoder. Written from the formula. Eigenvectors are not unique: each may change
its sign, and those of equal eigenvalues may be turned into one another. Here both are decided by a rule that looks at
nothing but the graph and RDKit's canonical order of atoms, so that a molecule has the same positions on every machine
and however it is spelt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge, Interval
from rdkit.Chem import CanonicalRankAtoms, MolToSmiles

from encoders.base import Column, FeatureScheme, RejectedMoleculeError
from encoders.motifs import MotifScheme

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

MOST_ROWS = 4_096
"""Atoms, motifs and graph node of the largest molecule; a dense decomposition of more takes minutes."""

# Eigenvalues (from 0 to 2) nearer than this count as equal, and entries of eigenvectors as equally large.
_EQUAL = 1e-6


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How positions are computed.

    Args:
        width: how many eigenvectors; 8 in HIGHT. Where a graph has fewer, the rest is 0.
        matrix: what is decomposed. `laplacian`: `I - D^-1/2 A D^-1/2` of the graph of atoms, motifs and graph node,
            their ties without direction. `bonds`: ones for bonds and on the diagonal, which is what HIGHT's code
            decomposes (`smiles2graph.py:98-135`, as copied in enigma-aaa/BTP_HIGHT): the Laplacian's weights are
            dropped on the way, and ties, which point up there, stand in the triangle that `eigh` does not read, so that
            each motif and the graph node stand alone, with eigenvalue 1 and 0 in every position but, in a small
            molecule, one. From 100 rows on that code iterates from random starts on a matrix that is not symmetric;
            here large molecules are treated as small ones are.
        signs: of eigenvectors. `canonical`: the largest entry is positive, the first of several in canonical order.
            `random`: drawn for each molecule by its canonical SMILES and `seed`. HIGHT's code draws anew whenever it
            makes a graph, which no seed repeats.
        seed: of random signs.
    """

    width: Annotated[int, Interval(ge=1, le=64)] = 8
    matrix: Literal["laplacian", "bonds"] = "laplacian"
    signs: Literal["canonical", "random"] = "canonical"
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True)
class PositionScheme(FeatureScheme):
    """The positions of a molecule's atoms, motifs and graph node.

    Columns: `atom_position` `(n, width)`, `motif_position` `(m, width)` and `graph_position` `(1, width)`, 32-bit
    floats: the eigenvectors of the second to the `width + 1`-th smallest eigenvalue, each of length 1 over all three
    together. An atom without bonds and ties is alone, with eigenvalue 1 (as in PyG's `get_laplacian`).

    Of equal eigenvalues, which symmetric molecules have, the eigenvectors are chosen by a rule: the projection of one
    row's unit vector on their space, of the row that has the longest, then of the row that has the longest in what is
    left, and so on; of rows that are equally long, the first in canonical order. What a symmetry exchanges (the atoms
    of benzene) is told apart by that order alone, so that two spellings of a molecule may give each other's rows to
    such atoms, and a permutation of atoms moves rows along only up to them.

    Args:
        positions: how they are computed.
        motifs: how molecules fall into motifs; without any, atoms are tied to the graph node directly.
    """

    name: ClassVar[str] = "positions"

    positions: Positions = field(default_factory=Positions)
    motifs: MotifScheme = field(default_factory=MotifScheme)

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        shape = (self.positions.width,)
        return {level: Column("float32", shape) for level in ("atom_position", "motif_position", "graph_position")}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        motifs = self.motifs.featurise(molecule, smiles)
        atoms, count = molecule.GetNumAtoms(), len(motifs["motif"])
        rows = atoms + count + 1
        if rows > MOST_ROWS:
            raise RejectedMoleculeError(
                f"it has {rows:,} atoms, motifs and graph nodes; {self.name} are computed for up to {MOST_ROWS:,}"
            )
        members = np.stack([motifs["motif_atom"], motifs["motif_of"]], axis=1).astype(np.int64)
        order = _canonical_order(molecule, members, count)
        matrix = self._matrix(molecule, members, count)[np.ix_(order, order)]
        found = np.empty((rows, self.positions.width))
        found[order] = eigenvectors(matrix, self.positions.width)
        if self.positions.signs == "random":
            found *= _random_signs(molecule, self.positions)
        found = found.astype(np.float32)
        return {"atom_position": found[:atoms], "motif_position": found[atoms:-1], "graph_position": found[-1:]}

    def _matrix(self, molecule: Mol, members: NDArray[np.int64], count: int) -> NDArray[np.float64]:
        """The matrix that is decomposed; rows are atoms, motifs, graph node."""
        atoms = molecule.GetNumAtoms()
        adjacency = np.zeros((atoms + count + 1, atoms + count + 1))
        for bond in molecule.GetBonds():
            adjacency[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] = 1
        if self.positions.matrix == "laplacian":
            adjacency[members[:, 0], atoms + members[:, 1]] = 1
            below_graph = slice(atoms, atoms + count) if count else slice(atoms)
            adjacency[below_graph, -1] = 1
        adjacency = np.maximum(adjacency, adjacency.T)
        if self.positions.matrix == "laplacian":
            degree = adjacency.sum(axis=1)
            scale = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
            adjacency *= -scale[:, None] * scale
        np.fill_diagonal(adjacency, 1)
        return adjacency


def eigenvectors(matrix: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Eigenvectors of a symmetric matrix, from that of the second smallest eigenvalue on, as `PositionScheme` says.

    Args:
        matrix: `(n, n)`; where several choices are alike, rows that stand earlier decide.
        width: how many; zeros where there are fewer.

    Returns:
        `(n, width)`.
    """
    values, vectors = np.linalg.eigh(matrix)
    chosen: list[NDArray[np.float64]] = []
    start = 0
    while start < len(values) and len(chosen) <= width:
        end = start + 1
        while end < len(values) and values[end] - values[end - 1] < _EQUAL:
            end += 1
        chosen += _basis(vectors[:, start:end], width + 1 - len(chosen))
        start = end
    found = np.zeros((len(matrix), width))
    for position, vector in enumerate(chosen[1:]):  # the first tells of degrees only
        found[:, position] = vector
    return found


def _basis(space: NDArray[np.float64], most: int) -> list[NDArray[np.float64]]:
    """An orthonormal basis `(n,)` of a space `(n, m)` that depends on the space alone, up to `most` vectors of it."""
    found = []
    for _ in range(min(space.shape[1], most)):
        lengths = np.linalg.norm(space, axis=1)
        longest = int(np.argmax(lengths > lengths.max() - _EQUAL))
        direction = space[longest] / lengths[longest]
        found.append(space @ direction)
        space = space - np.outer(found[-1], direction)
    return found


def _canonical_order(molecule: Mol, members: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The rows in an order that no spelling changes: atoms by RDKit's rank, motifs by those of their atoms, graph."""
    ranks = np.array(CanonicalRankAtoms(molecule, breakTies=True), dtype=np.int64)
    ranked = [sorted(ranks[members[members[:, 1] == motif, 0]].tolist()) for motif in range(count)]
    motifs = sorted(range(count), key=ranked.__getitem__)
    return np.array([*np.argsort(ranks), *(len(ranks) + motif for motif in motifs), len(ranks) + count], dtype=np.int64)


def _random_signs(molecule: Mol, positions: Positions) -> NDArray[np.float64]:
    digest = hashlib.sha256(f"{positions.seed}\n{MolToSmiles(molecule)}".encode()).digest()
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[: positions.width]
    return np.where(bits, -1.0, 1.0)
