"""How much cells use the graph, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from results.report.comparisons import detectable_after
from results.report.content import Reliance
from results.runs import reliance_gains
from results.statistics import Basis, PairedResult, averaged_per_example, holm, paired
from results.tables.gather import Answer, Group
from results.tables.significance import FEWEST_EXAMPLES


def reliance_of(groups: Mapping[str, Group]) -> tuple[Reliance, ...]:
    """The gain of each cell from its own graphs, tested and corrected by Holm over the cells.

    The test swaps the two likelihoods of each example, which are exchangeable for a model that reads nothing of the
    graph. Seeds are averaged per example first, so that an example counts once.
    """
    tested = {name: _tested(group.answers) for name, group in groups.items()}
    known = {name: found.p for name, found in tested.items() if found is not None and found.p is not None}
    adjusted = dict(zip(known, holm(list(known.values())), strict=True))
    return tuple(_reliance(name, group, tested[name], adjusted.get(name), len(known)) for name, group in groups.items())


def _tested(answers: Sequence[Answer]) -> PairedResult | None:
    import numpy as np

    gains = averaged_per_example([known for a in answers if (known := reliance_gains(a.run, a.entry))])
    if not gains:
        return None
    values = np.array(gains, dtype=np.float64)[:, None]
    found = paired([Basis("mean", values)], [Basis("mean", np.zeros_like(values))])
    return found if found.n >= FEWEST_EXAMPLES else replace(found, ci95=None)


def _reliance(name: str, group: Group, found: PairedResult | None, p: float | None, tests: int) -> Reliance:
    measured = [answer.entry.get("reliance") or {} for answer in group.answers]
    reasons = [str(entry["reason"]) for entry in measured if entry.get("reason")]
    return Reliance(
        cell=name,
        value=found.difference if found else None,
        ci95=found.ci95 if found else None,
        p=p,
        detectable=detectable_after(found, tests) if found else None,
        n=found.n if found else 0,
        left_out=int(measured[0].get("left_out") or 0),
        reason="" if found else reasons[0] if reasons else "gains of single examples are not stored",
        control=_control(group.first),
        changes=_changes(group.answers),
    )


def _control(answer: Answer) -> str:
    graphs = answer.run.summary.get("graph_input") or {}
    named = [("training", graphs.get("train")), ("test", (answer.entry.get("graph_input") or {}).get("name"))]
    return ", ".join(f"{kind} graphs at {when}" for when, kind in named if kind not in (None, "real"))


def _changes(answers: Sequence[Answer]) -> dict[str, float]:
    """By metric, the mean over seeds of the change from swapped graphs to own ones."""
    values: dict[str, list[float]] = {}
    for answer in answers:
        changed: Mapping[str, Mapping[str, Any]] = (answer.entry.get("reliance") or {}).get("metrics") or {}
        for name, estimate in changed.get(str(answer.score["protocol"]), {}).items():
            if estimate.get("value") is not None:
                values.setdefault(name, []).append(float(estimate["value"]))
    return {name: fmean(found) for name, found in values.items()}
