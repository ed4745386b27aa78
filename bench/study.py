"""Studies: cells that differ in named settings, each run with every seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from bench.config import RunConfig
from bench.config_types import Mapped
from bench.errors import ConfigError, UserError
from bench.experiment import RunResult, run
from bench.matching import match_parameters, match_tokens
from bench.parsing import build, find_config, load_mapping, read_yaml
from bench.preset import Choices, resolve_mapping
from bench.registry import Registry, registry
from bench.run_store import is_disk_error
from bench.runtime import Runtime
from bench.tracking import mirror_to
from tasks.data import Catalogue

_CHOICES = ("scale", "fidelity", "switches")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A set of cells.

    Args:
        name: of the study and of its MLflow experiment.
        extends: the preset or file that every cell starts from.
        question: what it is to answer, in words.
        seeds: of every cell.
        scale, fidelity, switches: choices of the preset, for every cell.
        cells: by alias, what is laid over the preset; a cell may choose for itself, by the same three names.
        match_params: a cell, or a number: all projectors get as nearly as many parameters, by their declared widths.
        count_match: a cell, or a number: all projectors give as nearly as many tokens to a molecule of median size.
    """

    name: str
    extends: str
    question: str = ""
    seeds: Annotated[tuple[int, ...], MinLen(1)] = (0,)
    scale: str | None = None
    fidelity: str | None = None
    switches: dict[str, str] = field(default_factory=dict)
    cells: Annotated[dict[str, Any], MinLen(1)] = field(default_factory=dict)
    match_params: str | int | None = None
    count_match: str | int | None = None


def load_study(
    source: str, overrides: Sequence[str] = (), runtime: Runtime | None = None
) -> tuple[Study, Mapping[str, RunConfig]]:
    """A study by name or path, and the configuration of each of its cells.

    Args:
        source: name of a study, or a YAML file.
        overrides: `a.b=value` settings of every cell.
        runtime: where language models are found, whose widths decide how many parameters a projector has.

    Raises:
        ConfigError: the study or one of its cells cannot be used; all are built before any is run.
    """
    path = find_config(source, folder="studies")
    components = registry()
    study = build(Study, read_yaml(path), components)
    base = load_mapping(_beside(study.extends, path))
    choices = Choices(scale=study.scale, fidelity=study.fidelity, switches=study.switches)
    declared = {
        alias: _cell(base, alias, changes, overrides, components, choices) for alias, changes in study.cells.items()
    }
    cells = declared
    if study.count_match is not None:
        cells = match_tokens(cells, study.count_match)
    if study.match_params is not None:
        cells = match_parameters(cells, study.match_params, runtime or Runtime())
    for line in _adjusted(declared, cells):
        (runtime or Runtime()).say(line)
    return study, cells


def run_study(
    study: Study,
    cells: Mapping[str, RunConfig],
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    retry_failed: bool = False,
) -> list[RunResult]:
    """Runs every cell with every seed, one after the other; what is done already is not done again.

    Raises:
        UserError: some runs failed; all others were done first, and the message names those that were not.
    """
    mirror = mirror_to(study.name, runtime)
    results: list[RunResult] = []
    failures: list[str] = []
    total = len(cells) * len(study.seeds)
    for number, (config, seed) in enumerate(product(cells.values(), study.seeds), start=1):
        runtime.say(f"[{number}/{total}] {config.name}, seed {seed}")
        seeded = replace(config, seed=seed)
        try:
            results.append(run(seeded, runtime, catalogue=catalogue, retry_failed=retry_failed, mirror=mirror))
        except Exception as error:
            if is_disk_error(error, runtime.runs):
                raise  # the next run could not be written either
            runtime.say(f"  {config.name}, seed {seed}: {error}")
            failures.append(f"{config.name} seed {seed} ({type(error).__name__}: {error})")
    if failures:
        raise UserError(f"{len(failures)} of {total} runs of study {study.name} are not done: {'; '.join(failures)}")
    return results


def _adjusted(declared: Mapping[str, RunConfig], cells: Mapping[str, RunConfig]) -> Iterator[str]:
    """What was changed to make projectors comparable, cell by cell."""
    for alias, config in cells.items():
        for part in fields(config.projector):
            before, after = (getattr(c.projector, part.name) for c in (declared[alias], config))
            if before != after:
                yield f"cell {alias}: projector.{part.name} {before} -> {after}, to match"


def _cell(
    base: Mapped, alias: str, changes: object, overrides: Sequence[str], components: Registry, choices: Choices
) -> RunConfig:
    if changes is None:
        changes = {}
    if not isinstance(changes, Mapping):
        raise ConfigError(f"cells.{alias}", f"is {changes!r}, where a mapping of settings is expected")
    try:
        own = build(Choices, {key: changes[key] for key in _CHOICES if key in changes}, components)
        laid = {**{key: value for key, value in changes.items() if key not in _CHOICES}, "name": alias}
        return resolve_mapping(base, overrides, components, own.over(choices), laid).config
    except ConfigError as error:
        raise UserError(f"cell {alias}: {error}") from None


def _beside(source: str, path: Path) -> str:
    beside = path.parent / source
    return str(beside) if beside.is_file() else source
