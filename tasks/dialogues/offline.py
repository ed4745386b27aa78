"""The default generator: conversations from RDKit facts, the caption's sentences and the name, without a model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tasks.base import TaskError
from tasks.dialogues.base import Exemplar, Generator, Pair, Reply, Subject, sha256_of
from tasks.dialogues.conversation import write_conversation
from tasks.dialogues.offline_facts import facts
from tasks.dialogues.offline_text import caption_turns, name_turn

_ASKING_FOR_THE_NAME = 0.6  # share of conversations about a molecule with an IUPAC name that ask for it
_FACTS_AT_LEAST = 2


@dataclass(frozen=True, kw_only=True)
class Offline(Generator):
    """Writes what can be checked; which questions, in which words and which order depends on seed and molecule alone.

    Args:
        seed: another seed gives other conversations.
        min_turns, max_turns: bounds of the number of questions.

    Raises:
        TaskError: the bounds cannot hold.
    """

    name: ClassVar[str] = "offline"
    version: ClassVar[int] = 1
    remote: ClassVar[bool] = False

    seed: int = 0
    min_turns: int = 3
    max_turns: int = 8

    def __post_init__(self) -> None:
        check_turns(self.min_turns, self.max_turns)

    def identity(self) -> Mapping[str, Any]:  # noqa: D102 - inherited
        import rdkit

        bounds = {"min_turns": self.min_turns, "max_turns": self.max_turns}
        return {"seed": self.seed, **bounds, "rdkit": rdkit.__version__}

    def prompt(self, subject: Subject, exemplars: Sequence[Exemplar]) -> list[dict[str, str]]:  # noqa: D102 - inherited
        return []

    def generate(self, subject: Subject, exemplars: Sequence[Exemplar]) -> Reply:  # noqa: D102 - inherited
        rng = random.Random(int(sha256_of([self.seed, subject.content])[:16], 16))
        wanted = rng.randint(self.min_turns, self.max_turns)
        words: list[tuple[Pair, ...]] = [(pair,) for pair in caption_turns(subject, rng)]
        opening, told = (words[0], words[1:]) if words else ((), [])
        if subject.iupac and rng.random() < _ASKING_FOR_THE_NAME:
            told.append((name_turn(subject, rng),))
        computed = facts(subject.smiles, rng)
        rng.shuffle(computed)
        rng.shuffle(told)
        # Words first, since they are few, but never without some facts that can be checked.
        room = max(0, wanted - len(opening) - _FACTS_AT_LEAST)
        runs = told[:room]
        left = wanted - len(opening) - len(runs)
        for run in computed:
            if left <= 0:
                break
            runs.append(run[:left])
            left -= len(runs[-1])
        rng.shuffle(runs)
        turns: list[Pair] = [*opening, *(pair for run in runs for pair in run)]
        return Reply(write_conversation(turns))


def check_turns(low: int, high: int) -> None:
    """Make sure that bounds of the number of turns can hold.

    Raises:
        TaskError: they cannot.
    """
    if not 1 <= low <= high:
        raise TaskError(f"turns from {low} to {high}: 1 <= minimum <= maximum is needed")
