"""Facts about molecules that can be checked: sizes, rings and functional groups, and the words that name the latter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True, slots=True)
class Group:
    """A functional group.

    Args:
        smarts: what it looks like.
        words: a regular expression for the words by which a description names it.
    """

    smarts: str
    words: str


GROUPS = {
    "carboxylic acid": Group("[CX3](=O)[OX2H1]", r"(?:carboxylic|(?:\w+oic|\w+ic)) acid"),
    "carboxylate": Group("[CX3](=O)[O-]", r"carboxylate|\w+(?:oate|ate)(?:\(1-\))? anion|anion"),
    "ester": Group("[CX3](=O)[OX2H0][#6]", r"ester|\w+yl \w+oate|lactone"),
    "amide": Group("[CX3](=O)[NX3]", r"amide|peptide|lactam"),
    "primary amine": Group("[NX3;H2;!$(NC=[O,S,N]);!$(N[!#6])][#6]", r"amine|amino"),
    "hydroxyl": Group("[OX2H][CX4]", r"alcohol|hydroxy|diol|triol|glyco|\w+ol\b"),
    "phenol": Group("[OX2H]c", r"phenol|hydroxy"),
    "ether": Group("[OD2]([#6;!$(C=O)])[#6;!$(C=O)]", r"ether|methoxy|ethoxy|alkoxy"),
    "ketone": Group("[#6][CX3](=O)[#6]", r"ketone|oxo|\w+one\b"),
    "aldehyde": Group("[CX3H1](=O)[#6]", r"aldehyde|\w+al\b"),
    "halogen": Group("[F,Cl,Br,I]", r"halogen|fluor|chlor|brom|iod"),
    "nitro": Group("[$([NX3](=O)=O),$([NX3+](=O)[O-])]", r"nitro"),
    "phosphate": Group("[PX4](=O)([OX2,OX1-])[OX2,OX1-]", r"phosph"),
    "sulfonyl": Group("[SX4](=O)(=O)", r"sulf"),
    "aromatic ring": Group("a", r"aromatic|benzen|phenyl|arene|pyridin|indol|naphth"),
}
"""By name. The words are those of ChEBI-like descriptions; they name some groups only loosely."""

COUNTS = ("atoms", "rings")


def facts_of(smiles: str) -> dict[str, int]:
    """Heavy atoms, rings, and for each functional group 1 or 0.

    Raises:
        TaskError: RDKit cannot parse it.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise TaskError(f"{smiles!r}: RDKit cannot parse it")
    counts = {"atoms": molecule.GetNumHeavyAtoms(), "rings": molecule.GetRingInfo().NumRings()}
    return counts | {name: int(_has(molecule, name)) for name in GROUPS}


def groups_named(text: str) -> dict[str, int]:
    """For each functional group 1 where a text names it, else 0."""
    return {name: int(_words(name).search(text) is not None) for name in GROUPS}


def _has(molecule: Mol, name: str) -> bool:
    return bool(molecule.HasSubstructMatch(_pattern(name)))


@cache
def _pattern(name: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts(GROUPS[name].smarts)


@cache
def _words(name: str) -> re.Pattern[str]:
    return re.compile(GROUPS[name].words, re.IGNORECASE)
