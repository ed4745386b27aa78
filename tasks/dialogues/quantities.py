"""What a SMILES says about each quantity that a conversation may state, each with the room that definitions leave.

Nothing here uses the functions of RDKit by which the offline generator computes its facts: formulas and weights are
summed over atoms, rings counted as independent cycles, hydrogen bonds over N and O atoms. An error in one of the two
ways shows as a false statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError
from tasks.dialogues.groups import NAMED_GROUPS, group_range

if TYPE_CHECKING:
    from rdkit.Chem import Mol

Range = tuple[int, int]

ELEMENT_NAMES = {
    "hydrogen": "H", "lithium": "Li", "boron": "B", "carbon": "C", "nitrogen": "N", "oxygen": "O", "fluorine": "F",
    "sodium": "Na", "magnesium": "Mg", "aluminium": "Al", "silicon": "Si", "phosphorus": "P", "sulfur": "S",
    "chlorine": "Cl", "potassium": "K", "calcium": "Ca", "titanium": "Ti", "chromium": "Cr", "manganese": "Mn",
    "iron": "Fe", "cobalt": "Co", "nickel": "Ni", "copper": "Cu", "zinc": "Zn", "arsenic": "As", "selenium": "Se",
    "bromine": "Br", "silver": "Ag", "cadmium": "Cd", "tin": "Sn", "antimony": "Sb", "iodine": "I", "barium": "Ba",
    "platinum": "Pt", "gold": "Au", "mercury": "Hg", "lead": "Pb", "bismuth": "Bi",
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """A molecule that statements are compared with."""

    molecule: Any

    @classmethod
    def of(cls, smiles: str) -> Truth:
        """Read a SMILES.

        Raises:
            TaskError: RDKit cannot parse it.
        """
        from rdkit import Chem, rdBase

        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or molecule.GetNumAtoms() == 0:
            raise TaskError(f"{smiles!r}: RDKit cannot parse it")
        return cls(molecule)

    @cached_property
    def elements(self) -> Mapping[str, int]:
        """Symbol -> number of atoms, hydrogens included (isotopes count as their element)."""
        counts: Counter[str] = Counter()
        for atom in self.molecule.GetAtoms():
            counts[atom.GetSymbol()] += 1
            counts["H"] += atom.GetTotalNumHs()
        return {symbol: number for symbol, number in counts.items() if number}

    @cached_property
    def weights(self) -> tuple[float, float]:
        """Average and monoisotopic mass in g/mol, stated isotopes counted as such."""
        from rdkit import Chem

        table = Chem.GetPeriodicTable()
        average = exact = 0.0
        for atom in self.molecule.GetAtoms():
            number, isotope = atom.GetAtomicNum(), atom.GetIsotope()
            stated = table.GetMassForIsotope(number, isotope) if isotope else 0.0
            hydrogens = atom.GetTotalNumHs()
            average += (stated or table.GetAtomicWeight(number)) + hydrogens * table.GetAtomicWeight(1)
            exact += (stated or table.GetMostCommonIsotopeMass(number)) + hydrogens * table.GetMostCommonIsotopeMass(1)
        return average, exact

    @cached_property
    def charge(self) -> int:
        """The sum of the formal charges."""
        return sum(atom.GetFormalCharge() for atom in self.molecule.GetAtoms())

    @cached_property
    def logp(self) -> float:
        """Wildman and Crippen's estimate; summed over atoms here, where the generator takes RDKit's sum."""
        from rdkit import Chem
        from rdkit.Chem import rdMolDescriptors

        whole = Chem.AddHs(self.molecule)  # the atom types of hydrogens contribute too
        return float(sum(contribution for contribution, _ in rdMolDescriptors._CalcCrippenContribs(whole)))

    def count(self, quantity: str) -> Range:
        """The least and the greatest number that can rightly be stated for `quantity`."""
        if quantity in NAMED_GROUPS:
            return group_range(self.molecule, quantity)
        symbol = ELEMENT_NAMES.get(quantity.removeprefix("atoms of "))
        if symbol is not None:
            number = self.elements.get(symbol, 0)
            return number, number
        return COUNTS[quantity](self.molecule)


def _heavy_atoms(molecule: Mol) -> Range:
    number = sum(atom.GetAtomicNum() > 1 for atom in molecule.GetAtoms())
    return number, max(number, molecule.GetNumAtoms())


def _rings(molecule: Mol) -> Range:
    """Independent cycles; in cages, symmetry makes RDKit count more."""
    from rdkit import Chem

    cycles = molecule.GetNumBonds() - molecule.GetNumAtoms() + len(Chem.GetMolFrags(molecule))
    return cycles, max(cycles, len(Chem.GetSymmSSSR(molecule)))


def _aromatic_rings(molecule: Mol) -> Range:
    """Rings of aromatic bonds only, of the smallest set and of the symmetrised one."""
    from rdkit import Chem

    counts = [_aromatic(molecule, rings) for rings in (Chem.GetSSSR(molecule), Chem.GetSymmSSSR(molecule))]
    return min(counts), max(counts)


def _aromatic(molecule: Mol, rings: Any) -> int:
    found = 0
    for ring in map(list, rings):
        bonds = [molecule.GetBondBetweenAtoms(a, b) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)]
        found += all(bond.GetIsAromatic() for bond in bonds)
    return found


def _defined_centres(molecule: Mol) -> Range:
    tags = [atom.GetChiralTag().name for atom in molecule.GetAtoms()]
    stated = sum(tag in ("CHI_TETRAHEDRAL_CW", "CHI_TETRAHEDRAL_CCW") for tag in tags)
    return stated, stated


def _all_centres(molecule: Mol) -> Range:
    """From those that the SMILES states to all that could be."""
    from rdkit import Chem

    found = [info for info in Chem.FindPotentialStereo(molecule) if info.type == Chem.StereoType.Atom_Tetrahedral]
    numbers = len(found), _defined_centres(molecule)[0]
    return min(numbers), max(numbers)


def _donors(molecule: Mol) -> Range:
    """From the N and O atoms that carry hydrogen to Lipinski's count of those hydrogens, S-H included at the most."""
    bearing = [atom for atom in molecule.GetAtoms() if atom.GetSymbol() in "NO" and atom.GetTotalNumHs(True)]
    thiols = sum(atom.GetSymbol() == "S" and atom.GetTotalNumHs(True) > 0 for atom in molecule.GetAtoms())
    return len(bearing), sum(atom.GetTotalNumHs(True) for atom in bearing) + thiols


def _acceptors(molecule: Mol) -> Range:
    """From the fewest that a common definition finds to all N, O, S and halogen atoms."""
    from rdkit.Chem import rdMolDescriptors

    symbols = [atom.GetSymbol() for atom in molecule.GetAtoms()]
    lipinski = sum(symbol in "NO" for symbol in symbols)
    all_of_them = sum(symbol in ("N", "O", "S", "F", "Cl", "Br", "I") for symbol in symbols)
    return min(lipinski, rdMolDescriptors.CalcNumHBA(molecule)), all_of_them


def _lipinski_donors(molecule: Mol) -> Range:
    number = sum(atom.GetTotalNumHs(True) for atom in molecule.GetAtoms() if atom.GetSymbol() in "NO")
    return number, number


def _lipinski_acceptors(molecule: Mol) -> Range:
    number = sum(atom.GetSymbol() in "NO" for atom in molecule.GetAtoms())
    return number, number


def _components(molecule: Mol) -> Range:
    from rdkit import Chem

    number = len(Chem.GetMolFrags(molecule))
    return number, number


COUNTS: Mapping[str, Callable[[Mol], Range]] = {
    "heavy atoms": _heavy_atoms,
    "rings": _rings,
    "aromatic rings": _aromatic_rings,
    "defined stereocentres": _defined_centres,
    "stereocentres": _all_centres,
    "hydrogen-bond donors": _donors,
    "hydrogen-bond acceptors": _acceptors,
    "Lipinski donors": _lipinski_donors,
    "Lipinski acceptors": _lipinski_acceptors,
    "components": _components,
}
"""By the name that claims use. Element counts (`atoms of carbon`) and functional groups come beside them."""
