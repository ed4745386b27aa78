"""Adapters added to the weights that they change, for as long as answers are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

MOST_MERGED = 1 << 30
"""Bytes of weights beyond which adapters stay apart: the weights are held a second time while they are merged."""


@contextmanager
def adapters_merged(llm: nn.Module) -> Iterator[None]:
    """The model with LoRA adapters as part of its weights; afterwards with the very weights that it had.

    A token then costs one product per map instead of three. Only weights in 32 bits are changed: in bfloat16 small
    changes would be rounded away, and quantised ones cannot be added to.

    Args:
        llm: a model of transformers, with or without adapters.
    """
    layers = _merged_layers(llm)
    kept: list[tuple[Any, torch.Tensor]] = []
    try:
        for layer in layers:
            weight = layer.get_base_layer().weight
            merged = weight.data + layer.get_delta_weight(layer.active_adapters[0])
            kept.append((layer, weight.data))
            weight.data = merged
            layer._disable_adapters = True
        yield
    finally:
        for layer, data in kept:
            layer.get_base_layer().weight.data = data
            layer._disable_adapters = False


def merged_bytes(llm: nn.Module) -> int:
    """Bytes of the weights that `adapters_merged` holds a second time; the model may be on the meta device."""
    return sum(layer.get_base_layer().weight.nbytes for layer in _merged_layers(llm))


def _merged_layers(llm: nn.Module) -> list[Any]:
    """The layers whose adapters are merged: none, where their weights are too large to be held twice."""
    # A weight may be that of other modules too, as an output embedding's that is tied to the input embedding.
    owners = Counter(id(weight) for module in llm.modules() for weight in module.parameters(recurse=False))
    layers: list[Any] = [layer for layer in llm.modules() if _can_merge(layer)]
    own = [layer for layer in layers if owners[id(layer.get_base_layer().weight)] == 1]
    return own if sum(layer.get_base_layer().weight.nbytes for layer in own) <= MOST_MERGED else []


def _can_merge(layer: Any) -> bool:
    """Whether the layer is a linear map in 32 bits with one plain adapter that is in use."""
    if "lora_A" not in getattr(layer, "_modules", {}):
        return False
    from peft.tuners.lora.layer import Linear

    if type(layer) is not Linear or layer.disable_adapters or layer.merged or len(layer.active_adapters) != 1:
        return False
    name = layer.active_adapters[0]
    is_plain = name in layer.lora_A and name not in layer.lora_variant and not layer.lora_bias.get(name)
    return bool(is_plain) and layer.get_base_layer().weight.dtype == torch.float32
