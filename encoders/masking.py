"""Attribute masking of pretrain-gnns (Hu et al. 2020; `chem/util.py:189-277`, `chem/pretrain_masking.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import Encoder, EncoderError, EncoderModule, GraphScheme, Level, MoleculeBatch, Ragged
from encoders.objectives import Losses, Objective, ObjectiveModule, Weighting, check_weighting, graph_scheme
from encoders.text_encoder import TextReader

_ATOM = frozenset({"atom"})


@dataclass(frozen=True, kw_only=True)
class Masking(Objective):
    """Hides some atoms and asks for their atomic numbers.

    The encoder's scheme must keep a row for what is hidden (`GraphScheme.mask_atom`, `mask_bond`); `pgnn2` does, with
    119 for atoms, their chirality then being 0, and 5 for bonds.

    Args:
        rate: share of atoms; of a molecule of n atoms `int(n * rate + 1)` are hidden. 0.15 there.
        bonds: whether the bonds of hidden atoms are hidden too, and their types asked for, from the sum of the rows of
            their two ends.
        loss_weights: `equal`, as there; `random_softmax`; or a weight for each of `atom_type` and `bond_type`.
    """

    name: ClassVar[str] = "masking"

    rate: Annotated[float, Gt(0), Lt(1)] = 0.15
    bonds: bool = False
    loss_weights: Weighting = "equal"

    def __post_init__(self) -> None:
        check_weighting(self.name, self.loss_weights, ("atom_type", "bond_type") if self.bonds else ("atom_type",))

    @property
    def weighting(self) -> Weighting:  # noqa: D102 - inherited
        return self.loss_weights

    def levels(self) -> frozenset[Level]:  # noqa: D102 - inherited
        return _ATOM

    def check(self, encoder: Encoder) -> None:  # noqa: D102 - inherited
        super().check(encoder)
        scheme = graph_scheme(encoder, f"objective {self.name}")
        lacking = [what for what in ("atom", "bond") if getattr(scheme, f"mask_{what}") is None]
        if "atom" in lacking or (self.bonds and lacking):
            raise EncoderError(
                f"objective {self.name} needs a feature scheme with a row for hidden {lacking[0]}s; "
                f"{scheme.name} has none, pgnn2 has one"
            )

    def build(self, encoder: Encoder, reader: TextReader | None, folder: Path | None) -> ObjectiveModule:  # noqa: D102 - inherited
        return MaskingModule(self, encoder.provides()["atom"], graph_scheme(encoder, f"objective {self.name}"))


class MaskingModule(ObjectiveModule):
    """A linear head per hidden kind; classes are the rows before the one for what is hidden."""

    def __init__(self, declaration: Masking, width: int, scheme: GraphScheme) -> None:
        super().__init__()
        if scheme.mask_atom is None:
            raise ValueError(f"scheme {scheme.name} has no row for hidden atoms")
        self.declaration = declaration
        self.hidden_atom = scheme.mask_atom
        self.atom_type = nn.Linear(width, scheme.mask_atom[0])
        if declaration.bonds:
            if scheme.mask_bond is None:
                raise ValueError(f"scheme {scheme.name} has no row for hidden bonds")
            self.hidden_bond = scheme.mask_bond
            of_no_bond = [row[0] for row in (scheme.mask_bond, scheme.self_loop) if row is not None]
            self.bond_type = nn.Linear(width, min(of_no_bond))

    def forward(
        self,
        encoder: EncoderModule,
        batch: MoleculeBatch,
        texts: Mapping[str, Tensor] | None,
        generator: torch.Generator,
    ) -> Losses:
        """See `ObjectiveModule.forward`."""
        atoms, bonds = batch["atom"], batch["bond"]
        hidden = drawn_atoms(atoms.ptr, self.declaration.rate, generator)
        columns = {**batch.columns, "atom": _replaced(atoms, hidden, self.hidden_atom)}
        ends = batch["bond_ends"].values
        hidden_bonds = hidden[ends].any(dim=1)
        if self.declaration.bonds:
            columns["bond"] = _replaced(bonds, hidden_bonds, self.hidden_bond)
        rows = encoder(MoleculeBatch(batch.size, columns), _ATOM)["atom"].values
        losses = {"atom_type": functional.cross_entropy(self.atom_type(rows[hidden]), atoms.values[hidden, 0])}
        if self.declaration.bonds:
            of_ends = rows[ends[hidden_bonds]].sum(dim=1)
            found = functional.cross_entropy(self.bond_type(of_ends), bonds.values[hidden_bonds, 0], reduction="sum")
            losses["bond_type"] = found / max(1, len(of_ends))  # a batch of single atoms has none
        return losses


def drawn_atoms(ptr: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Which atoms are hidden, `(n,)` bool: `int(size * rate + 1)` of each molecule, any such set being as likely.

    Args:
        ptr: `(B + 1,)`; molecule `b` owns the atoms `ptr[b]:ptr[b + 1]`.
        rate: the share.
        generator: on the CPU.
    """
    sizes = (ptr[1:] - ptr[:-1]).cpu()
    molecule = torch.arange(len(sizes)).repeat_interleave(sizes)
    # Sorting by molecule and then at random gives each atom its place in a random order of its molecule.
    order = (molecule + torch.rand(len(molecule), generator=generator, dtype=torch.float64)).argsort()
    place = torch.arange(len(molecule)) - ptr.cpu()[:-1][molecule]
    wanted = (sizes.double() * rate + 1).long()
    hidden = torch.zeros(len(molecule), dtype=torch.bool)
    hidden[order] = place < wanted[molecule]
    return hidden.to(ptr.device)


def _replaced(column: Ragged, chosen: Tensor, features: tuple[int, ...]) -> Ragged:
    values = column.values.clone()
    values[chosen] = torch.tensor(features, dtype=values.dtype, device=values.device)
    return replace(column, values=values)
