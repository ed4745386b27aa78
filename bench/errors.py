"""Errors that are the user's to mend. The command line prints their message, without a traceback, and exits with 2.

The other rooms cannot import this module; their own user errors carry the same class attribute, which is all that the
command line looks at.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Literal

Failure = Literal["nan", "oom", "error"]
"""Classes of failures that end a run until it is retried on request."""

# What torch, CUDA and its libraries say in errors that have no class of their own.
_OUT_OF_MEMORY = (
    *("out of memory", "not enough memory", "can't allocate memory", "Cannot allocate memory", "std::bad_alloc"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
)
_NOT_FINITE = ("probability tensor contains either `inf`, `nan`",)  # of torch, where it draws from such a one


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


class DeviceLostError(UserError):
    """The device that is to be computed on is not there, or no longer; runs have not failed and can be gone on with."""


class NotFiniteError(ArithmeticError):
    """A loss, a likelihood or a token's logit became NaN or infinite."""


class StoppedEarlyError(Exception):
    """A watcher wants a training to end; the run can be gone on with from the checkpoint that is written then."""


def is_user_error(error: BaseException) -> bool:
    """Whether `error` is one whose message is meant for the user."""
    return bool(getattr(error, "is_user_error", False))


def failure_of(error: BaseException) -> Failure | None:
    """The class of a failure; None for an interruption and for a user's mistake.

    CUDA says that memory is short by `torch.OutOfMemoryError`, or by a plain `RuntimeError` or `AcceleratorError` where
    a library of its own asked for it; on CPUs torch has a `RuntimeError` and Python a `MemoryError`.
    """
    if is_user_error(error) or isinstance(error, StoppedEarlyError) or not isinstance(error, Exception):
        return None
    if isinstance(error, NotFiniteError) or any(words in str(error) for words in _NOT_FINITE):
        return "nan"
    return "oom" if _is_out_of_memory(error) else "error"


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's; without loading torch
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
