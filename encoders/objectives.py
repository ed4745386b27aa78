"""What an encoder is pretrained for: a declaration of the levels it reads, and the heads and losses that it builds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from encoders.base import (
    Encoder,
    EncoderError,
    EncoderModule,
    FeatureScheme,
    GraphScheme,
    Level,
    MoleculeBatch,
)
from encoders.text_encoder import TextEncoder, TextReader

Losses = dict[str, Tensor]
"""Named losses of a batch, each a scalar."""

Weighting = Literal["equal", "random_softmax"] | dict[str, Annotated[float, Ge(0)]]
"""How named losses become one: their sum, their sum under fresh random weights at every step, or fixed weights."""


class ObjectiveModule(nn.Module):
    """The heads of an objective. Parameters below `text_model` are those of a text encoder; all others are heads."""

    def forward(
        self,
        encoder: EncoderModule,
        batch: MoleculeBatch,
        texts: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Losses:
        """The losses of a batch.

        Args:
            encoder: what is pretrained.
            batch: the columns of the encoder's and the objective's feature schemes.
            texts: `input_ids` and `attention_mask` `(B, t)`, where the objective reads text.
            generator: on the CPU; whatever the objective draws at random comes from it.
        """
        raise NotImplementedError


class AligningModule(ObjectiveModule):
    """Heads that put molecules and texts into one space, so that each can be retrieved by the other."""

    def molecules(self, encoder: EncoderModule, batch: MoleculeBatch) -> Tensor:
        """Rows of length 1, `(B, width)`."""
        raise NotImplementedError

    def texts(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Rows of length 1, `(B, width)`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """The declaration of an objective. One subclass and its module, one file."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    aligns: ClassVar[bool] = False
    """Whether its module is an `AligningModule`, so that retrieval can be measured."""

    @abstractmethod
    def levels(self) -> frozenset[Level]:
        """The encoder's levels that the heads read."""

    @abstractmethod
    def build(self, encoder: Encoder, reader: TextReader | None, folder: Path | None) -> ObjectiveModule:
        """The heads for an encoder, freshly initialised from torch's global generator (the caller seeds it).

        Args:
            encoder: one that `check` has let pass.
            reader: the tokenizer, where the objective reads text.
            folder: the pretrained text encoder's; None for the small one, which starts at random.
        """

    def features(self) -> tuple[FeatureScheme, ...]:
        """Feature schemes whose columns the heads read beside those of the encoder."""
        return ()

    @property
    def text(self) -> TextEncoder | None:
        """The text encoder; None for an objective that reads molecules alone."""
        return None

    @property
    def weighting(self) -> Weighting:
        """How the named losses become one."""
        return "equal"

    def check(self, encoder: Encoder) -> None:
        """Makes sure that an encoder can be pretrained for this.

        Raises:
            EncoderError: it cannot be trained, lacks a level, or its features do not suit.
        """
        if not encoder.is_trainable:
            raise EncoderError(f"encoder {encoder.name} cannot be pretrained: nothing in it is trained")
        provided = encoder.provides()
        for level in sorted(self.levels()):
            if level not in provided:
                raise EncoderError(
                    f"objective {self.name} reads the level {level!r}, which encoder {encoder.name} does not provide; "
                    f"it provides {', '.join(provided)}"
                )

    def combined(self, losses: Losses, generator: torch.Generator | None) -> Tensor:
        """One loss of the named ones, as `weighting` says; a name without a fixed weight has weight 1.

        Args:
            losses: scalars by name.
            generator: what random weights are drawn from; None for their expectation, which validation reports.
        """
        names = list(losses)
        stacked = torch.stack([losses[name] for name in names])
        if self.weighting == "equal":
            return stacked.sum()
        if isinstance(self.weighting, Mapping):
            weights = torch.tensor([float(self.weighting.get(name, 1.0)) for name in names])
        elif generator is None:
            weights = torch.full((len(names),), 1 / len(names))
        else:
            weights = torch.softmax(torch.rand(len(names), generator=generator), dim=0)
        return (stacked * weights.to(stacked)).sum()


def graph_scheme(encoder: Encoder, purpose: str) -> GraphScheme:
    """The scheme of categorical atom and bond features that an encoder reads.

    Raises:
        EncoderError: it reads none.
    """
    for scheme in encoder.features():
        if isinstance(scheme, GraphScheme):
            return scheme
    read = ", ".join(scheme.name for scheme in encoder.features()) or "no features at all"
    raise EncoderError(
        f"{purpose} needs an encoder that reads categorical atom and bond features; {encoder.name} reads {read}"
    )


def check_weighting(objective: str, weighting: Weighting, losses: Sequence[str]) -> None:
    """Makes sure that fixed weights name losses that there are.

    Raises:
        EncoderError: one does not, or all are 0.
    """
    if not isinstance(weighting, Mapping):
        return
    unknown = [name for name in weighting if name not in losses]
    if unknown:
        raise EncoderError(
            f"objective {objective}: `loss_weights` names {unknown[0]!r}; losses are {', '.join(losses)}"
        )
    if all(weighting.get(name, 1.0) == 0 for name in losses):
        raise EncoderError(f"objective {objective}: all `loss_weights` are 0, so nothing would be learned")


def mean_per_molecule(losses: Tensor, molecule: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The mean of each molecule's rows `(n,)`, `(B,)`, and which molecules have any, `(B,)` bool."""
    counts = torch.zeros(size, dtype=losses.dtype, device=losses.device).index_add(0, molecule, torch.ones_like(losses))
    sums = torch.zeros(size, dtype=losses.dtype, device=losses.device).index_add(0, molecule, losses)
    return sums / counts.clamp(min=1), counts > 0
