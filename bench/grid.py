"""Grids: factors with short aliases, every combination of which is a cell, but for those that are excluded.

A factor is a path of the configuration with a value under each alias, or a free name with several settings under each:

    factors:
      encoder: {gin: {name: gin, layers: 3}, tokens: smiles}  # a path: alias -> value
      stages.tune.optimiser.lr: [1e-3, 3e-3]  # a path: plain values, which are their own aliases
      scale: [smoke, small]  # a choice of the preset: scale, fidelity, switches.NAME
      without: {both: [], tune-only: [align]}  # stages that are left out
      budget:  # a free name: alias -> paths and values
        settings:
          short: {stages.align.steps: 50, stages.tune.steps: 50}
          long: {stages.align.steps: 200, stages.tune.steps: 200}
    exclude:
      - {encoder: tokens, budget: [short, long]}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

from bench.config import RunConfig
from bench.config_types import ALIAS_PATTERN
from bench.errors import ConfigError

SETTINGS = "settings"
"""Below it stand the levels of a factor of a free name; so no level may be called that."""

WITHOUT = "without"
"""Names of stages that a cell leaves out. They go last, so that settings of such a stage may stand for all cells."""

_CHOICES = ("scale", "fidelity")
_SWITCHES = "switches"
_NO_FACTORS = {
    "seed": "seeds are listed under `seeds`",
    "name": "cells are named by the aliases of their levels",
    "origin": "it says from which preset a configuration was made",
}

Settings = Mapping[str, Any]
"""Values by dotted path; `scale`, `fidelity`, `switches.NAME` and `without` beside paths of a run's configuration."""


@dataclass(frozen=True, slots=True)
class Factor:
    """Something that is varied.

    Args:
        name: the path that it sets, or a free name.
        levels: what is set, by alias.
    """

    name: str
    levels: Mapping[str, Settings]

    @property
    def paths(self) -> tuple[str, ...]:
        """What any of its levels sets."""
        return tuple(dict.fromkeys(path for settings in self.levels.values() for path in settings))


@dataclass(frozen=True, slots=True)
class GridCell:
    """One combination of levels.

    Args:
        levels: the alias taken of each factor.
        settings: what they set, settings of whole components before settings inside them.
    """

    levels: Mapping[str, str]
    settings: Settings

    @property
    def name(self) -> str:
        """The aliases, joined."""
        return "-".join(self.levels.values())

    @property
    def choices(self) -> dict[str, Any]:
        """Scale, fidelity and switches that it chooses, as `bench.preset.Choices` has them."""
        chosen: dict[str, Any] = {name: self.settings[name] for name in _CHOICES if name in self.settings}
        switches = {path.partition(".")[2]: v for path, v in self.settings.items() if path.startswith(f"{_SWITCHES}.")}
        return {**chosen, **({_SWITCHES: switches} if switches else {})}

    @property
    def without(self) -> object:
        """The stages that it leaves out, as written."""
        return self.settings.get(WITHOUT, ())

    @property
    def changes(self) -> dict[str, Any]:
        """What it sets of the run's configuration."""
        return {path: value for path, value in self.settings.items() if not _is_choice(path)}


def factors_of(written: Mapping[Any, Any]) -> tuple[Factor, ...]:
    """The factors of a study as its file has them.

    Raises:
        ConfigError: a path leads nowhere, two factors set the same, or an alias is no text, no word or stands twice.
    """
    if not isinstance(written, Mapping):
        raise ConfigError("factors", f"is {written!r}, where a mapping of paths to levels is expected")
    factors = []
    for name, levels in written.items():
        path = f"factors.{name}"
        if not isinstance(name, str):
            raise ConfigError(path, f"is read by YAML as {name!r}, which is no path; write it in quotes")
        is_free = isinstance(levels, Mapping) and SETTINGS in levels
        factors.append(Factor(name, _free_levels(levels, path) if is_free else _levels(levels, name, path)))
    _refuse_set_twice(factors)
    return tuple(factors)


def cells_of(factors: Sequence[Factor], exclude: Sequence[Mapping[Any, Any]] = ()) -> list[GridCell]:
    """Every combination of levels that is not excluded, the last factor's levels changing fastest.

    Raises:
        ConfigError: an exclusion names an unknown factor or alias, or nothing is left.
    """
    rules = [_exclusion(rule, factors, f"exclude[{number}]") for number, rule in enumerate(exclude)]
    if not factors:
        return []
    cells = []
    for aliases in product(*(factor.levels for factor in factors)):
        levels = {factor.name: alias for factor, alias in zip(factors, aliases, strict=True)}
        if any(all(levels[name] in excluded for name, excluded in rule.items()) for rule in rules):
            continue
        settings = {path: value for f in factors for path, value in f.levels[levels[f.name]].items()}
        # `encoder` before `encoder.width`: a setting inside a component belongs to the component that is chosen.
        cells.append(GridCell(levels, dict(sorted(settings.items(), key=lambda item: item[0].count(".")))))
    if not cells:
        raise ConfigError("exclude", "leaves no cell of the grid; take out an exclusion, or add a level")
    return cells


def alias_of(value: object) -> str | None:
    """A plain value as text, as it stands in names and in `exclude`; None for one that is not plain."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def check_alias(alias: object, path: str) -> str:
    """An alias as it may stand in a name.

    Raises:
        ConfigError: YAML reads it as something else than text, or it holds what no name may hold.
    """
    if not isinstance(alias, str):
        raise ConfigError(
            path, f"the alias is read by YAML as {alias!r}, which is no text; write it in quotes, or choose another"
        )
    if re.fullmatch(ALIAS_PATTERN, alias) is None:
        raise ConfigError(
            path, f"the alias {alias!r} may hold letters, digits and `_ . + -` only, since folders are named by it"
        )
    if alias == SETTINGS:
        raise ConfigError(path, f"no level may be called {SETTINGS!r}; it marks the levels of a factor of a free name")
    return alias


def _levels(levels: object, name: str, path: str) -> dict[str, Settings]:
    """The levels of a factor that sets one path."""
    _check_path(name, path, is_factor=True)
    if not isinstance(levels, Mapping | list) or not levels:
        raise ConfigError(path, f"is {levels!r}, where levels are expected: {{ALIAS: VALUE, ...}} or a list of values")
    if isinstance(levels, Mapping):
        return {check_alias(alias, path): {name: value} for alias, value in levels.items()}
    found: dict[str, Settings] = {}
    for value in levels:
        alias = alias_of(value)
        if alias is None:
            raise ConfigError(path, f"the value {value!r} is not plain and needs an alias: {{ALIAS: VALUE, ...}}")
        if re.fullmatch(ALIAS_PATTERN, alias) is None:
            raise ConfigError(
                path,
                f"the value {value!r} cannot be its own alias, since folders are named by it; "
                "give it one: {ALIAS: VALUE, ...}",
            )
        if alias in found:
            raise ConfigError(path, f"the level {alias!r} stands twice; each may stand once")
        found[alias] = {name: value}
    return found


def _free_levels(written: Mapping[Any, Any], path: str) -> dict[str, Settings]:
    """The levels of a factor that sets several paths at once."""
    levels = written[SETTINGS]
    beside = [key for key in written if key != SETTINGS]
    if beside:
        raise ConfigError(path, f"has {beside[0]!r} beside `{SETTINGS}`; all levels stand below `{SETTINGS}`")
    if not isinstance(levels, Mapping) or not levels:
        raise ConfigError(
            f"{path}.{SETTINGS}", f"is {levels!r}, where {{ALIAS: {{PATH: VALUE, ...}}, ...}} is expected"
        )
    found: dict[str, Settings] = {}
    for alias, settings in levels.items():
        here = f"{path}.{SETTINGS}.{check_alias(alias, f'{path}.{SETTINGS}')}"
        if not isinstance(settings, Mapping):
            raise ConfigError(here, f"is {settings!r}, where {{PATH: VALUE, ...}} is expected ({{}} sets nothing)")
        for name in settings:
            _check_path(name, f"{here}.{name}")
        found[str(alias)] = dict(settings)
    return found


def _check_path(name: object, path: str, is_factor: bool = False) -> None:
    """Stops where a path does not even begin with a setting of a run; where it leads is found out in every cell."""
    if not isinstance(name, str):
        raise ConfigError(path, f"is read by YAML as {name!r}, which is no path; write it in quotes")
    first, _, rest = name.partition(".")
    if first in _NO_FACTORS:
        raise ConfigError(path, f"is no factor: {_NO_FACTORS[first]}")
    known = [field.name for field in fields(RunConfig) if field.name not in _NO_FACTORS]
    if first in known or (first in (*_CHOICES, WITHOUT) and not rest) or (first == _SWITCHES and rest):
        return
    near = difflib.get_close_matches(first, [*known, *_CHOICES, WITHOUT, f"{_SWITCHES}.NAME"], n=1)
    suggestion = f" Did you mean {'.'.join([near[0], *([rest] if rest else [])])}?" if near else ""
    free = f" A factor of a free name has its levels below `{SETTINGS}`." if is_factor else ""
    raise ConfigError(
        path,
        f"leads nowhere: a run has no setting {first!r}.{suggestion} There are: {', '.join(known)}; and of the preset "
        f"{', '.join(_CHOICES)} and {_SWITCHES}.NAME; {WITHOUT} names stages to leave out.{free}",
    )


def _refuse_set_twice(factors: Sequence[Factor]) -> None:
    owner: dict[str, str] = {}
    for factor in factors:
        for path in factor.paths:
            if path in owner:
                raise ConfigError(
                    f"factors.{factor.name}", f"sets {path}, which factor {owner[path]!r} sets too; one of them may"
                )
            owner[path] = factor.name


def _exclusion(rule: object, factors: Sequence[Factor], path: str) -> dict[str, tuple[str, ...]]:
    """An exclusion: the aliases that it names, by factor. A cell that has one of them of each factor is left out."""
    if not isinstance(rule, Mapping) or not rule:
        raise ConfigError(path, f"is {rule!r}, where {{FACTOR: ALIAS or list of aliases, ...}} is expected")
    known = {factor.name: factor for factor in factors}
    found = {}
    for name, aliases in rule.items():
        if name not in known:
            raise ConfigError(f"{path}.{name}", f"names no factor{_near(name, known)}")
        listed = aliases if isinstance(aliases, list) else [aliases]
        texts = [alias_of(alias) for alias in listed]
        for alias, text in zip(listed, texts, strict=True):
            if text not in known[name].levels:
                raise ConfigError(f"{path}.{name}", f"{alias!r} is no alias of it{_near(text, known[name].levels)}")
        found[name] = tuple(text for text in texts if text is not None)
    return found


def _near(name: object, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    return f".{suggestion} There are: {', '.join(known) or 'none'}."


def _is_choice(path: str) -> bool:
    return path in (*_CHOICES, WITHOUT) or path.startswith(f"{_SWITCHES}.")
