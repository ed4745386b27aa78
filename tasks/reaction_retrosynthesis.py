"""Predict the reactants that give a product (USPTO-50K; a task of Mol-Instructions, InstructMol, LLaMo and MolX)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tasks.reactions import Placed, Reaction, ReactionTask, Unusable

CLASSES: Mapping[str, str] = {
    "1": "heteroatom alkylation or arylation",
    "2": "acylation or a related process",
    "3": "C-C bond formation",
    "4": "heterocycle formation",
    "5": "protection",
    "6": "deprotection",
    "7": "reduction",
    "8": "oxidation",
    "9": "functional group interconversion",
    "10": "functional group addition",
}
"""The ten classes of USPTO-50K in words (Schneider et al., J. Med. Chem. 2016; numbered as by Liu et al. 2017)."""


@dataclass(frozen=True, kw_only=True)
class Retrosynthesis(ReactionTask):
    """Product in, reactants out; reagents are not asked for.

    Args:
        data: a data set with the columns `product` and `reactants`, and `class` where the question names it.
        question: the user's turn, or the name of a template; `{product}` is where the product stands, `{class}`, if
            anywhere, where the class of the reaction stands in words. Scores with the class known and unknown are
            listed apart in the literature.
    """

    name: ClassVar[str] = "retrosynthesis"
    columns: ClassVar[tuple[str, ...]] = ("product", "reactants")
    placeholder: ClassVar[str] = "product"
    further: ClassVar[tuple[str, ...]] = ("class",)
    parted: ClassVar[tuple[str, ...]] = ("product",)

    question: str = "{product}\nWhich reactants can this product be made from?"

    def ask(self, reaction: Reaction, placed: Placed) -> tuple[Mapping[str, str], tuple[str, ...]]:  # noqa: D102 - inherited
        known = reaction.row.values.get("class", "").strip()
        if "{class}" in self.question and not known:
            raise Unusable("the class is empty")
        return {"product": placed.side(reaction.product), "class": CLASSES.get(known, known)}, reaction.reactants
