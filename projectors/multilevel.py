"""LLaMo's multi-level graph projector: learned queries attend to each layer's atoms, and to motifs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import Activation, dense, equal_tokens, mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Multilevel(Projector):
    """Queries of each layer attend to that layer's atoms, queries of motifs to motifs; then LayerNorm and an MLP.

    As `llamo/projectors.py:77-176`: keys and values are the raw rows, without residual, feed-forward or position. A
    molecule without motifs has the raw motif queries.

    Args:
        queries: per layer, and for motifs; 4 there, so 28 tokens with 6 layers and motifs.
        heads: of each attention; 4 there.
        attention: `shared` by all layers, as the released code does (`projectors.py:100`), or one `per_layer`, as the
            paper's Eq. 4 says.
        motifs: whether the level `motif` is read; LLaMo's Table 4 has a row without it.
        motif_position: motif tokens `first` as in the released code, or `last` as in the paper's Eq. 5.
        depth: linear maps of the MLP; 6 there.
        activation: between them; silu there.
        hidden: width of its hidden layers; None for the language model's, as there.
    """

    name: ClassVar[str] = "multilevel"
    adjustable_width: ClassVar[str | None] = "hidden"
    adjustable_tokens: ClassVar[str | None] = "queries"

    queries: Annotated[int, Ge(1)] = 4
    heads: Annotated[int, Ge(1)] = 4
    attention: Literal["shared", "per_layer"] = "shared"
    motifs: bool = True
    motif_position: Literal["first", "last"] = "first"
    depth: Annotated[int, Ge(1)] = 6
    activation: Activation = "silu"
    hidden: Annotated[int, Ge(1)] | None = None

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(queries=2, heads=2, depth=2)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return ("layer:*", "motif") if self.motifs else ("layer:*",)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        layers = sum(level.startswith("layer:") for level in rows)
        return np.full(size, self.queries * (layers + self.motifs), dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        layers = tuple(sorted((lv for lv in widths if lv.startswith("layer:")), key=lambda level: int(level[6:])))
        found = {widths[level] for level in layers}
        if len(found) > 1:
            raise EncoderError(
                f"projector multilevel: layers of different widths, {sorted(found)}; it reads equal ones"
            )
        (width,) = found
        if width % self.heads:
            raise EncoderError(f"projector multilevel: heads is {self.heads}, which does not divide the width {width}")
        return MultilevelModule(self, layers, width, widths.get("motif"), llm_width)


class MultilevelModule(ProjectorModule):
    """All layers that share an attention are one call of it, with the layers' molecules side by side."""

    def __init__(
        self, declaration: Multilevel, layers: tuple[Level, ...], width: int, motif_width: int | None, llm_width: int
    ) -> None:
        super().__init__()
        self.declaration = declaration
        self.layers = layers
        count, heads = declaration.queries, declaration.heads
        self.query_tokens = nn.Parameter(torch.randn(len(layers), count, width))
        kinds = 1 if declaration.attention == "shared" else len(layers)
        self.attentions = nn.ModuleList(nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(kinds))
        self.motif_map: nn.Linear | None = None
        if declaration.motifs:
            assert motif_width is not None
            self.motif_map = nn.Linear(motif_width, width, bias=False)
            self.motif_query_tokens = nn.Parameter(torch.randn(count, width))
            self.motif_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp(width, llm_width, declaration.depth, declaration.activation, declaration.hidden)

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        return equal_tokens(self.mlp(self.normed(encoding)))

    def normed(self, encoding: MoleculeEncoding) -> Tensor:
        """What the MLP maps, `(B, tokens, width)`."""
        of_layers = [self._layer(position, encoding[level]) for position, level in enumerate(self.layers)]
        parts = of_layers
        if self.motif_map is not None:
            motifs = self._motifs(encoding["motif"])
            parts = [motifs, *of_layers] if self.declaration.motif_position == "first" else [*of_layers, motifs]
        tokens = torch.cat(parts, dim=1)
        # In full precision whatever the rows are in, as there.
        normed = nn.functional.layer_norm(
            tokens.float(), self.norm.normalized_shape, self.norm.weight.float(), self.norm.bias.float(), self.norm.eps
        )
        return normed.to(tokens.dtype)

    def _layer(self, position: int, rows: Ragged) -> Tensor:
        attention = self.attentions[position if len(self.attentions) > 1 else 0]
        return _attended(attention, self.query_tokens[position], rows)

    def _motifs(self, rows: Ragged) -> Tensor:
        assert self.motif_map is not None
        mapped = Ragged(self.motif_map(rows.values), rows.ptr)
        attended = _attended(self.motif_attention, self.motif_query_tokens, mapped)
        return torch.where((rows.counts() > 0)[:, None, None], attended, self.motif_query_tokens.to(attended.dtype))


def _attended(attention: nn.Module, queries: Tensor, rows: Ragged) -> Tensor:
    """What each query finds among each molecule's rows, `(B, queries, width)`; anything finite where there is none."""
    block, present = dense(rows)
    absent = ~present
    absent = absent & present.any(dim=1, keepdim=True)  # a row of nothing but absent keys would give NaN
    expanded = queries.to(block.dtype).expand(len(block), *queries.shape)
    if not len(block):
        return expanded
    found: Tensor = attention(expanded, block, block, key_padding_mask=absent, need_weights=False)[0]
    return found
