"""What the runs of one process have in common, kept so that each of them does not make it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields, is_dataclass
from threading import Lock
from typing import Any, TypeVar

from bench.registry import source_identity

T = TypeVar("T")

_MOST = {"features": 4}
"""Values of a kind, where fewer than of others are kept: an opened feature store holds many files open."""


@dataclass(slots=True)
class _Kept:
    value: Any
    size: int


class Memo:
    """Values by kind and key, for as long as there is room; the least recently used goes first.

    A key holds everything that its value depends on, contents of files included, so that a run comes to the same bits
    with a memo that others have filled as with an empty one. What is kept is therefore never changed: whoever changes
    a value (loaded weights, say) copies it first.

    Kept are, by kind: the `examples` of a task and a split, a `subset` or `mixture` of them, their `hash`, the `corpus`
    that a small language model learns from, which molecules are `unwritable` in a prompt, opened `features`, and
    `tokenised` examples. Models are not: their weights are read anew for each run, which takes no longer than to copy
    them, so that nothing that one run has trained can be found in another.

    Args:
        room: bytes that all values may take together, as `get` is told; what would not fit alone is not kept.
        entries: values of one kind, at most.
    """

    def __init__(self, room: int = 1 << 30, entries: int = 64) -> None:
        self.room = room
        self.entries = entries
        self._kept: OrderedDict[tuple[str, Hashable], _Kept] = OrderedDict()
        self._lock = Lock()

    def get(self, kind: str, key: Hashable, make: Callable[[], T], size: Callable[[T], int] = lambda _: 1024) -> T:
        """What `make` gives for a key, or gave before.

        Args:
            kind: of value; keys of different kinds may be equal.
            key: everything that the value depends on.
            make: makes it. An error is not kept.
            size: about how many bytes a value takes.
        """
        place = (kind, key)
        with self._lock:
            found = self._kept.get(place)
            if found is not None:
                self._kept.move_to_end(place)
                value: T = found.value
                return value
        value = make()  # outside the lock: it may ask for other values itself
        with self._lock:
            self._keep(place, _Kept(value, size(value)))
        return value

    def __reduce__(self) -> tuple[type[Memo], tuple[int, int]]:
        """Sent to another process, it arrives empty."""
        return Memo, (self.room, self.entries)

    @property
    def size(self) -> int:
        """Bytes that the values take."""
        return sum(kept.size for kept in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, place: tuple[str, Hashable], kept: _Kept) -> None:
        if kept.size > self.room:
            return
        self._kept[place] = kept
        same_kind = [other for other in self._kept if other[0] == place[0]]
        for other in same_kind[: max(0, len(same_kind) - _MOST.get(place[0], self.entries))]:
            del self._kept[other]
        while self.size > self.room:
            self._kept.popitem(last=False)


def is_ours(value: object) -> bool:
    """Whether a component and those in it are from our own rooms, which read nothing but what they declare.

    What an unknown component comes to may depend on files that nobody names here, so it is not kept.
    """
    if is_dataclass(value) and not isinstance(value, type):
        known = not hasattr(type(value), "version") or source_identity(type(value)) is None
        return known and all(is_ours(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, (list, tuple)):
        return all(map(is_ours, value))
    return True
