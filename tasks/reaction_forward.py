"""Predict the product of a reaction (USPTO-MIT; the forward task of Mol-Instructions, InstructMol, LLaMo and M3LLM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tasks.reactions import Placed, Reaction, ReactionTask


@dataclass(frozen=True, kw_only=True)
class Forward(ReactionTask):
    """Reactants and reagents in, product out.

    Args:
        data: a data set with the columns `reactants` and `product`, and `reagents` where it knows them.
        question: the user's turn, or the name of a template; `{reactants}` is where the left side stands.
        reagents: `mixed` among the reactants in the order of their SMILES, so that no position tells which is which;
            `separated` behind a `>`, which is easier (both are settings of USPTO-MIT since Schwaller et al. 2018); or
            `left-out`.
    """

    name: ClassVar[str] = "forward"
    columns: ClassVar[tuple[str, ...]] = ("reactants", "product")
    placeholder: ClassVar[str] = "reactants"

    question: str = "{reactants}\nWhat is the product of this reaction?"
    reagents: Literal["mixed", "separated", "left-out"] = "mixed"

    def ask(self, reaction: Reaction, placed: Placed) -> tuple[Mapping[str, str], tuple[str, ...]]:  # noqa: D102 - inherited
        if self.reagents == "mixed":
            left = placed.side(sorted([*reaction.reactants, *reaction.reagents]))
        else:
            left = placed.side(reaction.reactants)
        if self.reagents == "separated":
            left += ">" + placed.side(reaction.reagents)
        return {"reactants": left}, reaction.product
