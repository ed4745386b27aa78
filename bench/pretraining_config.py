"""The configuration of a pretraining: which encoder, for what objective, on which molecules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.config_types import Mapped
from bench.errors import UserError
from bench.parsing import apply_overrides, build, find_config, merge, read_yaml
from bench.pretraining_stage import PretrainingStage
from bench.registry import Registry, registry
from encoders.base import Encoder

FOLDER = "pretraining"
"""Of the shipped configurations, and of the run directories below the folder of runs."""


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig(PretrainingStage):
    """A pretraining.

    Args:
        encoder: whose weights are pretrained; starts from its `weights` where it names some.
    """

    encoder: Encoder


def load_pretraining(
    source: str, overrides: Sequence[str] = (), components: Registry | None = None
) -> PretrainingConfig:
    """The pretraining of a shipped name or a YAML file.

    Args:
        source: name or path.
        overrides: `a.b=value` settings, the value in YAML.
        components: where names are looked up.

    Raises:
        ConfigError: anything in it is unknown, of the wrong type, out of range or missing.
        UserError: there is no such name or file.
    """
    return build(PretrainingConfig, apply_overrides(_mapping(source), overrides), components or registry())


def _mapping(source: str) -> Mapped:
    """The YAML, with what it extends merged in."""
    path = find_config(source, folder=FOLDER)
    mapping = read_yaml(path)
    parent = mapping.pop("extends", None)
    if parent is None:
        return mapping
    base = read_yaml(find_config(str(parent), beside=path, folder=FOLDER))
    if "extends" in base:
        raise UserError(f"{path}: extends {parent}, which extends {base['extends']} itself; one level is allowed")
    return merge(base, mapping)
