"""Sentences of descriptions, cut where a sentence ends and not where a name or an abbreviation has a full stop."""

from __future__ import annotations

import re

_BREAK = re.compile(r"(?<=[.!?])\s+(?=[A-Z(\[\"'0-9])")
_ABBREVIATED = re.compile(
    r"(?:\b(?:e\.g|i\.e|cf|vs|sp|spp|ssp|subsp|var|cv|ca|approx|St|Dr|No|Fig|al|etc|resp|str|pv|f)|\b[A-Z])\.$"
)


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, white space made single."""
    flat = " ".join(text.split())
    found: list[str] = []
    for piece in _BREAK.split(flat):
        if found and _ABBREVIATED.search(found[-1]):
            found[-1] += f" {piece}"
        elif piece:
            found.append(piece)
    return found
