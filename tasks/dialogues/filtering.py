"""The third step: which conversations are kept, and why the others are not.

LLaMo drops conversations that are incomplete or have too many turns. Beside these, a conversation is dropped that
does not parse, that gives away that a text about the molecule was read, that refuses, that repeats a question, or that
states something the molecule's graph contradicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.dialogues.base import Pair, Reply, Subject
from tasks.dialogues.claims import read_claims
from tasks.dialogues.conversation import ConversationError, read_conversation
from tasks.dialogues.judging import Verdict, judge
from tasks.dialogues.quantities import Truth

FILTER_VERSION = 1

_LEAK = re.compile(
    r"\b(?:the|this|that|its|a|your|above|given|provided)\s+(?:\w+\s+){0,2}?(?:caption|description)s?\b"
    r"|\b(?:given|provided|supplied|above|input)\s+(?:SMILES|text|context|information|facts?|data|IUPAC name)\b"
    r"|\b(?:SMILES|text|context|information|facts?|IUPAC name)\s+(?:string\s+)?(?:you\s+)?(?:is |was |were |are )?"
    r"(?:given|provided|supplied|above)\b"
    r"|\baccording to the (?:text|SMILES|context|facts?|information|IUPAC name)\b"
    r"|\b(?:as|is|was|are) (?:described|mentioned|stated|noted) (?:above|in the|by the (?:text|caption))\b"
    r"|\bSMILES\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\bas an? (?:AI|artificial|language model|assistant)\b|\bI(?:'m| am) (?:sorry|unable|not able|not sure)\b"
    r"|\bI (?:cannot|can't|can not|could not|couldn't|do not|don't) (?:\w+ )?"
    r"(?:answer|determine|provide|tell|say|know|have|see|help|assist|confirm)\b"
    r"|\b(?:sorry|apologi[sz]e)\b"
    r"|\b(?:cannot|can't|can not) be (?:determined|answered|inferred|known) (?:from|with|based)\b"
    r"|\b(?:not enough|insufficient|no) (?:information|data|context) (?:is |was )?(?:to|given|provided|available)\b",
    re.IGNORECASE,
)
_ENDED = re.compile(r"[.!?][)\]\"'*]*$")


@dataclass(frozen=True, slots=True)
class Kept:
    """A conversation that passed, with the statements in it that were compared with the molecule.

    `verdicts` holds one tuple for each turn.
    """

    pairs: tuple[Pair, ...]
    verdicts: tuple[tuple[Verdict, ...], ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a conversation was left out: a code to count by, and the place in words."""

    reason: str
    detail: str


def filter_reply(reply: Reply, subject: Subject, min_turns: int, max_turns: int) -> Kept | Dropped:
    """Judge a generator's reply.

    Raises:
        TaskError: RDKit cannot parse the subject's SMILES.
    """
    if reply.problem is not None:
        return Dropped(f"generation-{reply.problem}", reply.detail)
    try:
        pairs = read_conversation(reply.text)
    except ConversationError as error:
        return Dropped(error.code, str(error))
    dropped = _by_form(pairs, min_turns, max_turns) or _by_words(pairs)
    if dropped is not None:
        return dropped
    truth = Truth.of(subject.smiles)
    verdicts = tuple(tuple(judge(claim, truth) for claim in read_claims(p.question, p.answer)) for p in pairs)
    for turn, of_turn in enumerate(verdicts, start=1):
        for verdict in of_turn:
            if not verdict.right:
                return Dropped("false-statement", f"turn {turn}: {_in_words(verdict)}")
    return Kept(pairs, verdicts)


def _by_form(pairs: Sequence[Pair], min_turns: int, max_turns: int) -> Dropped | None:
    if not min_turns <= len(pairs) <= max_turns:
        reason = "too-few-turns" if len(pairs) < min_turns else "too-many-turns"
        return Dropped(reason, f"{len(pairs)} questions, {min_turns} to {max_turns} are wanted")
    if not _ENDED.search(pairs[-1].answer):
        return Dropped("incomplete", f"the last answer ends in {pairs[-1].answer[-40:]!r}")
    asked: set[str] = set()
    for turn, pair in enumerate(pairs, start=1):
        question = " ".join(pair.question.lower().split())
        if question in asked:
            return Dropped("repeated-question", f"turn {turn}: {pair.question[:120]!r}")
        asked.add(question)
    return None


def _by_words(pairs: Sequence[Pair]) -> Dropped | None:
    for turn, pair in enumerate(pairs, start=1):
        for text in (pair.question, pair.answer):
            straight = text.replace("\u2019", "'")
            for reason, pattern in (("leak", _LEAK), ("refusal", _REFUSAL)):
                match = pattern.search(straight)
                if match is not None:
                    return Dropped(reason, f"turn {turn}: {match.group()!r}")
    return None


def _in_words(verdict: Verdict) -> str:
    claim = verdict.claim
    relation = "at least " if claim.relation == "at least" else ""
    return (
        f"{claim.quantity or claim.kind} stated {relation}{claim.value}, found {verdict.found}: {claim.quote[:200]!r}"
    )
