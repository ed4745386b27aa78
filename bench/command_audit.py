"""`molgraft data audit`: what is wrong inside data sets, and which molecules they share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from bench.runtime import Runtime
    from tasks.audit_keys import KeyStore


def audit(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, with a split method where wanted (bace@random-3), or paths of YAML files; none for all that "
            "are here.",
            metavar="[NAMES]...",
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            help="A part to look for in corpora, as NAME/SPLIT or NAME/SPLIT:ROLE (uspto50k/test:product+reactants); "
            "repeatable. By default each validation and test split.",
            metavar="PART",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A corpus to look in, likewise; repeatable. By default each training split.", metavar="PART"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for audit.json, audit.md, audit.svg and audit.png."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read molecules; by default one per processor.", min=1)
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds that one molecule may take.", min=0.1)] = 30.0,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON for a program.")] = False,
) -> None:
    """Report leakage and defects of data sets.

    Within each data set: molecules that cannot be read, duplicates, salts, labels that contradict each other, texts
    that stand twice, and what its splits share. Across: how many molecules of each evaluation set each corpus holds.
    Exits with 1 if one of all data sets could not be read.
    """
    import json

    from bench.runtime import Runtime
    from tasks.audit import audit as report_on
    from tasks.audit_keys import KeyStore
    from tasks.data import Catalogue

    runtime = Runtime(progress=not quiet)
    with KeyStore(workers=workers, limit=limit) as store, _Progress(runtime, store) as progress:
        report = report_on(
            names or (), Catalogue(), store, evaluate=evaluate or (), against=against or (), say=progress.say
        )
    if output is not None:
        for path in _write(report, output):
            runtime.say(f"wrote {path}")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    if any(each["broken"] for each in report["skipped"]):
        raise typer.Exit(1)


class _Progress:
    """A bar on standard error for the molecules that have to be worked out; a line where no bar can be shown."""

    def __init__(self, runtime: Runtime, store: KeyStore) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._runtime = runtime
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=runtime.console, disable=not runtime.bars, transient=True)
        self._task = self._bar.add_task("audit", total=None)
        store.report = self._advance

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, message: str) -> None:
        """Names what is worked on."""
        self._bar.update(self._task, description=message, completed=0, total=None)
        if self._runtime.progress and not self._runtime.bars:
            self._runtime.say(f"  {message}")

    def _advance(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


def _write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """The report's files, each whole or not at all."""
    import json

    from bench.errors import UserError
    from tasks.audit_picture import draw
    from tasks.audit_report import markdown

    texts = {"audit.json": json.dumps(report, indent=2) + "\n", "audit.md": markdown(report)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            unfinished = folder / f".{name}.unfinished"
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(folder / name)
    except OSError as error:
        raise UserError(f"--output {folder}: cannot be written ({error.strerror or error})") from error
    return [folder / name for name in texts] + draw(report, folder)


def _show(report: Mapping[str, Any]) -> None:
    """Prints the tables for people."""
    from rich.console import Console
    from rich.table import Table

    from tasks.audit_report import NOTE, grids

    console = Console()
    for grid in grids(report):
        table = Table(title=grid.title, title_justify="left")
        for position, column in enumerate(grid.columns):
            table.add_column(column, justify="left" if position == 0 else "right", overflow="fold")
        for row in grid.rows:
            table.add_row(*row)
        console.print(table, markup=False)
    console.print(NOTE, highlight=False, markup=False)
    for each in report["skipped"]:
        console.print(f"skipped {each['data']}: {each['reason']}", highlight=False, markup=False)
