"""Which encoders work with which projectors, from their declarations alone."""

from __future__ import annotations

from collections.abc import Mapping

from bench.errors import ConfigError
from bench.model import wire
from bench.registry import Registry


def wiring_matrix(components: Registry) -> dict[str, dict[str, str | None]]:
    """For every encoder and projector with their default settings: None where they fit, else what is missing."""
    projectors = {name: cls() for name, cls in sorted(components.all("projector").items())}
    matrix: dict[str, dict[str, str | None]] = {}
    for name, cls in sorted(components.all("encoder").items()):
        encoder = cls()
        matrix[name] = {}
        for other, projector in projectors.items():
            try:
                wire(encoder, projector)
                matrix[name][other] = None
            except ConfigError as error:
                matrix[name][other] = str(error)
    return matrix


def as_markdown(matrix: Mapping[str, Mapping[str, str | None]]) -> str:
    """The matrix as a Markdown table: a row per encoder, `+` where a projector fits."""
    projectors = list(next(iter(matrix.values())))
    lines = [f"| encoder | {' | '.join(projectors)} |", f"|---|{'---|' * len(projectors)}"]
    for encoder, row in matrix.items():
        lines.append(f"| {encoder} | {' | '.join('+' if row[other] is None else '' for other in projectors)} |")
    return "\n".join(lines)
