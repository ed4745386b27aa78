"""Shapes of published language models over SMILES: enough to count them, and to make them at random, without files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from encoders.smiles_tokens import BEGIN, END, PAD

# Its layer sizes give the 3,427,440 parameters with which MolX's shares of trained parameters (0.53 % and 0.82 %) come
# out, its pooler of 147,840 included.
_CHEMBERTA: Mapping[str, Any] = {
    "model_type": "roberta",
    "vocab_size": 600,
    "hidden_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 12,
    "intermediate_size": 464,
    "max_position_embeddings": 515,
    "type_vocab_size": 1,
    "hidden_dropout_prob": 0.144,
    "attention_probs_dropout_prob": 0.109,
    "bos_token_id": BEGIN,
    "pad_token_id": PAD,
    "eos_token_id": END,
}

KNOWN_SHAPES: Mapping[str, Mapping[str, Any]] = {
    "DeepChem/ChemBERTa-10M-MTR": _CHEMBERTA,
    "DeepChem/ChemBERTa-77M-MTR": _CHEMBERTA,
    "DeepChem/ChemBERTa-77M-MLM": _CHEMBERTA,
}
"""Arguments of the configuration class of `model_type`, by name on the hub."""


def known_configuration(model: str) -> Any:
    """The configuration of a known shape, whatever the revision, or None."""
    from transformers import AutoConfig

    settings = dict(KNOWN_SHAPES.get(model.partition("@")[0], {}))
    return AutoConfig.for_model(settings.pop("model_type"), **settings) if settings else None
