"""Samplers and pruners by name. Their options are Optuna's own, checked against what the classes take."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.errors import ConfigError
from bench.identity import derived_seed

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
}
PRUNERS: Mapping[str, str] = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "patient": "PatientPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
WILCOXON = "wilcoxon"
_PLAIN: Mapping[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "None": type(None)}
_OURS = ("seed", "warn_independent_sampling", "warn_asynchronous_seeding")  # what the search sets itself
_LAST_SEED = 1 << 31


@dataclass(frozen=True, kw_only=True)
class Part:
    """A sampler or a pruner.

    Args:
        name: one of `SAMPLERS` or `PRUNERS`.
        options: arguments of Optuna's class; of `patient`, `wrapped_pruner` is such a part itself.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def check_sampler(part: Part, objectives: int) -> None:
    """Stops where there is no such sampler, or it cannot do what is asked.

    Raises:
        ConfigError: with what would be right.
    """
    if part.name == "grid":
        raise ConfigError("sampler.name", "is 'grid', which loses cells when it is resumed; declare a study instead")
    _known(part.name, SAMPLERS, "sampler.name")
    if part.name == "cmaes" and importlib.util.find_spec("cmaes") is None:
        raise ConfigError("sampler.name", "is 'cmaes', which needs another package: pip install cmaes")
    if part.name == "cmaes" and objectives > 1:
        raise ConfigError(
            "sampler.name", "is 'cmaes', which takes one objective only; use tpe, gp, nsgaii, nsgaiii, random or qmc"
        )
    make_sampler(part, 0, 0)


def check_pruner(part: Part, objectives: int, seeds: int) -> None:
    """Stops where there is no such pruner, or it cannot do what is asked.

    Raises:
        ConfigError: with what would be right.
    """
    _known(part.name, PRUNERS, "pruner.name")
    if part.name != "none" and objectives > 1:
        raise ConfigError(
            "pruner.name", f"is {part.name!r}, and Optuna prunes nothing where there are several objectives; set none"
        )
    make_pruner(part)
    if part.name == WILCOXON:
        least = max(2, int(part.options.get("n_startup_steps", 2)))
        if seeds <= least:
            raise ConfigError(
                "pruner.name",
                f"is 'wilcoxon', which compares trials seed by seed, after {least} of them at the earliest; {seeds} "
                f"seed{'s leave' if seeds > 1 else ' leaves'} nothing to save. Give more `seeds`, or another pruner",
            )


def make_sampler(part: Part, seed: int, number: int) -> BaseSampler:
    """The sampler for one trial.

    A fresh one for each: what samplers need of the past they read from the storage, and a seed for each trial's number
    makes workers draw differently, and a search that is killed and goes on draw as one that was not.

    Args:
        part: which one.
        seed: of the search.
        number: of the trial.
    """
    import optuna

    cls = getattr(optuna.samplers, SAMPLERS[part.name])
    # Points of a quasi-random sequence belong together only if all come from the same one.
    drawn = derived_seed(seed, "search" if part.name == "qmc" else f"search/{number}") % _LAST_SEED
    quiet = {name: False for name in _OURS[1:] if name in inspect.signature(cls).parameters}
    sampler: BaseSampler = _made(cls, {**quiet, "seed": drawn, **_options(cls, part, "sampler")}, "sampler")
    return sampler


def make_pruner(part: Part, path: str = "pruner") -> BasePruner:
    """The pruner of a search."""
    import optuna

    cls = getattr(optuna.pruners, PRUNERS[part.name])
    options = _options(cls, part, path)
    if part.name == "patient":
        inner = options.get("wrapped_pruner")
        options["wrapped_pruner"] = None if inner is None else _inner(inner, f"{path}.options.wrapped_pruner")
    pruner: BasePruner = _made(cls, options, path)
    return pruner


def _inner(described: object, path: str) -> BasePruner:
    named = {"name": described} if isinstance(described, str) else described
    if not isinstance(named, Mapping) or "name" not in named or set(named) - {"name", "options"}:
        raise ConfigError(path, f"is {described!r}, where {{name: ..., options: ...}} of a pruner is expected")
    name, options = named["name"], named.get("options") or {}
    if not isinstance(name, str):
        raise ConfigError(f"{path}.name", f"is {name!r}, where the name of a pruner is expected")
    if not isinstance(options, Mapping):
        raise ConfigError(f"{path}.options", f"is {options!r}, where a mapping from option to value is expected")
    _known(name, PRUNERS, f"{path}.name")
    if name == WILCOXON:
        raise ConfigError(f"{path}.name", "is 'wilcoxon', which goes by seeds and not by steps; it cannot be wrapped")
    return make_pruner(Part(name=name, options=dict(options)), path)


def _options(cls: type, part: Part, path: str) -> dict[str, Any]:
    """The options as given, each known and of a type that the class declares."""
    declared = inspect.signature(cls).parameters
    allowed = {
        name: types
        for name, parameter in declared.items()
        if (types := _types(parameter)) is not None and name not in _OURS
    }
    for name, value in part.options.items():
        if name not in allowed:
            near = difflib.get_close_matches(str(name), allowed, n=1)
            suggestion = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"{path}.options.{name}",
                f"unknown option of {part.name}.{suggestion} Allowed here: {', '.join(allowed) or 'none'}.",
            )
        types = allowed[name]
        fits = any(isinstance(value, t) or (t is float and isinstance(value, int)) for t in types)
        if types and (not fits or (isinstance(value, bool) and bool not in types)):
            words = " or ".join(t.__name__ for t in types if t is not type(None))
            raise ConfigError(f"{path}.options.{name}", f"is {value!r}, where {words} is expected")
    missing = [n for n, p in declared.items() if n in allowed and p.default is p.empty and n not in part.options]
    missing = [name for name in missing if name != "wrapped_pruner"]  # which may be none: it then waits alone
    if missing:
        raise ConfigError(f"{path}.options.{missing[0]}", f"is missing, and {part.name} has no default for it")
    return dict(part.options)


def _types(parameter: inspect.Parameter) -> tuple[type, ...] | None:
    """The plain types that a parameter takes; none for any; None where it takes what no YAML file can hold."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return None
    if parameter.name == "wrapped_pruner":
        return ()
    annotation = parameter.annotation if isinstance(parameter.annotation, str) else parameter.annotation.__name__
    words = [word.strip() for word in annotation.strip("'\"").split("|")]
    return tuple(_PLAIN[word] for word in words) if set(words) <= set(_PLAIN) else None


def _made(cls: type, options: Mapping[str, Any], path: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a class is experimental, or an option deprecated
        try:
            return cls(**options)
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(f"{path}.options", f"{' '.join(str(error).split())}") from None


def _known(name: object, known: Mapping[str, str], path: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    suggestion = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(path, f"is {name!r}.{suggestion} Known: {', '.join(known)}.")
