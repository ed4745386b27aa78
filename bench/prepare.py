"""What a run needs before anything is trained: examples, features, the language model, and what identifies them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.config import TINY, RunConfig, Stage
from bench.errors import UserError
from bench.features import open_features
from bench.identity import Inputs, cell_id, content_hash, stage_ids, train_id
from bench.language_model import LocatedModel, locate
from bench.memo import is_ours
from bench.model import wire
from bench.model_files import contents
from bench.reading import EvaluationData, Reader, StageData
from bench.run_store import write_text
from bench.runtime import Runtime
from encoders.base import Level
from encoders.store import FeatureStore
from tasks.base import Example, Rejection, Task
from tasks.data import Catalogue
from tasks.metrics.base import Protocol
from tasks.prompts import PromptStyle, TextInput, UnwritableMoleculeError, written_molecules


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
    reader = Reader(config, catalogue or Catalogue(), runtime)
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

    every = tuple(
        dict.fromkeys(molecule for example in _all_examples(stages, evaluations) for molecule in example.molecules)
    )
    store = open_features(config.encoder.features() if config.projector.places_tokens else (), every, runtime)

    # Written once for each way, and not for every stage and part: SELFIES take milliseconds a molecule.
    unwritable = {
        written: _unwritable(every, written, runtime)
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
        return tuple(examples) if not without else tuple(example for example in examples if example.id not in without)

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
        train=tuple(reader.hash_of(data.training) for data in stages),
        validation=tuple(reader.hash_of(data.validation) for data in stages),
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


def small_language_model(config: RunConfig, catalogue: Catalogue, runtime: Runtime) -> LocatedModel:
    """The language model of a configuration that molgraft makes itself, made now if the cache lacks it."""
    return _language_model(config, Reader(config, catalogue, runtime), runtime)


def rejections_csv(rejections: Mapping[str, Sequence[Rejection]]) -> str:
    """The rows left out, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("part", "file", "line", "value", "reason"))
    for part, rows in rejections.items():
        writer.writerows((part, row.file, row.line, row.value, row.reason) for row in rows)
    return text.getvalue()


def _language_model(config: RunConfig, reader: Reader, runtime: Runtime) -> LocatedModel:
    if config.llm.weights == "random":
        from bench.random_model import ensure_random_model

        return ensure_random_model(reader.corpus(), config.llm.name, runtime)
    return _small_model(config, reader, runtime) if config.llm.name == TINY else locate(config.llm, runtime)


def _small_model(config: RunConfig, reader: Reader, runtime: Runtime) -> LocatedModel:
    from bench.pretrain_lm import ensure_small_model

    return ensure_small_model(reader.corpus(), config.llm.tiny, runtime)


def _all_examples(stages: Iterable[StageData], evaluations: Iterable[EvaluationData]) -> Iterable[Example]:
    for data in stages:
        yield from data.training
        yield from data.validation
    for evaluated in evaluations:
        yield from evaluated.examples


def _unwritable(molecules: tuple[str, ...], text_input: TextInput, runtime: Runtime) -> dict[str, str]:
    """Molecules that cannot be written in the way that the prompt asks for, and why."""

    def found() -> dict[str, str]:
        reasons = {}
        for molecule in molecules:
            try:
                text_input.write(molecule)
            except UnwritableMoleculeError as error:
                reasons[molecule] = str(error)
        return reasons

    if not is_ours(text_input):
        return found()
    return runtime.memo.get("unwritable", (content_hash(text_input), molecules), found, lambda _: 100 * len(molecules))


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
