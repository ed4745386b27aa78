"""Graph inputs: the real graph, and controls in which the graph carries no information about the molecule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
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
        order = np.random.default_rng(seed).permutation(count).tolist()
        rings = _rings_of_equal_size(order, sizes) if self.match_size else [order]
        substitutes = list(molecules)
        for ring in rings:
            for receiver, giver in zip(ring, [*ring[1:], ring[0]], strict=True):
                substitutes[receiver] = molecules[giver]
        return substitutes


def _rings_of_equal_size(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Rings of molecules that hand their graphs on; one that has no equal stands between others nearest in size."""
    by_size: dict[int, list[int]] = {}
    for molecule in order:
        by_size.setdefault(sizes[molecule], []).append(molecule)
    lone_sizes = [size for size, members in by_size.items() if len(members) == 1]
    nearest = {size: _nearest(size, by_size) for size in lone_sizes if len(by_size) > 1}
    rings = []
    for cluster in _connected(sorted(by_size), nearest):
        equals = [molecule for size in cluster if size not in nearest for molecule in by_size[size]]
        lonely = [molecule for size in cluster if size in nearest for molecule in by_size[size]]
        ring = [molecule for pair in zip_longest(equals, lonely) for molecule in pair if molecule is not None]
        rings.append(ring)
    return rings


def _nearest(size: int, sizes: Iterable[int]) -> int:
    return min((other for other in sizes if other != size), key=lambda other: (abs(other - size), other))


def _connected(sizes: Sequence[int], nearest: Mapping[int, int]) -> list[list[int]]:
    """Sizes grouped so that each lonely one is with the one nearest to it, and with at most one that is not lonely."""
    group_of = {size: {size} for size in sizes}
    for size, other in nearest.items():
        joined = group_of[size] | group_of[other]
        for member in joined:
            group_of[member] = joined
    return [sorted(group) for size, group in group_of.items() if size == min(group)]
