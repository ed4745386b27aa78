"""Learned queries that attend to the rows of one level: Qwen-VL's resampler, without positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from encoders.base import Counts, Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import dense, equal_tokens, ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Resampler(Projector):
    """A fixed number of soft tokens, each a learned query's attention over the rows of one level.

    With `depth: 1` this has Qwen-VL's form (`visual.py`, Resampler): rows pass a linear map without bias and a
    LayerNorm, queries a LayerNorm; one multi-head attention, without residual or feed-forward; a LayerNorm and a linear
    map without bias into the language model. Its two-dimensional positions are left out, for atoms have no grid, so
    that tokens do not depend on the order of rows. A molecule without rows is read as a single row of zeros.

    Args:
        level: which rows.
        queries: soft tokens of every molecule; LLaMo's Table 4 has a resampler row, whose code was never released.
        heads: of each attention.
        head_width: of each head; attention is `heads * head_width` wide. Qwen-VL has heads of 128 and as many of them
            as the language model's width asks for; the default here is smaller, for far fewer pairs of text.
        depth: attentions; every further one reads the same rows with what the one before gave, and adds to it.
        dropout: of attention weights; none in Qwen-VL.
    """

    name: ClassVar[str] = "resampler"
    adjustable_width: ClassVar[str | None] = "head_width"
    adjustable_tokens: ClassVar[str | None] = "queries"

    level: str = "atom"
    queries: Annotated[int, Ge(1)] = 8
    heads: Annotated[int, Ge(1)] = 8
    head_width: Annotated[int, Ge(1)] = 64
    depth: Annotated[int, Ge(1)] = 1
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(queries=3, heads=2, head_width=8)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return (self.level,)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return np.full(size, self.queries, dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return ResamplerModule(self, widths[self.level], llm_width)


class ResamplerModule(ProjectorModule):
    """Queries, attentions over the rows, and the map into the language model."""

    def __init__(self, declaration: Resampler, row_width: int, llm_width: int) -> None:
        super().__init__()
        self.level = declaration.level
        width = declaration.heads * declaration.head_width
        # The LayerNorm of queries makes their scale immaterial at the start; 0.02 is Qwen-VL's.
        self.query_tokens = nn.Parameter(torch.randn(declaration.queries, width) * 0.02)
        self.rows = nn.Linear(row_width, width, bias=False)
        self.norm_rows = nn.LayerNorm(width, eps=1e-6)
        self.norm_queries = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(declaration.depth))
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, declaration.heads, dropout=declaration.dropout, batch_first=True)
            for _ in range(declaration.depth)
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.project = nn.Linear(width, llm_width, bias=False)

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        read = encoding[self.level]
        if not encoding.size:  # the library's attention cannot reshape a batch of none
            return equal_tokens(read.values.new_zeros((0, self.query_tokens.shape[0], self.project.out_features)))
        hidden, _ = self._heard(read, with_shares=False)
        return equal_tokens(self.project(self.norm_out(hidden)).to(read.values.dtype))

    def observe_attention(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[Level, Ragged]:
        """See `ProjectorModule.observe_attention`; the mean over attentions where there are several."""
        read = encoding[self.level]
        if not encoding.size:
            return {self.level: Ragged(read.values.new_zeros((0, self.query_tokens.shape[0])), read.ptr)}
        _, shares = self._heard(read, with_shares=True)
        return {self.level: ragged(torch.stack(shares).mean(dim=0).transpose(1, 2), read)}

    def _heard(self, read: Ragged, *, with_shares: bool) -> tuple[Tensor, list[Tensor]]:
        """What queries have heard, `(B, Q, width)`, and their shares in each attention, `(B, Q, longest)`."""
        block, present = dense(read)
        # A molecule without rows reads the zeros at its first place; attention over nothing is not defined.
        present = present | (torch.arange(present.shape[1], device=present.device) == 0)
        rows = self.norm_rows(self.rows(block.to(self.rows.weight.dtype)))
        hidden: Tensor = self.query_tokens[None].expand(len(block), -1, -1)
        shares = []
        for number, (norm, attention) in enumerate(zip(self.norm_queries, self.attentions, strict=True)):
            heard, share = attention(norm(hidden), rows, rows, key_padding_mask=~present, need_weights=with_shares)
            shares += [share] if with_shares else []
            hidden = hidden + heard if number else heard
        return hidden, shares
