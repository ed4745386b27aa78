"""Graph inputs: the real graph, and controls in which the graph carries no information about the molecule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from encoders.base import EncoderError, GraphInput, MoleculeEncoding, with_values

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
        match_size: give each graph to a molecule of the same number of atoms; one that has no equal goes to the nearest
            size. At test this is the fair swap, since any other also changes the number of tokens. At training it
            leaves what goes with size from molecule to molecule: in larger molecules rings are more common, and so is
            the word ring. A training control in which the graph says nothing at all is `match_size: false`.
        redraw: give graphs away anew in every epoch of training; a partner that stays the same can be memorised.
    """

    name: ClassVar[str] = "shuffled"

    match_size: bool = True
    redraw: bool = True

    @property
    def is_redrawn(self) -> bool:  # noqa: D102 - inherited
        return self.redraw

    @property
    def keeps_size(self) -> bool:  # noqa: D102 - inherited
        return self.match_size

    def substitute(self, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> Sequence[str]:  # noqa: D102 - inherited
        count = len(molecules)
        if count < 2:
            raise EncoderError(f"graph_input shuffled needs at least 2 distinct molecules in a split, found {count}")
        order = np.random.default_rng(seed).permutation(count)
        groups = _groups_of_equal_size(order, np.asarray(sizes)) if self.match_size else [order]
        substitutes = list(molecules)
        for group in groups:
            for receiver, giver in zip(group, np.roll(group, -1), strict=True):
                substitutes[receiver] = molecules[giver]
        return substitutes


def _groups_of_equal_size(order: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of at least two molecules; one without an equal joins the group nearest in size."""
    ordered = order[np.argsort(sizes[order], kind="stable")]
    groups = np.split(ordered, np.flatnonzero(np.diff(sizes[ordered])) + 1)
    while len(groups) > 1 and any(len(group) == 1 for group in groups):
        lonely = next(position for position, group in enumerate(groups) if len(group) == 1)
        neighbours = [position for position in (lonely - 1, lonely + 1) if 0 <= position < len(groups)]
        size = int(sizes[groups[lonely][0]])
        nearest = min(neighbours, key=lambda position: abs(int(sizes[groups[position][0]]) - size))
        first, second = sorted((lonely, nearest))
        groups[first : second + 1] = [np.concatenate([groups[first], groups[second]])]
    return groups
