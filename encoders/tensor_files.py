"""Tensors from files of any layout, read without running code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encoders.errors import EncoderError

_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")


def read_state(path: str) -> dict[str, Tensor]:
    """The tensors of a file, or of the `model.safetensors` or `pytorch_model.bin` of a folder, by name.

    Raises:
        EncoderError: there is no such file, it is cut short, or it holds something other than tensors.
    """
    place = Path(path).expanduser()
    file = next((place / name for name in _IN_FOLDERS if (place / name).is_file()), place)
    if file.is_dir():
        raise EncoderError(f"weights {path}: a folder without {' or '.join(_IN_FOLDERS)}; name the file in it")
    if not file.is_file():
        raise EncoderError(f"weights {path}: no such file")
    if file.suffix != ".safetensors" and not _looks_like_torch(file):
        raise EncoderError(f"weights {path}: no checkpoint; torch and safetensors files are read")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise EncoderError(
            f"weights {path}: holds more than tensors, which could run code when read; refused"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(f"weights {path}: cannot be read, it may be cut short: {first}") from None
    state = _tensors(loaded)
    if not state:
        raise EncoderError(f"weights {path}: holds no state dict, but {type(loaded).__name__}")
    return state


def _looks_like_torch(file: Path) -> bool:
    """Whether a file begins as torch writes them: a zip archive, or, before torch 1.6, a pickle."""
    with file.open("rb") as opened:
        return opened.read(2) in (b"PK", b"\x80\x02")


def _tensors(loaded: Any) -> dict[str, Tensor]:
    """The state dict in what a file held, also where it stands under a key of its own."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded.get(key), Mapping):
            return _tensors(loaded[key])
    return {str(name): tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
