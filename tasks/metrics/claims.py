"""What a caption claims about a molecule that RDKit can check, and whether it holds.

Captions of ChEBI and PubChem speak of more molecules than the one they describe: of its parents, conjugates and
precursors. Only two sorts of statement are read, for only these are surely about the molecule itself:

- class statements, "the molecule is an A, a member of Bs and a C", each up to the first word that leads to another
  molecule or to a circumstance ("that is", "of", "obtained by", "in which"), after which no more is read;
- substituents, "substituted by hydroxy groups at positions 3 and 11", "carrying two methoxy substituents".

What it "derives from", is "functionally related to", "a conjugate base of" or "a tautomer of", its role, its origin,
anything negated, and any word that `claim_lexicon` and `claim_rings` do not hold, gives no claim.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from tasks.base import TaskError
from tasks.metrics.claim_lexicon import EVERY, GROUPS, NUMBERS, SUBSTITUENTS, WHOLE, Row
from tasks.metrics.claim_rings import RINGS

LEXICON: tuple[Row, ...] = GROUPS + WHOLE + RINGS
ELEMENTS: tuple[Row, ...] = tuple(row for row in WHOLE if row[0] == "element")
LONGEST_SMILES = 5_000  # characters; the longest SMILES beside a caption has 1,598
LONGEST_HEAD = 200  # characters at the end of a noun phrase, where its class stands
LONGEST_LIST = 500  # characters of a list of substituents
LONGEST_CAPTION = 20_000  # characters that are read of a text; the longest caption at hand has 8,365

_SENTENCE = re.compile(r"[.;]\s+(?=[A-Z]|it\b|the\b|this\b)")
_SUBJECT = re.compile(
    r"^(?:It|(?:The|This) (?:molecule|compound)) (?:is|are) (?:also )?(.*)", re.IGNORECASE | re.DOTALL
)
_OTHER_MOLECULES = re.compile(
    r"^(?:an? |the )?(?:[\w()+-]+ )?(?:conjugate (?:acid|base)|functionally|tautomer|derivative|metabolite|isomer|"
    r"component|mixture|constituent|precursor|analogue|hydrate of|salt of)\b|"
    r"^(?:derived|used|related|found|isolated|produced)\b",
    re.IGNORECASE,
)
_ENANTIOMER = re.compile(r"^(?:an?|the) (?:\([RS]\)-|[RSDL]-)?enantiomer of", re.IGNORECASE)
_NEGATED = re.compile(
    r"\b(?:not|neither|nor|no|never|lack(?:s|ing)?|without|absen(?:t|ce)|devoid|rather|instead|except|des)\b",
    re.IGNORECASE,
)
_PARTS = re.compile(r",\s+(?:and\s+)?(?=an?\s|member\b)|\s+and\s+(?=(?:is\s+)?an?\s|member\b)", re.IGNORECASE)
_LEAD = re.compile(
    r"^(?:and\s+)?(?:is\s+)?(?:also\s+)?(?:an?\s+|the\s+|one\s+of\s+the\s+)?"
    r"(?:member\s+of\s+(?:the\s+)?(?:class\s+of\s+)?)?",
    re.IGNORECASE,
)
_HEAD_ENDS = re.compile(
    r"[,;:]\s|\s\(|\s(?:that|which|who|having|in|with|without|of|from|by|used|found|formed|produced|isolated|obtained|"
    r"resulting|consisting|comprising|comprised|composed|containing|derived|carrying|bearing|substituted|and|or|whose|"
    r"is|at|for|on|to|where|arising|named|known|joined|linked|attached|isomeric|related|but|as|via|also|specified)\b",
    re.IGNORECASE,
)
_SUBSTITUTED = re.compile(
    r"\b(?:substituted\s+(?:(?:on|at)\s+[^.;]{1,60}?\s+)?(?:by|with)|carrying|bearing|replaced\s+by)\s+", re.IGNORECASE
)
_SUBSTITUENTS_END = re.compile(
    r"[.;]|\b(?:which|that|whose|derived|obtained|condensation|followed|replaced|formed|attached|linked|via|of|from|"
    r"has|have|is|are|where|but|in)\b",
    re.IGNORECASE,
)
_TERM = re.compile(r"(?P<what>.+?)(?:(?P<compare>==|>=|<=)(?P<number>-?\d+))?$")


@dataclass(frozen=True, order=True, slots=True)
class Claim:
    """One statement about a molecule that is either true or false.

    Args:
        type: the sort of statement, such as `ester` or `ring system`; precision is measured by it.
        name: what is stated, such as `methyl ester`.
        check: how it is checked, in the words of `claim_lexicon`. Two claims with one check are one claim.
    """

    check: str
    type: str = field(compare=False)
    name: str = field(compare=False)


def claims_in(caption: str) -> frozenset[Claim]:
    """The claims of a caption; none for a text that is no caption.

    Only the first `LONGEST_CAPTION` characters are read.
    """
    found: set[Claim] = set()
    for sentence in _SENTENCE.split(" ".join(caption[:LONGEST_CAPTION].split())):
        subject = _SUBJECT.match(sentence.strip().rstrip("."))
        if subject is None:
            continue
        statement = subject.group(1)
        if _ENANTIOMER.match(statement):
            found.add(Claim("chiral==1", "chirality", "chiral"))
        if _OTHER_MOLECULES.match(statement):
            continue
        for head in _heads(statement):
            found.update(_claims_of_class(head))
        found.update(_claims_of_substituents(statement))
    return frozenset(found)


def lexicon_sha256() -> str:
    """The hash of every word and check, for the identity of scores."""
    return hashlib.sha256(repr((LEXICON, SUBSTITUENTS, sorted(NUMBERS.items()))).encode()).hexdigest()


class Subject:
    """A molecule that claims are checked against.

    Raises:
        TaskError: RDKit cannot parse the SMILES, or it is longer than `LONGEST_SMILES`.
    """

    def __init__(self, smiles: str) -> None:
        from rdkit import Chem, rdBase

        if len(smiles) > LONGEST_SMILES:
            raise TaskError(f"a SMILES of {len(smiles):,} characters: none longer than {LONGEST_SMILES:,} is checked")
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(smiles)
        if molecule is None or not molecule.GetNumAtoms():
            raise TaskError(f"{smiles[:80]!r}: RDKit cannot parse it as a molecule")
        self._molecule = molecule
        self._known: dict[str, int] = {}

    def confirms(self, claim: Claim) -> bool:
        """Whether the claim is true of the molecule."""
        return all(any(self._holds(term) for term in options.split("|")) for options in claim.check.split(" "))

    def _holds(self, term: str) -> bool:
        what, compare, number = _parsed_term(term)
        if what not in self._known:
            self._known[what] = _property(self._molecule, what)
        value = self._known[what]
        return {"==": value == number, ">=": value >= number, "<=": value <= number}[compare]


def _heads(statement: str) -> Iterator[str]:
    """The noun phrases that name the classes: without article, and up to where a circumstance begins.

    What follows a phrase that was cut ("an ester obtained from an acid and an alcohol") is no longer about the molecule
    for sure, so that nothing after it is read.
    """
    for part in _PARTS.split(statement):
        if _OTHER_MOLECULES.match(part) or _NEGATED.search(part):
            return
        phrase = _LEAD.sub("", part.strip(), count=1)
        end = _HEAD_ENDS.search(phrase)
        head = phrase[: end.start()] if end else phrase.rstrip(" .,;")
        yield head.strip()[-LONGEST_HEAD:]
        if end:
            return


@lru_cache(maxsize=50_000)
def _claims_of_class(head: str) -> tuple[Claim, ...]:
    """The claims that the head of a class statement makes: the first of each type, every one of the types `EVERY`."""
    made: dict[Claim, None] = {}
    types: set[str] = set()
    for kind, name, words, check in LEXICON:
        match = None if kind in types and kind not in EVERY else _words(words).search(head)
        if match:
            types.add(kind)
            made[_claim(kind, name, check, match.groupdict())] = None
    return tuple(made)


def _claims_of_substituents(statement: str) -> Iterator[Claim]:
    """What a molecule is said to carry or to be substituted by."""
    for trigger in _SUBSTITUTED.finditer(statement):
        rest = statement[trigger.end() : trigger.end() + LONGEST_LIST]
        end = _SUBSTITUENTS_END.search(rest)
        yield from _claims_of_list(rest[: end.start()] if end else rest)


@lru_cache(maxsize=10_000)
def _claims_of_list(listed: str) -> tuple[Claim, ...]:
    """The claims of a list of substituents."""
    if _NEGATED.search(listed):
        return ()
    return tuple(
        _claim(kind, name, check, match.groupdict())
        for kind, name, words, check in (*SUBSTITUENTS, *ELEMENTS)
        for match in _words(words).finditer(listed)
    )


def _claim(kind: str, name: str, check: str, stated: dict[str, str | None]) -> Claim:
    """The claim with the number that the words state in it."""
    if "signed" in stated:
        digits, sign = (stated["signed"] or "")[:-1], (stated["signed"] or "")[-1:]
        number = f"-{digits}" if sign == "-" else digits
        return Claim(check.replace("{signed}", number), kind, name.replace("{signed}", number))
    if "n" in stated:
        written = (stated["n"] or "").lower()
        count = int(written) if written.isdigit() else NUMBERS[written]
        for mark, value in (("{n-1}", count - 1), ("{n}", count)):
            check, name = check.replace(mark, str(value)), name.replace(mark, str(value))
    return Claim(check, kind, name)


@cache
def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


@cache
def _parsed_term(term: str) -> tuple[str, str, int]:
    match = _TERM.match(term)
    if match is None or match["compare"] is None:
        return term, ">=", 1
    return match["what"], match["compare"], int(match["number"])


@cache
def _pattern(smarts: str) -> Any:
    from rdkit import Chem

    pattern = Chem.MolFromSmarts(smarts)
    if pattern is None:
        raise ValueError(f"not a SMARTS pattern: {smarts}")
    return pattern


def _property(molecule: Any, what: str) -> int:
    """A property of the whole molecule, or how many times a SMARTS pattern matches."""
    from rdkit import Chem

    rings = molecule.GetRingInfo().AtomRings()
    match what:
        case "charge":
            return int(Chem.GetFormalCharge(molecule))
        case "rings":
            return len(rings)
        case "ringsize":
            return max(map(len, rings), default=0)
        case "fused":
            return _largest_ring_system(rings)
        case "sugars":
            return sum(_is_sugar(molecule, ring) for ring in rings)
        case "fragments":
            return len(Chem.GetMolFrags(molecule))
        case "carbons":
            return sum(atom.GetAtomicNum() == 6 for atom in molecule.GetAtoms())
        case "chiral":
            return int(_differs_from_mirror_image(molecule))
        case "R" | "S":
            return sum(atom.HasProp("_CIPCode") and atom.GetProp("_CIPCode") == what for atom in molecule.GetAtoms())
    return len(molecule.GetSubstructMatches(_pattern(what), useChirality=True, maxMatches=100))


def _largest_ring_system(rings: tuple[tuple[int, ...], ...]) -> int:
    """The number of rings in the largest set of rings that hang together by shared atoms."""
    systems: list[tuple[set[int], int]] = []
    for ring in rings:
        atoms, size = set(ring), 1
        apart = []
        for other, rings_of_other in systems:
            if atoms & other:
                atoms, size = atoms | other, size + rings_of_other
            else:
                apart.append((other, rings_of_other))
        systems = [*apart, (atoms, size)]
    return max((size for _, size in systems), default=0)


def _is_sugar(molecule: Any, ring: tuple[int, ...]) -> bool:
    """Whether a ring is that of a furanose or a pyranose: one oxygen, the others carbon, at least two of them bearing
    oxygen, nitrogen or sulfur."""
    atoms = [molecule.GetAtomWithIdx(index) for index in ring]
    carbons = [atom for atom in atoms if atom.GetAtomicNum() == 6]
    if len(ring) not in (5, 6) or len(carbons) != len(ring) - 1 or sum(a.GetAtomicNum() == 8 for a in atoms) != 1:
        return False
    bearing = sum(
        any(n.GetAtomicNum() in (7, 8, 16) and n.GetIdx() not in ring for n in atom.GetNeighbors()) for atom in carbons
    )
    return bearing >= 2 and not any(atom.GetIsAromatic() for atom in atoms)


def _differs_from_mirror_image(molecule: Any) -> bool:
    from rdkit import Chem

    mirror = Chem.Mol(molecule)
    for atom in mirror.GetAtoms():
        atom.InvertChirality()
    return bool(Chem.MolToSmiles(mirror) != Chem.MolToSmiles(molecule))
