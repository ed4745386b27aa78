"""`molgraft report`: a study as one page."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from results.report import Report

T = TypeVar("T")


def report(
    source: Annotated[
        str, typer.Argument(help="A study by its name, a packed study by its folder, a folder of runs, or one run.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page; by default NAME-report.html here.")
    ] = None,
    runs: options.Runs = Path("runs"),
    metric: Annotated[str | None, typer.Option(help="That decides; by default the first of the table.")] = None,
    compare_to: Annotated[
        str | None, typer.Option(help="The cell that all are compared with; by default the study's, or the best.")
    ] = None,
    examples: Annotated[int, typer.Option(help="Of each list of each cell that the page holds.", min=0)] = 10,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write one page for a reviewer: question, answer, tables, plots, reliance, examples, recipe and provenance."""
    import json

    from bench.errors import UserError
    from results.report import as_html, build_report, headlines, read_source

    found = build_report(
        read_source(source, runs),
        metric=metric,
        compare_to=compare_to,
        per_list=examples,
        tracked=partial(_tracked, quiet=quiet or as_json),
    )
    page = as_html(found)
    file = output or Path(f"{_as_file_name(found)}-report.html")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {file}: cannot be written: {error}") from None
    if as_json:
        described = {"file": str(file), "bytes": len(page.encode()), "found": headlines(found)}
        typer.echo(json.dumps(described, ensure_ascii=False))
        return
    for line in headlines(found):
        typer.echo(line)
    typer.echo(f"wrote {file} ({len(page.encode()) / 1e6:.1f} MB)")


def _as_file_name(found: Report) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.+-" else "_" for letter in found.study) or "study"


def _tracked(items: Sequence[T], what: str, *, quiet: bool) -> Iterable[T]:
    """A bar on standard error; none in a log."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    return track(items, what, console=console, transient=True, disable=hidden)
