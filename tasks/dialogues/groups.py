"""Functional groups as conversations speak of them: the words, and what certainly and what possibly is one.

Chemists draw the line differently (is the hydroxy group of an acid a hydroxy group? is an acetal's oxygen an ether?).
So each group has two patterns: `surely`, which all would call so, and `perhaps`, which some would. To say that there is
one is wrong only where nothing matches `perhaps`; to say that there is none only where something matches `surely`; a
count is right from the one number to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rdkit.Chem import Mol


@dataclass(frozen=True, slots=True)
class GroupWords:
    """A functional group.

    Args:
        words: a regular expression for the group's name in a sentence, without the word "group" behind it.
        surely: SMARTS whose first atom stands for one group, by the narrow reading.
        perhaps: the same by the wide reading; it matches wherever `surely` does.
    """

    words: str
    surely: str
    perhaps: str


NAMED_GROUPS = {
    "carboxylic acid": GroupWords(
        r"carboxylic acid|carboxyl|carboxy",
        surely="[CX3;$(C(=O)[OX2H1])]",
        perhaps="[CX3;$(C(=O)[OX2H1,OX1-])]",
    ),
    "carboxylate": GroupWords(
        r"carboxylate",
        surely="[CX3;$(C(=O)[OX1-])]",
        perhaps="[CX3;$(C(=O)[OX1-,OX2])]",
    ),
    "ester": GroupWords(  # carbonates, carbamates, thioesters, esters of inorganic acids: perhaps
        r"(?:carboxylic )?ester",
        surely="[CX3;$(C(=O)[OX2H0][#6;!$(C=O)]);!$(C([OX2])[OX2,N]);$(C[#6]),$([CH])]",
        perhaps="[#5,#6,#7,#14,#15,#16;$(*=[O,S]),#5,#14;$(*[O,o,S;X2;H0][#6])]",
    ),
    "amide": GroupWords(  # imides, ureas, sulfonamides, lactams that are aromatic: perhaps
        r"(?:carbox)?amide",
        surely="[CX3;$(C[#6]),$([CH]);$(C(=O)[NX3;!$(N[!#6;!#1]);!$(N(C=O)C=O)])]",
        perhaps="[#6,#15,#16;$([#6](=[O,S])[#7]),$([#6]([O-])~[#7]),$([#15,#16](=O)[#7]),$([#6](O)=[#7])]",
    ),
    "amino": GroupWords(
        r"amino|amine",
        surely="[NX3;H2;$(N[CX4,c]);!$(N[#6]=[O,S,N])]",
        perhaps="[#7;!$([#7](~[O])~[O]);!$(N#*)]",
    ),
    "alcohol": GroupWords(
        r"alcohol",
        surely="[OX2H;$(O[CX4;!$(C([OX2])[OX2,N,S])])]",
        perhaps="[OX2H]",
    ),
    "hydroxy": GroupWords(
        r"hydroxyl|hydroxy",
        surely="[OX2H;$(O[CX4;!$(C([OX2])[OX2,N,S])]),$(Oc)]",
        perhaps="[OX2H]",
    ),
    "phenol": GroupWords(
        r"phenol|phenolic hydroxyl|phenolic hydroxy",
        surely="[OX2H;$(Oc1ccccc1)]",
        perhaps="[OX2H,OX1-;$(Oc)]",
    ),
    "ether": GroupWords(  # rings, acetals, thioethers: perhaps
        r"ether",
        surely="[OX2;!R;$(O([CX4;!$(C([OX2])[OX2,N,S])])[CX4,c;!$(C([OX2])[OX2,N,S])]),$(O(c)c)]",
        perhaps="[O,o,S;X2;H0;$(*([#6,#14])[#6,#14]);!$(*[#6]=[O,S])]",
    ),
    "ketone": GroupWords(  # quinones, enols, ring carbonyls that are aromatic: perhaps
        r"ketone|keto",
        surely="[CX3;$(C(=O)([CX4])[CX4,c]),$([CX3;!R](=O)(c)c)]",
        perhaps="[#6;$([#6](=O)([#6])[#6]),$(C([OX2H,OX1-])=C)]",
    ),
    "aldehyde": GroupWords(
        r"aldehyde|formyl",
        surely="[CX3H1;$(C(=O)[#6])]",
        perhaps="[CX3;H1,H2;$(C=O)]",
    ),
    "nitro": GroupWords(
        r"nitro",
        surely="[N;$([NX3+](=O)[O-]),$(N(=O)=O);$(N[#6])]",
        perhaps="[N;$([N+](=O)[O-]),$(N(=O)=O)]",
    ),
    "nitrile": GroupWords(
        r"nitrile|cyano|cyanide",
        surely="[CX2;$(C(#[NX1])[#6])]",
        perhaps="[#6;$(C#N),$([C-]#N)]",
    ),
    "thiol": GroupWords(
        r"thiol|sulfanyl|sulfhydryl|mercapto",
        surely="[SX2H;$(S[CX4,c])]",
        perhaps="[S;H1,H2,$([SX1-]),$([SX1]=[#6])]",
    ),
    "sulfonamide": GroupWords(
        r"sulfonamide|sulphonamide",
        surely="[SX4;$(S(=O)(=O)([#6])[NX3])]",
        perhaps="[S;$(S(=O)(=O)[#7]),$(S(=O)[#7])]",
    ),
    "methoxy": GroupWords(
        r"methoxy",
        surely="[CH3;$(C[OX2][c,CX4])]",
        perhaps="[CH3;$(C[OX2])]",
    ),
    "halogen": GroupWords(
        r"halogen",
        surely="[F,Cl,Br,I;$(*[#6])]",
        perhaps="[F,Cl,Br,I,At]",
    ),
    "phosphate": GroupWords(
        r"phosphate|phospho|phosphoryl",
        surely="[P;$(P(=O)([OX2H,OX1-])([OX2H,OX1-])[OX2][CX4,c])]",
        perhaps="[#15]",
    ),
    "epoxide": GroupWords(
        r"epoxide|oxirane|epoxy",
        surely="[OX2r3;$(O1[#6][#6]1)]",
        perhaps="[OX2r3]",
    ),
}


def group_range(molecule: Mol, name: str) -> tuple[int, int]:
    """How many groups of that name a molecule has by the narrow and by the wide reading."""
    return _count(molecule, NAMED_GROUPS[name].surely), _count(molecule, NAMED_GROUPS[name].perhaps)


def _count(molecule: Mol, smarts: str) -> int:
    matches = molecule.GetSubstructMatches(_pattern(smarts), maxMatches=molecule.GetNumAtoms() + 1)
    return len({match[0] for match in matches})


@cache
def _pattern(smarts: str) -> Any:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)
