"""What an encoder is: a declaration of the levels it provides, the features it reads, and the module it builds.

Every representation is ragged: the rows of all molecules are concatenated and `ptr` says where each one begins, so no
code here or downstream pads, masks or branches on a molecule's size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from encoders.errors import EncoderError as EncoderError
from encoders.errors import RejectedMoleculeError as RejectedMoleculeError
from encoders.tensor_files import read_state as read_state

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol

Level = str
"""A named granularity: `atom`, `motif`, `graph`, `layer:k`, `smiles`, `fingerprint`."""

Counts = Mapping[str, "NDArray[np.int64]"]
"""Rows of each molecule, `(B,)` per name."""


CONTENT: Mapping[str, bool] = MappingProxyType({"content": True})
"""Metadata of a field that names a file, folder or hub model: what that holds is part of a run's identity."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of several molecules, concatenated.

    Args:
        values: `(sum n, ...)`.
        ptr: `(B + 1,)` int64; molecule `b` owns rows `ptr[b]:ptr[b + 1]`.
    """

    values: Tensor
    ptr: Tensor

    def counts(self) -> Tensor:
        """Rows of each molecule, `(B,)` int64."""
        return self.ptr[1:] - self.ptr[:-1]

    def molecule_of_row(self) -> Tensor:
        """The molecule that each row belongs to, `(sum n,)` int64."""
        return torch.repeat_interleave(self.counts(), output_size=self.values.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Ragged:
        """The same rows on another device."""
        return Ragged(self.values.to(device, non_blocking=non_blocking), self.ptr.to(device, non_blocking=non_blocking))


@dataclass(frozen=True, slots=True)
class MoleculeBatch:
    """Features of several molecules, as a feature store reads them.

    Args:
        size: the number of molecules, B.
        columns: by column name, as the feature schemes declare them; columns that index others are already shifted to
            positions in the concatenation.
        keys: `(B,)` int64, a number that depends on nothing but the molecule, for controls that draw at random; None
            where nobody draws.
        encoded: what a frozen encoder made of these molecules before; it is then read in the place of `columns`, of
            which there may be none.
    """

    size: int
    columns: Mapping[str, Ragged]
    keys: Tensor | None = None
    encoded: MoleculeEncoding | None = None

    def __getitem__(self, name: str) -> Ragged:
        return self.columns[name]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MoleculeBatch:
        """The same batch on another device."""
        columns = {name: column.to(device, non_blocking) for name, column in self.columns.items()}
        keys = None if self.keys is None else self.keys.to(device, non_blocking=non_blocking)
        encoded = None if self.encoded is None else self.encoded.to(device, non_blocking)
        return MoleculeBatch(self.size, columns, keys, encoded)


@dataclass(frozen=True)  # without slots: DeepSpeed looks into what a module returns by `vars`
class MoleculeEncoding:
    """What an encoder says about several molecules.

    Args:
        size: the number of molecules, B.
        levels: by level, float rows `(sum n, width)`.
    """

    size: int
    levels: Mapping[Level, Ragged]

    def __getitem__(self, level: Level) -> Ragged:
        return self.levels[level]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MoleculeEncoding:
        """The same encoding on another device."""
        levels = {level: rows.to(device, non_blocking) for level, rows in self.levels.items()}
        return MoleculeEncoding(self.size, levels)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a feature store.

    Args:
        dtype: the narrow numpy type in which it is kept on disk.
        shape: the shape of one row, `()` for a scalar.
        indexes: what this one's values point at, within the molecule: `atom`, or a column of the same scheme, whose
            rows they number from 0; None for plain values.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    indexes: str | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureScheme(ABC):
    """How a molecule becomes numbers. A factor of its own: the same encoder reads different schemes in each paper."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @abstractmethod
    def columns(self) -> Mapping[str, Column]:
        """The columns that `featurise` fills."""

    def sources(self) -> tuple[str, ...]:
        """Files, folders or hub models that decide what `featurise` gives, such as a tokenizer."""
        return ()

    @abstractmethod
    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:
        """One molecule's rows per column, atoms in RDKit's order.

        Raises:
            RejectedMoleculeError: the scheme cannot express this molecule.
        """


@dataclass(frozen=True, kw_only=True)
class GraphScheme(FeatureScheme):
    """A scheme of categorical atom and bond features: the columns `atom`, `bond` and `bond_ends`.

    `atom` is `(n, len(atom_sizes))`; `bond` is `(e, len(bond_sizes))` and `bond_ends` `(e, 2)`, each bond standing
    twice, once per direction.

    `self_loop` is the bond features of an atom's message to itself; None where the scheme has no row for them, and
    an atom's message to itself then carries no bond.

    `mask_atom` and `mask_bond` are the features of a hidden atom or bond, in a row that no other has; None where the
    scheme has no such row, and pretraining then cannot hide any.
    """

    self_loop: ClassVar[tuple[int, ...] | None] = None
    mask_atom: ClassVar[tuple[int, ...] | None] = None
    mask_bond: ClassVar[tuple[int, ...] | None] = None

    @abstractmethod
    def atom_sizes(self) -> tuple[int, ...]:
        """The number of values of each atom feature."""

    @abstractmethod
    def bond_sizes(self) -> tuple[int, ...]:
        """The number of values of each bond feature, those that no bond has (self loop, mask) included."""

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        return {
            "atom": Column("uint8", (len(self.atom_sizes()),)),
            "bond": Column("uint8", (len(self.bond_sizes()),)),
            "bond_ends": Column("uint16", (2,), indexes="atom"),
        }


@dataclass(frozen=True, kw_only=True)
class Segmenter(ABC):
    """How a molecule falls into motifs: sets of atoms that may overlap and need not cover it."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    description_width: ClassVar[int] = 0
    """Features that `describe` gives each motif; 0 where motifs are their atoms and nothing else."""

    @abstractmethod
    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:
        """The atoms of each motif, ascending; motifs by their smallest atom, then by the rest. None may be empty.

        Raises:
            RejectedMoleculeError: the rule cannot be applied to this molecule.
        """

    def describe(self, molecule: Mol, motifs: Sequence[Sequence[int]]) -> NDArray[np.integer]:
        """Features of each motif, `(m, description_width)` of small non-negative integers."""
        return np.zeros((len(motifs), self.description_width), dtype=np.uint8)


class EncoderModule(nn.Module):
    """The module that an encoder's declaration builds."""

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """Encodes a batch.

        Args:
            batch: the columns of the encoder's feature schemes.
            levels: the levels that somebody reads; others need not be computed.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Encoder(ABC):
    """The declaration of an encoder. One subclass and its module, one file."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    @classmethod
    def small(cls) -> Self:
        """An instance for tests, small where the defaults are large."""
        return cls()

    @abstractmethod
    def provides(self) -> Mapping[Level, int]:
        """The width of every level that comes out."""

    @abstractmethod
    def build(self) -> EncoderModule:
        """The module, freshly initialised from torch's global generator (the caller seeds it). No network."""

    def features(self) -> tuple[FeatureScheme, ...]:
        """The feature schemes whose columns the module reads."""
        return ()

    @property
    def is_trainable(self) -> bool:
        """Whether a stage may train it; a control that stays at its initialisation says no."""
        return True

    @property
    def depends_on_batch(self) -> bool:
        """Whether a molecule's encoding depends on its neighbours in a batch, as some released code's does."""
        return False

    def sources(self) -> tuple[str, ...]:
        """Files, folders or hub models that `load` and the features read; their content is part of the identity."""
        return tuple(source for scheme in self.features() for source in scheme.sources())

    def load(self, module: EncoderModule) -> None:  # noqa: B027 - most have nothing to load
        """Puts pretrained weights into a module that `build` made; without any it stays as it is. No network.

        Raises:
            EncoderError: the file does not hold exactly this module's tensors.
        """

    def rows(self, counts: Counts, size: int) -> Counts:
        """The rows of each molecule at every level, known before anything is encoded.

        Args:
            counts: rows of each molecule per column of the feature store.
            size: the number of molecules, B.
        """
        one = np.ones(size, dtype=np.int64)
        per_level = {}
        for level in self.provides():
            column = "atom" if level.startswith("layer:") else level
            per_level[level] = counts[column] if column in {"atom", "motif"} else one
        return per_level


Transform = Callable[[MoleculeEncoding, "Tensor | None"], MoleculeEncoding]
"""Gives another representation in the place of an encoder's, from it and the molecules' keys."""


def unchanged(encoding: MoleculeEncoding, keys: Tensor | None) -> MoleculeEncoding:
    """The representation as it is."""
    return encoding


@dataclass(frozen=True, kw_only=True)
class GraphInput(ABC):
    """What stands in for the graph of a molecule: the real one, or a control in which it carries no information."""

    name: ClassVar[str]
    version: ClassVar[int] = 1

    def substitute(self, molecules: Sequence[str], sizes: Sequence[int], seed: int) -> Sequence[str]:
        """The molecule whose graph is read in the place of each one.

        Args:
            molecules: distinct SMILES.
            sizes: their numbers of atoms.
            seed: what a random choice starts from.

        Raises:
            EncoderError: no substitute exists.
        """
        return molecules

    @property
    def keeps_size(self) -> bool:
        """Whether a substitute is meant to have as many atoms; pairs that could not be matched are then left out."""
        return False

    @property
    def is_redrawn(self) -> bool:
        """Whether training draws new substitutes in every epoch."""
        return False

    @property
    def is_for_test_only(self) -> bool:
        """Whether training on it would be no control, since some molecules keep their own graph."""
        return False

    def counts(self, molecule: str, substitute: str) -> bool:
        """Whether a substitute is of the kind that is meant; a pair that is not is left out of a measurement."""
        return True

    def check(self, columns: Collection[str]) -> None:  # noqa: B027 - most can alter whatever there is
        """Makes sure that it can alter what an encoder reads.

        Raises:
            EncoderError: a column tells of the molecule in a way that it leaves as it is, or one is missing.
        """

    @property
    def alters(self) -> bool:
        """Whether the encoder reads other features than those of the molecules that it is given."""
        return type(self).alter is not GraphInput.alter

    def alter(self, batch: MoleculeBatch) -> MoleculeBatch:
        """The features that the encoder reads in the place of the molecules' own.

        Raises:
            EncoderError: the batch holds columns that this input cannot alter.
        """
        return batch

    def fit(self, sample: Callable[[], MoleculeEncoding]) -> Transform:
        """What turns the encoder's representation into the one that the projector reads.

        Args:
            sample: encodes some of the training molecules, for what matches their moments.
        """
        return unchanged


def with_values(encoding: MoleculeEncoding, values: Mapping[Level, Tensor]) -> MoleculeEncoding:
    """The encoding with the rows of some levels replaced by others of equal number."""
    replaced = {level: replace(encoding[level], values=rows) for level, rows in values.items()}
    return MoleculeEncoding(encoding.size, {**encoding.levels, **replaced})
