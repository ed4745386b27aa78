"""MolX's checkpoints (lhkhiem28/MolX, `source/utils/help_funcs.py`, `_save_checkpoint`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from bench.config_types import Rate
from bench.errors import ConfigError
from bench.released.adapted_llm import place_language_model
from bench.released.base import Reading, ReleasedWeights
from bench.released.ledger import Ledger
from bench.released.parts import declared, expect_settings, place_graph_encoder
from bench.released.torch_files import State, read_torch
from encoders.molx import MolX
from projectors.fusion import Fusion

if TYPE_CHECKING:
    from torch import Tensor

    from bench.model import GraphLanguageModel


@dataclass(frozen=True, kw_only=True)
class MolXWeights(ReleasedWeights):
    """What trains, and all buffers: both towers, the three MLPs, the shared vectors and, after tuning, adapters.

    The file also holds the language model's token embeddings, since they are reachable under a second name there; they
    are frozen, and must be those of the run's language model.

    Args:
        alpha: scale of the adapters, which no tensor shows; 32 in `molx_llm.py`.
    """

    name: ClassVar[str] = "molx"

    alpha: Rate = 32.0

    def tensors(self) -> State:  # noqa: D102 - inherited
        return read_torch(Path(self.path).expanduser(), "released.path", "model")

    def account(self, model: GraphLanguageModel) -> Reading:  # noqa: D102 - inherited
        ledger = Ledger(self.name, self.path, self.tensors(), model)
        ledger.expect("smiles_projector.", "fingerprint_projector.")
        encoder = declared(ledger, model.encoder, MolX, "encoder")
        projector = declared(ledger, model.projector, Fusion, "projector")
        expect_settings(ledger, projector, "projector", fusion="mean_of_means")
        if encoder.smiles is None or encoder.graph is None or len(projector.levels) < 3:
            raise ledger.unfit("projector.levels", "leaves out a view that MolX has; SMILES, graph and fingerprint")
        tower = _read_of_smiles(ledger).items()
        ledger.place({whole: f"encoder.towers.smiles.model.{name}" for name, whole in tower})
        graph, start = ledger.under("graph_encoder."), "encoder.towers.graph."
        needed = ledger.names("encoder.towers.smiles.") | ledger.names("projector.")
        needed |= place_graph_encoder(ledger, encoder.graph, graph, start, "the tower's weights")
        for view in ("smiles", "graph", "fingerprint"):
            maps = ledger.under(f"{view}_projector.")
            ledger.place({whole: f"projector.project.{view}.{name}" for name, whole in maps.items()})
        ledger.place({"xprompt": "projector.prompt"} if "xprompt" in ledger.tensors else {})
        _ignore_embeddings(ledger)
        needed |= place_language_model(ledger, ledger.under("model."), self.alpha)
        return ledger.reading(needed)

    def read(self, model: GraphLanguageModel) -> Mapping[str, Tensor]:  # noqa: D102 - inherited
        given = super().read(model)
        _check_embeddings(Ledger(self.name, self.path, self.tensors(), model))
        return given


def _read_of_smiles(ledger: Ledger) -> dict[str, str]:
    """The tensors of the SMILES tower; its pooler only where the run's tower keeps it too."""
    if not ledger.names("encoder.towers.smiles.model.pooler."):
        ledger.ignore_like(r"smiles_encoder\.pooler\..*", "a head on the first token, which nothing reads")
    ledger.ignore_like(r"smiles_encoder\.embeddings\.(position_ids|token_type_ids)", "counted, and not learned")
    return ledger.under("smiles_encoder.")


def _ignore_embeddings(ledger: Ledger) -> None:
    """Leaves the token embeddings out, which `read` compares.

    Raises:
        ConfigError: the run's have another shape.
    """
    for name in ledger.under("word_embedding.").values():
        if ledger.tensors[name].shape != ledger.model.token_embedding.weight.shape:
            raise _of_another_model(ledger)
        ledger.ignore([name], "the language model's token embeddings, equal to the run's")


def _check_embeddings(ledger: Ledger) -> None:
    """Refuses a file that was trained for another language model than the run's.

    Raises:
        ConfigError: its token embeddings are others.
    """
    own = ledger.model.token_embedding.weight
    for name in ledger.under("word_embedding.").values():
        found = ledger.tensors[name]
        if (
            found.shape == own.shape
            and not own.is_meta
            and not torch.equal(_as(found, own), _as(own.to(found.dtype), own))
        ):
            raise _of_another_model(ledger)


def _of_another_model(ledger: Ledger) -> ConfigError:
    return ledger.unfit("llm.name", "is another language model than the file's, whose token embeddings differ")


def _as(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return tensor.to(other.device, other.dtype)
