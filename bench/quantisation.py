"""Frozen weights in 8 or 4 bits by bitsandbytes, an optional extra."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from bench.errors import ConfigError

Quantisation = Literal["none", "8bit", "4bit"]

# QLoRA (Dettmers et al. 2023, arXiv 2305.14314, sections 3 and 4): 4-bit NormalFloat, block constants that are
# quantised themselves, products in bfloat16.
FOUR_BIT_TYPE = "nf4"
DOUBLE_QUANTISATION = True
COMPUTE_TYPE = torch.bfloat16
# LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339, section 3.2): columns with larger values stay in 16 bits.
OUTLIER_THRESHOLD = 6.0

QUANTISED = frozenset({"Linear8bitLt", "Linear4bit"})
"""Names of the classes of quantised linear maps."""


def require_bitsandbytes(quantisation: Quantisation) -> None:
    """Make sure that weights can be quantised here.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if quantisation != "none" and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "llm.quantisation",
            f"is {quantisation}, for which bitsandbytes is needed, and it is not installed: "
            "`pip install 'molgraft[quantisation]'` (a CUDA GPU is what it is made for)",
        )


def loading_arguments(quantisation: Quantisation, device: torch.device) -> dict[str, Any]:
    """What `from_pretrained` is told so that linear maps are quantised as they are read; nothing for `none`.

    Raises:
        ConfigError: see `require_bitsandbytes`.
    """
    if quantisation == "none":
        return {}
    require_bitsandbytes(quantisation)
    _hush()
    from transformers import BitsAndBytesConfig

    config = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=FOUR_BIT_TYPE,
            bnb_4bit_use_double_quant=DOUBLE_QUANTISATION,
            bnb_4bit_compute_dtype=COMPUTE_TYPE,
        )
        if quantisation == "4bit"
        else BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIER_THRESHOLD)
    )
    return {"quantization_config": config, "device_map": {"": device}}


def quantise(model: nn.Module, quantisation: Quantisation) -> None:
    """Quantises the linear maps of a model that was not read from files, but for its output embedding, in place.

    Raises:
        ConfigError: see `require_bitsandbytes`.
    """
    if quantisation == "none":
        return
    require_bitsandbytes(quantisation)
    _hush()
    kept = model.get_output_embeddings()  # type: ignore[operator]
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not kept:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, _quantised(module, quantisation))
    # peft looks here for whether a model's maps may be quantised ones.
    setattr(model, f"is_loaded_in_{quantisation}", True)


def elements(parameter: nn.Parameter) -> int:
    """How many numbers a parameter holds; two of 4 bits are kept in one byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


def _quantised(linear: nn.Linear, quantisation: Quantisation) -> nn.Module:
    from bitsandbytes import nn as quantised  # type: ignore[import-not-found, unused-ignore]

    weight, device = linear.weight.detach(), linear.weight.device
    shape: tuple[Any, ...] = (linear.in_features, linear.out_features, linear.bias is not None)
    made: Any
    if quantisation == "4bit":
        how: dict[str, Any] = {"compress_statistics": DOUBLE_QUANTISATION, "quant_type": FOUR_BIT_TYPE}
        made = quantised.Linear4bit(*shape, compute_dtype=COMPUTE_TYPE, device="meta", **how)
        made.weight = quantised.Params4bit(weight, requires_grad=False, module=made, **how).to(device)
    else:
        made = quantised.Linear8bitLt(*shape, has_fp16_weights=False, threshold=OUTLIER_THRESHOLD, device="meta")
        made.weight = quantised.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(device)
    if linear.bias is not None:
        made.bias = linear.bias
    frozen: nn.Module = made.requires_grad_(False)
    return frozen


def _hush() -> None:
    """Silences a warning on every single product that bfloat16 inputs are cast, as they are meant to be."""
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
