"""The space of a search: which settings of a configuration vary, over what, and where the preset itself lies in it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.config import RunConfig
from bench.config_types import Mapped
from bench.errors import ConfigError
from bench.parsing import build, laid_over, to_mapping
from bench.registry import Registry

Number = int | float
Value = Number | str
"""What Optuna keeps of a parameter: a number, or the alias of a choice. It takes no other values."""

_KEYS = ("low", "high", "log", "step", "type", "choices", "when")

# What is not to vary: figures of trials that are asked or validated on different examples cannot be compared, and
# seeds, names and where a configuration came from are no settings to choose.
_FIXED = {
    "name": "names are given to trials by their numbers",
    "origin": "it only tells where a configuration came from",
    "seed": "every trial is trained with the seeds of the search; set `seeds`",
    "task": "trials of different tasks cannot be compared",
    "limits.validation": "all trials are validated on the same examples",
    "evaluation.split": "all trials are asked on the validation split",
    "evaluation.limit": "all trials are asked the same examples",
    "evaluation.ids": "all trials are asked the same examples",
    "evaluation.tasks": "all trials are asked the same examples",
    "evaluation.protocols": "all trials are scored by the same protocols",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A setting that a search varies.

    Args:
        path: of the setting, `stages.tune.optimiser.lr`; it is also the parameter's name in Optuna.
        choices: what stands there, by alias; empty for a range.
        low, high: the ends of a range, both included.
        log: drawn on a logarithmic scale.
        step: of a range; None for any number.
        type: of a range's numbers; None until the configuration has been asked what it takes.
        when: by path of a choice, the aliases with which this setting is there at all; empty for always.
    """

    path: str
    choices: Mapping[str, Any] = field(default_factory=dict)
    low: Number = 0
    high: Number = 0
    log: bool = False
    step: Number | None = None
    type: Literal["int", "float"] | None = None
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def extremes(self) -> tuple[Value, ...]:
        """The values that stand for all when it is checked what a configuration takes: the ends, or every choice."""
        return tuple(self.choices) or (self.low, self.high)

    def is_active(self, values: Mapping[str, Value]) -> bool:
        """Whether the setting is there, given the values of the others."""
        return all(values.get(path) in aliases for path, aliases in self.when.items())

    def setting(self, value: Value) -> Any:
        """What a value puts into the configuration."""
        return self.choices[str(value)] if self.choices else value

    def holds(self, value: object) -> bool:
        """Whether a number is one of the range's."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = 0.0 if self.step is None else (value - self.low) / self.step
        return math.isclose(steps, round(steps), abs_tol=1e-8)

    @property
    def described(self) -> str:
        """The range or the choices in words."""
        if self.choices:
            return ", ".join(self.choices)
        return f"{self.low} to {self.high}" + (f" in steps of {self.step}" if self.step else "")


@dataclass(frozen=True, slots=True)
class Space:
    """All settings that a search varies, parents before the settings that depend on them."""

    parameters: tuple[Parameter, ...]

    def active(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values whose settings are there, in order."""
        return {p.path: values[p.path] for p in self.parameters if p.path in values and p.is_active(values)}

    def applied(self, mapping: Mapped, values: Mapping[str, Value]) -> Mapped:
        """A configuration with the values of a trial laid over it; a part comes before the settings within it."""
        chosen = {p.path: p.setting(values[p.path]) for p in self.parameters if p.path in values}
        return laid_over(mapping, dict(sorted(chosen.items(), key=lambda item: item[0].count("."))))

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """What the values of a trial put at which path."""
        return {p.path: p.setting(values[p.path]) for p in self.parameters if p.path in values}


def read_space(declared: Mapping[str, Any]) -> Space:
    """The space as a search file declares it; what the configuration takes is not yet known.

    Raises:
        ConfigError: a parameter cannot be understood; located below `space`.
    """
    if not declared:
        raise ConfigError("space", "is empty; name at least one setting, as `llm.lora.r: {choices: [4, 8]}`")
    read: dict[str, Parameter] = {}
    for path, described in declared.items():
        _refuse_fixed(str(path))
        read[str(path)] = _parameter(str(path), described)
    for parameter in read.values():
        for parent, aliases in parameter.when.items():
            _check_condition(parameter, parent, aliases, read)
    return Space(tuple(_parents_first(read)))


def typed(space: Space, mapping: Mapped, components: Registry) -> tuple[Space, dict[str, Value]]:
    """The space with the types that the configuration declares, and the values of the configuration itself.

    Args:
        space: as it was read.
        mapping: the configuration that trials vary.
        components: where names are looked up.

    Raises:
        ConfigError: the configuration has no such setting, refuses one of its values, or lies outside of the space
            itself.
    """
    config = build(RunConfig, mapping, components)
    known: list[Parameter] = []
    at: dict[str, Value] = {}
    for parameter in space.parameters:
        enabling = with_parents(parameter, space, at)
        found = [_setting_at(parameter, value, enabling, space, mapping, components) for value in parameter.extremes]
        checked = parameter if parameter.choices else _with_type(parameter, found)
        known.append(checked)
        if checked.is_active(at):
            at[checked.path] = _own_value(checked, config, mapping, components)
    return Space(tuple(known)), at


def with_parents(parameter: Parameter, space: Space, at: Mapping[str, Value]) -> dict[str, Value]:
    """Values of others with which a parameter is there at all: the configuration's own (`at`) where they will do."""
    by_path = {p.path: p for p in space.parameters}
    needed: dict[str, Value] = {}
    for parent, aliases in parameter.when.items():
        needed |= with_parents(by_path[parent], space, at)
        needed[parent] = str(at[parent]) if at.get(parent) in aliases else aliases[0]
    return needed


def at_path(node: Any, path: str) -> Any:
    """What stands at a dotted path of plain values; lists are entered by name or number; None where nothing stands."""
    for key in path.split("."):
        if isinstance(node, list):
            named = [item for item in node if isinstance(item, Mapping) and item.get("name") == key]
            node = node[int(key)] if key.isdigit() and int(key) < len(node) else named[0] if named else None
        else:
            node = node.get(key) if isinstance(node, Mapping) else None
    return node


def overlaps(path: str, other: str) -> bool:
    """Whether two paths are one, or one leads into the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _refuse_fixed(path: str) -> None:
    for fixed, reason in _FIXED.items():
        if overlaps(path, fixed):
            raise ConfigError(f"space.{path}", f"cannot be searched over: {reason}")


def _parameter(path: str, described: object) -> Parameter:
    place = f"space.{path}"
    if isinstance(described, list):
        described = {"choices": described}
    if not isinstance(described, Mapping):
        raise ConfigError(
            place, f"is {described!r}; give a range, {{low: 1, high: 4}}, or choices, {{choices: [a, b]}}"
        )
    for key in described:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{place}.{key}", f"unknown setting.{suggestion} Allowed here: {', '.join(_KEYS)}.")
    when = _conditions(described.get("when") or {}, f"{place}.when")
    if "choices" in described:
        ranged = [key for key in ("low", "high", "log", "step", "type") if key in described]
        if ranged:
            raise ConfigError(place, f"has `choices` and {', '.join(ranged)}; a setting has choices or a range")
        return Parameter(path, choices=_choices(described["choices"], f"{place}.choices"), when=when)
    return _range(path, described, when)


def _range(path: str, described: Mapping[str, Any], when: Mapping[str, tuple[str, ...]]) -> Parameter:
    place = f"space.{path}"
    for key in ("low", "high", *(["step"] if described.get("step") is not None else [])):
        value = described.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(f"{place}.{key}", f"is {value!r}, where a number is expected")
    low, high, step, log = described["low"], described["high"], described.get("step"), described.get("log", False)
    if not isinstance(log, bool):
        raise ConfigError(f"{place}.log", f"is {log!r}, where true or false is expected")
    if described.get("type") not in (None, "int", "float"):
        raise ConfigError(f"{place}.type", f"is {described['type']!r}; it may be int or float")
    if low >= high:
        raise ConfigError(place, f"goes from {low} to {high}; `low` must be less than `high`")
    if log and low <= 0:
        raise ConfigError(f"{place}.low", f"is {low}; a logarithmic scale begins above 0")
    if log and step is not None:
        raise ConfigError(place, "has `log` and `step`; a logarithmic scale has no steps")
    if step is not None and step <= 0:
        raise ConfigError(f"{place}.step", f"is {step}; it must be above 0")
    parameter = Parameter(path, low=low, high=high, log=log, step=step, type=described.get("type"), when=when)
    if not parameter.holds(high):
        last = low + step * math.floor((high - low) / step + 1e-8)
        raise ConfigError(f"{place}.high", f"is {high}, which no step of {step} from {low} reaches; the last is {last}")
    return parameter


def _choices(described: object, place: str) -> dict[str, Any]:
    if isinstance(described, Mapping):
        choices = {_alias(alias, place): value for alias, value in described.items()}  # YAML reads `on` as true
        if len(choices) < len(described):
            raise ConfigError(place, f"two of the choices {', '.join(map(str, described))} are called the same")
    elif isinstance(described, list):
        choices = {}
        for value in described:
            alias = _alias(value, place)
            if alias in choices:
                raise ConfigError(place, f"two choices are called {alias!r}; give aliases, {{alias: value, ...}}")
            choices[alias] = value
    else:
        raise ConfigError(place, f"is {described!r}, where a list, or a mapping from alias to value, is expected")
    if len(choices) < 2:
        raise ConfigError(place, f"has {len(choices)}; a setting with fewer than two belongs into `settings`")
    return choices


def _alias(value: object, place: str) -> str:
    """The name of a choice that was given without one: text, a number, or a part by its name."""
    if isinstance(value, Mapping) and set(value) == {"name"}:
        return str(value["name"])
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(place, f"holds {value!r}, which needs an alias: {{alias: value, ...}}")


def _conditions(described: object, place: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(described, Mapping):
        raise ConfigError(place, f"is {described!r}, where a mapping from path to aliases is expected")
    return {
        str(path): tuple(_alias(alias, place) for alias in (aliases if isinstance(aliases, list) else [aliases]))
        for path, aliases in described.items()
    }


def _check_condition(parameter: Parameter, parent: str, aliases: Sequence[str], read: Mapping[str, Parameter]) -> None:
    place = f"space.{parameter.path}.when"
    chosen = read.get(parent)
    if chosen is None or not chosen.choices:
        named = [path for path, other in read.items() if other.choices and path != parameter.path]
        near = difflib.get_close_matches(parent, named, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{place}.{parent}",
            f"is no setting of the space with choices.{suggestion} There are: {', '.join(named) or 'none'}.",
        )
    if not aliases:
        raise ConfigError(f"{place}.{parent}", f"is empty; name some of its choices, {', '.join(chosen.choices)}")
    for alias in aliases:
        if alias not in chosen.choices:
            near = difflib.get_close_matches(alias, chosen.choices, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{place}.{parent}", f"{alias!r} is none of its choices, {', '.join(chosen.choices)}.{suggestion}"
            )


def _parents_first(read: Mapping[str, Parameter]) -> Iterator[Parameter]:
    left = dict(read)
    while left:
        free = [parameter for parameter in left.values() if not set(parameter.when) & set(left)]
        if not free:
            raise ConfigError("space", f"the conditions of {', '.join(left)} go round in a circle")
        for parameter in free:
            yield left.pop(parameter.path)


def _setting_at(
    parameter: Parameter,
    value: Value,
    enabling: Mapping[str, Value],
    space: Space,
    mapping: Mapped,
    components: Registry,
) -> Any:
    """What the configuration makes of a value; None where it is refused for the sake of another setting."""
    place = f"space.{parameter.path}" + (f".choices.{value}" if parameter.choices else "")
    try:
        laid = laid_over(space.applied(mapping, enabling), {parameter.path: parameter.setting(value)})
        built = build(RunConfig, laid, components)
    except ConfigError as error:
        own = _as_reported(parameter.path, space.applied(mapping, enabling))
        if error.path.startswith((own, parameter.path)):
            raise ConfigError(place, str(error)) from None
        return None  # it does not go with another setting of the preset, which may vary too; a trial will tell
    return at_path(to_mapping(built), parameter.path)


def _as_reported(path: str, mapping: Mapped) -> str:
    """A path as errors of configurations show it: `stages[1].steps` for `stages.tune.steps`."""
    node: Any = mapping
    shown = ""
    for key in path.split("."):
        if isinstance(node, list):
            names = [item.get("name") if isinstance(item, Mapping) else item for item in node]
            number = int(key) if key.isdigit() else names.index(key) if key in names else len(node)
            shown += f"[{number}]"
            node = node[number] if number < len(node) else None
        else:
            shown += f".{key}" if shown else key
            node = node.get(key) if isinstance(node, Mapping) else None
    return shown


def _with_type(parameter: Parameter, found: Sequence[Any]) -> Parameter:
    place = f"space.{parameter.path}"
    taken = [value for value in found if value is not None]
    for value in taken:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(place, f"takes no numbers but {value!r}; give `choices`")
    ends = [end for end in (parameter.low, parameter.high, parameter.step) if end is not None]
    whole = all(isinstance(end, int) for end in ends)
    declared = "int" if (all(isinstance(value, int) for value in taken) if taken else whole) else "float"
    if parameter.type == "float" and declared == "int":
        raise ConfigError(f"{place}.type", "is float, and the setting takes whole numbers only")
    chosen: Literal["int", "float"] = "int" if (parameter.type or declared) == "int" else "float"
    if chosen == "int" and not whole:
        raise ConfigError(place, f"takes whole numbers only, and its range is {parameter.described}")
    cast = int if chosen == "int" else float
    return Parameter(
        parameter.path,
        low=cast(parameter.low),
        high=cast(parameter.high),
        log=parameter.log,
        step=None if parameter.step is None else cast(parameter.step),
        type=chosen,
        when=parameter.when,
    )


def _own_value(parameter: Parameter, config: RunConfig, mapping: Mapped, components: Registry) -> Value:
    """The preset's own value, which is that of trial 0."""
    place, plain = f"space.{parameter.path}", to_mapping(config)
    own = at_path(plain, parameter.path)
    if not parameter.choices:
        if not parameter.holds(own) or (parameter.type == "int" and own != int(own)):
            raise ConfigError(
                place,
                f"is {own!r} in the preset, which trial 0 is, and the range is {parameter.described}; widen it, or "
                "give the setting another value in `settings`",
            )
        value: Value = int(own) if parameter.type == "int" else float(own)
        return value
    for alias, choice in parameter.choices.items():
        try:
            built = build(RunConfig, laid_over(mapping, {parameter.path: choice}), components)
        except ConfigError:
            continue
        if at_path(to_mapping(built), parameter.path) == own:
            return alias
    raise ConfigError(
        place,
        f"is {own!r} in the preset, which trial 0 is, and none of the choices {parameter.described}; add it, or "
        "give the setting another value in `settings`",
    )
