"""RDKit's binary form of molecules, read for many molecules at a time by numpy.

`Mol.ToBinary` is several times faster than asking each atom and bond of a molecule through Python, and says all that
the feature schemes read. Its layout is RDKit's own affair, though: what is read here was found in versions 16.3 and
16.4 of it, every molecule with anything in it that is not known here is left out, and `binary_schemes` compares what is
read with RDKit's answers before any of it is used.

The layout, all numbers little-endian: a header of 20 bytes with the version, the numbers of atoms and bonds as int32,
and two marks. For each atom its number, flags, an int32 that says which of charge, chirality and so on follow, and
those. A mark; for each bond its two atoms, flags, and what these announce of type, direction and stereo, the latter
with the two atoms to which it refers. A mark; the number of rings as int32, and for each ring its size and its atoms.
The atoms of bonds, stereo and rings, and the sizes of rings, have one byte; in a molecule of more than 255 atoms, and
since 16.4 in one of more than 255 bonds too (RDKit's pull request 9563), they have four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from encoders.features import MOST_ATOMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8] | NDArray[np.int64] | NDArray[np.bool_]

VERSIONS = ((16, 3), (16, 4))
"""Major and minor version of the layouts that are read here."""

_NARROW, _WIDE = 1, 4  # bytes of an atom's index
_MOST_NARROW = 255  # atoms with the former, and from version 16.4 on bonds
_BONDS_WIDEN = 16_004  # that version as one number

_START = (0xDEADBEEF).to_bytes(4, "little") + bytes(4)
_MAJOR, _MINOR, _ATOMS, _BONDS, _MARKS, _FIRST = 8, 12, 20, 24, 28, 30
_BEFORE_ATOMS, _BEFORE_BONDS, _BEFORE_RINGS = (0x80, 0x01), 0x0B, 0x42

_AROMATIC = 0x40  # of atoms and bonds
_NO_IMPLICIT = 0x20
_CONJUGATED, _HAS_TYPE, _HAS_DIRECTION, _HAS_STEREO = 0x20, 0x08, 0x04, 0x02
_ATOM_FLAGS, _BOND_FLAGS = _AROMATIC | _NO_IMPLICIT, _AROMATIC | 0x2E
# Bits of an atom's int32, in the order of the bytes that they announce; the mass (bit 0) is not read here.
_CHARGE, _CHIRALITY, _HYBRIDISATION, _EXPLICIT_HS, _EXPLICIT, _IMPLICIT_HS, _RADICALS = range(1, 8)
_ISOTOPE = 0x01  # of the second byte; four bytes, behind all others
_SP3, _SINGLE = 4, 1  # which are not written

_CODES = np.arange(256)
_ONES = np.array([(_CODES >> bit) & 1 for bit in range(8)])
# By the first byte of the int32: where a field stands behind it, and how long all of them are.
_PLACE = 6 + np.concatenate([np.zeros((2, 256), dtype=np.int64), _ONES[1:].cumsum(axis=0)])
_ATOM_LENGTH = _PLACE[8]
_PLACE = _PLACE[:8]
# By a bond's flags: where a field stands behind them, and how long all of them are.
_DIRECTION_PLACE = 1 + ((_CODES & _HAS_TYPE) > 0)
_STEREO_PLACE = _DIRECTION_PLACE + ((_CODES & _HAS_DIRECTION) > 0)
_STEREO_ATOMS = 2  # whose number is written; there are none where a file leaves stereo open, which is not read
# Tables through which all bytes can be put at once: lengths by the first byte of an atom's int32, and by a bond's flags
# and the width of its indices.
_ATOM_LENGTHS = _ATOM_LENGTH.astype(np.uint8).tobytes()
_BOND_LENGTHS = {
    width: (2 * width + _STEREO_PLACE + ((_CODES & _HAS_STEREO) > 0) * (2 + _STEREO_ATOMS * width))
    .astype(np.uint8)
    .tobytes()
    for width in (_NARROW, _WIDE)
}
_FEW = 32  # so many molecules are followed faster one by one than in step


class Binaries:
    """Several molecules, of which only those that are fully understood are read.

    Attributes:
        is_read: whether each molecule is, `(M,)`; whatever follows is of those that are.
        num_atoms, num_bonds: of each, `(n,)` int64.
        begin, end: the atoms of each bond counted within its molecule, `(b,)` int64.

    Args:
        binaries: of `Mol.ToBinary(0)`.
    """

    def __init__(self, binaries: Sequence[bytes]) -> None:
        # A molecule that ends too early is read on into the next one, and the last one into zeros; marks tell.
        joined = b"".join([*binaries, bytes(_FIRST)])
        self._bytes = np.frombuffer(joined, dtype=np.uint8)
        lengths = np.fromiter(map(len, binaries), np.int64, len(binaries))
        starts = lengths.cumsum() - lengths
        header = self._bytes[starts[:, None] + np.arange(_FIRST)]
        good, num_atoms, num_bonds, width = _known(header, lengths)

        atom_at, place = _followed(self._lengths_of_atoms(joined), starts + _FIRST, num_atoms)
        good &= self._bytes.take(place, mode="clip") == _BEFORE_BONDS
        # A bond is found where its flags are, behind its two atoms.
        bond_lengths = _lengths_of_bonds(joined, width, lengths)
        bond_at, place = _followed(bond_lengths, place + 1 + 2 * width, num_bonds)
        place -= 2 * width
        good &= self._bytes.take(place, mode="clip") == _BEFORE_RINGS
        num_rings = self._int32(place + 1)
        good &= num_rings <= lengths
        num_rings *= good
        ring_at, place = _followed_rings(joined, place + 5, num_rings, width)
        good &= place <= starts + lengths

        bond_width = width.repeat(num_bonds)
        begin = self._indices(bond_at - 2 * bond_width, bond_width)
        end = self._indices(bond_at - bond_width, bond_width)
        outside = np.maximum(begin, end) >= num_atoms.repeat(num_bonds)
        good &= ~_any_of(outside | self._is_unknown_bond(bond_at), num_bonds)
        good &= ~_any_of(self._is_unknown_atom(atom_at), num_atoms)
        # What rings say of their sizes can be trusted only where all of them end within their molecule.
        ring_at = ring_at[good.repeat(num_rings)]
        num_rings *= good
        size, ring_atoms = self._in_rings(ring_at, width.repeat(num_rings))
        per_ring = np.arange(len(good)).repeat(num_rings).repeat(size)
        good[per_ring[ring_atoms >= num_atoms[per_ring]]] = False
        if not good.all():
            atom_at, kept = atom_at[good.repeat(num_atoms)], good.repeat(num_bonds)
            bond_at, begin, end = bond_at[kept], begin[kept], end[kept]
            ring_at = ring_at[good.repeat(num_rings)]
        self.is_read = good
        self.num_atoms, self.num_bonds = num_atoms[good], num_bonds[good]
        self.begin, self.end = begin, end
        self._num_rings, self._width = num_rings[good], width[good]
        self._atom_at, self._bond_at, self._ring_at = atom_at, bond_at, ring_at
        self._has = self._bytes[atom_at + 2]
        self._bond_flags = self._bytes[bond_at]

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Rows of each molecule in the columns of a graph scheme, in which each bond stands twice."""
        twice = 2 * self.num_bonds
        return {"atom": self.num_atoms, "bond": twice, "bond_ends": twice}

    def atomic_number(self) -> Codes:
        """Of each atom."""
        return self._bytes[self._atom_at]

    def atom_aromatic(self) -> Codes:
        """Whether each atom is aromatic."""
        return (self._bytes[self._atom_at + 1] & _AROMATIC) > 0

    def charge(self) -> Codes:
        """Of each atom; 256 more where it is negative, as bytes have it."""
        return self._field(_CHARGE)

    def chirality(self) -> Codes:
        """The tag of each atom."""
        return self._field(_CHIRALITY)

    def hybridisation(self) -> Codes:
        """Of each atom."""
        return self._field(_HYBRIDISATION, otherwise=_SP3)

    def radicals(self) -> Codes:
        """Radical electrons of each atom."""
        return self._field(_RADICALS)

    def hydrogens(self) -> Codes:
        """Of each atom, those that are atoms themselves left out."""
        return self._hydrogens

    def degree(self) -> Codes:
        """Neighbours of each atom."""
        return self._degree

    def total_degree(self) -> Codes:
        """Neighbours and hydrogens of each atom."""
        return self._degree + self._hydrogens

    def atom_in_ring(self) -> Codes:
        """Whether each atom is in a ring."""
        inside = np.zeros(len(self._atom_at), dtype=np.uint8)
        inside[self._ring_atoms[0]] = 1
        return inside

    def bond_type(self) -> Codes:
        """Of each bond."""
        return np.where((self._bond_flags & _HAS_TYPE) > 0, self._bytes[self._bond_at + 1], np.uint8(_SINGLE))

    def direction(self) -> Codes:
        """Of each bond."""
        return self._rare(_HAS_DIRECTION, _DIRECTION_PLACE)

    def stereo(self) -> Codes:
        """Of each bond."""
        return self._rare(_HAS_STEREO, _STEREO_PLACE)

    def conjugated(self) -> Codes:
        """Whether each bond is conjugated."""
        return (self._bond_flags & _CONJUGATED) > 0

    def bond_in_ring(self) -> Codes:
        """Whether each bond is in a ring: its atoms follow each other in one."""
        atoms, following = self._ring_atoms
        total = len(self._atom_at)
        first = self._first_atom.repeat(self.num_bonds)
        sides = _pairs(first + self.begin, first + self.end, total)
        return np.isin(sides, _pairs(atoms, following, total))

    @cached_property
    def _first_atom(self) -> NDArray[np.int64]:
        """Where the atoms of each molecule begin, `(n,)`."""
        first: NDArray[np.int64] = self.num_atoms.cumsum() - self.num_atoms
        return first

    @cached_property
    def _hydrogens(self) -> NDArray[np.int64]:
        return self._field(_EXPLICIT_HS).astype(np.int64) + self._field(_IMPLICIT_HS)

    @cached_property
    def _degree(self) -> NDArray[np.int64]:
        first = self._first_atom.repeat(self.num_bonds)
        total = len(self._atom_at)
        return np.bincount(first + self.begin, minlength=total) + np.bincount(first + self.end, minlength=total)

    @cached_property
    def _ring_atoms(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The atoms of all rings, counted over all molecules, and the one that follows each in its ring."""
        size, atoms = self._in_rings(self._ring_at, self._width.repeat(self._num_rings))
        atoms += self._first_atom.repeat(self._num_rings).repeat(size)
        begin = size.cumsum() - size
        following = np.roll(atoms, -1)
        filled = size > 0
        following[(begin + size - 1)[filled]] = atoms[begin[filled]]
        return atoms, following

    def _in_rings(self, at: NDArray[np.int64], width: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sizes of rings, and the atoms of all of them counted within their molecules."""
        size = self._indices(at, width)
        each = width.repeat(size)
        before = np.arange(size.sum()) - (size.cumsum() - size).repeat(size)
        return size, self._indices(at.repeat(size) + (1 + before) * each, each)

    def _indices(self, place: NDArray[np.int64], width: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at places, each as wide as its molecule's indices."""
        found = self._bytes.take(place, mode="clip").astype(np.int64)
        wide = np.flatnonzero(width == _WIDE)
        if len(wide):
            found[wide] = self._int32(place[wide])
        return found

    def _int32(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of four bytes each at places; a negative one is taken for a large one, which nothing has."""
        four = self._bytes.take(place[:, None] + np.arange(4), mode="clip")
        return np.ascontiguousarray(four).view("<u4")[:, 0].astype(np.int64)

    def _field(self, bit: int, otherwise: int = 0) -> NDArray[np.uint8]:
        """What atoms say of one thing, and of those that do not the value that is not written."""
        values = self._bytes[self._atom_at + _PLACE[bit].take(self._has)]
        found: NDArray[np.uint8] = np.where(self._has & (1 << bit), values, np.uint8(otherwise))
        return found

    def _rare(self, flag: int, place: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What few bonds say, 0 for the others."""
        values = np.zeros(len(self._bond_at), dtype=np.uint8)
        saying = np.flatnonzero(self._bond_flags & flag)
        values[saying] = self._bytes[self._bond_at[saying] + place[self._bond_flags[saying]]]
        return values

    def _lengths_of_atoms(self, joined: bytes) -> NDArray[np.uint8]:
        """How long an atom would be that began at a byte, for each byte."""
        lengths = np.frombuffer(joined.translate(_ATOM_LENGTHS), dtype=np.uint8)
        found: NDArray[np.uint8] = lengths[2:-1] + ((self._bytes[3:] & _ISOTOPE) << 2)
        return found

    def _is_unknown_atom(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether anything is announced that is not read here, such as a query or a label."""
        byte = self._bytes.take
        unknown = byte(at + 1, mode="clip") & ~np.uint8(_ATOM_FLAGS)
        unknown |= byte(at + 2, mode="clip") & np.uint8(1)
        unknown |= byte(at + 3, mode="clip") & ~np.uint8(_ISOTOPE)
        unknown |= byte(at + 4, mode="clip")
        unknown |= byte(at + 5, mode="clip")
        return unknown > 0

    def _is_unknown_bond(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same of bonds."""
        byte = self._bytes.take
        flags = byte(at, mode="clip")
        unknown = (flags & ~np.uint8(_BOND_FLAGS)) > 0
        stereo = np.flatnonzero(flags & _HAS_STEREO)
        unknown[stereo] |= byte(at[stereo] + _STEREO_PLACE[flags[stereo]] + 1, mode="clip") != _STEREO_ATOMS
        return unknown


Read = Callable[[Binaries], "Codes"]
"""Says one thing of every atom or bond: an enum's number, a count, or a flag."""


def _known(
    header: NDArray[np.uint8], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Whether each molecule begins as those that are read, its atoms and bonds (else 0), and its indices' width."""
    good: NDArray[np.bool_] = (header[:, : len(_START)] == np.frombuffer(_START, dtype=np.uint8)).all(axis=1)
    good &= (header[:, _MARKS:_FIRST] == np.array(_BEFORE_ATOMS)).all(axis=1)
    major, minor, _, atoms, bonds = np.ascontiguousarray(header[:, _MAJOR:_MARKS]).view("<u4").astype(np.int64).T
    version = 1_000 * major + minor
    good &= np.isin(version, [1_000 * one + other for one, other in VERSIONS])
    # Each atom and each bond has bytes of its own; columns of uint16 point at atoms.
    good &= (atoms >= 1) & (atoms <= MOST_ATOMS) & (atoms + bonds + _FIRST <= lengths)
    atoms, bonds = atoms * good, bonds * good
    is_wide = (atoms > _MOST_NARROW) | ((version >= _BONDS_WIDEN) & (bonds > _MOST_NARROW))
    return good, atoms, bonds, np.where(is_wide, _WIDE, _NARROW)


def _lengths_of_bonds(joined: bytes, width: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """How long a bond would be of which the flags were a byte, for each byte, by the width in its molecule."""
    found = np.frombuffer(joined.translate(_BOND_LENGTHS[_NARROW]), dtype=np.uint8)
    if (width == _WIDE).any():
        found = found.copy()
        wide = np.flatnonzero((width == _WIDE).repeat(lengths))
        found[wide] = np.frombuffer(joined.translate(_BOND_LENGTHS[_WIDE]), dtype=np.uint8)[wide]
    return found


def _followed(
    lengths: NDArray[np.uint8], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each of so many items is, and where one more of each molecule would be; all molecules go in step."""
    order = np.argsort(-counts, kind="stable")
    place, ends = starts[order], np.empty_like(starts)
    target = (counts.cumsum() - counts)[order]
    found = np.empty(counts.sum(), dtype=np.int64)
    # How many molecules have more than so many items; they stand first.
    left = len(counts) - np.bincount(counts, minlength=1).cumsum()
    steps, active = int((left > _FEW).sum()), len(counts)
    for more in left[:steps].tolist():
        ends[order[more:active]] = place[more:]
        place, target, active = place[:more], target[:more], more
        found[target] = place
        place += lengths.take(place, mode="clip")
        target += 1
    # The few that are left, one by one.
    length_at, last = lengths.tobytes(), len(lengths) - 1
    starts_left = place.clip(max=last).tolist()
    for molecule, at, first in zip(order[:active].tolist(), starts_left, target.tolist(), strict=True):
        items = []
        for _ in range(counts[molecule] - steps):
            items.append(at)
            at = min(at + length_at[at], last)
        found[first : first + len(items)] = items
        ends[molecule] = at
    return found, ends


def _followed_rings(
    joined: bytes, starts: NDArray[np.int64], counts: NDArray[np.int64], width: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same of rings, each of which says at its beginning how many atoms it has; most molecules have few."""
    found, ends = [], []
    for at, count, step in zip(starts.tolist(), counts.tolist(), width.tolist(), strict=True):
        for _ in range(count):
            found.append(at)
            at += step * (1 + int.from_bytes(joined[at : at + step], "little"))
        ends.append(at)
    return np.array(found, dtype=np.int64), np.array(ends, dtype=np.int64)


def _any_of(flagged: NDArray[np.bool_], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether any item of each molecule is flagged, `(M,)`."""
    some = np.zeros(len(counts), dtype=np.bool_)
    if flagged.any():
        some[np.arange(len(counts)).repeat(counts)[flagged]] = True
    return some


def _pairs(one: NDArray[np.int64], other: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """A number for each pair of atoms, whichever comes first."""
    pairs: NDArray[np.int64] = np.minimum(one, other) * total + np.maximum(one, other)
    return pairs
