"""The configuration of a run: what is trained, on what, how it is asked and how it is scored.

Every field here changes a number and is part of a run's identity; what does not (device, workers, folders) is in
`bench.runtime`. Parsing and dumping are in `bench.parsing`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, MinLen

from bench.config_types import Alias, Count, Fraction, Precision, Rate, Schedule
from bench.errors import ConfigError
from bench.pretraining_stage import PretrainingStage
from bench.released.base import ReleasedWeights
from encoders.base import CONTENT, Encoder, GraphInput
from encoders.controls import Real
from projectors.base import Projector
from tasks.base import Split, Task
from tasks.metrics.base import Protocol
from tasks.prompts import PromptStyle, TextInput

Part = Literal["encoder", "projector", "llm", "embeddings"]
Kernels = Literal["eager", "compile", "liger"]

TINY = "tiny"
"""The language model that molgraft trains itself; any other `llm.name` is a path or a name on a model hub."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank adapters on the language model (peft).

    Args:
        r: rank.
        alpha: scale; updates are multiplied by alpha / r.
        dropout: on the adapters' input.
        targets: names of the linear maps, or `all-linear`: every one but the output embedding. Each name must exist.
    """

    r: Count = 8
    alpha: Rate = 16.0
    dropout: Fraction = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"


@dataclass(frozen=True, kw_only=True)
class TinyRecipe:
    """How the small language model is made: a byte-level BPE tokenizer and a Llama, trained on the task's own text.

    Args:
        vocabulary: entries of the tokenizer.
        width: hidden width; the MLP is 2.75 times as wide.
        layers: transformer blocks.
        heads: attention heads.
        context: longest sequence, in tokens.
        steps: optimiser steps of pretraining; 0 leaves the weights random.
        batch_tokens: tokens per step.
        block: length of the blocks of text that are trained on.
        lr: peak learning rate, cosine to a tenth after 5% of warm-up.
        seed: of the weights and of the order of text; not the run's, so that all seeds of a study share one model.
    """

    vocabulary: Annotated[int, Ge(300)] = 1000
    width: Count = 128
    layers: Count = 2
    heads: Count = 2
    context: Count = 1024
    steps: Annotated[int, Ge(0)] = 300
    batch_tokens: Count = 2048
    block: Count = 128
    lr: Rate = 3e-3
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """The language model.

    Args:
        name: `tiny`, a local path, or a name on the model hub.
        revision: commit of a hub model; a name without one is a moving target and is refused off line.
        dtype: of the frozen weights; adapters and projectors are always fp32.
        lora: the adapters that stages with `llm: lora` train.
        tiny: the recipe of `tiny`.
        quantisation: of the frozen weights while they are loaded, by bitsandbytes (optional extra `quantisation`).
        weights: `random` builds a known architecture at full size with random weights, for measurements of speed and
            memory where the published weights are not at hand; its scores mean nothing, and the result says so.
        max_length: longest training sequence in tokens, soft tokens included; longer answers are cut and counted.
        packing: whether the sequences of a batch lie one behind the other, each seeing itself alone, instead of being
            padded to the longest: the same losses but for rounding (with dropout, in distribution only), and no time
            for padding. A model whose attention cannot be told where sequences end is padded all the same.
        kernels: what computes the blocks while they are trained: `eager` for torch's kernels one by one; `compile` for
            `torch.compile`, which fuses them, and needs a C++ compiler on a CPU; `liger` for the Triton kernels of
            Liger (optional extra `liger`), on a CUDA GPU. The same losses but for rounding (with dropout, `compile` in
            distribution only). Answers are always written by `eager`.
    """

    name: str = TINY
    revision: str | None = None
    dtype: Precision = "fp32"
    lora: Lora = field(default_factory=Lora)
    tiny: TinyRecipe = field(default_factory=TinyRecipe)
    quantisation: Literal["none", "8bit", "4bit"] = field(default="none", metadata={"neutral": "none"})
    weights: Literal["pretrained", "random"] = field(default="pretrained", metadata={"neutral": "pretrained"})
    max_length: Count = 512
    packing: bool = field(default=True, metadata={"neutral": True})
    kernels: Kernels = field(default="eager", metadata={"neutral": "eager"})


@dataclass(frozen=True, kw_only=True)
class Trains:
    """Which parts a stage trains; a frozen part stays in evaluation mode, so that batch norm statistics stay too.

    Args:
        llm: `full` includes its embeddings.
        embeddings: the language model's token embeddings (and its output embedding, where the two are tied).
    """

    encoder: Literal["frozen", "full"] = "frozen"
    projector: Literal["frozen", "full"] = "full"
    llm: Literal["frozen", "lora", "full"] = "frozen"
    embeddings: Literal["frozen", "full"] = "frozen"


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW with a learning rate per part.

    Args:
        lr: peak learning rate of every part that has none of its own.
        lr_of: learning rates of single parts.
        max_grad_norm: gradients are clipped to it; 0 for never.
    """

    lr: Rate = 1e-3
    lr_of: dict[Part, Rate] = field(default_factory=dict)
    weight_decay: Annotated[float, Ge(0)] = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    epsilon: Rate = 1e-8
    max_grad_norm: Annotated[float, Ge(0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class WeightedTask:
    """A task of a mixture and its share of the examples seen, relative to the others."""

    task: Task
    weight: Rate = 1.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training stage.

    Args:
        name: `align`, `tune`, or another word; unique in a run.
        tasks: the mixture; empty for the run's task.
        steps: optimiser steps; or else `epochs`.
        epochs: passes over the training examples; or else `steps`.
        batch_size: examples of a batch, of all processes and forward passes together.
        accumulation: batches per optimiser step.
        validate_every: optimiser steps between validations, each of which may also become the best checkpoint; 0
            validates at the end only. Validation always runs at the end.
        checkpoint_every: optimiser steps between checkpoints to resume from.
        keep: which weights the stage hands on: the `last`, or the `best` by validation loss.
        length_groups: batches of examples of similar length: another order of examples, and less padding where batches
            are padded.
        cache_encoder: a frozen encoder encodes each molecule of the stage once, and batches read from disk what it made
            of them: the same losses but for rounding. Stages and runs with the same weights and molecules share it.
        prompt: what surrounds questions in this stage; None for the run's.
        text_input: how molecules are written in this stage; None for the run's.
    """

    name: Alias
    tasks: tuple[WeightedTask, ...] = ()
    trains: Trains = field(default_factory=Trains)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    steps: Count | None = None
    epochs: Rate | None = None
    batch_size: Count = 16
    accumulation: Count = 1
    validate_every: Annotated[int, Ge(0)] = 0
    checkpoint_every: Count = 500
    keep: Literal["last", "best"] = "last"
    length_groups: bool = False
    cache_encoder: bool = field(default=False, metadata={"neutral": False})
    prompt: PromptStyle | None = field(default=None, metadata={"neutral": None})
    text_input: TextInput | None = field(default=None, metadata={"neutral": None})

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ConfigError("", f"stage {self.name!r} needs exactly one of `steps` and `epochs`")
        trains = self.trains
        if (trains.encoder, trains.projector, trains.llm, trains.embeddings) == ("frozen",) * 4:
            raise ConfigError("", f"stage {self.name!r} trains nothing: every part is frozen")


@dataclass(frozen=True, kw_only=True)
class GraphInputs:
    """What stands in for graphs, at training (validation included) and at test."""

    train: GraphInput = field(default_factory=Real)
    test: GraphInput = field(default_factory=Real)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How many examples of a split are used; a seeded subset that does not depend on the run's seed. None for all."""

    train: Count | None = None
    validation: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How answers are written: greedily, by beam search, or drawn.

    Args:
        max_new_tokens: longest answer.
        beams: 1 is greedy.
        batch_size: prompts at once; part of the identity, since low-precision results depend on it.
        min_new_tokens: shortest answer.
        length_penalty: of beam search; above 1 favours longer answers.
        temperature: 0 writes the likeliest token; above it, tokens are drawn, from the run's seed.
        top_k: how many of the likeliest tokens are drawn from, where they are; 0 for all.
    """

    max_new_tokens: Count = 128
    beams: Count = 1
    batch_size: Count = 32
    min_new_tokens: Annotated[int, Ge(0)] = field(default=0, metadata={"neutral": 0})
    length_penalty: float = field(default=1.0, metadata={"neutral": 1.0})
    temperature: Annotated[float, Ge(0)] = field(default=0.0, metadata={"neutral": 0.0})
    top_k: Annotated[int, Ge(0)] = field(default=0, metadata={"neutral": 0})

    def __post_init__(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError("min_new_tokens", f"is {self.min_new_tokens}, more than max_new_tokens")
        if self.temperature and self.beams > 1:
            raise ConfigError("temperature", "answers are either drawn or searched for by beams; set one of the two")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is asked of the trained model, and by which protocols the answers are scored.

    Args:
        tasks: empty for the run's task.
        split: the examples that are asked.
        limit: a seeded subset of so many; such a result is stamped LIMITED and stays off leaderboards.
        ids: only these examples; stamped likewise.
        protocols: each gives its own row; rows of different protocols are never ranked together.
        reliance: the graph that each one is swapped for to measure whether the graph is used; None to skip it.
        reliance_answers: whether answers are generated under the swapped graphs too, so that the change of every metric
            is measured beside the change of the gold answer's likelihood; it doubles the time that generation takes.
        text_input: how molecules are written when the trained model is asked; None for as in training.
        prompt: what surrounds questions when it is asked; None for as in training.
    """

    tasks: tuple[Task, ...] = ()
    split: Split = "test"
    limit: Count | None = None
    ids: tuple[str, ...] = ()
    generation: Generation = field(default_factory=Generation)
    protocols: Annotated[tuple[Protocol, ...], MinLen(1)]
    reliance: GraphInput | None = None
    reliance_answers: bool = True
    text_input: TextInput | None = None
    prompt: PromptStyle | None = field(default=None, metadata={"neutral": None})


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The preset that a configuration was made from, and which of its choices are in force; no part of an identity.

    Args:
        preset: its name.
        scale: of the recipe.
        fidelity: which side is taken where a paper and its released code disagree.
        switches: every choice by name, and the value that is in force, `(overridden)` where a later setting undid it.
    """

    preset: str
    scale: str = ""
    fidelity: str = ""
    switches: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A run without its seed is a cell; with it, a run.

    Args:
        name: alias in folder names and tables; not part of the identity.
        precision: of the forward pass while training; bf16 is autocast.
        pretraining: what the encoder, and a Q-Former, learn first, one after the other; each starts from the weights of
            the one before.
        released: weights of a published system that training, or asking, starts from.
        stages: none to ask the model as it is.
        origin: the preset that this was made from.
    """

    name: Alias
    task: Task
    prompt: PromptStyle
    text_input: TextInput
    encoder: Encoder
    projector: Projector
    graph_input: GraphInputs = field(default_factory=GraphInputs)
    llm: LanguageModel = field(default_factory=LanguageModel)
    precision: Precision = "fp32"
    limits: Limits = field(default_factory=Limits)
    pretraining: tuple[PretrainingStage, ...] = ()
    released: ReleasedWeights | None = None
    stages: tuple[Stage, ...]
    evaluation: Evaluation
    seed: Annotated[int, Ge(0)] = 0
    origin: Origin | None = field(default=None, metadata=CONTENT)

    def __post_init__(self) -> None:
        for path, parts in (("stages", self.stages), ("pretraining", self.pretraining)):
            names = [part.name for part in parts]
            for name in names:
                if names.count(name) > 1:
                    raise ConfigError(path, f"two stages are named {name!r}; names must differ")
        if self.graph_input.train.is_for_test_only:
            raise ConfigError(
                "graph_input.train",
                f"is {self.graph_input.train.name}, which leaves some molecules their own graph; use it at test only",
            )
        for stage in self.stages:
            if stage.cache_encoder and stage.trains.encoder == "full" and self.encoder.is_trainable:
                raise ConfigError(
                    f"stages.{stage.name}.cache_encoder",
                    "is true, and the stage trains the encoder, which then makes something else of a molecule after "
                    "every step. Freeze it (`trains.encoder: frozen`), or set false",
                )
            if stage.cache_encoder and self.encoder.depends_on_batch:
                raise ConfigError(
                    f"stages.{stage.name}.cache_encoder",
                    f"is true, and what encoder {self.encoder.name} makes of a molecule depends on the others in its "
                    "batch. Set false",
                )
            if stage.trains.llm == "full" and self.llm.quantisation != "none":
                raise ConfigError(
                    "llm.quantisation",
                    f"is {self.llm.quantisation}, and stage {stage.name!r} trains the whole language model; quantised "
                    "weights stay as they are. Train adapters (`llm: lora`), or set `none`",
                )
            # Embeddings alone can be kept in 32 bits (`bench.language_model.embeddings_in_full_precision`).
            if stage.trains.llm == "full" and self.llm.dtype != "fp32":
                raise ConfigError(
                    "llm.dtype",
                    f"is {self.llm.dtype}, and stage {stage.name!r} trains these weights: small steps would "
                    "be rounded away. Use fp32, with `precision: bf16` for speed",
                )

    def training_tasks(self, stage: Stage) -> tuple[WeightedTask, ...]:
        """The mixture of a stage."""
        return stage.tasks or (WeightedTask(task=self.task),)

    @property
    def asked_in(self) -> TextInput:
        """How molecules are written when the trained model is asked."""
        return self.evaluation.text_input or self.text_input

    @property
    def asked_as(self) -> PromptStyle:
        """What surrounds questions when the trained model is asked."""
        return self.evaluation.prompt or self.prompt

    def written_in(self, stage: Stage) -> TextInput:
        """How molecules are written in a stage."""
        return stage.text_input or self.text_input

    def prompted_as(self, stage: Stage) -> PromptStyle:
        """What surrounds questions in a stage."""
        return stage.prompt or self.prompt

    def evaluation_tasks(self) -> tuple[Task, ...]:
        """The tasks whose answers are scored."""
        return self.evaluation.tasks or (self.task,)
