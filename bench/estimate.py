"""What a run has to compute, and about how many seconds that takes, from declarations and a short measurement.

Such an estimate is rough: it is there for a study of which nothing is finished yet. Finished runs tell far more; what
they tell is in `bench.cost`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.config import Stage
from bench.device import device_of
from bench.errors import ConfigError, DeviceLostError
from bench.language_model import attach_lora, embedding_width, load_skeleton
from bench.layout import Layout, TokenisedExample
from bench.prepare import Prepared
from bench.released.base import needs_adapters
from bench.runtime import Runtime
from bench.study_states import steps_of
from tasks.base import Example
from tasks.prompts import PromptStyle, TextInput, UnwritableMoleculeError

_SAMPLE = 64  # examples whose lengths are measured

# Measured on the small language model on one core (transformers 5, peft): calls of torch for each module that holds no
# other, optimiser, trainer and checkpoint, as multiples of one call, and the share of the speed of large products
# that small ones reach.
_CALLS_PER_MODULE = 6
_CALLS_PER_STEP = 1500  # of the trainer, its callbacks and its logs
_CALLS_PER_TENSOR = 2  # of the optimiser
_CALLS_PER_TOKEN = 150  # of generation: choosing, caching, stopping
_SHARE_OF_SPEED = 1 / 3
_CHECKPOINT_SECONDS = 0.03
_MEASURED_FOR = 0.25  # seconds
_RUN_SECONDS = 1.5  # reading weights, writing files, scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What a training stage has to compute.

    Args:
        name: of the stage.
        steps: optimiser steps; None where they cannot be known.
        examples: of an optimiser step.
        tokens: mean positions of an example, soft tokens included.
        rows: mean rows that the encoder makes of an example's molecules.
        trained: trained parameters.
        trains_encoder: whether gradients go through the encoder.
        validated: examples of all its validations together.
        validations, checkpoints: how many there are.
    """

    name: str
    steps: int | None
    examples: int
    tokens: float
    rows: float
    trained: int
    trains_encoder: bool
    validated: int
    validations: int
    checkpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run has to compute.

    Args:
        encoder, projector, llm, adapters: parameters of each part.
        modules: modules of the language model, and of encoder and projector, that hold no other.
        stages: of training.
        asked: examples whose answers are written, each once for every pass (a second one under swapped graphs).
        prompt: mean positions of their prompts.
        new_tokens: longest answer.
        batch: prompts at once.
        beams: answers that are followed at once.
        likelihoods: examples whose gold answers' likelihood is measured, of all measurements together.
    """

    encoder: int
    projector: int
    llm: int
    adapters: int
    modules: tuple[int, int]
    stages: tuple[StageWork, ...]
    asked: int
    prompt: float
    new_tokens: int
    batch: int
    beams: int
    likelihoods: int

    @property
    def trained(self) -> int:
        """Parameters that any stage trains."""
        return max((stage.trained for stage in self.stages), default=0)


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast this machine is now, other work on it included.

    Args:
        flops: floating-point operations per second in a product of matrices.
        call: seconds of a call of torch that computes next to nothing.
    """

    flops: float
    call: float


@dataclass(frozen=True, slots=True)
class _Size:
    """Parameters of a language model and of its adapters, its modules, and its width."""

    parameters: int
    embeddings: int
    adapters: int
    modules: int
    width: int


def work_of(prepared: Prepared, runtime: Runtime) -> Work:
    """What a prepared run has to compute: sizes on the meta device, lengths of a sample of its examples.

    Raises:
        ConfigError: the language model's files cannot be read.
    """
    config = prepared.config
    size = _language_model_size(prepared, runtime)
    with torch.device("meta"):
        encoder, projector = config.encoder.build(), config.projector.build(prepared.levels, size.width)
    small = (_parameters(encoder), _parameters(projector))
    stages = []
    for position, (stage, data) in enumerate(zip(config.stages, prepared.stages, strict=True)):
        sample = _tokenised(prepared, runtime, data.training, (config.prompted_as(stage), config.written_in(stage)))
        steps = steps_of(stage, len(data.training))
        validations = 2 + (0 if not stage.validate_every or steps is None else (steps - 1) // stage.validate_every)
        stages.append(
            StageWork(
                name=stage.name,
                steps=steps,
                examples=stage.batch_size * stage.accumulation,
                tokens=_mean([min(len(e.ids), config.llm.max_length) for e in sample]),
                rows=_rows(prepared, sample),
                trained=_trained(stage, small, size, prepared),
                trains_encoder=stage.trains.encoder == "full" and config.encoder.is_trainable,
                validated=validations * len(prepared.stages[position].validation),
                validations=validations,
                checkpoints=(steps or 0) // stage.checkpoint_every,
            )
        )
    asked = [example for data in prepared.evaluations for example in data.readable]
    sample = _tokenised(prepared, runtime, asked, (config.asked_as, config.asked_in))
    evaluation = config.evaluation
    measured = evaluation.reliance is not None and config.projector.places_tokens
    return Work(
        encoder=small[0],
        projector=small[1],
        llm=size.parameters,
        adapters=size.adapters,
        modules=(size.modules, _leaves(encoder) + _leaves(projector)),
        stages=tuple(stages),
        asked=len(asked) * (1 + (measured and evaluation.reliance_answers)),
        prompt=_mean([example.prompt_length for example in sample]),
        new_tokens=evaluation.generation.max_new_tokens,
        batch=evaluation.generation.batch_size,
        beams=evaluation.generation.beams,
        likelihoods=(2 * len(asked) if measured else 0) + sum(len(example.candidates) for example in asked),
    )


def measured_speed(runtime: Runtime) -> Machine:
    """A short measurement, of half a second or so, on the device that runs would use.

    It counts time by the clock, pauses included: what else the machine does, it will do during the study too.
    """
    try:
        device = device_of(runtime)
    except DeviceLostError:  # the runs go to machines that have one
        device = torch.device("cpu")
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    size = 512 if device.type == "cpu" else 4096
    large, small = torch.ones(size, size, device=device), torch.ones(8, 8, device=device)
    return Machine(
        2 * size**3 / _seconds(lambda: large @ large, device, 1),
        _seconds(lambda: small + small, device, 200),
    )


def stage_seconds(work: Work, stage: StageWork, machine: Machine) -> float:
    """About how long training a stage takes; where its steps are not known, one step."""
    modules = sum(work.modules)
    forward = stage.tokens * work.llm + stage.rows * (work.encoder + work.projector)
    # Gradients go through the whole language model to what is trained in front of it, and into trained weights.
    backward = stage.tokens * (work.llm + stage.trained) + (
        2 * stage.rows * work.encoder if stage.trains_encoder else 0
    )
    step = _products(2 * (forward + backward) * stage.examples, machine)
    step += machine.call * (3 * _CALLS_PER_MODULE * modules + _CALLS_PER_TENSOR * modules + _CALLS_PER_STEP)
    batches = math.ceil(stage.validated / max(1, stage.examples))
    validation = _products(2 * forward * stage.validated, machine)
    validation += machine.call * (_CALLS_PER_MODULE * modules * batches + _CALLS_PER_STEP * stage.validations)
    return step * (stage.steps or 1) + validation + _CHECKPOINT_SECONDS * (stage.checkpoints + 1)


def asking_seconds(work: Work, machine: Machine) -> float:
    """About how long all but training takes: reading weights, writing answers of full length, likelihoods, scores."""
    batches = math.ceil(work.asked / work.batch)
    llm, rest = work.modules
    prompts = _products(2 * work.asked * work.prompt * (work.llm + work.adapters), machine)
    tokens = _products(2 * work.asked * work.beams * work.new_tokens * (work.llm + work.adapters), machine)
    calls = batches * (work.new_tokens * (_CALLS_PER_MODULE * llm + _CALLS_PER_TOKEN) + _CALLS_PER_MODULE * rest)
    likelihoods = _products(2 * work.likelihoods * (work.prompt + work.new_tokens) * work.llm, machine)
    calls += math.ceil(work.likelihoods / work.batch) * _CALLS_PER_MODULE * (llm + rest)
    return _RUN_SECONDS + prompts + tokens + likelihoods + machine.call * calls


def _products(flops: float, machine: Machine) -> float:
    return flops / (machine.flops * _SHARE_OF_SPEED)


def _seconds(compute: Callable[[], object], device: torch.device, at_a_time: int) -> float:
    """The mean seconds of a computation, repeated for a quarter of a second."""
    for _ in range(at_a_time):
        compute()  # the first ones warm up
    started, repeats = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < _MEASURED_FOR:
        for _ in range(at_a_time):
            compute()
        repeats += at_a_time
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return elapsed / repeats


def _language_model_size(prepared: Prepared, runtime: Runtime) -> _Size:
    llm, adapted = prepared.config.llm, needs_adapters(prepared.config)

    def measure() -> _Size:
        skeleton = load_skeleton(prepared.llm, llm.dtype)
        width, plain = embedding_width(skeleton), _parameters(skeleton)
        embedding = skeleton.get_input_embeddings().weight.numel()  # type: ignore[operator]
        if adapted:
            with torch.device("meta"):
                skeleton = attach_lora(skeleton, llm.lora)
        return _Size(plain, embedding, _parameters(skeleton) - plain, _leaves(skeleton), width)

    return runtime.memo.get("sizes", (prepared.llm.identity, llm.dtype, llm.lora if adapted else None), measure)


def _tokenised(
    prepared: Prepared, runtime: Runtime, examples: Sequence[Example], written: tuple[PromptStyle, TextInput]
) -> list[TokenisedExample]:
    """Some examples as tokens, taken evenly from all."""
    config = prepared.config
    layout = Layout(
        _tokenizer(prepared, runtime), *written, config.encoder, config.projector, prepared.store, config.llm.max_length
    )
    step = max(1, len(examples) // _SAMPLE)
    found = []
    for example in examples[::step][:_SAMPLE]:
        try:
            found += layout.tokenise([example])
        except UnwritableMoleculeError:
            continue  # its answer counts as wrong; it is not asked
    return found


def _tokenizer(prepared: Prepared, runtime: Runtime) -> Any:
    from transformers import AutoTokenizer

    def load() -> Any:
        try:
            return AutoTokenizer.from_pretrained(prepared.llm.path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError("llm.name", f"{prepared.llm.origin} has no tokenizer that can be read: {error}") from None

    return runtime.memo.get("tokenizers for estimates", prepared.llm.identity, load)


def _trained(stage: Stage, small: tuple[int, int], size: _Size, prepared: Prepared) -> int:
    trains = stage.trains
    of_llm = {"frozen": 0, "lora": size.adapters, "full": size.parameters}[trains.llm]
    if trains.embeddings == "full" and trains.llm != "full":
        of_llm += size.embeddings
    encoder = small[0] if trains.encoder == "full" and prepared.config.encoder.is_trainable else 0
    return encoder + (small[1] if trains.projector == "full" else 0) + of_llm


def _rows(prepared: Prepared, sample: Sequence[TokenisedExample]) -> float:
    """Mean rows that the encoder makes of an example's molecules, of its largest level."""
    molecules = [molecule for example in sample for molecule in example.molecules]
    if not molecules or not prepared.config.projector.places_tokens:
        return 0.0
    rows = prepared.config.encoder.rows(prepared.store.counts(molecules), len(molecules))
    return max((float(counts.sum()) for counts in rows.values()), default=0.0) / len(sample)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _leaves(module: nn.Module) -> int:
    return sum(not list(part.children()) for part in module.modules())


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
