"""What a projector is: a declaration of the levels it needs and of the tokens it makes, and the module it builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from encoders.base import Counts, Level, MoleculeEncoding, Ragged

if TYPE_CHECKING:
    from numpy.typing import NDArray


EmbedText = Callable[[str], Tensor]
"""From a text to the token embeddings of a language model, `(tokens, d_llm)`, without special tokens and gradient."""


@dataclass(frozen=True)  # without slots: DeepSpeed looks into what a module returns by `vars`
class SoftTokens:
    """Vectors that take the place of token embeddings.

    Args:
        embeds: `(sum T, d_llm)`.
        ptr: `(B + 1,)` int64; molecule `b` owns rows `ptr[b]:ptr[b + 1]`.
    """

    embeds: Tensor
    ptr: Tensor


@dataclass(frozen=True, slots=True)
class Context:
    """What a projector may know of the prompt that each molecule stands in; never anything of the answer.

    Args:
        instruction: `(B, d_llm)` mean token embedding of the prompt's text, no gradient.
        tasks: the name of each one's task, B of them.
    """

    instruction: Tensor
    tasks: tuple[str, ...]


class ProjectorModule(nn.Module):
    """The module that a projector's declaration builds."""

    def forward(self, encoding: MoleculeEncoding, context: Context | None = None) -> SoftTokens:
        """Soft tokens of every molecule, as many as the declaration's `tokens` says.

        Args:
            encoding: the levels that the declaration needs.
            context: given if the declaration `reads_context`.
        """
        raise NotImplementedError

    def observe(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[str, Tensor]:
        """What is worth writing down per molecule, such as gates: `(B, ...)` by name."""
        return {}

    def observe_attention(self, encoding: MoleculeEncoding, context: Context | None = None) -> Mapping[Level, Ragged]:
        """Where learned queries look, for levels that are read by attention: `(sum n, Q)`, the mean over heads.

        Apart from `observe`, since rows of atoms have no mean over molecules. A query's shares add up to 1 over a
        molecule's rows and whatever else it attends to beside them.
        """
        return {}


@dataclass(frozen=True, kw_only=True)
class Projector(ABC):
    """The declaration of a projector. One subclass and its module, one file.

    `places_tokens` is False for a projector that gives the language model nothing, in which case the prompt has no
    placeholder either.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    places_tokens: ClassVar[bool] = True
    reads_context: ClassVar[bool] = False
    observes: ClassVar[bool] = False
    """Whether the module's `observe` has something to write down."""
    reads_molecules: ClassVar[bool] = True
    """False for a control whose tokens do not depend on what the levels hold."""
    adjustable_width: ClassVar[str | None] = None
    """The field that `match_params` may change to reach a number of parameters."""
    adjustable_tokens: ClassVar[str | None] = None
    """The field that `count_match` may change to reach a number of tokens per molecule."""

    @classmethod
    def small(cls) -> Self:
        """An instance for tests, small where the defaults are large."""
        return cls()

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

    def cut(self, rows: Counts, size: int) -> NDArray[np.int64]:
        """Rows of each molecule that a limit on its size leaves out, `(B,)` int64; reported, never silent."""
        return np.zeros(size, dtype=np.int64)

    def prepare(self, module: ProjectorModule, embed_text: EmbedText) -> None:  # noqa: B027 - most take nothing
        """Starts a module that `build` made from what the language model has; called once, before `load`.

        Args:
            module: as `build` made it.
            embed_text: the language model's embeddings of a text.

        Raises:
            EncoderError: nothing can be made of the text that is asked for.
        """

    def sources(self) -> tuple[str, ...]:
        """Files, folders or hub models that `load` reads; their content is part of a run's identity."""
        return ()

    def load(self, module: ProjectorModule) -> None:  # noqa: B027 - most have nothing to load
        """Puts pretrained weights into a module that `build` made; without any it stays as it is. No network.

        Raises:
            EncoderError: the file does not hold the tensors that are asked of it.
        """
