"""`molgraft score FILE`: what named protocols say about a file of predictions from any system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_type_hints

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from tasks.audit_keys import Level
    from tasks.base import AnswerKind, ScoreTable
    from tasks.decontamination import Decontamination
    from tasks.metrics.base import Protocol
    from tasks.scoring import Pairing


def score(
    file: Annotated[
        Path, typer.Argument(help="TSV, CSV or JSONL file with predictions, which may be gzipped; or a run directory.")
    ],
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Names of protocols, separated by commas; for a run directory, those that it was scored under before "
            "unless told otherwise.",
            metavar="NAME[,NAME...]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What a file's answers are: caption, molecule, classification or regression."),
    ] = None,
    prediction_column: Annotated[str | None, typer.Option(help="Column of the predictions.")] = None,
    reference_column: Annotated[str | None, typer.Option(help="Column of the gold answers.")] = None,
    reference: Annotated[Path | None, typer.Option(help="File with the gold answers; needs --join.")] = None,
    join: Annotated[str | None, typer.Option(help="Column by which rows of both files belong together.")] = None,
    molecule_column: Annotated[
        str | None, typer.Option(help="Column of the molecules that were asked about, for what is checked on them.")
    ] = None,
    probability_column: Annotated[
        str | None, typer.Option(help="Column of the positive label's probability, for ROC-AUC.")
    ] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Column of the part over which metrics are averaged, such as an assay.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out rows whose molecules this training data holds, such as chebi20/train; for a run, "
            "`training` names all that it was trained on. Repeatable.",
            metavar="PART",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option(help="What makes two molecules the same for --without: canonical, inchikey or scaffold.")
    ] = "inchikey",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A protocol's setting, as tokenizer=PATH or molt5.tokenizer=PATH.", metavar="K=V"),
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Write each row's values, and why it is invalid where it is, to this CSV file.", metavar="CSV"
        ),
    ] = None,
    enter: Annotated[
        str | None,
        typer.Option(
            help="Keep the file's predictions among the runs, as those of another system of this name, so that "
            "leaderboards and tables show them.",
            metavar="NAME",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(help="With --enter: a run that was asked the same examples, beside which the system is ranked."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="With --enter: the data set that was asked.")] = None,
    split: Annotated[
        str | None, typer.Option(help="With --enter: which part of it; test unless told otherwise.")
    ] = None,
    runs: options.Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, or a list for several.")] = False,
) -> None:
    """Score predictions under named metric protocols.

    Without --reference, the gold answers stand in the same file. Columns with usual names (output, prediction; ground
    truth, reference, ...) need not be named. A run directory holds all that is needed; new scores are noted in it, and
    what a run of an older version lacks for paired tests and reports is added.
    With --enter and --like or --data, gold answers may be those of the examples: --join then names the column of ids.
    """
    from rich.console import Console

    from tasks.base import TaskError
    from tasks.scoring import pair, rows_csv, timed_scores, to_json
    from tasks.table_files import read_table

    if protocol is None and (settings or without or not file.is_dir()):
        raise TaskError("--protocol: which one? Only a run is scored without naming one: as it was before")
    protocols = [] if protocol is None else _protocols(protocol, settings or [])
    if enter is None and (like, data, split) != (None, None, None):
        raise TaskError("--like, --data and --split say what a system was asked that is entered; give --enter NAME")
    if file.is_dir():
        if enter is not None:
            raise TaskError(f"--enter: {file} is a folder; a file of predictions is entered")
        if rows is not None:
            raise TaskError("--rows: a run keeps each row's values already, in its folder scores/")
        _score_run(file, protocols, without or [], by, as_json)
        return
    if task is None:
        raise TaskError("--task: a file does not say what its answers are; give caption, molecule, ...")
    kind = _answer_kind(task)
    progress = Console(stderr=True)
    if enter is not None:
        from bench.external import Asked, enter_file
        from bench.run_store import read_json

        if without or rows is not None:
            raise TaskError(
                "--enter: goes without --without and --rows; `molgraft score RUN` takes the entry afterwards"
            )
        columns = (prediction_column, reference_column, molecule_column, probability_column, group_column)
        asked = Asked(like=like, data=data, split=split, reference=reference, join=join, columns=columns)
        with progress.status(f"entering {enter}"):
            folder = enter_file(file, enter, kind, protocols, asked, runs)
        _show_entries(read_json(folder / "result.json")["evaluations"], protocols, "scores", as_json)
        progress.print(f"entered as {folder}", markup=False, highlight=False, soft_wrap=True)
        return
    with progress.status("reading") as status:
        pairing = pair(
            read_table(file),
            prediction_column=prediction_column,
            reference_column=reference_column,
            reference=None if reference is None else read_table(reference),
            join=join,
            molecule_column=molecule_column,
            probability_column=probability_column,
            group_column=group_column,
        )
        leaks = _leaks(pairing, without or [], by) if without else None
        if leaks is not None:
            pairing = pairing.where([not is_leaked for is_leaked in leaks.leaked])
        status.update(f"scoring {len(pairing.references):,} rows under {protocol}")
        scored = list(timed_scores(pairing, kind, protocols))

    if rows is not None:
        from bench.run_store import write_text

        write_text(rows, rows_csv(pairing, [table for table, _ in scored]))
    if as_json:
        import json

        stated = {} if leaks is None else {"without": dict(leaks.description)}
        objects = [{**to_json(table, seconds), **stated} for table, seconds in scored]
        typer.echo(json.dumps(objects[0] if len(objects) == 1 else objects, allow_nan=False))
        return
    if leaks is not None:
        typer.echo(_in_words(leaks.description))
    if len(scored) > 1:
        _show_together([table for table, _ in scored])
        return
    for table, seconds in scored:
        _show(table, seconds)


def _leaks(pairing: Pairing, names: Sequence[str], by: str) -> Decontamination:
    from tasks.base import TaskError
    from tasks.data import Catalogue
    from tasks.decontamination import decontaminate

    if pairing.facts.molecules is None:
        raise TaskError("--without: the rows' molecules must be known; name their column with --molecule-column")
    return decontaminate(pairing.facts.molecules, names, Catalogue(), by=_level(by))


def _level(by: str) -> Level:
    from tasks.audit_keys import LEVELS
    from tasks.base import TaskError

    if by not in LEVELS:
        raise TaskError(f"--by {by}: unknown; it is one of {', '.join(LEVELS)}")
    return by


def _in_words(description: Mapping[str, Any]) -> str:
    parts = ", ".join(corpus["data"] for corpus in description["against"])
    left_out = description["n"] - description["n_left"]
    return (
        f"{left_out:,} of {description['n']:,} rows are left out, whose molecules {parts} holds (by "
        f"{description['by']}, {description['match']} of a row's molecules)"
    )


def _score_run(folder: Path, protocols: Sequence[Protocol], without: Sequence[str], by: str, as_json: bool) -> None:
    """Scores a run's stored predictions, and prints what it now holds; without protocols as it was scored before."""
    from bench.scores import Without, rescore

    entries = rescore(folder, protocols or None, Without(tuple(without), _level(by)) if without else None)
    _show_entries(entries, protocols, "decontaminated" if without else "scores", as_json)


def _show_entries(entries: Sequence[Mapping[str, Any]], protocols: Sequence[Protocol], key: str, as_json: bool) -> None:
    """Prints what a run's evaluations came to under protocols."""
    import json

    if as_json:
        typer.echo(json.dumps(entries, ensure_ascii=False))
        return
    names = {f"{protocol.name}@{protocol.version}" for protocol in protocols}
    for entry in entries:
        typer.echo(f"{entry['task']} on {entry['data']} {entry['split']}, n = {entry['n']:,}")
        for score in entry[key]:
            if not names or score["protocol"] in names:
                if "without" in score:
                    typer.echo(f"  {_in_words(score['without'])}")
                values = (
                    f"{k} {'n/a' if m['value'] is None else format(m['value'], '.4f')}"
                    for k, m in score["metrics"].items()
                )
                typer.echo(f"  {score['protocol']}: {'  '.join(values)}  invalid {score['n_invalid']:,}")


def _answer_kind(task: str) -> AnswerKind:
    from tasks.base import AnswerKind, TaskError

    kinds = get_args(AnswerKind)
    if task not in kinds:
        raise TaskError(f"--task {task}: unknown; it is one of {', '.join(kinds)}")
    return cast("AnswerKind", task)


def _protocols(names: str, settings: Sequence[str]) -> list[Protocol]:
    """The protocols by name, with the user's settings; a setting without a protocol's name goes to all that have it."""
    from bench.registry import registry
    from tasks.base import TaskError

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise TaskError("--protocol: at least one name is needed")
    found = registry()
    classes: dict[str, type[Protocol]] = {name: found.get("protocol", name) for name in wanted}
    given: dict[str, dict[str, str]] = {name: {} for name in classes}
    for setting in settings:
        path, equals, value = setting.partition("=")
        scope, _, key = path.rpartition(".")
        takers = [name for name in classes if scope in ("", name) and key in _fields(classes[name])]
        if not equals or not takers:
            offered = [f"{name}.{key}" for name in classes for key in _fields(classes[name])] or ["nothing"]
            raise TaskError(
                f"--set {setting}: no such setting; KEY=VALUE is needed, and one can set {', '.join(offered)}"
            )
        for name in takers:
            given[name][key] = value
    return [_built(classes[name], given[name]) for name in classes]


def _fields(declaration: type[Protocol]) -> Mapping[str, Any]:
    """The types of a protocol's settings by name."""
    import dataclasses

    hints = get_type_hints(declaration)
    return {field.name: hints[field.name] for field in dataclasses.fields(declaration)}


def _built(declaration: type[Protocol], values: Mapping[str, str]) -> Protocol:
    """The protocol with its settings, each validated against the type of its field."""
    if not values:
        return declaration()
    from pydantic import TypeAdapter, ValidationError

    from tasks.base import TaskError

    parsed: dict[str, Any] = {}
    for key, value in values.items():
        try:
            parsed[key] = TypeAdapter(_fields(declaration)[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise TaskError(f"--set {key}={value}: {reason} (protocol {declaration.name})") from error
    return declaration(**parsed)


def _show_together(tables: Sequence[ScoreTable]) -> None:
    """Prints what several protocols say of one file, side by side: numbers of one row must not be set against those of
    another column."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    grid = Table("metric", title=f"{tables[0].kind}, n = {tables[0].n:,}", title_justify="left")
    for table in tables:
        grid.add_column(table.protocol, justify="right")
    for name in dict.fromkeys(name for table in tables for name in table.metrics):
        grid.add_row(name, *(_cell(table, name) for table in tables))
    grid.add_row("invalid", *(f"{table.n_invalid:,}" for table in tables))
    console.print(grid)
    for table in tables:
        for name, estimate in table.metrics.items():
            if estimate.value is None:
                console.print(f"{table.protocol}: {name} is undefined: {estimate.reason}", markup=False)
        identity = "; ".join(f"{key} {value}" for key, value in table.identity.items())
        console.print(f"{table.protocol}: {identity}", style="dim", markup=False)


def _cell(table: ScoreTable, name: str) -> str:
    estimate = table.metrics.get(name)
    if estimate is None:
        return ""
    return "undefined" if estimate.value is None else f"{estimate.value:.4f}"


def _show(table: ScoreTable, seconds: float) -> None:
    """Prints one protocol's scores for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(f"{table.kind} under {table.protocol}: n = {table.n:,}, invalid {table.n_invalid:,}, {seconds:.1f} s")
    grid = Table("metric")
    grid.add_column("value", justify="right")
    grid.add_column("95 % interval", justify="right")
    for name, estimate in table.metrics.items():
        value = "undefined" if estimate.value is None else f"{estimate.value:.4f}"
        interval = "" if estimate.ci95 is None else "{:.4f} to {:.4f}".format(*estimate.ci95)
        grid.add_row(name, value, interval)
    console.print(grid)
    for name, estimate in table.metrics.items():
        if estimate.value is None:
            console.print(f"{name}: {estimate.reason}", markup=False)
    console.print("; ".join(f"{key} {value}" for key, value in table.identity.items()), style="dim", markup=False)
