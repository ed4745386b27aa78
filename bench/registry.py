"""Finds components without registration code: a class in a room, an entry point or a plug-in folder is enough.

A component is a frozen dataclass that subclasses the base class of its kind and sets the class variable `name`. Adding
one is adding a file. Looking up a kind imports only the modules of that kind's room, so that a command that scores
captions never imports torch.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from bench.errors import UserError

PLUGINS_VARIABLE = "MOLGRAFT_PLUGINS"
SOURCE_ATTRIBUTE = "__molgraft_source__"
"""Where a plug-in's module keeps the hash of its file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A sort of component: where its files live and what they subclass.

    Args:
        name: in a configuration.
        room: the package whose modules are searched.
        base: the class that its components subclass, as `module:Class`.
        entry_point_group: where installed packages offer more of them.
        also_in: another package to search, for those that need several rooms.
    """

    name: str
    room: str
    base: str
    entry_point_group: str
    also_in: str | None = None

    @property
    def plural(self) -> str:
        """The word for many of them, as `molgraft list` takes it."""
        return self.name if self.name.endswith(("s", "released")) else f"{self.name}s"

    def load_base(self) -> type:
        """The base class."""
        module, _, attribute = self.base.partition(":")
        loaded: type = getattr(importlib.import_module(module), attribute)
        return loaded


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("task", "tasks", "tasks.base:Task", "molgraft.tasks"),
        Kind("text_input", "tasks", "tasks.prompts:TextInput", "molgraft.tasks"),
        Kind("chat", "tasks", "tasks.prompts:ChatFormat", "molgraft.tasks"),
        Kind("metric", "tasks.metrics", "tasks.metrics.base:Metric", "molgraft.tasks"),
        Kind("protocol", "tasks.metrics", "tasks.metrics.base:Protocol", "molgraft.tasks"),
        Kind("encoder", "encoders", "encoders.base:Encoder", "molgraft.encoders"),
        Kind("features", "encoders", "encoders.base:FeatureScheme", "molgraft.encoders"),
        Kind("segmenter", "encoders", "encoders.base:Segmenter", "molgraft.encoders"),
        Kind("objective", "encoders", "encoders.objectives:Objective", "molgraft.encoders", "bench.objectives"),
        Kind("graph_input", "encoders", "encoders.base:GraphInput", "molgraft.encoders"),
        Kind("projector", "projectors", "projectors.base:Projector", "molgraft.projectors"),
        Kind("released", "bench.released", "bench.released.base:ReleasedWeights", "molgraft.released"),
    )
}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A module that could not be imported, and why; what it would have offered is unknown."""

    origin: str
    reason: str


class Registry:
    """The components that can be named in a configuration.

    Args:
        plugins: folders whose `*.py` files are searched beside the rooms and the entry points.

    Raises:
        UserError: a plug-in folder does not exist.
    """

    def __init__(self, plugins: tuple[Path, ...] = ()) -> None:
        for folder in plugins:
            if not folder.is_dir():
                raise UserError(f"--plugins {folder}: no such folder")
        self._plugins = plugins
        self._found: dict[str, dict[str, type]] = {}
        self._unavailable: dict[str, list[Unavailable]] = {}

    def get(self, kind: str, name: str) -> type[Any]:
        """The declaration class of exactly this name.

        Raises:
            UserError: there is none; the message suggests near names and lists what there is.
        """
        known = self.all(kind)
        if name in known:
            return known[name]
        near = difflib.get_close_matches(str(name), known, n=1)
        suggestion = f" Did you mean {near[0]}?" if near else ""
        lost = "".join(f" ({u.origin} could not be imported: {u.reason})" for u in self.unavailable(kind))
        raise UserError(f"unknown {kind} {name!r}.{suggestion} Known: {', '.join(sorted(known)) or 'none'}.{lost}")

    def all(self, kind: str) -> Mapping[str, type[Any]]:
        """Every component of a kind by name."""
        if kind not in self._found:
            self._found[kind], self._unavailable[kind] = self._search(KINDS[kind])
        return self._found[kind]

    def unavailable(self, kind: str) -> list[Unavailable]:
        """Modules of this kind's room, entry points and plug-ins that failed to import."""
        self.all(kind)
        return self._unavailable[kind]

    def kind_of_base(self, base: object) -> Kind | None:
        """The kind whose base class `base` is, or None. Imports no room that is not imported yet."""
        for kind in KINDS.values():
            module, _, attribute = kind.base.partition(":")
            loaded = sys.modules.get(module)
            if loaded is not None and getattr(loaded, attribute, None) is base:
                return kind
        return None

    def _search(self, kind: Kind) -> tuple[dict[str, type], list[Unavailable]]:
        base = kind.load_base()
        found: dict[str, type] = {}
        unavailable: list[Unavailable] = []
        for origin, load in self._sources(kind):
            try:
                module = load()
            except Exception as error:  # a broken plug-in must not take the others with it; it is reported, not hidden
                unavailable.append(Unavailable(origin, f"{type(error).__name__}: {error}"))
                continue
            for component in _components(module, base):
                name = vars(component)["name"]
                if name in found and found[name] is not component:
                    raise UserError(
                        f"two {kind.plural} are named {name!r}: {origin_of(found[name])} and {origin_of(component)}"
                    )
                found[name] = component
        return found, unavailable

    def _sources(self, kind: Kind) -> Iterator[tuple[str, Any]]:
        for package in filter(None, (kind.room, kind.also_in)):
            for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
                if not info.ispkg:
                    name = f"{package}.{info.name}"
                    yield name, lambda name=name: importlib.import_module(name)
        for point in entry_points(group=kind.entry_point_group):
            yield f"entry point {point.name}", lambda point=point: _module_of(point.load())
        for path in self._plugin_files:
            yield str(path), lambda path=path: _import_file(path)

    @cached_property
    def _plugin_files(self) -> tuple[Path, ...]:
        return tuple(sorted(path for folder in self._plugins for path in folder.glob("[!_]*.py")))


def registry() -> Registry:
    """The registry with the folders of `$MOLGRAFT_PLUGINS`, where `--plugins` puts them for child processes too."""
    named = os.environ.get(PLUGINS_VARIABLE, "")
    return Registry(tuple(Path(folder) for folder in named.split(os.pathsep) if folder))


def origin_of(component: type) -> str:
    """Where a component is defined, as `file:line`."""
    try:
        return f"{inspect.getsourcefile(component)}:{inspect.getsourcelines(component)[1]}"
    except (OSError, TypeError):
        return component.__module__


def source_identity(component: type) -> str | None:
    """Hash of the file of a component from outside the rooms, whose `version` nobody vouches for; None for our own."""
    if component.__module__.split(".")[0] in {"bench", "encoders", "projectors", "tasks"}:
        return None
    module = sys.modules.get(component.__module__)
    imported = getattr(module, SOURCE_ATTRIBUTE, None)  # of the file as it was when it was imported
    if imported is not None:
        return str(imported)
    source = inspect.getsourcefile(component)
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else component.__module__


def _components(module: ModuleType, base: type) -> Iterator[type]:
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, base)
            and value.__module__ == module.__name__
            and "name" in vars(value)
            and not inspect.isabstract(value)
        ):
            yield value


def _module_of(loaded: object) -> ModuleType:
    return loaded if isinstance(loaded, ModuleType) else importlib.import_module(loaded.__module__)


class _Source(SourceFileLoader):
    """Loads the very source that was read: by what Python keeps compiled, an edit within a second goes unnoticed."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        """What the source compiles to."""
        compiled: CodeType = self.source_to_code(self._source, self.path)
        return compiled


def _import_file(path: Path) -> ModuleType:
    content = path.read_bytes()
    place, source = (hashlib.sha256(b).hexdigest() for b in (str(path.resolve()).encode(), content))
    name = f"molgraft_plugin_{place[:8]}_{source[:8]}_{path.stem}"  # an edited file is another module
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, path, content))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    setattr(module, SOURCE_ATTRIBUTE, source[:16])
    sys.modules[name] = module  # dataclasses look their module up while the class is being defined
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
