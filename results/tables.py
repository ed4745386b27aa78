"""Tables of cells: one row per cell, means over its seeds, the protocol in the caption."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from results.runs import ResultsError, Run, evaluation_of, reliance_gains, score_of
from results.statistics import Interval, Spread, averaged_per_example, mean_over_examples, over_seeds

FORMATS = ("markdown", "latex", "json")

SHOWN = ("bleu-2", "bleu-4", "rouge-l", "meteor")
"""The metrics that get a column, in this order; all others are in the run's result."""

_NO_VALUE = "n/a"


@dataclass(frozen=True, slots=True)
class Row:
    """One cell.

    Args:
        seeds: the seeds of its finished runs.
        metrics: by name; None where no run has a value.
        reliance: gain of the gold answer's log-likelihood from its own graph, nats per token; None where not measured.
        loss: validation loss of the weights that were scored, nats per token.
        trained: trained parameters.
        seconds: working time.
        states: how its unfinished runs stand.
    """

    name: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, Spread | None]
    loss: Spread | None
    reliance: Interval | None
    trained: int | None
    seconds: Spread | None
    states: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells that were asked the same and scored by the same protocol."""

    protocol: str
    split: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_table(runs: Sequence[Run], protocol: str, split: str = "test") -> Table:
    """The table of these runs under one protocol.

    Runs are grouped by cell, which is their identity without the seed: two cells never share a row, whatever their
    aliases.

    Raises:
        ResultsError: no run was scored by the protocol on the split.
    """
    finished = [run for run in runs if score_of(evaluation_of(run, split), protocol)]
    if not finished:
        known = {s["protocol"] for run in runs for e in run.summary.get("evaluations", ()) for s in e["scores"]}
        raise ResultsError(
            f"no run was scored by protocol {protocol!r} on the {split} split; there are scores by "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    cells: dict[str, list[Run]] = {}
    for run in runs:
        cells.setdefault(run.cell, []).append(run)
    offered = {name for run in finished for name in (score_of(evaluation_of(run, split), protocol) or {})["metrics"]}
    names = [name for name in SHOWN if name in offered]
    rows = [_row(members, split, protocol, names) for members in cells.values()]
    full_name = next(s["protocol"] for run in finished if (s := score_of(evaluation_of(run, split), protocol)))
    return Table(full_name, split, tuple(rows), tuple(_notes(finished, split, protocol)))


def as_text(table: Table, form: str) -> str:
    """The table in one of `FORMATS`; LaTeX needs the package booktabs."""
    if form == "json":
        return json.dumps(asdict(table), indent=1, ensure_ascii=False)
    header, body = cells_of(table)
    write = _markdown if form == "markdown" else _latex
    return write(header, body, caption_of(table))


def caption_of(table: Table) -> str:
    """What every number of the table depends on."""
    return f"Protocol {table.protocol}, {table.split} split. {' '.join(table.notes)}".strip()


def shown(value: Spread | None, digits: int = 3) -> str:
    """A mean, with its standard deviation from 3 seeds on."""
    if value is None:
        return _NO_VALUE
    deviation = f" ± {value.sd:.{digits}f}" if value.sd is not None else ""
    return f"{value.mean:.{digits}f}{deviation}"


def _row(members: Sequence[Run], split: str, protocol: str, names: Sequence[str]) -> Row:
    finished = [run for run in members if score_of(evaluation_of(run, split), protocol)]
    gains = [
        found for run in finished if (entry := evaluation_of(run, split)) and (found := reliance_gains(run, entry))
    ]
    summary = finished[0].summary if finished else {}
    return Row(
        name=members[0].name,
        seeds=tuple(run.seed for run in finished if run.seed is not None),
        metrics={name: over_seeds(_values(finished, split, protocol, name)) for name in names},
        loss=over_seeds([_validation_loss(run.summary) for run in finished]),
        reliance=mean_over_examples(averaged_per_example([gain for gain in gains if gain])),
        trained=summary["parameters"]["trained_sum"] if summary else None,
        seconds=over_seeds([run.summary["seconds"] for run in finished]),
        states=tuple(run.error or run.state for run in members if run not in finished),
    )


def _values(runs: Sequence[Run], split: str, protocol: str, metric: str) -> list[float]:
    found = []
    for run in runs:
        score = score_of(evaluation_of(run, split), protocol)
        value = (score or {}).get("metrics", {}).get(metric, {}).get("value")
        if value is not None:
            found.append(float(value))
    return found


def _validation_loss(summary: Mapping[str, Any]) -> float:
    last = summary["stages"][-1]
    return float(last["validation"].get(str(last["kept_step"])) or list(last["validation"].values())[-1])


def _notes(finished: Sequence[Run], split: str, protocol: str) -> list[str]:
    notes = []
    entries = [entry for run in finished if (entry := evaluation_of(run, split))]
    if any(entry["limited"] for entry in entries):
        notes.append(f"LIMITED: {min(entry['n'] for entry in entries)} examples of the split were asked.")
    undefined = {}
    for entry in entries:
        for name, estimate in (score_of(entry, protocol) or {}).get("metrics", {}).items():
            if estimate["value"] is None:
                undefined[name] = estimate.get("reason", "undefined")
    notes += [f"{name} is n/a: {reason}." for name, reason in undefined.items()]
    invalid = sum((score_of(entry, protocol) or {}).get("n_invalid", 0) for entry in entries)
    if invalid:
        notes.append(f"{invalid} answers could not be parsed and count as wrong.")
    weights = sorted({run.summary["scored_weights"] for run in finished})
    notes.append(f"Scored weights: {'; '.join(weights)}.")
    return notes


def cells_of(table: Table) -> tuple[list[str], list[list[str]]]:
    """The header and the rows as they are shown."""
    names = list(table.rows[0].metrics) if table.rows else []
    columns: dict[str, Callable[[Row], str]] = {
        "cell": lambda row: row.name,
        "seeds": lambda row: str(len(row.seeds)) + "".join(f", 1 {state}" for state in row.states),
        "validation loss": lambda row: shown(row.loss),
        **{name: partial(_metric, name=name) for name in names},
        "reliance": lambda row: _interval(row.reliance),
        "trained parameters": lambda row: _NO_VALUE if row.trained is None else f"{row.trained:,}",
        "seconds": lambda row: shown(row.seconds, 0),
    }
    return list(columns), [[show(row) for show in columns.values()] for row in table.rows]


def _metric(row: Row, name: str) -> str:
    return shown(row.metrics[name])


def _interval(value: Interval | None) -> str:
    if value is None:
        return _NO_VALUE
    bounds = f" [{value.ci95[0]:+.3f}, {value.ci95[1]:+.3f}]" if value.ci95 else ""
    return f"{value.mean:+.3f}{bounds}"


def _markdown(header: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (header, *body)]
    widths = [max(len(row[column]) for row in escaped) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in escaped
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", caption])


def _latex(header: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
    ]
    lines += [" & ".join(map(_tex, header)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


def _tex(text: str) -> str:
    replaced = text.replace("\\", r"\textbackslash ")
    for character in "&%$#_{}":
        replaced = replaced.replace(character, f"\\{character}")
    return replaced.replace("±", r"$\pm$").replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")
