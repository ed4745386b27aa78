"""Predict the product of a reaction (USPTO-MIT; the forward task of Mol-Instructions, InstructMol, LLaMo and M3LLM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tasks.base import TaskError, slot
from tasks.reactions import Placed, Reaction, ReactionTask


@dataclass(frozen=True, kw_only=True)
class Forward(ReactionTask):
    """Reactants and reagents in, product out.

    Args:
        data: a data set with the columns `reactants` and `product`, and `reagents` where it knows them.
        question: the user's turn, or the name of a template; `{reactants}` is where the left side stands. In parts,
            `{first.graph}` is the graph of the first molecule alone, as InstructMol reads it, and `{others.text}` are
            the others with commas between.
        reagents: `mixed` among the reactants in the order of their SMILES, so that no position tells which is which;
            `separated` behind a `>`, which is easier (both are settings of USPTO-MIT since Schwaller et al. 2018);
            `as-given` behind the reactants in the order of the file, as InstructMol reads Mol-Instructions; or
            `left-out`.
    """

    name: ClassVar[str] = "forward"
    columns: ClassVar[tuple[str, ...]] = ("reactants", "product")
    placeholder: ClassVar[str] = "reactants"
    parted: ClassVar[tuple[str, ...]] = ("reactants", "first", "others")

    question: str = "{reactants}\nWhat is the product of this reaction?"
    reagents: Literal["mixed", "separated", "as-given", "left-out"] = "mixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.molecules == "joined" and self._question().holds("first", "others"):
            raise TaskError(
                f"task.question is {self.question!r}, which has a place for the first molecule, and task.molecules is "
                "'joined', which makes one of all; use molecules: each"
            )

    def ask(self, reaction: Reaction, placed: Placed) -> tuple[Mapping[str, str], tuple[str, ...]]:  # noqa: D102 - inherited
        if self.reagents == "mixed":
            left = placed.side(sorted([*reaction.reactants, *reaction.reagents]))
        elif self.reagents == "as-given":
            left = placed.side([*reaction.reactants, *reaction.reagents])
        else:
            left = placed.side(reaction.reactants)
        if self.reagents == "separated":
            left += ">" + placed.side(reaction.reagents)
        first, *others = (slot(index) for index in range(len(placed.molecules)))
        return {"reactants": left, "first": first, "others": ",".join(others)}, reaction.product
