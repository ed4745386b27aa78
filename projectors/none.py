"""No projector: the language model is given no soft token and the prompt no placeholder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from encoders.base import Counts, Level, MoleculeEncoding
from projectors.base import Context, Projector, ProjectorModule, SoftTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class NoProjector(Projector):
    """Needs no level and makes no token."""

    name: ClassVar[str] = "none"
    places_tokens: ClassVar[bool] = False

    def needs(self) -> tuple[Level, ...]:  # noqa: D102 - inherited
        return ()

    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:  # noqa: D102 - inherited
        return np.zeros(size, dtype=np.int64)

    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:  # noqa: D102 - inherited
        return NoProjectorModule(llm_width)


class NoProjectorModule(ProjectorModule):
    """Has no parameters and returns no rows."""

    def __init__(self, llm_width: int) -> None:
        super().__init__()
        self.llm_width = llm_width

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """See `ProjectorModule.forward`."""
        return SoftTokens(torch.zeros(0, self.llm_width), torch.zeros(encoding.size + 1, dtype=torch.long))
