"""`molgraft compare`: two cells side by side, on the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from rich.text import Text

    from results.compare import Comparison, MetricComparison

_Side = Annotated[
    str,
    typer.Argument(help="A run directory, a packed run, STUDY:CELL, or a cell's name in the folder of runs."),
]


def compare(
    a: _Side,
    b: _Side,
    protocol: Annotated[str | None, typer.Option(help="One metric protocol only.")] = None,
    split: Annotated[
        str | None, typer.Option(help="The split that was asked; by default test, or the only one.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="One data set or task only.")] = None,
    runs: options.Runs = Path("runs"),
    as_json: options.Json = False,
) -> None:
    """Compare two runs or cells: every metric with its difference, interval, p, effect, and what could be detected.

    Only answers to the same examples by the same protocol are compared; all else is refused, with what each has.
    """
    from results.compare import compare as compared
    from results.compare import runs_of

    found = compared(runs_of(a, runs), runs_of(b, runs), protocol=protocol, split=split, data=data)
    if as_json:
        import json

        described = [_as_json(comparison) for comparison in found]
        typer.echo(json.dumps(described[0] if len(described) == 1 else described, ensure_ascii=False, allow_nan=False))
        return
    for comparison in found:
        _show(comparison)


def _as_json(comparison: Comparison) -> dict[str, Any]:
    from dataclasses import asdict

    def finite(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if value != value or value in (float("inf"), float("-inf")) else value

    described: dict[str, Any] = finite(asdict(comparison))
    return described


def _show(comparison: Comparison) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console()
    wide = console if console.is_terminal and console.width >= 100 else Console(width=max(180, console.width))

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    of_what = f"{comparison.asked}, protocol {comparison.protocol}, {comparison.n:,} examples"
    say(f"{comparison.a} against {comparison.b}: {of_what}")
    for name, seeds, parameters, seconds in zip(
        (comparison.a, comparison.b), comparison.seeds, comparison.parameters, comparison.seconds, strict=True
    ):
        known = [f"seeds {', '.join(map(str, seeds))}" if seeds else "no seed"]
        known += [f"{parameters:,} trained parameters"] if parameters is not None else []
        known += [f"{seconds:,.1f} s of training"] if seconds is not None else []
        say(f"  {name}: {'; '.join(known)}")
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    headings = (
        *("metric", comparison.a, comparison.b, "difference", "95% interval", "p", "p (Holm)", "effect"),
        *("detectable", "better / worse / same"),
    )
    for place, heading in enumerate(headings):
        grid.add_column(Text(heading), justify="right" if place else "left", overflow="fold")
    for metric in comparison.metrics:
        grid.add_row(*_cells(metric))
    wide.print(grid)
    for line in _notes(comparison):
        say(f"- {line}")


def _cells(found: MetricComparison) -> list[Text]:
    from rich.text import Text

    from results.formats import NO_VALUE, bounds, decimals_of, number, p_value

    arrow = {"larger": " ↑", "smaller": " ↓"}.get(found.direction or "", "")
    known = [value for value in (found.a, found.b) if value is not None]
    digits = decimals_of(known, share=all(abs(value) <= 1 for value in known))
    values = zip((found.a, found.b), found.counted, strict=True)
    shown = (number(value, digits) + (f" ({seeds})" if seeds else "") for value, seeds in values)
    cells = [f"{found.metric}{arrow}", *shown]
    paired = found.paired
    if paired is None:
        return [Text(cell) for cell in (*cells, "no test")]
    significant = found.adjusted is not None and found.adjusted < 0.05
    p, adjusted = p_value(paired.p), p_value(found.adjusted)
    finer = digits + 1  # a difference of the last digit should be seen
    cells += [
        number(paired.difference, finer, sign=True),
        bounds(paired.ci95, finer, sign=True),
        p,
        f"{adjusted}{' *' if significant else ''}",
        NO_VALUE if paired.effect is None else number(paired.effect, 2, sign=True),
        NO_VALUE if paired.detectable is None else number(paired.detectable, finer),
        "" if found.wins is None else f"{found.wins.a:,} / {found.wins.b:,} / {found.wins.ties:,}",
    ]
    return [Text(cell, style="bold" if significant else "") for cell in cells]


def _notes(comparison: Comparison) -> list[str]:
    from results.formats import p_value

    tests = dict.fromkeys(f.paired.test for f in comparison.metrics if f.paired is not None and f.paired.p is not None)
    notes = [
        f"{test}: {', '.join(f.metric for f in comparison.metrics if f.paired is not None and f.paired.test == test)}."
        for test in tests
    ]
    tested = sum(found.adjusted is not None for found in comparison.metrics)
    notes += [
        f"Difference: {comparison.a} less {comparison.b}. * below 0.05 after Holm's correction over {tested} metrics. "
        "Effect: in standard deviations of one example's difference (Cohen's d_z). Detectable: what such a comparison "
        "finds in 80% of cases."
    ]
    if tests and not any(test.startswith("t over") for test in tests):
        notes.append("p is about these models on other examples; with 3 seeds of each it is about training again too.")
    for found in comparison.metrics:
        if found.mcnemar is not None:
            notes.append(
                f"McNemar, {found.metric}: only {comparison.a} is right on {found.mcnemar.only_a:,}, only "
                f"{comparison.b} on {found.mcnemar.only_b:,}; p {p_value(found.mcnemar.p)}."
            )
    for note in dict.fromkeys(found.paired.note for found in comparison.metrics if found.paired is not None):
        if note:
            named = [f.metric for f in comparison.metrics if f.paired is not None and f.paired.note == note]
            notes.append(f"{', '.join(named)}: {note}.")
    for note in dict.fromkeys(found.note for found in comparison.metrics if found.note):
        notes.append(f"{', '.join(f.metric for f in comparison.metrics if f.note == note)}: {note}.")
    for side, name in enumerate((comparison.a, comparison.b)):
        for why in dict.fromkeys(found.lacking[side] for found in comparison.metrics if found.lacking[side]):
            lacking = [found.metric for found in comparison.metrics if found.lacking[side] == why]
            notes.append(f"{', '.join(lacking)} of {name}: undefined ({why}).")
    differ = [f"{path} {_setting(one)} | {_setting(other)}" for path, (one, other) in comparison.settings.items()]
    if differ:
        more = f"; and {len(differ) - 12} more" if len(differ) > 12 else ""
        notes.append(f"They differ in: {'; '.join(differ[:12])}{more}.")
    return notes


def _setting(value: object) -> str:
    return "-" if value is None else str(value)
