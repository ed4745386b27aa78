"""The recipe of a study: what its cells differ in, and what they all have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OF_RUNS = frozenset({"name", "seed", "origin"})
"""Settings that tell runs apart without changing what is compared."""

_MOST_LETTERS = 300

ABSENT = "\N{EN DASH}"
"""Shown where a cell has no such setting."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which cells differ.

    Args:
        path: of the configuration, as `--set` takes it.
        values: by cell, as a reader would write them.
        short: the same, of components the name alone where that tells them apart.
    """

    path: str
    values: Mapping[str, str]
    short: Mapping[str, str]


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """What cells differ in, by path; of two different components, all that they do not have in common.

    Args:
        configs: the resolved configuration of each cell, by its alias.
    """
    found: list[Difference] = []
    if configs:
        plain = {cell: {k: v for k, v in config.items() if k not in _OF_RUNS} for cell, config in configs.items()}
        _compare("", plain, found)
    return found


def settings_in_common(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The part of the configuration that all cells share, nested as they have it."""
    plain = [{k: v for k, v in config.items() if k not in _OF_RUNS} for config in configs.values()]
    shared = _shared(plain) if plain else {}
    return shared if isinstance(shared, dict) else {}


def as_yaml(config: Mapping[str, Any]) -> str:
    """A configuration as a file that `molgraft run` takes."""
    import yaml

    return str(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=110))


def in_words(value: object) -> str:
    """A value as a reader would write it: `gin, layers 3, width 128` for a component, plain values as they are."""
    text = _worded(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}…"


def _worded(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        parts = [f"{key} {_nested(inner)}" for key, inner in value.items() if key != "name"]
        return ", ".join([_worded(value["name"]), *parts] if "name" in value else parts) or "empty"
    if isinstance(value, list | tuple):
        return ", ".join(map(_nested, value)) or "none"
    return str(value)


def _nested(value: object) -> str:
    compound = isinstance(value, Mapping) or (isinstance(value, list | tuple) and len(value) > 1)
    return f"({_worded(value)})" if compound else _worded(value)


def _compare(path: str, values: Mapping[str, Any], found: list[Difference]) -> None:
    """Adds what differs at a path or below it."""
    distinct = list(values.values())
    if all(value == distinct[0] for value in distinct[1:]):
        return
    if all(isinstance(value, Mapping) for value in distinct) and len({value.get("name") for value in distinct}) == 1:
        for key in dict.fromkeys(key for value in distinct for key in value):
            _compare(_below(path, key), {cell: v.get(key, ABSENT) for cell, v in values.items()}, found)
    elif _is_list_of_named(distinct):
        for place, item in enumerate(distinct[0]):
            _compare(_below(path, item["name"]), {cell: value[place] for cell, value in values.items()}, found)
    else:
        common = _keys_in_common(distinct)
        shown = {cell: _without(value, common) for cell, value in values.items()}
        full = {cell: in_words(value) for cell, value in shown.items()}
        names = {cell: str(value["name"]) if _is_named(value) else full[cell] for cell, value in shown.items()}
        tells_apart = len(set(names.values())) == len(set(full.values()))
        found.append(Difference(path, full, names if tells_apart else full))


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and "name" in value


def _is_list_of_named(values: Sequence[Any]) -> bool:
    """Whether all are lists, as stages are, of items of the same names in the same order."""
    if not all(isinstance(value, list | tuple) and value for value in values):
        return False
    if not all(isinstance(item, Mapping) and "name" in item for value in values for item in value):
        return False
    return len({tuple(item["name"] for item in value) for value in values}) == 1


def _keys_in_common(values: Sequence[Any]) -> frozenset[str]:
    """Keys that all of several components have with equal values: telling them would hide what differs."""
    if len(values) < 2 or not all(isinstance(value, Mapping) for value in values):
        return frozenset()
    first, *rest = values
    return frozenset(k for k, v in first.items() if k != "name" and all(k in other and other[k] == v for other in rest))


def _without(value: Any, keys: frozenset[str]) -> Any:
    return {key: inner for key, inner in value.items() if key not in keys} if isinstance(value, Mapping) else value


def _shared(values: Sequence[Any]) -> Any:
    """What is equal in all; mappings are looked into. None stands for nothing in common, as well as for itself."""
    first, *rest = values
    if all(value == first for value in rest):
        return first
    if not all(isinstance(value, Mapping) for value in values):
        return None
    if len({value.get("name") for value in values}) > 1:
        return None
    kept = {}
    for key in first:
        if all(key in value for value in rest):
            inner = [value[key] for value in values]
            shared = _shared(inner)
            if shared is not None or all(value is None for value in inner):
                kept[key] = shared
    return kept or None


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)
