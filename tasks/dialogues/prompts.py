"""The prompts of the in-context generation, after LLaMo's tables 11 (SMILES and caption) and 12 (and IUPAC name).

The wording is ours; the facts that it carries over are: the model is a chemistry assistant that sees one molecule, asks
and answers diverse questions (class, conjugate acid or base, functional groups, role), asks nothing that cannot be
answered with confidence, writes `Question:` / `===` / `Answer:` blocks, and the prompt ends with `Conversation:`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.dialogues.base import Exemplar, Subject
from tasks.dialogues.conversation import write_conversation

PROMPT_VERSION = 1

SYSTEM = """\
You write training conversations between a curious user and a chemistry assistant. The assistant sees the structure of \
one molecule and nothing else; the user asks about this molecule.

You are given facts about the molecule: {facts}. Write a conversation of {low} to {high} questions, each with its \
answer, as if the assistant knew these facts from looking at the molecule.
- Vary the questions: the class of compound, functional groups, rings, charge, the conjugate acid or base, the parent \
compound, the biological or chemical role, how structure and behaviour go together. Let later questions build on \
earlier answers.
- Ask only what can be answered with confidence from the facts or from plain chemistry. Leave out what is uncertain, \
and do not let the assistant say that it does not know.
- Counts, formulas and charges must be right for the whole molecule.
- Never mention that facts, a description, a caption, a text or a SMILES string were given.
- Write full sentences. Write nothing but the blocks, in exactly this form:

Question:
(text)
===
Answer:
(text)
===
Question:
(text)
===
Answer:
(text)"""


def messages(subject: Subject, exemplars: Sequence[Exemplar], low: int, high: int) -> list[dict[str, str]]:
    """The chat messages that ask for a conversation of `low` to `high` turns; exemplars are earlier exchanges."""
    facts = ["its SMILES"]
    facts += ["a caption"] if subject.caption else []
    facts += ["its IUPAC name"] if subject.iupac else []
    listed = " and ".join([", ".join(facts[:-1]), facts[-1]] if len(facts) > 1 else facts)
    chat = [{"role": "system", "content": SYSTEM.format(facts=listed, low=low, high=high)}]
    for exemplar in exemplars:
        chat.append({"role": "user", "content": _context(exemplar.subject)})
        chat.append({"role": "assistant", "content": write_conversation(exemplar.pairs)})
    chat.append({"role": "user", "content": _context(subject)})
    return chat


def _context(subject: Subject) -> str:
    lines = [f"SMILES: {subject.smiles}"]
    lines += [f"Caption: {subject.caption}"] if subject.caption else []
    lines += [f"IUPAC name: {subject.iupac}"] if subject.iupac else []
    return "\n".join([*lines, "", "Conversation:"])
