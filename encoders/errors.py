"""What can be wrong with molecules, settings and weights; rooms and plug-ins take these names from `encoders.base`."""

from __future__ import annotations

from typing import ClassVar


class RejectedMoleculeError(ValueError):
    """A molecule that a feature scheme cannot express; the message is the reason that is listed."""


class EncoderError(ValueError):
    """A mistake in an encoder's settings or weights; the message is meant for the user."""

    is_user_error: ClassVar[bool] = True
