"""Attention over several sequences that stand one behind the other, each of which sees itself alone.

Sequences of a batch that are padded to the longest cost as much as the longest; on ChEBI-20 half of all positions are
padding at 16 examples. Packed, they are one row without padding, and every map of the model is computed for what is
there. transformers can tell packed sequences by their positions, but then makes a mask of all against all, which costs
more than the padding did. So attention is computed sequence by sequence here: by one kernel for all of them where there
is one (CUDA, half precision), else in turn.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from inspect import signature
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_NAME = "molgraft_by_sequence"
TRIED = (5, 1, 9)  # lengths on which it is tried; 1 for a sequence of nothing but its first token
_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
_TOLERANCE_OF_HALF = 0.05  # of the largest logit; what is exact is the gradient between sequences, which is 0
_NO_MASK = (1, 1, 1, 1)
_KNOWN = frozenset(
    ("gemma3_text", "gpt2", "gpt_neox", "llama", "mistral", "mixtral", "opt", "phi3", "qwen2", "qwen3", "smollm3")
)
"""Architectures that were tried, for models whose weights are not here to be tried themselves."""


class Sequences:
    """What a kernel per sequence reads of packed sequences, since it cannot wait for a GPU to tell.

    An object, and no tuples: compiled layers, which hand it on, would be compiled anew for each number of sequences.

    Args:
        lengths: of the sequences.
        branch_distances: for each of them `(b, L)` how far back its last b tokens, which are branches, see each of its
            tokens, negative where they do not; None where sequences do not branch.
    """

    def __init__(self, lengths: tuple[int, ...], branch_distances: tuple[Tensor, ...] | None) -> None:
        self.lengths = lengths
        self.branch_distances = branch_distances


def can_pack(llm: nn.Module) -> bool:
    """Whether the model's sequences can be packed; from then on its attention is `by_sequence`.

    It is not known from the model's name but tried, on a few tokens: an architecture whose positions, masks or states
    run through a row, whatever it is told of sequences, is padded. Packed sequences must give the logits that they give
    alone, and no gradient may reach one from another.

    Args:
        llm: a causal language model of transformers, with or without adapters, whose weights are in place.
    """
    config = llm.config
    if is_by_sequence(llm):
        return True
    if getattr(config, "_attn_implementation", None) != "sdpa" or getattr(config, "attention_chunk_size", None):
        return False
    training = llm.training
    llm.eval()
    try:
        is_same = _is_same_together(llm)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, NotImplementedError):
        is_same = False  # such as an architecture that hands on nothing of what it is told of sequences
    finally:
        llm.train(training)
    if not is_same:
        llm.set_attn_implementation("sdpa")  # type: ignore[operator]
    return is_same


def is_close(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits are those that are wanted, but for rounding; such as are no numbers are not."""
    allowed = _TOLERANCE.get(wanted.dtype, _TOLERANCE_OF_HALF) * float(wanted.abs().max())
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= allowed)


def may_pack(llm: nn.Module) -> bool:
    """Whether a model without weights is of an architecture that is known to pack; others may yet be found to."""
    return getattr(llm.config, "model_type", "") in _KNOWN


def is_by_sequence(llm: nn.Module) -> bool:
    """Whether `by_sequence` is the model's attention."""
    return getattr(llm.config, "_attn_implementation", None) == _NAME


def attend_by_sequence(llm: nn.Module) -> None:
    """Makes `by_sequence` the model's attention, which `can_pack` found right for it or for another of its kind."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(_NAME, by_sequence)
    AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])  # of what is not packed
    llm.set_attn_implementation(_NAME)  # type: ignore[operator]


@contextmanager
def not_compiled(llm: nn.Module) -> Iterator[None]:
    """Within it, `by_sequence` stays as it is where the model's layers are compiled: it differs with each batch."""
    from transformers.modeling_utils import AttentionInterface

    if not is_by_sequence(llm):
        yield
        return
    AttentionInterface.register(_NAME, torch.compiler.disable(by_sequence))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        AttentionInterface.register(_NAME, by_sequence)


def bounds_of(lengths: Sequence[int]) -> Tensor:
    """Where sequences of these lengths begin and end in one row, `(S + 1,)` int32."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def positions_of(lengths: Sequence[int], branches: Sequence[Sequence[int]] = ()) -> Tensor:
    """The position of each token in its own sequence, `(1, T)`; `branches` as `packed_arguments` has them."""
    if not branches:
        return torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None]
    pairs = zip(_stems(lengths, branches), branches, strict=True)
    return torch.from_numpy(np.concatenate([_places_of(*pair) for pair in pairs]))[None]


def packed_arguments(
    lengths: Sequence[int], bounds: Tensor, positions: Tensor, branches: Sequence[Sequence[int]] = ()
) -> Mapping[str, Any]:
    """What a model of transformers is told of sequences in one row.

    The names are those that transformers hands on to kernels for packed sequences, and two of ours.

    Args:
        lengths: of the sequences.
        bounds, positions: of `bounds_of` and `positions_of`, where the model is.
        branches: for each sequence the lengths of the texts that it ends with, each of which follows what stands before
            the first of them and sees none of the others; empty where sequences do not branch.
    """
    distances = None
    if branches:
        pairs = zip(_stems(lengths, branches), branches, strict=True)
        distances = tuple(_distances(*pair).to(positions.device) for pair in pairs)
    return {
        "position_ids": positions,
        # Of four dimensions, so that no mask is made of it.
        "attention_mask": torch.ones(_NO_MASK, dtype=torch.bool, device=positions.device),
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        "sequences": Sequences(tuple(lengths), distances),
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
    sequences: Sequences | None = None,
    sliding_window: int | None = None,
    windows_seen: list[int | None] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: of packed sequences where it is told their bounds, else SDPA's.

    Args:
        module: the layer that asks.
        query: `(1, H, T, d)`, or of any batch where nothing is packed.
        key, value: `(1, H_kv, T, d)`, likewise.
        attention_mask: read where nothing is packed; else that of `packed_arguments`.
        dropout, scaling, is_causal: as SDPA has them.
        cu_seq_lens_q: `(S + 1,)` where the sequences begin and end.
        sequences: what else is told of them.
        sliding_window: how many tokens back one sees, itself included.
        windows_seen: where the layer's window is noted, for who wants to know whether layers tell theirs.
        others: what else there is, which packed sequences must do without.

    Returns:
        `(1, T, H, d)`, and no weights.

    Raises:
        NotImplementedError: packed sequences with what this cannot express.
    """
    if cu_seq_lens_q is None or sequences is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        if sliding_window is not None:
            others["sliding_window"] = sliding_window
        made: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **others
        )
        return made
    if windows_seen is not None:
        windows_seen.append(sliding_window)
    for name in ("position_bias", "softcap", "s_aux"):
        if others.get(name) is not None:
            raise NotImplementedError(f"packed sequences with {name}")
    if attention_mask is None or attention_mask.shape != _NO_MASK:
        raise NotImplementedError("packed sequences with a mask that the model makes itself")
    lengths, branch_distances = list(sequences.lengths), sequences.branch_distances
    longest = max(lengths)
    window = sliding_window if sliding_window is not None and sliding_window < longest else None
    if torch.is_autocast_enabled(query.device.type):  # positions may have made 32 bits of some, and not of others
        query, key, value = (t.to(torch.get_autocast_dtype(t.device.type)) for t in (query, key, value))
    if not dropout and branch_distances is None and _has_kernel_for(query):
        return _by_one_kernel(query, key, value, cu_seq_lens_q, longest, scaling, window), None
    grouped = key.shape[1] != query.shape[1]

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
    whole = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)
    return whole.transpose(1, 2).contiguous(), None


@cache
def _kernel() -> Any:
    """torch's own kernel for packed sequences; None where it has none that takes windows."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in signature(varlen_attn).parameters else None


def _has_kernel_for(query: Tensor) -> bool:
    """What flash attention needs: an Ampere GPU or a newer one, half precision, and heads of a width that it has."""
    if not query.is_cuda or query.dtype not in {torch.float16, torch.bfloat16} or _kernel() is None:
        return False
    return (
        torch.cuda.get_device_capability(query.device) >= (8, 0) and query.shape[3] <= 256 and query.shape[3] % 8 == 0
    )


def _by_one_kernel(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scaling: float | None, window: int | None
) -> Tensor:
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    how: dict[str, Any] = {"scale": scaling, "window_size": (-1 if window is None else window - 1, 0)}
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and "enable_gqa" in signature(_kernel()).parameters:
        how["enable_gqa"] = True
    elif groups > 1:
        rows[1:] = [tensor.repeat_interleave(groups, dim=1) for tensor in rows[1:]]
    found: Tensor = _kernel()(*rows, bounds, bounds, longest, longest, **how)
    return found[None]


def _windowed(length: int, window: int | None, device: torch.device) -> Tensor | None:
    """`(L, L)` what each token sees where that is not all before it; None where it is."""
    if window is None or window >= length:
        return None
    places = torch.arange(length, device=device)
    back = places[:, None] - places
    return (back >= 0) & (back < window)


def _stems(lengths: Sequence[int], branches: Sequence[Sequence[int]]) -> list[int]:
    """What stands before the branches of each sequence."""
    return [length - sum(ends) for length, ends in zip(lengths, branches, strict=True)]


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


def _is_same_together(llm: nn.Module) -> bool:
    """Whether sequences give alone what they give packed, and see nothing of each other."""
    rows = tried_sequences(llm)
    with torch.no_grad():
        alone = torch.cat([llm(inputs_embeds=row[None], use_cache=False).logits[0] for row in rows])
    attend_by_sequence(llm)
    row = torch.cat(rows)[None].requires_grad_(True)
    bounds, positions = (made.to(row.device) for made in (bounds_of(TRIED), positions_of(TRIED)))
    windows: list[int | None] = []
    told = packed_arguments(TRIED, bounds, positions)
    with torch.enable_grad():
        together = llm(inputs_embeds=row, use_cache=False, windows_seen=windows, **told).logits[0]
        sums = [part.float().square().sum() for part in torch.split(together, list(TRIED))]
    # A window that stands in a mask alone, which is not made here, would be lost for sequences longer than those tried.
    is_lost = getattr(llm.config, "sliding_window", None) is not None and not any(windows)
    if not windows or is_lost or not is_close(together.detach(), alone):
        return False
    starts = [0, *accumulate(TRIED)]
    for total, (begin, end) in zip(sums, pairwise(starts), strict=True):
        (reached,) = torch.autograd.grad(total, row, retain_graph=True)
        reached[0, begin:end] = 0
        if bool(reached.any()):
            return False
    return True


def tried_sequences(llm: nn.Module) -> list[Tensor]:
    """Embeddings of a few tokens, spread over the vocabulary so that no two sequences are alike."""
    table = llm.get_input_embeddings()  # type: ignore[operator]
    count = sum(TRIED)
    ids = torch.arange(count, device=table.weight.device) * max(table.num_embeddings // count, 1)
    with torch.no_grad():
        return list(torch.split(table(ids % table.num_embeddings), list(TRIED)))
