"""InstructMol's files of both stages, as LLaVA's training code writes them (IDEA-XL/InstructMol, `train_drug.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from bench.errors import ConfigError
from bench.released.adapted_llm import place_language_model, read_adapter
from bench.released.base import Reading, ReleasedWeights
from bench.released.ledger import Ledger
from bench.released.parts import declared, expect_settings, place_graph_encoder
from bench.released.torch_files import State, read_torch
from encoders.moleculestm import MoleculeStm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.model import GraphLanguageModel

_TRAINED, _PROJECTOR_ONLY = "non_lora_trainables.bin", "mm_projector.bin"
_STARTS = ("base_model.model.model.", "model.")
"""Before a name, with adapters and without."""

_ENCODER_WEIGHTS = "MoleculeSTM's molecule_model.pth, which InstructMol keeps frozen"


@dataclass(frozen=True, kw_only=True)
class InstructMol(ReleasedWeights):
    """Stage 1: `mm_projector.bin`, the projector. Stage 2: a folder with `non_lora_trainables.bin` and an adapter.

    The former of these two holds the parameters of the frozen graph tower too, rounded to the type it was trained in,
    and no batch norm statistics. Both come from `encoder.weights`, whose parameters must be those of the file but for
    rounding; what is loaded are the file's, as there (`llava/model/builder.py`).

    Args:
        path: the folder, or the file of stage 1 under whatever name.
    """

    name: ClassVar[str] = "instructmol"

    def tensors(self) -> State:  # noqa: D102 - inherited
        return self._read()[0]

    def account(self, model: GraphLanguageModel) -> Reading:  # noqa: D102 - inherited
        tensors, alpha = self._read()
        ledger = Ledger(self.name, self.path, tensors, model)
        ledger.expect(*(f"{start}mm_projector." for start in reversed(_STARTS)))
        encoder = declared(ledger, model.encoder, MoleculeStm, "encoder")
        expect_settings(ledger, encoder, "encoder", messages="bonds")
        _place_projector(ledger)
        graph = ledger.under(*(f"{start}graph_tower.molecule_node_model." for start in _STARTS))
        needed = place_graph_encoder(ledger, encoder, graph, "encoder.", _ENCODER_WEIGHTS)
        needed |= ledger.names("projector.")
        needed |= place_language_model(ledger, ledger.under("base_model.model."), alpha)
        return ledger.reading(needed)

    def read(self, model: GraphLanguageModel) -> Mapping[str, Tensor]:  # noqa: D102 - inherited
        given = super().read(model)
        encoder = getattr(model.encoder, "declaration", None)
        if isinstance(encoder, MoleculeStm) and encoder.weights is not None:
            _check_frozen(Ledger(self.name, self.path, given, model))
        return given

    def _read(self) -> tuple[State, float]:
        """The tensors, and the alpha of adapters."""
        place, setting = Path(self.path).expanduser(), "released.path"
        if place.is_dir() and (place / _TRAINED).is_file():
            adapter, alpha = read_adapter(self.path, setting)
            return {**read_torch(place / _TRAINED, setting), **adapter}, alpha
        found = read_torch(place / _PROJECTOR_ONLY if place.is_dir() else place, setting)
        if place.is_file() and any(name.startswith(_STARTS[0]) for name in found):
            message = f"{self.path}: belongs to a model with adapters; give the folder, in which they are too"
            raise ConfigError(setting, message)
        return found, 0.0


def _place_projector(ledger: Ledger) -> None:
    """`weight` and `bias` of a linear map, or of every second layer of an MLP (`multimodal_projector/builder.py`)."""
    names = ledger.under(*(f"{start}mm_projector." for start in _STARTS))
    is_linear = names.keys() == {"weight", "bias"}
    part = "linear" if is_linear else "mlp"
    if not ledger.names(f"projector.{part}."):
        depth = len({name.partition(".")[0] for name in names})
        wanted = "{name: linear, level: atom}" if is_linear else f"{{name: mlp, level: atom, depth: {depth}}}"
        raise ledger.unfit("projector", f"is another one than the file's; set projector='{wanted}'")
    module = getattr(ledger.model.projector, part)
    between = [layer for layer in module if not isinstance(layer, nn.Linear)] if not is_linear else []
    if any(not isinstance(layer, nn.GELU) for layer in between):
        raise ledger.unfit("projector.activation", "is another one than gelu, which InstructMol has")
    ledger.place({whole: f"projector.{part}.{name}" for name, whole in names.items()})


def _check_frozen(ledger: Ledger) -> None:
    """Refuses statistics that come from another network than the file's parameters.

    Args:
        ledger: the file's tensors under the model's names, and the model as it was before they are loaded.

    Raises:
        ConfigError: parameters differ by more than rounding to bfloat16 explains.
    """
    for name, tensor in ledger.tensors.items():
        own = ledger.own[name]
        if own.is_meta or not name.startswith("encoder.") or not own.is_floating_point():
            continue
        if not torch.allclose(tensor.float(), own.float(), rtol=2**-7, atol=1e-6):
            raise ledger.unfit(
                "encoder.weights",
                f"is another network than the file's frozen one, {name} differs; name {_ENCODER_WEIGHTS}",
            )
