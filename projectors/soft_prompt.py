"""A learned soft prompt: tokens in the place of a molecule's that say nothing about it, a control for what they add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from encoders.base import Counts, EncoderError, Level, MoleculeEncoding
from projectors.base import Context, Projector, ProjectorModule, SoftTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SoftPrompt(Projector):
    """Learned vectors, the same ones for every molecule: token `i` is row `i` of one table.

    With `like`, a molecule has as many tokens as another projector would give it, so that only what they hold differs.
    Where that number follows the molecule's size, the size is still told, by the number of tokens alone.

    Args:
        count: tokens of every molecule; without effect where `like` is given.
        like: the projector whose numbers of tokens are taken over; its maps are not built.
        max_tokens: rows of the table where `like` is given; a longer molecule begins again at the first one. The
            largest molecule of ChEBI-20 has 574 atoms.
        std: of the normal distribution that the table starts from; 0.02, as Llama's token embeddings.
    """

    name: ClassVar[str] = "soft_prompt"
    reads_molecules: ClassVar[bool] = False
    adjustable_tokens: ClassVar[str | None] = "count"

    count: Annotated[int, Ge(1)] = 8
    like: Projector | None = None
    max_tokens: Annotated[int, Ge(1)] = 1024
    std: Annotated[float, Ge(0)] = 0.02

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(count=2)

    def __post_init__(self) -> None:
        if self.like is not None and not self.like.places_tokens:
            raise EncoderError(f"projector soft_prompt: `like: {self.like.name}` places no token")

    def needs(self) -> tuple[Level, ...]:
        """The levels of `like`, whose rows are counted; none without it."""
        return () if self.like is None else self.like.needs()

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return np.full(size, self.count, dtype=np.int64) if self.like is None else self.like.tokens(rows, size)

    def cut(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return super().cut(rows, size) if self.like is None else self.like.cut(rows, size)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return SoftPromptModule(self, tuple(widths), llm_width)


class SoftPromptModule(ProjectorModule):
    """The table, and how much of it each molecule gets."""

    def __init__(self, declaration: SoftPrompt, levels: tuple[Level, ...], llm_width: int) -> None:
        super().__init__()
        self.declaration = declaration
        self.levels = levels
        rows = declaration.count if declaration.like is None else declaration.max_tokens
        self.table = nn.Parameter(torch.randn(rows, llm_width) * declaration.std)

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`; of the encoding only the numbers of rows are read."""
        counts = self._counts(encoding)
        ptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        first = ptr[:-1].repeat_interleave(counts)
        inside = torch.arange(first.numel(), device=first.device) - first
        return SoftTokens(self.table.index_select(0, inside % self.table.shape[0]), ptr)

    def _counts(self, encoding: MoleculeEncoding) -> Tensor:
        rows = {level: encoding[level].counts().cpu().numpy() for level in self.levels}
        declared = np.asarray(self.declaration.tokens(rows, encoding.size), dtype=np.int64)
        return torch.from_numpy(declared).to(self.table.device)
