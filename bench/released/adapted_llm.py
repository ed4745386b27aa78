"""The language model's part of a file: its own tensors, and low-rank adapters as peft names them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.errors import ConfigError
from bench.released.ledger import Ledger
from bench.released.torch_files import State, read_torch

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_ADAPTER_CONFIG = "adapter_config.json"
_ADDED_TOKENS = 1
"""LLaMo, MolCA: one token is added to the tokenizer (`<pad>`, `<mol>`), whose embedding no prompt here reads."""

# Settings of peft that change what adapters compute and show in no tensor; all are off in the systems read here.
_OFF = ("use_rslora", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def read_adapter(folder: str, setting: str) -> tuple[State, float]:
    """The tensors of an adapter as peft saves it, and its alpha.

    Raises:
        ConfigError: the folder lacks a file, a file cannot be read, or it is no plain LoRA.
    """
    place = Path(folder).expanduser()
    file = next((place / name for name in _ADAPTER_FILES if (place / name).is_file()), None)
    if file is None or not (place / _ADAPTER_CONFIG).is_file():
        wanted = _ADAPTER_CONFIG if file else " or ".join(_ADAPTER_FILES)
        raise ConfigError(setting, f"{folder}: holds no {wanted}, so it is no adapter that peft saved")
    config = _adapter_config(place / _ADAPTER_CONFIG, setting)
    tensors = read_torch(file, setting)
    if strange := next((name for name in tensors if "lora_" not in name), None):
        raise ConfigError(setting, f"{file}: holds {strange}, which is no adapter's tensor")
    return tensors, float(config["lora_alpha"])


def place_language_model(ledger: Ledger, names: Mapping[str, str], alpha: float) -> set[str]:
    """Places the adapters and, where the file holds them, the language model's own tensors.

    Of the latter, maps that are quantised in the run's model are left out; it keeps its own.

    Args:
        ledger: the file and the model.
        names: the file's tensors, by their names without what stands before the language model.
        alpha: of the adapters.

    Returns:
        The model's tensors that the file must give.

    Raises:
        ConfigError: the model's adapters are others than the file's.
    """
    own = {_canonical(name.removeprefix("llm.")): name for name in ledger.names("llm.")}
    ledger.ignore(
        [whole for name, whole in names.items() if name.endswith("rotary_emb.inv_freq")], "computed, and not learned"
    )
    found = {whole: _canonical(name) for name, whole in names.items() if not name.endswith("rotary_emb.inv_freq")}
    adapters = {whole: name for whole, name in found.items() if "lora_" in name}
    needed: set[str] = set()
    if adapters:
        own_adapters = {whole: name for name, whole in own.items() if "lora_" in name}
        _check_adapters(ledger, adapters, own_adapters, alpha)
        needed |= own_adapters.keys()
    ledger.place({whole: own[name] for whole, name in adapters.items() if name in own})
    base = {whole: name for whole, name in found.items() if "lora_" not in name}
    if base:
        needed |= _place_base(ledger, base, {name: whole for name, whole in own.items() if "lora_" not in name})
    return needed


def _place_base(ledger: Ledger, found: Mapping[str, str], own: Mapping[str, str]) -> set[str]:
    """Places a whole language model; gives the names that it must hold."""
    known = {whole: name for whole, name in found.items() if name in own}
    rows: dict[str, int] = {}
    packed = []
    for whole, name in known.items():
        target = ledger.own[own[name]]
        tensor = ledger.tensors[whole]
        if not target.is_floating_point():
            packed.append(whole)
        elif name.endswith(("embed_tokens.weight", "lm_head.weight")) and tensor.dim() == target.dim() == 2:
            rows |= {whole: len(target)} if 0 < len(tensor) - len(target) <= _ADDED_TOKENS else {}
    ledger.ignore(packed, "quantised in this run, which keeps its own")
    ledger.place({whole: own[name] for whole, name in known.items() if whole not in packed}, rows)
    return {name for name in own.values() if ledger.own[name].is_floating_point() and not _of_quantised(name)}


def _of_quantised(name: str) -> bool:
    """Whether a tensor is one that bitsandbytes keeps beside packed weights."""
    return name.endswith((".absmax", ".SCB", ".quant_map", ".nested_absmax", ".nested_quant_map"))


def _check_adapters(ledger: Ledger, found: Mapping[str, str], own: Mapping[str, str], alpha: float) -> None:
    """Refuses adapters of another rank, on other maps or of another scale than the run's.

    Raises:
        ConfigError: they are.
    """
    rank, targets = _described(found, ledger.tensors)
    wanted = f"llm.lora={{r: {rank}, alpha: {alpha:g}, targets: [{', '.join(targets)}]}}"
    if not own:
        raise ledger.unfit("llm.lora", f"the file holds adapters, and this run's language model has none; set {wanted}")
    own_rank, own_targets = _described(own, ledger.own)
    settings: Any = ledger.model.llm.peft_config["default"]  # type: ignore[union-attr, index]
    if (rank, targets, alpha) != (own_rank, own_targets, float(settings.lora_alpha)):
        raise ledger.unfit(
            "llm.lora",
            f"the file's adapters have r {rank}, alpha {alpha:g} on {', '.join(targets)}; this run's have r "
            f"{own_rank}, alpha {settings.lora_alpha:g} on {', '.join(own_targets)}; set {wanted}",
        )


def _described(names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> tuple[str, tuple[str, ...]]:
    """The ranks, in words, and the adapted maps; `names` are the tensors' own by which they are plainly called."""
    ranks = {len(tensors[whole]) for whole, name in names.items() if ".lora_A." in name}
    maps = {name.partition(".lora_")[0].rpartition(".")[2] for name in names.values()}
    return " and ".join(map(str, sorted(ranks))), tuple(sorted(maps))


def _canonical(name: str) -> str:
    """A name without what peft puts into it, which depends on its release and on whether there are adapters."""
    for inserted, plain in (("base_model.model.", ""), (".base_layer.", "."), (".default.", ".")):
        name = name.removeprefix(inserted) if not plain else name.replace(inserted, plain)
    return name


def _adapter_config(path: Path, setting: str) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(setting, f"{path}: not readable as JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not _is_number(config.get("lora_alpha")):
        raise ConfigError(setting, f"{path}: describes no LoRA adapter")
    switched_on = [name for name in _OFF if config.get(name)]
    if config.get("bias", "none") != "none":
        switched_on.append("bias")
    if switched_on:
        raise ConfigError(setting, f"{path}: has {_listed(switched_on)} set, which adapters here do not have")
    return config


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
