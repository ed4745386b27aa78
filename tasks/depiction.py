"""A molecule as a picture: an SVG for files and pages, and a drawing in characters for terminals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from tasks.base import TaskError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MOST_CHARACTERS = 5_000
"""Of a SMILES that somebody types; what is longer is no question about a molecule."""
MOST_DRAWN = 300
"""Atoms; a picture of more cannot be read, and placing them takes long."""

_SHOWN = 60  # characters of a SMILES in a message
_WIDTH, _HEIGHT = 460, 320  # of a picture, in its own units
_ACCENT = "#f59e0b"
FULL_DISC = 0.62  # opacity; black and white letters can be read on it alike
# Middling tones, which can be read on a white page and on a dark one.
_COLOURS = {
    7: (0.31, 0.51, 1.0),
    8: (0.90, 0.28, 0.30),
    9: (0.18, 0.62, 0.27),
    15: (0.91, 0.51, 0.05),
    16: (0.77, 0.61, 0.0),
    17: (0.18, 0.62, 0.27),
    35: (0.71, 0.39, 0.16),
    53: (0.61, 0.35, 0.82),
}


@dataclass(frozen=True, slots=True)
class DepictedMolecule:
    """A molecule that can be drawn.

    Args:
        smiles: as it was given, without blanks around it.
        canonical: RDKit's spelling.
        formula: by Hill's system.
        labels: what is written at each atom: element, hydrogens and charge, such as N, H₄ and ⁺; an empty element for a
            carbon atom that bonds say enough of.
        symbols: of the elements.
        points: two-dimensional coordinates in units of 1.5 per bond, y upwards; empty for one that is too large.
        bonds: both ends, and how many lines.
    """

    smiles: str
    canonical: str
    formula: str
    labels: tuple[tuple[str, str, str], ...]
    symbols: tuple[str, ...]
    points: tuple[tuple[float, float], ...]
    bonds: tuple[tuple[int, int, int], ...]

    @property
    def is_drawn(self) -> bool:
        """Whether there is a picture of it."""
        return bool(self.points)


def read_molecule(smiles: str) -> DepictedMolecule:
    """A molecule that somebody typed.

    Raises:
        TaskError: it is none, or longer than anybody types; the message says what is wrong with it.
    """
    from rdkit import rdBase
    from rdkit.Chem import MolToSmiles, rdDepictor
    from rdkit.Chem.rdMolDescriptors import CalcMolFormula

    written = smiles.strip()
    with rdBase.BlockLogs():
        molecule = _parsed(written)
        canonical = str(MolToSmiles(molecule))
        drawn = molecule.GetNumAtoms() <= MOST_DRAWN
        points: tuple[tuple[float, float], ...] = ()
        if drawn:
            rdDepictor.Compute2DCoords(molecule)
            rdDepictor.StraightenDepiction(molecule)
            positions = molecule.GetConformer().GetPositions().tolist()
            points = tuple((x, y) for x, y, _ in positions)
        bonds = _bonds(molecule) if drawn else ()
        return DepictedMolecule(
            written,
            canonical,
            str(CalcMolFormula(molecule)),
            tuple(_label(atom) for atom in molecule.GetAtoms()),
            tuple(atom.GetSymbol() for atom in molecule.GetAtoms()),
            points,
            bonds,
        )


def as_svg(
    molecule: DepictedMolecule, weights: Sequence[float] | None = None, *, embedded: bool = False, about: str = ""
) -> str:
    """A picture, with a disc behind each atom that is the more opaque the greater its weight.

    It holds nothing but paths and numbers; letters are drawn, and what is told of the molecule is escaped.

    Args:
        molecule: which.
        weights: one for each atom, none negative; the greatest gives a full disc.
        embedded: for a page: no background, and bonds in the colour of the text around; else black on white.
        about: a line of text for those who cannot see it.

    Raises:
        TaskError: the molecule is too large to be drawn.
    """
    from rdkit import rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    if not molecule.is_drawn:
        raise TaskError(f"the molecule has {len(molecule.symbols)} atoms; pictures are made of at most {MOST_DRAWN}")
    with rdBase.BlockLogs():
        drawer = rdMolDraw2D.MolDraw2DSVG(_WIDTH, _HEIGHT)
        options: Any = drawer.drawOptions()
        options.clearBackground = False
        options.padding = 0.08
        options.maxFontSize = 22
        options.fixedBondLength = 48  # small molecules would fill the picture with two bonds
        # On coloured discs red and blue letters could not be read.
        black = (0.0, 0.0, 0.0)
        options.updateAtomPalette(dict.fromkeys((-1, 6, *_COLOURS), black) | ({} if weights else _COLOURS))
        parsed = _parsed(molecule.smiles)
        _place(parsed, molecule.points)
        drawer.DrawMolecule(parsed)
        places = [drawer.GetDrawCoords(number) for number in range(len(molecule.symbols))]
        drawer.FinishDrawing()
        text = drawer.GetDrawingText()
    body = text.partition("<!-- END OF HEADER -->")[2].rpartition("</svg>")[0]
    discs = "" if weights is None else _discs(molecule, weights, [(place.x, place.y) for place in places])
    said = escape(about or f"structure of {molecule.formula}")
    background = "" if embedded else f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    size = "" if embedded else f' width="{_WIDTH}" height="{_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg"{size} viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{said}">{background}{discs}'
        f"{body.replace('#000000', 'currentColor') if embedded else body}</svg>"
    )


def atom_name(molecule: DepictedMolecule, number: int) -> str:
    """What an atom is called: its element and its number in RDKit's order, from 0."""
    return f"{molecule.symbols[number]}{number}"


def _discs(molecule: DepictedMolecule, weights: Sequence[float], places: Sequence[tuple[float, float]]) -> str:
    if len(weights) != len(places):
        raise TaskError(f"there are {len(weights)} weights for {len(places)} atoms")
    most = max(weights, default=0.0) or 1.0
    return "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="19" fill="{_ACCENT}" fill-opacity="{FULL_DISC * weight / most:.3f}">'
        f"<title>{escape(atom_name(molecule, number))}: {weight:.1%}</title></circle>"
        for number, (weight, (x, y)) in enumerate(zip(weights, places, strict=True))
    )


def _parsed(smiles: str) -> Mol:
    from rdkit import Chem

    if not smiles:
        raise TaskError("the SMILES is empty; give one, such as CC(=O)Oc1ccccc1C(=O)O")
    if len(smiles) > MOST_CHARACTERS:
        raise TaskError(f"the SMILES has {len(smiles):,} characters; at most {MOST_CHARACTERS:,} are read")
    strange = re.search(r"[^\x21-\x7e]", smiles)
    if strange:
        # Behind a blank RDKit reads names and labels, which are no part of a structure.
        what = "a blank" if strange[0] == " " else f"the character U+{ord(strange[0]):04X}"
        raise TaskError(f"the SMILES {_shown(smiles)} holds {what} at position {strange.start() + 1}")
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise TaskError(f"{_shown(smiles)} is no SMILES that RDKit can read{_reason(smiles)}")
    if molecule.GetNumAtoms() == 0:
        raise TaskError(f"{_shown(smiles)} has no atoms")
    return molecule


def _reason(smiles: str) -> str:
    from rdkit import Chem

    unchecked = Chem.MolFromSmiles(smiles, sanitize=False)
    problems = Chem.DetectChemistryProblems(unchecked) if unchecked is not None else ()
    return f": {problems[0].Message()}" if problems else ": it is not well-formed"


def _shown(smiles: str) -> str:
    return repr(smiles if len(smiles) <= _SHOWN else f"{smiles[:_SHOWN]}...")


def _place(molecule: Mol, points: Sequence[tuple[float, float]]) -> None:
    from rdkit.Chem import Conformer
    from rdkit.Geometry import Point3D

    conformer = Conformer(molecule.GetNumAtoms())
    conformer.Set3D(False)  # or the hydrogens that the drawer adds at stereocentres would stand above their atoms
    for number, (x, y) in enumerate(points):
        conformer.SetAtomPosition(number, Point3D(x, y, 0.0))
    molecule.AddConformer(conformer)


def _bonds(molecule: Mol) -> tuple[tuple[int, int, int], ...]:
    from rdkit import Chem

    kekule = Chem.Mol(molecule)
    Chem.Kekulize(kekule)
    lines = {Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3}
    return tuple(
        (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), lines.get(bond.GetBondType(), 1)) for bond in kekule.GetBonds()
    )


def _label(atom: object) -> tuple[str, str, str]:
    """An atom's element, hydrogens and charge; all empty for a carbon atom within a skeleton."""
    symbol, charge = atom.GetSymbol(), atom.GetFormalCharge()  # type: ignore[attr-defined]
    hydrogens, isotope = atom.GetTotalNumHs(), atom.GetIsotope()  # type: ignore[attr-defined]
    if symbol == "C" and not charge and not isotope and atom.GetDegree():  # type: ignore[attr-defined]
        return "", "", ""
    small = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    raised = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
    count = "" if abs(charge) < 2 else str(abs(charge))
    sign = "" if not charge else f"{count}{'+' if charge > 0 else '-'}".translate(raised)
    mass = str(isotope).translate(raised) if isotope else ""
    beside = "" if not hydrogens else "H" if hydrogens == 1 else f"H{hydrogens}".translate(small)
    return f"{mass}{symbol}", beside, sign
