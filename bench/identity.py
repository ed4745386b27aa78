"""Content hashes that say whether two pieces of work are the same: `train_id -> predict_id -> score_id`.

A hash covers everything that changes a number and nothing that does not. It is made of declarations (name, version and
fields of every component), of the content of the examples, and of the weights that training starts from, so that equal
work is found wherever it was done, and a change of any kind gives another identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from bench.registry import source_identity
from tasks.base import Example, Task

if TYPE_CHECKING:
    from bench.config import RunConfig, Stage

HASH_VERSION = 5  # raised when the recipe of a hash changes, or the code changes numbers without a declaration changing


@dataclass(frozen=True, slots=True)
class Inputs:
    """The contents that a run starts from, as hashes.

    Args:
        train: of the training mixture per stage (examples and weights), in stage order.
        validation: of the validation examples per stage.
        llm: of the language model's files, tokenizer included.
        encoder, projector: of the files that they name: pretrained weights, tokenizers.
        released: of the files of released weights.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    llm: str
    encoder: tuple[str, ...] = ()
    projector: tuple[str, ...] = ()
    released: tuple[str, ...] = ()


def content_hash(value: object) -> str:
    """First 16 hex digits of the sha256 of `value` in canonical JSON."""
    canonical = json.dumps(
        _described(value), sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def examples_hash(examples: Iterable[Example]) -> str:
    """Hash of examples in order: ids, molecules, turns and candidates (`meta` is read by no model)."""
    digest = hashlib.sha256()
    for example in examples:
        turns = [(turn.role, turn.text, turn.supervised) for turn in example.turns]
        row = [example.id, example.molecules, turns, example.candidates]
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]


def stage_ids(config: RunConfig, inputs: Inputs) -> tuple[str, ...]:
    """One hash per stage, of everything up to and including it; two runs share a stage where these are equal.

    Settings that no stage so far has read (adapters before the first stage that trains them) are left out.
    """
    return tuple(content_hash(_training(config, inputs, config.stages[: k + 1])) for k in range(len(config.stages)))


def train_id(config: RunConfig, inputs: Inputs) -> str:
    """Hash of all training: the last stage's, or of what is asked as it is where there is none."""
    return (stage_ids(config, inputs) or (content_hash(_training(config, inputs, ())),))[-1]


def predict_id(config: RunConfig, trained: str, task: Task, examples: Sequence[Example]) -> str:
    """Hash of a set of predictions: the trained model, the examples asked and how answers are generated."""
    evaluation = config.evaluation
    return content_hash(
        {
            "hash": HASH_VERSION,
            "train": trained,
            "task": task,
            "examples": examples_hash(examples),
            "split": evaluation.split,
            "limited": bool(evaluation.limit or evaluation.ids),
            "graph_input": config.graph_input.test,
            "text_input": config.asked_in,
            "generation": evaluation.generation,
            **_asked_differently(config),
        }
    )


def reliance_id(config: RunConfig, trained: str, examples: Sequence[Example]) -> str:
    """Hash of a measurement of reliance: the trained model, the examples, and what graphs are swapped for."""
    return content_hash(
        {
            "hash": HASH_VERSION,
            "train": trained,
            "examples": examples_hash(examples),
            "graph_input": config.graph_input.test,
            "text_input": config.asked_in,
            "swap": config.evaluation.reliance,
            "equal_in": ["atoms", "soft tokens"],
            "batch_size": config.evaluation.generation.batch_size,
            **_asked_differently(config),
        }
    )


def swapped_answers_id(config: RunConfig, trained: str, task: Task, examples: Sequence[Example]) -> str:
    """Hash of the answers that are generated while graphs are swapped."""
    return content_hash(
        {
            "predict": predict_id(config, trained, task, examples),
            "reliance": reliance_id(config, trained, examples),
        }
    )


def score_id(predicted: str, protocol: object, metrics: Sequence[object], depends_on: Mapping[str, str]) -> str:
    """Hash of scores: the predictions, the protocol's and its metrics' declarations, its tokenizer and packages."""
    return content_hash(
        {"predict": predicted, "protocol": protocol, "metrics": list(metrics), "identity": dict(depends_on)}
    )


def evaluation_id(config: RunConfig, task: Task) -> str:
    """Hash of how a model is asked, whatever model and whichever examples: runs that share it may be compared."""
    evaluation = config.evaluation
    return content_hash(
        {
            "task": task,
            "split": evaluation.split,
            "graph_input": config.graph_input.test,
            "text_input": None if config.asked_in == config.text_input else config.asked_in,
            "generation": evaluation.generation,
            "swap": evaluation.reliance,
            **_asked_differently(config),
        }
    )


def cell_id(config: RunConfig, inputs: Inputs) -> str:
    """Hash of all training but the seed: runs of one cell may be averaged."""
    return content_hash(_training(config, inputs, config.stages, seeded=False))


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for each use, so that adding a part does not shift the random numbers of the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "big")


def _training(config: RunConfig, inputs: Inputs, stages: Sequence[Stage], seeded: bool = True) -> Mapping[str, Any]:
    adapted = any(stage.trains.llm == "lora" for stage in stages)
    # Adapters wrap the maps of the language model, whose trained weights then have other names.
    whole = any(stage.trains.llm == "full" or stage.trains.embeddings == "full" for stage in stages)
    adapted = adapted or (whole and any(stage.trains.llm == "lora" for stage in config.stages))
    # Whether released weights hold adapters is in their files; the settings are then read, and must fit.
    adapted = adapted or config.released is not None
    done = len(stages)
    return {
        "hash": HASH_VERSION,
        "prompt": config.prompt,
        "text_input": config.text_input,
        "encoder": config.encoder,
        "projector": config.projector,
        "graph_input": config.graph_input.train,
        "llm": inputs.llm,
        "encoder_files": inputs.encoder,
        "projector_files": inputs.projector,
        **({} if config.released is None else {"released": config.released, "released_files": inputs.released}),
        "dtype": config.llm.dtype,
        **({} if config.llm.quantisation == "none" else {"quantisation": config.llm.quantisation}),
        "max_length": config.llm.max_length,
        **({} if config.llm.packing else {"packing": False}),
        **({} if config.llm.kernels == "eager" else {"kernels": config.llm.kernels}),
        "task_names": _task_names(config, stages) if config.projector.reads_context else None,
        "lora": config.llm.lora if adapted else None,
        "precision": config.precision,
        "stages": [_without(stage, "name", "tasks", "checkpoint_every") for stage in stages],
        "train": inputs.train[:done],
        "validation": inputs.validation[:done],
        "seed": config.seed if seeded else None,
    }


def _asked_differently(config: RunConfig) -> Mapping[str, Any]:
    """The prompt in which a model is asked, where it is another one than training's."""
    return {} if config.asked_as == config.prompt else {"prompt": config.asked_as}


def _task_names(config: RunConfig, stages: Sequence[Stage]) -> list[list[str]]:
    """The names of each stage's tasks, which a projector may read beside the content of the examples."""
    return [[weighted.task.name for weighted in config.training_tasks(stage)] for stage in stages]


def _without(value: object, *names: str) -> Mapping[str, Any]:
    """A declaration without fields whose content is hashed elsewhere or changes no number."""
    described = dict(_described(value))
    for name in names:
        described.pop(name)
    return described


def _described(value: object) -> Any:
    """`value` in JSON's terms; a component with its name, its version and, from outside our rooms, its source."""
    if is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        described = {f.name: _described(getattr(value, f.name)) for f in fields(value) if not _is_left_out(f, value)}
        if hasattr(cls, "version"):
            described |= {"name": cls.name, "version": cls.version}  # type: ignore[attr-defined]
            source = source_identity(cls)
            described |= {"source": source} if source else {}
        return described
    if isinstance(value, Mapping):
        return {str(key): _described(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_described(item) for item in value]
    return value


def _is_left_out(field: Any, value: object) -> bool:
    """Whether a field's value is hashed elsewhere, or changes nothing.

    The name of a file is no part of an identity; what it holds is, through `Inputs`. A field that was added later has a
    value at which nothing changes, so that old identities stay.
    """
    is_neutral = "neutral" in field.metadata and getattr(value, field.name) == field.metadata["neutral"]
    return is_neutral or bool(field.metadata.get("content"))
