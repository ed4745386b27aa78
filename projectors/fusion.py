"""MolX's fusion: one MLP per view of a molecule (SMILES, graph, fingerprint), and one soft token of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, MinLen
from torch import Tensor, nn

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding, Ragged
from projectors.base import Context, EmbedText, Projector, ProjectorModule, SoftTokens
from projectors.ragged import equal_tokens, mean_rows, mlp

if TYPE_CHECKING:
    from numpy.typing import NDArray

View = Literal["smiles", "graph", "fingerprint"]


@dataclass(frozen=True, kw_only=True)
class Fusion(Projector):
    """`Linear - ReLU - Linear` of each view, fused; then vectors that all molecules share.

    As MolX's released code (`models/molx_llm.py:115-166, 196-226`): one token `0.25 s + 0.25 g + 0.5 f`, the mean of
    the fingerprint's and of the mean of the other two, followed by 4 learned vectors. A view with several rows of a
    molecule is averaged over them first.

    Args:
        levels: the views that are read. Where one is left out, the rule is that of those that are there: half and half
            for any two.
        fusion: `mean_of_means`, as released; `learned`, a softmax over one scalar per view that starts at those
            weights; `concat_tokens`, one token per view; `sum`.
        hidden: width of the MLPs' hidden layer; 2048 there.
        num_prompt_tokens: shared vectors after each molecule's own; 4 there.
        prompt_init: what they start from: N(0, 0.02) (`random`), or the language model's embeddings of the words of
            `prompt_text`, over and over until there are enough (`text`), as there (`molx_llm.py:196-200`).
        prompt_text: "generation task" there, two tokens for Llama-2, and so twice.
    """

    name: ClassVar[str] = "fusion"
    adjustable_width: ClassVar[str | None] = "hidden"
    observes: ClassVar[bool] = True
    adjustable_tokens: ClassVar[str | None] = "num_prompt_tokens"

    levels: Annotated[tuple[View, ...], MinLen(1)] = ("smiles", "graph", "fingerprint")
    fusion: Literal["mean_of_means", "learned", "concat_tokens", "sum"] = "mean_of_means"
    hidden: Annotated[int, Ge(1)] = 2048
    num_prompt_tokens: Annotated[int, Ge(0)] = 4
    prompt_init: Literal["random", "text"] = field(default="random", metadata={"neutral": "random"})
    prompt_text: str = field(default="generation task", metadata={"neutral": "generation task"})

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise EncoderError(f"projector fusion: `levels` names one twice: {', '.join(self.levels)}")
        if self.fusion == "learned" and len(self.levels) == 1:
            raise EncoderError(f"projector fusion: `learned` weights need two views, and {self.levels[0]} is alone")

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(hidden=16, num_prompt_tokens=2)

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return self.levels

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        own = len(self.levels) if self.fusion == "concat_tokens" else 1
        return np.full(size, own + self.num_prompt_tokens, dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return FusionModule(self, widths, llm_width)

    def prepare(self, module: ProjectorModule, embed_text: EmbedText) -> None:  # noqa: D102 - inherited
        assert isinstance(module, FusionModule)
        if self.prompt_init == "random" or module.prompt is None:
            return
        words = embed_text(self.prompt_text)
        if not len(words):
            raise EncoderError(f"projector fusion: `prompt_text` {self.prompt_text!r} has no token to start from")
        with torch.no_grad():
            module.prompt.copy_(words[torch.arange(self.num_prompt_tokens) % len(words)])

    def weights(self) -> tuple[float, ...]:
        """The weight of each view in the mean of means."""
        others = [level for level in self.levels if level != "fingerprint"]
        if len(others) in {0, len(self.levels)}:
            return (1 / len(self.levels),) * len(self.levels)
        return tuple(0.5 if level == "fingerprint" else 0.5 / len(others) for level in self.levels)


class FusionModule(ProjectorModule):
    """One MLP per view, the weights of views, and the shared vectors."""

    def __init__(self, declaration: Fusion, widths: Mapping[Level, int], llm_width: int) -> None:
        super().__init__()
        self.declaration = declaration
        self.project = nn.ModuleDict(
            {level: mlp(widths[level], llm_width, 2, "relu", declaration.hidden) for level in declaration.levels}
        )
        learned = declaration.fusion == "learned"
        self.scores = nn.Parameter(torch.tensor(declaration.weights()).log()) if learned else None
        count = declaration.num_prompt_tokens
        self.prompt = nn.Parameter(torch.randn(count, llm_width) * 0.02) if count else None

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        tokens = self._fused(self.views(encoding))
        if self.prompt is not None:
            tokens = torch.cat([tokens, self.prompt[None].expand(encoding.size, -1, -1)], dim=1)
        return equal_tokens(tokens.to(encoding[self.declaration.levels[0]].values.dtype))

    def observe(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[str, Tensor]:
        """`weights`, `(B, L)`: of each view in the fused token, in the order of `levels`, where they are learned."""
        return {} if self.scores is None else {"weights": self._weights().expand(encoding.size, -1)}

    def views(self, encoding: MoleculeEncoding) -> Tensor:
        """Each view in the language model's width, `(B, L, d_llm)`, in the order of `levels`."""
        projected = []
        for level in self.declaration.levels:
            rows = encoding[level]
            dtype = next(self.project[level].parameters()).dtype  # counts and bits come as 32-bit floats
            projected.append(self.project[level](mean_rows(Ragged(rows.values.to(dtype), rows.ptr))))
        return torch.stack(projected, dim=1)

    def _fused(self, views: Tensor) -> Tensor:
        if self.declaration.fusion == "concat_tokens":
            return views
        if self.declaration.fusion == "sum":
            return views.sum(dim=1, keepdim=True)
        return (views * self._weights().to(views.dtype)[:, None]).sum(dim=1, keepdim=True)

    def _weights(self) -> Tensor:
        if self.scores is not None:
            return self.scores.float().softmax(dim=0)
        return torch.tensor(self.declaration.weights(), device=next(self.parameters()).device)
