"""Accounts for every tensor of a file: placed in the model, left out for a reason, or a fault that has it refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.errors import ConfigError
from bench.model import GraphLanguageModel
from bench.released.base import Reading

State = Mapping[str, Tensor]

_MARKS = {
    "mllm.": "llamo",
    "blip2opt.": "molca",
    "blip2qformer.": "molca",
    "smiles_projector.": "molx",
    "fingerprint_projector.": "molx",
    "model.mm_projector.": "instructmol",
    "base_model.model.model.mm_projector.": "instructmol",
}
"""How the names of a system's tensors begin."""


class Ledger:
    """One file's tensors and the model that they go to.

    Args:
        system: whose file it is said to be.
        path: for messages.
        tensors: by their names in the file.
        model: whose tensors are replaced, later.
    """

    def __init__(self, system: str, path: str, tensors: State, model: GraphLanguageModel) -> None:
        self.system = system
        self.path = path
        self.tensors = tensors
        self.model = model
        self.own = model.state_dict()
        self._targets: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._ignored: dict[str, list[str]] = {}
        self._left = dict.fromkeys(tensors)

    def expect(self, *prefixes: str) -> None:
        """Makes sure that the file is of this system.

        Raises:
            ConfigError: no name begins as its names do.
        """
        if any(name.startswith(prefixes) for name in self.tensors):
            return
        first = next(iter(self.tensors))
        other = {system for mark, system in _MARKS.items() if any(name.startswith(mark) for name in self.tensors)}
        hint = f"; {{name: {min(other)}, path: ...}} reads it" if other and self.system not in other else ""
        raise self.refusal(f"holds no `{prefixes[0]}*`, so it is none of {self.system}; it begins with {first}{hint}")

    def refusal(self, message: str) -> ConfigError:
        """An error that names the file."""
        return ConfigError("released", f"{self.system} weights {self.path}: the file {message}. Nothing was loaded")

    def unfit(self, setting: str, message: str) -> ConfigError:
        """An error that names the setting of the run that the file does not fit."""
        return ConfigError(setting, f"{message} ({self.system} weights {self.path}). Nothing was loaded")

    def under(self, *prefixes: str) -> dict[str, str]:
        """Tensors not yet accounted for below one of these: their names without it, and whole."""
        found = {}
        for name in self._left:
            if start := next((prefix for prefix in prefixes if name.startswith(prefix)), None):
                found[name.removeprefix(start)] = name
        return found

    def place(self, names: Mapping[str, str], rows: Mapping[str, int] | None = None) -> None:
        """Says where tensors go.

        Args:
            names: name in the file to name in the model; several may go to one place, and must then be equal.
            rows: of tables that are longer in the file, how many of the first rows are used.
        """
        self._targets |= names
        self._rows |= rows or {}
        for name in names:
            self._left.pop(name, None)

    def ignore(self, names: Iterable[str], reason: str) -> None:
        """Says that tensors are known, and of no use."""
        for name in names:
            self._ignored.setdefault(reason, []).append(name)
            self._left.pop(name, None)

    def ignore_like(self, pattern: str, reason: str) -> None:
        """Says the same of all tensors, not yet accounted for, whose whole name matches."""
        self.ignore([name for name in self._left if re.fullmatch(pattern, name)], reason)

    def placed(self, start: str) -> set[str]:
        """The model's tensors below `start` that the file gives."""
        return {target for target in self._targets.values() if target.startswith(start)}

    def given(self, name: str) -> Tensor:
        """A tensor of the file, cut to the rows that are used."""
        return self.tensors[name][: self._rows[name]] if name in self._rows else self.tensors[name]

    def names(self, start: str) -> set[str]:
        """The model's tensors below `start`."""
        return {name for name in self.own if name.startswith(start)}

    def reading(self, required: Collection[str]) -> Reading:
        """The tensors under the model's names.

        Args:
            required: the model's tensors that the layout promises.

        Raises:
            ConfigError: a tensor is missing, not accounted for, of another shape, not finite, or unlike its copy.
        """
        found: dict[str, str] = {}
        unlike: list[str] = []
        storages: dict[tuple[Any, ...], str] = {}
        for name, target in self._targets.items():
            if target not in self.own:
                self._left[name] = None
                continue
            # What the file keeps twice, or this model keeps once under two names, must be the same twice.
            place = self.own[target].data_ptr() or target
            first = storages.setdefault((place, tuple(self.own[target].shape)), name)
            if first != name and not _equal(self.given(first), self.given(name)):
                unlike.append(f"{first} and {name}")
            found.setdefault(target, name)
        given = {target: self.given(name) for target, name in found.items()}
        faults = [
            ("lacks", [f"what {name} needs" for name in sorted(set(required) - found.keys())]),
            ("also holds", list(self._left)),
            ("has another shape for", self._shapes(found, given)),
            ("holds unlike copies in", unlike),
            ("has values that are not finite in", [found[t] for t, tensor in given.items() if not _finite(tensor)]),
        ]
        said = [f"{what} {_some(names)}" for what, names in faults if names]
        if said:
            raise self.refusal("; it ".join(said))
        return Reading(given, {reason: tuple(names) for reason, names in self._ignored.items()})

    def _shapes(self, found: Mapping[str, str], given: State) -> list[str]:
        return [
            f"{name}: {tuple(given[target].shape)} where {tuple(self.own[target].shape)} is needed for {target}"
            for target, name in found.items()
            if given[target].shape != self.own[target].shape
        ]


def renamed_by(names: Collection[str], translate: Callable[[State], State]) -> dict[str, str]:
    """The name that a translation of whole state dicts gives each tensor; none for those that it leaves out.

    Numbers that stand for the tensors are sent through it.
    """
    order = list(names)
    moved = translate({name: torch.tensor(place) for place, name in enumerate(order)})
    return {order[int(place)]: name for name, place in moved.items()}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other.to(one.dtype))


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
