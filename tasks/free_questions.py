"""Questions that somebody types, with the molecule in the place that it had in the questions of training."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from tasks.base import MoleculePart, Task, TaskError, slot
from tasks.published_questions import TEMPLATES

MOST_CHARACTERS = 20_000
"""Of a question; what is longer fits into no context and would only be waited for."""

_PLACE = re.compile(r"\{molecule(?:\.(graph|text))?\}")
_ANY_PLACE = re.compile(r"\{[A-Za-z_.]+\}")
_SENTENCE_END = re.compile(r"[.?!](?=\s)")
_QUESTION = "{question}"
_DEFAULT = "{molecule}\n"
_PARTS: dict[str | None, MoleculePart] = {None: "both", "graph": "graph", "text": "text"}


def wordings(task: Task) -> tuple[str, ...]:
    """The texts in which a task asks, placeholders included; empty for one that has none of its own."""
    asked = str(getattr(task, "question", getattr(task, "first_question", "")))
    template = TEMPLATES.get(task.name, {}).get(asked)
    if template is None:
        return (asked,) if asked else ()
    label = str(getattr(task, "label", ""))
    pools = [template.texts[label]] if label in template.texts else list(template.texts.values())
    return tuple(dict.fromkeys(text for pool in pools for text in pool))


def own_questions(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The questions of tasks that can be asked of any molecule as they are: those that hold it and nothing else."""
    texts = (text for task in tasks for text in wordings(task))
    return tuple(dict.fromkeys(text for text in texts if _PLACE.search(text) and not _ANY_PLACE.search(_bare(text))))


def checked(question: str) -> str:
    """A question without blanks around it.

    Raises:
        TaskError: it is empty, too long, or holds characters that are no text.
    """
    if len(question) > MOST_CHARACTERS:
        raise TaskError(f"the question has {len(question):,} characters; at most {MOST_CHARACTERS:,} are read")
    if not question.strip():
        raise TaskError("the question is empty")
    for place, character in enumerate(question, start=1):
        # Control characters and halves of pairs are no text; U+FFFC marks the places of molecules in a turn.
        if character == slot(0)[0] or (unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t\r"):
            raise TaskError(f"the question holds the character U+{ord(character):04X} at position {place}")
    return question if _PLACE.search(question) else question.strip()


def task_of(question: str, tasks: Sequence[Task]) -> Task | None:
    """The first of the tasks that words a question so, wherever the molecule stands; None where none does."""
    words = _words(question)
    return next((task for task in tasks if any(_is_worded(words, _words(text)) for text in wordings(task))), None)


def with_molecule(question: str, patterns: Sequence[str]) -> str:
    """The question with the molecule's place in it, as a turn's text.

    A question that names the place itself, as `{molecule}`, `{molecule.graph}` or `{molecule.text}`, is left as it is.
    Else the molecule stands where the first pattern that says so has it: before its words, behind its last sentence,
    or one part here and one there; and in a line before the question where no pattern says. A pattern with
    `{question}` in it says exactly.

    Args:
        question: as `checked` gives it.
        patterns: texts of tasks, as `wordings` gives them.
    """
    if not _PLACE.search(question):
        head, tail = next((found for found in map(_surroundings, patterns) if found), (_DEFAULT, ""))
        question = f"{head}{question}{tail}"
    return _PLACE.sub(lambda match: slot(0, _PARTS[match.group(1)]), question)


def _bare(text: str) -> str:
    return _PLACE.sub("", text)


def _words(text: str) -> str:
    """A text without places and without what blanks it is set with."""
    return " ".join(_bare(text).split())


def _is_worded(question: str, pattern: str) -> bool:
    """Whether a question is a pattern, with anything where the pattern has a placeholder."""
    head, *rest = _ANY_PLACE.split(pattern)
    if not rest:
        return question == pattern
    if not any(character.isalnum() for piece in (head, *rest) for character in piece):
        return False  # placeholders alone, which fit any question
    *middle, tail = rest
    if not (question.startswith(head) and question.endswith(tail) and len(question) >= len(head) + len(tail)):
        return False
    between = question[len(head) : len(question) - len(tail)]
    for piece in filter(None, middle):
        _, found, between = between.partition(piece)
        if not found:
            return False
    return True


def _surroundings(pattern: str) -> tuple[str, str] | None:
    """What stands before the words of a pattern and behind them, places included; None where it cannot be told."""
    if _QUESTION in pattern and _PLACE.search(pattern):
        head, _, tail = pattern.partition(_QUESTION)
        return head, tail
    places = list(_PLACE.finditer(pattern))
    head = tail = ""
    if places and places[0].start() == 0:
        end = places[0].end()
        while end < len(pattern) and not pattern[end].isalnum() and pattern[end] != "{":
            end += 1
        head, places = pattern[:end], places[1:]
    if places and not any(character.isalnum() for character in pattern[places[-1].end() :]):
        # The sentence that names the text, if it is not the pattern's only one.
        ends = list(_SENTENCE_END.finditer(pattern, len(head), places[-1].start()))
        if ends:
            tail, places = pattern[ends[-1].end() :], places[:-1]
    return (head, tail) if (head or tail) and not places else None
