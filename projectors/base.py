"""What a projector is: a declaration of the levels it needs and of the tokens it makes, and the module it builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from encoders.base import Counts, Level, MoleculeEncoding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """Vectors that take the place of token embeddings.

    Args:
        embeds: `(sum T, d_llm)`.
        ptr: `(B + 1,)` int64; molecule `b` owns rows `ptr[b]:ptr[b + 1]`.
    """

    embeds: Tensor
    ptr: Tensor


class ProjectorModule(nn.Module):
    """The module that a projector's declaration builds."""

    def forward(self, encoding: MoleculeEncoding) -> SoftTokens:
        """Soft tokens of every molecule, as many as the declaration's `tokens` says."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Projector(ABC):
    """The declaration of a projector. One subclass and its module, one file.

    `places_tokens` is False for a projector that gives the language model nothing, in which case the prompt has no
    placeholder either.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    places_tokens: ClassVar[bool] = True

    @abstractmethod
    def needs(self) -> tuple[Level, ...]:
        """The levels that are read; `layer:*` means every layer that the encoder provides, and at least one."""

    @abstractmethod
    def tokens(self, rows: Counts, size: int) -> NDArray[np.int64]:
        """The number of soft tokens of each molecule, `(B,)` int64.

        Args:
            rows: rows of each molecule per level.
            size: the number of molecules, B.
        """

    @abstractmethod
    def build(self, widths: Mapping[Level, int], llm_width: int) -> ProjectorModule:
        """The module, freshly initialised from torch's global generator (the caller seeds it).

        Args:
            widths: width of each level that is read, `layer:*` already resolved.
            llm_width: width of the language model's token embeddings.
        """
