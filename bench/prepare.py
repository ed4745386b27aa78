"""What a run needs before anything is trained: examples, features, the language model, and what identifies them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.config import TINY, RunConfig, Stage, WeightedTask
from bench.errors import UserError
from bench.features import open_features
from bench.identity import Inputs, cell_id, content_hash, examples_hash, stage_ids, train_id
from bench.language_model import LocatedModel, locate
from bench.model import wire
from bench.model_files import contents
from bench.run_store import write_text
from bench.runtime import Runtime
from encoders.base import Level
from encoders.store import FeatureStore
from tasks.base import Example, Rejection, Split, Task
from tasks.data import Catalogue
from tasks.metrics.base import Protocol
from tasks.prompts import PromptStyle, TextInput, UnwritableMoleculeError, written_molecules


@dataclass(frozen=True, slots=True)
class StageData:
    """The examples of a training stage."""

    training: tuple[Example, ...]
    validation: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """The examples of a task that the trained model is asked.

    Args:
        unreadable: ids of examples whose molecules cannot be featurised. They are not dropped, or cells with different
            feature schemes would be scored on different examples: their answers count as wrong.
    """

    task: Task
    examples: tuple[Example, ...]
    limited: bool
    unreadable: frozenset[str] = frozenset()

    @property
    def readable(self) -> tuple[Example, ...]:
        """The examples that the model can be asked."""
        return tuple(example for example in self.examples if example.id not in self.unreadable)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run before training.

    Args:
        levels: the encoder's levels that the projector reads, with their widths.
        rejections: rows that cannot be used, by split.
        sources: the files that the examples came from, by `data set/split`.
        files: hashes of the files that the encoder, the projector and released weights name.
        cell: hash of the run but for its seed.
        stage_ids: hash of every stage.
        train_id: hash of all training: the last stage's, or of what is asked as it is where there is none.
        pretrained: folders of the pretrainings that the run starts from.
    """

    config: RunConfig
    levels: Mapping[Level, int]
    llm: LocatedModel
    stages: tuple[StageData, ...]
    evaluations: tuple[EvaluationData, ...]
    store: FeatureStore
    rejections: Mapping[str, Sequence[Rejection]]
    sources: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, tuple[str, ...]]
    cell: str
    stage_ids: tuple[str, ...]
    train_id: str
    pretrained: tuple[str, ...] = ()


def prepare(config: RunConfig, runtime: Runtime, catalogue: Catalogue | None = None) -> Prepared:
    """Reads the data, builds features and the small language model where they are missing, and names the run.

    Raises:
        UserError: anything is missing, does not fit together, or too many rows are unusable.
    """
    files = _files(config, runtime)
    if config.released is not None:
        config.released.tensors()  # one that cannot be read must not be found out after hours of preparation
    levels = wire(config.encoder, config.projector)
    _check_graph_inputs(config)
    for task in config.evaluation_tasks():
        for protocol in fitting_protocols(config.evaluation.protocols, task):
            protocol.identity(task.answer)  # a missing tokenizer must not be found out after hours of training
    reader = _Reader(config, catalogue or Catalogue())
    stages = tuple(reader.stage(stage) for stage in config.stages)
    evaluations = tuple(reader.evaluation(task) for task in config.evaluation_tasks())
    for split, listed in reader.rejections.items():
        _refuse_losses(listed, reader.rows_read[split], split, reader.rejections, config, runtime)
    pretrained: tuple[str, ...] = ()
    if config.pretraining:
        from bench.pretrained_parts import with_pretrained

        config, pretrained = with_pretrained(config, runtime, catalogue)
        files = _files(config, runtime)
    llm = _language_model(config, reader, runtime)

    every = (molecule for example in _all_examples(stages, evaluations) for molecule in example.molecules)
    store = open_features(config.encoder.features() if config.projector.places_tokens else (), every, runtime)

    # Written once for each way, and not for every stage and part: SELFIES take milliseconds a molecule.
    unwritable = {
        written: _unwritable(_all_examples(stages, evaluations), written)
        for written in {*(config.written_in(stage) for stage in config.stages), config.asked_in}
    }

    def unreadable(examples: Sequence[Example], split: str, style: PromptStyle, written: TextInput) -> frozenset[str]:
        rejected = _rejected(examples, store.rejected, style, unwritable[written])
        listed = reader.rejections.setdefault(split, [])
        listed += [rejection for rejection in rejected.values() if rejection not in listed]  # stages share examples
        _refuse_losses(list(rejected.values()), len(examples), split, reader.rejections, config, runtime)
        return frozenset(rejected)

    def readable(examples: Sequence[Example], split: str, stage: Stage) -> tuple[Example, ...]:
        without = unreadable(examples, split, config.prompted_as(stage), config.written_in(stage))
        return tuple(example for example in examples if example.id not in without)

    stages = tuple(
        StageData(readable(data.training, "train", stage), readable(data.validation, "validation", stage))
        for stage, data in zip(config.stages, stages, strict=True)
    )
    evaluations = tuple(
        replace(data, unreadable=unreadable(data.examples, config.evaluation.split, config.asked_as, config.asked_in))
        for data in evaluations
    )

    for stage, data in zip(config.stages, stages, strict=True):
        _refuse_stage_without_graphs(stage, data)
    inputs = Inputs(
        train=tuple(examples_hash(data.training) for data in stages),
        validation=tuple(examples_hash(data.validation) for data in stages),
        llm=llm.identity,
        **files,
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
        files,
        cell_id(config, inputs),
        stage_ids(config, inputs),
        train_id(config, inputs),
        pretrained,
    )


def _files(config: RunConfig, runtime: Runtime) -> Mapping[str, tuple[str, ...]]:
    """Hashes of the files that the encoder, the projector and released weights name."""
    parts = {"encoder": config.encoder, "projector": config.projector, "released": config.released}
    return {part: contents(named.sources(), runtime, part) for part, named in parts.items() if named is not None}


def _refuse_stage_without_graphs(stage: Stage, data: StageData) -> None:
    """Stops before a stage that would train nothing but what reads graphs, on questions that hold no molecule."""
    trains = stage.trains
    reads_text = trains.llm != "frozen" or trains.embeddings != "frozen"
    if not reads_text and not any(example.molecules for example in data.training):
        raise UserError(
            f"stage {stage.name!r} trains the encoder or the projector only, and none of its questions holds a "
            "molecule; let it train the language model too (trains.llm: lora), or leave it out"
        )


def _check_graph_inputs(config: RunConfig) -> None:
    """Finds out now, and not after hours of training, that something cannot stand in the place of graphs."""
    if not config.projector.places_tokens:
        return
    columns = {name for scheme in config.encoder.features() for name in scheme.columns()}
    for graph_input in (config.graph_input.train, config.graph_input.test, config.evaluation.reliance):
        if graph_input is not None:
            graph_input.check(columns)


def fitting_protocols(protocols: Sequence[Protocol], task: Task) -> tuple[Protocol, ...]:
    """The protocols that score a task's kind of answer: the tasks of a mixture may need different ones.

    Raises:
        UserError: none does.
    """
    fitting = tuple(protocol for protocol in protocols if task.answer in protocol.metrics())
    if not fitting:
        offered = "; ".join(f"{protocol.name} scores {', '.join(protocol.metrics())}" for protocol in protocols)
        raise UserError(
            f"evaluation.protocols: none scores the answers of task {task.name}, which are of the kind "
            f"{task.answer!r}. {offered}"
        )
    return fitting


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
    """The language model of a configuration that molgraft makes itself, made now if the cache lacks it."""
    return _language_model(config, _Reader(config, catalogue), runtime)


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
        self.rows_read: dict[str, int] = {}
        self.sources: dict[str, Mapping[str, Any]] = {}

    def examples(self, task: Task, split: Split) -> tuple[Example, ...]:
        """All examples of a split."""
        key = (content_hash(task), split)
        if key not in self._read:
            examples, rejections = task.examples(split, self._catalogue)
            if not examples:
                raise UserError(f"task {task.name}: {task.data} has no usable row in its {split} split")
            # A projector may read which task an example belongs to, so every example carries it.
            self._read[key] = tuple(replace(e, meta={**e.meta, "task": task.name}) for e in examples)
            self.rejections.setdefault(split, []).extend(rejections)
            self.rows_read[split] = self.rows_read.get(split, 0) + len(examples) + len(rejections)
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
    if config.llm.weights == "random":
        from bench.random_model import ensure_random_model

        return ensure_random_model(_corpus(config, reader), config.llm.name, runtime)
    return _small_model(config, reader, runtime) if config.llm.name == TINY else locate(config.llm, runtime)


def _small_model(config: RunConfig, reader: _Reader, runtime: Runtime) -> LocatedModel:
    from bench.pretrain_lm import ensure_small_model

    return ensure_small_model(_corpus(config, reader), config.llm.tiny, runtime)


def _corpus(config: RunConfig, reader: _Reader) -> list[str]:
    """The text of the run's own task, before features are made, so that every cell of a study shares one model."""
    from bench.pretrain_lm import corpus_of

    return corpus_of(subset(reader.examples(config.task, "train"), config.limits.train))


def _all_examples(stages: Iterable[StageData], evaluations: Iterable[EvaluationData]) -> Iterable[Example]:
    for data in stages:
        yield from data.training
        yield from data.validation
    for evaluated in evaluations:
        yield from evaluated.examples


def _unwritable(examples: Iterable[Example], text_input: TextInput) -> dict[str, str]:
    """Molecules that cannot be written in the way that the prompt asks for, and why."""
    reasons = {}
    for molecule in dict.fromkeys(molecule for example in examples for molecule in example.molecules):
        try:
            text_input.write(molecule)
        except UnwritableMoleculeError as error:
            reasons[molecule] = str(error)
    return reasons


def _rejected(
    examples: Sequence[Example], unread: Mapping[str, str], style: PromptStyle, unwritable: Mapping[str, str]
) -> dict[str, Rejection]:
    """Examples with a molecule that cannot be featurised, or not be written where its text is asked for, by id."""
    found = {}
    for example in examples:
        written = written_molecules(example, style) if unwritable else frozenset()
        for index, molecule in enumerate(example.molecules):
            reason = unread.get(molecule) or (unwritable.get(molecule) if index in written else None)
            if reason is not None:
                place = (str(example.meta.get("file", "")), int(example.meta.get("line", 0)))
                found[example.id] = Rejection(*place, molecule, reason)
                break
    return found


def _refuse_losses(
    listed: Sequence[Rejection],
    total: int,
    split: str,
    all_rejections: Mapping[str, Sequence[Rejection]],
    config: RunConfig,
    runtime: Runtime,
) -> None:
    """Stops where more rows are unusable than a user may want to go on without.

    Raises:
        UserError: their share is above `--max-rejected`, or nothing is left.
    """
    faulty = [rejection for rejection in listed if not rejection.expected]
    total -= len(listed) - len(faulty)
    if not faulty or (len(faulty) < total and len(faulty) / total <= runtime.max_rejected):
        return
    path = runtime.runs / f"rejected-{config.name}.csv"
    write_text(path, rejections_csv(all_rejections))
    first = faulty[0]
    raise UserError(
        f"{len(faulty)} of {total} {split} rows are unusable ({len(faulty) / total:.1%}; --max-rejected allows "
        f"{runtime.max_rejected:.1%}). The first is {first.file}:{first.line}, {first.value[:60]!r}: {first.reason}. "
        f"All are listed in {path}."
    )
