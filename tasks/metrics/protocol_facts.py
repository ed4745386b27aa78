"""The protocol that asks whether captions are true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.base import AnswerKind
from tasks.metrics.base import Metric, Protocol
from tasks.metrics.caption_facts import Claims, FactRecall, Hallucination, HallucinationOfGold, Unchecked


@dataclass(frozen=True, kw_only=True)
class Facts(Protocol):
    """Whether what captions say is true of the molecule, as far as RDKit can tell.

    `hallucination` is the share of false claims among the checkable claims of the predictions (functional groups,
    rings, elements, charge, counts, configuration: `claims` and its lexicon say which words are read and how each is
    checked); `claims` is how many a caption makes, for a caption that says nothing is never wrong; `fact-recall` is the
    share of the gold captions' true claims that the predictions make too. Rows without exactly one readable molecule
    have no value and are counted in `unchecked-rows`. An answer that could not be read makes no claim.

    Its own precision, measured on gold captions with RDKit 2026.09.1. On captions that the lexicon was not made with
    (1,974 of PubChem324k validation and ChEBI-20's training set, of molecules that stand in none of the next three
    sets) RDKit confirms 98.5 % of 3,711 claims, of single types 94 % or more, but for other nitrogen groups (34 of 38).
    On the 8,601 of ChEBI-20 test and validation and of PubChem324k test, on which words were added, changed and dropped
    until gold captions passed, it confirms 99.2 % of 17,457 (99.2 %, 99.2 %, 99.0 %; each type 97.3 % or more). The
    rest is mostly wrong or tautomeric in the data. `hallucination-of-gold` is the rate of the gold captions of the rows
    at hand; on those three sets it flatters the check by some 0.7 points, so that 1.5 % is the floor to think of: a
    hallucination rate below it, or a difference that small between two models, means nothing.

    For scale, ChEBI-20 test (n = 3,300): gold captions 0.8 %, those of GPT-4 with retrieved examples (MolReGPT) 12.1 %,
    of MolT5-large 13.4 %, of MolT5-small 18.3 %, and gold captions dealt to other molecules 79.8 %.

    It hides: every statement that is not in the lexicon, the names of the molecule and of its parents, positions,
    roles and origins (a fifth of gold captions make no checkable claim at all); that some claims are true of most
    molecules ("substituted by a methyl group"); and that a claim is true does not make it the right thing to say.
    """

    name: ClassVar[str] = "facts"

    def metrics(self) -> Mapping[AnswerKind, tuple[Metric, ...]]:
        """Captions only."""
        return {"caption": (Hallucination(), HallucinationOfGold(), FactRecall(), Claims(), Unchecked())}
