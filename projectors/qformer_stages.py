"""MolCA's first stage: a Q-Former learns from molecules and their texts, before any language model is there.

Three losses of equal weight (`model/blip2qformer.py:378-500`): contrastive, matching and captioning. MolCA's second
stage (captions from a frozen language model) and its third (adapters) are stages of a run like any other, with the
projector `qformer` whose `weights` name the file that `export_projector_state` was saved to::

    pretraining = QFormerPretraining(QFormer(), width=300, vocabulary=len(words), begin_token=words.bos_token_id)
    pretraining.load("path/to/scibert")                  # optional, as MolCA starts
    for rows, tokens in batches:                         # the encoder's level `atom`, and the texts' tokens
        losses = pretraining(rows, tokens["input_ids"], tokens["attention_mask"])
        losses["loss"].backward()
    save_file(pretraining.export_projector_state(), "qformer.safetensors")

Texts are tokens of a BERT's tokenizer (`words`), padded at the right, `[CLS]` first. MolCA trains the encoder as well:
50 epochs, batches of 64 per device, AdamW, weight decay 0.05, learning rate 1e-4 after up to 1,000 warm-up steps, then
a cosine down to 1e-5. Its contrastive loss spans the batches of all devices; here it spans the batch that is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.base import EncoderError, Ragged, read_state
from projectors.qformer import FRESH_OVER_BERT, QFormer, readable_rows
from projectors.qformer_weights import for_projector, put, translate

IGNORED = -100
"""The label of a position that is not predicted."""


@dataclass(frozen=True, slots=True)
class Negatives:
    """Molecules and texts that do not belong together.

    Args:
        graph_for_text: `(B,)` the molecule that each text is paired with.
        text_for_graph: `(B,)` the text that each molecule is paired with.
    """

    graph_for_text: Tensor
    text_for_graph: Tensor


@dataclass(frozen=True, slots=True)
class Seen:
    """What the queries attend to.

    Args:
        rows: `(B, n, width)`, normalised.
        present: `(B, n)` int64, 0 for padding.
    """

    rows: Tensor
    present: Tensor

    def at(self, molecules: Tensor) -> Seen:
        """The same for some of the molecules, in this order."""
        return Seen(self.rows.index_select(0, molecules), self.present.index_select(0, molecules))


def contrastive_logits(graphs: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """How well each molecule and each text fit, `(B, B)`, molecules down: the best query's cosine over `temperature`.

    Args:
        graphs: `(B, Q, width)` projected queries.
        texts: `(B, width)` projected texts.
        temperature: 0.1 in MolCA, and fixed.
    """
    cosines = torch.einsum("gqw,tw->gtq", functional.normalize(graphs, dim=-1), functional.normalize(texts, dim=-1))
    return cosines.amax(dim=-1) / temperature


def contrastive_loss(logits: Tensor) -> Tensor:
    """The mean of both directions' cross-entropy: a molecule's text among all texts, a text's molecule among all."""
    own = torch.arange(len(logits), device=logits.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def negative_weights(logits: Tensor) -> Tensor:
    """What negatives are drawn by, `(B, B)` with one row per anchor: likely ones more often, the own one never."""
    weights = logits.detach().float().softmax(dim=1) + 1e-4
    return weights.fill_diagonal_(0)


def sample_negatives(logits: Tensor, generator: torch.Generator | None = None) -> Negatives:
    """One molecule that is not its own for each text, and one such text for each molecule.

    Args:
        logits: `(B, B)` of `contrastive_logits`.
        generator: torch's global one if None.

    Raises:
        EncoderError: the batch holds a single molecule, which has no negative.
    """
    if len(logits) < 2:
        raise EncoderError("Q-Former pretraining: a batch needs at least 2 molecules; one has no negative")
    # On the CPU, where the generator is: what is drawn must not depend on the device.
    weights = [negative_weights(logits.T).cpu(), negative_weights(logits).cpu()]
    by_text, by_graph = (torch.multinomial(w, 1, generator=generator).squeeze(1).to(logits.device) for w in weights)
    return Negatives(by_text, by_graph)


def matching_loss(logits: Tensor) -> Tensor:
    """Cross-entropy of `(3 B, 2)`: B pairs that belong together (class 1), then 2 B that do not (class 0)."""
    labels = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    labels[: len(logits) // 3] = 1
    return functional.cross_entropy(logits, labels)


def captioning_loss(logits: Tensor, input_ids: Tensor, attention_mask: Tensor, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy of each next token, padding left out.

    Args:
        logits: `(B, T, vocabulary)`.
        input_ids, attention_mask: `(B, T)`; the first token is never predicted.
        smoothing: of labels; 0.1 in MolCA (`Qformer.py:1076`).
    """
    targets = input_ids.masked_fill(attention_mask == 0, IGNORED)[:, 1:]
    return functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), targets, ignore_index=IGNORED, label_smoothing=smoothing
    )


def captioning_mask(attention_mask: Tensor, queries: int, dtype: torch.dtype) -> Tensor:
    """Who sees whom in writing, `(B, 1, Q + T, Q + T)`: queries see queries, text sees queries and its past.

    Added to attention's logits, 0 or the least number: where attention is computed eagerly, a mask of booleans would be
    added as it is, without an error.
    """
    size, length = attention_mask.shape
    total = queries + length
    seen = torch.ones(total, total, dtype=torch.bool, device=attention_mask.device).tril()
    seen[:, :queries] = True
    padded = torch.cat([attention_mask.new_ones((size, queries)), attention_mask], dim=1)
    allowed = seen[None, None] & (padded[:, None, None] > 0)
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, torch.finfo(dtype).min)


class QFormerPretraining(nn.Module):
    """A Q-Former with its text side and the heads of the three losses.

    Dropout is drawn for each pass by itself; MolCA reuses the queries of the contrastive pass when it writes texts.

    Args:
        declaration: the projector that is pretrained; its `weights` are not read, see `load`.
        width: of the encoder's rows.
        vocabulary: entries of the texts' tokenizer, the one that begins a text to be written included.
        begin_token: stands in the place of the first token of a text to be written; MolCA adds `[DEC]` for it.
        max_text: the longest text in tokens; MolCA cuts at 128, its BERT reads 512.
        projection: width in which molecules and texts are compared; 256 in MolCA.
        temperature: of the contrastive loss; 0.1 in MolCA.
    """

    def __init__(
        self,
        declaration: QFormer,
        width: int,
        *,
        vocabulary: int,
        begin_token: int,
        max_text: int = 512,
        projection: int = 256,
        temperature: float = 0.1,
    ) -> None:
        from transformers import InstructBlipQFormerConfig, InstructBlipQFormerModel

        super().__init__()
        self.declaration = declaration
        self.begin_token = begin_token
        self.temperature = temperature
        hidden = declaration.hidden_size
        self.norm = nn.LayerNorm(width)
        self.query_tokens = nn.Parameter(torch.randn(1, declaration.num_query_tokens, hidden) * 0.02)
        self.qformer = InstructBlipQFormerModel(
            InstructBlipQFormerConfig(
                **declaration.settings(width), vocab_size=vocabulary, max_position_embeddings=max_text
            )
        )
        self.graph_proj = nn.Linear(hidden, projection)
        self.text_proj = nn.Linear(hidden, projection)
        self.gtm_head = nn.Linear(hidden, 2)
        # BERT's head, whose last map is the table of word embeddings.
        self.lm_dense = nn.Linear(hidden, hidden)
        self.lm_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.lm_bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(
        self,
        rows: Ragged,
        input_ids: Tensor,
        attention_mask: Tensor,
        negatives: Negatives | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The three losses and `loss`, their sum.

        Args:
            rows: of B molecules at the declared level.
            input_ids, attention_mask: `(B, T)` of their texts, the first token `[CLS]`, padded at the right.
            negatives: for the matching loss; None to draw them.
            generator: to draw them by; torch's global one if None.

        Raises:
            EncoderError: negatives are to be drawn from a single molecule, or texts are longer than `max_text`.
        """
        longest = self.qformer.embeddings.position_embeddings.num_embeddings
        if input_ids.shape[1] > longest:
            raise EncoderError(f"Q-Former pretraining: texts of {input_ids.shape[1]} tokens; it reads {longest}")
        seen = self.seen(rows)
        logits = self.contrast(seen, input_ids, attention_mask)
        drawn = sample_negatives(logits, generator) if negatives is None else negatives
        losses = {
            "contrastive": contrastive_loss(logits),
            "matching": matching_loss(self.match(seen, input_ids, attention_mask, drawn)),
            "captioning": captioning_loss(self.write(seen, input_ids, attention_mask), input_ids, attention_mask),
        }
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def seen(self, rows: Ragged) -> Seen:
        """Molecules as the queries read them."""
        return Seen(*readable_rows(rows, self.norm, self.declaration.prepend_graph_token))

    def contrast(self, seen: Seen, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Molecules against texts, `(B, B)`; each side is read without the other."""
        queries = self.read(seen, None, None)
        texts = self.qformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0]
        return contrastive_logits(self.graph_proj(queries), self.text_proj(texts), self.temperature)

    def match(self, seen: Seen, input_ids: Tensor, attention_mask: Tensor, negatives: Negatives) -> Tensor:
        """Whether molecule and text belong together, `(3 B, 2)`: own pairs, other molecules, other texts."""
        own = torch.arange(len(input_ids), device=input_ids.device)
        molecules = torch.cat([own, negatives.graph_for_text, own])
        texts = torch.cat([own, own, negatives.text_for_graph])
        mask = attention_mask.index_select(0, texts)
        mask = torch.cat([mask.new_ones((len(mask), self.query_tokens.shape[1])), mask], dim=1)
        hidden = self.read(seen.at(molecules), input_ids.index_select(0, texts), mask)
        logits: Tensor = self.gtm_head(hidden[:, : self.query_tokens.shape[1]]).mean(dim=1)
        return logits

    def write(self, seen: Seen, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """What each position says of the next token, `(B, T, vocabulary)`."""
        begun = torch.cat([torch.full_like(input_ids[:, :1], self.begin_token), input_ids[:, 1:]], dim=1)
        count = self.query_tokens.shape[1]
        hidden = self.read(seen, begun, captioning_mask(attention_mask, count, self.query_tokens.dtype))
        words = self.qformer.embeddings.word_embeddings.weight
        said = self.lm_norm(functional.gelu(self.lm_dense(hidden[:, count:])))
        return functional.linear(said, words, self.lm_bias)

    def read(self, seen: Seen, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor:
        """Queries, and a text after them, over molecules: `(B, Q + T, hidden_size)`."""
        hidden: Tensor = self.qformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            query_embeds=self.query_tokens.expand(len(seen.rows), -1, -1),
            encoder_hidden_states=seen.rows,
            encoder_attention_mask=seen.present,
        ).last_hidden_state
        return hidden

    def load(self, path: str) -> None:
        """Starts from a BERT with its text side, or goes on from a Q-Former with one.

        A vocabulary that was made longer, as for `[DEC]`, keeps its further rows at random.

        Raises:
            EncoderError: the file does not hold the tensors that are asked of it.
        """
        layout, state = translate(read_state(path), path)
        fresh: tuple[str, ...] = ()
        if layout == "bert":
            has_head = "lm_bias" in state
            fresh = (*FRESH_OVER_BERT, "graph_proj", "text_proj", "gtm_head")
            fresh += () if has_head else ("lm_dense", "lm_norm", "lm_bias")
        own = self.state_dict()
        for name in ("qformer.embeddings.word_embeddings.weight", "lm_bias"):
            if name in state and len(state[name]) < len(own[name]):
                state[name] = torch.cat([state[name], own[name][len(state[name]) :].to(state[name])])
        put(self, state, path, fresh)

    def export_projector_state(self) -> dict[str, Tensor]:
        """The tensors that the projector `qformer` reads from `weights`, of their own and contiguous."""
        state = for_projector(self.state_dict())
        return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
