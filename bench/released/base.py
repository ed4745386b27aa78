"""What weights of a published system are: a file, and how its tensors are named here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from bench.errors import ConfigError
from encoders.base import CONTENT

if TYPE_CHECKING:
    from torch import Tensor

    from bench.config import RunConfig
    from bench.model import GraphLanguageModel


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file gives a model, and what of it is of no use.

    Args:
        tensors: under the model's own names, in shapes that fit; not yet on its device or in its types.
        ignored: names of the file's other tensors, by the reason for which they are left out.
    """

    tensors: Mapping[str, Tensor]
    ignored: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class ReleasedWeights(ABC):
    """Weights in the layout of a published system. One subclass, one file here.

    Args:
        path: the file or folder that the system's authors give out, or that their code writes.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1

    path: str = field(metadata=CONTENT)

    def sources(self) -> tuple[str, ...]:
        """The files and folders whose content is part of a run's identity.

        Raises:
            ConfigError: one is not there.
        """
        return (existing(self.path, "released.path"),)

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """Every tensor of the files under its name there. Reading runs no code of theirs.

        Raises:
            ConfigError: a file cannot be read safely.
        """

    @abstractmethod
    def account(self, model: GraphLanguageModel) -> Reading:
        """Where every tensor of the files goes in this model, or why it goes nowhere.

        Names and shapes decide, so that the model may have been trained since.

        Raises:
            ConfigError: a file cannot be read safely, is of another system, or does not fit the model.
        """

    def read(self, model: GraphLanguageModel) -> Mapping[str, Tensor]:
        """The tensors under the names of `model`, which has not been trained yet; it stays as it is.

        Raises:
            ConfigError: see `account`; or parts that the files leave to others are not those that they belong to.
        """
        return self.account(model).tensors

    def has_adapters(self) -> bool:
        """Whether the files hold low-rank adapters of the language model, which it must then be given first.

        Raises:
            ConfigError: a file cannot be read safely.
        """
        return any("lora_" in name for name in self.tensors())


def needs_adapters(config: RunConfig) -> bool:
    """Whether a run's language model has adapters: because a stage trains them, or because released weights hold some.

    Raises:
        ConfigError: the released weights cannot be read.
    """
    if any(stage.trains.llm == "lora" for stage in config.stages):
        return True
    return config.released is not None and config.released.has_adapters()


def existing(path: str, setting: str) -> str:
    """The path as it is.

    Raises:
        ConfigError: there is neither a file nor a folder.
    """
    if not Path(path).expanduser().exists():
        raise ConfigError(setting, f"{path}: no such file or folder")
    return path
