"""Whether validation losses of a search's trials can be compared: only those of the same tokens of the same answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.config import TINY, RunConfig
from bench.config_types import Mapped
from bench.errors import ConfigError
from bench.parsing import build, laid_over, to_mapping
from bench.registry import Registry
from bench.search.parts import WILCOXON
from bench.search.space import Space, Value, with_parents
from bench.selection import LOSS, Selection

_ANOTHER = "gives trials another tokenizer, and losses are nats per token of it"
_WHY = {
    "llm.name": _ANOTHER,
    "llm.revision": _ANOTHER,
    "llm.tiny.vocabulary": _ANOTHER,
    "limits.train": "gives the small language model a tokenizer of other text, and losses are nats per token of it",
    "llm.max_length": "cuts answers at other lengths, and losses are of what is left of them",
    "stages": "gives trials other answers to validate on",
}


def refuse_incomparable(
    space: Space,
    at: Mapping[str, Value],
    mapping: Mapped,
    rules: Sequence[Selection],
    pruner: str,
    components: Registry,
) -> None:
    """Stops where trials would be judged by losses that are not of the same tokens.

    Scores of answers do not depend on tokens, and are compared whatever the space holds.

    Args:
        space: of the search, with its types.
        at: the preset's own values.
        mapping: the configuration that trials vary.
        rules: the objectives.
        pruner: its name; all but `none` and `wilcoxon` go by validation losses.
        components: where names are looked up.

    Raises:
        ConfigError: an objective is the loss, or the pruner goes by it, and a setting of the space changes what it is
            measured on.
    """
    by_loss = any(rule.metric == LOSS for rule in rules)
    prunes = pruner not in ("none", WILCOXON)
    if not by_loss and not prunes:
        return
    own = _measured_on(build(RunConfig, mapping, components), every_stage=prunes)
    for parameter in space.parameters:
        others = with_parents(parameter, space, at)
        for value in parameter.extremes:
            laid = laid_over(space.applied(mapping, others), {parameter.path: parameter.setting(value)})
            try:
                found = _measured_on(build(RunConfig, laid, components), every_stage=prunes)
            except ConfigError:
                continue  # it does not go with another setting of the preset, and a trial will tell
            changed = next((what for what in {**own, **found} if own.get(what) != found.get(what)), None)
            if changed is not None:
                what = f"the pruner {pruner} compares" if prunes and not by_loss else "the objective is"
                remedy = "let the objective be a metric, as strict/bleu-2" if by_loss else ""
                remedy += ", and " if by_loss and prunes else ""
                remedy += "leave the pruner out (or take wilcoxon, which goes by the objective)" if prunes else ""
                raise ConfigError(
                    f"space.{parameter.path}",
                    f"{_WHY[changed]}; {what} the validation loss, which cannot be compared between such trials. Take "
                    f"it out of the space; or {remedy}",
                )


def _measured_on(config: RunConfig, *, every_stage: bool) -> dict[str, Any]:
    """What validation losses of a run are losses of, by the setting that says so."""
    found = {"llm.name": config.llm.name, "llm.revision": config.llm.revision, "llm.max_length": config.llm.max_length}
    if config.llm.name == TINY:
        found |= {"llm.tiny.vocabulary": config.llm.tiny.vocabulary, "limits.train": config.limits.train}
    return {**found, "stages": list(_validated(config, every_stage=every_stage))}


def _validated(config: RunConfig, *, every_stage: bool) -> Iterator[list[Any]]:
    """The tasks of each stage; the loss of a run is that of its last one, and pruners see all."""
    for stage in config.stages if every_stage else config.stages[-1:]:
        yield [to_mapping(weighted.task) for weighted in config.training_tasks(stage)]  # all, whatever their weights
