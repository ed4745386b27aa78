"""Pretrained Q-Formers: the names of published layouts translated, and tensors put in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from encoders.base import EncoderError

State = Mapping[str, Tensor]
Layout = Literal["own", "molca", "bert"]

_OBJECTIVE = "pretraining."  # before all names in the file of a pretraining with objective `qformer`

# LAVIS and BERT call the attention itself `self`, the library's classes `attention`. Published files of 2018 to 2020
# still have the names that TensorFlow gave a LayerNorm's weight and bias.
_NAMES = (
    ("crossattention.self.", "crossattention.attention."),
    ("attention.self.", "attention.attention."),
    ("LayerNorm.gamma", "LayerNorm.weight"),
    ("LayerNorm.beta", "LayerNorm.bias"),
    ("embeddings.LayerNorm.", "embeddings.layernorm."),
)


def translate(state: State, path: str) -> tuple[Layout, dict[str, Tensor]]:
    """The layout of a file, and its tensors under the names of `QFormerPretraining`.

    `own` is what `export_projector_state` or a whole pretraining module gives. `molca` is a checkpoint of MolCA,
    3D-MoLM or BLIP-2 with LAVIS's names (`Qformer.bert.*`, `query_tokens`, `ln_graph.*`), under whatever module they
    lie. `bert` is a BERT, whose feed-forward layers serve text and queries alike, as `blip2qformer.py:184-187` copies
    them, and whose pooler is left out.

    Raises:
        EncoderError: it is none of them.
    """
    if any(name.startswith(_OBJECTIVE) for name in state):
        state = {name.removeprefix(_OBJECTIVE): tensor for name, tensor in state.items()}
    if any(name.startswith("qformer.") for name in state):
        return "own", dict(state)
    if cross := next((name for name in state if ".crossattention.self." in name), None):
        return "molca", _from_molca(state, cross)
    if any(name.endswith("encoder.layer.0.attention.self.query.weight") for name in state):
        return "bert", _from_bert(state)
    raise EncoderError(
        f"weights {path}: the file's layout is not known to this projector; it begins with {next(iter(state))}. "
        "Readable: `export_projector_state` of a pretrained Q-Former, MolCA's checkpoints, or a BERT"
    )


def for_projector(state: State) -> dict[str, Tensor]:
    """Of a pretraining module's tensors those of the projector: queries, the norm of rows, the Q-Former without text.

    `qformer.embeddings.layernorm` is the projector's `qformer.layernorm`: there is nothing else that is embedded.
    """
    kept = {}
    for name, tensor in state.items():
        name = name.replace("qformer.embeddings.layernorm.", "qformer.layernorm.")
        is_text = ".intermediate.dense." in name or (".output." in name and "attention.output." not in name)
        is_read = name == "query_tokens" or name.startswith(("norm.", "qformer.layernorm.", "qformer.encoder."))
        if is_read and not is_text:
            kept[name] = tensor
    return kept


def put(module: nn.Module, state: State, path: str, fresh: Sequence[str]) -> None:
    """Puts tensors into a module: all of them, into all of it but what lies in a part named in `fresh`.

    Raises:
        EncoderError: a tensor is missing, unexpected or of another shape; nothing is then loaded.
    """
    own = module.state_dict()
    wanted = {name for name in own if not set(fresh) & set(name.split("."))}
    faults = [
        ("lacks", sorted(wanted - state.keys())),
        ("also holds", sorted(state.keys() - own.keys())),
        (
            "has another shape for",
            [
                f"{name}: {tuple(tensor.shape)} where {tuple(own[name].shape)} is needed"
                for name, tensor in state.items()
                if name in own and tensor.shape != own[name].shape
            ],
        ),
    ]
    found = [
        f"{what} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        for what, names in faults
        if names
    ]
    if found:
        raise EncoderError(f"weights {path}: the file {'; it '.join(found)}. Nothing was loaded")
    module.load_state_dict(dict(state), strict=False)


def _from_molca(state: State, cross: str) -> dict[str, Tensor]:
    """MolCA's tensors; heads that other objectives put beside them are left out."""
    bert = cross[: cross.index("encoder.layer.")]
    root = bert.removesuffix("bert.").removesuffix("Qformer.")
    found = _renamed({name.removeprefix(bert): tensor for name, tensor in state.items() if name.startswith(bert)})
    found |= _head(state, bert.removesuffix("bert."))
    beside = {"query_tokens": "query_tokens", "ln_graph.": "norm.", "graph_proj.": "graph_proj."}
    beside |= {"text_proj.": "text_proj.", "gtm_head.": "gtm_head."}
    for name, tensor in state.items():
        own = name.removeprefix(root)
        if name.startswith(root) and (start := next((old for old in beside if own.startswith(old)), None)):
            found[beside[start] + own.removeprefix(start)] = tensor
    return found


def _from_bert(state: State) -> dict[str, Tensor]:
    first = next(name for name in state if name.endswith("encoder.layer.0.attention.self.query.weight"))
    bert = first.removesuffix("encoder.layer.0.attention.self.query.weight")
    own = {name.removeprefix(bert): tensor for name, tensor in state.items() if name.startswith(bert)}
    embedded = next((own[name] for name in own if name.endswith("token_type_embeddings.weight")), None)
    found = _renamed(own)
    if embedded is not None and "qformer.embeddings.position_embeddings.weight" in found:
        # BERT adds it to every token, a Q-Former has no such table.
        found["qformer.embeddings.position_embeddings.weight"] += embedded[0]
    for name in [name for name in found if name.startswith("qformer.encoder.")]:
        copied = name.replace(".intermediate.dense.", ".intermediate_query.dense.")
        if "attention.output." not in name:
            copied = copied.replace(".output.", ".output_query.")
        found.setdefault(copied, found[name])
    return found | _head(state, bert.removesuffix("bert."))


def _renamed(state: State) -> dict[str, Tensor]:
    """A BERT's layers and embeddings; pooler and token types are left out, positions are counted and not kept."""
    found = {}
    for name, tensor in state.items():
        for old, new in _NAMES:
            name = name.replace(old, new)
        if name.startswith(("encoder.layer.", "embeddings.")) and not name.endswith(
            ("position_ids", "token_type_embeddings.weight")
        ):
            found[f"qformer.{name}"] = tensor.clone()
    return found


def _head(state: State, root: str) -> dict[str, Tensor]:
    """The language modelling head; its decoder is the table of word embeddings, so that only its bias is of its own."""
    start = f"{root}cls.predictions."
    inside = {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}
    found = {}
    for name, tensor in inside.items():
        for old, new in _NAMES:
            name = name.replace(old, new)
        if name.startswith("transform."):
            found[name.replace("transform.LayerNorm.", "lm_norm.").replace("transform.dense.", "lm_dense.")] = tensor
    bias = inside.get("bias", inside.get("decoder.bias"))
    return found if bias is None else {**found, "lm_bias": bias}
