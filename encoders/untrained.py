"""The control that tells what an encoder has learned from what its shape alone gives: one frozen at random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from encoders.base import Counts, Encoder, EncoderError, EncoderModule, FeatureScheme, Level
from encoders.gin import Gin


@dataclass(frozen=True, kw_only=True)
class Random(Encoder):
    """Another encoder, frozen at its random initialisation whatever a stage trains.

    Args:
        of: the encoder; must have no pretrained weights.
    """

    name: ClassVar[str] = "random"

    of: Encoder = field(default_factory=Gin)

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(of=Gin.small())

    def __post_init__(self) -> None:
        if getattr(self.of, "weights", None) is not None:
            raise EncoderError(f"encoder random: `of: {self.of.name}` names weights; a random encoder has none")

    @property
    def is_trainable(self) -> bool:  # noqa: D102 - inherited
        return False

    @property
    def depends_on_batch(self) -> bool:  # noqa: D102 - inherited
        return self.of.depends_on_batch

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        return self.of.provides()

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return self.of.features()

    def rows(self, counts: Counts, size: int) -> Counts:  # noqa: D102 - inherited
        return self.of.rows(counts, size)

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return self.of.build().requires_grad_(False)
