"""What a graph encoder learns before any language model sees it: for what objective, on which molecules, how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from bench.config_types import Alias, Count, Fraction, Precision, Rate, Schedule
from bench.errors import ConfigError
from encoders.cleaning import Cleaning
from encoders.objectives import Objective
from tasks.base import Split

Module = Literal["encoder", "heads", "text"]


@dataclass(frozen=True, kw_only=True)
class DataPart:
    """Rows of a data set.

    Args:
        data: name of a data set, or the path of a YAML file that describes one.
        split: which of its splits.
        limit: a subset of so many rows that does not depend on the seed; None for all.
    """

    data: str
    split: Split = "train"
    limit: Count | None = None


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """The molecules, and their texts where the objective reads them.

    Args:
        training: what is learned from.
        validation: what the losses are measured on meanwhile; none may be given.
        retrieval: held-out pairs whose texts are looked for by molecules and molecules by texts in the end; only for
            objectives that align the two.
        exclude: molecules that must not be trained on, nor others that differ from them in stereo or isotopes alone
            (by the first block of the InChIKey); they are left out of `training` and counted.
        cleaning: what is done to molecules before training and validation; None for nothing.
        text_role: the role of the column of texts.
    """

    training: Annotated[tuple[DataPart, ...], MinLen(1)]
    validation: tuple[DataPart, ...] = ()
    retrieval: tuple[DataPart, ...] = ()
    exclude: tuple[DataPart, ...] = ()
    cleaning: Cleaning | None = None
    text_role: str = "caption"


@dataclass(frozen=True, kw_only=True)
class PretrainingOptimiser:
    """AdamW; without weight decay it is Adam, which HiMol, pretrain-gnns and MoleculeSTM use.

    Args:
        lr: peak learning rate; 1e-3 in HiMol and pretrain-gnns.
        lr_of: learning rates of the encoder, the text encoder (`text`) and the other heads, where they differ.
        max_grad_norm: gradients are clipped to it; 0 for never, as there.
    """

    lr: Rate = 1e-3
    lr_of: dict[Module, Rate] = field(default_factory=dict)
    weight_decay: Annotated[float, Ge(0)] = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    epsilon: Rate = 1e-8
    max_grad_norm: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class PretrainingStage:
    """A pretraining of whatever encoder stands beside it in a configuration.

    Args:
        name: alias in folder names; not part of the identity.
        objective: what for.
        data: on what.
        steps: optimiser steps.
        batch_size: molecules per step; a last batch of an epoch that is not full is left out. 32 in HiMol.
        validate_every: steps between validations; 0 for the end only.
        checkpoint_every: steps between checkpoints to resume from; changes no number.
        precision: of the forward pass; bf16 is autocast.
        seed: of a pretraining that a run begins with it is not the run's, so that all seeds share one encoder.
    """

    name: Alias
    objective: Objective
    data: PretrainingData
    steps: Count
    batch_size: Annotated[int, Ge(2)] = 32
    optimiser: PretrainingOptimiser = field(default_factory=PretrainingOptimiser)
    schedule: Schedule = field(default_factory=Schedule)
    validate_every: Annotated[int, Ge(0)] = 0
    checkpoint_every: Count = 200
    precision: Precision = "fp32"
    seed: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        if self.objective.text is None and "text" in self.optimiser.lr_of:
            raise ConfigError("optimiser.lr_of", f"names `text`, and objective {self.objective.name} reads no text")
        if not self.objective.aligns and self.data.retrieval:
            raise ConfigError("data.retrieval", f"is given, and objective {self.objective.name} aligns no texts")
        negatives = getattr(self.objective, "negatives", 1)
        if negatives >= self.batch_size:
            raise ConfigError("objective.negatives", f"is {negatives}: a batch of {self.batch_size} has fewer others")
