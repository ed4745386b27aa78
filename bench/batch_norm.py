"""Batch norm over the rows of all processes, as one process would have normed them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from bench.config import Stage
from bench.distributed import share_of
from bench.errors import ConfigError
from bench.runtime import Runtime


def trained_norms(model: nn.Module) -> list[str]:
    """Batch norms of trained parts: those that a training step norms by the batch itself."""
    before = model.training
    model.train()
    found = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm) and module.training]
    model.train(before)
    return found


def refuse_or_synchronise(model: nn.Module, stage: Stage, runtime: Runtime) -> bool:
    """Stops where batch norm would see less than the batch that the stage names, or joins it over processes.

    Args:
        model: with the stage's parts trainable.
        stage: what is trained.
        runtime: on how many processes, in how large forward passes.

    Returns:
        Whether it is joined: then every process has to call it in every forward pass.

    Raises:
        ConfigError: naming what can be chosen.
    """
    world = runtime.processes.world
    passes = share_of(stage, world, runtime.micro_batch).passes
    norms = trained_norms(model)
    if not norms or (world == 1 and passes == 1):
        return False
    of = f"stage {stage.name!r} trains {len(norms)} batch norms ({norms[0]}, ...), which norm by the batch"
    if passes > 1:
        raise ConfigError(
            "--micro-batch",
            f"{of}; forward passes of a part of it would give other results. Leave --micro-batch out, freeze the "
            "encoder (trains.encoder: frozen), or set a smaller batch_size with more accumulation, which makes another "
            "run",
        )
    if not runtime.synchronise_batch_norm:
        raise ConfigError(
            "",
            f"{of}; each of {world} processes would norm by its share alone and give other results. Give "
            "--synchronise-batch-norm, freeze the encoder (trains.encoder: frozen), or use one process",
        )
    for name in norms:
        parent, _, child = name.rpartition(".")
        norm = model.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm1d)
        if not isinstance(norm, SynchronisedNorm):
            setattr(model.get_submodule(parent), child, SynchronisedNorm(norm))
    return True


class SynchronisedNorm(nn.BatchNorm1d):
    """Batch norm of rows `(n, width)` over the rows of all processes.

    torch's own `SyncBatchNorm` refuses tensors on a CPU. Every process must call it equally often, with any number of
    rows.

    Args:
        norm: whose parameters, statistics and settings it takes over.
    """

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name in ("weight", "bias"):
            setattr(self, name, getattr(norm, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(self, name, getattr(norm, name))
        self.train(norm.training)

    def forward(self, rows: Tensor) -> Tensor:
        """`(n, width)` to the same."""
        if not self.training:
            return super().forward(rows)
        from torch.distributed.nn.functional import all_reduce

        own = torch.cat((rows.float().sum(dim=0), rows.new_full((1,), rows.shape[0], dtype=torch.float32)))
        total = all_reduce(own)  # type: ignore[no-untyped-call]
        count = total[-1].detach()
        if count <= 1:  # one single row has no spread to norm by
            running = (self.running_mean, self.running_var)
            return functional.batch_norm(rows, *running, self.weight, self.bias, eps=self.eps)
        mean = total[:-1] / count
        centred = rows.float() - mean
        variance = all_reduce(centred.square().sum(dim=0)) / count  # type: ignore[no-untyped-call]
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        normed: Tensor = centred * torch.rsqrt(variance + self.eps)
        if self.affine:
            normed = normed * self.weight + self.bias
        return normed.to(rows.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
