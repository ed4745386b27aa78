"""The three views of MolX (Le et al. 2024): a SMILES tower, a graph tower and a fingerprint, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from torch import nn

from encoders.base import (
    Counts,
    Encoder,
    EncoderError,
    EncoderModule,
    FeatureScheme,
    Level,
    MoleculeBatch,
    MoleculeEncoding,
    Ragged,
)
from encoders.fingerprint import Fingerprint
from encoders.gin import Gin
from encoders.message_passing import GraphEncoder
from encoders.ogb_features import MolCa2
from encoders.smiles import Smiles


@dataclass(frozen=True, kw_only=True)
class MolX(Encoder):
    """Up to three towers that each see the whole molecule; their rows are fused by a projector.

    Provides the levels of its towers: `smiles`, those of the graph tower, and `fingerprint`.

    Args:
        smiles: the SMILES tower; null for none. The released code reads ChemBERTa and averages padding too:
            `model: DeepChem/ChemBERTa-10M-MTR, pool: mean_unmasked, truncate: true` (`models/molx_llm.py`).
        graph: the graph tower; null for none. GraphCL's GIN over the first two of OGB's features, or `moleculestm` with
            `scheme: {name: ogb9, chirality_rows: 5}`; 5 layers, width 300, mean read-out there (`gnn/gin.py`).
        fingerprint: Morgan bits; null for none.
    """

    name: ClassVar[str] = "molx"

    smiles: Smiles | None = field(default_factory=Smiles)
    graph: GraphEncoder | None = field(default_factory=lambda: Gin(scheme=MolCa2()))
    fingerprint: Fingerprint | None = field(default_factory=Fingerprint)

    def __post_init__(self) -> None:
        if not self.towers():
            raise EncoderError("molx: `smiles`, `graph` and `fingerprint` are all null; at least one must be there")

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(
            smiles=Smiles.small(), graph=Gin(layers=2, width=16, scheme=MolCa2()), fingerprint=Fingerprint.small()
        )

    def towers(self) -> Mapping[str, Encoder]:
        """The towers that are there, by field."""
        named = {"smiles": self.smiles, "graph": self.graph, "fingerprint": self.fingerprint}
        return {name: tower for name, tower in named.items() if tower is not None}

    @property
    def is_trainable(self) -> bool:  # noqa: D102 - inherited
        return any(tower.is_trainable for tower in self.towers().values())

    @property
    def depends_on_batch(self) -> bool:  # noqa: D102 - inherited
        return any(tower.depends_on_batch for tower in self.towers().values())

    def provides(self) -> Mapping[Level, int]:  # noqa: D102 - inherited
        return {level: width for tower in self.towers().values() for level, width in tower.provides().items()}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        return tuple(scheme for tower in self.towers().values() for scheme in tower.features())

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        return tuple(source for tower in self.towers().values() for source in tower.sources())

    def rows(self, counts: Counts, size: int) -> Counts:  # noqa: D102 - inherited
        return {level: rows for tower in self.towers().values() for level, rows in tower.rows(counts, size).items()}

    def build(self) -> EncoderModule:  # noqa: D102 - inherited
        return MolXModule(self)

    def load(self, module: EncoderModule) -> None:  # noqa: D102 - inherited
        assert isinstance(module, MolXModule)
        for name, tower in self.towers().items():
            tower.load(module.towers[name])  # type: ignore[arg-type]


class MolXModule(EncoderModule):
    """The towers' modules; one of which no level is asked for does not run."""

    def __init__(self, declaration: MolX) -> None:
        super().__init__()
        self.declaration = declaration
        towers = declaration.towers()
        self.towers = nn.ModuleDict({name: tower.build() for name, tower in towers.items()})
        self.levels = {name: frozenset(tower.provides()) for name, tower in towers.items()}

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads the columns of the towers."""
        found: dict[Level, Ragged] = {}
        for name, tower in self.towers.items():
            asked = self.levels[name] & levels
            if asked:
                found |= tower(batch, asked).levels
        return MoleculeEncoding(batch.size, found)
