"""Search files: a preset, a space, what is to become small or large, and how trials are chosen and ended."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from bench.config import RunConfig
from bench.config_types import Alias, Count, Mapped, Rate
from bench.errors import ConfigError, UserError
from bench.identity import content_hash
from bench.parsing import apply_overrides, build, find_config, laid_over, load_mapping, read_yaml
from bench.preset import Choices, Resolved, resolve_mapping
from bench.registry import Registry, registry
from bench.search.comparable import refuse_incomparable
from bench.search.parts import Part, check_pruner, check_sampler
from bench.search.space import Space, Value, overlaps, read_space, typed
from bench.selection import PLAIN, Selection, check_selection

_SPLIT = "evaluation.split"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search file says.

    Args:
        name: of the search, of its folder and of its MLflow experiment.
        extends: the preset or file that every trial starts from.
        question: what it is to answer, in words.
        scale, fidelity, switches: choices of the preset.
        settings: values by dotted path, laid over the preset. Those below `evaluation` are for the trials only: the
            selected configuration is asked on test as the preset asks it.
        space: by path of a setting, a range or choices; see `bench.search.space`.
        objective: the figure that selects, over validation only; or several, of which the first decides what is tested.
        seeds: every trial is trained with each, and its value is the mean.
        trials: how many in all; the first is the preset itself.
        sampler, pruner: by name, with Optuna's options.
        timeout: seconds after which a command begins no further trial.
        seed: of the sampler.
    """

    name: Alias
    extends: str
    question: str = ""
    scale: str | None = None
    fidelity: str | None = None
    switches: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    space: dict[str, Any] = field(default_factory=dict)
    objective: tuple[Selection, ...] = field(default_factory=lambda: (Selection(),))
    seeds: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] = (0,)
    trials: Count = 20
    sampler: Part = field(default_factory=lambda: Part(name="tpe"))
    pruner: Part = field(default_factory=lambda: Part(name="none"))
    timeout: Rate | None = None
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class Definition:
    """A search that was read and checked.

    Args:
        search: what the file says.
        written: the preset, as `load_mapping` gives it.
        choices: of the preset.
        mapping: the configuration that trials vary, as plain values.
        tested: the same as it is asked on test.
        space: with the types that the configuration declares.
        preset_values: the preset's own place in the space, which is trial 0.
        components: where names are looked up.
        source, overrides, chosen: what was asked for, so that a worker can read the same.
    """

    search: Search
    written: Mapped
    choices: Choices
    mapping: Mapped
    tested: Mapped
    space: Space
    preset_values: Mapping[str, Value]
    components: Registry
    source: Path
    overrides: tuple[str, ...]
    chosen: Choices

    @property
    def rules(self) -> tuple[Selection, ...]:
        """What a trial is judged by."""
        return self.search.objective

    @property
    def figures(self) -> tuple[str, ...]:
        """What the figures of the objectives are called: by metric, and by task as well where that tells two apart."""
        metrics = [rule.metric for rule in self.rules]
        return tuple(
            rule.metric if metrics.count(rule.metric) == 1 else f"{rule.metric} of {rule.task}" for rule in self.rules
        )

    @cached_property
    def fingerprint(self) -> str:
        """Says whether trials of two definitions may stand in one search: all but their number and how they are chosen.

        Objectives are compared by what they measure and in which direction, not by how that was written.
        """
        without = {key: value for key, value in self.mapping.items() if key not in ("name", "origin")}
        space = [{**asdict(p), "when": {k: list(v) for k, v in p.when.items()}} for p in self.space.parameters]
        rules = [(rule.metric, rule.direction, rule.task) for rule in self.rules]
        return content_hash({"mapping": without, "space": space, "rules": rules, "seeds": self.search.seeds})

    def config(self, number: int, values: Mapping[str, Value], seed: int) -> RunConfig:
        """The run of a trial with one seed.

        Raises:
            ConfigError: the values do not go together.
        """
        return self._built(self.mapping, values, f"{self.search.name}-{number}", seed)

    def test_config(self, number: int, values: Mapping[str, Value], seed: int) -> RunConfig:
        """The same run as it is asked on test: as the preset asks, but for settings of `evaluation` in the space."""
        return self._built(self.tested, values, f"{self.search.name}-{number}", seed)

    def preset(self, number: int, values: Mapping[str, Value]) -> Mapped:
        """The configuration of a trial as a preset that stands for itself."""
        laid = self.space.applied(self.tested, values)
        own = {"name": f"{self.search.name}-{number}", "seed": self.search.seeds[0]}  # that of a run which is there
        return {**self._resolved(laid).mapping, **own}

    def _built(self, mapping: Mapped, values: Mapping[str, Value], name: str, seed: int) -> RunConfig:
        laid = {**self.space.applied(mapping, values), "name": name, "seed": seed}
        return self._resolved(laid).config

    def _resolved(self, laid: Mapped) -> Resolved:
        """Resolves again with what a trial has changed on top, so that `origin` tells which switches it has undone."""
        fresh = resolve_mapping(self.written, (), self.components, self.choices).mapping
        tops = [
            f"{key}={json.dumps(value)}" for key, value in laid.items() if key != "origin" and fresh.get(key) != value
        ]
        return resolve_mapping(self.written, tops, self.components, self.choices)


def load_search(
    source: str,
    overrides: Sequence[str] = (),
    choices: Choices | None = None,
    *,
    trials: int | None = None,
    timeout: float | None = None,
) -> Definition:
    """A search by name or path, with all that can be known before anything runs checked.

    Args:
        source: name of a search that molgraft ships, or a YAML file.
        overrides: `a.b=value` settings of every trial, and of the test.
        choices: scale, fidelity and switches of the preset, before those of the file.
        trials, timeout: instead of the file's.

    Raises:
        UserError: there is no such file; or, located, a setting of the space is unknown or refused, the preset lies
            outside of the space, an objective reads what it may not, a sampler or pruner is unknown or cannot do what
            is asked.
    """
    path = find_config(source, folder="searches")
    components = registry()
    try:
        search = build(Search, _with_one_objective(read_yaml(path)), components)
        search = replace(search, trials=trials or search.trials, timeout=timeout or search.timeout)
        return _checked(search, path, overrides, choices or Choices(), components)
    except ConfigError as error:
        raise UserError(f"{path}: {error}") from None


def _checked(search: Search, path: Path, overrides: Sequence[str], chosen: Choices, components: Registry) -> Definition:
    _check_objectives(search)
    check_sampler(search.sampler, len(search.objective))
    check_pruner(search.pruner, len(search.objective), len(search.seeds))
    space = read_space(search.space)
    _refuse_clashes(search, overrides, space)
    beside = path.parent / search.extends
    written = load_mapping(str(beside) if beside.is_file() else search.extends)
    own = Choices(scale=search.scale, fidelity=search.fidelity, switches=search.switches)
    choices = chosen.over(own)
    resolved = resolve_mapping(written, (), components, choices).mapping
    asked = {place: value for place, value in search.settings.items() if place.split(".")[0] != "evaluation"}
    tested = laid_over(apply_overrides(laid_over(resolved, asked), overrides), {_SPLIT: "test"})
    mapping = apply_overrides(laid_over(resolved, search.settings), overrides)
    mapping = laid_over(mapping, {_SPLIT: "validation"})
    build(RunConfig, tested, components)
    config = build(RunConfig, mapping, components)
    rules = [
        check_selection(rule, config, "objective" if len(search.objective) == 1 else f"objective[{number}]")
        for number, rule in enumerate(search.objective)
    ]
    search = replace(search, objective=tuple(rules))
    space, preset_values = typed(space, mapping, components)
    refuse_incomparable(space, preset_values, mapping, search.objective, search.pruner.name, components)
    return Definition(
        search, written, choices, mapping, tested, space, preset_values, components, path, tuple(overrides), chosen
    )


def _with_one_objective(written: Mapped) -> Mapped:
    """`objective: {metric: loss}` is short for a list of one."""
    objective = written.get("objective")
    return {**written, "objective": [objective]} if isinstance(objective, Mapping) else written


def _check_objectives(search: Search) -> None:
    if not search.objective:
        raise ConfigError("objective", "is empty; give {metric: loss}, or leave it out")
    metrics = [(rule.metric, rule.task) for rule in search.objective]
    if len(set(metrics)) < len(metrics):
        raise ConfigError("objective", "names a figure twice")
    costs = [rule.metric for rule in search.objective if rule.metric in PLAIN[1:]]
    if len(costs) == len(search.objective):
        raise ConfigError("objective", f"is {' and '.join(costs)} alone, which says nothing of quality; add a score")
    if len(set(search.seeds)) < len(search.seeds):
        raise ConfigError("seeds", f"are {list(search.seeds)}, one of them twice")


def _refuse_clashes(search: Search, overrides: Sequence[str], space: Space) -> None:
    """Stops where a setting is given that trials would overwrite, or a split that may select nothing."""
    for override in overrides:
        path = override.partition("=")[0].strip()
        for parameter in space.parameters:
            if path == parameter.path:
                raise ConfigError(f"--set {override}", f"is varied by the search, as {parameter.path}")
    given = {f"settings.{path}": path for path in search.settings}
    given |= {f"--set {override}": override.partition("=")[0].strip() for override in overrides}
    for place, path in given.items():
        if path == _SPLIT:
            raise ConfigError(
                place,
                "trials are asked on the validation split, by which they are selected, and the selected one on test; "
                "leave the split out",
            )
        if overlaps(path, _SPLIT):
            value = search.settings.get(path)
            if isinstance(value, Mapping) and "split" in value:
                raise ConfigError(f"{place}.split", "trials are asked on the validation split; leave the split out")
        if path in ("seed", "name", "origin"):
            raise ConfigError(place, "is given to each trial by the search" + (": `seeds`" if path == "seed" else ""))
