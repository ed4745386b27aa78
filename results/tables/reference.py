"""Which row another one is compared with, and beside which row a published number stands, where a cell has several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.tables.gather import Group


def reference_of(group: Group, groups: Sequence[Group], alias: str) -> Group | str | None:
    """The row of the cell of reference that a row is compared with.

    A cell may have been asked in several ways: other decoding, other graphs at test. Differences are then within the
    same way of asking, so that they say something of the cells alone. Where the cell of reference was asked in one way
    only, all others are compared with that.

    Args:
        group: the row.
        groups: all that stand in its part.
        alias: of the cell of reference.

    Returns:
        The other row; why there is none; or None where the row is of the cell of reference itself, or no row is.
    """
    known = [other for other in groups if other.alias == alias]
    if not known or group in known:
        return None
    cells = {other.first.run.cell for other in known}
    if len(cells) > 1:
        return f"no difference: {len(cells)} cells are called {alias}"
    same = next((other for other in known if _evaluation(other) == _evaluation(group)), None)
    same = same or next((other for other in known if group.way and other.way == group.way), None)
    if same is not None:
        return same
    if len(known) == 1:
        return known[0]
    return f"no difference: {alias} was asked in {len(known)} ways, and none is that of this row"


def published_rows(groups: Sequence[Group]) -> dict[str, Group]:
    """Of each cell, by its alias, the row beside which a published number stands.

    Papers ask a model as it was trained: with its own graphs and texts, by the decoding that the cell's configuration
    has. Where several rows are such, it is the one with the fewest beams.
    """
    chosen: dict[str, Group] = {}
    for group in groups:
        known = chosen.get(group.alias)
        if known is None or _unusual(group) < _unusual(known):
            chosen[group.alias] = group
    return chosen


def _unusual(group: Group) -> tuple[bool, bool, bool, int]:
    """The smaller, the more it was asked as it was trained and configured."""
    entry, run = group.first.entry, group.first.run
    graphs = (entry.get("graph_input") or {}).get("name", "real")
    trained = (run.summary.get("graph_input") or {}).get("train", "real")
    generation: Mapping[str, Any] = entry.get("generation") or {}
    configured = (run.config.get("evaluation") or {}).get("generation") or {}
    decoded = any(generation.get(name) != value for name, value in configured.items())
    other_words = entry.get("text_input") is not None or entry.get("prompt") is not None
    return graphs != trained, other_words, decoded, int(generation.get("beams") or 1)


def _evaluation(group: Group) -> str:
    return str(group.first.entry.get("evaluation_id"))
