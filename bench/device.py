"""Where tensors are computed, and random numbers that leave the rest of the process as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from bench.errors import UserError
from bench.identity import derived_seed
from bench.runtime import Runtime


def device_of(runtime: Runtime) -> torch.device:
    """The device that `auto` means here, or the one that was asked for.

    Raises:
        UserError: torch knows no such device.
    """
    group = runtime.processes
    kind = runtime.device if runtime.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if group.several and kind == "cuda":
        return torch.device("cuda", group.local_rank)
    if runtime.device == "auto":
        return torch.device(kind)
    try:
        return torch.device(runtime.device)
    except RuntimeError as error:
        raise UserError(f"--device {runtime.device}: {str(error).splitlines()[0]}") from None


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Weights made inside depend on the seed and the purpose alone; torch's generator is then put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, purpose))
        yield
