"""Attention over several sequences that stand one behind the other, each of which sees itself alone.

Sequences of a batch that are padded to the longest cost as much as the longest; on ChEBI-20 half of all positions are
padding at 16 examples. Packed, they are one row without padding, and every map of the model is computed for what is
there. transformers can tell packed sequences by their positions, but then makes a mask of all against all, which costs
more than the padding did. So attention is computed sequence by sequence here: by one kernel for all of them where there
is one (CUDA, half precision), else in turn.
"""

from __future__ import annotations

from functools import cache
from inspect import signature
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

_NAME = "molgraft_by_sequence"
_TRIED = (5, 1, 9)  # lengths on which it is tried; 1 for a sequence of nothing but its first token
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
_HALF = {torch.float16, torch.bfloat16}
_TOLERANCE_OF_HALF = 0.05  # of the largest logit; sequences that see each other differ by far more


def can_pack(llm: nn.Module) -> bool:
    """Whether the model's sequences can be packed; from then on its attention is `by_sequence`.

    It is not known from the model's name but tried, on random tokens: an architecture whose positions, masks or states
    run through a row, whatever it is told of sequences, gives other logits, and is padded.

    Args:
        llm: a causal language model of transformers, with or without adapters, whose weights are in place.
    """
    config = llm.config
    if getattr(config, "_attn_implementation", None) == _NAME:
        return True
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return False
    training = llm.training
    llm.eval()
    try:
        apart = _logits_apart(llm)
        attend_by_sequence(llm)
        together = _logits_together(llm)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, NotImplementedError):
        same = False  # such as an architecture that hands on nothing of what it is told of sequences
    else:
        same = is_close(together, apart)
    finally:
        llm.train(training)
    if not same:
        llm.set_attn_implementation("sdpa")  # type: ignore[operator]
    return same


def is_close(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits are those that are wanted, but for rounding; such as are no numbers are not."""
    allowed = _TOLERANCE.get(wanted.dtype, _TOLERANCE_OF_HALF) * float(wanted.abs().max())
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= allowed)


def may_pack(llm: nn.Module) -> bool:
    """Whether the architecture says that its attention can be exchanged, for a model without weights to try it on."""
    implementation = getattr(llm.config, "_attn_implementation", None)
    supports = bool(getattr(llm, "_supports_attention_backend", False))
    return implementation == _NAME or (implementation == "sdpa" and supports)


def attend_by_sequence(llm: nn.Module) -> None:
    """Makes `by_sequence` the model's attention."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(_NAME, by_sequence)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])  # of what is not packed
    llm.set_attn_implementation(_NAME)  # type: ignore[operator]


def packed_arguments(
    lengths: Sequence[int], device: torch.device, branches: Sequence[Sequence[int]] = ()
) -> Mapping[str, Any]:
    """What a model of transformers is told of sequences of these lengths in one row.

    The names are those that transformers hands on to kernels for packed sequences.

    Args:
        lengths: of the sequences.
        device: of the model.
        branches: for each sequence the lengths of the texts that it ends with, each of which follows what stands before
            the first of them and sees none of the others; empty where sequences do not branch.
    """
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    if branches:
        stems = [length - sum(ends) for length, ends in zip(lengths, branches, strict=True)]
        pairs = list(zip(stems, branches, strict=True))
        positions = np.concatenate([_places_of(*pair) for pair in pairs])
        told: dict[str, Any] = {"branch_distances": tuple(_distances(*pair).to(device) for pair in pairs)}
    else:
        positions, told = np.concatenate([np.arange(length) for length in lengths]), {}
    return {
        **told,
        "position_ids": torch.tensor(positions[None], device=device),
        # Of four dimensions, so that no mask is made of it.
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "sequence_lengths": tuple(lengths),  # what a kernel per sequence reads, which cannot wait for a GPU to tell
    }


def by_sequence(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    sequence_lengths: tuple[int, ...] | None = None,
    branch_distances: tuple[Tensor, ...] | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: of packed sequences where it is told their bounds, else SDPA's.

    Args:
        module: the layer that asks.
        query: `(1, H, T, d)`, or of any batch where nothing is packed.
        key, value: `(1, H_kv, T, d)`, likewise.
        attention_mask: read where nothing is packed.
        dropout, scaling, is_causal: as SDPA has them.
        cu_seq_lens_q: `(S + 1,)` where the sequences begin and end.
        sequence_lengths: their lengths, S of them.
        branch_distances: for each of them `(b, L)` how far back its last b tokens, which are branches, see each of its
            tokens, negative where they do not; None where sequences do not branch.
        sliding_window: how many tokens back one sees, itself included.
        others: what else there is, which packed sequences must do without.

    Returns:
        `(1, T, H, d)`, and no weights.
    """
    if cu_seq_lens_q is None or sequence_lengths is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if sliding_window is not None:
            others["sliding_window"] = sliding_window
        made: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return made
    for name in ("position_bias", "softcap", "s_aux"):
        if others.get(name) is not None:
            raise NotImplementedError(f"packed sequences with {name}")
    longest = max(sequence_lengths)
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    one_kernel = query.is_cuda and query.dtype in _HALF and not dropout and branch_distances is None
    kernel = _kernel() if one_kernel else None
    if kernel is not None:
        return _by_one_kernel(kernel, query, key, value, cu_seq_lens_q, longest, scaling, window), None
    grouped = key.shape[1] != query.shape[1]
    lengths = list(sequence_lengths)

    def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )

    pieces = []
    for place, (q, k, v) in enumerate(
        zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True)
    ):
        distances = None if branch_distances is None else branch_distances[place]
        stem = q.shape[2] - (0 if distances is None else len(distances))
        pieces.append(attended(q[:, :, :stem], k[:, :, :stem], v[:, :, :stem], _windowed(stem, window, q.device)))
        if distances is not None:
            seen = distances >= 0 if window is None else (distances >= 0) & (distances < window)
            pieces.append(attended(q[:, :, stem:], k, v, seen))
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


@cache
def _kernel() -> Any:
    """torch's own kernel for packed sequences; None where it has none that takes windows, as before 2.11."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    kernel: Any = varlen_attn
    return kernel if "window_size" in signature(kernel).parameters else None


def _by_one_kernel(
    kernel: Callable[..., Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if groups > 1:
        rows[1:] = [tensor.repeat_interleave(groups, dim=1) for tensor in rows[1:]]
    back = -1 if window is None else window - 1
    return kernel(*rows, bounds, bounds, longest, longest, scale=scaling, window_size=(back, 0))[None]


def _windowed(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """`(L, L)` what each token sees where that is not all before it; None where it is."""
    if window is None or window >= length:
        return None
    places = torch.arange(length, device=device)
    back = places[:, None] - places
    return (back >= 0) & (back < window)


def _places_of(stem: int, branches: Sequence[int]) -> NDArray[np.int64]:
    """The positions of a text of `stem` tokens and of each branch that follows it."""
    return np.concatenate([np.arange(stem), *(np.arange(stem, stem + length) for length in branches)])


def _distances(stem: int, branches: Sequence[int]) -> Tensor:
    """How far back each token of the branches sees each of the sequence, `(b, stem + b)`; -1 where it does not."""
    places = _places_of(stem, branches)
    branch_of = np.concatenate([np.full(stem, -1), np.repeat(np.arange(len(branches)), branches)])
    back = places[stem:, None] - places
    seen = (back >= 0) & ((branch_of == -1) | (branch_of == branch_of[stem:, None]))
    return torch.from_numpy(np.where(seen, back, -1).astype(np.int32))


@torch.no_grad()
def _logits_apart(llm: nn.Module) -> Tensor:
    return torch.cat([llm(inputs_embeds=row[None], use_cache=False).logits[0] for row in tried_sequences(llm)])


@torch.no_grad()
def _logits_together(llm: nn.Module) -> Tensor:
    rows = tried_sequences(llm)
    row = torch.cat(rows)[None]
    logits: Tensor = llm(inputs_embeds=row, use_cache=False, **packed_arguments(_TRIED, row.device)).logits[0]
    return logits


def tried_sequences(llm: nn.Module) -> list[Tensor]:
    """Embeddings of a few tokens, spread over the vocabulary so that no two sequences are alike."""
    table = llm.get_input_embeddings()  # type: ignore[operator]
    count = sum(_TRIED)
    ids = torch.arange(count, device=table.weight.device) * max(table.num_embeddings // count, 1)
    return list(table(ids % table.num_embeddings).split(_TRIED))
