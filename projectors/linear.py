"""One linear map: every row of a level becomes one soft token (InstructMol's projector, MolCA's baseline)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import nn

from encoders.base import Counts, Level, MoleculeEncoding
from projectors.base import Context, Projector, ProjectorModule, SoftTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Linear(Projector):
    """`Linear(width, d_llm)` over the rows of one level, without pooling.

    Args:
        level: which rows; InstructMol maps every atom (`llava_graph_arch.py:85-97`).
        bias: whether the map has one; it has there.
    """

    name: ClassVar[str] = "linear"

    level: str = "atom"
    bias: bool = True

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return (self.level,)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return rows[self.level]

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return LinearModule(self.level, nn.Linear(widths[self.level], llm_width, bias=self.bias))


class LinearModule(ProjectorModule):
    """The map of one level's rows."""

    def __init__(self, level: Level, linear: nn.Linear) -> None:
        super().__init__()
        self.level = level
        self.linear = linear

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        rows = encoding[self.level]
        return SoftTokens(self.linear(rows.values), rows.ptr)
