"""MolCA's checkpoints of all stages (acharkq/MolCA, `stage1.py`, `stage2.py`, `model/blip2_stage2.py`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.config_types import Rate
from bench.released.adapted_llm import place_language_model, read_adapter
from bench.released.base import Reading, ReleasedWeights, existing
from bench.released.ledger import Ledger, renamed_by
from bench.released.parts import declared, expect_settings, place_graph_encoder
from bench.released.torch_files import State, read_torch
from encoders.base import CONTENT, EncoderError
from encoders.gin import Gin
from projectors.qformer import QFormer
from projectors.qformer_weights import for_projector, translate

if TYPE_CHECKING:
    from bench.model import GraphLanguageModel

_STAGE_1, _STAGE_2 = "blip2qformer.", "blip2opt."
_LANGUAGE_MODELS = ("blip2opt.opt_model.", "blip2opt.llm_model.")
_TEXT = (
    r"blip2(opt|qformer)\.Qformer\.(cls\..*|bert\.embeddings\.(position_ids|(word|position)_embeddings\.weight)"
    r"|bert\.encoder\.layer\.\d+\.(intermediate\.dense|output\.dense|output\.LayerNorm)\..*)"
)


@dataclass(frozen=True, kw_only=True)
class MolCa(ReleasedWeights):
    """A Lightning checkpoint of stage 2 or of fine-tuning, or one of stage 1, which knows no language model.

    From stage 2 on only parameters that train are kept (`blip2_stage2.py`, `on_save_checkpoint`): no batch norm
    statistics, and nothing of a frozen encoder. Their code leaves these as in `graphcl_80.pth`, and here they come from
    `encoder.weights`. A checkpoint of stage 1 leaves the map into the language model as it was drawn.

    Args:
        adapter: the folder of adapters beside the checkpoint, such as the released `chebi_lora` of `chebi.ckpt`; None
            where the checkpoint holds them itself, or none.
        alpha: scale of adapters in a checkpoint, which no tensor shows; 32 in `blip2_opt.py` and `lora_config.json`. A
            folder says its own.
    """

    name: ClassVar[str] = "molca"

    adapter: str | None = field(default=None, metadata=CONTENT)
    alpha: Rate = 32.0

    def sources(self) -> tuple[str, ...]:  # noqa: D102 - inherited
        beside = () if self.adapter is None else (existing(self.adapter, "released.adapter"),)
        return (*super().sources(), *beside)

    def tensors(self) -> State:  # noqa: D102 - inherited
        return self._read()[0]

    def account(self, model: GraphLanguageModel) -> Reading:  # noqa: D102 - inherited
        tensors, alpha = self._read()
        ledger = Ledger(self.name, self.path, tensors, model)
        ledger.expect(_STAGE_2, _STAGE_1)
        encoder = declared(ledger, model.encoder, Gin, "encoder")
        projector = declared(ledger, model.projector, QFormer, "projector")
        settings: dict[str, object] = {"prepend_graph_token": True}
        if projector.hidden_size == 768:  # SciBERT; the number of heads shows in no tensor
            settings["num_attention_heads"] = 12
        expect_settings(ledger, projector, "projector", **settings)
        graph = ledger.under(f"{_STAGE_2}graph_encoder.", f"{_STAGE_1}graph_encoder.")
        needed = place_graph_encoder(ledger, encoder, graph, "encoder.", "gin_pretrained/graphcl_80.pth")
        needed |= _place_projector(ledger)
        beside = ledger.under("adapter: base_model.model.")
        needed |= place_language_model(ledger, {**ledger.under(*_LANGUAGE_MODELS), **beside}, alpha)
        return ledger.reading(needed)

    def _read(self) -> tuple[State, float]:
        """The tensors, those of a folder of adapters under names that begin with `adapter: `, and the alpha."""
        tensors = read_torch(Path(self.path).expanduser(), "released.path", "state_dict")
        if self.adapter is None:
            return tensors, self.alpha
        adapter, alpha = read_adapter(self.adapter, "released.adapter")
        return {**tensors, **{f"adapter: {name}": tensor for name, tensor in adapter.items()}}, alpha


def _place_projector(ledger: Ledger) -> set[str]:
    """Places queries, norm, Q-Former and the map into the language model; gives the names that must be found."""
    is_stage_2 = any(name.startswith(_STAGE_2) for name in ledger.tensors)
    ledger.ignore_like(_TEXT, "reads text, which a projector does not")
    ledger.ignore_like(r"blip2qformer\.(graph_proj|text_proj|gtm_head)\..*", "heads of stage 1's losses")
    parts = ("Qformer.", "query_tokens", "ln_graph.")
    names = {
        name.removeprefix(start): name
        for start in (_STAGE_2, _STAGE_1)
        for name in ledger.under(start).values()
        if name.removeprefix(start).startswith(parts)
    }
    try:
        moved = renamed_by(names, lambda state: for_projector(translate(state, ledger.path)[1]))
    except EncoderError:
        first = next(iter(names), "nothing")
        raise ledger.refusal(f"holds no Q-Former; of its projector there is {first}") from None
    ledger.place({names[old]: f"projector.{new}" for old, new in moved.items()})
    maps = ledger.under("blip2opt.opt_proj.", "blip2opt.llm_proj.")
    ledger.place({whole: f"projector.project.{name}" for name, whole in maps.items()})
    promised = ledger.names("projector.")
    return promised if is_stage_2 else promised - ledger.names("projector.project.")
