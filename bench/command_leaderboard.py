"""`molgraft leaderboard`: runs of any studies ranked where they may be, as one page, as JSON or as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from results.leaderboard import Leaderboard
    from results.runs import Run

_ENDINGS = (".html", ".json", ".csv")


def leaderboard(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of runs, run directories, packed studies, or names of studies; the folder of runs by default."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The file to write: .html, .json or .csv.", show_default="leaderboard.html"
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Only rows of this task.")] = None,
    data: Annotated[str | None, typer.Option(help="Only rows asked about this data set.")] = None,
    split: Annotated[str | None, typer.Option(help="Only rows asked about this split.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Only scores of this protocol, with or without version.")] = None,
    llm: Annotated[str | None, typer.Option(help="Only rows whose language model has this in its name.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="Only rows with at most so much of trained, parameters, tokens, steps or seconds, as trained=10M or "
            "seconds=2h. Repeatable.",
            metavar="NAME=MOST",
        ),
    ] = None,
    sort: Annotated[str | None, typer.Option(help="Rank by this metric, on boards that have it.")] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Leaderboard",
    examples: Annotated[
        bool,
        typer.Option(
            "--examples/--no-examples",
            help="Put values by example into the page, by which two rows are compared: up to 9 kB for a row of 3,300.",
        ),
    ] = True,
    runs: options.Runs = Path("runs"),
    tracking: Annotated[
        str | None,
        typer.Option(help="Read an MLflow store in place of folders: sqlite:///FILE, postgresql://... or http://..."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Rank runs and external predictions, and write a page that works from disk.

    Only rows that were asked the same examples and scored by the same protocol stand on one board.
    """
    from bench.errors import UserError
    from results.leaderboard import Filter, as_html, budget_of, build
    from results.leaderboard import as_csv as csv_of
    from results.leaderboard import as_json as json_of

    if as_json and as_csv:
        raise UserError("--json --csv: one of the two is printed")
    if output is not None and output.suffix not in _ENDINGS:
        raise UserError(f"-o {output}: a file that ends in {', '.join(_ENDINGS)} is written")
    limits = dict(budget_of(text) for text in budget or ())
    wanted = Filter(task=task, data=data, split=split, protocol=protocol, llm=llm, budget=limits)
    found = _runs(sources or [], runs, tracking)
    board = build(found, wanted, sort, with_examples=examples)
    if as_json or as_csv:
        typer.echo(json_of(board) if as_json else csv_of(board), nl=False)
        if output is None:
            return
    output = output or Path("leaderboard.html")
    write = {".json": json_of, ".csv": csv_of}.get(output.suffix, lambda board: as_html(board, title))
    _write(output, write(board))
    if not (as_json or as_csv):
        typer.echo(f"wrote {output}: {_counted(board)}")


def _runs(sources: Sequence[str], runs: Path, tracking: str | None) -> list[Run]:
    from bench.errors import UserError
    from results.runs import distinct, read_runs

    if tracking is not None:
        if sources:
            raise UserError(f"--tracking: the store says which runs there are; {sources[0]} is not read as well")
        from bench.tracking.reading import read_tracked

        return read_tracked(tracking, runs)
    studies = [source for source in sources if not Path(source).exists()]
    folders = [Path(source) for source in sources if Path(source).exists()]
    found = read_runs(folders or [runs]) if folders or not studies else []
    if studies:
        from results.packed import read_study

        found += [run for study in studies for run in read_study(study, runs).runs]
    return distinct(found)


def _write(file: Path, text: str) -> None:
    from bench.run_store import write_text

    write_text(file, text)


def _counted(board: Leaderboard) -> str:
    rows = sum(len(one.rows) for one in board.boards)
    unscored = f"; {_number(len(board.unscored), 'run')} without scores" if board.unscored else ""
    return f"{_number(rows, 'row')} on {_number(len(board.boards), 'board')}{unscored}"


def _number(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
