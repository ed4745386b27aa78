"""Names of rows: the aliases of cells, and what tells rows of equal aliases apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from results.tables.gather import Group

# What a run is called, its seed, where its configuration came from; how it was asked stands in its result.
_NO_SETTINGS = ("name", "seed", "origin", "evaluation")
_MOST = 2  # differences that a name spells out


def names_of(groups: Sequence[Group], label_of: Callable[[str], str] = str) -> list[str]:
    """A name for each group, no two of them equal.

    A name is the cell's alias with whatever is unusual in how it was asked. Of rows that would have the same name, each
    gets the settings in which they differ; a piece of their identity only where no setting does.

    Args:
        groups: the rows of one part.
        label_of: from a cell's alias to how it is called.
    """
    names = [f"{label_of(group.alias)}{asked_of(group)}" for group in groups]
    for name in [name for name, count in Counter(names).items() if count > 1]:
        places = [place for place, other in enumerate(names) if other == name]
        for place, piece in zip(places, _apart([groups[place] for place in places]), strict=True):
            names[place] = f"{name} ({piece})"
    return names


def asked_of(group: Group) -> str:
    """What is unusual in how a row was asked, to be put behind its name: `, graphs zero at test, 5 beams`."""
    entry = group.first.entry
    control = (entry.get("graph_input") or {}).get("name", "real")
    beams = (entry.get("generation") or {}).get("beams", 1)
    graphs = "" if control == "real" else f", graphs {control} at test"
    return f"{graphs}{'' if beams == 1 else f', {beams} beams'}"


def _apart(groups: Sequence[Group]) -> list[str]:
    """For each group, in which settings it differs from the others."""
    settings = [flat_settings(group) for group in groups]
    paths = dict.fromkeys(path for found in settings for path in found)
    differing = [path for path in paths if len({str(found.get(path)) for found in settings}) > 1]
    for count in range(1, _MOST + 1):
        pieces = [", ".join(f"{path} {found.get(path)}" for path in differing[:count]) for found in settings]
        if len(set(pieces)) == len(pieces):
            return pieces
    cells = {group.first.run.cell for group in groups}
    where = "cell" if len(cells) == len(groups) else "asked as"
    keys = [group.first.run.cell if where == "cell" else str(group.first.entry["evaluation_id"]) for group in groups]
    if len({key[:8] for key in keys}) < len(keys):
        return [f"number {number}" for number, _ in enumerate(groups, start=1)]
    return [f"{where} {key[:8]}" for key in keys]


def flat_settings(group: Group) -> dict[str, Any]:
    """What a group's cell is made of and how it was asked, by dotted path."""
    answer = group.first
    asked = {key: answer.entry.get(key) for key in ("graph_input", "text_input", "prompt", "generation")}
    config = {key: value for key, value in answer.run.config.items() if key not in _NO_SETTINGS}
    return _flat({**config, "asked": asked})


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            key: item for name, part in value.items() for key, item in _flat(part, f"{path}.{name}".strip(".")).items()
        }
    if isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        named = {
            str(part.get("name", place)) if isinstance(part, Mapping) else place: part
            for place, part in enumerate(value)
        }
        return {key: item for name, part in named.items() for key, item in _flat(part, f"{path}.{name}").items()}
    return {path: value}
