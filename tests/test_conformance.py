"""Every registered encoder and projector holds to what all of its kind must; and the checks find what does not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from bench.conformance import ENCODER_CHECKS, PROJECTOR_CHECKS, ConformanceError, check_encoder, check_projector
from bench.registry import Registry
from encoders.base import Encoder, EncoderModule, MoleculeEncoding, Ragged
from encoders.gin import Gin
from encoders.hierarchical import Hierarchical
from encoders.moleculestm import MoleculeStm
from encoders.motifs import MotifScheme
from encoders.ogb_features import InstructMol2, MolCa2
from projectors.base import Projector, ProjectorModule, SoftTokens
from projectors.linear import Linear

REGISTRY = Registry()
ENCODERS = {name: cls.small() for name, cls in REGISTRY.all("encoder").items()}
PROJECTORS = {name: cls.small() for name, cls in REGISTRY.all("projector").items()}
SEGMENTERS = {name: cls() for name, cls in REGISTRY.all("segmenter").items()}

VARIANTS: dict[str, Encoder] = {
    **{
        f"gin with {name} motifs": replace(Gin.small(), motifs=MotifScheme(segmenter=s))
        for name, s in SEGMENTERS.items()
    },
    **{
        f"hierarchical over {name}": replace(Hierarchical.small(), motifs=MotifScheme(segmenter=s))
        for name, s in SEGMENTERS.items()
    },
    "hierarchical without fallback": Hierarchical.small(),
    "hierarchical, both ways": replace(Hierarchical.small(), edges="both"),
    "hierarchical, mean over atoms": replace(Hierarchical.small(), graph_readout="mean_atoms"),
    "hierarchical, mean over all": replace(Hierarchical.small(), graph_readout="mean_all"),
    "hierarchical over OGB features": replace(Hierarchical.small(), scheme=MoleculeStm().scheme),
    "gin, sum": replace(Gin.small(), readout="sum"),
    "gin, max": replace(Gin.small(), readout="max"),
    "gin over MolCA's features": replace(Gin.small(), scheme=MolCa2()),
    "gin over OGB features": replace(Gin.small(), scheme=MoleculeStm().scheme),
    "moleculestm as InstructMol feeds it": replace(MoleculeStm.small(), scheme=InstructMol2()),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.mark.parametrize("check", ENCODER_CHECKS)
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name: str, check: str, cache: Path) -> None:
    check_encoder(ENCODERS[name], checks=[check], cache=cache)


@pytest.mark.parametrize("name", VARIANTS)
def test_encoder_in_another_form(name: str, cache: Path) -> None:
    # The random partition is drawn for a spelling, not for a molecule; its own tests say what it keeps.
    order_matters = "random" in name and "hierarchical" in name
    checks = [check for check in ENCODER_CHECKS if not (order_matters and check == "order_of_atoms")]
    check_encoder(VARIANTS[name], checks=checks, cache=cache)


@pytest.mark.parametrize("check", PROJECTOR_CHECKS)
@pytest.mark.parametrize("name", PROJECTORS)
def test_projector(name: str, check: str) -> None:
    check_projector(PROJECTORS[name], checks=[check])


# The checks themselves, each against a component that is wrong in its way.


class _Wrong(EncoderModule):
    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.table = nn.Embedding(120, 4)
        self.idle = nn.Parameter(torch.zeros(3)) if fault == "gradients" else None
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: Any, levels: frozenset[str]) -> MoleculeEncoding:
        rows, ptr = self.table(batch["atom"].values[:, 0]), batch["atom"].ptr
        if self.fault == "declared_levels":
            rows = torch.cat([rows, rows], dim=1)
        if self.fault == "batch_equals_single":
            rows = rows + rows.mean(dim=0)
        if self.fault == "order_of_molecules" and len(rows):
            rows = rows + torch.arange(len(rows))[:, None]
        if self.fault == "order_of_atoms":
            first = torch.zeros(len(rows), 1).index_fill(0, ptr[:-1][ptr[:-1] < len(rows)], 1.0)
            rows = rows + first
        if self.fault == "declared_rows":
            rows, ptr = rows[:-1], ptr.clamp(max=len(rows) - 1)
        if self.fault == "smallest_batches" and batch.size == 0:
            rows = torch.zeros(1, 4)
        if self.fault == "stays_frozen":
            self.seen += 1
        if self.fault == "mixed_precision" and torch.is_autocast_enabled("cpu"):
            rows = rows * 2
        if self.fault == "repeatable":
            rows = rows + torch.rand(1)
        if self.fault == "state_round_trip":
            rows = rows + float(self.__dict__.setdefault("hidden", torch.rand(1)))
        return MoleculeEncoding(batch.size, {"atom": Ragged(rows, ptr)} if "atom" in levels else {})


@dataclass(frozen=True, kw_only=True)
class WrongEncoder(Encoder):
    name: ClassVar[str] = "wrong"

    fault: str

    def provides(self) -> dict[str, int]:
        return {"atom": 4}

    def features(self) -> tuple[Any, ...]:
        return Gin().features()

    def build(self) -> EncoderModule:
        return _Wrong(self.fault)


@pytest.mark.parametrize("check", [check for check in ENCODER_CHECKS if check != "seeded"])
def test_each_check_finds_its_fault_in_an_encoder(check: str, cache: Path) -> None:
    check_encoder(WrongEncoder(fault="none"), checks=[check], cache=cache)
    with pytest.raises(ConformanceError):
        check_encoder(WrongEncoder(fault=check), checks=[check], cache=cache)


class _WrongProjection(ProjectorModule):
    def __init__(self, fault: str, width: int, llm_width: int) -> None:
        super().__init__()
        self.fault = fault
        self.map = nn.Linear(width, llm_width)
        self.idle = nn.Parameter(torch.zeros(3)) if fault == "gradients" else None

    def forward(self, encoding: MoleculeEncoding, context: Any = None) -> SoftTokens:
        rows = encoding["atom"]
        tokens, ptr = self.map(rows.values), rows.ptr
        if self.fault == "declared_tokens":
            ptr = ptr.clone()
            ptr[1:-1] += 1  # right in sum, wrong for each
        if self.fault == "batch_equals_single":
            tokens = tokens + tokens.mean(dim=0)
        if self.fault == "order_of_molecules":
            tokens = tokens + torch.arange(len(tokens))[:, None]
        if self.fault == "no_molecule" and encoding.size == 0:
            tokens = torch.zeros(1, tokens.shape[1])
        if self.fault == "low_precision":
            tokens = tokens.float()
        if self.fault == "repeatable":
            tokens = tokens + torch.rand(1)
        if self.fault == "state_round_trip":
            tokens = tokens + float(self.__dict__.setdefault("hidden", torch.rand(1)))
        return SoftTokens(tokens, ptr)


@dataclass(frozen=True, kw_only=True)
class WrongProjector(Linear):
    name: ClassVar[str] = "wrong"

    fault: str

    def build(self, widths: Any, llm_width: int) -> ProjectorModule:
        return _WrongProjection(self.fault, widths["atom"], llm_width)

    def cut(self, rows: Any, size: int) -> Any:
        return super().cut(rows, size) - (self.fault == "cuts_are_told")


@pytest.mark.parametrize("check", [check for check in PROJECTOR_CHECKS if check != "seeded"])
def test_each_check_finds_its_fault_in_a_projector(check: str) -> None:
    check_projector(WrongProjector(fault="none"), checks=[check])
    with pytest.raises(ConformanceError):
        check_projector(WrongProjector(fault=check), checks=[check])


def test_the_seed_check_finds_weights_that_a_seed_does_not_decide() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Unseeded(Linear):
        name: ClassVar[str] = "unseeded"

        def build(self, widths: Any, llm_width: int) -> ProjectorModule:
            module = super().build(widths, llm_width)
            if not torch.empty(0).is_meta:
                fresh = torch.Generator()
                fresh.seed()
                with torch.no_grad():
                    module.linear.weight.add_(torch.rand(module.linear.weight.shape, generator=fresh))  # type: ignore
            return module

    assert issubclass(Unseeded, Projector)
    check_projector(Linear(), checks=["seeded"])
    with pytest.raises(ConformanceError, match="differs between two builds"):
        check_projector(Unseeded(), checks=["seeded"])
