"""Studies: cells that differ in named settings, each run with every seed. What a grid is, is in `bench.grid`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from bench.config import RunConfig
from bench.config_types import Alias, Mapped
from bench.errors import ConfigError, UserError
from bench.experiment import RunResult, run
from bench.grid import WITHOUT, Factor, GridCell, cells_of, check_alias, factors_of
from bench.identity import content_hash
from bench.matching import match_parameters, match_tokens
from bench.model import wire
from bench.parsing import apply_overrides, build, find_config, load_mapping, read_yaml, to_mapping
from bench.preset import Choices, resolve_mapping
from bench.registry import Registry, registry
from bench.run_store import is_disk_error
from bench.runtime import Runtime
from bench.selection import LOSS, Selection, check_selection
from bench.study_file import at_scale, of_preset, scale_of
from bench.study_tables import tables_in_force
from bench.tracking import mirror_to
from results.tables.request import TableRequest
from tasks.data import Catalogue

_CHOICES = ("scale", "fidelity", "switches", WITHOUT)
_NO_CHOICES = Choices()
_OF_NO_CELL = {
    "seed": "the runs of a study have the seeds of `seeds`; write --set 'seeds=[0, 1]'",
    "name": "cells are named by their aliases, and a study is by its file",
}
_WIRED = ("encoder", "projector")
_LONGEST_NAME = 200  # bytes; a folder's name may have 255, and seed and identity follow


@dataclass(frozen=True, kw_only=True)
class Study:
    """A set of cells.

    Args:
        name: of the study and of its MLflow experiment.
        extends: the preset or file that every cell starts from.
        question: what it is to answer, in words.
        seeds: of every cell.
        scale, fidelity, switches: choices of the preset, for every cell.
        settings: of every cell, by dotted path; laid over the preset and its choices, under what a cell sets.
        factors: paths of the configuration, or free names, and the levels of each; every combination is a cell.
        exclude: combinations that are left out; each names aliases of some factors.
        cells: by alias, what is laid over the preset; a cell may choose for itself, by the names of the three choices,
            and name stages that it leaves out (`without`).
        select: the rule by which one cell is chosen in the end.
        match_params: a cell, or a number: all projectors get as nearly as many parameters, by their declared widths.
        count_match: a cell, or a number: all projectors give as nearly as many tokens to a molecule of median size.
        tables: what is shown of it in the end; none for a table of everything that is asked.

    What a file lays over these at one scale is in `bench.study_file`.
    """

    name: Alias
    extends: str
    question: str = ""
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    scale: str | None = None
    fidelity: str | None = None
    switches: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    factors: dict[Any, Any] = field(default_factory=dict)
    exclude: tuple[dict[Any, Any], ...] = ()
    cells: dict[Any, Any] = field(default_factory=dict)
    select: Selection = field(default_factory=Selection)
    match_params: str | int | None = None
    count_match: str | int | None = None
    tables: tuple[TableRequest, ...] = ()

    def __post_init__(self) -> None:
        if not self.cells and not self.factors:
            raise ConfigError("cells", "is empty, and so is `factors`; a study needs one of them")
        for alias in self.cells:
            check_alias(alias, "cells")
        twice = next((seed for seed in self.seeds if self.seeds.count(seed) > 1), None)
        if twice is not None:
            raise ConfigError("seeds", f"{twice} stands twice; a run with the same seed would be the same run")


def load_study(
    source: str,
    overrides: Sequence[str] = (),
    runtime: Runtime | None = None,
    *,
    choices: Choices = _NO_CHOICES,
    only: Sequence[str] = (),
) -> tuple[Study, Mapping[str, RunConfig]]:
    """A study by name or path, and the configuration of each of its cells.

    Args:
        source: name of a study, or a YAML file.
        overrides: `a.b=value` settings of every cell; those of the study itself (`seeds=[0]`, `select.metric=seconds`,
            `factors.encoder=[gin]`) change the study before it is expanded.
        runtime: where language models are found, whose widths decide how many parameters a projector has.
        choices: scale, fidelity and switches for every cell, before those of the study, after those of a cell.
        only: aliases of the cells that are wanted, or patterns of them such as `gin-*`; empty for all.

    Returns:
        The study, with the scale and the tables that are in force, and the configurations by alias.

    Raises:
        ConfigError: the study or one of its cells cannot be used; all are built, and the wiring of their parts is
            checked, before any is run.
    """
    path = find_config(source, folder="studies")
    components = registry()
    own, of_cells = _told_apart(overrides)
    study, base = _read(path, own, choices, components)
    start = _Start(base, study.settings, components)
    chosen = choices.over(Choices(fidelity=study.fidelity, switches=study.switches))
    chosen = replace(chosen, scale=of_preset(study.scale, base))
    factors = factors_of(study.factors)
    grid = {cell.name: cell for cell in _named_apart(cells_of(factors, study.exclude), study.cells)}
    declared = {alias: _grid_cell(start, cell, of_cells, chosen) for alias, cell in grid.items()}
    declared |= {alias: _cell(start, alias, changes, of_cells, chosen) for alias, changes in study.cells.items()}
    _refuse_long_names(declared)
    _refuse_misfits(declared, grid, factors)
    cells: Mapping[str, RunConfig] = declared
    if study.count_match is not None:
        cells = match_tokens(cells, study.count_match)
    if study.match_params is not None:
        cells = match_parameters(cells, study.match_params, runtime or Runtime())
    for line in _adjusted(declared, cells):
        (runtime or Runtime()).say(line)
    _refuse_equals(cells)
    study = replace(study, select=_checked_selection(study.select, cells))
    wanted = _wanted(cells, only)
    known = {*cells, *(cell.name for cell in cells_of(factors))}  # those that are excluded at this scale among them
    tables, left_out = tables_in_force(study.tables, wanted, known, components)
    for line in left_out:
        (runtime or Runtime()).say(line)
    return replace(study, tables=tables), wanted


def run_study(
    study: Study,
    cells: Mapping[str, RunConfig],
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    retry_failed: bool = False,
) -> list[RunResult]:
    """Runs every cell with every seed, one after the other; what is done already is not done again.

    The first seed of all cells comes before the second of any, so that there is soon something to compare.

    Returns:
        The results, cell by cell.

    Raises:
        UserError: some runs failed; all others were done first, and the message names those that were not.
    """
    mirror = mirror_to(study.name, runtime)
    results: dict[tuple[str, int], RunResult] = {}
    failures: list[str] = []
    total = len(cells) * len(study.seeds)
    ordered = [(alias, config, seed) for seed in study.seeds for alias, config in cells.items()]
    for number, (alias, config, seed) in enumerate(ordered, start=1):
        runtime.say(f"[{number}/{total}] {config.name}, seed {seed}")
        seeded = replace(config, seed=seed)
        try:
            found = run(seeded, runtime, catalogue=catalogue, retry_failed=retry_failed, mirror=mirror)
            results[alias, seed] = found
        except Exception as error:
            if is_disk_error(error, runtime.runs):
                raise  # the next run could not be written either
            runtime.say(f"  {config.name}, seed {seed}: {error}")
            failures.append(f"{config.name} seed {seed} ({type(error).__name__}: {error})")
    if failures:
        raise UserError(f"{len(failures)} of {total} runs of study {study.name} are not done: {'; '.join(failures)}")
    return [results[alias, seed] for alias in cells for seed in study.seeds]


def _read(path: Path, own: Sequence[str], choices: Choices, components: Registry) -> tuple[Study, Mapped]:
    """The study at the scale that is in force, and the preset that its cells start from."""
    written = read_yaml(path)
    laid = _laid_over_study(written, own)
    if not isinstance(laid.get("extends"), str):
        build(Study, at_scale(laid, None), components)  # says what is wrong with it
    base = load_mapping(_beside(laid["extends"], path))
    scale = scale_of(laid, base, choices.scale)
    # What is set by hand holds at every scale.
    mapping = _laid_over_study(at_scale(written, scale), own)
    return build(Study, {**mapping, **({} if scale is None else {"scale": scale})}, components), base


def _told_apart(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The settings of the study itself, and those of every cell."""
    mine = {f.name for f in fields(Study)} - {"name"}
    own = []
    for override in overrides:
        path = override.partition("=")[0].strip()
        if path in _OF_NO_CELL:
            raise ConfigError(f"--set {override}", _OF_NO_CELL[path])
        if path.partition(".")[0] in mine:
            own.append(override)
    return own, [override for override in overrides if override not in own]


def _laid_over_study(written: Mapped, overrides: Sequence[str]) -> Mapped:
    """The study with settings laid over it; the name of a factor or of a setting is a whole, dots and all."""
    for override in overrides:
        path, _, text = override.partition("=")
        first, _, rest = path.strip().partition(".")
        if first in ("factors", "settings") and rest:
            value = apply_overrides({}, [f"value={text}"])["value"]
            written = {**written, first: {**(written.get(first) or {}), rest: value}}
        else:
            written = apply_overrides(written, [override])
    return written


def _named_apart(grid: Sequence[GridCell], cells: Mapping[str, Any]) -> Sequence[GridCell]:
    """The cells of a grid, after finding out that no other cell has the name of one."""
    seen: dict[str, GridCell] = {}
    for cell in grid:
        if cell.name in seen:
            both = " and ".join(str(dict(found.levels)) for found in (seen[cell.name], cell))
            raise ConfigError("factors", f"two cells would be named {cell.name!r}: {both}; choose other aliases")
        if cell.name in cells:
            raise ConfigError(f"cells.{cell.name}", f"a cell of the grid has that name already: {dict(cell.levels)}")
        seen[cell.name] = cell
    return grid


def _refuse_long_names(cells: Iterable[str]) -> None:
    """Stops where runs could have no folder, which would be found out by each of them."""
    for alias in cells:
        if len(alias.encode()) > _LONGEST_NAME:
            raise ConfigError(
                f"cell {alias}",
                f"has a name of {len(alias.encode())} bytes, and folders are named by it; give levels shorter aliases, "
                f"so that it has {_LONGEST_NAME} at most",
            )


def _refuse_misfits(cells: Mapping[str, RunConfig], grid: Mapping[str, GridCell], factors: Sequence[Factor]) -> None:
    """Stops where an encoder has not what the projector reads; all such cells are named at once."""
    problems: list[str] = []
    exclusions: dict[str, None] = {}
    for alias, config in cells.items():
        try:
            wire(config.encoder, config.projector)
        except ConfigError as error:
            problems.append(f"cell {alias}: {_message(error)}")
            if alias in grid:
                about = [f.name for f in factors if any(path.split(".")[0] in _WIRED for path in f.paths)]
                named = ", ".join(f"{name}: {grid[alias].levels[name]}" for name in about)
                exclusions[f"- {{{named}}}"] = None
    if not problems:
        return
    remedy = "; leave them out:\nexclude:\n  " + "\n  ".join(exclusions) if exclusions else ""
    raise ConfigError("factors" if exclusions else "cells", "\n  ".join(["these do not fit:", *problems]) + remedy)


def _refuse_equals(cells: Mapping[str, RunConfig]) -> None:
    """Stops where two cells are one but for their names; what differs only through its data is found by the plan."""
    seen: dict[str, str] = {}
    for alias, config in cells.items():
        same = content_hash({**to_mapping(config), "name": None, "origin": None})
        if same in seen:
            raise ConfigError(
                f"cells {seen[same]} and {alias}",
                "are the same in all settings, so that their runs would be the same runs; take one out, or find out "
                "what undoes their difference (a later setting, `--set`, match_params)",
            )
        seen[same] = alias


def _checked_selection(rule: Selection, cells: Mapping[str, RunConfig]) -> Selection:
    """The rule with its direction, where it can choose cells; one that trains nothing beside others is not chosen."""
    found = rule
    trained = [alias for alias, config in cells.items() if config.stages]
    for alias, config in cells.items():
        if rule.metric == LOSS and trained and alias not in trained:
            continue
        try:
            found = check_selection(rule, config)
        except ConfigError as error:
            raise ConfigError(error.path, f"{_message(error)} (cell {alias})") from None
    return found


def _wanted(cells: Mapping[str, RunConfig], only: Sequence[str]) -> Mapping[str, RunConfig]:
    for pattern in only:
        if not any(fnmatchcase(alias, pattern) for alias in cells):
            near = difflib.get_close_matches(pattern, cells, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"--only {pattern}", f"names no cell.{suggestion} Cells: {', '.join(cells)}.")
    if not only:
        return cells
    return {alias: config for alias, config in cells.items() if any(fnmatchcase(alias, p) for p in only)}


def _adjusted(declared: Mapping[str, RunConfig], cells: Mapping[str, RunConfig]) -> Iterator[str]:
    """What was changed to make projectors comparable, cell by cell."""
    for alias, config in cells.items():
        for part in fields(config.projector):
            before, after = (getattr(c.projector, part.name) for c in (declared[alias], config))
            if before != after:
                yield f"cell {alias}: projector.{part.name} {before} -> {after}, to match"


@dataclass(frozen=True, slots=True)
class _Start:
    """What every cell starts from: the preset, and the study's own settings over it."""

    base: Mapped
    settings: Mapping[str, Any]
    components: Registry


def _cell(start: _Start, alias: str, changes: object, overrides: Sequence[str], choices: Choices) -> RunConfig:
    """A cell that is written out."""
    if changes is None:
        changes = {}
    if not isinstance(changes, Mapping):
        raise ConfigError(f"cells.{alias}", f"is {changes!r}, where a mapping of settings is expected")
    laid = {**{key: value for key, value in changes.items() if key not in _CHOICES}, "name": alias}
    try:
        own = build(Choices, {k: changes[k] for k in _CHOICES if k in changes and k != WITHOUT}, start.components)
        chosen = own.over(choices)
        config = resolve_mapping(start.base, overrides, start.components, chosen, start.settings, laid).config
        return _less(config, changes.get(WITHOUT, ()))
    except ConfigError as error:
        raise UserError(f"cell {alias}: {error}") from None


def _grid_cell(start: _Start, cell: GridCell, overrides: Sequence[str], choices: Choices) -> RunConfig:
    """A cell of the grid."""
    named = {"name": cell.name}
    try:
        chosen = build(Choices, cell.choices, start.components).over(choices)
        config = resolve_mapping(
            start.base, overrides, start.components, chosen, start.settings, named, cell.changes
        ).config
        return _less(config, cell.without)
    except ConfigError as error:
        guilty = next((path for path in cell.settings if f"{error.path}.".startswith(f"{path}.")), None)
        if guilty is None:
            raise ConfigError(f"cell {cell.name}", str(error)) from None
        raise ConfigError(f"factors.{error.path}", f"{_message(error)} (cell {cell.name})") from None


def _less(config: RunConfig, without: object) -> RunConfig:
    """The configuration less some of its stages."""
    if not isinstance(without, list | tuple) or not all(isinstance(name, str) for name in without):
        raise ConfigError(WITHOUT, f"is {without!r}, where a list of names of stages is expected")
    names = [stage.name for stage in config.stages]
    for name in without:
        if name not in names:
            raise ConfigError(WITHOUT, f"names no stage {name!r}; there are: {', '.join(names) or 'none'}")
    return replace(config, stages=tuple(stage for stage in config.stages if stage.name not in without))


def _message(error: ConfigError) -> str:
    return str(error).removeprefix(f"{error.path}: ")


def _beside(source: str, path: Path) -> str:
    beside = path.parent / source
    return str(beside) if beside.is_file() else source
