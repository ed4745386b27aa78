"""`molgraft tables`: stored runs as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from results.tables import Table


def tables(
    sources: Annotated[list[Path] | None, typer.Argument(help="Folders of runs, or run directories.")] = None,
    protocol: Annotated[str, typer.Option(help="The metric protocol; one table has one.")] = "strict",
    split: Annotated[str, typer.Option(help="The split that was asked.")] = "test",
    data: Annotated[str | None, typer.Option(help="The data set or task, where runs were asked several.")] = None,
    form: Annotated[str | None, typer.Option("--format", help="markdown, latex or json; else for the screen.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file.")] = None,
) -> None:
    """Print a table of cells: means over seeds, reliance on the graph, parameters and seconds."""
    from bench.errors import UserError
    from results.runs import read_runs
    from results.tables import FORMATS, as_text, build_table

    if form is not None and form not in FORMATS:
        raise UserError(f"--format {form}: unknown; it is one of {', '.join(FORMATS)}")
    table = build_table(read_runs(sources or [Path("runs")]), protocol, split, data)
    if form is None and output is None:
        show(table)
        return
    text = as_text(table, form or "markdown")
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        typer.echo(f"wrote {output}")


def show(table: Table) -> None:
    """Prints a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    from results.tables import caption_of, cells_of

    header, body = cells_of(table)
    console = Console()
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        grid.add_column(name, justify="right" if position else "left", overflow="fold")
    for row in body:
        grid.add_row(*row)
    if console.is_terminal and console.width >= 100:
        console.print(grid)
    else:  # a pipe or a narrow window would fold the columns into one another
        Console(width=max(180, console.width)).print(grid)
    console.print(caption_of(table), markup=False, highlight=False, soft_wrap=True)
