"""Language models: located by name or path, identified by their files, loaded, and given adapters."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.config import LanguageModel, Lora
from bench.errors import ConfigError
from bench.known_models import random_model, skeleton_of
from bench.model_files import HUB_NAME, files_identity, first_line, from_hub
from bench.quantisation import QUANTISED, Quantisation, loading_arguments, quantise
from bench.runtime import Runtime

# Without the second, transformers asks on the terminal whether a model's own code shall be run.
_ON_DISK = {"local_files_only": True, "trust_remote_code": False}
_WORTH_A_BAR = 500_000_000  # bytes of weights, from which on loading is a wait
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""What `llm.dtype` means."""


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """A language model on disk.

    Args:
        path: a folder that transformers reads.
        identity: hash of its files, tokenizer included.
        origin: where it came from, in words.
        is_random: whether the folder holds a configuration and a tokenizer, and the weights are drawn anew.
    """

    path: Path
    identity: str
    origin: str
    is_random: bool = False


def locate(llm: LanguageModel, runtime: Runtime) -> LocatedModel:
    """The folder of a language model given by path or hub name.

    Raises:
        ConfigError: the name is neither, the folder holds no model, or the hub cannot be reached.
    """
    folder = Path(llm.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            held = ", ".join(sorted(item.name for item in folder.iterdir())[:6]) or "nothing"
            raise ConfigError(
                "llm.name",
                f"{llm.name} is no model: it has no config.json (it holds {held}). Give the folder that "
                "save_pretrained wrote.",
            )
        return LocatedModel(folder, files_identity(folder, runtime), f"folder {llm.name}")
    if folder.exists() or not HUB_NAME.fullmatch(llm.name):
        what = "a file, not a folder" if folder.exists() else "no folder, no `owner/model` of a hub and not `tiny`"
        raise ConfigError("llm.name", f"{llm.name!r} is {what}")
    downloaded = from_hub(llm.name, llm.revision, runtime, "llm.name")
    return LocatedModel(downloaded, files_identity(downloaded, runtime), f"hub {llm.name}@{downloaded.name}")


def load(
    located: LocatedModel, dtype: str, *, quantisation: Quantisation = "none", device: torch.device | None = None
) -> tuple[nn.Module, Any]:
    """The model and its tokenizer; weights come from safetensors or through `weights_only=True`, never from code.

    Args:
        located: where it is.
        dtype: of the weights that are not quantised.
        quantisation: of the linear maps.
        device: where random and quantised weights are made; None for the CPU. Others are read to the CPU.

    Raises:
        ConfigError: transformers cannot read the folder, there is no end token, or weights cannot be quantised.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    place = torch.device("cpu") if device is None else device
    how = loading_arguments(quantisation, place)
    try:
        if located.is_random:
            model = random_model(AutoConfig.from_pretrained(located.path, **_ON_DISK), DTYPES[dtype], place)
            quantise(model, quantisation)
        else:
            size = sum(file.stat().st_size for file in located.path.glob("*.safetensors"))
            with without_bars() if size < _WORTH_A_BAR else nullcontext():
                model = AutoModelForCausalLM.from_pretrained(located.path, dtype=DTYPES[dtype], **_ON_DISK, **how)
        tokenizer = AutoTokenizer.from_pretrained(located.path, **_ON_DISK)
    except torch.OutOfMemoryError:  # a failure of its own class, and no mistake of the user's
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        where = "llm.quantisation" if how else "llm.name"
        raise ConfigError(where, f"{located.origin} cannot be loaded: {first_line(error)}") from error
    # What a checkpoint says of generation (penalties, suppressed tokens) would fill whatever a run leaves open, and so
    # change its answers without standing in its configuration.
    model.generation_config = GenerationConfig()
    _give_end_token(tokenizer, model.config)
    if tokenizer.eos_token_id is None:
        raise ConfigError("llm.name", f"{located.origin} has a tokenizer without an end token, so no answer would end")
    return model, tokenizer


def _give_end_token(tokenizer: Any, config: Any) -> None:
    """Names the end token that a tokenizer has but does not call so, as Galactica's; its model's configuration does."""
    if tokenizer.eos_token_id is not None:
        return
    known = getattr(config, "eos_token_id", None)
    first = known[0] if isinstance(known, list) and known else known
    token = tokenizer.convert_ids_to_tokens(first) if isinstance(first, int) and first < len(tokenizer) else None
    if token is not None:
        tokenizer.add_special_tokens({"eos_token": token})


def load_skeleton(located: LocatedModel, dtype: str) -> nn.Module:
    """The model without weights, on the meta device: for counting parameters and checking names."""
    from transformers import AutoConfig

    try:
        return skeleton_of(AutoConfig.from_pretrained(located.path, **_ON_DISK), DTYPES[dtype])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError("llm.name", f"{located.origin} cannot be read: {first_line(error)}") from error


class CastEmbedding(nn.Embedding):
    """A table in 32 bits that is trained, in a model that computes in fewer: what it gives is cast to their type."""

    output_dtype: torch.dtype = torch.float32

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Rows of the table in the model's own type."""
        return super().forward(input).to(self.output_dtype)


def embeddings_in_full_precision(model: nn.Module) -> None:
    """Keeps the input embedding in 32 bits, so that small steps are not rounded away when it is trained.

    LLaMo's stage 1 trains it in a model of bfloat16 (`modeling_llamo.py:214-219`).

    Raises:
        ConfigError: it is tied to the output embedding, which the model needs in its own type.
    """
    old: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    if type(old) is not nn.Embedding:  # one that scales its rows, say, would not be what is put in its place
        raise ConfigError(
            "stages", f"the embedding of this model is a {type(old).__name__}; it cannot be trained in bf16"
        )
    if old.weight.dtype == torch.float32:
        return
    output = model.get_output_embeddings()  # type: ignore[operator]
    if output is not None and output.weight is old.weight:
        raise ConfigError(
            "llm.dtype",
            "is bf16, and a stage trains embeddings that are tied to the output embedding: small steps would be "
            "rounded away. Use fp32, with `precision: bf16` for speed",
        )
    made = CastEmbedding(old.num_embeddings, old.embedding_dim, padding_idx=old.padding_idx, device="meta")
    made.output_dtype = old.weight.dtype
    made.weight = nn.Parameter(old.weight.detach().float(), requires_grad=old.weight.requires_grad)
    model.set_input_embeddings(made)  # type: ignore[operator]


def attach_lora(model: nn.Module, lora: Lora) -> nn.Module:
    """The model with adapters, their weights from torch's global generator.

    peft accepts a list of which some names match nothing, and so would train less than was asked; here each must match.

    Raises:
        ConfigError: a target names no linear map.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    if isinstance(targets, list):
        if not targets:
            raise ConfigError("llm.lora.targets", "is empty; name linear maps, or `all-linear`")
        maps = _adaptable(model)
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in maps):
                known = ", ".join(OrderedDict.fromkeys(name.rpartition(".")[2] for name in maps))
                raise ConfigError("llm.lora.targets", f"{target!r} names no linear map of this model; it has {known}")
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets
    )
    with warnings.catch_warnings():  # peft asks transformers by a name that the latter has since changed
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        adapted: nn.Module = get_peft_model(model, config)
    return adapted


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' own progress bars, for models that are read and written in no time."""
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def embedding_width(model: nn.Module) -> int:
    """The width of token embeddings, which is that of soft tokens (OPT-350m's hidden width differs from it)."""
    weight = model.get_input_embeddings().weight  # type: ignore[operator]
    return int(weight.shape[1])


def text_embeddings(model: nn.Module, tokenizer: Any, text: str) -> Tensor:
    """The token embeddings of a text without special tokens, `(tokens, width)` in 32 bits, on the CPU."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[operator]
    return weight.detach()[ids].float().cpu()


def _adaptable(model: nn.Module) -> Sequence[str]:
    """Names of the linear maps; GPT-2's `Conv1D` is one too, and quantised ones are."""
    kinds = {"Linear", "Conv1D", *QUANTISED}
    return [name for name, module in model.named_modules() if type(module).__name__ in kinds]
