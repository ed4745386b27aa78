"""Configurations from YAML: presets, one level of `extends`, `--set`, and errors located by path, value and remedy."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from bench.config_types import Mapped
from bench.errors import ConfigError, UserError, is_user_error
from bench.registry import Registry
from bench.shipped import shipped_files

T = TypeVar("T")


def load_mapping(source: str) -> Mapped:
    """The YAML of a preset or file, with what it extends merged in."""
    path = find_config(source)
    mapping = read_yaml(path)
    parent = mapping.pop("extends", None)
    if parent is None:
        return mapping
    parent_path = find_config(str(parent), beside=path)
    base = read_yaml(parent_path)
    if "extends" in base:
        raise UserError(f"{path}: extends {parent}, which extends {base['extends']} itself; one level is allowed")
    return merge(base, mapping)


def find_config(source: str, beside: Path | None = None, folder: str = "presets") -> Path:
    """The file of a preset name or path.

    Raises:
        UserError: there is none; the message suggests near names.
    """
    shipped = shipped_files(folder)
    for candidate in (Path(source), *([beside.parent / source] if beside else [])):
        if candidate.suffix in {".yaml", ".yml"} and candidate.is_file():
            return candidate
    if source in shipped:
        return shipped[source]
    near = difflib.get_close_matches(source, shipped, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise UserError(
        f"{source}: neither a YAML file nor one that molgraft ships.{suggestion} Known {folder}: "
        f"{', '.join(sorted(shipped))}."
    )


def read_yaml(path: Path) -> Mapped:
    """A YAML mapping, read safely; a key that stands twice is refused.

    Raises:
        UserError: the file is not YAML or not a mapping.
    """
    try:
        loaded = _load_strictly(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: is {_kind(loaded)}, where a mapping of settings is expected")
    return loaded


def as_yaml(mapping: Mapping[str, Any]) -> str:
    """The text that `read_yaml` reads as this mapping."""
    text: str = yaml.dump(mapping, Dumper=_StrictDumper, sort_keys=False)
    return text


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapped:
    """`base` with `changes` laid over it. Lists are replaced; a component of another name is replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, Mapping) and "name" not in value:
            old = {"name": old}
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and "name" in old and value["name"] != old["name"]
            merged[key] = dict(value) if renamed else merge(old, value)
        else:
            merged[key] = value
    return merged


def apply_overrides(mapping: Mapped, overrides: Sequence[str]) -> Mapped:
    """`mapping` with `a.b=value` settings laid over it; `stages.tune.steps=5` reaches into a list by name or number.

    Raises:
        ConfigError: a setting has no `=`, its value is not YAML, or its path leads nowhere.
    """
    result: Mapped = mapping
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path.strip():
            raise ConfigError("--set", f"{override!r} is not of the form a.b=value")
        try:
            value = _load_strictly(text)
        except yaml.YAMLError:
            raise ConfigError(path, f"{text!r} is not readable as YAML") from None
        keys = path.strip().split(".")
        result = _replaced(result, keys, value, keys)
    return result


def laid_over(mapping: Mapped, changes: Mapping[str, Any]) -> Mapped:
    """`mapping` with values at dotted paths laid over it; a mapping is merged with the one that stands there.

    Raises:
        ConfigError: a path leads nowhere.
    """
    result: Mapped = mapping
    for path, value in changes.items():
        keys = path.split(".")
        result = _replaced(result, keys, value, keys, merging=True)
    return result


def build(cls: type[T], value: object, components: Registry, path: str = "") -> T:
    """An instance of a configuration dataclass from a mapping.

    Raises:
        ConfigError: located by `path`.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"is {_kind(value)}, where a mapping of settings is expected")
    declared: dict[str, Field[Any]] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for key in value:
        if key not in declared:
            near = difflib.get_close_matches(str(key), declared, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            allowed = ", ".join(declared) or "no settings at all"
            raise ConfigError(_join(path, key), f"unknown setting.{suggestion} Allowed here: {allowed}.")
    hints = _hints(cls)
    values = {}
    for name, declaration in declared.items():
        if name in value:
            given = _with_default_name(declaration, value[name])
            values[name] = _parse(hints[name], given, components, _join(path, name))
        elif declaration.default is MISSING and declaration.default_factory is MISSING:
            raise ConfigError(_join(path, name), "is missing, and has no default")
    try:
        return cls(**values)
    except Exception as error:
        if not is_user_error(error):
            raise
        located = _join(path, error.path) if isinstance(error, ConfigError) and error.path else path
        message = str(error).removeprefix(f"{error.path}: ") if isinstance(error, ConfigError) else str(error)
        raise ConfigError(located, message) from None


def to_mapping(value: object) -> Any:
    """A configuration as plain YAML values, every default spelled out; `build` reads it back to an equal one."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {"name": type(value).name} if _is_component(type(value)) else {}  # type: ignore[attr-defined]
        return {**named, **{f.name: to_mapping(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_mapping(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _with_default_name(declaration: Field[Any], value: object) -> object:
    """A component's settings without a `name` are those of the default component, with these laid over it."""
    default = declaration.default_factory() if declaration.default_factory is not MISSING else declaration.default
    if isinstance(value, Mapping) and "name" not in value and is_dataclass(default) and _is_component(type(default)):
        return merge(to_mapping(default), value)
    return value


def _parse(hint: Any, value: object, components: Registry, path: str) -> Any:
    if get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint):
        if value is None:
            return None
        rest = tuple(choice for choice in get_args(hint) if choice is not type(None))
        hint = Union[rest]  # noqa: UP007 - built from a tuple
    bare = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(bare) is tuple and _holds_dataclasses(bare):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(path, f"is {_kind(value)}, where a list is expected")
        parsed = tuple(_parse(get_args(bare)[0], item, components, f"{path}[{i}]") for i, item in enumerate(value))
        return _validated(Annotated[tuple[Any, ...], *hint.__metadata__], parsed, path) if bare is not hint else parsed
    if isinstance(bare, type) and is_dataclass(bare):
        return _parse_dataclass(bare, value, components, path)
    return _validated(hint, value, path)


def _parse_dataclass(cls: type[Any], value: object, components: Registry, path: str) -> object:
    if isinstance(value, cls):
        return value
    kind = next((k for base in cls.__mro__ if (k := components.kind_of_base(base))), None)
    if kind is None:
        return build(cls, value, components, path)
    mapping = {"name": value} if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise ConfigError(path, f"is {_kind(value)}, where {_article(kind.name)} or a mapping with one is expected")
    if not isinstance(mapping.get("name"), str):
        known = ", ".join(sorted(components.all(kind.name)))
        raise ConfigError(path, f"needs a `name`. Known {kind.plural}: {known}.")
    try:
        component = components.get(kind.name, mapping["name"])
    except UserError as error:
        raise ConfigError(path, str(error)) from None
    if not issubclass(component, cls):
        raise ConfigError(path, f"{kind.name} {mapping['name']} is no {cls.__name__}, which is needed here")
    return build(component, {key: item for key, item in mapping.items() if key != "name"}, components, path)


def _validated(hint: Any, value: object, path: str) -> Any:
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
        validated = adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        steps = (step for step in first["loc"] if not isinstance(step, str) or step in _keys(value))
        inside = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
        raise ConfigError(f"{path}{inside}", f"is {first['input']!r}: {first['msg'].lower()}") from None
    if isinstance(value, bool) and not isinstance(validated, bool):
        raise ConfigError(path, f"is {str(value).lower()}, where a number is expected")
    return validated


def _keys(value: object) -> Collection[str]:
    return {str(key) for key in value} if isinstance(value, Mapping) else ()


def _replaced(node: Any, keys: Sequence[str], value: object, whole: Sequence[str], merging: bool = False) -> Any:
    """A copy of `node` in which the value at `keys` is another one, or has another laid over it."""
    if not keys:
        return merge({"": node}, {"": value})[""] if merging else value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list):
        names = [item.get("name") if isinstance(item, Mapping) else item for item in node]
        position = int(key) if key.isdigit() else names.index(key) if key in names else None
        if position is None or position >= len(node):
            known = ", ".join(f"{i} ({name})" for i, name in enumerate(names))
            raise ConfigError(".".join(whole), f"the list holds no {key!r}; it has {known}")
        return [_replaced(item, rest, value, whole, merging) if i == position else item for i, item in enumerate(node)]
    if isinstance(node, str):
        node = {"name": node}  # `encoder: gin` is short for `encoder: {name: gin}`
    if node is not None and not isinstance(node, Mapping):
        raise ConfigError(".".join(whole), f"{key!r} is set below a plain value, {node!r}")
    node = dict(node or {})
    node[key] = _replaced(node.get(key), rest, value, whole, merging)
    return node


def _hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields, those resolved that are imported for type checking only."""
    return typing.get_type_hints(cls, include_extras=True)


def _holds_dataclasses(hint: Any) -> bool:
    inner = get_args(hint)
    return bool(inner) and isinstance(inner[0], type) and is_dataclass(inner[0])


def _is_component(cls: type) -> bool:
    return any(isinstance(vars(base).get("name"), str) for base in cls.__mro__) and "name" not in {
        f.name
        for f in fields(cls)  # type: ignore[arg-type]
    }


def _article(noun: str) -> str:
    return f"the name of {'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "empty"}
    return names.get(type(value), f"{value!r}") + (f" ({value!r})" if isinstance(value, str) else "")


def _load_strictly(text: str) -> Any:
    loader = _StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


class _StrictLoader(yaml.SafeLoader):
    """Safe loading that refuses a key standing twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key is a list or mapping", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class _StrictDumper(yaml.SafeDumper):
    """Quotes text that `_StrictLoader` would read as a number."""


# YAML 1.1 reads `5e-5` as text, YAML 1.2 and everybody else as a number.
for _side in (_StrictLoader, _StrictDumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
