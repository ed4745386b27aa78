"""What computes a language model's blocks while they are trained: torch's kernels, compiled ones, or Liger's.

The rest of a block is many small kernels: norms, rotations, gates, adapters, residuals. On a GPU each is launched and
reads and writes all activations by itself, which for short sequences costs more than the products of matrices. Both
`torch.compile` and Liger (Hsu et al. 2024, arXiv 2410.10989) fuse them. What they come to differs in its last digits.

Either holds for training and its validation alone, and leaves no trace in the model, in its weights' names or in the
process: models are asked, merged, exported and opened with torch's own kernels. Logits are those of target positions
in any case (`bench.model`), so Liger's losses, which are there to avoid the others, are not used.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from bench.attention import (
    TRIED,
    bounds_of,
    is_by_sequence,
    is_close,
    not_compiled,
    packed_arguments,
    positions_of,
    tried_sequences,
)
from bench.config import Kernels, LanguageModel
from bench.errors import ConfigError
from bench.model_files import first_line
from bench.sharded import sharding

# The losses of Liger: one is put in the place of torch's own for the whole process, the other needs the model's labels.
# Of the rest, what Liger switches on for an architecture by itself: RMSNorm, RoPE, SwiGLU or GeGLU, where it has them.
LIGER_WITHOUT = {"cross_entropy": False, "fused_linear_cross_entropy": False}
_SETTING = "llm.kernels"
_MOST_COMPILED = 64  # ways to compile a function: torch's own limit, 8, may be met by kinds of layers, and falls silent


def require_kernels(
    llm: LanguageModel, architecture: str | None, device: torch.device, *, several: bool = False
) -> None:
    """Make sure that the kernels which are asked for can be had here, as far as nothing needs to be run for it.

    Args:
        llm: the settings.
        architecture: the `model_type` of transformers; None where it is not known.
        device: that trains.
        several: whether several processes train together.

    Raises:
        ConfigError: they cannot.
    """
    if llm.kernels == "compile":
        if several or sharding() is not None:
            raise ConfigError(
                _SETTING, "is compile, which was not tried with several processes: use one, or set `eager`"
            )
        if llm.quantisation != "none":
            raise ConfigError(_SETTING, "is compile, which was not tried with quantised weights; set `eager`")
    if llm.kernels == "liger":
        if find_spec("liger_kernel") is None:
            raise ConfigError(_SETTING, "is liger, and Liger is not installed: `pip install 'molgraft[liger]'`")
        if device.type != "cuda":
            raise ConfigError(_SETTING, f"is liger, which needs a CUDA GPU, and the device is {device.type}")
        known = _known_to_liger()
        if architecture is not None and architecture not in known:
            raise ConfigError(
                _SETTING, f"is liger, which does not know the architecture {architecture}; it knows {', '.join(known)}"
            )


@contextmanager
def training_kernels(llm: nn.Module, kernels: Kernels) -> Iterator[None]:
    """Within it, the model's blocks are computed by these kernels; afterwards as before.

    They are tried on a few tokens first: what cannot be compiled is told now, and not when training has begun, and so
    is a kernel that comes to something else.

    Args:
        llm: a causal language model of transformers, with or without adapters, whose weights are in place.
        kernels: which.

    Raises:
        ConfigError: they do not work with this model, or here.
    """
    if kernels == "eager":
        yield
        return
    wanted = _logits(llm)
    with ExitStack() as stack:
        try:
            stack.enter_context(_PUT_IN_PLACE[kernels](llm))
            found = _logits(llm)
        except (torch.OutOfMemoryError, ConfigError):
            raise
        except Exception as error:  # whatever compilers and another project's code raise
            needs = " (on a CPU it needs a C++ compiler: $CXX, or g++)" if kernels == "compile" else ""
            why = f"is {kernels}, which does not work here: {first_line(error)}{needs}; set `eager`"
            raise ConfigError(_SETTING, why) from error
        if not is_close(found, wanted):
            apart = float((found - wanted).abs().max())
            raise ConfigError(_SETTING, f"is {kernels}, whose logits differ from the model's own by up to {apart:.2g}")
        yield


def _logits(llm: nn.Module) -> Tensor:
    """The logits of a few tokens; a gradient is computed too, so that its kernels have run."""
    training = llm.training
    told: dict[str, Any] = {}
    row = torch.cat(tried_sequences(llm))[None].requires_grad_(True)
    if is_by_sequence(llm):
        bounds, positions = (made.to(row.device) for made in (bounds_of(TRIED), positions_of(TRIED)))
        told.update(packed_arguments(TRIED, bounds, positions))
    llm.eval()
    try:
        with torch.enable_grad():
            logits: Tensor = llm(inputs_embeds=row, use_cache=False, **told).logits
            torch.autograd.grad(logits.float().square().mean(), row)
    finally:
        llm.train(training)
    return logits.detach()


@contextmanager
def _compiled(llm: nn.Module) -> Iterator[None]:
    """Compiles each block for any length, in place, but for attention to packed sequences."""
    from torch._dynamo import config
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in llm.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ConfigError(_SETTING, f"is compile, and no blocks are known of {type(llm).__name__}; set `eager`")
    limits = {"recompile_limit": _MOST_COMPILED, "accumulated_recompile_limit": _MOST_COMPILED * len(blocks)}
    try:
        with config.patch(limits), not_compiled(llm):
            for block in blocks:
                block.compile(dynamic=True)
            yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        torch.compiler.reset()  # or what a stage has compiled would count towards the limit of the next


@contextmanager
def _liger(llm: Any) -> Iterator[None]:
    """Puts Liger's functions into the model, and into the module of its class, which all models of its kind share."""
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    base = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    shared = vars(sys.modules[type(base).__module__])
    before, own = dict(shared), {module: frozenset(vars(module)) for module in base.modules()}
    added: dict[nn.Module, frozenset[str]] = {}
    try:
        try:
            _apply_liger_kernel_to_instance(model=base, **LIGER_WITHOUT)
        finally:
            added = {module: frozenset(vars(module)) - names for module, names in own.items()}
        yield
    finally:
        shared.update(before)
        for module, names in added.items():
            for name in names:
                delattr(module, name)


_PUT_IN_PLACE: dict[Kernels, Callable[[nn.Module], AbstractContextManager[None]]] = {
    "compile": _compiled,
    "liger": _liger,
}


def _known_to_liger() -> list[str]:
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ConfigError(_SETTING, f"is liger, which cannot be imported: {first_line(error)}") from error
    return sorted(MODEL_TYPE_TO_APPLY_LIGER_FN)
