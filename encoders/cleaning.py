"""What becomes of molecules before pretraining: free ions dropped, small molecules left out, known ones told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from rdkit import Chem, rdBase


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """The rule of M3LLM, as far as it is known: free ions are discarded, molecules of less than five atoms ignored.

    What is left is written as canonical SMILES.

    Args:
        drop_ions: whether fragments of one heavy atom are dropped from molecules of several; metals go with them. All
            other fragments stay; the paper does not say more.
        min_atoms: heavy atoms that a molecule must have left.
    """

    drop_ions: bool = True
    min_atoms: Annotated[int, Ge(1)] = 5

    def cleaned(self, smiles: str) -> str | None:
        """The molecule after cleaning; None for one that is left out, which one that RDKit cannot parse is not."""
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            return smiles  # the feature store rejects it, with a reason
        fragments = list(Chem.GetMolFrags(molecule, asMols=True))
        if self.drop_ions:
            fragments = [fragment for fragment in fragments if fragment.GetNumHeavyAtoms() > 1]
        if sum(fragment.GetNumHeavyAtoms() for fragment in fragments) < self.min_atoms:
            return None
        return ".".join(sorted(Chem.MolToSmiles(fragment) for fragment in fragments))


def connectivity(smiles: str) -> str | None:
    """The first block of the InChIKey, which leaves out stereo and isotopes; None where there is no InChI."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            return None
        key = str(Chem.MolToInchiKey(molecule))  # type: ignore[no-untyped-call]
    return key.partition("-")[0] or None
