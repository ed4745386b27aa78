"""The demonstration's one question, answered from the stored runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from results.runs import read_runs
from results.tables import build_table


def answer(names: Mapping[Path, str]) -> str:
    """Whether the graph was used: the intervals of all cells, and what they say together."""
    rows = {row.name: row for row in build_table(read_runs(list(names), names), "strict").rows}
    parts = []
    for name, row in rows.items():
        if row.reliance is None:
            parts.append(f"{name}: given no graph")
        elif row.reliance.ci95 is not None:
            low, high = row.reliance.ci95
            parts.append(f"{name}: {row.reliance.mean:+.3f} nats per token, 95% interval [{low:+.3f}, {high:+.3f}]")
    used = {name: row.reliance.ci95[0] > 0 for name, row in rows.items() if row.reliance and row.reliance.ci95}
    verdict = "yes" if used.get("graph") and not used.get("trained-on-shuffled") else "not shown"
    return (
        f"\nWas the graph used? {verdict.capitalize()}. How much likelier the gold answer is with the molecule's own "
        "graph than with that of another molecule of equal size, same examples, both seeds averaged; prompts hold no "
        f"SMILES. {'; '.join(parts)}. This is a positive control on easy data: it shows that the instrument measures "
        "what it should, not that such models read real chemistry."
    )
