"""Morgan fingerprints: the feature scheme, and the encoder that hands them on as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import torch
from annotated_types import Interval
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

from encoders.base import (
    Column,
    Encoder,
    EncoderModule,
    FeatureScheme,
    Level,
    MoleculeBatch,
    MoleculeEncoding,
    Ragged,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol


@dataclass(frozen=True, kw_only=True)
class Morgan(FeatureScheme):
    """The Morgan fingerprint: circular environments of atoms, hashed to bits.

    Column `fingerprint_bit` holds the set bits, ascending; with `counts` also `fingerprint_count`, how many
    environments fell on each of them.

    Args:
        radius: of the largest environment, in bonds; 2 in MolX (`datasets/molx/generation.py`, `get_fp_vec`).
        bits: length of the fingerprint; 2048 there.
        counts: whether environments are counted; no in MolX.
    """

    name: ClassVar[str] = "morgan"

    radius: Annotated[int, Interval(ge=0, le=10)] = 2
    bits: Annotated[int, Interval(ge=1, le=65_536)] = 2048
    counts: bool = False

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        counted = {"fingerprint_count": Column("uint32")} if self.counts else {}
        return {"fingerprint_bit": Column("uint16"), **counted}

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        generator = _generator(self.radius, self.bits)
        if not self.counts:
            return {"fingerprint_bit": np.array(generator.GetFingerprint(molecule).GetOnBits(), dtype=np.uint16)}
        found = sorted(generator.GetCountFingerprint(molecule).GetNonzeroElements().items())
        return {
            "fingerprint_bit": np.array([bit for bit, _ in found], dtype=np.uint16),
            "fingerprint_count": np.array([count for _, count in found], dtype=np.uint32),
        }


@dataclass(frozen=True, kw_only=True)
class Fingerprint(Encoder):
    """The fingerprint itself, without any parameters.

    Provides `fingerprint`, one row per molecule as wide as there are bits: 0 and 1, or the counts.

    Args:
        scheme: which fingerprint.
    """

    name: ClassVar[str] = "fingerprint"

    scheme: Morgan = field(default_factory=Morgan)

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(scheme=Morgan(bits=64))

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        return {"fingerprint": self.scheme.bits}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return (self.scheme,)

    @property
    def is_trainable(self) -> bool:  # noqa: D102 - inherited
        return False

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return FingerprintModule(self)


class FingerprintModule(EncoderModule):
    """Spells the set bits out as rows."""

    def __init__(self, declaration: Fingerprint) -> None:
        super().__init__()
        self.declaration = declaration

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads `fingerprint_bit`, and `fingerprint_count` where environments count."""
        if "fingerprint" not in levels:
            return MoleculeEncoding(batch.size, {})
        scheme, bits = self.declaration.scheme, batch["fingerprint_bit"]
        rows = torch.zeros((batch.size, scheme.bits), device=bits.values.device)
        said = (
            batch["fingerprint_count"].values.to(rows.dtype)
            if scheme.counts
            else torch.ones_like(bits.values, dtype=rows.dtype)
        )
        rows[bits.molecule_of_row(), bits.values] = said
        ptr = torch.arange(batch.size + 1, device=rows.device)
        return MoleculeEncoding(batch.size, {"fingerprint": Ragged(rows, ptr)})


@cache
def _generator(radius: int, bits: int) -> Any:
    return GetMorganGenerator(radius=radius, fpSize=bits)
