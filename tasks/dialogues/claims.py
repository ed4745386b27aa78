"""The statements in a conversation that a molecule's graph can decide, read from the text alone.

Reading is deliberately narrow: a sentence counts where it speaks of the whole molecule in plain words ("it contains two
rings and an ester"). Hedged, conditional and comparative sentences are left alone, and a number that a phrase restricts
("two hydroxy groups on the ring") is a lower bound. What is not read is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.dialogues.groups import NAMED_GROUPS
from tasks.dialogues.quantities import ELEMENT_NAMES
from tasks.dialogues.sentences import sentences

Kind = Literal["count", "formula", "average weight", "exact weight", "weight", "charge", "logp", "elements"]
Relation = Literal["equal", "at least"]

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBERS = {word: number for number, word in enumerate(_WORDS.split())} | {"no": 0, "none": 0, "single": 1}


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement about a molecule.

    Args:
        kind: what sort of value is stated.
        quantity: what is counted (`rings`, `ketone`, `atoms of carbon`); for other kinds empty.
        value: the value as stated.
        quote: the sentence.
        relation: whether a count is stated whole, or of a part only.
    """

    kind: Kind
    quantity: str
    value: str
    quote: str
    relation: Relation = "equal"


_MINUS_SIGNS = (0x2212, 0x2010, 0x2011, 0x2013, 0x208B, 0x207B)  # minus, hyphens, en dash, sub- and superscript
_PLAIN = (
    dict.fromkeys(_MINUS_SIGNS, "-")
    | {0x2080 + digit: str(digit) for digit in range(10)}
    | {0x207A: "+", 0x2019: "'", ord("*"): ""}
)


def read_claims(question: str, answer: str) -> list[Claim]:
    """The statements that an answer makes; a bare yes or no is read with its question."""
    answer = _plain(answer)
    found = [claim for sentence in sentences(answer) for claim in _of_sentence(sentence)]
    found += _of_yes_or_no(_plain(question), answer)
    return list(
        {(claim.kind, claim.quantity, claim.value, claim.relation): claim for claim in reversed(found)}.values()
    )


def _plain(text: str) -> str:
    """Digits, signs and hyphens in their ASCII form, and without emphasis."""
    return text.translate(_PLAIN)


_SUBJECT = (
    r"(?:it|(?:the|this) (?:whole |entire )?(?:molecule|compound|structure|substance|ion|anion|cation|salt|species))"
)
_ADVERBS = r"(?:also |only |thus |therefore |further |then |overall |altogether )*"
_HAS = r"(?:contains?|has|have|possess(?:es)?|bears?|carr(?:ies|y)|features?|includes?)"
_POSITIVE = re.compile(
    rf"\b(?:{_SUBJECT} {_ADVERBS}{_HAS}|there (?:is|are)|functional groups (?:present )?(?:are|include)"
    rf"|{_SUBJECT} (?:consists of|is made up of)) (?!no\b|neither\b|not\b)(?P<objects>.+)",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(
    rf"\b(?:{_SUBJECT} {_ADVERBS}(?:(?:does not|doesn't) (?:contain|have|possess|bear|carry|feature|include)"
    rf"|{_HAS} (?:no|neither)|lacks)|there (?:is|are) no) (?P<objects>.+)",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:if|would|could|may|might|can|after|upon|unlike|compared|than|except|besides|apart|usually|typically|role|"
    r"parent|corresponding|conjugate|precursor|formerly|originally|when|at ph|protonat\w+|deprotonat\w+|hydrolys\w+|"
    r"per|each|every|either|approximately|about|around|nearly|almost|potential|possible|masked|protected)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[;:]|,? (?:which|where|whereas|while|making|giving|so|because|since|but|that|with|whose|arranged|as it)\b",
    re.IGNORECASE,
)
_ITEMS = re.compile(r",? and |,? or |,? nor |,? as well as |,? plus |, ", re.IGNORECASE)
_FILLERS = re.compile(
    r"\b(?:a total of|in total|in all|altogether|overall|exactly|just|only|both|in (?:the|this|its) "
    r"(?:molecule|structure|compound))\b ?",
    re.IGNORECASE,
)
_RESTRICTS = re.compile(
    r" (?:on|at|in|of|to|from|attached|bonded|linked|located|within|adjacent|fused|next|near|between|joined)\b",
    re.IGNORECASE,
)

_NUMBER = rf"(?:{'|'.join(NUMBERS)}|\d+)"
_STEREO = (
    r"(?:stereocent(?:re|er)|stereogenic cent(?:re|er)|chiral(?:ity)? cent(?:re|er)|asymmetric carbon(?: atom)?)s?"
)
_GROUP = (
    r"(?: functional)?"
    r"(?: (?:group|function|substituent|linkage|bond|atom)s?| moiety| moieties| functionality| functionalities)?"
)
_NOUNS: tuple[tuple[str, str], ...] = (
    ("aromatic rings", r"aromatic rings?"),
    ("rings", r"rings?"),
    ("heavy atoms", r"(?:heavy|non-hydrogen) atoms?"),
    ("defined stereocentres", rf"(?:defined|specified|assigned) {_STEREO}"),
    ("stereocentres", _STEREO),
    ("hydrogen-bond donors", r"(?:hydrogen|H)[- ]bond(?:ing)? donors?"),
    ("hydrogen-bond acceptors", r"(?:hydrogen|H)[- ]bond(?:ing)? acceptors?"),
    ("components", r"(?:separate |distinct |disconnected )(?:components?|fragments?|parts?)"),
    *((f"atoms of {name}", rf"{name} atoms?") for name in ELEMENT_NAMES),
    *((name, rf"(?:{group.words})s?{_GROUP}") for name, group in NAMED_GROUPS.items()),
)
_NOUN_PATTERNS = tuple(
    (quantity, re.compile(rf"(?:(?P<number>{_NUMBER}|an?|any|the) )?(?P<other>(?:[a-z]+ )?){words}(?P<tail>.*)", re.I))
    for quantity, words in _NOUNS
)
# An adjective before the noun makes the number one of a part; these leave it what it is, or make it another thing.
_NEUTRAL = frozenset({"", "separate", "distinct", "free", "different"})
_ANOTHER = frozenset({"non", "former", "latent", "heteroaromatic", "not", "halogenated"})

_FORMULA = re.compile(
    r"\b(?:molecular|chemical|sum) formula\b[^.]*?\b(?P<formula>(?:[A-Z][a-z]?\d*){2,}|[A-Z][a-z]?\d+)"
)
_CHARGE_BEHIND = re.compile(r"(?P<charge>\d*[+-]|[+-]\d+)(?![\w])")
_WEIGHT = re.compile(
    r"\b(?P<sort>monoisotopic|exact|average|)\s*(?:molecular |molar |formula )?(?:weight|mass)\b[^.\d]*?"
    r"(?P<value>\d[\d,]*(?:\.\d+)?)\s*(?:g/mol|g mol|Da\b|daltons?|u\b|grams per mole)",
    re.IGNORECASE,
)
_CHARGE = re.compile(
    rf"\b(?:net|overall|total)(?: formal| electric(?:al)?)? charge (?:is |of |equals |it carries is )*"
    rf"(?P<sign>\+|-|plus |minus |positive |negative )?(?P<number>{_NUMBER})(?P<behind>[+-])?(?!\.\d)",
    re.IGNORECASE,
)
_NEUTRAL_MOLECULE = re.compile(
    rf"\b{_SUBJECT} (?:is (?:electrically |overall )?(?:neutral|uncharged)(?: overall)?"
    r"|(?:carries|has|bears) no (?:net|overall) charge)(?=[.,;]|$| and| so)",
    re.IGNORECASE,
)
# What a sentence says of another species is not about this molecule.
_OTHER_SPECIES = re.compile(
    r"\b(?:conjugate|parent|derivative|protonat\w+|deprotonat\w+|precursor|fragment|anhydrous|hydrolys\w+|los(?:es|ing|s)|"
    r"corresponding|if|would|after|upon|than|at pH)\b",
    re.IGNORECASE,
)
_LOGP = re.compile(r"\bCrippen\b[^.]*?(?P<value>-?\d+(?:\.\d+)?)", re.IGNORECASE)
_ACYCLIC = re.compile(rf"\b{_SUBJECT} is (?:entirely |completely )?acyclic(?=[.,;:]|$)", re.IGNORECASE)
_AROMATIC_OF = re.compile(
    rf"\b(?P<number>{_NUMBER}) of (?:the|its|these|those|them)(?: {_NUMBER})?(?: rings?)? (?:is|are) aromatic\b", re.I
)
_NUMBER_OF = re.compile(rf"\bnumber of (?P<noun>[\w -]+?) (?:is|equals) (?P<number>{_NUMBER})\b", re.IGNORECASE)
_ELEMENTS = re.compile(r"\bmade up of the elements? (?P<list>[a-z, ]+)", re.IGNORECASE)


def _of_sentence(sentence: str) -> Iterator[Claim]:
    yield from _of_values(sentence)
    if _UNDECIDED.search(sentence):
        return
    lipinski = "lipinski" in sentence.lower()
    plain = _FILLERS.sub("", sentence).rstrip(" .!")
    for match in _NUMBER_OF.finditer(plain):
        yield from _numbered(match["noun"], match["number"], sentence, lipinski)
    for match in _AROMATIC_OF.finditer(plain):
        yield Claim("count", "aromatic rings", str(_value(match["number"])), sentence)
    if _ACYCLIC.search(sentence):
        yield Claim("count", "rings", "0", sentence)
    negative = _NEGATIVE.search(plain)
    if negative is not None:
        yield from _absences(negative["objects"], sentence, lipinski)
        return
    positive = _POSITIVE.search(plain)
    if positive is not None:
        yield from _presences(positive["objects"], sentence, lipinski)


def _of_values(sentence: str) -> Iterator[Claim]:
    """Formula, weight, charge, estimate of logP and list of elements."""
    if _OTHER_SPECIES.search(sentence):
        return
    for match in _FORMULA.finditer(sentence):
        behind = sentence[match.end() :]
        charge = _CHARGE_BEHIND.match(behind)
        if not behind.startswith(("·", "(", "[", "*")) and not re.match(r"\.[A-Z\d]", behind):
            yield Claim("formula", "", match["formula"] + (charge["charge"] if charge else ""), sentence)
    for match in _WEIGHT.finditer(sentence):
        sort = match["sort"].lower()
        kind: Kind = "average weight" if sort == "average" else "exact weight" if sort else "weight"
        yield Claim(kind, "", match["value"].replace(",", ""), sentence)
    for match in _CHARGE.finditer(sentence):
        negative = (match["sign"] or "").strip().lower() in ("-", "minus", "negative") or match["behind"] == "-"
        number = _value(match["number"])
        yield Claim("charge", "", str(-number if negative else number), sentence)
    if _NEUTRAL_MOLECULE.search(sentence):
        yield Claim("charge", "", "0", sentence)
    for match in _LOGP.finditer(sentence):
        yield Claim("logp", "", match["value"], sentence)
    for match in _ELEMENTS.finditer(sentence):
        yield Claim("elements", "", match["list"].strip(), sentence)


def _presences(objects: str, sentence: str, lipinski: bool) -> Iterator[Claim]:
    clause = _CLAUSE.split(objects)[0]
    items = _ITEMS.split(clause)
    restricted = any(_RESTRICTS.search(item) for item in items)
    for item in items:
        found = _noun(item, lipinski)
        if found is None:
            continue
        quantity, number, other = found
        if number is None:
            yield Claim("count", quantity, "1", sentence, "at least")
        else:
            part = restricted or other not in _NEUTRAL
            yield Claim("count", quantity, str(number), sentence, "at least" if part else "equal")


def _absences(objects: str, sentence: str, lipinski: bool) -> Iterator[Claim]:
    clause = _CLAUSE.split(objects)[0]
    for item in _ITEMS.split(clause):
        found = _noun(item, lipinski)
        if found is not None and found[1] is None and found[2] in _NEUTRAL and not _RESTRICTS.search(item):
            yield Claim("count", found[0], "0", sentence)


def _numbered(noun: str, number: str, sentence: str, lipinski: bool) -> Iterator[Claim]:
    found = _noun(noun, lipinski)
    if found is not None and found[2] in _NEUTRAL:
        yield Claim("count", found[0], str(_value(number)), sentence)


def _noun(item: str, lipinski: bool) -> tuple[str, int | None, str] | None:
    """What an item of a list counts, its number (None for "a", "any" or nothing) and an adjective; None if unclear."""
    text = item.strip()
    for quantity, pattern in _NOUN_PATTERNS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        tail, other = match["tail"], match["other"].strip().lower()
        if tail and not (_RESTRICTS.match(tail) or re.fullmatch(r" \([^()]*\)", tail)):
            continue  # "carboxylic acid" in "carboxylic acid ester" is none
        if other in _ANOTHER or (match["number"] or "").lower() == "the":
            return None
        if lipinski and quantity.startswith("hydrogen-bond"):
            quantity = quantity.replace("hydrogen-bond", "Lipinski")
        word = (match["number"] or "").lower()
        return quantity, None if word in ("", "a", "an", "any") else _value(word), other
    return None


def _value(word: str) -> int:
    return NUMBERS[word.lower()] if word.lower() in NUMBERS else int(word)


_ASKED = re.compile(
    rf"\b(?:(?:does|do|can) {_SUBJECT} {_ADVERBS}(?:contain|have|possess|bear|carry|feature|include)|(?:is|are) there) "
    r"(?P<objects>[^?]+)\?$",
    re.IGNORECASE,
)


def _of_yes_or_no(question: str, answer: str) -> Iterator[Claim]:
    said = re.match(r"\s*(yes|no)\b", answer, re.IGNORECASE)
    asked = _ASKED.search(question.strip())
    if said is None or asked is None or _UNDECIDED.search(question) or _RESTRICTS.search(asked["objects"]):
        return
    quote = f"{question.strip()} {said.group(1).capitalize()}."
    objects = _FILLERS.sub("", asked["objects"])
    if said.group(1).lower() == "yes":
        if not re.search(r"\bor\b", objects):
            yield from _presences(objects, quote, False)
    elif not re.search(r"\band\b|\bor\b|,", objects):
        yield from _absences(objects, quote, False)
