"""Which encoders work with which projectors, and with which setting, from their declarations alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from bench.errors import ConfigError
from bench.model import wire
from bench.registry import Registry
from encoders.base import Encoder
from projectors.base import Projector


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether an encoder and a projector fit.

    Args:
        settings: the projector's settings with which they fit; empty for its defaults, None if they fit with none.
        reason: what is missing with its defaults.
    """

    settings: Mapping[str, Any] | None
    reason: str | None = None

    @property
    def mark(self) -> str:
        """In a table: `+` with the projector's defaults, the setting that it takes, or nothing."""
        if self.settings is None:
            return ""
        return ", ".join(f"`{key}={_written(value)}`" for key, value in self.settings.items()) or "+"


Matrix = Mapping[str, Mapping[str, Fit]]


def wiring_matrix(components: Registry) -> dict[str, dict[str, Fit]]:
    """For every encoder with its default settings and every projector, whether they fit."""
    projectors = {name: cls() for name, cls in sorted(components.all("projector").items())}
    encoders = {name: cls() for name, cls in sorted(components.all("encoder").items())}
    return {
        name: {other: _fit(encoder, projector) for other, projector in projectors.items()}
        for name, encoder in encoders.items()
    }


def as_markdown(matrix: Matrix) -> str:
    """The matrix as a Markdown table: a row per encoder."""
    projectors = list(next(iter(matrix.values())))
    lines = [f"| encoder | {' | '.join(projectors)} |", f"|---|{'---|' * len(projectors)}"]
    for encoder, row in matrix.items():
        lines.append(f"| {encoder} | {' | '.join(row[other].mark for other in projectors)} |")
    return "\n".join(lines)


def _fit(encoder: Encoder, projector: Projector) -> Fit:
    reason = None
    for settings in _settings(encoder, projector):
        try:
            wire(encoder, replace(projector, **settings))
        except ConfigError as error:
            reason = reason or str(error)
            continue
        return Fit(settings, reason)
    return Fit(None, reason)


def _settings(encoder: Encoder, projector: Projector) -> Iterator[dict[str, Any]]:
    """The projector's defaults, and what it could be asked to read instead."""
    yield {}
    provided = [level for level in encoder.provides() if not level.startswith("layer:")]
    declared = {field.name for field in fields(projector)}
    if "level" in declared:
        yield from ({"level": level} for level in provided)
    if "levels" in declared:
        kept = tuple(level for level in projector.needs() if level in provided)
        if kept:
            yield {"levels": kept}
    if "motifs" in declared:
        yield {"motifs": False}


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
