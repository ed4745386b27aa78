"""Tables of cells: one row per cell, means over its seeds, the protocol in the caption."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import Any

from results.runs import ResultsError, Run, evaluations_of, reliance_gains, score_of
from results.statistics import Interval, Spread, averaged_per_example, mean_over_examples, over_seeds

FORMATS = ("markdown", "latex", "json")

HIDDEN = frozenset({"rouge-1", "rouge-2"})
"""Metrics that get no column, since others of the table say nearly the same; they are in the run's result."""

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
        seconds: training time, wherever a stage was trained.
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

    asked: str
    protocol: str
    split: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def build_table(runs: Sequence[Run], protocol: str, split: str = "test", data: str | None = None) -> Table:
    """The table of these runs under one protocol.

    Runs are grouped by cell, which is their identity without the seed: two cells never share a row, whatever their
    aliases.

    Raises:
        ResultsError: no run was scored by the protocol on the split, or several tasks or data sets were.
    """
    answers = [_Answer(run, entry, s) for run, entry in _asked(runs, split) if (s := score_of(entry, protocol))]
    asked = sorted({f"{answer.entry['task']}:{answer.entry['data']}" for answer in answers})
    if data is not None:
        answers = [answer for answer in answers if data in (answer.entry["data"], answer.entry["task"])]
    elif len(asked) > 1:
        raise ResultsError(f"the runs were asked {', '.join(asked)}; a table has one of them: choose with --data")
    if not answers:
        known = {score["protocol"] for _, entry in _asked(runs, split) for score in entry["scores"]}
        raise ResultsError(
            f"no run was scored by protocol {protocol!r} on the {split} split; there are scores by "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    offered = dict.fromkeys(name for answer in answers for name in answer.score["metrics"])
    names = [name for name in offered if name not in HIDDEN]
    groups: dict[tuple[str, ...], list[_Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.group, []).append(answer)
    without = _without_answer(runs, answers)
    rows = [_row(members, without.pop(members[0].run.cell, ()), names) for members in groups.values()]
    rows += [_unfinished_row(members, names) for members in without.values()]
    entry = answers[0].entry
    what = f"{entry['task']} on {entry['data']}"
    return Table(what, answers[0].score["protocol"], split, tuple(_told_apart(rows, groups)), tuple(_notes(answers)))


def as_text(table: Table, form: str) -> str:
    """The table in one of `FORMATS`; LaTeX needs the package booktabs."""
    if form == "json":
        return json.dumps(asdict(table), indent=1, ensure_ascii=False)
    header, body = cells_of(table)
    write = _markdown if form == "markdown" else _latex
    return write(header, body, caption_of(table))


def caption_of(table: Table) -> str:
    """What every number of the table depends on."""
    return f"{table.asked}, {table.split} split, protocol {table.protocol}. {' '.join(table.notes)}".strip()


def shown(value: Spread | None, digits: int = 3) -> str:
    """A mean, with its standard deviation from 3 seeds on."""
    if value is None:
        return _NO_VALUE
    deviation = f" ± {value.sd:.{digits}f}" if value.sd is not None else ""
    return f"{value.mean:.{digits}f}{deviation}"


@dataclass(frozen=True, slots=True)
class _Answer:
    """A run's scores for one way of asking."""

    run: Run
    entry: Mapping[str, Any]
    score: Mapping[str, Any]

    @property
    def group(self) -> tuple[str, ...]:
        """What answers must share to be averaged: the cell, how it was asked, and which examples."""
        return (self.run.cell, self.entry["evaluation_id"], self.entry["examples_id"])

    @property
    def name(self) -> str:
        """The cell's alias, with whatever is unusual in how it was asked."""
        control = self.entry["graph_input"]["name"]
        beams = self.entry["generation"]["beams"]
        return (
            self.run.name
            + ("" if control == "real" else f", graphs {control} at test")
            + ("" if beams == 1 else f", {beams} beams")
        )


def _asked(runs: Sequence[Run], split: str) -> Iterator[tuple[Run, Mapping[str, Any]]]:
    for run in runs:
        for entry in evaluations_of(run, split):
            yield run, entry


def _without_answer(runs: Sequence[Run], answers: Sequence[_Answer]) -> dict[str, list[Run]]:
    """Runs that have no score to show, by cell."""
    answered = {answer.run.folder for answer in answers}
    left: dict[str, list[Run]] = {}
    for run in runs:
        if run.folder not in answered:
            left.setdefault(run.cell, []).append(run)
    return left


def _row(members: Sequence[_Answer], unfinished: Sequence[Run], names: Sequence[str]) -> Row:
    gains = [reliance_gains(answer.run, answer.entry) for answer in members]
    return Row(
        name=members[0].name,
        seeds=tuple(answer.run.seed for answer in members if answer.run.seed is not None),
        metrics={name: over_seeds(_values(members, name)) for name in names},
        loss=over_seeds([_validation_loss(answer.run.summary) for answer in members]),
        reliance=mean_over_examples(averaged_per_example([gain for gain in gains if gain])),
        trained=members[0].run.summary["parameters"]["trained_sum"],
        seconds=over_seeds([answer.run.summary["training_seconds"] for answer in members]),
        states=tuple(run.error or run.state for run in unfinished),
    )


def _unfinished_row(runs: Sequence[Run], names: Sequence[str]) -> Row:
    states = tuple(run.error or run.state for run in runs)
    return Row(runs[0].name, (), dict.fromkeys(names), None, None, None, None, states)


def _told_apart(rows: Sequence[Row], groups: Iterable[tuple[str, ...]]) -> Iterator[Row]:
    """Rows whose names are equal although they are not the same get a piece of their identity."""
    names = Counter(row.name for row in rows)
    for row, group in zip_longest(rows, groups):
        piece = "-".join(part[:6] for part in group) if group else ""
        yield replace(row, name=f"{row.name} ({piece})") if names[row.name] > 1 and piece else row


def _values(members: Sequence[_Answer], metric: str) -> list[float]:
    found = (answer.score["metrics"].get(metric, {}).get("value") for answer in members)
    return [float(value) for value in found if value is not None]


def _validation_loss(summary: Mapping[str, Any]) -> float:
    last = summary["stages"][-1]
    return float(last["validation"][str(last["kept_step"])])


def _notes(answers: Sequence[_Answer]) -> list[str]:
    notes = []
    limited = [answer.entry["n"] for answer in answers if answer.entry["limited"]]
    if limited:
        notes.append(f"LIMITED: {min(limited)} examples of the split were asked.")
    undefined = {}
    for answer in answers:
        for name, estimate in answer.score["metrics"].items():
            if estimate["value"] is None:
                undefined[name] = estimate.get("reason", "undefined")
    notes += [f"{name} is n/a: {reason}." for name, reason in undefined.items()]
    invalid = sum(answer.score["n_invalid"] for answer in answers)
    if invalid:
        notes.append(f"{invalid} answers could not be parsed and count as wrong.")
    weights = sorted({answer.run.summary["scored_weights"] for answer in answers})
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
        "training seconds": lambda row: shown(row.seconds, 0),
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
