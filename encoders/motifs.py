"""Motifs: how molecules fall into groups of atoms, and the feature scheme that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from rdkit.Chem import BRICS, GetMolFrags

from encoders.base import Column, FeatureScheme, Segmenter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rdkit.Chem import Mol


@dataclass(frozen=True, kw_only=True)
class Brics(Segmenter):
    """Connected components of the molecule without its BRICS bonds: a partition of the atoms."""

    name: ClassVar[str] = "brics"

    def motifs(self, molecule: Mol) -> Sequence[Sequence[int]]:  # noqa: D102 - inherited
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MotifScheme(FeatureScheme):
    """The atoms of each motif, and what the segmenter says of it.

    Columns: `motif` `(m,)` the number of its atoms; `motif_atom` and `motif_of` `(k,)`, one pair per membership: an
    atom, and the motif that it is in; `motif_description` `(m, description_width)` where the segmenter describes.

    Args:
        segmenter: the rule.
        fallback: what a molecule without any motif has: none, or one motif of all its atoms.
    """

    name: ClassVar[str] = "motifs"

    segmenter: Segmenter = field(default_factory=Brics)
    fallback: Literal["none", "whole_molecule"] = "whole_molecule"

    def columns(self) -> Mapping[str, Column]:  # noqa: D102 - inherited
        described = self.segmenter.description_width
        return {
            "motif": Column("uint16"),
            "motif_atom": Column("uint16", indexes="atom"),
            "motif_of": Column("uint16", indexes="motif"),
            **({"motif_description": Column("uint8", (described,))} if described else {}),
        }

    def featurise(self, molecule: Mol, smiles: str) -> Mapping[str, NDArray[np.integer | np.floating]]:  # noqa: D102 - inherited
        raise NotImplementedError
