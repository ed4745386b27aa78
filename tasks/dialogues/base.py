"""What the parts of the making of dialogues hand on: molecules, conversations and the replies of generators."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Problem = Literal["truncated", "empty", "malformed", "refused"]
"""What was wrong with a reply that arrived, so that asking again may well give the same."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A molecule with what is known about it. `caption` and `iupac` are empty where the data set has none."""

    id: str
    smiles: str
    caption: str = ""
    iupac: str = ""

    @property
    def content(self) -> dict[str, str]:
        """All that a conversation can depend on; two rows of equal content share one."""
        return {"smiles": self.smiles, "caption": self.caption, "iupac": self.iupac}


@dataclass(frozen=True, slots=True)
class Pair:
    """A question of the user and the assistant's answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Exemplar:
    """A molecule with a conversation that shows a generator what is wanted."""

    subject: Subject
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a generator gave for one molecule.

    Args:
        text: the conversation as text; empty where `problem` says why there is none.
        problem: why the reply cannot be used, else None.
        detail: the problem in words.
        tokens_in, tokens_out: as the endpoint counted them, over all requests for this molecule.
        requests: how many requests it took.
        exemplars: ids of the molecules whose conversations the prompt showed.
    """

    text: str
    problem: Problem | None = None
    detail: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    requests: int = 0
    exemplars: tuple[str, ...] = field(default=())


class TransientError(Exception):
    """The endpoint did not answer in spite of all retries; a later run may have more luck."""

    def __init__(self, message: str, requests: int = 0) -> None:
        super().__init__(message)
        self.requests = requests


class Generator(ABC):
    """Writes a conversation about a molecule."""

    name: ClassVar[str]
    version: ClassVar[int]  # raised when the same settings begin to give other text
    remote: ClassVar[bool]  # whether a reply costs time or money, so that it must never be lost

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """All settings that the text depends on, as JSON values; never a key."""

    @abstractmethod
    def prompt(self, subject: Subject, exemplars: Sequence[Exemplar]) -> list[dict[str, str]]:
        """The chat messages that ask for a conversation; empty where no model is asked."""

    @abstractmethod
    def generate(self, subject: Subject, exemplars: Sequence[Exemplar]) -> Reply:
        """A conversation about `subject`, or why there is none. Called from several threads where `remote`.

        Raises:
            TransientError: no answer in spite of all retries.
            TaskError: no request can succeed, such as for a refused key.
        """

    def content_key(self, subject: Subject, exemplars: Sequence[Exemplar]) -> str:
        """Hash of the molecule, its texts, the prompt, and the generator's settings: equal keys, equal work."""
        return sha256_of(
            {
                "generator": {"name": self.name, "version": self.version, **self.identity()},
                "molecule": subject.content,
                "prompt": self.prompt(subject, exemplars),
            }
        )


def sha256_of(value: Any) -> str:
    """Hash of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
