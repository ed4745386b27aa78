"""Questions and answers from what is known in words: sentences of the caption, each under the question it answers."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from tasks.dialogues.base import Pair, Subject
from tasks.dialogues.sentences import sentences


@dataclass(frozen=True, slots=True)
class _Topic:
    """What a sentence is about, by its words, and how one asks for it."""

    pattern: re.Pattern[str]
    questions: tuple[str, ...]


def _topic(pattern: str, *questions: str) -> _Topic:
    return _Topic(re.compile(pattern, re.IGNORECASE), questions)


_OPENING = (
    "What kind of molecule is this?",
    "Can you tell me what this molecule is?",
    "What am I looking at here?",
    "How would you characterise this compound?",
    "What is this compound?",
)
# The first that fits counts. ChEBI's sentences are formulaic, PubChem's less so; the rest is asked for in general.
_TOPICS = (
    _topic(
        r"\bconjugate (?:acid|base)\b|\btautomer\b|major species at ph",
        "What can you say about its acid-base chemistry?",
        "To which species is it related by gaining or losing a proton?",
        "Does it have a conjugate acid or base of interest?",
    ),
    _topic(
        r"\b(?:has|have) (?:a )?role|\bused (?:as|in|for|to)\b|\binhibit|\bagonist|\bantagonist|\bdrug\b|\bagent\b",
        "What is it used for, or what role does it play?",
        "Does it have a known role?",
        "What does it do?",
    ),
    _topic(
        r"\bderives? from\b|\bfunctionally related to\b|\bderivative of\b",
        "From which compound does it derive?",
        "Is there a parent compound?",
        "What is it structurally derived from?",
    ),
    _topic(
        r"\bisolated from\b|\bfound in\b|\bnatural product\b|\bmetabolite\b|\boccurs?\b|\bproduced (?:by|in)\b",
        "Where does it occur?",
        "Is it known from nature?",
        "Where is it found?",
    ),
    _topic(
        r"\benantiomer\b|\bdiastereo|\bepimer\b|\bstereoisomer\b|\bracemate\b",
        "How is it related to its stereoisomers?",
        "Is there a stereoisomer worth mentioning?",
    ),
    _topic(
        r"^it contains\b|\bsalt\b|\bcomponent\b|\bhydrate\b",
        "What does it contain?",
        "What is it composed of?",
    ),
    _topic(
        r"^it is (?:an?|the|also)\b|\bmember of\b",
        "To which classes of compounds does it belong?",
        "How would you classify it?",
        "Which chemical classes does it fall under?",
    ),
)
_GENERAL = ("What else is known about it?", "Is there anything else worth knowing?", "Can you tell me more about it?")


def caption_turns(subject: Subject, rng: random.Random) -> list[Pair]:
    """An opening turn with the caption's first sentence, then one turn for each subject that the rest speaks of."""
    known = [_ended(sentence) for sentence in sentences(subject.caption)]
    if not known:
        return []
    turns = [Pair(rng.choice(_OPENING), known[0])]
    grouped: dict[tuple[str, ...], list[str]] = {}
    for sentence in known[1:]:
        questions = next((topic.questions for topic in _TOPICS if topic.pattern.search(sentence)), _GENERAL)
        grouped.setdefault(questions, []).append(sentence)
    return turns + [Pair(rng.choice(questions), " ".join(said)) for questions, said in grouped.items()]


def name_turn(subject: Subject, rng: random.Random) -> Pair:
    """What the molecule is called by IUPAC's rules."""
    question = rng.choice(("What is its IUPAC name?", "How does IUPAC name it?", "What is its systematic name?"))
    answer = rng.choice((f"Its IUPAC name is {subject.iupac}.", f"By IUPAC's rules it is named {subject.iupac}."))
    return Pair(question, answer)


def _ended(sentence: str) -> str:
    """A sentence with its full stop, and with a capital where "it" stands for a masked name, as in PCdes."""
    begun = sentence[0].upper() + sentence[1:] if sentence.startswith("it ") else sentence
    return begun if begun.endswith((".", "!", "?")) else f"{begun}."
