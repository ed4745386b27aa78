"""Where tensors are computed, and random numbers that leave the rest of the process as it was."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from bench.errors import DeviceLostError, UserError
from bench.identity import derived_seed
from bench.runtime import Runtime


def device_of(runtime: Runtime) -> torch.device:
    """The device that `auto` means here, or the one that was asked for.

    Raises:
        UserError: torch knows no such device.
        DeviceLostError: it is a GPU that is not there.
    """
    group = runtime.processes
    kind = runtime.device if runtime.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if group.several and kind == "cuda":
        return torch.device("cuda", group.local_rank)
    try:
        device = torch.device(kind)
    except RuntimeError as error:
        raise UserError(f"--device {runtime.device}: {str(error).splitlines()[0]}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DeviceLostError(
            f"--device {runtime.device}: torch sees no GPU on {socket.gethostname()} (nvidia-smi tells). If one was "
            "lost, nothing else is: the same command goes on when it is back, or with --device cpu"
        )
    return device


def settled(runtime: Runtime) -> Runtime:
    """The runtime with what `auto` means here, for the processes that do its work.

    Each would find out by itself otherwise; one that is started after a GPU was lost would go on with the CPU, unasked.
    """
    return replace(runtime, device=device_of(runtime).type) if runtime.device == "auto" else runtime


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Weights made inside depend on the seed and the purpose alone; torch's generator is then put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, purpose))
        yield
