"""How much cells use the graph, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from results.reliance import Gains, gains_of, is_of_fewer, without_partner
from results.report.content import Reliance
from results.statistics import holm
from results.tables.gather import Answer, Group


def reliance_of(groups: Mapping[str, Group]) -> tuple[Reliance, ...]:
    """The gain of each cell from its own graphs, tested (`results.reliance`) and corrected by Holm over the cells."""
    gains = {name: gains_of(group.answers) for name, group in groups.items()}
    known = {name: found.tested.p for name, found in gains.items() if found.tested and found.tested.p is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return tuple(_reliance(name, group, gains[name], adjusted.get(name), len(known)) for name, group in groups.items())


def _reliance(name: str, group: Group, gains: Gains, p: float | None, tests: int) -> Reliance:
    measured = [answer.entry.get("reliance") or {} for answer in group.answers]
    reasons = [str(entry["reason"]) for entry in measured if entry.get("reason")]
    found = gains.tested
    return Reliance(
        cell=name,
        value=found.difference if found else None,
        ci95=found.ci95 if found else None,
        p=p,
        detectable=found.detectable_after(tests) if found else None,
        n=gains.n,
        left_out=without_partner(group.first),
        reason="" if found else reasons[0] if reasons else "gains of single examples are not stored",
        counted=gains.counted,
        control=_control(group.first),
        changes=_changes(group.answers),
    )


def _control(answer: Answer) -> str:
    graphs = answer.run.summary.get("graph_input") or {}
    named = [("training", graphs.get("train")), ("test", (answer.entry.get("graph_input") or {}).get("name"))]
    return ", ".join(f"{kind} graphs at {when}" for when, kind in named if kind not in (None, "real"))


def _changes(answers: Sequence[Answer]) -> dict[str, float]:
    """By metric, the mean over seeds of the change from swapped graphs to own ones; of those that all seeds have.

    None of decontaminated scores: runs state changes of all examples, and keep none of single ones.
    """
    if any(map(is_of_fewer, answers)):
        return {}
    values: dict[str, list[float]] = {}
    for answer in answers:
        changed: Mapping[str, Mapping[str, Any]] = (answer.entry.get("reliance") or {}).get("metrics") or {}
        for name, estimate in changed.get(str(answer.score["protocol"]), {}).items():
            if estimate.get("value") is not None:
                values.setdefault(name, []).append(float(estimate["value"]))
    most = max(map(len, values.values()), default=0)  # seeds in which changes were measured at all
    return {name: fmean(found) for name, found in values.items() if len(found) == most}
