"""What a training step of a language model keeps in memory, found by running one on tensors without contents.

The step is that of the real code, so nothing has to be known of a family's layers. Two and three layers are run and the
rest is a straight line, since all layers are alike.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from bench.activation import checkpoint_while_frozen
from bench.attention import attend_by_sequence, bounds_of, packed_arguments, positions_of
from bench.config import Lora, Trains
from bench.known_models import skeleton_of
from bench.language_model import attach_lora, embeddings_in_full_precision

Like = Literal["cuda", "cpu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A forward and a backward pass.

    Args:
        batch: examples.
        length: positions of each, padding and soft tokens included.
        kept: last positions whose logits are computed.
        dtype: of the language model's weights.
        autocast: whether the pass is in bfloat16.
        trains: what is trained; of the language model, its embeddings and adapters.
        lora: the adapters, if any stage trains some.
        through: whether the gradient goes on to what is in front of the language model.
        checkpointing: whether activations are computed a second time, layer by layer, instead of kept.
        like: whose kernels: on a GPU autocast norms in 32 bits and dropout keeps a byte per element.
        packed: lengths of the sequences where they lie in one row, and how many logits are computed; else None.
    """

    batch: int
    length: int
    kept: int
    dtype: torch.dtype
    autocast: bool
    trains: Trains
    lora: Lora | None
    through: bool
    checkpointing: bool = False
    like: Like = "cuda"
    packed: tuple[tuple[int, ...], int] | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Memory of a step beside the weights, in bytes.

    Args:
        saved: what the forward pass keeps for the backward pass.
        peak: the most that is there at a time: that, gradients so far, and what kernels need in passing.
    """

    saved: int
    peak: int


def kept_by(config: Any, step: Step) -> Kept:
    """What a step of a model of this configuration keeps; nothing is computed.

    Args:
        config: of transformers, with any number of layers.
        step: what is done.
    """
    layers = int(config.num_hidden_layers)
    few = [min(layers, 2), min(layers, 3)]
    first, second = (_traced(shortened(config, count), step) for count in few)
    more = layers - few[0]
    return Kept(
        first.saved + more * (second.saved - first.saved),
        max(first.peak, first.peak + more * (second.peak - first.peak)),
    )


def shortened(config: Any, layers: int) -> Any:
    """A configuration with another number of layers."""
    short = copy.deepcopy(config)
    if getattr(short, "layer_types", None):
        short.layer_types = short.layer_types[:layers]
    short.num_hidden_layers = layers
    return short


def _traced(config: Any, step: Step) -> Kept:
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = prepared(config, step)
    with FakeTensorMode():
        _without_contents(model)
        return observed(model, step)


def prepared(config: Any, step: Step) -> nn.Module:
    """The language model on the meta device, with its adapters, frozen and set to training as a stage does."""
    model = skeleton_of(config, step.dtype)
    if step.packed is not None:
        attend_by_sequence(model)
    if step.trains.embeddings == "full":
        embeddings_in_full_precision(model)
    model.requires_grad_(False)
    if step.lora is not None:
        with torch.device("meta"):
            model = attach_lora(model, step.lora)
    return set_up(model, step)


def set_up(model: nn.Module, step: Step) -> nn.Module:
    """Makes trainable what the step trains; a model that trains nothing is in evaluation mode."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(step.trains.llm == ("lora" if "lora_" in name else "full"))
    if step.trains.embeddings == "full":
        model.get_input_embeddings().weight.requires_grad_(True)  # type: ignore[operator]
    model.train(step.trains.llm != "frozen")
    if step.checkpointing:
        model.activation_checkpointing_enable()  # type: ignore[operator]
        if step.trains.llm == "frozen":
            checkpoint_while_frozen(model)
    return model


def observed(model: nn.Module, step: Step) -> Kept:
    """Runs the step, on tensors with contents or without, and watches what is kept."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    own |= {buffer.untyped_storage()._cdata for buffer in model.buffers()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    width = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
    with _Live(own) as live, _kernels_of(step):
        shape, told = _rows(step)
        embedded = torch.zeros(*shape, width, dtype=step.dtype)
        embedded.requires_grad_(step.through or step.trains.embeddings == "full" or step.checkpointing)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _autocast(step.autocast):
            logits = model(inputs_embeds=embedded, use_cache=False, **told).logits
            loss = _loss(logits)
            del logits
        count = sum(storage.nbytes() for storage in saved.values())
        saved.clear()  # held, their memory would never be seen to be given back
        loss.backward()  # type: ignore[no-untyped-call]
    return Kept(count, live.peak)


def _rows(step: Step) -> tuple[tuple[int, int], Mapping[str, Any]]:
    """The batch's rows and positions, and what the model is told of them."""
    if step.packed is not None:
        lengths, targets = step.packed
        if step.like == "cuda":  # one kernel for all of them
            lengths = (sum(lengths),)
        places = torch.arange(max(targets, 1)).clamp(max=sum(lengths) - 1)
        told = packed_arguments(lengths, bounds_of(lengths), positions_of(lengths))
        return (1, sum(lengths)), {"logits_to_keep": places, **told}
    mask = torch.ones(step.batch, step.length, dtype=torch.long)
    if step.batch > 1:
        mask[0, -1] = 0  # with padding, as almost every batch has it, attention is given a mask
    return (step.batch, step.length), {"logits_to_keep": step.kept, "attention_mask": mask}


def _loss(logits: Tensor) -> Tensor:
    """As `GraphLanguageModel._token_losses` has it of padded rows; of packed ones it keeps as much."""
    targets = torch.zeros(logits.shape[0], logits.shape[1] - 1, dtype=torch.long)
    losses = functional.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="none")
    return losses.sum()


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made inside and not yet given back."""

    def __init__(self, own: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = dict.fromkeys(own, 0)
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = storage.nbytes()
        self._now += self._known[key]
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._given_back, key)

    def _given_back(self, key: int) -> None:
        self._now -= self._known.pop(key, 0)


def _without_contents(model: nn.Module) -> None:
    """Gives a model of the meta device tensors that say they are on the CPU; called in fake mode."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _autocast(on: bool) -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=on)


@contextmanager
def _kernels_of(step: Step) -> Iterator[None]:
    """Puts what a GPU's kernels keep in the place of what a CPU's do."""
    with ExitStack() as stack:
        if step.like == "cuda":
            stack.enter_context(_in_place_of("scaled_dot_product_attention", _attention))
            stack.enter_context(_in_place_of("dropout", _dropout))
            if step.autocast:
                stack.enter_context(_in_place_of("layer_norm", _norm_in_full_precision))
        yield


@contextmanager
def _in_place_of(name: str, stand_in: Callable[..., Tensor]) -> Iterator[None]:
    real = getattr(functional, name)
    setattr(functional, name, stand_in)
    try:
        yield
    finally:
        setattr(functional, name, real)


class _FusedAttention(torch.autograd.Function):
    """Keeps the queries, keys, values, what comes out and a number per query, but no scores, as fused kernels do."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        found = torch.empty_like(query)
        normaliser = torch.empty(query.shape[:3], dtype=torch.float32)
        # A mask becomes a bias in the type of the queries, for each layer anew.
        bias = () if mask is None else (torch.empty(mask.shape, dtype=query.dtype),)
        ctx.save_for_backward(query, key, value, found, normaliser, *bias)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    found: Tensor = _FusedAttention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return found


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    dropped: Tensor = torch.native_dropout(input, p, True)[0] if training and p else input
    return dropped


_layer_norm = functional.layer_norm


def _norm_in_full_precision(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    weight, bias = (None if part is None else part.float() for part in (weight, bias))
    return _layer_norm(input.float(), normalized_shape, weight, bias, eps)
