"""Runs that share a process: nothing that one of them changes there reaches the next one, or whoever called it."""

from __future__ import annotations

import gc
import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_LAUNCHERS = ("ACCELERATE_", "FSDP_")  # settings that transformers and accelerate write down for themselves


@contextmanager
def isolated(seed: int, threads: int | None) -> Iterator[None]:
    """Random generators, numeric settings of torch, warnings, gradients and threads are as before at the end.

    Inside, the generators start from the seed, so that even what draws from them unasked does not depend on what was
    done before; and graphs of gradients are kept, whatever the caller has switched off.

    Args:
        seed: of the run.
        threads: of torch; None leaves them.
    """
    before = _Settings()
    environment = {name: value for name, value in os.environ.items() if name.startswith(_LAUNCHERS)}
    try:
        devices = [torch.cuda.current_device()] if _on_cuda() else []
        with warnings.catch_warnings(), torch.random.fork_rng(devices), torch.enable_grad():
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            if threads:
                torch.set_num_threads(threads)
            yield
    finally:
        before.restore()
        for name in [name for name in os.environ if name.startswith(_LAUNCHERS) and name not in environment]:
            del os.environ[name]
        os.environ.update(environment)
        _forget()


class _Settings:
    """What a process has but once, and a run may change."""

    def __init__(self) -> None:
        self._python, self._numpy = random.getstate(), np.random.get_state()
        self._threads = torch.get_num_threads()
        self._precision, self._dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        self._warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
        cudnn = torch.backends.cudnn
        self._cudnn = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32)

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_num_threads(self._threads)
        torch.set_float32_matmul_precision(self._precision)
        torch.set_default_dtype(self._dtype)
        torch.use_deterministic_algorithms(self._deterministic, warn_only=self._warns_only)
        cudnn = torch.backends.cudnn
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = self._cudnn


def _forget() -> None:
    """Lets go of what libraries keep of a training, above all its model and the accelerator's memory."""
    if "accelerate.state" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=False)
        GradientState._reset_state()
    gc.collect()  # a trainer and its model refer to each other
    if _on_cuda():
        torch.cuda.empty_cache()


def _on_cuda() -> bool:
    """Whether anything of this process has been computed on a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
