"""A model that can be asked, and what stands in the place of each molecule's graph when it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.collate import Collator
from bench.layout import Layout
from bench.model import GraphLanguageModel
from encoders.base import GraphInput, MoleculeBatch
from encoders.store import FeatureStore
from tasks.base import Example

Sizes = Callable[[Sequence[str]], Sequence[int]]
"""The sizes of molecules, by which substitutes of equal size are found."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model that can be asked, with what turns examples into its input.

    Args:
        sample: some training molecules, for graph inputs that match their moments; None where no graph is read.
    """

    model: GraphLanguageModel
    layout: Layout
    collator: Collator
    sample: MoleculeBatch | None = None

    def fits(self, tokens: int) -> bool:
        """Whether a sequence is within the context that the language model was made for."""
        context = getattr(self.model.llm.config, "max_position_embeddings", None)
        return context is None or tokens <= int(context)  # type: ignore[call-overload]


def substitutes(graph_input: GraphInput, examples: Sequence[Example], sizes: Sizes, seed: int) -> Mapping[str, str]:
    """The molecule whose graph is read in the place of each one of these examples' molecules."""
    molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
    return dict(zip(molecules, graph_input.substitute(molecules, sizes(molecules), seed), strict=True))


def atoms_of(store: FeatureStore) -> Sizes:
    """The number of atoms of molecules."""
    return lambda molecules: store.sizes(molecules).tolist()
