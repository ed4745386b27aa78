"""Makes the bundled data set: `python -m tasks.bundled.make [FOLDER]` writes `molecules.csv`, always the same bytes.

Molecules are built from our own lists of scaffolds and substituents as strings, so that they do not depend on how a
version of RDKit writes SMILES, and described by `tasks.bundled.describe`. Validation and test hold scaffolds and
substituents that training has too, in combinations that it does not have.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rdkit import Chem

from tasks.base import Split
from tasks.bundled.describe import describe

FILE_NAME = "molecules.csv"
_SIZES: dict[Split, int] = {"train": 600, "validation": 100, "test": 100}
_MIN_SEEN = 3  # a word or a part of a molecule outside training must stand in at least so many training molecules

# {x} and {y} are where substituents go. A scaffold with one place is kept whole, of one with two a sample is taken.
_ONE_PLACE = {
    "benzene": "c1ccc({x})cc1",
    "pyridine-2": "c1ccc({x})nc1",
    "pyridine-3": "c1cc({x})cnc1",
    "pyrimidine": "c1c({x})cncn1",
    "pyrazine": "c1cncc({x})n1",
    "furan": "c1ccc({x})o1",
    "thiophene": "c1ccc({x})s1",
    "thiazole": "c1cnc({x})s1",
    "naphthalene": "c1ccc2c({x})cccc2c1",
    "indole": "c1ccc2c(c1)c({x})c[nH]2",
    "quinoline": "c1ccc2ncc({x})cc2c1",
    "cyclopropane": "C1CC1{x}",
    "cyclopentane": "C1CCCC1{x}",
    "cyclohexane": "C1CCCCC1{x}",
    "oxolane": "C1CCOC1{x}",
    "ethane": "CC{x}",
    "propane": "CCC{x}",
    "butane": "CCCC{x}",
    "hexane": "CCCCCC{x}",
}
_TWO_PLACES = {
    "para-benzene": "c1cc({x})ccc1{y}",
    "meta-benzene": "c1c({x})cccc1{y}",
    "ortho-benzene": "c1cccc({x})c1{y}",
    "toluene-2,4": "Cc1c({x})cc({y})cc1",
    "anisole-3,4": "COc1cc({x})c({y})cc1",
    "pyridine-2,5": "c1cc({x})ncc1{y}",
    "thiophene-2,5": "c1cc({x})sc1{y}",
    "furan-2,5": "c1cc({x})oc1{y}",
    "naphthalene-2,6": "c1cc2cc({x})ccc2cc1{y}",
    "biphenyl-4,4'": "c1cc({x})ccc1c2ccc({y})cc2",
    "benzyl-4": "c1cc({x})ccc1C{y}",
    "phenethyl-4": "c1cc({x})ccc1CC{y}",
    "piperidine": "c1cc({x})ccc1N2CCC({y})CC2",
    "morpholine": "O1CCN(CC1)c2c({y})cc({x})cc2",
    "cyclohexane-1,4": "C1CC({x})CCC1{y}",
    "cyclopentane-1,3": "C1C({x})CC({y})C1",
    "cyclohexene": "C1CC({x})C=CC1{y}",
    "propane-1,2": "CC({x})C{y}",
    "propane-1,3": "C({x})CC{y}",
    "butane-1,4": "C({x})CCC{y}",
    "pentane-1,4": "C({x})CCC(C){y}",
    "R-ethane": "C[C@H]({x})CC{y}",
    "S-ethane": "C[C@@H]({x})CC{y}",
    "E-butene": "C({x})/C=C/C{y}",
    "Z-butene": "C({x})/C=C\\C{y}",
}
_SUBSTITUENTS = {
    "methyl": "C",
    "ethyl": "CC",
    "propyl": "CCC",
    "isopropyl": "C(C)C",
    "vinyl": "C=C",
    "ethynyl": "C#C",
    "hydroxy": "O",
    "methoxy": "OC",
    "ethoxy": "OCC",
    "amino": "N",
    "methylamino": "NC",
    "dimethylamino": "N(C)C",
    "fluoro": "F",
    "chloro": "Cl",
    "bromo": "Br",
    "iodo": "I",
    "cyano": "C#N",
    "nitro": "[N+](=O)[O-]",
    "carboxy": "C(=O)O",
    "methyl ester": "C(=O)OC",
    "carbamoyl": "C(=O)N",
    "acetamido": "NC(=O)C",
    "acetyl": "C(=O)C",
    "formyl": "C=O",
    "sulfamoyl": "S(=O)(=O)N",
    "methylthio": "SC",
    "sulfanyl": "S",
    "trifluoromethyl": "C(F)(F)F",
    "hydroxymethyl": "CO",
    "cyclopropyl": "C9CC9",
    "phenyl": "c9ccccc9",
}
_WELL_KNOWN = (
    "O C N S Cl [He] [Ne] [Ar] [Li+] [Na+] [K+] [F-] [Cl-] [Br-] [I-] [NH4+] [OH3+] [OH-] CO CCO CCCO CC(C)O OCCO "
    "OCC(O)CO CC CCC CCCC CC(C)C C=C CC=C C#C C=O CC=O CC(C)=O C(=O)O CC(=O)O CCC(=O)O OC(=O)C(=O)O CC(=O)OCC COC "
    "CCOCC CN CNC CN(C)C CC#N CS CSC ClCCl ClC(Cl)Cl FC(F)F c1ccccc1 C1CCCCC1 C1CC1 C1CCC1 c1ccncc1 c1ccoc1 c1ccsc1 "
    "c1cc[nH]c1 c1c[nH]cn1 c1cn[nH]c1 c1cocn1 C1CCNCC1 C1CNCCN1 C1COCCN1 C1CCOCC1 C1CCNC1 c1ccc2ccccc2c1 "
    "CC(=O)Oc1ccccc1C(=O)O CC(=O)Nc1ccc(O)cc1 Cn1cnc2c1c(=O)n(C)c(=O)n2C CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O "
    "NCC(=O)O [NH3+]CC(=O)[O-] C[C@H](N)C(=O)O C[C@@H](N)C(=O)O C[C@H]([NH3+])C(=O)[O-] OC[C@H](N)C(=O)O "
    "C[C@H](O)C(=O)O C[C@@H](O)C(=O)O OC(=O)/C=C/C(=O)O OC(=O)/C=C\\C(=O)O OC(=O)CC(O)(CC(=O)O)C(=O)O "
    "O=Cc1ccc(O)c(OC)c1 Oc1ccccc1 Nc1ccccc1 COc1ccccc1 OC(=O)c1ccccc1 CNCCc1ccc(O)c(O)c1 NCCc1ccc(O)c(O)c1 "
    "CN1CCC[C@H]1c2cccnc2 CC(=O)[O-].[Na+] CC(=O)[O-].[K+] CC(=O)[O-].[Li+] [Na+].[Cl-] [K+].[Cl-] [Li+].[Br-] "
    "[K+].[I-] [Na+].[F-] [NH4+].[Cl-] C[NH3+].[Cl-] C[N+](C)(C)C.[Br-] C[N+](C)(C)CCO [O-]C(=O)c1ccccc1.[Na+] "
    "C[N+](C)(C)C.[I-] CC[NH3+].[Br-] CCC(=O)[O-].[Na+] CC(=O)[O-] C[NH3+] CCC(=O)[O-] CC[NH3+] "
    "OP(=O)(O)O OS(=O)(=O)O OO NN O=S=O O=C=O [O-][N+](=O)O CC(C)=CCC/C(C)=C/CO CC1=CC[C@@H](CC1)C(C)=C"
)


@dataclass(frozen=True, slots=True)
class _Molecule:
    """A molecule as built: the parts it is made of (none for a well-known one), and what is said about it."""

    parts: tuple[str, ...]
    smiles: str
    description: str

    @property
    def combination(self) -> str:
        """The same for two molecules of the same parts, such as those that have two substituents exchanged."""
        return " ".join(sorted(self.parts) or [self.smiles])

    @property
    def features(self) -> frozenset[str]:
        """What training must have shown before the molecule can be asked about."""
        words = {f"word:{word}" for word in self.description.replace(",", "").replace(".", "").split()}
        return frozenset(words | {f"part:{part}" for part in self.parts})


def make() -> str:
    """The text of the file: id, smiles, description and split of 800 molecules."""
    chosen = _choose()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "smiles", "description", "split"])
    number = 0
    for split, molecules in chosen.items():
        for molecule in molecules:
            number += 1
            writer.writerow([f"m{number:03d}", molecule.smiles, molecule.description, split])
    return out.getvalue()


def _choose() -> dict[Split, list[_Molecule]]:
    """Deal the molecules out: a validation or test molecule shares no combination of parts with another split."""
    well_known = [_Molecule((), smiles, describe(smiles)) for smiles in _WELL_KNOWN.split()]
    one_place = sorted(_with_one(), key=lambda molecule: _drawn("choose", molecule.combination))
    two_places = sorted(_with_two(), key=lambda molecule: _drawn("choose", molecule.combination))
    total = sum(_SIZES.values())
    pool = _distinct([*well_known, *one_place[: total // 4], *two_places])[:total]
    groups: dict[str, list[_Molecule]] = {}
    for molecule in sorted(pool, key=lambda molecule: _drawn("deal", molecule.combination)):
        groups.setdefault(molecule.combination, []).append(molecule)
    seen = Counter(feature for molecule in pool for feature in molecule.features)
    chosen: dict[Split, list[_Molecule]] = {"train": [], "validation": [], "test": []}
    held_out: tuple[Split, ...] = ("validation", "test")
    for group in groups.values():
        common = all(seen[feature] > _MIN_SEEN for molecule in group for feature in molecule.features)
        split: Split = min(held_out, key=lambda each: len(chosen[each]))
        if not common or len(chosen[split]) + len(group) > _SIZES[split]:
            split = "train"
        chosen[split].extend(group)
        if split != "train":
            seen.subtract(feature for molecule in group for feature in molecule.features)
    return chosen


def _drawn(purpose: str, key: str) -> str:
    """A place in line that has nothing to do with what is put in line, and is the same on every machine."""
    return hashlib.sha256(f"{purpose}: {key}".encode()).hexdigest()


def _with_one() -> Iterator[_Molecule]:
    for (scaffold, pattern), (name, x) in product(_ONE_PLACE.items(), _SUBSTITUENTS.items()):
        smiles = pattern.format(x=x)
        yield _Molecule((scaffold, name), smiles, describe(smiles))


def _with_two() -> Iterator[_Molecule]:
    for (scaffold, pattern), (first, x), (second, y) in product(
        _TWO_PLACES.items(), _SUBSTITUENTS.items(), _SUBSTITUENTS.items()
    ):
        if _drawn("thin", f"{scaffold} {first} {second}").startswith("0"):  # one in sixteen; describing all takes long
            smiles = pattern.format(x=x, y=y)
            yield _Molecule((scaffold, first, second), smiles, describe(smiles))


def _distinct(molecules: list[_Molecule]) -> list[_Molecule]:
    """The first of each molecule: two patterns can build the same, and a well-known one can be built too."""
    first: dict[str, _Molecule] = {}
    for molecule in molecules:
        first.setdefault(Chem.MolToSmiles(Chem.MolFromSmiles(molecule.smiles)), molecule)
    return list(first.values())


def main(arguments: list[str]) -> None:
    """Write the file into the folder named on the command line, else beside this one."""
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    (folder / FILE_NAME).write_bytes(make().encode())


if __name__ == "__main__":
    main(sys.argv[1:])
