"""Contrastive alignment of molecules with their descriptions, as MoleculeSTM (Liu et al. 2023; `scripts/pretrain.py`).

Written from the formulas: the released code is licensed for non-commercial use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import Encoder, EncoderModule, Level, MoleculeBatch
from encoders.objectives import AligningModule, Losses, Objective, ObjectiveModule
from encoders.text_encoder import TextEncoder, TextModule, TextReader

_GRAPH = frozenset({"graph"})


@dataclass(frozen=True, kw_only=True)
class Contrastive(Objective):
    """Pulls a molecule's graph row and the row of its text together, and apart from those of the others in a batch.

    Both are mapped linearly to a common width and brought to length 1 (`pretrain.py:34-36, 306-307`). The loss is the
    mean of both directions (:141-143); its two halves are logged.

    Args:
        loss: `info_nce` tells the right text from all in the batch (:54-63); `ebm_nce`, MoleculeSTM's default, judges
            right and shifted pairs one by one (:38-52). The released checkpoints for retrieval are of `info_nce`.
        temperature: what cosines are divided by; 0.1 there.
        negatives: shifted pairs per right one, for `ebm_nce`; 1 there.
        width: of the common space; 256 there.
        text_encoder: the text side.
    """

    name: ClassVar[str] = "contrastive"
    aligns: ClassVar[bool] = True

    loss: Literal["info_nce", "ebm_nce"] = "ebm_nce"
    temperature: Annotated[float, Gt(0)] = 0.1
    negatives: Annotated[int, Ge(1)] = 1
    width: Annotated[int, Ge(1)] = 256
    text_encoder: TextEncoder = field(default_factory=TextEncoder)

    @property
    def text(self) -> TextEncoder:  # noqa: D102 - inherited
        return self.text_encoder

    def levels(self) -> frozenset[Level]:  # noqa: D102 - inherited
        return _GRAPH

    def build(self, encoder: Encoder, reader: TextReader | None, folder: Path | None) -> ObjectiveModule:  # noqa: D102 - inherited
        if reader is None:
            raise ValueError("a contrastive objective is built with a text reader")
        return ContrastiveModule(self, encoder.provides()["graph"], self.text_encoder.build(reader, folder))

    def combined(self, losses: Losses, generator: torch.Generator | None) -> Tensor:
        """The mean of both directions."""
        return (losses["text_to_molecule"] + losses["molecule_to_text"]) / 2


class ContrastiveModule(AligningModule):
    """The text encoder and the two maps into the common space."""

    def __init__(self, declaration: Contrastive, graph_width: int, text_model: TextModule) -> None:
        super().__init__()
        self.declaration = declaration
        self.text_model = text_model
        self.of_molecule = nn.Linear(graph_width, declaration.width)
        self.of_text = nn.Linear(text_model.width, declaration.width)

    def molecules(self, encoder: EncoderModule, batch: MoleculeBatch) -> Tensor:
        """See `AligningModule.molecules`."""
        return functional.normalize(self.of_molecule(encoder(batch, _GRAPH)["graph"].values), dim=-1)

    def texts(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """See `AligningModule.texts`."""
        return functional.normalize(self.of_text(self.text_model(tokens)), dim=-1)

    def forward(
        self,
        encoder: EncoderModule,
        batch: MoleculeBatch,
        texts: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Losses:
        """See `ObjectiveModule.forward`."""
        if texts is None:
            raise ValueError("a contrastive objective reads texts")
        molecules, described = self.molecules(encoder, batch), self.texts(texts)
        return {
            "text_to_molecule": self._loss(described, molecules),
            "molecule_to_text": self._loss(molecules, described),
        }

    def _loss(self, queries: Tensor, answers: Tensor) -> Tensor:
        settings = self.declaration
        if settings.loss == "info_nce":
            return info_nce(queries, answers, settings.temperature)
        return ebm_nce(queries, answers, settings.temperature, settings.negatives)


def info_nce(queries: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the right answer among all of the batch, rows `(B, width)`; the right one has the same row."""
    scores = queries @ answers.T / temperature
    return functional.cross_entropy(scores, torch.arange(len(scores), device=scores.device))


def ebm_nce(queries: Tensor, answers: Tensor, temperature: float, negatives: int) -> Tensor:
    """Binary cross-entropy of right pairs, and of pairs with answers shifted by 1 to `negatives` rows, around the end.

    Both kinds are averaged, and weigh as 1 to `negatives`.
    """
    negatives = min(negatives, len(queries) - 1)  # the last batch of a validation may be small
    right = (queries * answers).sum(dim=-1) / temperature
    if negatives < 1:
        return functional.binary_cross_entropy_with_logits(right, torch.ones_like(right))
    wrong = torch.cat([(queries * answers.roll(-shift, dims=0)).sum(dim=-1) for shift in range(1, negatives + 1)]) / (
        temperature
    )
    of_right = functional.binary_cross_entropy_with_logits(right, torch.ones_like(right))
    of_wrong = functional.binary_cross_entropy_with_logits(wrong, torch.zeros_like(wrong))
    return (of_right + negatives * of_wrong) / (1 + negatives)
