"""Projectors of a study made comparable: equal in parameters, or in tokens per molecule, by one declared field each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from bench.config import TINY, RunConfig
from bench.errors import ConfigError
from bench.language_model import embedding_width, load_skeleton, locate
from bench.model import wire
from bench.runtime import Runtime

_TOLERANCE = 0.05  # of the target, beyond which projectors are not called matched
_WIDEST = 1 << 16

# A molecule of median size in ChEBI-20: 25 atoms, 5 motifs. Tokens are counted on it.
_ATOMS, _MOTIFS = 25, 5

Cells = Mapping[str, RunConfig]


def match_parameters(cells: Cells, target: str | int, runtime: Runtime) -> dict[str, RunConfig]:
    """The cells with projectors of as nearly equal numbers of parameters as their declared widths allow.

    Args:
        cells: by alias; those without soft tokens stay as they are.
        target: the cell whose projector the others are matched to, or a number of parameters.
        runtime: to find language models by, whose embedding width counts.

    Raises:
        ConfigError: a projector has no adjustable width, or none comes within 5% of the target.
    """
    return _matched(cells, target, "match_params", "adjustable_width", lambda config: _parameters(config, runtime))


def match_tokens(cells: Cells, target: str | int) -> dict[str, RunConfig]:
    """The cells with projectors of as nearly equal numbers of tokens for a molecule of median size as they allow.

    Raises:
        ConfigError: a projector's number of tokens is not adjustable, or none comes within 5% of the target.
    """
    return _matched(cells, target, "count_match", "adjustable_tokens", _tokens)


def _matched(
    cells: Cells, target: str | int, setting: str, attribute: str, measure: Callable[[RunConfig], int]
) -> dict[str, RunConfig]:
    if isinstance(target, str) and target not in cells:
        raise ConfigError(setting, f"names no cell {target!r}; cells: {', '.join(cells)}")
    wanted = measure(cells[target]) if isinstance(target, str) else target
    return {
        alias: config
        if not config.projector.places_tokens or alias == target
        else _nearest(alias, config, wanted, setting, getattr(config.projector, attribute), measure)
        for alias, config in cells.items()
    }


def _nearest(
    alias: str, config: RunConfig, wanted: int, setting: str, field: str | None, measure: Callable[[RunConfig], int]
) -> RunConfig:
    """The configuration whose projector comes nearest to what is wanted; the measure grows with the field."""
    found, measured = config, measure(config)
    if field is not None and measured != wanted:
        low, high = 1, 2
        while measure(_with(config, field, high)) < wanted and high < _WIDEST:
            low, high = high, 2 * high
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if measure(_with(config, field, middle)) < wanted else (low, middle)
        candidates = [_with(config, field, value) for value in (low, high)]
        found = min(candidates, key=lambda candidate: abs(measure(candidate) - wanted))
        measured = measure(found)
    if abs(measured - wanted) > _TOLERANCE * wanted:
        how = f"whatever its {field}" if field else f"and projector {config.projector.name} has no field to adjust"
        raise ConfigError(setting, f"cell {alias} has {measured:,} where {wanted:,} are wanted, {how}")
    return found


def _with(config: RunConfig, field: str, value: int) -> RunConfig:
    changes: dict[str, Any] = {field: value}
    return replace(config, projector=replace(config.projector, **changes))


def _parameters(config: RunConfig, runtime: Runtime) -> int:
    if not config.projector.places_tokens:
        return 0
    with torch.device("meta"):
        module = config.projector.build(wire(config.encoder, config.projector), _llm_width(config, runtime))
    return sum(parameter.numel() for parameter in module.parameters())


def _tokens(config: RunConfig) -> int:
    counts = {"atom": np.array([_ATOMS]), "motif": np.array([_MOTIFS])}
    return int(config.projector.tokens(config.encoder.rows(counts, 1), 1)[0])


def _llm_width(config: RunConfig, runtime: Runtime) -> int:
    if config.llm.name == TINY:
        return config.llm.tiny.width
    return embedding_width(load_skeleton(locate(config.llm, runtime), config.llm.dtype))
