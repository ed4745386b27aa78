"""What a run needs before anything is trained: examples, features, the language model, and what identifies them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from bench.config import TINY, RunConfig, Stage, WeightedTask
from bench.errors import UserError
from bench.identity import Inputs, cell_id, content_hash, examples_hash, stage_ids
from bench.language_model import LocatedModel, locate
from bench.model import wire
from bench.run_store import write_text
from bench.runtime import Runtime
from encoders.base import Level
from encoders.store import FeatureStore
from tasks.base import Example, Rejection, Split, Task
from tasks.data import Catalogue


@dataclass(frozen=True, slots=True)
class StageData:
    """The examples of a training stage."""

    training: tuple[Example, ...]
    validation: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """The examples of a task that the trained model is asked."""

    task: Task
    examples: tuple[Example, ...]
    limited: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before training.

    Args:
        levels: the encoder's levels that the projector reads, with their widths.
        rejections: rows left out, by `task/split`.
        sources: the files that the examples came from, by `data set/split`.
        cell: hash of the run but for its seed.
        stage_ids: hash of every stage; the last one is the run's `train_id`.
    """

    config: RunConfig
    levels: Mapping[Level, int]
    llm: LocatedModel
    stages: tuple[StageData, ...]
    evaluations: tuple[EvaluationData, ...]
    store: FeatureStore
    rejections: Mapping[str, Sequence[Rejection]]
    sources: Mapping[str, Mapping[str, Any]]
    cell: str
    stage_ids: tuple[str, ...]

    @property
    def train_id(self) -> str:
        """Hash of all training."""
        return self.stage_ids[-1]


def prepare(config: RunConfig, runtime: Runtime, catalogue: Catalogue | None = None) -> Prepared:
    """Reads the data, builds features and the small language model where they are missing, and names the run.

    Raises:
        UserError: anything is missing, does not fit together, or too many rows are unusable.
    """
    levels = wire(config.encoder, config.projector)
    for task in config.evaluation_tasks():
        for protocol in config.evaluation.protocols:
            protocol.identity(task.answer)  # a missing tokenizer must not be found out after hours of training
    reader = _Reader(config, catalogue or Catalogue())
    stages = tuple(reader.stage(stage) for stage in config.stages)
    evaluations = tuple(reader.evaluation(task) for task in config.evaluation_tasks())
    llm = _language_model(config, reader, runtime)

    store = _feature_store(config, [*_all_examples(stages, evaluations)], runtime)
    kept = partial(_without_rejected, store=store, rejections=reader.rejections)
    stages = tuple(
        StageData(kept(data.training, part="train"), kept(data.validation, part="validation")) for data in stages
    )
    evaluations = tuple(
        replace(data, examples=kept(data.examples, part=config.evaluation.split)) for data in evaluations
    )
    _refuse_losses(reader.rejections, stages, evaluations, config, runtime)

    inputs = Inputs(
        train=tuple(examples_hash(data.training) for data in stages),
        validation=tuple(examples_hash(data.validation) for data in stages),
        llm=llm.identity,
    )
    return Prepared(
        config,
        levels,
        llm,
        stages,
        evaluations,
        store,
        reader.rejections,
        reader.sources,
        cell_id(config, inputs),
        stage_ids(config, inputs),
    )


def subset(examples: Sequence[Example], limit: int | None) -> tuple[Example, ...]:
    """A pseudo-random subset in file order; smaller limits give subsets of larger ones.

    Chosen by a hash of the ids rather than from the top, where data sets are often sorted.
    """
    if limit is None or limit >= len(examples):
        return tuple(examples)
    by_hash = sorted(examples, key=lambda example: hashlib.sha256(example.id.encode()).digest())
    chosen = {example.id for example in by_hash[:limit]}
    return tuple(example for example in examples if example.id in chosen)


def small_language_model(config: RunConfig, catalogue: Catalogue, runtime: Runtime) -> LocatedModel:
    """The small language model of a configuration with `llm: tiny`, made now if the cache lacks it."""
    return _small_model(config, _Reader(config, catalogue), runtime)


def rejections_csv(rejections: Mapping[str, Sequence[Rejection]]) -> str:
    """The rows left out, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("part", "file", "line", "value", "reason"))
    for part, rows in rejections.items():
        writer.writerows((part, row.file, row.line, row.value, row.reason) for row in rows)
    return text.getvalue()


class _Reader:
    """Reads each task and split once, and remembers what was rejected and where it came from."""

    def __init__(self, config: RunConfig, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._read: dict[tuple[str, Split], tuple[Example, ...]] = {}
        self.rejections: dict[str, list[Rejection]] = {}
        self.sources: dict[str, Mapping[str, Any]] = {}

    def examples(self, task: Task, split: Split) -> tuple[Example, ...]:
        """All examples of a split."""
        key = (content_hash(task), split)
        if key not in self._read:
            examples, rejections = task.examples(split, self._catalogue)
            if not examples:
                raise UserError(f"task {task.name}: {task.data} has no usable row in its {split} split")
            self._read[key] = tuple(examples)
            self.rejections.setdefault(split, []).extend(rejections)
            source = self._catalogue.get(task.data).source(split)
            described = {"file": source.file, "sha256": source.sha256, "git_blob": source.git_blob, "note": source.note}
            self.sources[f"{task.data}/{split}"] = {**described, "where": {k: list(v) for k, v in source.where.items()}}
        return self._read[key]

    def stage(self, stage: Stage) -> StageData:
        """The mixture that a stage trains on, and the validation examples of all its tasks."""
        mixture = self._config.training_tasks(stage)
        limits = self._config.limits
        return StageData(
            _mixed([(w, subset(self.examples(w.task, "train"), limits.train)) for w in mixture]),
            _mixed([(w, subset(self.examples(w.task, "validation"), limits.validation)) for w in mixture], draw=False),
        )

    def evaluation(self, task: Task) -> EvaluationData:
        """The examples that are asked."""
        evaluation = self._config.evaluation
        examples = self.examples(task, evaluation.split)
        chosen = subset(examples, evaluation.limit)
        if evaluation.ids:
            known = {example.id: example for example in examples}
            unknown = [name for name in evaluation.ids if name not in known]
            if unknown:
                raise UserError(f"--ids: {task.data} has no {evaluation.split} example {unknown[0]!r}")
            chosen = tuple(known[name] for name in evaluation.ids)
        return EvaluationData(task, chosen, limited=len(chosen) < len(examples))


def _mixed(parts: Sequence[tuple[WeightedTask, tuple[Example, ...]]], draw: bool = True) -> tuple[Example, ...]:
    """Examples of several tasks; drawn so that each has its share of as many examples as there are in all."""
    if len(parts) == 1:
        return parts[0][1]
    total, weights = sum(len(examples) for _, examples in parts), sum(weighted.weight for weighted, _ in parts)
    mixed: list[Example] = []
    for position, (weighted, examples) in enumerate(parts):
        count = round(total * weighted.weight / weights) if draw else len(examples)
        shuffled = sorted(examples, key=lambda example: hashlib.sha256(example.id.encode()).digest())
        for index in range(count):
            example, again = shuffled[index % len(shuffled)], index // len(shuffled)
            name = f"{weighted.task.name}.{position}/{example.id}" + (f"#{again}" if again else "")
            mixed.append(replace(example, id=name))
    return tuple(mixed)


def _language_model(config: RunConfig, reader: _Reader, runtime: Runtime) -> LocatedModel:
    return _small_model(config, reader, runtime) if config.llm.name == TINY else locate(config.llm, runtime)


def _small_model(config: RunConfig, reader: _Reader, runtime: Runtime) -> LocatedModel:
    from bench.pretrain_lm import corpus_of, ensure_small_model

    # From the run's own task and before features are made, so that every cell of a study shares one model.
    training = subset(reader.examples(config.task, "train"), config.limits.train)
    return ensure_small_model(corpus_of(training), config.llm.tiny, runtime)


def _feature_store(config: RunConfig, examples: Sequence[Example], runtime: Runtime) -> FeatureStore:
    molecules = list(dict.fromkeys(molecule for example in examples for molecule in example.molecules))
    schemes = config.encoder.features() if config.projector.places_tokens else ()
    with Progress(console=runtime.console, disable=not runtime.bars, transient=True) as progress:
        bar = progress.add_task("featurising molecules", total=len(molecules))
        return FeatureStore.open_or_build(
            runtime.cache_folder("features"),
            schemes,
            molecules,
            workers=runtime.workers,
            advance=lambda done: progress.advance(bar, done),
        )


def _all_examples(stages: Iterable[StageData], evaluations: Iterable[EvaluationData]) -> Iterable[Example]:
    for data in stages:
        yield from data.training
        yield from data.validation
    for evaluated in evaluations:
        yield from evaluated.examples


def _without_rejected(
    examples: Sequence[Example], store: FeatureStore, rejections: dict[str, list[Rejection]], part: str
) -> tuple[Example, ...]:
    kept = []
    listed = rejections.setdefault(part, [])
    for example in examples:
        bad = next((molecule for molecule in example.molecules if molecule in store.rejected), None)
        if bad is None:
            kept.append(example)
            continue
        place = (str(example.meta.get("file", "")), int(example.meta.get("line", 0)))
        rejection = Rejection(*place, bad, store.rejected[bad])
        if rejection not in listed:  # stages may share their examples
            listed.append(rejection)
    return tuple(kept)


def _refuse_losses(
    rejections: Mapping[str, Sequence[Rejection]],
    stages: Sequence[StageData],
    evaluations: Sequence[EvaluationData],
    config: RunConfig,
    runtime: Runtime,
) -> None:
    kept = {
        "train": max(len(data.training) for data in stages),
        "validation": max(len(data.validation) for data in stages),
        config.evaluation.split: max(len(data.examples) for data in evaluations),
    }
    for part, listed in rejections.items():
        share = len(listed) / (len(listed) + kept.get(part, 0)) if listed else 0.0
        if share > runtime.max_rejected or not kept.get(part, 1):
            path = runtime.runs / f"rejected-{config.name}.csv"
            write_text(path, rejections_csv(rejections))
            first = listed[0]
            raise UserError(
                f"{len(listed)} of {len(listed) + kept.get(part, 0)} {part} rows are unusable ({share:.1%}; "
                f"--max-rejected allows {runtime.max_rejected:.1%}). The first is {first.file}:{first.line}, "
                f"{first.value[:60]!r}: {first.reason}. All are listed in {Path(path)}."
            )
