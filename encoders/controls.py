"""Graph inputs: the real graph, and controls in which the graph carries no information about the molecule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from encoders.base import EncoderError, GraphInput, MoleculeEncoding, with_values


@dataclass(frozen=True, kw_only=True)
class Real(GraphInput):
    """The molecule's own graph."""

    name: ClassVar[str] = "real"


@dataclass(frozen=True, kw_only=True)
class Zero(GraphInput):
    """All rows zero: the number of tokens stays, what they say is gone."""

    name: ClassVar[str] = "zero"

    def transform(self, encoding: MoleculeEncoding) -> MoleculeEncoding:  # noqa: D102 - inherited
        return with_values(encoding, {level: rows.values * 0 for level, rows in encoding.levels.items()})


@dataclass(frozen=True, kw_only=True)
class Shuffled(GraphInput):
    """Another molecule's graph: within a split each graph is given away once and received once.

    Args:
        match_size: give each graph to a molecule of the same number of atoms. A plain shuffle also changes how many
            tokens there are, and so measures size as well as structure. Molecules without an equal go to the nearest
            size, the smaller one first.
    """

    name: ClassVar[str] = "shuffled"

    match_size: bool = True

    def substitute(self, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> Sequence[str]:  # noqa: D102 - inherited
        count = len(molecules)
        if count < 2:
            raise EncoderError(f"graph_input shuffled needs at least 2 distinct molecules in a split, found {count}")
        order = np.random.default_rng(seed).permutation(count)
        if not self.match_size:
            return _rotated(molecules, [order])
        sized = np.asarray(sizes)
        order = order[np.argsort(sized[order], kind="stable")]
        groups = np.split(order, np.flatnonzero(np.diff(sized[order])) + 1)
        paired = [group for group in groups if len(group) > 1]
        alone = np.concatenate([group for group in groups if len(group) == 1] or [order[:0]])
        if len(alone) == 1:
            nearest = min(range(len(paired)), key=lambda i: abs(int(sized[paired[i][0]]) - int(sized[alone[0]])))
            paired[nearest] = np.append(paired[nearest], alone)
        elif len(alone) > 1:
            # Neighbours in size swap graphs, the last three in a ring where their number is odd.
            starts = range(0, len(alone) - 1, 2)
            paired += [alone[start : len(alone) if start + 3 == len(alone) else start + 2] for start in starts]
        return _rotated(molecules, paired)


def _rotated(molecules: Sequence[str], groups: Sequence[np.ndarray]) -> Sequence[str]:
    """Each molecule replaced by the next one of its group; no molecule keeps its own."""
    substitutes = list(molecules)
    for group in groups:
        for receiver, giver in zip(group, np.roll(group, -1), strict=True):
            substitutes[receiver] = molecules[giver]
    return substitutes
