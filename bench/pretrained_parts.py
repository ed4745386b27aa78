"""The pretrainings that a run names, done before it, and its parts with the weights that they gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from bench.config import RunConfig
from bench.errors import ConfigError
from bench.pretrain_encoder import HEADS_FILE, pretrain, pretraining_runtime
from bench.pretraining_config import PretrainingConfig
from bench.pretraining_stage import PretrainingStage
from bench.runtime import Runtime
from bench.tracking import mirror_to
from encoders.objectives import Objective
from tasks.data import Catalogue


def pretrainings_of(config: RunConfig) -> tuple[PretrainingConfig, ...]:
    """The pretrainings of a run's own encoder, as `molgraft pretrain-encoder` takes them.

    All but the first start from weights that are not there yet, so that the encoder is named without them.

    Raises:
        ConfigError: the encoder, or the projector that an objective pretrains too, has no setting for weights.
    """
    for part, declared in (("encoder", config.encoder), *_pretrained_projector(config)):
        if not any(declaration.name == "weights" for declaration in fields(declared)):
            raise ConfigError("pretraining", f"{part} {declared.name} has no setting `weights` to take what is learned")
    return tuple(_pretraining(config, stage) for stage in config.pretraining)


def with_pretrained(
    config: RunConfig, runtime: Runtime, catalogue: Catalogue | None = None
) -> tuple[RunConfig, tuple[str, ...]]:
    """The run with the weights of its pretrainings, which are done now where they are missing, and their folders.

    What it gives names weights and no pretraining any more: the same run, found by the same identity, as one that was
    given the files.

    Raises:
        ConfigError: see `pretrainings_of`.
        UserError: a pretraining cannot be done.
    """
    runtime = pretraining_runtime(runtime)
    folders: list[str] = []
    for number, pretraining in enumerate(pretrainings_of(config), start=1):
        runtime.say(f"pretraining {number} of {len(config.pretraining)}: {pretraining.name}")
        started = replace(pretraining, encoder=config.encoder)
        result = pretrain(started, runtime, catalogue=catalogue, mirror=mirror_to(started.name, runtime))
        config = replace(config, encoder=replace(config.encoder, weights=str(result.weights.resolve())))  # type: ignore[call-arg]
        if _projector_of(started.objective) is not None:
            weights = str((result.run.path / HEADS_FILE).resolve())
            config = replace(config, projector=replace(config.projector, weights=weights))  # type: ignore[call-arg]
        folders.append(result.run.path.name)
    return replace(config, pretraining=()), tuple(folders)


def _pretraining(config: RunConfig, stage: PretrainingStage) -> PretrainingConfig:
    settings = {declaration.name: getattr(stage, declaration.name) for declaration in fields(stage)}
    if _projector_of(stage.objective) is not None:
        settings["objective"] = replace(stage.objective, projector=config.projector)  # type: ignore[call-arg]
    return PretrainingConfig(encoder=config.encoder, **settings)


def _pretrained_projector(config: RunConfig) -> Sequence[tuple[str, Any]]:
    """The run's projector where an objective pretrains one, which must be of the same kind.

    Raises:
        ConfigError: it is of another.
    """
    for stage in config.pretraining:
        declared = _projector_of(stage.objective)
        if declared is not None and type(declared) is not type(config.projector):
            raise ConfigError(
                "pretraining",
                f"objective {stage.objective.name} pretrains a projector {declared.name}, and the run's is "
                f"{config.projector.name}",
            )
    pretrained = any(_projector_of(stage.objective) is not None for stage in config.pretraining)
    return (("projector", config.projector),) if pretrained else ()


def _projector_of(objective: Objective) -> Any:
    """The projector that an objective trains beside the encoder, or None."""
    return getattr(objective, "projector", None)
