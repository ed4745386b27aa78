"""Text encoders for contrastive alignment: a small one that is trained from scratch, or any of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from encoders.base import CONTENT, EncoderError

SMALL = "small"
"""The text encoder that starts at random; any other `name` is a path or a name on a model hub."""

_PAD, _BEGIN, _END = "<pad>", "<s>", "</s>"


@dataclass(frozen=True, kw_only=True)
class SmallText:
    """A BERT that starts at random, with a byte-level BPE tokenizer made from the training texts.

    Args:
        vocabulary: entries of the tokenizer.
        width: hidden width; the MLP is four times as wide.
        layers: transformer blocks.
        heads: attention heads.
        dropout: of hidden rows and of attention; 0.1 in BERT.
    """

    vocabulary: Annotated[int, Ge(300)] = 4000
    width: Annotated[int, Ge(1)] = 192
    layers: Annotated[int, Ge(1)] = 2
    heads: Annotated[int, Ge(1)] = 3
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise EncoderError(f"small text encoder: `width` {self.width} is no multiple of `heads` {self.heads}")


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """The text side.

    Args:
        name: `small`, a local path, or a name on the model hub; MoleculeSTM takes `allenai/scibert_scivocab_uncased`.
        revision: commit of a hub model.
        pool: the row of the whole text: `pooler`, BERT's pooled first token, as MoleculeSTM's code
            (`scripts/pretrain.py:124-128`), or `masked_mean` over all tokens that are no padding.
        max_length: longest text in tokens, the special ones included; longer ones are cut. 512 in MoleculeSTM.
        frozen: whether it stays as it is.
        small: the recipe of `small`.
    """

    name: str = field(default=SMALL, metadata=CONTENT)
    revision: str | None = field(default=None, metadata=CONTENT)
    pool: Literal["pooler", "masked_mean"] = "pooler"
    max_length: Annotated[int, Ge(3)] = 512
    frozen: bool = False
    small: SmallText = field(default_factory=SmallText)

    def __post_init__(self) -> None:
        if self.frozen and self.name == SMALL:
            raise EncoderError("text encoder small starts at random; `frozen: true` would keep it there")

    def reader(self, corpus: Sequence[str], folder: Path | None) -> TextReader:
        """The tokenizer: made from `corpus` for the small encoder, else that of the model in `folder`.

        Raises:
            EncoderError: the folder's tokenizer cannot be read.
        """
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        if folder is None:
            tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=_trained_tokenizer(corpus, self.small.vocabulary),
                pad_token=_PAD,
                cls_token=_BEGIN,
                sep_token=_END,
                clean_up_tokenization_spaces=False,
            )
        else:
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            except (OSError, ValueError, KeyError) as error:
                raise EncoderError(
                    f"text encoder {self.name}: its tokenizer cannot be read: {_first(error)}"
                ) from error
            if tokenizer.pad_token_id is None:
                raise EncoderError(f"text encoder {self.name}: its tokenizer has no padding token; take a BERT")
        return TextReader(tokenizer, self.max_length)

    def build(self, reader: TextReader, folder: Path | None) -> TextModule:
        """The module; the small one's weights are drawn from torch's global generator.

        Raises:
            EncoderError: the folder's model cannot be read, is too short, or lacks what `pool` asks for.
        """
        return TextModule(self, self._small(reader) if folder is None else self._pretrained(folder))

    def _small(self, reader: TextReader) -> nn.Module:
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=len(reader.tokenizer),
            hidden_size=self.small.width,
            num_hidden_layers=self.small.layers,
            num_attention_heads=self.small.heads,
            intermediate_size=4 * self.small.width,
            hidden_dropout_prob=self.small.dropout,
            attention_probs_dropout_prob=self.small.dropout,
            max_position_embeddings=self.max_length,
            pad_token_id=reader.tokenizer.pad_token_id,
        )
        model: nn.Module = BertModel(config, add_pooling_layer=self.pool == "pooler")
        return model

    def _pretrained(self, folder: Path) -> nn.Module:
        from transformers import AutoModel

        try:
            model, loading = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise EncoderError(f"text encoder {self.name} cannot be loaded: {_first(error)}") from error
        if self.pool == "pooler" and getattr(model, "pooler", None) is None:
            raise EncoderError(f"text encoder {self.name} has no pooler; use `pool: masked_mean`")
        missing = [key for key in loading["missing_keys"] if "pooler" not in key or self.pool == "pooler"]
        if missing:  # transformers would fill them at random
            remedy = "; use `pool: masked_mean`" if all("pooler" in key for key in missing) else ""
            raise EncoderError(f"text encoder {self.name}: its file lacks {', '.join(missing[:3])}{remedy}")
        longest = getattr(model.config, "max_position_embeddings", None)
        if longest is not None and longest < self.max_length:
            raise EncoderError(f"text encoder {self.name}: `max_length` is {self.max_length}, and it reads {longest}")
        loaded: nn.Module = model
        return loaded


@dataclass(frozen=True, slots=True)
class TextReader:
    """Texts as tokens.

    Args:
        tokenizer: a fast tokenizer of transformers.
        max_length: the longest text.
    """

    tokenizer: Any
    max_length: int

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, special ones included, cut to the longest length."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), truncation=True, max_length=self.max_length, return_attention_mask=False)
        ids: list[list[int]] = found["input_ids"]
        return ids

    def padded(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, both `(B, longest)`."""
        longest = max(len(row) for row in ids)
        tokens = torch.full((len(ids), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for number, row in enumerate(ids):
            tokens[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        return {"input_ids": tokens, "attention_mask": mask}


class TextModule(nn.Module):
    """A text encoder and how its rows become one."""

    def __init__(self, declaration: TextEncoder, model: nn.Module) -> None:
        super().__init__()
        self.declaration = declaration
        self.model = model.requires_grad_(not declaration.frozen)
        self.width = int(model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def train(self, mode: bool = True) -> TextModule:
        """A frozen model stays in evaluation mode."""
        super().train(mode)
        self.model.train(mode and not self.declaration.frozen)
        return self

    def forward(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """One row per text, `(B, width)`."""
        said = self.model(**tokens)
        if self.declaration.pool == "pooler":
            pooled: Tensor = said.pooler_output
            return pooled
        return masked_mean(said.last_hidden_state, tokens["attention_mask"])


def masked_mean(rows: Tensor, mask: Tensor) -> Tensor:
    """The mean of `(B, t, width)` over the positions where `mask` `(B, t)` is 1."""
    kept = mask[:, :, None].to(rows.dtype)
    return (rows * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def _trained_tokenizer(corpus: Sequence[str], vocabulary: int) -> Any:
    """Byte-level BPE, every text between a begin and an end token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _BEGIN, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A {_END}", special_tokens=[(_BEGIN, 1), (_END, 2)]
    )
    return tokenizer


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
