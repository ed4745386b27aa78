"""The small language model: a byte-level BPE tokenizer and a Llama trained from scratch on a task's own text.

It makes every path of the harness real on two cores without a network. It is made once per text and recipe, and kept in
the cache under a hash of both.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bench.checkpoints import find_resumable
from bench.config import TinyRecipe
from bench.errors import ConfigError
from bench.identity import content_hash
from bench.language_model import LocatedModel, without_bars
from bench.model_files import TRAINING_REPORT, files_identity
from bench.progress import ProgressCallback
from bench.run_store import write_json
from bench.runtime import Runtime
from bench.trainer import one_device
from tasks.base import Example, split_slots

_VERSION = 1  # raised when the same text and recipe begin to give another model
_PAD, _BEGIN, _END = "<pad>", "<s>", "</s>"


def corpus_of(examples: Iterable[Example]) -> list[str]:
    """The text that a small language model learns from: dialogues without their molecules, and molecules apart.

    A description is never shown beside its molecule: what links the two has to come through the graph or the prompt.
    """
    dialogues: list[str] = []
    molecules: list[str] = []
    for example in examples:
        turns = ("".join(piece for piece in split_slots(turn.text) if isinstance(piece, str)) for turn in example.turns)
        dialogues.append("\n".join(turn.strip() for turn in turns))
        molecules += example.molecules
    return list(dict.fromkeys([*dialogues, *molecules]))


def ensure_small_model(corpus: Sequence[str], recipe: TinyRecipe, runtime: Runtime) -> LocatedModel:
    """The model of this text and recipe, trained now if it is not in the cache.

    Raises:
        ConfigError: the text is shorter than one block.
    """
    identity = content_hash([_VERSION, recipe, hashlib.sha256("\0".join(corpus).encode()).hexdigest()])
    root = runtime.cache_folder("language-models")
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"tiny-{identity}"
    with FileLock(root / f"{folder.name}.lock"):
        if not folder.exists():
            with without_bars():
                _train(corpus, recipe, folder, runtime)
    return LocatedModel(folder, files_identity(folder, runtime), f"small language model {identity}")


def train_tokenizer(corpus: Sequence[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer: every text can be written, and none has an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _BEGIN, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def special_tokenizer(trained: Tokenizer) -> Any:
    """A tokenizer of transformers of one that `train_tokenizer` made; padding, begin and end are its first three."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token=_PAD, bos_token=_BEGIN, eos_token=_END, clean_up_tokenization_spaces=False
    )


def architecture(recipe: TinyRecipe, vocabulary: int) -> Any:
    """The Llama of a recipe; the special tokens are the tokenizer's first three."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.width * 11 // 4,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def _train(corpus: Sequence[str], recipe: TinyRecipe, folder: Path, runtime: Runtime) -> None:
    from transformers import LlamaForCausalLM, PrinterCallback, Trainer, set_seed

    tokenizer = special_tokenizer(train_tokenizer(corpus, recipe.vocabulary))
    set_seed(recipe.seed)
    model = LlamaForCausalLM(architecture(recipe, len(tokenizer)))
    work = folder.with_suffix(".partial")
    report: dict[str, Any] = {"recipe": recipe.__dict__, "documents": len(corpus), "vocabulary": len(tokenizer)}
    if recipe.steps:
        blocks = Blocks.of(corpus, tokenizer, recipe.block)
        trainer = Trainer(
            model=model,
            args=_arguments(work, recipe, runtime),
            train_dataset=blocks,
            callbacks=[ProgressCallback(runtime, "small language model")],
        )
        trainer.remove_callback(PrinterCallback)
        resumable = find_resumable(work)
        if resumable is not None and _is_last(resumable, recipe):
            model = LlamaForCausalLM.from_pretrained(resumable)
        else:
            trainer.train(resume_from_checkpoint=str(resumable) if resumable else None)
        report |= {"tokens": blocks.tokens}
    finished = work / "finished"
    model.cpu().save_pretrained(finished)
    tokenizer.save_pretrained(finished)
    write_json(finished / TRAINING_REPORT, report)
    os.replace(finished, folder)
    shutil.rmtree(work)


def _is_last(checkpoint: Path, recipe: TinyRecipe) -> bool:
    return checkpoint.name == f"checkpoint-{recipe.steps}"


def _arguments(work: Path, recipe: TinyRecipe, runtime: Runtime) -> Any:
    from transformers import TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=recipe.steps,
        per_device_train_batch_size=max(1, recipe.batch_tokens // recipe.block),
        learning_rate=recipe.lr,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": 0.1},
        warmup_steps=0.05,
        weight_decay=0.01,
        seed=recipe.seed,
        logging_steps=10,
        logging_nan_inf_filter=False,
        save_steps=500,
        save_total_limit=2,
        dataloader_pin_memory=torch.cuda.is_available() and runtime.device != "cpu",
        report_to="none",
        disable_tqdm=True,
        use_cpu=runtime.device == "cpu",
    )
    return one_device(arguments)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Documents joined by end tokens and cut into blocks of equal length; a data set for the trainer."""

    ids: torch.Tensor  # (blocks, length)
    tokens: int

    @classmethod
    def of(cls, corpus: Sequence[str], tokenizer: Any, length: int) -> Blocks:
        """Blocks of `length` tokens; the tail that fills none is left out.

        Raises:
            ConfigError: there is less text than one block.
        """
        stream = list(_stream(corpus, tokenizer))
        count = len(stream) // length
        if not count:
            raise ConfigError("llm.tiny.block", f"is {length} tokens, but the training text has only {len(stream)}")
        return cls(torch.tensor(stream[: count * length]).view(count, length), len(stream))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def _stream(corpus: Sequence[str], tokenizer: Any) -> Iterator[int]:
    for ids in tokenizer(list(corpus), add_special_tokens=False)["input_ids"]:
        yield tokenizer.bos_token_id
        yield from ids
        yield tokenizer.eos_token_id
