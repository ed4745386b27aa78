"""Other spellings of a molecule: the same atoms in another order."""

from __future__ import annotations

import numpy as np
from rdkit import Chem

from encoders.base import EncoderError


def respelled(smiles: str, seed: int) -> tuple[str, list[int]]:
    """A SMILES of the same molecule whose atoms stand in another, random order.

    Returns:
        The SMILES, and for each of its atoms the position that the atom has in `smiles`.

    Raises:
        EncoderError: RDKit cannot parse it.
    """
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise EncoderError(f"{smiles!r}: RDKit cannot parse it")
    order = np.random.default_rng(seed).permutation(molecule.GetNumAtoms()).tolist()
    shuffled = Chem.RenumberAtoms(molecule, order)
    text = Chem.MolToSmiles(shuffled, canonical=False)
    written = list(shuffled.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"])
    return text, [order[position] for position in written]
