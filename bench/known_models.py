"""The shapes of published language models, by their names on the hub: enough to count, and to build them at random.

What is kept in `bench/architectures/*.yaml` are facts of published configurations (vocabulary, widths, layers, heads,
context, rope), so that `molgraft check` needs neither a hub nor a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import yaml
from torch import nn

from bench.errors import ConfigError
from bench.shipped import shipped_files

RANDOM_SEED = 0
"""Of random weights at full size; not the run's, so that all seeds of a study share one model."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A published shape.

    Args:
        shape: name of its file.
        name: on the hub; several models may share a shape.
        parameters: how many the published weights have, tied ones once.
        config: arguments of the configuration class of `model_type`.
        source: where this is published.
    """

    shape: str
    name: str
    parameters: int
    config: Mapping[str, Any]
    source: str


@lru_cache(maxsize=1)
def known_architectures() -> Mapping[str, Architecture]:
    """Every known shape, by each of the names that have it."""
    found: dict[str, Architecture] = {}
    for shape, path in shipped_files("architectures").items():
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name in read["names"]:
            found[name] = Architecture(shape, name, read["parameters"], read["config"], read["source"])
    return found


def known_architecture(name: str) -> Architecture:
    """The shape of a published model.

    Raises:
        ConfigError: it is not among those that molgraft knows.
    """
    known = known_architectures()
    if name not in known:
        raise ConfigError(
            "llm.name", f"{name!r} has no known architecture, of which random weights could be made; {', '.join(known)}"
        )
    return known[name]


def configuration(architecture: Architecture, **changes: Any) -> Any:
    """The configuration of transformers of a shape; `changes` are laid over it."""
    from transformers import AutoConfig

    settings = {**architecture.config, **changes}
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def skeleton_of(config: Any, dtype: torch.dtype) -> nn.Module:
    """A causal language model of a configuration on the meta device, which has shapes but no memory."""
    return _made(config, dtype, torch.device("meta"))


def random_model(config: Any, dtype: torch.dtype, device: torch.device, seed: int = RANDOM_SEED) -> nn.Module:
    """A causal language model with weights as transformers draws them, made where and in the type that it is used.

    Drawn on the device itself: the same seed gives other numbers on a GPU than on a CPU.
    """
    kept = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=kept):
        torch.manual_seed(seed)
        return _made(config, dtype, device)


def _made(config: Any, dtype: torch.dtype, device: torch.device) -> nn.Module:
    from transformers import AutoModelForCausalLM

    with device:
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()
