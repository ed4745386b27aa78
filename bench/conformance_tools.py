"""What the checks of encoders and of projectors share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

CLOSE = 2e-5
"""Of `|a - b| / (1 + |b|)`: what sums in another order may differ by."""


class ConformanceError(AssertionError):
    """A component does not hold to what all of its kind must."""


def check_gradients(module: nn.Module, outputs: Sequence[Tensor]) -> None:
    """A gradient reaches every trainable tensor from the outputs."""
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable:
        return
    generator = torch.Generator().manual_seed(0)
    total = sum(
        (values * torch.randn(values.shape, generator=generator)).sum() for values in outputs if values.requires_grad
    )
    expect(isinstance(total, Tensor), "no output depends on a trainable tensor")
    assert isinstance(total, Tensor)
    total.backward()  # type: ignore[no-untyped-call]
    for name, parameter in trainable.items():
        reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        expect(reached, f"no gradient reaches {name}")


def same(found: Tensor, expected: Tensor, what: str) -> None:
    """Two tensors are equal but for rounding."""
    expect(found.shape == expected.shape, f"{what}: {tuple(found.shape)} rows and {tuple(expected.shape)}")
    if found.numel():
        found, expected = found.detach(), expected.detach()
        apart = float(((found - expected).abs() / (1 + expected.abs())).max())
        expect(apart <= CLOSE, f"{what}: differ by {apart:.2e}, relative; at most {CLOSE:.0e} is rounding")


def expect(holds: bool, found: str) -> None:
    """What holds passes; what does not is told."""
    if not holds:
        raise ConformanceError(found)
