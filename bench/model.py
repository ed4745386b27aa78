"""The grafted model: an encoder and a projector on a language model, spliced at placeholders.

The wrapper knows no concrete part. What is wired to what follows from the declarations alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.activation import checkpoint_while_frozen
from bench.attention import is_by_sequence, packed_arguments
from bench.batches import IGNORED, PackedSequences, PromptContext
from bench.config import Part, Trains
from bench.errors import ConfigError
from encoders.base import Encoder, EncoderModule, GraphInput, Level, MoleculeBatch, MoleculeEncoding, Ragged, Transform
from projectors.base import Context, Projector, ProjectorModule, SoftTokens


def wire(encoder: Encoder, projector: Projector) -> Mapping[Level, int]:
    """The levels that the projector reads and their widths, from the declarations.

    Raises:
        ConfigError: the encoder does not provide a level that the projector needs; the message names both sides.
    """
    provided = encoder.provides()
    read: dict[Level, int] = {}
    for need in projector.needs():
        layers = sorted((level for level in provided if level.startswith("layer:")), key=lambda level: int(level[6:]))
        found = layers if need == "layer:*" else [need] if need in provided else []
        if not found:
            offers = ", ".join(provided) or "no level at all"
            raise ConfigError(
                "projector", f"{projector.name} needs the level {need}, but encoder {encoder.name} provides {offers}"
            )
        read |= {level: provided[level] for level in found}
    return read


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """Log-likelihood of the supervised tokens of each example.

    Args:
        total: `(B,)` in nats.
        tokens: `(B,)` how many tokens it is summed over.
    """

    total: Tensor
    tokens: Tensor


class GraphLanguageModel(nn.Module):
    """Encoder, projector and language model as one module for the trainer.

    Not a `PreTrainedModel`: its `post_init` would re-initialise weights that were loaded (as happened to LLaMo's
    encoder).

    Args:
        encoder: built by the encoder's declaration.
        projector: built by the projector's declaration.
        llm: a causal language model of transformers, with or without adapters.
        levels: the levels that the projector reads.
        encoder_is_trainable: False for an encoder that stays at its initialisation whatever a stage trains.
    """

    _keys_to_ignore_on_save = None  # transformers.Trainer reads it after loading a checkpoint of some tensors only

    def __init__(
        self,
        encoder: EncoderModule,
        projector: ProjectorModule,
        llm: nn.Module,
        levels: Mapping[Level, int],
        *,
        encoder_is_trainable: bool = True,
    ) -> None:
        super().__init__()
        self._encoder_is_trainable = encoder_is_trainable
        self.encoder = encoder
        self.projector = projector
        self.llm = llm
        self.levels = frozenset(levels)
        self._alterations: tuple[GraphInput, ...] = ()
        self._transforms: tuple[Transform, ...] = ()
        self._frozen: tuple[nn.Module, ...] = ()
        self._trains = Trains()
        self.freeze(Trains())

    def read_graphs(self, *inputs: GraphInput, sample: MoleculeBatch | None = None) -> None:
        """What is read in the place of graphs from now on, each input applied to what the one before it gives.

        Args:
            inputs: none for the graphs themselves.
            sample: some training molecules, for inputs that match their moments.
        """

        def encode_sample() -> MoleculeEncoding:
            if sample is None:
                raise ConfigError("graph_input", "needs training molecules to match the moments of")
            training = self.encoder.training
            self.encoder.eval()
            with torch.no_grad():
                encoding: MoleculeEncoding = self.encoder(sample.to(self.token_embedding.weight.device), self.levels)
            self.encoder.train(training)
            return encoding

        self._alterations = inputs
        self._transforms = tuple(graph_input.fit(encode_sample) for graph_input in inputs)

    def encode(self, molecules: MoleculeBatch) -> MoleculeEncoding:
        """What the projector reads of the molecules, or of what stands in their place."""
        if molecules.encoded is None:
            for graph_input in self._alterations:
                molecules = graph_input.alter(molecules)
            encoding: MoleculeEncoding = self.encoder(molecules, self.levels)
        elif any(graph_input.alters for graph_input in self._alterations):
            raise RuntimeError("molecules that were encoded before would be read without what alters them")
        else:
            encoding = molecules.encoded
        for transform in self._transforms:
            encoding = transform(encoding, molecules.keys)
        return encoding

    def freeze(self, trains: Trains) -> None:
        """Makes exactly the parts trainable that a stage trains."""
        if not self._encoder_is_trainable:
            trains = replace(trains, encoder="frozen")
        self.encoder.requires_grad_(trains.encoder == "full")
        self.projector.requires_grad_(trains.projector == "full")
        for name, parameter in self.llm.named_parameters():
            is_adapter = "lora_" in name
            parameter.requires_grad_(trains.llm == ("lora" if is_adapter else "full"))
        if trains.embeddings == "full":
            self.token_embedding.weight.requires_grad_(True)
        self._trains = trains
        policies = {self.encoder: trains.encoder, self.projector: trains.projector, self.llm: trains.llm}
        self._frozen = tuple(module for module, policy in policies.items() if policy == "frozen")
        self.train(self.training)

    def train(self, mode: bool = True) -> GraphLanguageModel:
        """Training mode, in which frozen parts stay in evaluation mode: their batch norms must not drift."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        if mode and self.llm in self._frozen:
            checkpoint_while_frozen(self.llm)
        return self

    def activation_checkpointing_enable(self, **settings: Any) -> None:
        """Called by the trainer; encoders and projectors are small beside the language model."""
        self.llm.activation_checkpointing_enable(**settings)  # type: ignore[operator]
        self.train(self.training)

    @property
    def _no_split_modules(self) -> Any:
        """The language model's blocks, which FSDP deals out one by one."""
        return getattr(self.llm, "_no_split_modules", None)

    @property
    def token_embedding(self) -> nn.Embedding:
        """The language model's input embedding."""
        embedding: nn.Embedding = self.llm.get_input_embeddings()  # type: ignore[operator]
        return embedding

    def part_of(self, parameter_name: str) -> Part:
        """The part that a parameter of `named_parameters` belongs to."""
        if parameter_name.startswith("encoder."):
            return "encoder"
        if parameter_name.startswith("projector."):
            return "projector"
        parameter = self.get_parameter(parameter_name)
        return "embeddings" if parameter is self.token_embedding.weight else "llm"

    def trainable_state(self) -> dict[str, Tensor]:
        """The tensors that a stage changes: trained parameters, and the buffers of trained modules."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        buffers = set(self._trained_buffers())
        state = self.state_dict()
        return {name: state[name].detach() for name in state if name in trained | buffers}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts trained tensors back.

        Raises:
            ConfigError: one does not exist here or has another shape.
        """
        own = self.state_dict()
        for name, tensor in state.items():
            if name not in own:
                raise ConfigError("", f"the stored weights hold {name}, which this model does not have")
            if own[name].shape != tensor.shape:
                raise ConfigError(
                    "", f"the stored {name} has shape {tuple(tensor.shape)}, this model's {tuple(own[name].shape)}"
                )
        self.load_state_dict(dict(state), strict=False)

    def _trained_buffers(self) -> Iterator[str]:
        """Buffers of trained parts, whether or not a parameter stands beside them (a norm without weights has none)."""
        trains = self._trains
        policies = {"encoder": trains.encoder, "projector": trains.projector, "llm": trains.llm}
        for name, _ in self.named_buffers():
            if policies[name.partition(".")[0]] == "full":
                yield name

    def embed(
        self,
        input_ids: Tensor,
        soft_positions: Tensor,
        molecules: MoleculeBatch | None,
        context: PromptContext | None = None,
    ) -> Tensor:
        """Input embeddings with soft tokens in their places.

        Args:
            input_ids: `(B, L)`; what stands at a soft position does not matter.
            soft_positions: `(S,)` positions in the flattened `(B * L,)` sequence, in the order of the molecules' rows.
            molecules: the molecules in the order of their placeholders, or None without any.
            context: where the prompts are; for a projector that reads them.

        Returns:
            `(B, L, d_llm)`.
        """
        embedded: Tensor = self.token_embedding(input_ids)
        if molecules is None or not molecules.size:
            return embedded
        read = None if context is None else self._read(context, embedded)
        soft = self.projector(self.encode(molecules), read).embeds
        if soft.shape[0] != soft_positions.numel():
            raise RuntimeError(
                f"the projector made {soft.shape[0]} soft tokens where its declaration says {soft_positions.numel()}"
            )
        flat = embedded.flatten(0, 1).index_copy(0, soft_positions, soft.to(embedded.dtype))
        return flat.view_as(embedded)

    def soft_tokens(
        self, input_ids: Tensor, molecules: MoleculeBatch, context: PromptContext | None = None
    ) -> SoftTokens:
        """What the language model is given of the molecules; see `embed`."""
        read = None if context is None else self._read(context, self.token_embedding(input_ids))
        tokens: SoftTokens = self.projector(self.encode(molecules), read)
        return tokens

    def observed(
        self, input_ids: Tensor, molecules: MoleculeBatch, context: PromptContext | None = None
    ) -> Mapping[str, Tensor]:
        """What the projector has to say of each molecule; see `embed`."""
        read = None if context is None else self._read(context, self.token_embedding(input_ids))
        found: Mapping[str, Tensor] = self.projector.observe(self.encode(molecules), read)
        return found

    def observed_attention(
        self, input_ids: Tensor, molecules: MoleculeBatch, context: PromptContext | None = None
    ) -> Mapping[Level, Ragged]:
        """Where the projector's queries look in each molecule; see `ProjectorModule.observe_attention`."""
        read = None if context is None else self._read(context, self.token_embedding(input_ids))
        found: Mapping[Level, Ragged] = self.projector.observe_attention(self.encode(molecules), read)
        return found

    @staticmethod
    def _read(context: PromptContext, embedded: Tensor) -> Context:
        """What the projector is told of the prompts: the mean token embedding of each."""
        text = embedded.detach().flatten(0, 1).index_select(0, context.places)
        total = torch.segment_reduce(text, "sum", lengths=context.counts, axis=0)
        mean = total / context.counts.clamp(min=1)[:, None].to(embedded.dtype)
        return Context(mean.index_select(0, context.example_of), context.tasks)

    def forward(
        self,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **batch: Any,
    ) -> dict[str, Tensor]:
        """Cross-entropy of the supervised tokens.

        Args:
            labels: see `_token_losses`; named here, for the trainer counts them only in models that take them.
            num_items_in_batch: supervised tokens of the whole optimiser step, so that accumulated batches weigh each
                token alike; None for this batch's own.
            batch: what else the collator makes.
        """
        losses, counts = self._token_losses(labels=labels, **batch)
        loss = losses.sum() / (counts.sum() if num_items_in_batch is None else num_items_in_batch)
        if self.training and not loss.requires_grad:
            # No example of this batch holds a molecule, and nothing but what reads graphs is trained.
            loss = loss + sum(0 * parameter.sum() for parameter in self.parameters() if parameter.requires_grad)
        return {"loss": loss}

    def log_likelihood(self, batch: Mapping[str, Any]) -> LogLikelihood:
        """Log-likelihood of each example's supervised tokens, for a batch as the collator makes it."""
        losses, counts = self._token_losses(**batch)
        return LogLikelihood(-torch.segment_reduce(losses.double(), "sum", lengths=counts), counts)

    def _token_losses(
        self,
        input_ids: Tensor,
        soft_positions: Tensor,
        molecules: MoleculeBatch | None = None,
        context: PromptContext | None = None,
        packed: PackedSequences | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihoods of the supervised tokens, example after example, and how many each example has.

        Args:
            input_ids: `(B, L)`, right-padded; or `(1, T)`, packed.
            soft_positions, molecules, context: see `embed`.
            packed: where the sequences are in one row; None for a row for each.
            attention_mask, labels: `(B, L)`; read where nothing is packed.
            logits_to_keep: logits are computed for so many last positions only; 0 for all.

        Returns:
            `(N,)` in nats and `(B,)`.
        """
        embedded = self.embed(input_ids, soft_positions, molecules, context)
        if packed is not None:
            if not is_by_sequence(self.llm):
                raise RuntimeError("a packed batch for a language model whose sequences would see each other")
            told = packed_arguments(packed.lengths, packed.bounds, packed.positions, packed.branches)
            logits = self.llm(inputs_embeds=embedded, logits_to_keep=packed.places, use_cache=False, **told).logits
            # Not `[0]`, whose gradient is first all zeros of this size and then a copy.
            losses = functional.cross_entropy(logits.squeeze(0).float(), packed.targets, reduction="none")
            return losses, packed.counts
        if labels is None:
            raise TypeError("a batch that is not packed needs labels")
        logits = self.llm(
            inputs_embeds=embedded, attention_mask=attention_mask, logits_to_keep=logits_to_keep, use_cache=False
        ).logits
        targets = labels[:, labels.shape[1] - logits.shape[1] :][:, 1:]
        losses = functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none"
        )
        supervised = targets != IGNORED
        return losses[supervised], supervised.sum(dim=1)
