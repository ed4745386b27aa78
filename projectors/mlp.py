"""An MLP over single atoms: InstructMol's `mlp2x_gelu` and the MLP rows of LLaMo's Table 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import nn

from encoders.base import Counts, Level, MoleculeEncoding
from projectors.base import Context, Projector, ProjectorModule, SoftTokens
from projectors.ragged import Activation, layers_of, mlp

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Mlp(Projector):
    """Every atom becomes one soft token, by an MLP of its rows at one level or at all layers.

    LLaMo's Table 4 has three such rows, whose code was never released: low-level (`level: layer:1`), high-level (the
    last layer, `level: atom`) and the concatenation of all layers (`layers: all`).

    Args:
        level: which rows, where `layers` is `one`.
        layers: `one` level, or the rows of `all` layers side by side, the input embedding included.
        depth: linear maps; InstructMol's `mlp2x_gelu` has 2 (`multimodal_projector/builder.py:33-46`).
        activation: between them; gelu there.
        hidden: width of the hidden layers; None for the language model's, as there.
    """

    name: ClassVar[str] = "mlp"
    adjustable_width: ClassVar[str | None] = "hidden"

    level: str = "atom"
    layers: Literal["one", "all"] = "one"
    depth: Annotated[int, Ge(1)] = 2
    activation: Activation = "gelu"
    hidden: Annotated[int, Ge(1)] | None = None

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return ("layer:*",) if self.layers == "all" else (self.level,)

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return rows[layers_of(rows)[0] if self.layers == "all" else self.level]

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        levels = layers_of(widths) if self.layers == "all" else (self.level,)
        width = sum(widths[level] for level in levels)
        return MlpModule(levels, mlp(width, llm_width, self.depth, self.activation, self.hidden))


class MlpModule(ProjectorModule):
    """The map of the rows of some levels, side by side."""

    def __init__(self, levels: tuple[Level, ...], layers: nn.Module) -> None:
        super().__init__()
        self.levels = levels
        self.mlp = layers

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        rows = torch.cat([encoding[level].values for level in self.levels], dim=1)
        return SoftTokens(self.mlp(rows), encoding[self.levels[0]].ptr)
