"""Presets: configurations with named choices, at several scales, and which of their settings nobody has published.

A preset that stands for a published system says with `switches` where its paper and its released code disagree;
`fidelity` chooses one side of all of them, a single switch one side of one. A switch with `when: {other: [sides]}` is
in force only where each of the others named has one of these sides. `scales` lay their settings over that: the
published recipe, a real training on one machine, and a trial of minutes.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench.config import RunConfig
from bench.config_types import Mapped
from bench.errors import ConfigError
from bench.parsing import apply_overrides, build, laid_over, load_mapping, merge
from bench.registry import Registry, registry

FIDELITIES = ("paper", "code")
_KEYS = ("system", "fidelity", "scale", "switches", "scales")
_ABOUT, _DEFAULT, _WHEN = "about", "default", "when"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is chosen of a preset; None for what the preset itself chooses.

    Args:
        scale: one of its scales.
        fidelity: the side that is taken of every switch that has the sides `paper` and `code`.
        switches: single switches by name.
    """

    scale: str | None = None
    fidelity: str | None = None
    switches: dict[str, str] = field(default_factory=dict)

    def over(self, other: Choices) -> Choices:
        """These, and of another's what is left open here."""
        return Choices(
            scale=self.scale or other.scale,
            fidelity=self.fidelity or other.fidelity,
            switches={**other.switches, **self.switches},
        )


@dataclass(frozen=True, kw_only=True)
class System:
    """The published system that a preset stands for.

    Args:
        title: its name.
        paper, code: where it was described, and where its code was read.
        reconstruction: settings, by path, that no source gives; what stands there is ours.
        notes: what a reader should know beside the settings.
    """

    title: str
    paper: str = ""
    code: str = ""
    reconstruction: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of a switch, or a scale.

    Args:
        set: values by dotted path.
        source: where it was read.
        about: what it is, in words.
    """

    set: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Switch:
    """A named choice of a preset, and the side that is in force.

    Args:
        value: the side.
        sides: all of them.
        undone: paths that something laid over later has set otherwise: another switch, the scale, or the user.
    """

    name: str
    about: str
    value: str
    sides: Mapping[str, Side]
    undone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A preset with every choice made.

    Args:
        config: what is run.
        mapping: the same as plain values, as they were written.
        system: None for a configuration that stands for none.
    """

    config: RunConfig
    mapping: Mapped
    system: System | None = None
    scale: str = ""
    fidelity: str = ""
    switches: tuple[Switch, ...] = ()


def load_config(
    source: str,
    overrides: Sequence[str] = (),
    components: Registry | None = None,
    choices: Choices | None = None,
) -> RunConfig:
    """The configuration of a preset name or a YAML file; see `resolve`."""
    return resolve(source, overrides, components, choices).config


def resolve(
    source: str,
    overrides: Sequence[str] = (),
    components: Registry | None = None,
    choices: Choices | None = None,
) -> Resolved:
    """A preset name or a YAML file with every choice made.

    Args:
        source: name of a preset, or a path.
        overrides: `a.b=value` settings, the value in YAML; laid over everything else.
        components: where names are looked up.
        choices: scale, fidelity and switches.

    Raises:
        ConfigError: anything in it is unknown, of the wrong type, out of range or missing.
        UserError: there is no such preset or file.
    """
    return resolve_mapping(load_mapping(source), overrides, components, choices)


def resolve_mapping(
    written: Mapped,
    overrides: Sequence[str] = (),
    components: Registry | None = None,
    choices: Choices | None = None,
    common: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Resolved:
    """The same for what was read already.

    Args:
        written: a preset as `load_mapping` gives it.
        overrides, components, choices: see `resolve`.
        common: values by dotted path, laid over the preset first, as those of all cells of a study are.
        changes: laid over that, as a cell of a study is.
        settings: values by dotted path, laid over that before `overrides`, as a cell of a grid is.
    """
    components = components or registry()
    chosen = choices or Choices()
    mapping = {key: value for key, value in written.items() if key not in _KEYS}
    fidelity = _fidelity(written, chosen)
    switches = _switches(written, chosen, fidelity, components)
    for switch in switches:
        mapping = laid_over(mapping, switch.sides[switch.value].set)
    scales = _sides(written.get("scales") or {}, "scales", components)
    scale = _scale(written, chosen, scales)
    if scale:
        mapping = laid_over(mapping, _still_there(scales[scale].set, mapping, written))
    if switches or scale:
        mapping["name"] = _name(mapping, scale, fidelity, written, chosen)
    mapping = merge(laid_over(mapping, common or {}), changes or {})
    mapping = apply_overrides(laid_over(mapping, settings or {}), overrides)
    switches = tuple(_checked(switch, mapping) for switch in switches)
    if (switches or scale) and "origin" not in mapping:
        shown = {switch.name: switch.value + (" (overridden)" if switch.undone else "") for switch in switches}
        origin = {"preset": str(written.get("name")), "scale": scale, "fidelity": fidelity, "switches": shown}
        mapping = {**mapping, "origin": origin}
    described = written.get("system")
    return Resolved(
        build(RunConfig, mapping, components),
        mapping,
        None if described is None else build(System, described, components, "system"),
        scale,
        fidelity,
        switches,
    )


def described(resolved: Resolved) -> dict[str, Any] | None:
    """What a preset stands for and which of its choices are in force, for a program; None where it has none."""
    if resolved.system is None and not resolved.switches and not resolved.scale:
        return None
    return {
        "system": None if resolved.system is None else asdict(resolved.system),
        "scale": resolved.scale,
        "fidelity": resolved.fidelity,
        "switches": [
            {
                "name": switch.name,
                "about": switch.about,
                "in_force": switch.value,
                "undone": list(switch.undone),
                "sides": {name: asdict(side) for name, side in switch.sides.items()},
            }
            for switch in resolved.switches
        ],
    }


def told(resolved: Resolved) -> Iterator[str]:
    """The same in lines for people."""
    if resolved.system is not None:
        system = resolved.system
        yield from ("", " · ".join(part for part in (system.title, system.paper, system.code) if part))
        yield from (f"  {note}" for note in system.notes)
    if resolved.scale:
        yield f"scale: {resolved.scale}"
    if resolved.fidelity:
        yield f"fidelity: {resolved.fidelity}"
    for switch in resolved.switches:
        yield f"switch {switch.name}: {switch.value}{_others(switch)}: {switch.about}"
        side = switch.sides[switch.value]
        for path, value in side.set.items():
            undone = " (set otherwise since, by another switch, the scale or you)" if path in switch.undone else ""
            yield f"    {path} = {json.dumps(value, ensure_ascii=False)}{undone}"
        if side.source:
            yield f"    source: {side.source}"
    if resolved.system is not None and resolved.system.reconstruction:
        yield f"reconstruction, given by no source: {', '.join(resolved.system.reconstruction)}"


def _others(switch: Switch) -> str:
    others = [name for name in switch.sides if name != switch.value]
    return f" (or {', '.join(others)})" if others else ""


def _fidelity(written: Mapped, chosen: Choices) -> str:
    has_sides = any(
        isinstance(s, Mapping) and set(FIDELITIES) <= set(s) for s in (written.get("switches") or {}).values()
    )
    if chosen.fidelity is not None and not has_sides and "fidelity" not in written:
        raise ConfigError("--fidelity", f"{written.get('name')} has no switch with the sides `paper` and `code`")
    fidelity = chosen.fidelity or written.get("fidelity") or (FIDELITIES[1] if has_sides else "")
    if fidelity and fidelity not in FIDELITIES:
        raise ConfigError("--fidelity", f"is {fidelity!r}; it may be {' or '.join(FIDELITIES)}")
    return str(fidelity)


def _switches(written: Mapped, chosen: Choices, fidelity: str, components: Registry) -> tuple[Switch, ...]:
    declared = written.get("switches") or {}
    for name in chosen.switches:
        _known(name, declared, "--switch", f"{written.get('name')} has no switch")
    found = []
    for name, described in declared.items():
        path = f"switches.{name}"
        if not isinstance(described, Mapping):
            raise ConfigError(path, f"is {described!r}, where a mapping of sides is expected")
        rest = {key: value for key, value in described.items() if key not in (_ABOUT, _DEFAULT, _WHEN)}
        sides = _sides(rest, path, components)
        value = chosen.switches.get(name) or described.get(_DEFAULT) or fidelity
        _known(value, sides, f"--switch {name}" if name in chosen.switches else path, "has no side")
        found.append(Switch(name, str(described.get(_ABOUT, "")), str(value), sides))
    values = {switch.name: switch.value for switch in found}
    return tuple(switch for switch in found if _is_in_force(switch.name, declared, values, chosen))


def _is_in_force(
    name: str, declared: Mapping[str, Mapping[str, Any]], values: Mapping[str, str], chosen: Choices
) -> bool:
    """Whether the conditions of a switch hold; one that was chosen although they do not is refused."""
    for other, wanted in (declared[name].get(_WHEN) or {}).items():
        path = f"switches.{name}.{_WHEN}"
        _known(other, declared, path, "there is no switch")
        sides = [str(side) for side in (wanted if isinstance(wanted, list) else [wanted])]
        for side in sides:
            _known(side, declared[other], f"{path}.{other}", "has no side")
        if values[other] in sides:
            continue
        if name in chosen.switches:
            needed = " or ".join(sides)
            raise ConfigError(
                f"--switch {name}", f"has no effect while {other} is {values[other]}; it needs {other} to be {needed}"
            )
        return False
    return True


def _still_there(changes: Mapping[str, Any], mapping: Mapped, written: Mapped) -> dict[str, Any]:
    """A scale's settings but for those of a stage that a switch has taken out."""
    return {
        path: value
        for path, value in changes.items()
        if _leads_on(mapping, path.split(".")) or not _leads_on(written, path.split("."))
    }


def _leads_on(node: Any, keys: Sequence[str]) -> bool:
    """Whether every list on the way holds what the path names."""
    for key in keys:
        if isinstance(node, list) and _at(node, [key]) is None:
            return False
        node = _at(node, [key])
    return True


def _sides(described: object, path: str, components: Registry) -> Mapping[str, Side]:
    if not isinstance(described, Mapping):
        raise ConfigError(path, f"is {described!r}, where a mapping is expected")
    return {str(name): build(Side, side or {}, components, f"{path}.{name}") for name, side in described.items()}


def _scale(written: Mapped, chosen: Choices, scales: Mapping[str, Side]) -> str:
    scale = chosen.scale or written.get("scale") or ""
    if scale:
        _known(scale, scales, "--scale" if chosen.scale else "scale", f"{written.get('name')} has no scale")
    return str(scale)


def _known(name: object, known: Mapping[str, Any], path: str, what: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(path, f"{what} {name!r}.{suggestion} There are: {', '.join(known) or 'none'}.")


def _name(mapping: Mapped, scale: str, fidelity: str, written: Mapped, chosen: Choices) -> str:
    """An alias that says what was chosen."""
    parts = [str(mapping.get("name")), *([scale] if scale else [])]
    parts += [fidelity] if chosen.fidelity else []
    return "-".join([*parts, *(f"{name}.{value}" for name, value in chosen.switches.items())])


def _checked(switch: Switch, mapping: Mapped) -> Switch:
    was_set = switch.sides[switch.value].set
    undone = (path for path, value in was_set.items() if not _holds(_at(mapping, path.split(".")), value))
    return replace(switch, undone=tuple(undone))


def _at(node: Any, keys: Sequence[str]) -> Any:
    """What stands at a path; None where nothing does."""
    for key in keys:
        if isinstance(node, list):
            named = [item for item in node if isinstance(item, Mapping) and item.get("name") == key]
            node = node[int(key)] if key.isdigit() and int(key) < len(node) else named[0] if named else None
        elif isinstance(node, Mapping):
            node = node.get(key)
        else:
            return node if key == "name" else None  # `encoder: gin` is short for `encoder: {name: gin}`
    return node


def _holds(found: Any, value: Any) -> bool:
    """Whether a value is what a side set: equal, or a mapping that still has all of it."""
    if isinstance(found, Mapping) and isinstance(value, Mapping):
        return all(key in found and _holds(found[key], item) for key, item in value.items())
    if isinstance(found, Mapping) and isinstance(value, str):
        return found.get("name") == value
    return bool(found == value)
