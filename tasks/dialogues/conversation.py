"""The text form of a conversation: blocks headed `Question:` and `Answer:`, `===` between them (LLaMo, table 11)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.dialogues.base import Pair

_SEPARATOR = re.compile(r"^[ \t]*={3,}[ \t]*$", re.MULTILINE)
# Models number the blocks or set the words bold; both are read.
_HEAD = re.compile(r"^[ \t]*(?:\*\*|#+ )?(Question|Answer)(?: \d+)?[ \t]*:(?:\*\*)?[ \t]*", re.MULTILINE)


class ConversationError(ValueError):
    """A text that is no conversation; `code` says what kind of defect it is."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def write_conversation(pairs: Sequence[Pair]) -> str:
    """The pairs in the text form; `read_conversation` gives them back."""
    blocks = [f"Question:\n{pair.question}\n===\nAnswer:\n{pair.answer}" for pair in pairs]
    return "\n===\n".join(blocks)


def read_conversation(text: str) -> tuple[Pair, ...]:
    """The questions and answers of a reply. What stands before the first question is not part of it.

    Raises:
        ConversationError: there is no question, questions and answers do not alternate, one is empty, the last question
            has no answer, or a text stands outside of them.
    """
    heads = list(_HEAD.finditer(text))
    first = next((place for place, head in enumerate(heads) if head.group(1) == "Question"), None)
    if first is None:
        raise ConversationError("unparsable", "no line begins with 'Question:'")
    heads = heads[first:]
    ends = [head.start() for head in heads[1:]] + [len(text)]
    blocks = [(head.group(1), _content(text[head.end() : end])) for head, end in zip(heads, ends, strict=True)]
    for place, (kind, _) in enumerate(blocks):
        if kind != ("Question", "Answer")[place % 2]:
            raise ConversationError("unparsable", f"block {place + 1} is a second {kind.lower()} in a row")
    if len(blocks) % 2:
        raise ConversationError("incomplete", "the last question has no answer")
    for place, (kind, content) in enumerate(blocks):
        if not content:
            raise ConversationError("incomplete", f"the {kind.lower()} of turn {place // 2 + 1} is empty")
    return tuple(Pair(blocks[place][1], blocks[place + 1][1]) for place in range(0, len(blocks), 2))


def _content(block: str) -> str:
    parts = [part.strip() for part in _SEPARATOR.split(block)]
    if any(parts[1:]):
        raise ConversationError("unparsable", f"a text stands outside of questions and answers: {parts[1][:80]!r}")
    return parts[0]
