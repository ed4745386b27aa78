"""Pretrained weights from files: read without running code, translated by layout, loaded wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from encoders.base import EncoderError, read_state

State = Mapping[str, Tensor]

# What surrounding modules put before the names of an encoder's tensors: PyTorch Lightning and DDP, MolCA, MoleculeSTM,
# HIGHT, InstructMol.
_PREFIXES = ("module.", "model.", "graph_encoder.", "molecule_node_model.", "gnn.", "main_model.")


def load_exactly(module: nn.Module, path: str, translated: Callable[[State], State]) -> None:
    """Puts a checkpoint's tensors into a module: all of them, into all of it.

    Args:
        module: whose tensors are replaced.
        path: a `.safetensors` file that `molgraft pretrain-encoder` wrote, or a published torch file.
        translated: gives a published layout's tensors the names of this module.

    Raises:
        EncoderError: the file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    state: State = read_state(path)
    own = module.state_dict()
    if not state.keys() & own.keys():
        try:
            state = translated(without_prefix(state))
        except EncoderError as error:
            raise EncoderError(f"weights {path}: {error}") from None
    faults = [
        ("lacks", sorted(own.keys() - state.keys())),
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
    found = [f"{what} {_some(names)}" for what, names in faults if names]
    if found:
        raise EncoderError(f"weights {path}: the file {'; it '.join(found)}. Nothing was loaded")
    module.load_state_dict(dict(state))


def without_prefix(state: State) -> State:
    """The tensors under the names that they have without what surrounding modules put before all of them."""
    stripped = dict(state)
    while prefix := next((p for p in _PREFIXES if any(name.startswith(p) for name in stripped)), None):
        # Tensors outside the prefix are heads of the surrounding module; they keep their names and are judged later.
        shorter = {name.removeprefix(prefix): tensor for name, tensor in stripped.items()}
        if len(shorter) < len(stripped):
            raise EncoderError(f"tensors of two networks stand side by side, with and without {prefix!r} before them")
        stripped = shorter
    return stripped


def renamed(state: State, rules: Sequence[tuple[str, str]], dropped: Sequence[str] = ()) -> dict[str, Tensor]:
    """Names with each `(old, new)` replaced in turn, without those that begin with one of `dropped`."""
    result = {}
    for name, tensor in state.items():
        if name.startswith(tuple(dropped)):
            continue
        for old, new in rules:
            name = name.replace(old, new)
        result[name] = tensor
    return result


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def pretrain_gnns(state: State) -> State:
    """The layout of pretrain-gnns and GraphCL (`chem/model.py`), whose task heads are left out.

    Raises:
        EncoderError: it is another layout.
    """
    if "x_embedding1.weight" not in state:
        raise EncoderError(unknown_layout(state, "pretrain-gnns or GraphCL (`x_embedding1.weight`, ...)"))
    rules = [
        ("x_embedding1.", "atom_embeddings.0."),
        ("x_embedding2.", "atom_embeddings.1."),
        (".edge_embedding1.", ".bonds.tables.0."),
        (".edge_embedding2.", ".bonds.tables.1."),
        ("gnns.", "layers."),
        ("batch_norms.", "norms."),
    ]
    heads = ("graph_pred_linear.", "projection_head.", "feat_lin.", "out_lin.", "pool.")
    return {in_layer(name): tensor for name, tensor in renamed(state, rules, heads).items()}


def unknown_layout(state: State, wanted: str) -> str:
    """What to say of a file of another layout."""
    return f"the file's layout is not known to this encoder; it begins with {next(iter(state))}. Readable: {wanted}"


def in_layer(name: str) -> str:
    """`layers.2.mlp.0.bias` is in the layer's convolution, and `norms.2.bias` beside it: their names in our modules."""
    kind, _, rest = name.partition(".")
    number, _, inside = rest.partition(".")
    if kind == "layers":
        return f"layers.{number}.convolution.{inside}"
    if kind == "norms":
        return f"layers.{number}.norm.{inside}"
    return name
