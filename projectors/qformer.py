"""MolCA's Q-Former, over transformers' own module: learned queries that read a molecule's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import CONTENT, Counts, EncoderError, Level, MoleculeEncoding, Ragged, read_state
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.qformer_weights import for_projector, put, translate
from projectors.ragged import dense, equal_tokens, mean_rows, ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a BERT has no weights for; they stay as they were drawn.
FRESH_OVER_BERT = ("crossattention", "query_tokens", "norm")


@dataclass(frozen=True, kw_only=True)
class QFormer(Projector):
    """A fixed number of soft tokens: queries that attend to each other and, in some layers, to the molecule's rows.

    The defaults are MolCA's (`model/blip2.py:41-66`, `model/blip2_opt.py:141-151`). Rows pass a LayerNorm in 32 bits;
    a linear map takes the queries' last rows into the language model. The module is `Blip2QFormerModel`, which gives
    LAVIS's numbers for queries; where text is read too it fails for padded rows, so that pretraining
    (`projectors.qformer_stages`) runs over `InstructBlipQFormerModel`, whose tensors are the same.

    Args:
        level: which rows.
        num_query_tokens: soft tokens of every molecule.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: as of a BERT.
        cross_attention_frequency: every which layer attends to the molecule's rows, the first one always.
        hidden_dropout_prob, attention_probs_dropout_prob: of hidden rows and of attention.
        prepend_graph_token: whether the mean row stands before the rows, as MolCA's encoder has it
            (`gin_model.py:290-311`).
        attn_implementation: how attention is computed.
        weights: a file, or a folder with `model.safetensors` or `pytorch_model.bin`: a Q-Former pretrained here
            (`QFormerPretraining.export_projector_state`), a checkpoint of MolCA, or a BERT such as SciBERT, which MolCA
            starts from and which leaves cross-attention and queries at random. None for all at random. The map into
            the language model is never read, since it belongs to one language model.
    """

    name: ClassVar[str] = "qformer"
    adjustable_width: ClassVar[str | None] = "intermediate_size"
    adjustable_tokens: ClassVar[str | None] = "num_query_tokens"

    level: str = "atom"
    num_query_tokens: Annotated[int, Ge(1)] = 8
    hidden_size: Annotated[int, Ge(1)] = 768
    num_hidden_layers: Annotated[int, Ge(1)] = 12
    num_attention_heads: Annotated[int, Ge(1)] = 12
    intermediate_size: Annotated[int, Ge(1)] = 3072
    cross_attention_frequency: Annotated[int, Ge(1)] = 2
    hidden_dropout_prob: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    attention_probs_dropout_prob: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    prepend_graph_token: bool = True
    attn_implementation: Literal["sdpa", "eager"] = "sdpa"
    weights: str | None = field(default=None, metadata=CONTENT)

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise EncoderError(
                f"projector qformer: `hidden_size` {self.hidden_size} is no multiple of `num_attention_heads` "
                f"{self.num_attention_heads}"
            )

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(num_query_tokens=3, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return (self.level,)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return np.full(size, self.num_query_tokens, dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return QFormerModule(self, widths[self.level], llm_width)

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return () if self.weights is None else (self.weights,)

    def load(self, module: ProjectorModule) -> None:  # noqa: D102 - inherited
        if self.weights is None:
            return
        layout, state = translate(read_state(self.weights), self.weights)
        fresh = ("project", *(FRESH_OVER_BERT if layout == "bert" else ()))
        put(module, for_projector(state), self.weights, fresh)

    def settings(self, row_width: int) -> dict[str, Any]:
        """The arguments of either of the library's configurations."""
        shared = (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "cross_attention_frequency",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "attn_implementation",
        )
        return {**{name: getattr(self, name) for name in shared}, "encoder_hidden_size": row_width}


class QFormerModule(ProjectorModule):
    """The norm of rows, the queries, the library's Q-Former and the map into the language model."""

    def __init__(self, declaration: QFormer, row_width: int, llm_width: int) -> None:
        from transformers import Blip2QFormerConfig, Blip2QFormerModel

        super().__init__()
        self.declaration = declaration
        self.norm = nn.LayerNorm(row_width)
        self.query_tokens = nn.Parameter(torch.randn(1, declaration.num_query_tokens, declaration.hidden_size) * 0.02)
        self.qformer = Blip2QFormerModel(Blip2QFormerConfig(**declaration.settings(row_width)))
        self.project = nn.Linear(declaration.hidden_size, llm_width)

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        rows = encoding[self.declaration.level]
        if not encoding.size:  # the library's attention cannot reshape a batch of none
            return equal_tokens(rows.values.new_zeros((0, self.query_tokens.shape[1], self.project.out_features)))
        read, present = readable_rows(rows, self.norm, self.declaration.prepend_graph_token)
        hidden: Tensor = self.qformer(
            query_embeds=self.query_tokens.expand(encoding.size, -1, -1),
            encoder_hidden_states=read,
            encoder_attention_mask=present,
        ).last_hidden_state
        return equal_tokens(self.project(hidden.to(self.project.weight.dtype)).to(rows.values.dtype))

    def observe_attention(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[Level, Ragged]:
        """See `ProjectorModule.observe_attention`; the mean over layers with cross-attention.

        The share of the mean row, where one stands before the rows, is what a molecule's shares lack to 1.
        """
        rows = encoding[self.declaration.level]
        if not encoding.size:
            return {self.declaration.level: Ragged(rows.values.new_zeros((0, self.query_tokens.shape[1])), rows.ptr)}
        read, present = readable_rows(rows, self.norm, self.declaration.prepend_graph_token)
        chosen = self.qformer.config._attn_implementation
        self.qformer.set_attn_implementation("eager")  # the only one that says what its weights were
        try:
            shares = self.qformer(
                query_embeds=self.query_tokens.expand(encoding.size, -1, -1),
                encoder_hidden_states=read,
                encoder_attention_mask=present,
                output_attentions=True,
            ).cross_attentions
        finally:
            self.qformer.set_attn_implementation(chosen)
        mean = torch.stack([share.mean(dim=1) for share in shares]).mean(dim=0).transpose(1, 2)
        return {self.declaration.level: ragged(mean[:, int(self.declaration.prepend_graph_token) :], rows)}


def readable_rows(rows: Ragged, norm: nn.LayerNorm, prepend_mean: bool) -> tuple[Tensor, Tensor]:
    """What queries attend to: normalised rows in a block `(B, n, width)`, and which of them there are, `(B, n)` int64.

    A molecule without rows is read as a single row of zeros, for attention over nothing is not defined.
    """
    block, present = dense(rows)
    if prepend_mean:
        block = torch.cat([mean_rows(rows)[:, None], block], dim=1)
        present = torch.cat([present.new_ones((len(present), 1)), present], dim=1)
    present = present | (torch.arange(present.shape[1], device=present.device) == 0)
    weight, bias = norm.weight.float(), norm.bias.float()
    normed = functional.layer_norm(block.float(), norm.normalized_shape, weight, bias, norm.eps)
    return normed.to(norm.weight.dtype), present.long()
