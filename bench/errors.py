"""Errors that are the user's to mend. The command line prints their message, without a traceback, and exits with 2.

The other rooms cannot import this module; their own user errors carry the same class attribute, which is all that the
command line looks at.
"""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """A mistake in what the user gave; the message says what, where, and what would be right."""

    is_user_error: ClassVar[bool] = True


class ConfigError(UserError):
    """A configuration that cannot be used, located by its path (`encoder.layers`)."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class RunBusyError(UserError):
    """Another process holds the run's lock."""


class NotFiniteError(ArithmeticError):
    """The training loss became NaN or infinite."""


def is_user_error(error: BaseException) -> bool:
    """Whether `error` is one whose message is meant for the user."""
    return bool(getattr(error, "is_user_error", False))
