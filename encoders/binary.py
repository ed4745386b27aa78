"""RDKit's binary form of molecules, read for many molecules at a time by numpy.

`Mol.ToBinary` is several times faster than asking each atom and bond of a molecule through Python, and says all that
the feature schemes read. Its layout is RDKit's own affair, though: what is read here was found in versions 16.3 and
16.4 of it, every molecule with anything in it that is not known here is left out, and `binary_schemes` compares what is
read with RDKit's answers before any of it is used.

The layout, all numbers little-endian: a header of 20 bytes with the version, the numbers of atoms and bonds as int32,
and two marks. For each atom its number, flags, an int32 that says which of charge, chirality and so on follow, and
those. A mark; for each bond its two atoms, flags, and what these announce of type, direction and stereo. A mark; the
number of rings as int32, and for each ring its size and its atoms. Molecules of more than 255 atoms have wider indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8] | NDArray[np.int64] | NDArray[np.bool_]

VERSIONS = ((16, 3), (16, 4))
"""Major and minor version of the layouts that are read here."""

MOST = 255  # atoms, and bonds, of which the indices have one byte

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
_DIRECTION_PLACE = 3 + ((_CODES & _HAS_TYPE) > 0)
_STEREO_PLACE = _DIRECTION_PLACE + ((_CODES & _HAS_DIRECTION) > 0)
# The same as tables through which all bytes can be put at once: lengths by the first byte of an atom's int32 and by a
# bond's flags, the latter without its stereo atoms, whose number is the last byte of that length.
_ATOM_LENGTHS = _ATOM_LENGTH.astype(np.uint8).tobytes()
_BOND_LENGTHS = (_STEREO_PLACE + 2 * ((_CODES & _HAS_STEREO) > 0)).astype(np.uint8).tobytes()
_STEREO_LENGTHS = np.where(_CODES & _HAS_STEREO, _STEREO_PLACE + 2, 0).astype(np.uint8).tobytes()
_MOST_STEREO_ATOMS = 3  # of two bits; RDKit writes two or none


class Binaries:
    """Several molecules, of which only those that are fully understood are read.

    Attributes:
        is_read: whether each molecule is, `(M,)`; whatever follows is of those that are.
        num_atoms, num_bonds: of each, `(n,)` int64.
        begin, end: the atoms of each bond counted within its molecule, `(b,)` uint8.

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
        good = _is_known(header) & (lengths > _FIRST)
        num_atoms = header[:, _ATOMS].astype(np.int64) * good
        num_bonds = header[:, _BONDS].astype(np.int64) * good

        atom_at, place = self._followed(self._lengths_of_atoms(joined), starts + _FIRST, num_atoms)
        good &= self._bytes.take(place, mode="clip") == _BEFORE_BONDS
        bond_at, place = self._followed(self._lengths_of_bonds(joined), place + 1, num_bonds)
        good &= self._bytes.take(place, mode="clip") == _BEFORE_RINGS
        num_rings = self._int32(place + 1)
        good &= (num_rings >= 0) & (num_rings <= MOST)
        good &= ~_any_of(self._is_unknown_atom(atom_at), num_atoms)
        good &= ~_any_of(self._is_unknown_bond(bond_at, num_atoms.repeat(num_bonds)), num_bonds)
        num_rings *= good
        ring_at, place = self._followed_rings(place + 5, num_rings)
        good &= place <= starts + lengths
        ring_size, ring_atoms = self._in_rings(ring_at)
        per_ring = np.arange(len(good)).repeat(num_rings).repeat(ring_size)
        good[per_ring[ring_atoms >= num_atoms[per_ring]]] = False
        if not good.all():
            atom_at, bond_at = atom_at[good.repeat(num_atoms)], bond_at[good.repeat(num_bonds)]
            ring_at = ring_at[good.repeat(num_rings)]
        self.is_read = good
        self.num_atoms, self.num_bonds = num_atoms[good], num_bonds[good]
        self._num_rings = num_rings[good]
        self._atom_at, self._bond_at, self._ring_at = atom_at, bond_at, ring_at
        self._has = self._bytes[atom_at + 2]
        self._bond_flags = self._bytes[bond_at + 2]
        self.begin, self.end = self._bytes[bond_at], self._bytes[bond_at + 1]

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
        return np.where((self._bond_flags & _HAS_TYPE) > 0, self._bytes[self._bond_at + 3], np.uint8(_SINGLE))

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
        size, atoms = self._in_rings(self._ring_at)
        atoms += self._first_atom.repeat(self._num_rings).repeat(size)
        begin = size.cumsum() - size
        following = np.roll(atoms, -1)
        filled = size > 0
        following[(begin + size - 1)[filled]] = atoms[begin[filled]]
        return atoms, following

    def _in_rings(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sizes of rings, and the atoms of all of them counted within their molecules."""
        size = self._bytes[at.clip(max=len(self._bytes) - 1)].astype(np.int64)
        place = np.arange(size.sum()) + (at + 1 - (size.cumsum() - size)).repeat(size)
        return size, self._bytes.take(place, mode="clip").astype(np.int64)

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

    def _lengths_of_bonds(self, joined: bytes) -> NDArray[np.uint8]:
        """The same of bonds."""
        lengths = np.frombuffer(joined.translate(_BOND_LENGTHS), dtype=np.uint8)[2:].copy()
        with_stereo = np.frombuffer(joined.translate(_STEREO_LENGTHS), dtype=np.uint8)[2:]
        for length in range(5, 8):
            stereo_atoms = self._bytes[length - 1 :] & _MOST_STEREO_ATOMS
            lengths[: len(stereo_atoms)] += (with_stereo[: len(stereo_atoms)] == length) * stereo_atoms
        return lengths

    @staticmethod
    def _followed(
        lengths: NDArray[np.uint8], starts: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each of so many items begins and where the last one of each molecule ends, all molecules in step."""
        order = np.argsort(-counts, kind="stable")
        place, ends = starts[order], np.empty_like(starts)
        target = (counts.cumsum() - counts)[order]
        found = np.empty(counts.sum(), dtype=np.int64)
        # How many molecules have more than so many items; they stand first.
        left = len(counts) - np.bincount(counts, minlength=1).cumsum()
        active = len(counts)
        for more in left.tolist():
            ends[order[more:active]] = place[more:]
            place, target, active = place[:more], target[:more], more
            found[target] = place
            place += lengths.take(place, mode="clip")
            target += 1
        return found, ends

    def _followed_rings(
        self, starts: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same of rings, each of which says at its beginning how many atoms it has."""
        found = np.empty(counts.sum(), dtype=np.int64)
        place, target = starts.copy(), counts.cumsum() - counts
        left = np.flatnonzero(counts)
        for done in range(int(counts.max(initial=0))):
            left = left[counts[left] > done]
            found[target[left] + done] = place[left]
            place[left] += 1 + self._bytes.take(place[left], mode="clip").astype(np.int64)
        return found, place

    def _is_unknown_atom(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether anything is announced that is not read here, such as a query or a label."""
        byte = self._bytes.take
        unknown = byte(at + 1, mode="clip") & ~np.uint8(_ATOM_FLAGS)
        unknown |= byte(at + 2, mode="clip") & np.uint8(1)
        unknown |= byte(at + 3, mode="clip") & ~np.uint8(_ISOTOPE)
        unknown |= byte(at + 4, mode="clip")
        unknown |= byte(at + 5, mode="clip")
        return unknown > 0

    def _is_unknown_bond(self, at: NDArray[np.int64], num_atoms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same of bonds, and whether one is with an atom that is not there."""
        byte = self._bytes.take
        flags = byte(at + 2, mode="clip")
        unknown = (flags & ~np.uint8(_BOND_FLAGS)) > 0
        stereo = np.flatnonzero(flags & _HAS_STEREO)
        unknown[stereo] |= byte(at[stereo] + _STEREO_PLACE[flags[stereo]] + 1, mode="clip") > _MOST_STEREO_ATOMS
        return unknown | (np.maximum(byte(at, mode="clip"), byte(at + 1, mode="clip")) >= num_atoms)

    def _int32(self, place: NDArray[np.int64]) -> NDArray[np.int64]:
        four = self._bytes.take(place[:, None] + np.arange(4), mode="clip")
        return np.ascontiguousarray(four).view("<i4")[:, 0].astype(np.int64)


Read = Callable[[Binaries], "Codes"]
"""Says one thing of every atom or bond: an enum's number, a count, or a flag."""


def _is_known(header: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each molecule begins as those that are read here, and has few enough atoms and bonds."""
    known: NDArray[np.bool_] = (header[:, : len(_START)] == np.frombuffer(_START, dtype=np.uint8)).all(axis=1)
    known &= (header[:, _MARKS:_FIRST] == np.array(_BEFORE_ATOMS)).all(axis=1)
    numbers = np.ascontiguousarray(header[:, _MAJOR:_MARKS]).view("<i4")
    major, minor, _, atoms, bonds = numbers.T
    known &= np.logical_or.reduce([(major == one) & (minor == other) for one, other in VERSIONS])
    known &= (atoms >= 1) & (atoms <= MOST) & (bonds >= 0) & (bonds <= MOST)
    return known


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
