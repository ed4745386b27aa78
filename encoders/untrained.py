"""The control that tells what an encoder has learned from what its shape alone gives: one frozen at random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
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
        if _names_weights(self.of):
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


def _names_weights(value: object) -> bool:
    """Whether a declaration, or one inside it, names pretrained weights."""
    if not is_dataclass(value) or isinstance(value, type):
        return False
    if getattr(value, "weights", None) is not None:
        return True
    return any(_names_weights(getattr(value, inside.name)) for inside in fields(value))
