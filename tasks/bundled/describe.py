"""Plain sentences about a molecule, each computed from its graph and true by a definition that stands here.

What a phrase counts:

- *X ring*: a ring of the smallest set of smallest rings with X's elements and bonds, in order around the ring. One of
  no known kind is a *six-membered ring*. It is *fused* where it shares a bond with another ring.
- *groups at positions*: atoms outside the only, unfused benzene ring bonded to it, with the lowest set of numbers.
- *methoxy group*: CH3-O- on a carbon that is no carbonyl and no CH3; *methyl group*: every other CH3.
- *amine* and *ether*: N and O outside rings with only hydrogen and carbon around them, the carbons being no carbonyl
  or nitrile; a methoxy group is not counted again as an ether. *hydroxy group*: OH on a carbon that is no carbonyl.
- element *atoms* are counted for halogens, and in a compound without carbon for all elements.
- *chain*: the longest path of carbon atoms bonded to each other and in no ring.
- *R* and *S centre*, *E* and *Z double bond*: as stated in the SMILES; unstated ones are not mentioned.

Every phrase has its fixed place, so the text is a function of the graph alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rdkit import Chem

_NUMBERS = (
    "no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_COUNTS = tuple(_NUMBERS.split())

# Element symbols around a ring (lower case: aromatic; = marks a double bond between the atoms beside it), its name.
# Benzene comes last so that the positions on it can follow it.
_RINGS = (
    ("c n c n c c", "pyrimidine"),
    ("c c n c c n", "pyrazine"),
    ("c c c c c n", "pyridine"),
    ("c c c c o", "furan"),
    ("c c c c s", "thiophene"),
    ("c c c c n", "pyrrole"),
    ("c c n c n", "imidazole"),
    ("c c c n n", "pyrazole"),
    ("c c n c o", "oxazole"),
    ("c c n c s", "thiazole"),
    ("C C C", "cyclopropane"),
    ("C C C C", "cyclobutane"),
    ("C C C C C", "cyclopentane"),
    ("C C C C C C", "cyclohexane"),
    ("C C C C C=C", "cyclohexene"),
    ("C C C C N", "pyrrolidine"),
    ("C C C C C N", "piperidine"),
    ("C C N C C N", "piperazine"),
    ("C C N C C O", "morpholine"),
    ("C C C C O", "oxolane"),
    ("C C C C C O", "oxane"),
    ("c c c c c c", "benzene"),
)

# SMARTS of the one atom that stands for the group comes first; a molecule has as many groups as such atoms.
_GROUPS = (
    ("[CX3](=O)[OX2H1]", "carboxylic acid group"),
    ("[CX3](=O)[O-]", "carboxylate group"),
    ("[CX3;!$(C(=O)(O)O)](=O)[OX2][#6;!$(C=O)]", "ester group"),
    ("[CX3](=O)[NX3]", "amide group"),
    ("[CX3;H1,H2;$(C=O);!$(C(=O)[!#6])](=O)", "aldehyde group"),
    ("[CX3;$(C(=O)([#6])[#6])]", "ketone group"),
    ("[CX2;$(C#N)]", "nitrile group"),
    ("[N+;$([N+](=O)([O-])[#6])]", "nitro group"),
    ("[SX4;$(S(=O)(=O)[NX3])]", "sulfonamide group"),
    ("[SX2H1;$(S[#6])]", "thiol group"),
    ("[SX2;$(S([#6])[#6]);!R]", "sulfide group"),
    ("[OX2H1;$(O[#6]);!$(OC=O)]", "hydroxy group"),
    ("[OX2;$(O([CH3])[#6]);!$(O([CH3])C=O);!$(O([CH3])[CH3])]", "methoxy group"),
    ("[OX2;!R;$(O([#6])[#6]);!$(O[#6]=O);!$(O[CH3])]", "ether group"),
    ("[OX2;!R;$(O([CH3])[CH3])]", "ether group"),
    ("[NX3H2;$(N[#6]);!$(N[#6]=[O,S,N]);!$(NC#N)]", "primary amine group"),
    ("[NX3H1;!R;$(N([#6])[#6]);!$(N[#6]=[O,S,N]);!$(NC#N)]", "secondary amine group"),
    ("[NX3H0;!R;$(N([#6])([#6])[#6]);!$(N[#6]=[O,S,N]);!$(NC#N)]", "tertiary amine group"),
    ("[NX4+;$([NX4+]-[#6])]", "ammonium group"),
    ("[CX3;!R]=[CX3]", "alkene group"),
    ("[CX2]#[CX2]", "alkyne group"),
    ("[F;$(F-*)]", "fluorine atom"),
    ("[Cl;$(Cl-*)]", "chlorine atom"),
    ("[Br;$(Br-*)]", "bromine atom"),
    ("[I;$(I-*)]", "iodine atom"),
    ("[CH3;!$([CH3]O[#6])]", "methyl group"),
    ("[CH3;$([CH3]OC=O),$([CH3]O[CH3])]", "methyl group"),
)
_PAIRED = {"alkene group", "alkyne group"}  # both atoms match, so a match of the pair counts, not of its first atom

_MONATOMIC = {
    "He": "helium atom", "Ne": "neon atom", "Ar": "argon atom", "Li+": "lithium ion", "Na+": "sodium ion",
    "K+": "potassium ion", "F-": "fluoride ion", "Cl-": "chloride ion", "Br-": "bromide ion", "I-": "iodide ion",
}  # fmt: skip
_ELEMENTS = {
    "H": "hydrogen", "N": "nitrogen", "O": "oxygen", "P": "phosphorus", "S": "sulfur",
    "F": "fluorine", "Cl": "chlorine", "Br": "bromine", "I": "iodine",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Ring:
    name: str
    atoms: tuple[int, ...]
    fused: bool


def describe(smiles: str) -> str:
    """One to three sentences about a molecule.

    Raises:
        ValueError: RDKit cannot read `smiles`.
    """
    mol = Chem.MolFromSmiles(smiles)
    if mol is None:
        raise ValueError(f"not a molecule: {smiles!r}")
    if mol.GetNumAtoms() == 1 and mol.GetAtomWithIdx(0).GetTotalNumHs() == 0:
        return f"The molecule is a single {_monatomic(mol.GetAtomWithIdx(0))}."
    rings = _rings(mol)
    parts = Chem.GetMolFrags(mol)
    sentences = [f"The molecule is {_parts(mol, parts)}{_kind(mol, rings)}."]
    contents = _contents(mol, parts)
    if contents:
        sentences.append(f"It contains {_listed(contents)}.")
    features = [*_chain(mol), *_stereo(mol), *_charge(mol)]
    if features:
        sentences.append(f"It has {_listed(features)}.")
    return " ".join(sentences)


def _kind(mol: Chem.Mol, rings: list[_Ring]) -> str:
    if not rings:
        carbons = sum(atom.GetSymbol() == "C" for atom in mol.GetAtoms())
        return f"an acyclic compound with {_counted(carbons, 'carbon atom')}"
    places = [name for _, name in _RINGS]
    labels: dict[str, int] = {}
    for ring in sorted(
        rings, key=lambda ring: (places.index(ring.name) if ring.name in places else -len(ring.atoms), ring.fused)
    ):
        label = f"fused {ring.name} ring" if ring.fused else f"{ring.name} ring"
        labels[label] = labels.get(label, 0) + 1
    listed = _listed([_counted(number, label) for label, number in labels.items()])
    kind = "an aromatic" if any(_is_aromatic(mol, ring) for ring in rings) else "a cyclic"
    return f"{kind} compound with {listed}{_positions(mol, rings)}"


def _is_aromatic(mol: Chem.Mol, ring: _Ring) -> bool:
    return all(mol.GetAtomWithIdx(atom).GetIsAromatic() for atom in ring.atoms)


def _parts(mol: Chem.Mol, parts: tuple[tuple[int, ...], ...]) -> str:
    if len(parts) == 1:
        return ""
    charged = all(sum(mol.GetAtomWithIdx(atom).GetFormalCharge() for atom in part) for part in parts)
    return f"{'a salt' if charged else 'a mixture'} of {_counted(len(parts), 'ion' if charged else 'part')}, "


def _rings(mol: Chem.Mol) -> list[_Ring]:
    info = mol.GetRingInfo()
    fused = [any(info.NumBondRings(bond) > 1 for bond in bonds) for bonds in info.BondRings()]
    atoms = info.AtomRings()
    return [_Ring(_ring_name(mol, ring), tuple(ring), shared) for ring, shared in zip(atoms, fused, strict=True)]


def _ring_name(mol: Chem.Mol, ring: tuple[int, ...]) -> str:
    generic = f"{_spelled(len(ring))}-membered"
    symbols = []
    for here, following in zip(ring, (*ring[1:], ring[0]), strict=True):
        atom = mol.GetAtomWithIdx(here)
        bond = mol.GetBondBetweenAtoms(here, following)
        if atom.GetFormalCharge() or any(
            other.GetBondType() == Chem.BondType.DOUBLE and other.GetOtherAtomIdx(here) not in ring
            for other in atom.GetBonds()
            if atom.GetIsAromatic()
        ):
            return generic  # a pyridinium, or a ring with C=O outside that RDKit still calls aromatic
        symbol = atom.GetSymbol().lower() if atom.GetIsAromatic() else atom.GetSymbol()
        double = bond.GetBondType() == Chem.BondType.DOUBLE
        if bond.GetBondType() == Chem.BondType.TRIPLE:
            return generic
        symbols.append(symbol + ("=" if double else ""))
    return _known_rings().get(_turned(symbols), generic)


@cache
def _known_rings() -> dict[tuple[str, ...], str]:
    return {_turned(pattern.replace("=", "= ").split()): name for pattern, name in _RINGS}


def _turned(symbols: list[str]) -> tuple[str, ...]:
    """The same ring from wherever one starts and whichever way one goes."""
    atoms = [symbol.rstrip("=") for symbol in symbols]
    bonds = [symbol.endswith("=") for symbol in symbols]
    size = len(atoms)
    walks = []
    for start in range(size):
        walks.append([(atoms[(start + i) % size], bonds[(start + i) % size]) for i in range(size)])
        walks.append([(atoms[(start - i) % size], bonds[(start - i - 1) % size]) for i in range(size)])
    return tuple(symbol + "=" * double for symbol, double in min(walks))


def _positions(mol: Chem.Mol, rings: list[_Ring]) -> str:
    benzenes = [ring for ring in rings if ring.name == "benzene"]
    if len(benzenes) != 1 or benzenes[0].fused:
        return ""
    ring = benzenes[0].atoms
    taken = [place for place, atom in enumerate(ring) if mol.GetAtomWithIdx(atom).GetDegree() > 2]
    if len(taken) < 2:
        return ""
    numbered = (sorted((sign * (place - start)) % 6 + 1 for place in taken) for start in range(6) for sign in (1, -1))
    return f" that has groups at positions {_listed([_COUNTS[number] for number in min(numbered)])}"


def _contents(mol: Chem.Mol, parts: tuple[tuple[int, ...], ...]) -> list[str]:
    counted: dict[str, int] = {}
    for pattern, name in _patterns():
        matches = mol.GetSubstructMatches(pattern, uniquify=True, maxMatches=1000)
        found = len(matches) if name in _PAIRED else len({match[0] for match in matches})
        if found:
            counted[name] = counted.get(name, 0) + found
    bonded = list(mol.GetAtoms())
    alone: list[str] = []
    for part in parts:
        atom = mol.GetAtomWithIdx(part[0])
        if len(part) == 1 and atom.GetTotalNumHs() == 0:
            alone.append(_monatomic(atom))
            bonded = [other for other in bonded if other.GetIdx() != part[0]]
    places = list(_MONATOMIC.values())
    for name in sorted(set(alone), key=lambda name: (places.index(name) if name in places else len(places), name)):
        counted[name] = alone.count(name)
    if not any(atom.GetSymbol() == "C" for atom in mol.GetAtoms()):
        symbols = [atom.GetSymbol() for atom in bonded] + ["H"] * sum(atom.GetTotalNumHs() for atom in bonded)
        counted |= {f"{name} atom": symbols.count(symbol) for symbol, name in _ELEMENTS.items() if symbol in symbols}
    return [_counted(number, name) for name, number in counted.items()]


@cache
def _patterns() -> tuple[tuple[Chem.Mol, str], ...]:
    return tuple((Chem.MolFromSmarts(smarts), name) for smarts, name in _GROUPS)


def _monatomic(atom: Chem.Atom) -> str:
    charge = atom.GetFormalCharge()
    signed = atom.GetSymbol() + ("+" if charge > 0 else "-" if charge < 0 else "")
    return _MONATOMIC.get(signed, f"{atom.GetSymbol()} {'ion' if charge else 'atom'}")


def _chain(mol: Chem.Mol) -> list[str]:
    carbons = {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetSymbol() == "C" and not atom.IsInRing()}
    longest = max((_longest_from(mol, start, carbons, -1) for start in carbons), default=0)
    return [f"a chain of {_spelled(longest)} carbon atoms"] if longest > 1 else []


def _longest_from(mol: Chem.Mol, atom: int, carbons: set[int], before: int) -> int:
    """Number of atoms on the longest path; outside rings there is one way from atom to atom, so no way back."""
    following = [other.GetIdx() for other in mol.GetAtomWithIdx(atom).GetNeighbors()]
    return 1 + max(
        (_longest_from(mol, other, carbons, atom) for other in following if other in carbons and other != before),
        default=0,
    )


def _stereo(mol: Chem.Mol) -> list[str]:
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    labels = [atom.GetProp("_CIPCode") for atom in mol.GetAtoms() if atom.HasProp("_CIPCode")]
    kinds = {Chem.BondStereo.STEREOE: "E", Chem.BondStereo.STEREOZ: "Z"}
    bonds = [kinds.get(bond.GetStereo()) for bond in mol.GetBonds()]
    centres = [_counted(labels.count(label), f"{label} centre") for label in "RS" if label in labels]
    return centres + [_counted(bonds.count(label), f"{label} double bond") for label in "EZ" if label in bonds]


def _charge(mol: Chem.Mol) -> list[str]:
    charge = Chem.GetFormalCharge(mol)
    if charge == 0:
        return []
    return [f"a charge of {'plus' if charge > 0 else 'minus'} {_spelled(abs(charge))}"]


def _counted(number: int, thing: str) -> str:
    return f"{_spelled(number)} {thing}{'' if number == 1 else 's'}"


def _spelled(number: int) -> str:
    return _COUNTS[number] if number < len(_COUNTS) else str(number)


def _listed(things: list[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
