"""Questions: a text of one's own with `{molecule}` in it, or the name of a published system whose wording is taken.

`{molecule}` is one place for a molecule, in which `prompt.molecule` puts its graph and its text together;
`{molecule.graph}` and `{molecule.text}` are places for one of them, as InstructMol has the graph before its question
and the SELFIES behind it. Where a run has no graph or no text, nothing is written in its place; the words around stay.

Where a system draws its instruction from a pool, a hash of the example's id draws it here: the published draws are
unseeded (InstructMol: `llava/datasets/smiles2graph.py:107`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.base import MoleculePart, Slot, TaskError, in_part, slot, split_slots
from tasks.data_files import suggest
from tasks.published_questions import TEMPLATES, Template

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)(\.[A-Za-z_]+)?\}")
_PARTS: Mapping[str, MoleculePart] = {".graph": "graph", ".text": "text"}


@dataclass(frozen=True, slots=True)
class Question:
    """What `task.question` says, checked: a text of the user's, or a template.

    Args:
        task: the task's name, under which templates are listed.
        wanted: the text or the template's name.
        needed: the placeholder that must stand exactly once, unless parts of molecules do.
        allowed: further placeholders.
        parted: placeholders of molecules of which a part alone may stand, as `{molecule.graph}`; those beside `needed`
            stand in no other way.
        own: the task's templates, where they stand in a file of their own.
    """

    task: str
    wanted: str
    needed: str = "molecule"
    allowed: tuple[str, ...] = ()
    parted: tuple[str, ...] = ("molecule",)
    own: Mapping[str, Template] | None = None

    def __post_init__(self) -> None:
        if self.wanted in self._templates:
            return
        found = _PLACEHOLDER.findall(self.wanted)
        parts = [f"{name}{part}" for name, part in found if part]
        unknown = [f"{name}{part}" for name, part in found if not self._is_known(name, part)]
        said = f"task.question is {self.wanted!r}"
        if parts and not unknown:
            twice = next((part for part in parts if parts.count(part) > 1), None)
            if twice or (self.needed, "") in found:
                fault = (
                    f"`{{{twice}}}` stands twice" if twice else f"`{{{self.needed}}}` stands beside `{{{parts[0]}}}`"
                )
                raise TaskError(f"{said}: {fault}, but the graph and the text of a molecule have one place each")
            return
        if found.count((self.needed, "")) != 1:
            names = ", ".join(self._templates)
            either = f"the name of a template ({names}), or " if names else ""
            raise TaskError(
                f"{said}: it must be {either}a text that holds `{{{self.needed}}}` exactly once"
                f"{self._or_parts()}{suggest(self.wanted, self._templates)}"
            )
        if unknown:
            known = ", ".join(f"`{{{name}}}`" for name in self._known())
            raise TaskError(
                f"{said}: `{{{unknown[0]}}}` is nothing that task {self.task} fills in; it fills in {known}"
            )

    def ask(self, identity: str, label: str = "", values: Mapping[str, str] | None = None) -> str:
        """The user's turn for one example, the molecule's place marked by `slot(0)`.

        Args:
            identity: the example's id, which draws from a pool of instructions.
            label: the property that is asked about, or another word by which a template's texts differ.
            values: what stands in the place of the other placeholders; slots in those of molecules.

        Raises:
            TaskError: the template has no wording for `label`, or a molecule's graph or text would stand twice.
        """
        texts = self._texts(label)
        drawn = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") % len(texts)
        filled = {"molecule": slot(0), **(values or {})}

        def fill(match: re.Match[str]) -> str:
            name, part = match.groups()
            if name not in filled:
                return match.group(0)
            return in_part(filled[name], _PARTS[part]) if part else filled[name]

        text = _PLACEHOLDER.sub(fill, texts[drawn])
        if self.parted:
            self._refuse_repetition(text)
        return text

    def holds(self, *names: str) -> bool:
        """Whether any wording of this question has one of these placeholders, whole or in part."""
        pools = self._templates[self.wanted].texts.values() if self.wanted in self._templates else [(self.wanted,)]
        return any(name in names for pool in pools for text in pool for name, _ in _PLACEHOLDER.findall(text))

    @property
    def _templates(self) -> Mapping[str, Template]:
        return TEMPLATES.get(self.task, {}) if self.own is None else self.own

    def _is_known(self, name: str, part: str) -> bool:
        return name in self.parted and part in _PARTS if part else name in (self.needed, *self.allowed)

    def _known(self) -> tuple[str, ...]:
        return (self.needed, *self.allowed, *(f"{name}{part}" for name in self.parted for part in _PARTS))

    def _or_parts(self) -> str:
        if self.needed not in self.parted:
            return ""
        graph, text = (f"`{{{self.needed}{part}}}`" for part in _PARTS)
        return f", or {graph} and {text} at most once each"

    def _refuse_repetition(self, text: str) -> None:
        """Makes sure that no part of a molecule has two places, as by `{first.text}` beside `{reactants.text}`."""
        seen: set[tuple[int, str]] = set()
        for piece in split_slots(text):
            if isinstance(piece, Slot):
                parts = {(piece.index, part) for part in (("graph", "text") if piece.part == "both" else (piece.part,))}
                if parts & seen:
                    raise TaskError(
                        f"task.question is {self.wanted!r}: its placeholders put the {min(parts & seen)[1]} of one "
                        "molecule in two places"
                    )
                seen |= parts

    def _texts(self, label: str) -> tuple[str, ...]:
        if self.wanted not in self._templates:
            return (self.wanted,)
        texts = self._templates[self.wanted].texts
        found = texts.get(label) or texts.get("")
        if found is None:
            raise TaskError(
                f"the template {self.wanted!r} of task {self.task} has no question about {label!r}, but about "
                f"{', '.join(texts)}{suggest(label, texts)}. Write a question of your own, with `{{{self.needed}}}`"
            )
        return found
