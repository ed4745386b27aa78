"""What a pretraining needs before it begins: molecules, texts, features, a tokenizer, and what identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.errors import ConfigError, UserError
from bench.features import open_features
from bench.identity import content_hash
from bench.model_files import HUB_NAME, contents, files_identity, from_hub
from bench.pretraining_config import PretrainingConfig
from bench.pretraining_stage import DataPart
from bench.provenance import package_version
from bench.run_store import read_json, write_json, write_text
from bench.runtime import Runtime
from encoders.cleaning import connectivity
from encoders.store import FeatureStore
from encoders.text_encoder import SMALL, TextEncoder, TextReader
from tasks.base import Rejection, Split
from tasks.data import Catalogue

_VERSION = 3  # raised when the same declarations and data begin to give other weights


@dataclass(frozen=True, slots=True)
class Pair:
    """A molecule and, where the objective reads texts, its text; else the text is empty."""

    smiles: str
    text: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class TextSide:
    """The texts of all parts as tokens.

    Args:
        reader: the tokenizer.
        folder: the pretrained text encoder; None for the small one.
        identity: hash of its files, or of the texts that the small one's tokenizer is made from.
    """

    reader: TextReader
    folder: Path | None
    identity: str


@dataclass(frozen=True, slots=True)
class PreparedPretraining:
    """A pretraining before it begins.

    Args:
        training, validation, retrieval: molecules in file order.
        store: their features.
        text: None where the objective reads none.
        sources: the files that the rows came from, by `data set/split`.
        counts: rows read, kept and left out, by part and reason.
        rejections: rows that cannot be used.
        cell: hash of everything but the seed.
        identity: hash of everything.
    """

    config: PretrainingConfig
    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    retrieval: tuple[Pair, ...]
    store: FeatureStore
    text: TextSide | None
    sources: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, Mapping[str, int]]
    rejections: Sequence[Rejection]
    cell: str
    identity: str


def prepare_pretraining(
    config: PretrainingConfig, runtime: Runtime, catalogue: Catalogue | None = None
) -> PreparedPretraining:
    """Reads and cleans the data, builds features and a tokenizer where they are missing, and names the pretraining.

    Raises:
        UserError: anything is missing, does not fit together, or too many rows are unusable.
    """
    config.objective.check(config.encoder)
    files = contents(config.encoder.sources(), runtime, "encoder")
    reader = _Reader(config, runtime, catalogue or Catalogue())
    parts = {
        "training": reader.without_excluded(reader.pairs("training", config.data.training)),
        "validation": reader.pairs("validation", config.data.validation),
        "retrieval": reader.pairs("retrieval", config.data.retrieval),
    }
    own = config.encoder.features()
    schemes = (*own, *(scheme for scheme in config.objective.features() if scheme not in own))
    store = open_features(schemes, [pair.smiles for pairs in parts.values() for pair in pairs], runtime)
    parts = {name: reader.readable(name, pairs, store) for name, pairs in parts.items()}
    if len(parts["training"]) < 2:
        raise UserError(f"data.training: {len(parts['training'])} rows are left, and a pretraining needs at least two")
    text = _text_side(config.objective.text, [pair.text for pair in parts["training"]], runtime)
    described = {
        "pretraining": _VERSION,
        "encoder": config.encoder,
        "encoder_files": files,
        "objective": config.objective,
        "text": None if text is None else text.identity,
        "data": {name: _pairs_hash(pairs) for name, pairs in parts.items()},
        "steps": config.steps,
        "batch_size": config.batch_size,
        "optimiser": config.optimiser,
        "schedule": config.schedule,
        "validate_every": config.validate_every,
        "precision": config.precision,
    }
    return PreparedPretraining(
        config,
        parts["training"],
        parts["validation"],
        parts["retrieval"],
        store,
        text,
        reader.sources,
        reader.counts,
        reader.rejections,
        content_hash(described),
        content_hash({**described, "seed": config.seed}),
    )


class _Reader:
    """Reads rows as pairs, and counts what is left out and why."""

    def __init__(self, config: PretrainingConfig, runtime: Runtime, catalogue: Catalogue) -> None:
        self._config = config
        self._runtime = runtime
        self._catalogue = catalogue
        self.sources: dict[str, Mapping[str, Any]] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.rejections: list[Rejection] = []

    def pairs(self, name: str, parts: Sequence[DataPart]) -> tuple[Pair, ...]:
        """The pairs of some parts, cleaned unless they are for retrieval; molecules without texts stand once."""
        with_text = self._config.objective.text is not None
        found = [pair for part in parts for pair in self._rows(part, with_text)]
        count = self.counts.setdefault(name, {"rows": len(found)})
        cleaning = self._config.data.cleaning
        if cleaning is not None and name != "retrieval":
            smiles = self._computed("cleaning molecules", cleaning.cleaned, [pair.smiles for pair in found], cleaning)
            kept = [replace(pair, smiles=clean) for pair, clean in zip(found, smiles, strict=True) if clean is not None]
            count["left_out_by_cleaning"] = len(found) - len(kept)
            found = kept
        if self._config.objective.text is None:
            distinct = list({pair.smiles: pair for pair in reversed(found)}.values())[::-1]
            count["repeated"] = len(found) - len(distinct)
            found = distinct
        return tuple(found)

    def without_excluded(self, training: tuple[Pair, ...]) -> tuple[Pair, ...]:
        """The training pairs without molecules that are held out elsewhere."""
        parts = self._config.data.exclude
        if not parts:
            return training
        held_out = [pair.smiles for part in parts for pair in self._rows(part, with_text=False)]
        compute = partial(self._computed, "comparing molecules with held-out ones", connectivity)
        excluded = set(compute(held_out)) - {None}
        kept = [
            pair
            for pair, key in zip(training, compute([pair.smiles for pair in training]), strict=True)
            if key not in excluded
        ]
        self.counts["training"]["left_out_as_held_out"] = len(training) - len(kept)
        return tuple(kept)

    def readable(self, name: str, pairs: tuple[Pair, ...], store: FeatureStore) -> tuple[Pair, ...]:
        """The pairs whose molecules have features.

        Raises:
            UserError: more are unusable than the user may want to go on without.
        """
        lost = [pair for pair in pairs if pair.smiles in store.rejected]
        self.rejections += [Rejection(p.file, p.line, p.smiles, store.rejected[p.smiles]) for p in lost]
        self.counts[name] |= {"unreadable": len(lost), "kept": len(pairs) - len(lost)}
        if lost and (len(lost) == len(pairs) or len(lost) / len(pairs) > self._runtime.max_rejected):
            path = self._runtime.runs / f"rejected-{self._config.name}.json"
            write_json(path, [[r.file, r.line, r.value, r.reason] for r in self.rejections])
            first = lost[0]
            raise UserError(
                f"{len(lost)} of {len(pairs)} {name} molecules are unusable ({len(lost) / len(pairs):.1%}; "
                f"--max-rejected allows {self._runtime.max_rejected:.1%}). The first is {first.file}:{first.line}, "
                f"{first.smiles[:60]!r}: {store.rejected[first.smiles]}. All are listed in {path}."
            )
        return tuple(pair for pair in pairs if pair.smiles not in store.rejected)

    def _rows(self, part: DataPart, with_text: bool) -> list[Pair]:
        role = self._config.data.text_role
        dataset = self._catalogue.get(part.data)
        dataset.require(
            ["smiles", role] if with_text else ["smiles"], f"pretraining with objective {self._config.objective.name}"
        )
        rows, rejections = dataset.rows(part.split)
        self.rejections += rejections
        self._note_source(part.data, part.split)
        if part.limit is not None and part.limit < len(rows):
            by_hash = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
            chosen = {row.id for row in by_hash[: part.limit]}
            rows = [row for row in rows if row.id in chosen]
        found = []
        for row in rows:
            text = row.values[role].strip() if with_text else ""
            if with_text and not text:
                self.rejections.append(Rejection(row.file, row.line, row.values["smiles"], "it has no text"))
                continue
            found.append(Pair(row.values["smiles"], text, row.file, row.line))
        if not found:
            raise UserError(f"{part.data} has no usable row in its {part.split} split")
        return found

    def _note_source(self, data: str, split: Split) -> None:
        source = self._catalogue.get(data).source(split)
        self.sources[f"{data}/{split}"] = {
            "file": source.file,
            "sha256": source.sha256,
            "git_blob": source.git_blob,
            "note": source.note,
            "where": {column: list(values) for column, values in source.where.items()},
        }

    def _computed(
        self, what: str, compute: Callable[[str], str | None], smiles: Sequence[str], settings: object = None
    ) -> list[str | None]:
        """`compute` of each SMILES, remembered in the cache, since it takes seconds for each ten thousand."""
        key = content_hash([what, package_version("rdkit"), settings, list(smiles)])
        remembered = self._runtime.cache_folder("molecules") / f"{key}.json"
        if remembered.exists():
            known: list[str | None] = read_json(remembered)
            return known
        found = [compute(each) for each in self._runtime.tracked(smiles, what, len(smiles))]
        write_text(remembered, json.dumps(found))
        return found


def _text_side(declared: TextEncoder | None, corpus: Sequence[str], runtime: Runtime) -> TextSide | None:
    if declared is None:
        return None
    if declared.name == SMALL:
        identity = hashlib.sha256("\0".join(corpus).encode()).hexdigest()[:16]
        return TextSide(declared.reader(list(dict.fromkeys(corpus)), None), None, identity)
    setting = "objective.text_encoder.name"
    folder = Path(declared.name).expanduser()
    if not folder.is_dir():
        if not HUB_NAME.fullmatch(declared.name):
            raise ConfigError(setting, f"{declared.name!r} is no folder, no `owner/model` of a hub and not {SMALL!r}")
        folder = from_hub(declared.name, declared.revision, runtime, setting)
    return TextSide(declared.reader((), folder), folder, files_identity(folder, runtime))


def _pairs_hash(pairs: Sequence[Pair]) -> str:
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.smiles, pair.text], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
