"""Language models over SMILES as encoders: a small one that starts at random, or any encoder of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from encoders.base import (
    CONTENT,
    Counts,
    Encoder,
    EncoderError,
    EncoderModule,
    FeatureScheme,
    Level,
    MoleculeBatch,
    MoleculeEncoding,
    Ragged,
)
from encoders.smiles_shapes import KNOWN_SHAPES, known_configuration
from encoders.smiles_tokens import BEGIN, END, PAD, SMALL, VOCABULARY, SmilesTokens, place, readable, tokenizer_of


@dataclass(frozen=True, kw_only=True)
class SmallSmiles:
    """A RoBERTa that starts at random; its MLP is four times as wide as its rows.

    Args:
        width: hidden width.
        layers: transformer blocks.
        heads: attention heads.
        dropout: of hidden rows and of attention; 0.1 in RoBERTa.
    """

    width: Annotated[int, Ge(1)] = 128
    layers: Annotated[int, Ge(1)] = 2
    heads: Annotated[int, Ge(1)] = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise EncoderError(f"small SMILES encoder: `width` {self.width} is no multiple of `heads` {self.heads}")


@dataclass(frozen=True, kw_only=True)
class Smiles(Encoder):
    """A transformer over the tokens of a SMILES as it is written; MolX takes `DeepChem/ChemBERTa-10M-MTR`.

    Provides `smiles`. A pooler head on the first token is left out; the level is made of the last layer's rows.

    Args:
        model: `small`, a local folder, or `owner/name` or `owner/name@revision` of a model hub; tokenizer and weights.
        pool: one row per molecule: the mean over its own tokens, special ones included (`mean`); the mean over all
            positions up to the longest SMILES of the batch, padding included, as MolX's code (`mean_unmasked`,
            `models/molx_llm.py`, `encode_mol`); the first token's row (`first`). Or one row per token, special ones
            included (`none`).
        max_length: most tokens, special ones included; 512 in MolX.
        truncate: whether longer SMILES are cut, as in MolX's code; else they are rejected.
        recipe: the shape of `small`; no other model reads it.
        pooler: whether the pooler head, which nothing reads, is kept; MolX's code keeps it, and its count of trained
            parameters (0.53 %) includes it.
        weights: `random` makes a model of known shape with random weights, over the tokens of `small`, for measurements
            where its files are not at hand.
    """

    name: ClassVar[str] = "smiles"

    model: str = field(default=SMALL, metadata=CONTENT)
    pool: Literal["mean", "mean_unmasked", "first", "none"] = "mean"
    max_length: Annotated[int, Ge(3)] = 512
    truncate: bool = False
    recipe: SmallSmiles = field(default_factory=SmallSmiles)
    pooler: bool = field(default=False, metadata={"neutral": False})
    weights: Literal["pretrained", "random"] = field(default="pretrained", metadata={"neutral": "pretrained"})

    def __post_init__(self) -> None:
        if self.weights == "random" and known_configuration(self.model) is None:
            raise EncoderError(
                f"SMILES encoder {self.model}: `weights: random` needs a known shape: {', '.join(KNOWN_SHAPES)}"
            )

    @classmethod
    def small(cls) -> Self:  # noqa: D102 - inherited
        return cls(max_length=128, recipe=SmallSmiles(width=16, heads=2))

    @property
    def depends_on_batch(self) -> bool:
        """Whether padding, whose length the longest molecule sets, is averaged too."""
        return self.pool == "mean_unmasked"

    def provides(self) -> Mapping[Level, int]:
        """See `Encoder.provides`.

        Raises:
            EncoderError: the model's configuration is neither known nor on this machine, or not that of an encoder.
        """
        return {"smiles": self.recipe.width if self.model == SMALL else int(self._config().hidden_size)}

    def features(self) -> tuple[FeatureScheme, ...]:  # noqa: D102 - inherited
        tokens = SMALL if self.weights == "random" else self.model
        return (SmilesTokens(model=tokens, max_length=self.max_length, truncate=self.truncate),)

    def rows(self, counts: Counts, size: int) -> Counts:  # noqa: D102 - inherited
        return {"smiles": counts["smiles_token"] if self.pool == "none" else np.ones(size, dtype=np.int64)}

    def build(self) -> EncoderModule:
        """See `Encoder.build`; the weights of a path or a hub model come with `load`.

        A model of known shape is built without its files, so that its parameters can be counted.

        Raises:
            EncoderError: the model is not on this machine, or does not suit.
        """
        from transformers import AutoModel, RobertaModel

        if self.model == SMALL:
            return SmilesModule(self, RobertaModel(self._small_config(), add_pooling_layer=self.pooler), PAD)
        config, tokenizer = self._config(), self._tokenizer()
        # In the type that the file is kept in, weights would change the type of all that is computed from them.
        model = readable(
            self.model, lambda: AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        )
        if not self.pooler and getattr(model, "pooler", None) is not None:
            model.pooler = None
        self._check_fits(model, len(VOCABULARY) if tokenizer is None else len(tokenizer))
        pads = (None if tokenizer is None else tokenizer.pad_token_id, config.pad_token_id)
        return SmilesModule(self, model, next((pad for pad in pads if pad is not None), 0))

    def _config(self) -> Any:
        """The configuration: of the files, or where they are not here or not read, of the known shape."""
        known = known_configuration(self.model)
        if self.weights == "random":
            return known
        try:
            return _config(self.model)
        except EncoderError:
            if known is None:
                raise
            return known

    def _tokenizer(self) -> Any:
        """The tokenizer, or None for the small one of random weights and of a known shape whose files are not here."""
        if self.weights == "random":
            return None
        try:
            return tokenizer_of(self.model)
        except EncoderError:
            if known_configuration(self.model) is None:
                raise
            return None

    def load(self, module: EncoderModule) -> None:  # noqa: D102 - inherited
        if self.model == SMALL or self.weights == "random":
            return
        from transformers import AutoModel

        assert isinstance(module, SmilesModule)
        folder, revision = place(self.model)
        with torch.random.fork_rng(devices=[]):  # transformers draws what a file lacks, such as a pooler
            loaded, report = readable(
                self.model,
                lambda: AutoModel.from_pretrained(
                    folder,
                    revision=revision,
                    dtype=torch.float32,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                ),
            )
        own = module.model.state_dict()
        # A pooler, which nothing reads, stays as `build` drew it: files of masked language models have none.
        absent = set(report["missing_keys"])
        missing = sorted(name for name in own.keys() & absent if not name.startswith("pooler."))
        if missing:
            raise EncoderError(f"SMILES encoder {self.model}: its file lacks {', '.join(missing[:3])}")
        read = {name: tensor for name, tensor in loaded.state_dict().items() if name in own.keys() - absent}
        module.model.load_state_dict({**own, **read})

    def _small_config(self) -> Any:
        from transformers import RobertaConfig

        return RobertaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=self.recipe.width,
            num_hidden_layers=self.recipe.layers,
            num_attention_heads=self.recipe.heads,
            intermediate_size=4 * self.recipe.width,
            hidden_dropout_prob=self.recipe.dropout,
            attention_probs_dropout_prob=self.recipe.dropout,
            max_position_embeddings=self.max_length + PAD + 1,  # RoBERTa counts positions from there
            type_vocab_size=1,
            bos_token_id=BEGIN,
            pad_token_id=PAD,
            eos_token_id=END,
        )

    def _check_fits(self, model: nn.Module, tokens: int) -> None:
        """Refuses a model with fewer positions, or fewer embeddings, than its tokenizer may ask of it."""
        longest = getattr(model.config, "max_position_embeddings", None)
        table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
        if longest is not None and getattr(table, "padding_idx", None) is not None:
            longest -= table.padding_idx + 1  # type: ignore[union-attr]
        if longest is not None and longest < self.max_length:
            raise EncoderError(
                f"SMILES encoder {self.model}: `max_length` is {self.max_length}, but it reads at most {longest} tokens"
            )
        embeddings = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        if tokens > embeddings:
            raise EncoderError(
                f"SMILES encoder {self.model}: its tokenizer has {tokens:,} tokens, but the model only {embeddings:,}"
            )


class SmilesModule(EncoderModule):
    """A transformer and how its rows become the level.

    Args:
        declaration: what it was built from.
        model: gives `last_hidden_state`.
        pad: the token at positions beyond a molecule's own.
    """

    def __init__(self, declaration: Smiles, model: nn.Module, pad: int) -> None:
        super().__init__()
        self.declaration = declaration
        self.model = model
        self.pad = pad

    def forward(self, batch: MoleculeBatch, levels: frozenset[Level]) -> MoleculeEncoding:
        """See `EncoderModule.forward`; reads `smiles_token`."""
        if "smiles" not in levels:
            return MoleculeEncoding(batch.size, {})
        tokens, pool = batch["smiles_token"], self.declaration.pool
        ptr = tokens.ptr if pool == "none" else torch.arange(batch.size + 1, device=tokens.values.device)
        if not batch.size:
            width = int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]
            return MoleculeEncoding(0, {"smiles": Ragged(torch.zeros((0, width), device=ptr.device), ptr)})
        counts = tokens.counts()
        mask = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
        ids = torch.full(mask.shape, self.pad, device=mask.device).masked_scatter(mask, tokens.values)
        hidden = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return MoleculeEncoding(batch.size, {"smiles": Ragged(_pooled(hidden, mask, pool), ptr)})


def _pooled(hidden: Tensor, mask: Tensor, pool: str) -> Tensor:
    """Rows `(B, t, width)` of which `mask` `(B, t)` are tokens: pooled to `(B, width)`, or those tokens one by one."""
    if pool == "mean_unmasked":
        return hidden.mean(dim=1)
    if pool == "first":
        return hidden[:, 0]
    if pool == "none":
        # The gradient of indexing by a mask does not repeat bit for bit on several threads; this one's does.
        return hidden.flatten(0, 1).index_select(0, mask.flatten().nonzero().squeeze(1))
    kept = mask[:, :, None].to(hidden.dtype)
    return (hidden * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def _config(model: str) -> Any:
    from transformers import AutoConfig

    folder, revision = place(model)
    config = readable(
        model,
        lambda: AutoConfig.from_pretrained(folder, revision=revision, local_files_only=True, trust_remote_code=False),
    )
    if config.is_encoder_decoder or getattr(config, "hidden_size", None) is None:
        raise EncoderError(
            f"SMILES encoder {model}: it is a {config.model_type}, where an encoder like RoBERTa is needed"
        )
    return config
