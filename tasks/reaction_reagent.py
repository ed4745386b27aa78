"""Predict the reagents of a reaction (the reagent task of Mol-Instructions, InstructMol and M3LLM)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.reactions import NothingToAsk, Placed, Reaction, ReactionTask


@dataclass(frozen=True, kw_only=True)
class Reagent(ReactionTask):
    """Reactants and product in, written as `reactants>>product`; reagents out.

    Args:
        data: a data set with the columns `reactants`, `reagents` and `product`; rows without reagents are left out.
        question: the user's turn, or the name of a template; `{reaction}` is where the reaction stands. In parts,
            `{reactants.graph}` or `{product.text}` are one side of it.
    """

    name: ClassVar[str] = "reagent"
    columns: ClassVar[tuple[str, ...]] = ("reactants", "reagents", "product")
    placeholder: ClassVar[str] = "reaction"
    parted: ClassVar[tuple[str, ...]] = ("reaction", "reactants", "product")

    question: str = "{reaction}\nWhich reagents does this reaction need?"

    def ask(self, reaction: Reaction, placed: Placed) -> tuple[Mapping[str, str], tuple[str, ...]]:  # noqa: D102 - inherited
        if not reaction.reagents:
            raise NothingToAsk("the reaction has no reagents")
        left, right = placed.side(reaction.reactants), placed.side(reaction.product)
        return {"reaction": f"{left}>>{right}", "reactants": left, "product": right}, reaction.reagents
