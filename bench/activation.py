"""Activation checkpointing of the language model: activations are computed again in the backward pass, not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

_LARGE = 1_000_000_000  # parameters


def is_worth_it(llm: nn.Module, device: torch.device) -> bool:
    """Whether it is on unless the user says otherwise: for language models of a billion parameters on an accelerator.

    A step then takes about a third longer, and needs the memory of one layer's activations in the place of all.
    """
    return device.type != "cpu" and sum(parameter.numel() for parameter in llm.parameters()) >= _LARGE


def checkpointed_layers(llm: nn.Module) -> Iterator[nn.Module]:
    """The layers of a language model of transformers for which it is on."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    # Whole models carry the same flag, and read their own mode for other ends (OPT's for leaving out layers).
    kinds = (module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer))
    return (module for module in kinds if module.gradient_checkpointing)


def checkpoint_while_frozen(llm: nn.Module) -> None:
    """Makes a frozen language model checkpoint its activations too, which soft tokens' gradients run through.

    transformers checkpoints layers in training mode only, and frozen parts are in evaluation mode. So the layers
    themselves are in training mode, and leave it while they compute (OPT's apply their dropout by that mode).
    """
    for layer in checkpointed_layers(llm):
        function: Any = layer._gradient_checkpointing_func
        if not isinstance(function, _AsEvaluated):
            layer._gradient_checkpointing_func = _AsEvaluated(layer, function)  # type: ignore[assignment]
        layer.training = True


class _AsEvaluated:
    """Checkpoints a layer's computation in the mode that the layer's parts are in."""

    def __init__(self, layer: nn.Module, checkpoint: Callable[..., Any]) -> None:
        self._layer = layer
        self._checkpoint = checkpoint

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        # A layer's parts follow the language model's mode; the layer's own flag alone was raised.
        return self._checkpoint(partial(self._computed, function), *arguments)

    def _computed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        mode = self._layer.training
        self._layer.training = any(part.training for part in self._layer.children())
        try:
            return function(*arguments)
        finally:
            self._layer.training = mode
