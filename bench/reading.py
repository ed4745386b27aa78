"""Examples of a run's tasks: read, chosen, mixed, and shared with the other runs of the process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from bench.config import RunConfig, Stage, WeightedTask
from bench.errors import UserError
from bench.identity import content_hash, examples_hash
from bench.memo import is_ours
from bench.runtime import Runtime
from tasks.base import Example, Rejection, Split, Task
from tasks.data import Catalogue, DataSet

T = TypeVar("T")


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


def subset(examples: Sequence[Example], limit: int | None) -> tuple[Example, ...]:
    """A pseudo-random subset in file order; smaller limits give subsets of larger ones.

    Chosen by a hash of the ids rather than from the top, where data sets are often sorted.
    """
    if limit is None or limit >= len(examples):
        return tuple(examples)
    by_hash = sorted(examples, key=lambda example: hashlib.sha256(example.id.encode()).digest())
    chosen = {example.id for example in by_hash[:limit]}
    return tuple(example for example in examples if example.id in chosen)


@dataclass(frozen=True, slots=True)
class _Read:
    """What a task has to ask in a split.

    Args:
        examples: each says which task it belongs to.
        key: everything that these depend on; None where that is not known.
        rejections: rows that were left out.
        source: the file that they came from, as the manifest has it.
    """

    examples: tuple[Example, ...]
    key: tuple[Hashable, ...] | None
    rejections: tuple[Rejection, ...]
    source: Mapping[str, Any]


class Reader:
    """Reads each task and split once, and remembers what was rejected and where it came from.

    What another run of this process has read is taken from there as long as the task, the data set's description and
    the hashes of its files are the same.
    """

    def __init__(self, config: RunConfig, catalogue: Catalogue, runtime: Runtime) -> None:
        self._config = config
        self._catalogue = catalogue
        self._memo = runtime.memo
        self._datasets: dict[str, DataSet] = {}
        self._read: dict[tuple[str, Split], _Read] = {}
        self._keys: dict[int, tuple[tuple[Example, ...], tuple[Hashable, ...]]] = {}  # by id, of tuples that it keeps
        self.rejections: dict[str, list[Rejection]] = {}
        self.rows_read: dict[str, int] = {}
        self.sources: dict[str, Mapping[str, Any]] = {}

    def examples(self, task: Task, split: Split) -> tuple[Example, ...]:
        """All examples of a split."""
        place = (content_hash(task), split)
        if place not in self._read:
            read = self._read[place] = self._all(task, split, place)
            if not read.examples:
                raise UserError(f"task {task.name}: {task.data} has no usable row in its {split} split")
            self.rejections.setdefault(split, []).extend(read.rejections)
            self.rows_read[split] = self.rows_read.get(split, 0) + len(read.examples) + len(read.rejections)
            self.sources[f"{task.data}/{split}"] = read.source
        return self._kept(self._read[place].examples, self._read[place].key)

    def stage(self, stage: Stage) -> StageData:
        """The mixture that a stage trains on, and the validation examples of all its tasks."""
        mixture = self._config.training_tasks(stage)
        limits = self._config.limits
        return StageData(
            self._mixture(mixture, [self._subset(self.examples(w.task, "train"), limits.train) for w in mixture], True),
            self._mixture(
                mixture, [self._subset(self.examples(w.task, "validation"), limits.validation) for w in mixture], False
            ),
        )

    def evaluation(self, task: Task) -> EvaluationData:
        """The examples that are asked."""
        evaluation = self._config.evaluation
        examples = self.examples(task, evaluation.split)
        chosen = self._subset(examples, evaluation.limit)
        if evaluation.ids:
            known = {example.id: example for example in examples}
            unknown = [name for name in evaluation.ids if name not in known]
            if unknown:
                raise UserError(f"--ids: {task.data} has no {evaluation.split} example {unknown[0]!r}")
            chosen = tuple(known[name] for name in evaluation.ids)
        return EvaluationData(task, chosen, limited=len(chosen) < len(examples))

    def corpus(self) -> list[str]:
        """The run's own task as text, before features are made, so that every cell of a study shares one model."""
        from bench.pretrain_lm import corpus_of

        examples = self._subset(self.examples(self._config.task, "train"), self._config.limits.train)
        return self._shared("corpus", examples, (), lambda: corpus_of(examples), lambda c: sum(map(_text_bytes, c)))

    def hash_of(self, examples: tuple[Example, ...]) -> str:
        """`examples_hash`."""
        return self._shared("hash", examples, (), lambda: examples_hash(examples))

    def _all(self, task: Task, split: Split, place: tuple[str, Split]) -> _Read:
        if task.data not in self._datasets:
            self._datasets[task.data] = self._catalogue.get(task.data)
        dataset = self._datasets[task.data]
        source = dataset.source(split)
        described: dict[str, Any] = {
            **{"file": source.file, "sha256": source.sha256, "git_blob": source.git_blob, "note": source.note},
            "where": {k: list(v) for k, v in source.where.items()},
        }
        description = hashlib.sha256(dataset.yaml.read_bytes()).hexdigest()
        key = (*place, task.name, source.path, source.sha256, source.note, description) if is_ours(task) else None

        def read() -> _Read:
            examples, rejections = task.examples(split, self._catalogue)
            # A projector may read which task an example belongs to, so every example carries it.
            carrying = tuple(replace(e, meta={**e.meta, "task": task.name}) for e in examples)
            return _Read(carrying, key, tuple(rejections), described)

        return read() if key is None else self._memo.get("examples", key, read, lambda r: _bytes(r.examples))

    def _subset(self, examples: tuple[Example, ...], limit: int | None) -> tuple[Example, ...]:
        return self._chosen("subset", examples, limit, lambda: subset(examples, limit))

    def _mixture(
        self, tasks: Sequence[WeightedTask], parts: Sequence[tuple[Example, ...]], draw: bool
    ) -> tuple[Example, ...]:
        keys = [self._keys[id(part)][1] if id(part) in self._keys else None for part in parts]
        weights = tuple((weighted.task.name, weighted.weight) for weighted in tasks)
        mixed = partial(_mixed, list(zip(tasks, parts, strict=True)), draw)
        if len(parts) == 1 or None in keys:
            return mixed()
        key = ("mixture", tuple(keys), weights, draw)
        return self._kept(self._memo.get("mixture", key, mixed, _bytes), key)

    def _chosen(
        self, kind: str, examples: tuple[Example, ...], how: Hashable, make: Callable[[], tuple[Example, ...]]
    ) -> tuple[Example, ...]:
        """Some of these examples, with a key of their own."""
        chosen = self._shared(kind, examples, (how,), make, lambda found: 8 * len(found))
        known = self._keys.get(id(examples))
        return chosen if known is None else self._kept(chosen, (kind, *known[1], how))

    def _shared(
        self,
        kind: str,
        examples: tuple[Example, ...],
        how: tuple[Hashable, ...],
        make: Callable[[], T],
        size: Callable[[T], int] = lambda _: 200,
    ) -> T:
        """What is made of examples; shared with other runs if it is known what these depend on."""
        known = self._keys.get(id(examples))
        return make() if known is None else self._memo.get(kind, (*known[1], *how), make, size)

    def _kept(self, examples: tuple[Example, ...], key: tuple[Hashable, ...] | None) -> tuple[Example, ...]:
        if key is not None:
            self._keys.setdefault(id(examples), (examples, key))
        return examples


def _bytes(examples: Sequence[Example]) -> int:
    """About what examples take."""
    return sum(1500 + sum(_text_bytes(turn.text) for turn in example.turns) for example in examples)


def _text_bytes(text: str) -> int:
    return 60 + len(text)


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
