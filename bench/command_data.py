"""`molgraft data`: what data sets there are, how to get their files, and whether the files are what they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.command_audit import audit
from bench.command_dialogues import make_dialogues

if TYPE_CHECKING:
    from tasks.data import DataSet

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="List, download, check and audit data sets, and make dialogues of them.",
)

_Files = Annotated[list[Path] | None, typer.Argument(help="YAML files of your own data sets, listed as well.")]
_Names = Annotated[list[str] | None, typer.Argument(help="Names, or paths of YAML files; none for all data sets.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
_Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table of docs/data.md.")]
_Long = Annotated[bool, typer.Option("--long", help="Show summaries, and the file of every split.")]
_WIDTH = 30  # of a split's rows in `list`


@app.command("list")
def list_(files: _Files = None, as_json: _Json = False, long: _Long = False, markdown: _Markdown = False) -> None:
    """List the data sets, and which of their files are here."""
    from tasks.data import Catalogue

    catalogue = Catalogue(files or ())
    datasets = [catalogue.get(name) for name in catalogue.names()]
    if markdown:
        typer.echo("\n".join(_as_markdown(datasets)))
        return
    found = [_facts(dataset) for dataset in datasets]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif long:
        for facts in found:
            typer.echo("\n".join(_in_full(facts)))
    else:
        typer.echo("\n".join(_as_table(found)))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A name, or the path of a YAML file; @scaffold or @random-3 may follow.")],
    rows: Annotated[int, typer.Option("--rows", min=0, help="How many rows of the first split to show.")] = 3,
    as_json: _Json = False,
) -> None:
    """Show one data set: columns, labels, splits, licence, and its first rows."""
    from tasks.data import Catalogue

    dataset = Catalogue().get(name)
    facts = _facts(dataset)
    first = next((split for split in dataset.splits if dataset.present(split) is not None), None)
    shown = dataset.rows(first)[0][:rows] if first is not None and rows else []
    if as_json:
        facts["first_rows"] = [{"id": row.id, "line": row.line, **row.values} for row in shown]
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    typer.echo("\n".join(_in_full(facts)))
    for label in ("task", "licence", "homepage"):
        typer.echo(f"  {label:<10}  {facts[label] or 'not stated'}")
    for role, column in facts["columns"].items():
        question, unit = facts["questions"].get(role), facts["units"].get(role)
        said = "".join([f": {question}" if question else "", f" [{unit}]" if unit else ""])
        typer.echo(f"  column      {role}{'' if role == column else f' (in the file: {column})'}{said}")
    for task in (each for each in facts["questions"] if each not in facts["columns"]):
        typer.echo(f"  label       {task}: {facts['questions'][task]}")
    for row in shown:
        typer.echo(f"  {first} row {row.id}, line {row.line}")
        for role, value in row.values.items():
            typer.echo(f"    {role}: {value if len(value) <= 100 else value[:99] + '…'}")


@app.command()
def get(names: Annotated[list[str], typer.Argument(help="Names of data sets.")]) -> None:
    """Download what is not here yet into the cache, and check it."""
    from tasks.data import Catalogue, download

    catalogue = Catalogue()
    datasets = [catalogue.get(name) for name in names]  # a misspelt name stops all before anything is downloaded
    for dataset in datasets:
        paths = download(dataset)
        for path in paths:
            typer.echo(f"{dataset.name}: downloaded {path}")
        if not paths:
            typer.echo(f"{dataset.name}: everything is here")


@app.command()
def verify(names: _Names = None, as_json: _Json = False) -> None:
    """Check hashes, form and row counts of the files that are here; without names, of all files that data roots hold.

    Exits with 1 if a file differs from its description, or if a data set that was named lacks a file.
    """
    from tasks.data import Catalogue

    catalogue = Catalogue()
    datasets = [catalogue.get(name) for name in names or catalogue.names()]
    checks: list[dict[str, Any]] = []
    for fact in _checks(datasets, whole=not names):
        checks.append(fact)
        if not as_json:  # as they come, since all of them take a while
            subject = f"{fact['data']} {fact['split']}  {fact['file']}" if fact["data"] else fact["file"]
            typer.echo(f"{fact['status']:<8}{subject}{': ' if fact['message'] else ''}{fact['message']}")
    if as_json:
        typer.echo(json.dumps(checks, indent=2))
    else:
        typer.echo(_total(checks))
    bad = {"failed", "missing"} if names else {"failed"}
    if any(check["status"] in bad for check in checks):
        raise typer.Exit(1)


def _checks(datasets: list[DataSet], *, whole: bool) -> Iterator[dict[str, Any]]:
    from tasks.data import Catalogue
    from tasks.data_assets import check_assets, check_further

    for dataset in datasets:
        for check in dataset.verify():
            facts = {"split": check.split, "file": check.file, "status": check.status, "message": check.message}
            yield {"data": dataset.name, **facts}
    if whole:
        for asset in (*check_assets(), *check_further(Catalogue())):
            yield {
                "data": None,
                "split": None,
                "file": asset.file,
                "status": asset.status,
                "message": asset.message,
            }


def _total(checks: list[dict[str, Any]]) -> str:
    counted = {status: {check["file"] for check in checks if check["status"] == status} for status in _STATUSES}
    said = [f"{len(files)} {_STATUSES[status]}" for status, files in counted.items() if files]
    return f"{len(checks)} checks; files: {', '.join(said) or 'none'}"


_STATUSES = {
    "ok": "as described",
    "failed": "NOT as described",
    "missing": "missing and not replaced",
    "absent": "absent, not needed",
    "unknown": "that nothing describes",
}


def _facts(dataset: DataSet) -> dict[str, Any]:
    """What `list --json` says about a data set; no file is opened."""
    description = dataset.description
    splits: dict[str, Any] = {}
    for split in dataset.splits:
        sources = description.splits.get(split) or next(iter(description.splits.values()))
        here = dataset.present(split)
        source, path = here if here is not None else (sources[0], None)
        splits[split] = {
            "path": str(path) if path is not None else None,
            "file": source.file,
            "rows": source.rows if dataset.method is None else None,
            "note": source.note,
            "substitute": source.substitute,
            "downloadable": any(each.url for each in sources),
        }
    pooled = [next((source.rows for source in sources if source.rows), None) for sources in description.splits.values()]
    return {
        "name": dataset.name,
        "summary": description.summary,
        "licence": description.licence,
        "homepage": description.homepage,
        "task": description.task,
        "columns": dict(description.columns),
        "questions": dict(description.questions),
        "units": dict(description.units),
        "split_method": str(dataset.method) if dataset.method else None,
        "rows": sum(count or 0 for count in pooled) if all(pooled) else None,
        "present": all(state["path"] is not None for state in splits.values()),
        "splits": splits,
    }


def _as_table(found: list[dict[str, Any]]) -> list[str]:
    """One line for each data set, and what the marks mean."""
    width = max(len(facts["name"]) for facts in found)
    lines = [f"{'NAME':<{width}}  {'TRAIN / VALIDATION / TEST':<{_WIDTH}}  {'HERE':<5}  TASK"]
    for facts in found:
        states = list(facts["splits"].values())
        here = sum(state["path"] is not None for state in states)
        word = "yes" if here == len(states) else "no" if not here else "part"
        lines.append(f"{facts['name']:<{width}}  {_counts(facts):<{_WIDTH}}  {word:<5}  {facts['task']}".rstrip())
    lines.append(
        "* a SUBSTITUTE for the official file, which is not here.  + official, can be downloaded: molgraft data get"
    )
    lines.append("More about one: molgraft data show NAME. About all: molgraft data list --long")
    return lines


def _as_markdown(datasets: list[DataSet]) -> list[str]:
    """The data sets as described, the same on every machine: what is here has no part in it."""
    lines = ["| name | train | validation | test | task | licence |", "|---|---|---|---|---|---|"]
    for dataset in datasets:
        cells = []
        for split in ("train", "validation", "test"):
            sources = dataset.description.splits.get(split, ())
            rows = next((source.rows for source in sources if source.rows), None)
            starred = "*" * any(source.substitute for source in sources)
            cells.append(f"{rows:,}{starred}" if rows else "download" if sources else "-")
        if dataset.method:  # all rows are in one file
            cells = [f"{cells[0]}, {dataset.method} split", "", ""]
        said = [dataset.description.task, dataset.description.licence]
        lines.append(f"| {' | '.join([f'`{dataset.name}`', *cells, *said])} |")
    return lines


def _counts(facts: dict[str, Any]) -> str:
    if facts["split_method"]:
        rows = f"{facts['rows']:,}" if facts["rows"] else "?"
        starred = "*" if any(state["substitute"] for state in facts["splits"].values()) else ""
        return f"{rows}{starred}, {facts['split_method']} split"
    cells = []
    for split in ("train", "validation", "test"):
        state = facts["splits"].get(split)
        if state is None:
            cells.append("-")
        elif state["path"] is None:
            cells.append("+" if state["downloadable"] else "absent")
        else:
            cells.append((f"{state['rows']:,}" if state["rows"] else "?") + "*" * state["substitute"])
    return " / ".join(cells)


def _in_full(facts: dict[str, Any]) -> list[str]:
    """A data set's summary, and the file that supplies each of its splits."""
    lines = [f"{facts['name']}: {facts['summary'] or 'no summary'}"]
    if facts["split_method"]:
        lines.append(f"  all rows are dealt out to train, validation and test: {facts['split_method']} split")
    for split, state in facts["splits"].items():
        absent = f"not here; molgraft data get {facts['name']}" if state["downloadable"] else "not here"
        rows = f"  {state['rows']:,} rows" if state["rows"] else ""
        note = f"  ({state['note']})" if state["note"] else ""
        lines.append(f"  {split:<10}  {state['path'] or absent}{rows}{note}")
    return lines


app.command("audit")(audit)
app.command("make-dialogues")(make_dialogues)
