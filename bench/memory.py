"""What a run takes of a device's memory, stage by stage, before anything is trained.

The numbers are meant to be held against `torch.cuda.max_memory_allocated`: what torch allocates, without the CUDA
context and without gaps between allocations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from bench.attention import may_pack
from bench.config import RunConfig, Stage
from bench.decoding import GROWTH
from bench.lengths import Lengths
from bench.merging import merged_bytes
from bench.model import GraphLanguageModel
from bench.tracing import Kept, Step, kept_by

GIB = 1 << 30

_MOMENTS = 8  # bytes per trained parameter: AdamW's two, in 32 bits
_GRADIENT = 4
# 4 bits, a byte for each block of 64 (its constant, quantised) and 4 bytes for each 256 such blocks; QLoRA, section 3.
_BYTES_4BIT = 0.5 + 1 / 64 + 4 / (64 * 256)
_BYTES_8BIT = 1.0
# Of encoder and projector little is known before molecules are read: rows of a molecule, copies kept of each.
_ROWS = 40
_COPIES = 3


@dataclass(frozen=True, slots=True)
class StageMemory:
    """Bytes that a stage takes.

    Args:
        weights: of all parts, in the types that they are kept in.
        gradients: of what is trained.
        optimiser: AdamW's two moments.
        activations: what a step keeps beside these, at its most.
        checkpointed: the same where activations are computed a second time.
        peak, peak_checkpointed: the most that is there at a time.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    checkpointed: int
    peak: int
    peak_checkpointed: int

    def in_gib(self) -> dict[str, float]:
        """The same in GiB."""
        return {name: count / GIB for name, count in asdict(self).items()}


def weights_of(model: GraphLanguageModel, quantisation: str) -> int:
    """Bytes of all weights and buffers, for a model on the meta device.

    Args:
        model: in the types that it is trained in.
        quantisation: of the language model's linear maps, which the model itself need not have.
    """
    quantised = _quantised_maps(model.llm) if quantisation != "none" else frozenset()
    each = _BYTES_4BIT if quantisation == "4bit" else _BYTES_8BIT
    total = 0.0
    for tensor in (*model.parameters(), *model.buffers()):
        total += tensor.numel() * (each if id(tensor) in quantised else tensor.element_size())
    return round(total)


def stage_memory(
    config: RunConfig, stage: Stage, model: GraphLanguageModel, lengths: Lengths, batch: int
) -> StageMemory:
    """What a stage takes.

    Args:
        config: the run.
        stage: one of its stages.
        model: the whole model on the meta device.
        lengths: of the stage's sequences.
        batch: examples of one forward pass on one device.
    """
    model.freeze(stage.trains)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    adapted = any("lora_" in name for name, _ in model.llm.named_parameters())
    step = Step(
        batch=batch,
        length=lengths.longest,
        kept=max(lengths.kept, 2),
        packed=lengths.packed if config.llm.packing and may_pack(model.llm) else None,
        dtype=torch.bfloat16 if config.llm.dtype == "bf16" else torch.float32,
        autocast=config.precision == "bf16",
        trains=stage.trains,
        lora=config.llm.lora if adapted else None,
        through=_reads_gradients(model),
    )
    beside = _in_front(model, config, batch)
    whole, again = (
        _with(kept_by(model.llm.config, each), beside) for each in (step, replace(step, checkpointing=True))
    )
    weights, gradients = weights_of(model, config.llm.quantisation), _GRADIENT * trained
    waiting = gradients if stage.accumulation > 1 else 0

    def peak(kept: Kept) -> int:
        # While activations are there, gradients are not yet, unless earlier passes of the step left some; when the
        # optimiser steps, it needs room for one more copy of what it trains.
        return weights + _MOMENTS * trained + max(kept.peak + waiting, 2 * gradients)

    return StageMemory(weights, gradients, _MOMENTS * trained, whole.peak, again.peak, peak(whole), peak(again))


def generation_memory(config: RunConfig, model: GraphLanguageModel, prompt: int) -> dict[str, int]:
    """Bytes that generating takes: weights, the cache of keys and values, and the last position's logits.

    Weights that adapters are merged into are there twice. One layer's keys and values are copied at a time.

    Args:
        config: the run.
        model: the whole model on the meta device.
        prompt: the longest prompt, soft tokens included.
    """
    generation = config.evaluation.generation
    shape: Any = model.llm.config
    size = 2 if config.llm.dtype == "bf16" else 4
    rows = generation.batch_size * generation.beams
    heads = int(shape.num_attention_heads)
    width = int(getattr(shape, "head_dim", None) or shape.hidden_size // heads)
    shared = int(getattr(shape, "num_key_value_heads", None) or heads)
    each = 2 * (int(shape.num_hidden_layers) + 1) * shared * width * size
    logits = 3 * 4 * rows * int(shape.vocab_size)  # in 32 bits, processed and normed
    return {
        "weights": weights_of(model, config.llm.quantisation)
        + (merged_bytes(model.llm) if config.llm.quantisation == "none" else 0),
        "cache": each * rows * (prompt + generation.max_new_tokens + GROWTH),
        "logits": logits,
    }


def _quantised_maps(llm: nn.Module) -> frozenset[int]:
    output = llm.get_output_embeddings()  # type: ignore[operator]
    return frozenset(
        id(module.weight)
        for name, module in llm.named_modules()
        if isinstance(module, nn.Linear) and module is not output and "lora_" not in name
    )


def _reads_gradients(model: GraphLanguageModel) -> bool:
    """Whether anything in front of the language model is trained."""
    return any(parameter.requires_grad for part in (model.encoder, model.projector) for parameter in part.parameters())


def _in_front(model: GraphLanguageModel, config: RunConfig, batch: int) -> int:
    """Bytes that encoder and projector keep; small beside the language model's, and so by a rule of thumb.

    Autocast keeps a copy in bfloat16 of every map that is trained.
    """
    found = 0
    for part in (model.encoder, model.projector):
        trained = any(parameter.requires_grad for parameter in part.parameters())
        maps = [module for module in part.modules() if isinstance(module, nn.Linear)]
        if trained:
            found += _COPIES * 4 * batch * _ROWS * sum(module.out_features for module in maps)
        if trained and config.precision == "bf16":
            found += 2 * sum(module.weight.numel() for module in maps)
    return found


def _with(kept: Kept, beside: int) -> Kept:
    return Kept(kept.saved + beside, kept.peak + beside)


def described(memory: StageMemory | Mapping[str, int]) -> dict[str, Any]:
    """Bytes as GiB, for reports."""
    return memory.in_gib() if isinstance(memory, StageMemory) else {name: b / GIB for name, b in memory.items()}
