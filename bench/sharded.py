"""Models and optimisers whose tensors are dealt out over processes (FSDP2, DeepSpeed ZeRO), put together and dealt out.

What is written down is whole, so that a stage's weights, and a checkpoint of FSDP2, are those of any other training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.model import GraphLanguageModel


def sharding() -> Literal["fsdp", "deepspeed"] | None:
    """`fsdp` or `deepspeed` where the launcher was told to deal out the model, else None."""
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return "deepspeed"
    # Among one process there is nothing to deal out, and accelerate does not.
    return "fsdp" if _is_on("ACCELERATE_USE_FSDP") and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None


def _is_on(name: str) -> bool:
    return os.environ.get(name, "false").lower() in {"true", "1"}


def forget_sharding() -> None:
    """Models that are loaded from now on are not dealt out by DeepSpeed's settings, which outlive a training."""
    if sharding() == "deepspeed":
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def whole_state(model: GraphLanguageModel) -> dict[str, Tensor]:
    """The tensors that a stage changes, whole and on the CPU. All processes call it together."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _gathered(trained):
        # Put together and moved away one by one, so that the accelerator never holds all of them.
        return {name: _whole(tensor).detach().cpu().contiguous() for name, tensor in model.trainable_state().items()}


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Puts whole tensors into a model that may be dealt out."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(_like(tensor, own[name]))


def whole_optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of an optimiser as one process would have it. All processes call it together."""
    described: dict[str, Any] = optimiser.state_dict()
    state = {
        number: {name: _whole(value).cpu() if isinstance(value, Tensor) else value for name, value in entry.items()}
        for number, entry in described["state"].items()
    }
    return {"state": state, "param_groups": described["param_groups"]}


def load_whole_optimiser_state(optimiser: torch.optim.Optimizer, whole: Mapping[str, Any]) -> None:
    """Deals the state of an optimiser out as its parameters are."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state = {
        number: {
            name: _like(value, parameters[number]) if isinstance(value, Tensor) and value.dim() else value
            for name, value in entry.items()
        }
        for number, entry in whole["state"].items()
    }
    optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def _whole(tensor: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Tensor, own: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(own, DTensor):
        return tensor
    return distribute_tensor(tensor.to(own.device, own.dtype), own.device_mesh, own.placements)


def _gathered(parameters: Iterable[nn.Parameter]) -> AbstractContextManager[Any]:
    """Within it, the parameters that ZeRO-3 has dealt out are whole."""
    dealt_out = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not dealt_out:
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters  # type: ignore[import-not-found]

    found: AbstractContextManager[Any] = GatheredParameters(dealt_out)
    return found
