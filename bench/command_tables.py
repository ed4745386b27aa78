"""`molgraft tables`: stored runs as tables, and the tables of studies as files that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from results.packed import StudyOnFile
    from results.tables import Table

_COMMITTED = Path("results")


def tables(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of runs or run directories; or a study by its name; or packed studies, whose table files are "
            "written anew.",
            metavar="[FOLDER|STUDY]...",
        ),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="The metric protocol; by default that of the study, or strict.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split that was asked; test by default.")] = None,
    data: Annotated[str | None, typer.Option(help="The data set or task, where runs were asked several.")] = None,
    task: Annotated[str | None, typer.Option(help="The task, where runs were asked several.")] = None,
    metrics: Annotated[
        str | None, typer.Option(help="The columns, separated by commas.", metavar="NAME[,NAME...]")
    ] = None,
    compare_to: Annotated[
        str | None, typer.Option(help="The cell that all others are tested against.", metavar="CELL")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--format", help="markdown, latex, html or json; else for the screen.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to a file.")] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Build the tables of packed studies from their runs and say where the files beside them differ; "
            "without folders, of all in results/. Writes nothing.",
        ),
    ] = False,
    pack: Annotated[
        Path | None,
        typer.Option(help="Write a study's runs and tables, as small as a repository wants them.", metavar="FOLDER"),
    ] = None,
    predictions: Annotated[bool, typer.Option("--predictions", help="With --pack: questions and answers too.")] = False,
    molecules: Annotated[
        str | None,
        typer.Option(
            help="With --pack, what of the examples' molecules: none, plain (no depictions), shown (depictions of "
            "those that a report shows; the default) or all.",
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw the plots of each table too, as SVG and PNG.", metavar="FOLDER")
    ] = None,
    runs: options.Runs = Path("runs"),
) -> None:
    """Print tables of cells: means over seeds with intervals, reliance on the graph, parameters and seconds.

    The best of a column is bold only where it is significantly better than the next, by a paired test on the same
    examples.
    """
    from bench.errors import UserError
    from results.tables import FORMATS

    if form is not None and form not in FORMATS:
        raise UserError(f"--format {form}: unknown; it is one of {', '.join(FORMATS)}")
    if predictions and pack is None:
        raise UserError("--predictions: says nothing without --pack")
    if molecules is not None and pack is None:
        raise UserError("--molecules: says nothing without --pack")
    chosen = any(option is not None for option in (protocol, split, data, task, metrics, form, output))
    if check:
        if chosen or compare_to is not None or pack is not None or plots is not None:
            raise UserError("--check: takes folders of packed studies only; what their tables are, they say themselves")
        if not sources and _COMMITTED.is_dir() and not _packed([str(_COMMITTED)], quiet=True):
            typer.echo(f"{_COMMITTED}: no packed study is there, so there is nothing to check")
            return
        _check(_packed(sources or [str(_COMMITTED)]))
        return
    if pack is not None:
        if chosen or compare_to is not None or plots is not None or len(sources or []) != 1:
            raise UserError("--pack: give one study by its name, and nothing else; its tables are what it declares")
        _pack((sources or [])[0], runs, pack, predictions=predictions, molecules=molecules or "shown")
        return
    asked = _Asked(protocol, split, data, task, tuple((metrics or "").split(",")) if metrics else (), compare_to)
    if sources and not chosen and compare_to is None and plots is None and (packed := _packed(sources, quiet=True)):
        for folder in packed:
            _rewrite(folder)
        return
    with telling() as tell:
        found, several = _tables(sources or [str(runs)], runs, asked, tell)
    _put_out(found, form, output, several=several)
    if plots is not None:
        _draw(found, sources or [str(runs)], runs, plots)


class _Asked:
    """What is asked for on the command line; None or empty where it is left to the study."""

    def __init__(
        self,
        protocol: str | None,
        split: str | None,
        data: str | None,
        task: str | None,
        metrics: tuple[str, ...],
        reference: str | None,
    ) -> None:
        self.protocol, self.split, self.data, self.task = protocol, split, data, task
        self.metrics, self.reference = tuple(name.strip() for name in metrics), reference

    @property
    def is_particular(self) -> bool:
        """Whether it is another table than those that a study declares."""
        return bool(self.protocol or self.split or self.data or self.task or self.metrics)


@contextmanager
def telling() -> Iterator[Callable[[str], None]]:
    """Shows what is being done, where somebody looks."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("reading") as status:
        yield lambda text: status.update(escape(text))


def _tables(
    sources: Sequence[str], runs: Path, asked: _Asked, tell: Callable[[str], None]
) -> tuple[Sequence[Table], bool]:
    """The tables that are asked for, and whether these are several, be it that some cannot be made yet."""
    from results.packed import read_study
    from results.runs import read_runs
    from results.tables import TableRequest, build_table, requested_table
    from results.tables.studies import default_requests, study_tables

    if _is_study(sources):
        study = read_study(sources[0], runs)
        if not asked.is_particular:
            requested = study.requests or tuple(default_requests(study.runs))
            return study_tables(study, reference=asked.reference, tell=tell), len(requested) > 1
        request = TableRequest(
            task=asked.task,
            data=asked.data,
            split=asked.split or study.request.split,
            protocols=(asked.protocol,) if asked.protocol else study.request.protocols,
            metrics=asked.metrics,
            reference=asked.reference,
            rows=study.request.rows if study.request.published is None else {},
        )
        table = requested_table(
            study.runs, request, order=study.cells, missing=study.missing, about=study.about, tell=tell
        )
        return [table], False
    table = build_table(
        read_runs([Path(source) for source in sources]),
        asked.protocol or "strict",
        asked.split or "test",
        asked.data,
        task=asked.task,
        metrics=asked.metrics,
        reference=asked.reference,
        tell=tell,
    )
    return [table], False


def _put_out(tables: Sequence[Table], form: str | None, output: Path | None, *, several: bool) -> None:
    """Prints tables, or writes them into a file; in JSON, several of them are one list."""
    from bench.errors import UserError
    from results.tables import as_file, as_text

    if form is None and output is None:
        for table in tables:
            show(table)
        return
    if output is None:
        texts = [as_text(table, form or "markdown") for table in tables]
        typer.echo(_as_list(texts) if form == "json" and several else "\n\n".join(texts))
        return
    if form is None:
        endings = {".tex": "latex", ".html": "html", ".json": "json"}
        form = endings.get(output.suffix, "markdown")
    if len(tables) > 1 and form == "html":
        raise UserError(f"--output {output}: a file holds one table, and there are {len(tables)}: choose with --data")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        texts = [as_file(table, form) for table in tables]
        text = _as_list(texts) + "\n" if form == "json" and several else "\n".join(texts)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error}") from None
    typer.echo(f"wrote {output}")


def _as_list(documents: Sequence[str]) -> str:
    return "[" + ",\n".join(document.strip() for document in documents) + "]"


def _draw(tables: Sequence[Table], sources: Sequence[str], runs: Path, folder: Path) -> None:
    from results.packed import read_study
    from results.runs import read_runs
    from results.tables.plots import write_plots

    found = read_study(sources[0], runs).runs if _is_study(sources) else read_runs([Path(s) for s in sources])
    for table in tables:
        for drawn in write_plots(table, found, folder):
            typer.echo(drawn if isinstance(drawn, str) else f"wrote {drawn}", err=True)


def _is_study(sources: Sequence[str]) -> bool:
    from results.runs import PACKED_STUDY

    return len(sources) == 1 and (not Path(sources[0]).exists() or (Path(sources[0]) / PACKED_STUDY).exists())


def _packed(sources: Sequence[str], *, quiet: bool = False) -> list[Path]:
    """The packed studies that folders hold; empty with `quiet` where one of them holds none."""
    from bench.errors import UserError
    from results.packed import packed_studies

    found: list[Path] = []
    for source in sources:
        studies = packed_studies(Path(source))
        if not studies and quiet:
            return []
        if not studies:
            raise UserError(f"{source}: no packed study is there, nor in a folder below it; --pack makes one")
        found += studies
    return found


def _pack(source: str, runs: Path, folder: Path, *, predictions: bool, molecules: str) -> None:
    from bench.errors import UserError
    from results.packed import pack, read_study
    from results.packed_examples import as_molecules

    study = read_study(source, runs)
    kept = as_molecules(molecules)
    if kept is None:
        raise UserError(f"--molecules {molecules}: unknown; it is none, plain, shown or all")
    written = pack(study, folder, predictions=predictions, molecules=kept)
    size = sum(file.stat().st_size for file in written)
    typer.echo(f"{folder}: {len(study.runs)} runs of {study.name}, {size / 1000:,.0f} kB")
    if study.missing:
        typer.echo(f"{len(study.missing)} of its runs were not begun; its tables say so")
    _rewrite(folder)


def _rewrite(folder: Path) -> None:
    from results.tables.files import write_tables

    with telling() as tell:
        written = write_tables(folder, tell)
    for file in written:
        typer.echo(f"wrote {file}")


def _check(folders: Sequence[Path]) -> None:
    """Says what differs, and ends with status 1 where anything does."""
    from results.packed import read_study
    from results.runs import ResultsError
    from results.tables.files import deviations

    wrong = 0
    for folder in folders:
        with telling() as tell:
            lines = list(deviations(folder, tell))
        with suppress(ResultsError):  # which is among the lines already
            lines += _outdated(read_study(folder))
        for line in lines:
            typer.echo(line)
        wrong += bool(lines)
        if not lines:
            typer.echo(f"{folder}: its tables follow from its runs")
    if wrong:
        typer.echo(f"{wrong} of {len(folders)} studies: tables do not follow from runs, or not under today's protocols")
        raise typer.Exit(1)


def _outdated(study: StudyOnFile) -> Iterable[str]:
    """Protocols of a study's scores that say something else today."""
    from bench.errors import UserError
    from bench.registry import registry

    seen: dict[tuple[str, str, str], str] = {}
    for run in study.runs:
        for entry in run.summary.get("evaluations", ()):
            for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
                measured = str(score.get("identity", {}).get("metrics", ""))
                seen.setdefault((str(score["protocol"]), str(entry["answer"]), measured), str(run.folder))
    for (name, answer, measured), where in seen.items():
        try:
            protocol = registry().get("protocol", name.partition("@")[0])()
        except UserError:
            continue  # a plug-in's, which is not here
        today = f"{protocol.name}@{protocol.version}"
        metrics = " ".join(f"{metric.name}@{metric.version}" for metric in protocol.metrics().get(answer, ()))
        if today != name:
            yield f"{where}: was scored by {name}, and this molgraft has {today}: score the runs again and pack them"
        elif measured and measured != metrics:
            yield f"{where}: {name} measured {measured} there, and measures {metrics} today: score the runs again"


def show(table: Table) -> None:
    """Prints a table for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from results.tables import caption_of, grid_of

    console = Console()
    # A pipe or a narrow window would fold the columns into one another.
    wide = console if console.is_terminal and console.width >= 100 else Console(width=max(180, console.width))
    console.print(caption_of(table), markup=False, highlight=False, soft_wrap=True)
    written = grid_of(table)
    for section in written.sections:
        if len(written.sections) > 1:
            console.print(f"\n{section.title}", markup=False, highlight=False, soft_wrap=True)
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        for position, column in enumerate(written.columns):
            heading = Text(f"{column.over}\n{column.heading}".strip())
            grid.add_column(heading, justify="right" if position else "left", overflow="fold")
        for row in section.rows:
            cells = (Text(f"{cell.text}\n{cell.below}".strip(), style="bold" if cell.bold else "") for cell in row)
            grid.add_row(*cells)
        wide.print(grid)
    for note in table.notes:
        console.print(f"- {note}", markup=False, highlight=False, soft_wrap=True)
