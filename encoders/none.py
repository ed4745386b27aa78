"""No encoder: the text-only baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from encoders.base import Encoder, EncoderModule, Level, MoleculeBatch, MoleculeEncoding


@dataclass(frozen=True, kw_only=True)
class NoEncoder(Encoder):
    """Provides no level, so that only a projector that needs none fits it."""

    name: ClassVar[str] = "none"

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        return {}

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return NoEncoderModule()


class NoEncoderModule(EncoderModule):
    """Has no parameters and returns no level."""

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`."""
        return MoleculeEncoding(batch.size, {})
