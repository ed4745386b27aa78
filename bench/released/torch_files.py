"""Tensors from the files that training frameworks write, read without running any code of theirs.

Checkpoints of Lightning (1.9.0 and 2.2.1 were looked at) are zip archives of plain containers, numbers, text and
tensors: `save_hyperparameters(args)` keeps a namespace or a dictionary as a plain dictionary. Where a data module keeps
`args` whole, and in MolX's checkpoints, an `argparse.Namespace` stands beside the tensors, which `torch.load` refuses.
Such bystanders of known packages become a stand-in that does nothing; any other name in a file has it refused.
"""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import ConfigError

State = Mapping[str, Tensor]

_BYSTANDERS = (
    "argparse.Namespace",
    "lightning.",
    "lightning_fabric.",
    "numpy.",
    "omegaconf.",
    "pathlib.",
    "peft.",
    "pytorch_lightning.",
    "transformers.",
)
"""Where classes come from that stand beside the tensors in files of the systems read here."""


class Inert:
    """Stands for an object that reading tensors needs nothing of: it takes whatever it is given and keeps nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        """An empty stand-in."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_torch(path: Path, setting: str, *keys: str) -> State:
    """The tensors of a safetensors file, of a torch file, or of a mapping inside the latter.

    Tensors of a zip archive are mapped into memory, so that those that nobody uses are never read.

    Args:
        path: the file.
        setting: what the user would change, for messages.
        keys: under which of these the tensors stand; they may also stand at the top.

    Raises:
        ConfigError: it is no such file, it is cut short, or reading it would run code.
    """
    if not path.is_file():
        raise ConfigError(setting, f"{path}: no such file")
    if path.suffix == ".safetensors":
        loaded: Any = _attempted(path, setting, lambda: load_file(path))
    else:
        loaded = _unpickled(path, setting)
    for key in keys:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping):
        raise ConfigError(setting, f"{path}: holds a {type(loaded).__name__}, where tensors by name are expected")
    strange = [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]
    if strange or not loaded:
        what = f"{strange[0]!r}, which is no tensor" if strange else "nothing"
        raise ConfigError(setting, f"{path}: holds {what}, where tensors by name are expected")
    if ragged := [str(name) for name, value in loaded.items() if value.layout is not torch.strided]:
        raise ConfigError(setting, f"{path}: {ragged[0]} is a sparse tensor, which no system read here has")
    return {str(name): tensor for name, tensor in loaded.items()}


def _unpickled(path: Path, setting: str) -> Any:
    """What a torch file holds, with stand-ins for bystanders."""
    with path.open("rb") as file:
        start = file.read(2)
    if start not in (b"PK", b"\x80\x02"):  # before torch 1.6 a file was a pickle and no archive
        raise ConfigError(setting, f"{path}: no checkpoint; torch and safetensors files are read")
    is_archive = start == b"PK"
    unknown = _attempted(path, setting, lambda: _unknown_names(path)) if is_archive else []
    if dangerous := sorted(name for name in unknown if not name.startswith(_BYSTANDERS)):
        raise ConfigError(setting, f"{path}: holds {dangerous[0]}, which could run code when read; refused")
    stand_ins: list[Any] = [(_stand_in(name), name) for name in unknown]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pickle protocols and of storages' old names
        return _attempted(
            path, setting, lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
        )


def _unknown_names(path: Path) -> list[str]:
    """The names that a file refers to and torch does not know as harmless, found without unpickling it."""
    return torch.serialization.get_unsafe_globals_in_checkpoint(path)


def _stand_in(name: str) -> Callable[..., Any]:
    """Torch's unpickler fills nothing but dictionaries of its own, so that theirs become one."""
    return OrderedDict if name.rpartition(".")[2] in {"AttrDict", "AttributeDict"} else Inert


def _attempted(path: Path, setting: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; whatever it raises over a file that is broken or hostile becomes one message.

    Raises:
        ConfigError: it raised something.
    """
    try:
        return read()
    except pickle.UnpicklingError:
        raise ConfigError(setting, f"{path}: holds more than tensors, which could run code; refused") from None
    except MemoryError:
        raise
    except Exception as error:  # readers meet broken bytes in many ways, all of which mean the same
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ConfigError(setting, f"{path}: cannot be read, it may be cut short: {first}") from None
