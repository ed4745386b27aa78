"""Questions and answers that a molecule's graph decides, computed by RDKit's descriptors.

Every answer is a sentence that `claims` can read back, so that the filter checks it against values computed in another
way (`quantities`). What definitions disagree about is left out: a group is named where RDKit's fragment patterns, those
of `tasks.molecule_facts` and the narrow reading of `groups` all find it, and denied where none does, the wide reading
included (a carbamate is neither said to be an amide nor said to be none).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.dialogues.base import Pair
from tasks.dialogues.groups import group_range
from tasks.dialogues.judging import logp_band
from tasks.dialogues.quantities import ELEMENT_NAMES
from tasks.molecule_facts import facts_of

if TYPE_CHECKING:
    from rdkit.Chem import Mol

_SPELLED = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@dataclass(frozen=True, slots=True)
class _Group:
    """A group: its name in `NAMED_GROUPS`, words, RDKit's counters of it, and its names in `tasks.molecule_facts`."""

    called: str
    one: str
    many: str
    fragments: tuple[str, ...]
    known_as: tuple[str, ...] = ()
    counted: bool = False


_GROUPS = (
    _Group("carboxylic acid", "a carboxylic acid group", "carboxylic acid groups", ("fr_COO",), ("carboxylic acid",)),
    _Group("ester", "an ester group", "ester groups", ("fr_ester",), ("ester",), counted=True),
    _Group("amide", "an amide group", "amide groups", ("fr_amide",), ("amide",)),
    _Group(
        "hydroxy", "a hydroxy group", "hydroxy groups", ("fr_Al_OH", "fr_Ar_OH"), ("hydroxyl", "phenol"), counted=True
    ),
    _Group("ether", "an ether group", "ether groups", ("fr_ether",), ("ether",)),
    _Group("ketone", "a ketone group", "ketone groups", ("fr_ketone",), ("ketone",), counted=True),
    _Group("aldehyde", "an aldehyde group", "aldehyde groups", ("fr_aldehyde",), ("aldehyde",), counted=True),
    _Group("nitro", "a nitro group", "nitro groups", ("fr_nitro",), ("nitro",), counted=True),
    _Group("nitrile", "a nitrile group", "nitrile groups", ("fr_nitrile",), counted=True),
    _Group("thiol", "a thiol group", "thiol groups", ("fr_SH",), counted=True),
    _Group("sulfonamide", "a sulfonamide group", "sulfonamide groups", ("fr_sulfonamd",)),
    _Group("amino", "an amino group", "amino groups", ("fr_NH2",), ("primary amine",)),
    _Group("epoxide", "an epoxide", "epoxides", ("fr_epoxide",)),
    _Group("halogen", "a halogen atom", "halogen atoms", ("fr_halogen",), ("halogen",)),
)
_LISTED_AT_MOST = 6


def facts(smiles: str, rng: random.Random) -> list[tuple[Pair, ...]]:
    """Runs of turns about a molecule, each run on one subject and in an order that makes sense; `rng` picks words.

    Raises:
        TaskError: RDKit cannot parse the SMILES.
    """
    from rdkit import Chem, rdBase

    known = facts_of(smiles)
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        makers: Sequence[Callable[[Mol, random.Random], list[tuple[str, str]]]] = (
            _formula, _weight, _rings, _charge, _stereocentres, _hydrogen_bonds, _logp, _elements,
            _atoms_of_one_element, _components,
        )  # fmt: skip
        runs = [maker(molecule, rng) for maker in makers]
        runs += _groups(molecule, known, rng)
    return [tuple(Pair(question, answer) for question, answer in run) for run in runs if run]


def _formula(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit.Chem import rdMolDescriptors

    formula = rdMolDescriptors.CalcMolFormula(molecule)
    if not any(letter.isdigit() for letter in formula) or "*" in formula:
        return []  # "C" or "Na+" says no more than the elements do
    question = rng.choice(("What is its molecular formula?", "Which molecular formula does this compound have?"))
    answer = rng.choice((f"Its molecular formula is {formula}.", f"The molecule has the molecular formula {formula}."))
    return [(question, answer)]


def _weight(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit.Chem import rdMolDescriptors

    if rng.random() < 0.25:
        exact = f"{rdMolDescriptors.CalcExactMolWt(molecule):.4f}"
        return [("What is its monoisotopic mass?", f"Its monoisotopic mass is {exact} Da.")]
    weight = f"{rdMolDescriptors._CalcMolWt(molecule):.2f}"
    question = rng.choice(("How heavy is the molecule?", "What is the molecular weight?", "What does one mole weigh?"))
    answer = rng.choice(
        (f"Its average molecular weight is {weight} g/mol.", f"It has a molecular weight of {weight} g/mol.")
    )
    return [(question, answer)]


def _rings(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit.Chem import rdMolDescriptors

    rings, aromatic = rdMolDescriptors.CalcNumRings(molecule), rdMolDescriptors.CalcNumAromaticRings(molecule)
    question = rng.choice(("How many rings does it have?", "Does the structure have rings?", "Is the molecule cyclic?"))
    if rings == 0:
        plain = rng.choice(("The molecule is acyclic.", "It has no rings."))
        return [(question, f"No. {plain}" if question.split()[0] in ("Does", "Is") else plain)]
    plain = rng.choice((f"It has {_number(rings, 'ring')}.", f"The molecule contains {_number(rings, 'ring')}."))
    turns = [(question, f"Yes. {plain}" if question.split()[0] in ("Does", "Is") else plain)]
    if rings == 1:
        yes, no = "Yes, the molecule has one aromatic ring.", "No, the molecule has no aromatic rings."
        return [*turns, ("Is that ring aromatic?", yes if aromatic else no)]
    follow = rng.choice(("How many of them are aromatic?", "And how many of these rings are aromatic?"))
    some = f"{_spelled(aromatic) if aromatic else 'none'} of the rings {'is' if aromatic == 1 else 'are'} aromatic."
    return [*turns, (follow, some[0].upper() + some[1:])]


def _charge(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit import Chem

    charge = Chem.GetFormalCharge(molecule)
    question = rng.choice(("Does it carry a charge?", "What is the overall charge?", "Is the species charged?"))
    asks_whether = question.split()[0] in ("Does", "Is")
    if charge == 0:
        plain = rng.choice(("The molecule is electrically neutral.", "It carries no net charge."))
        return [(question, f"No. {plain}" if asks_whether else plain)]
    plain = rng.choice((f"It carries an overall charge of {charge:+d}.", f"The overall charge is {charge:+d}."))
    return [(question, f"Yes. {plain}" if asks_whether else plain)]


def _stereocentres(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit import Chem

    # Not `FindMolChiralCenters`, which turns a switch of the whole process and back: of two threads, one may leave it
    # turned, and every molecule that is read from then on has other stereo tags.
    centres = [
        info
        for info in Chem.FindPotentialStereo(molecule)
        if info.type == Chem.StereoType.Atom_Tetrahedral and info.specified == Chem.StereoSpecified.Specified
    ]
    question = rng.choice(("How many stereocentres are defined?", "How many defined stereocentres does it have?"))
    word = "stereocentre" if len(centres) == 1 else "stereocentres"
    number = "no" if not centres else _spelled(len(centres))
    return [(question, rng.choice((f"It has {number} defined {word}.", f"The molecule has {number} defined {word}.")))]


def _hydrogen_bonds(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit.Chem import rdMolDescriptors

    donors = _number(rdMolDescriptors.CalcNumLipinskiHBD(molecule), "hydrogen-bond donor")
    acceptors = _number(rdMolDescriptors.CalcNumLipinskiHBA(molecule), "hydrogen-bond acceptor")
    question = rng.choice(
        (
            "How many hydrogen-bond donors and acceptors does it have?",
            "Can it form hydrogen bonds, by Lipinski's count?",
        )
    )
    return [(question, f"By Lipinski's count, it has {donors} and {acceptors}.")]


def _logp(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit.Chem import rdMolDescriptors

    value = f"{round(rdMolDescriptors.CalcCrippenDescriptors(molecule)[0], 2) + 0.0:.2f}"  # never -0.00
    question = rng.choice(
        ("How lipophilic is it?", "What logP would you estimate?", "Is it more at home in fat or water?")
    )
    return [(question, f"Its Crippen logP is {value}, so it is {logp_band(float(value))}.")]


def _elements(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    symbols = {atom.GetSymbol() for atom in molecule.GetAtoms()}
    if any(atom.GetTotalNumHs() for atom in molecule.GetAtoms()):
        symbols.add("H")
    names = sorted((name for name, symbol in ELEMENT_NAMES.items() if symbol in symbols), key=_order_of_element)
    if len(names) < max(2, len(symbols)):
        return []  # one of them has no name here, or there is only one
    question = rng.choice(("Which elements does it contain?", "What elements is it made of?"))
    return [(question, f"It is made up of the elements {_listed(names)}.")]


def _order_of_element(name: str) -> tuple[int, str]:
    first = ("carbon", "hydrogen")
    return (first.index(name) if name in first else len(first), name)


def _atoms_of_one_element(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit import Chem

    names = ("nitrogen", "oxygen", "sulfur", "phosphorus", "chlorine", "fluorine", "bromine", "carbon")
    table = Chem.GetPeriodicTable()
    patterns = {name: f"[#{table.GetAtomicNumber(ELEMENT_NAMES[name])}]" for name in names}
    limit = molecule.GetNumAtoms() + 1
    counts = {
        name: len(molecule.GetSubstructMatches(Chem.MolFromSmarts(pattern), maxMatches=limit))
        for name, pattern in patterns.items()
    }
    present = [name for name in names if counts[name]]
    if not present:
        return []
    name = rng.choice(present)
    counted = _number(counts[name], f"{name} atom")
    verb = "is" if counts[name] == 1 else "are"
    answer = rng.choice((f"It has {counted}.", f"There {verb} {counted}."))
    return [(f"How many {name} atoms are there?", answer)]


def _components(molecule: Mol, rng: random.Random) -> list[tuple[str, str]]:
    from rdkit import Chem

    number = len(Chem.GetMolFrags(molecule))
    if number == 1:
        return []
    question = rng.choice(("Is this a single molecule?", "Is everything bonded together in one piece?"))
    return [(question, f"No. It consists of {_number(number, 'separate component')}.")]


def _groups(molecule: Mol, known: dict[str, int], rng: random.Random) -> list[list[tuple[str, str]]]:
    from rdkit.Chem import Fragments

    counts = {group: sum(getattr(Fragments, name)(molecule) for name in group.fragments) for group in _GROUPS}
    seen = {group: any(known[name] for name in group.known_as) if group.known_as else None for group in _GROUPS}
    ranges = {group: group_range(molecule, group.called) for group in _GROUPS}
    present = [group for group in _GROUPS if counts[group] and seen[group] is not False and ranges[group][0]]
    absent = [group for group in _GROUPS if not counts[group] and not seen[group] and not ranges[group][1]]
    runs = []
    if present:
        listed = _listed([group.one for group in present[:_LISTED_AT_MOST]])
        question = rng.choice(("Which functional groups can you point out?", "What functional groups does it contain?"))
        runs.append([(question, rng.choice((f"It contains {listed}.", f"The molecule has {listed}.")))])
    candidates = present if present and (not absent or rng.random() < 0.4) else absent
    if not candidates:
        return runs
    asked = rng.choice(candidates)
    question = rng.choice((f"Does it contain {asked.one}?", f"Does the molecule have {asked.one}?"))
    if asked in present:
        runs.append([(question, f"Yes, it contains {asked.one}.")])
    else:
        denied = rng.choice(
            (f"No, it does not contain {asked.one}.", f"No, there is no {asked.one.partition(' ')[2]}.")
        )
        runs.append([(question, denied)])
    countable = [group for group in present if group.counted and ranges[group] == (counts[group],) * 2]
    if countable:
        group = rng.choice(countable)
        noun = group.one.partition(" ")[2]
        answer = f"It has {_number(counts[group], noun)}."
        runs.append([(f"How many {group.many} does it have?", answer)])
    return runs


def _spelled(number: int) -> str:
    return _SPELLED[number] if number < len(_SPELLED) else str(number)


def _number(number: int, noun: str) -> str:
    return f"{_spelled(number)} {noun}{'' if number == 1 else 's'}"


def _listed(things: Sequence[str]) -> str:
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
