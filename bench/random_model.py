"""Published architectures at full size with random weights: what they cost can be measured without their files.

Answers of such a model mean nothing. Its identity, its origin and a run's result say so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from bench.identity import content_hash
from bench.known_models import RANDOM_SEED, configuration, known_architecture
from bench.language_model import LocatedModel
from bench.runtime import Runtime

_VERSION = 1  # raised when the same text and architecture begin to give another model
_VOCABULARY = 8000  # entries of the tokenizer, where the model has as many; enough for tokens of several letters


def ensure_random_model(corpus: Sequence[str], name: str, runtime: Runtime) -> LocatedModel:
    """The configuration of a published model and a tokenizer of the task's text; `load` draws the weights.

    Raises:
        ConfigError: its architecture is not known.
    """
    architecture = known_architecture(name)
    text = hashlib.sha256("\0".join(corpus).encode()).hexdigest()
    found = content_hash([_VERSION, name, dict(architecture.config), RANDOM_SEED, text])
    root = runtime.cache_folder("language-models")
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f"random-{found}"
    with FileLock(root / f"{folder.name}.lock"):
        if not folder.exists():
            _make(corpus, name, folder)
    origin = f"RANDOM WEIGHTS in the architecture of {name} (seed {RANDOM_SEED}, {found}), not its published ones"
    return LocatedModel(folder, f"random-{found}", origin, is_random=True)


def _make(corpus: Sequence[str], name: str, folder: Path) -> None:
    from bench.pretrain_lm import special_tokenizer, train_tokenizer

    architecture = known_architecture(name)
    vocabulary = min(_VOCABULARY, int(architecture.config["vocab_size"]))
    work = folder.with_suffix(".partial")
    special_tokenizer(train_tokenizer(corpus, vocabulary)).save_pretrained(work)
    configuration(architecture, pad_token_id=0, bos_token_id=1, eos_token_id=2).save_pretrained(work)
    os.replace(work, folder)
