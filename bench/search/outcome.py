"""What a search came to: its trials as rows, the selected one, and that one's configuration as a preset."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.config_types import Mapped
from bench.errors import is_user_error
from bench.parsing import as_yaml, read_yaml
from bench.preset import load_config
from bench.run_store import write_text
from bench.search.claims import PRESET, RETRY_OF, SESSIONS
from bench.search.trial import ERROR, FIGURES, PARAMETERS, REASON, RUNS, SAME_AS, SECONDS

if TYPE_CHECKING:
    from optuna.study import Study

    from bench.search.definition import Definition
    from bench.search.space import Value

TrialState = Literal["complete", "pruned", "failed", "running", "waiting"]
_STATES: Mapping[str, TrialState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
_LONGEST = 60  # characters of a reason in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial as it is shown.

    Args:
        number: from 0, which is the preset itself.
        state: where it stands; what does not fit together counts as pruned.
        figures: of the objectives, means over seeds; None but for a complete trial.
        by_seed: the figures of each seed that was done.
        values: of the space.
        error, reason: why it has no figure.
        same_as: an earlier trial whose runs it shares.
        retry_of: a failed trial that it tries again.
        parameters, seconds: what was trained, and how long, over all seeds.
        sessions: of work on it; more than one where a worker was stopped.
        runs: names of its run directories.
    """

    number: int
    state: TrialState
    figures: tuple[float, ...] | None
    by_seed: Mapping[str, Sequence[float]] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    same_as: int | None = None
    retry_of: int | None = None
    parameters: float | None = None
    seconds: float | None = None
    sessions: int = 0
    runs: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What else is to be said of it, in a few words."""
        parts = [
            "the preset" if self.number == 0 else "",
            f"same runs as trial {self.same_as}" if self.same_as is not None else "",
            f"trial {self.retry_of} again" if self.retry_of is not None else "",
            ": ".join(part for part in (self.error, self.reason) if part),
        ]
        return "; ".join(part for part in parts if part)


def rows_of(study: Study, definition: Definition) -> list[TrialRow]:
    """Every trial of a search, by number."""
    return [_row(frozen, definition) for frozen in study.get_trials(deepcopy=False)]


def selected(rows: Sequence[TrialRow], definition: Definition) -> TrialRow | None:
    """The best complete trial by the rule; of several objectives, by the first. Of equals, the earliest."""
    complete = [row for row in rows if row.figures is not None]
    sign = 1 if definition.rules[0].direction == "min" else -1
    candidates = front(rows, definition) if len(definition.rules) > 1 else complete
    return min(candidates, key=lambda row: (sign * (row.figures or (0.0,))[0], row.number), default=None)


def front(rows: Sequence[TrialRow], definition: Definition) -> list[TrialRow]:
    """The complete trials that no other is at least as good as in everything and better in something."""
    signs = [1 if rule.direction == "min" else -1 for rule in definition.rules]
    points = {
        row.number: tuple(s * f for s, f in zip(signs, row.figures, strict=True))
        for row in rows
        if row.figures is not None
    }

    def beaten(point: tuple[float, ...]) -> bool:
        return any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points.values()
        )

    return [row for row in rows if row.number in points and not beaten(points[row.number])]


def table_of(rows: Sequence[TrialRow], definition: Definition) -> tuple[list[str], list[list[str]]]:
    """The trials as a header and lines of text."""
    names = definition.figures
    paths = [parameter.path for parameter in definition.space.parameters]
    header = ["trial", "state", *names, *paths, "seconds", "note"]
    best = selected(rows, definition)
    lines = []
    for row in rows:
        figures = [f"{figure:.6g}" for figure in row.figures] if row.figures is not None else [""] * len(names)
        chosen = [_shown(row.values.get(path)) for path in paths]
        number = f"{row.number} *" if best is not None and row.number == best.number else str(row.number)
        note = row.note if len(row.note) <= _LONGEST else f"{row.note[:_LONGEST]}…"
        seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
        lines.append([number, row.state, *figures, *chosen, seconds, note])
    return header, lines


def markdown(rows: Sequence[TrialRow], definition: Definition) -> str:
    """The trials as a table in Markdown; the selected one has a star."""
    header, lines = table_of(rows, definition)
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    rule = ["---"] * len(header)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *escaped))


def as_csv(rows: Sequence[TrialRow], definition: Definition) -> str:
    """The trials with all that is known of them, as CSV."""
    paths = [parameter.path for parameter in definition.space.parameters]
    seeds = [str(seed) for seed in definition.search.seeds]
    names = definition.figures
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    by_seed = [f"{name} seed {seed}" for name in names for seed in seeds]
    rest = ["parameters", "seconds", "sessions", "same_as", "retry_of", "error", "reason", "runs"]
    writer.writerow(["trial", "state", *names, *by_seed, *paths, *rest])
    for row in rows:
        figures = row.figures if row.figures is not None else [None] * len(names)
        single = [row.by_seed[s][k] if s in row.by_seed else None for k in range(len(names)) for s in seeds]
        values = [row.values.get(path) for path in paths]
        others = [row.parameters, row.seconds, row.sessions, row.same_as, row.retry_of, row.error, row.reason]
        writer.writerow([row.number, row.state, *figures, *single, *values, *others, " ".join(row.runs)])
    return text.getvalue()


def write_preset(row: TrialRow, definition: Definition, file: Path) -> None:
    """Writes the configuration of a trial as a preset that any command takes, with where it came from.

    Where that gives the same configuration it extends the preset and names what differs; a preset that extends another
    one, or has a scale or switches to choose, is written out whole.
    """
    mapping = definition.preset(row.number, row.values)
    expected = definition.test_config(row.number, row.values, definition.search.seeds[0])
    short = _extending(mapping, definition)
    write_text(file, _as_preset(short if short is not None else mapping, row, definition))
    if short is not None and not _gives(file, expected):
        write_text(file, _as_preset(mapping, row, definition))


def describe(row: TrialRow, definition: Definition) -> dict[str, Any]:
    """A trial for a program."""
    names = definition.figures
    return {
        "trial": row.number,
        "state": row.state,
        "figures": dict(zip(names, row.figures, strict=True)) if row.figures is not None else None,
        "by_seed": {seed: dict(zip(names, found, strict=True)) for seed, found in row.by_seed.items()},
        "values": dict(row.values),
        "settings": definition.space.settings(row.values),
        "error": row.error,
        "reason": row.reason,
        "same_as": row.same_as,
        "retry_of": row.retry_of,
        "parameters": row.parameters,
        "seconds": row.seconds,
        "sessions": row.sessions,
        "runs": list(row.runs),
    }


def _row(frozen: Any, definition: Definition) -> TrialRow:
    known = frozen.user_attrs
    complete = frozen.state.name == "COMPLETE"
    values = dict(frozen.params)
    if PRESET in known and not values:  # not begun yet
        values = dict(definition.preset_values)
    return TrialRow(
        number=frozen.number,
        state=_STATES[frozen.state.name],
        figures=tuple(frozen.values) if complete else None,
        by_seed=known.get(FIGURES, {}),
        values={p.path: values[p.path] for p in definition.space.parameters if p.path in values},
        error=known.get(ERROR),
        reason=known.get(REASON),
        same_as=known.get(SAME_AS),
        retry_of=known.get(RETRY_OF),
        parameters=known.get(PARAMETERS),
        seconds=known.get(SECONDS),
        sessions=len(known.get(SESSIONS, [])),
        runs=tuple(known.get(RUNS, ())),
    )


def _extending(mapping: Mapped, definition: Definition) -> Mapped | None:
    """The keys in which a configuration differs from the preset; None where such a file would not give the same."""
    search = definition.search
    beside = definition.source.parent / search.extends
    written = read_yaml(beside) if beside.is_file() else {}
    if "origin" in mapping or "extends" in written:
        return None
    extends = str(beside.resolve()) if beside.is_file() else search.extends
    changed = {key: value for key, value in mapping.items() if definition.written.get(key) != value}
    return {"name": mapping["name"], "extends": extends, **{k: v for k, v in changed.items() if k != "name"}}


def _as_preset(mapping: Mapped, row: TrialRow, definition: Definition) -> str:
    search = definition.search
    rules = "; ".join(rule.described for rule in definition.rules)
    figures = ", ".join(f"{f:.6g}" for f in row.figures or ())
    lines = [
        f"Selected by the search {search.name}: trial {row.number}, {rules}: {figures}",
        f"(mean over seeds {', '.join(map(str, search.seeds))}). Test played no part in it.",
        f"It varied {search.extends}; what the trial chose:",
        *(f"  {path}: {json.dumps(value)}" for path, value in definition.space.settings(row.values).items()),
    ]
    return "".join(f"# {line}\n" for line in lines) + as_yaml(mapping)


def _gives(file: Path, expected: object) -> bool:
    try:
        return load_config(str(file)) == expected
    except Exception as error:
        if is_user_error(error):
            return False
        raise


def _shown(value: Value | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
