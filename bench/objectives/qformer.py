"""MolCA's first stage as an objective of `pretrain-encoder`: encoder and Q-Former learn from texts together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from encoders.base import Encoder, EncoderError, EncoderModule, Level, MoleculeBatch
from encoders.objectives import Losses, Objective, ObjectiveModule
from encoders.text_encoder import TextEncoder, TextReader
from projectors.qformer import QFormer
from projectors.qformer_stages import QFormerPretraining


@dataclass(frozen=True, kw_only=True)
class QFormerObjective(Objective):
    """Contrastive, matching and captioning losses of equal weight (`blip2qformer.py:378-500`).

    The run's `objective.safetensors` is what the projector `qformer` then reads as `weights`; its sizes must be those
    of `projector` here.

    Args:
        projector: the Q-Former that is pretrained.
        text_encoder: whose tokenizer cuts texts and, by path or hub name, whose BERT the Q-Former begins as (MolCA:
            `allenai/scibert_scivocab_uncased`); `small` makes a tokenizer from the training texts, and all begins at
            random.
        projection: width in which molecules and texts are compared; 256 in MolCA.
        temperature: of the contrastive loss; 0.1 there.
    """

    name: ClassVar[str] = "qformer"

    projector: QFormer = field(default_factory=QFormer)
    text_encoder: TextEncoder = field(default_factory=lambda: TextEncoder(max_length=128))
    projection: Annotated[int, Ge(1)] = 256
    temperature: Annotated[float, Gt(0)] = 0.1

    def __post_init__(self) -> None:
        if self.projector.weights is not None:
            raise EncoderError("objective qformer: `projector.weights` is not read; name a BERT in `text_encoder`")
        if self.text_encoder.frozen:
            raise EncoderError("objective qformer: `text_encoder.frozen` has no meaning; text and queries share layers")

    @property
    def text(self) -> TextEncoder:  # noqa: D102 - inherited
        return self.text_encoder

    def levels(self) -> frozenset[Level]:  # noqa: D102 - inherited
        return frozenset(self.projector.needs())

    def build(self, encoder: Encoder, reader: TextReader | None, folder: Path | None) -> ObjectiveModule:  # noqa: D102 - inherited
        if reader is None:
            raise ValueError("the Q-Former's objective is built with a text reader")
        return QFormerObjectiveModule(self, encoder.provides()[self.projector.level], reader, folder)


class QFormerObjectiveModule(ObjectiveModule):
    """The Q-Former with its text side and the heads of the three losses."""

    def __init__(self, declaration: QFormerObjective, width: int, reader: TextReader, folder: Path | None) -> None:
        super().__init__()
        self.level = declaration.projector.level
        words = len(reader.tokenizer)
        self.pretraining = QFormerPretraining(
            declaration.projector,
            width,
            vocabulary=words + 1,
            begin_token=words,  # one more than the tokenizer knows, as MolCA's `[DEC]`
            max_text=reader.max_length if folder is None else 512,
            projection=declaration.projection,
            temperature=declaration.temperature,
        )
        if folder is not None:
            self.pretraining.load(str(folder))

    def forward(
        self,
        encoder: EncoderModule,
        batch: MoleculeBatch,
        texts: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Losses:
        """See `ObjectiveModule.forward`."""
        if texts is None:
            raise ValueError("the Q-Former's objective reads texts")
        rows = encoder(batch, frozenset({self.level}))[self.level]
        losses = self.pretraining(rows, texts["input_ids"], texts["attention_mask"], generator=generator)
        return {name: loss for name, loss in losses.items() if name != "loss"}
