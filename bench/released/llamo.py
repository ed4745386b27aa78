"""LLaMo's checkpoints of both stages (mlvlab/LLaMo, `pipeline/trainer/stage.py`, `train.py`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.config_types import Rate
from bench.released.adapted_llm import place_language_model
from bench.released.base import Reading, ReleasedWeights
from bench.released.ledger import Ledger
from bench.released.parts import declared, expect_settings, place_graph_encoder
from bench.released.torch_files import State, read_torch
from encoders.moleculestm import MoleculeStm
from projectors.multilevel import Multilevel

if TYPE_CHECKING:
    from bench.model import GraphLanguageModel

# `llamo/projectors.py:87-114`; `cross_attention` is below.
_PROJECTOR = {
    "motif_query_tokens": "motif_query_tokens",
    "query_tokens": "query_tokens",
    "motif_weight.": "motif_map.",
    "motif_cross_attention.": "motif_attention.",
    "layer_norm.": "norm.",
    "net.": "mlp.",
}


@dataclass(frozen=True, kw_only=True)
class Llamo(ReleasedWeights):
    """A Lightning checkpoint with all of the model: encoder, projector, language model and, after stage 2, adapters.

    The six copies of the shared cross-attention must be equal, unless `projector.attention` is `per_layer`. Of `<pad>`,
    which is added to the tokenizer there, the embedding is not used: no prompt here reads it. The norm
    `ln_graph_model`, whose output nothing reads (`modeling_llamo.py`, `forward_and_project_graph`), is left out.

    Args:
        alpha: scale of the adapters, which no tensor shows; 32 in `modeling_llamo.py` (its command line's is ignored).
    """

    name: ClassVar[str] = "llamo"

    alpha: Rate = 32.0

    def tensors(self) -> State:  # noqa: D102 - inherited
        return read_torch(Path(self.path).expanduser(), "released.path", "state_dict")

    def account(self, model: GraphLanguageModel) -> Reading:  # noqa: D102 - inherited
        ledger = Ledger(self.name, self.path, self.tensors(), model)
        ledger.expect("mllm.")
        encoder = declared(ledger, model.encoder, MoleculeStm, "encoder")
        projector = declared(ledger, model.projector, Multilevel, "projector")
        expect_settings(ledger, encoder, "encoder", messages="bonds")
        expect_settings(ledger, projector, "projector", heads=4, activation="silu")
        graph = ledger.under("mllm.graph_model.molecule_node_model.")
        needed = place_graph_encoder(ledger, encoder, graph, "encoder.", "MoleculeSTM's molecule_model.pth")
        ledger.ignore_like(r"mllm\.ln_graph_model\.(weight|bias)", "a norm whose output nothing reads")
        _place_projector(ledger, projector)
        needed |= ledger.names("projector.")
        needed |= place_language_model(ledger, ledger.under("mllm.language_model."), self.alpha)
        return ledger.reading(needed)


def _place_projector(ledger: Ledger, projector: Multilevel) -> None:
    names = {}
    for inside, whole in ledger.under("mllm.abstractor.").items():
        if found := re.fullmatch(r"cross_attention\.(\d+)\.(.+)", inside):
            layer = "0" if projector.attention == "shared" else found[1]
            names[whole] = f"projector.attentions.{layer}.{found[2]}"
        elif start := next((old for old in _PROJECTOR if inside.startswith(old)), None):
            names[whole] = f"projector.{_PROJECTOR[start]}{inside.removeprefix(start)}"
    ledger.place(names)
