"""LLaMo's multi-level graph projector: learned queries attend to each layer's atoms, and to motifs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, cast

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding, Ragged
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import Activation, dense, equal_tokens, layers_of, mlp, ragged

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
        initialisation: of the linear maps, those into queries, keys and values apart: torch's own (`torch`), or
            N(0, 0.02) with biases of 0 (`normal`), which LLaMo's `post_init` draws (`modeling_llamo.py:120-131`).
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
    initialisation: Literal["torch", "normal"] = field(default="torch", metadata={"neutral": "torch"})

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(queries=2, heads=2, depth=2)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return ("layer:*", "motif") if self.motifs else ("layer:*",)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return np.full(size, self.queries * (len(layers_of(rows)) + self.motifs), dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        layers = layers_of(widths)
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
    """Queries of all layers are answered at once, whether the layers share an attention or not."""

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
        if declaration.initialisation == "normal":
            for part in self.modules():
                if isinstance(part, nn.Linear):
                    nn.init.normal_(part.weight, std=0.02)
                    if part.bias is not None:
                        nn.init.zeros_(part.bias)

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        return equal_tokens(self.mlp(self.normed(encoding)))

    def observe_attention(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[Level, Ragged]:
        """See `ProjectorModule.observe_attention`; each layer's queries over its atoms, motif queries over motifs."""
        block, present, rows = self._layers(encoding)
        weights, biases, _, _ = _parameters(self.attentions, len(self.layers))
        of_layers = _shares(weights, biases, self.query_tokens, block, present).mean(dim=3).permute(1, 0, 3, 2)
        found = {level: ragged(of_layers[:, number], rows) for number, level in enumerate(self.layers)}
        if self.motif_map is not None:
            motifs = encoding["motif"]
            block, present = dense(Ragged(self.motif_map(motifs.values), motifs.ptr))
            weights, biases, _, _ = _parameters([self.motif_attention], 1)
            shares = _shares(weights, biases, self.motif_query_tokens[None], block[None], present)
            found["motif"] = ragged(shares[0].mean(dim=2).transpose(1, 2), motifs)
        return found

    def normed(self, encoding: MoleculeEncoding) -> Tensor:
        """What the MLP maps, `(B, tokens, width)`."""
        parts = [self._of_layers(encoding)]
        if self.motif_map is not None:
            motifs = self._of_motifs(encoding["motif"])
            parts = [motifs, *parts] if self.declaration.motif_position == "first" else [*parts, motifs]
        tokens = torch.cat(parts, dim=1)
        # In full precision whatever the rows are in, as there.
        normed = nn.functional.layer_norm(
            tokens.float(), self.norm.normalized_shape, self.norm.weight.float(), self.norm.bias.float(), self.norm.eps
        )
        return normed.to(tokens.dtype)

    def _of_layers(self, encoding: MoleculeEncoding) -> Tensor:
        block, present, _ = self._layers(encoding)
        return _attended(self.attentions, self.query_tokens, block, present).flatten(1, 2)

    def _layers(self, encoding: MoleculeEncoding) -> tuple[Tensor, Tensor, Ragged]:
        """Each layer's rows `(L, B, longest, width)`, which of them are a molecule's, and the rows of one layer."""
        layers = [encoding[level] for level in self.layers]
        block, present = dense(Ragged(torch.stack([rows.values for rows in layers], dim=1), layers[0].ptr))
        return block.movedim(2, 0).contiguous(), present, layers[0]

    def _of_motifs(self, rows: Ragged) -> Tensor:
        assert self.motif_map is not None
        block, present = dense(Ragged(self.motif_map(rows.values), rows.ptr))
        queries = self.motif_query_tokens
        found = _attended([self.motif_attention], queries[None], block[None], present)[:, 0]
        return torch.where(present.any(dim=1)[:, None, None], found, queries.to(found.dtype))


def _attended(attentions: Iterable[nn.Module], queries: Tensor, rows: Tensor, present: Tensor) -> Tensor:
    """Multi-head attention of each layer's queries over each molecule's rows; something finite where it has none.

    Queries are the same for all molecules, so the key map is applied to them and not to every row, and the value map
    to what they found. A bias of keys adds the same to all scores of a query and changes nothing.

    Args:
        attentions: one for all layers, or one for each of the L; as many heads in all.
        queries: `(L, Q, width)`.
        rows: `(L, B, longest, width)`, keys and values.
        present: `(B, longest)` bool, which are a molecule's.

    Returns:
        `(B, L, Q, width)`.
    """
    weights, biases, out, out_bias = _parameters(attentions, len(queries))
    shares = _shares(weights, biases, queries, rows, present).to(rows.dtype)
    found = torch.einsum("lbqhn,lbnd->lbqhd", shares, rows)
    values = torch.einsum("lbqhd,lhed->lbqhe", found, weights[:, 2]) + biases[:, 2][:, None, None]
    return torch.einsum("lbqc,ldc->blqd", values.flatten(3), out) + out_bias[:, None]


def _shares(weights: Tensor, biases: Tensor, queries: Tensor, rows: Tensor, present: Tensor) -> Tensor:
    """The share that each row has in each head of each query, `(L, B, Q, H, longest)` in 32 bits; see `_attended`."""
    to_query, to_key, _ = weights.unbind(dim=1)
    asked = torch.einsum("lqd,lhed->lqhe", queries, to_query) + biases[:, 0][:, None]
    sought = torch.einsum("lqhe,lhed->lqhd", asked * to_query.shape[2] ** -0.5, to_key)
    scores = torch.einsum("lqhd,lbnd->lbqhn", sought, rows)
    absent = ~present & present.any(dim=1, keepdim=True)  # a softmax over nothing but absent rows would give NaN
    return scores.float().masked_fill(absent[:, None, None], -torch.inf).softmax(dim=-1)


def _parameters(attentions: Iterable[nn.Module], layers: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights `(L, 3, H, width / H, width)` and biases of queries, keys and values, and those of the output."""
    modules = [module for module in attentions if isinstance(module, nn.MultiheadAttention)]
    heads = modules[0].num_heads
    width = modules[0].embed_dim
    inside = (len(modules), 3, heads, width // heads)
    weights = torch.stack([cast("Tensor", module.in_proj_weight) for module in modules]).view(*inside, width)
    biases = torch.stack([cast("Tensor", module.in_proj_bias) for module in modules]).view(inside)
    out = torch.stack([module.out_proj.weight for module in modules])
    out_bias = torch.stack([module.out_proj.bias for module in modules])
    found = (tensor.expand(layers, *tensor.shape[1:]) for tensor in (weights, biases, out, out_bias))
    return tuple(found)  # type: ignore[return-value]
