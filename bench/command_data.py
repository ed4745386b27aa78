"""`molgraft data`: what data sets there are, how to get their files, and whether the files are what they should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tasks.data import DataSet, FileCheck

app = typer.Typer(no_args_is_help=True, help="List, download and check data sets.")

_Files = Annotated[list[Path] | None, typer.Argument(help="YAML files of your own data sets, listed as well.")]
_Names = Annotated[list[str] | None, typer.Argument(help="Names, or paths of YAML files; none for all data sets.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.command("list")
def list_(files: _Files = None, as_json: _Json = False) -> None:
    """List the data sets, and which of their files are here."""
    from tasks.data import Catalogue

    catalogue = Catalogue(files or ())
    found = [_facts(catalogue.get(name)) for name in catalogue.names()]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for facts in found:
        typer.echo(f"{facts['name']}: {facts['summary'] or 'no summary'}")
        for split, state in facts["splits"].items():
            absent = f"not here; molgraft data get {facts['name']}" if state["downloadable"] else "not here"
            rows = f"  {state['rows']:,} rows" if state["rows"] else ""
            note = f"  ({state['note']})" if state["note"] else ""
            typer.echo(f"  {split:<10}  {state['path'] or absent}{rows}{note}")


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
    """Check hashes, form and row counts of the files that are here.

    Exits with 1 if a file differs from its description, or if a data set that was named lacks a file.
    """
    from tasks.data import Catalogue

    catalogue = Catalogue()
    datasets = [catalogue.get(name) for name in names or catalogue.names()]
    checks = [(dataset.name, check) for dataset in datasets for check in dataset.verify()]
    if as_json:
        typer.echo(json.dumps([{"data": name, **_check_facts(check)} for name, check in checks], indent=2))
    else:
        for name, check in checks:
            message = f": {check.message}" if check.message else ""
            typer.echo(f"{check.status:<8}{name} {check.split}  {check.file}{message}")
    bad = {"failed", "missing"} if names else {"failed"}
    if any(check.status in bad for _, check in checks):
        raise typer.Exit(1)


def _check_facts(check: FileCheck) -> dict[str, str]:
    return {"split": check.split, "file": check.file, "status": check.status, "message": check.message}


def _facts(dataset: DataSet) -> dict[str, Any]:
    """What `list --json` says about a data set; no file is opened."""
    description = dataset.description
    splits: dict[str, Any] = {}
    for split in dataset.splits:
        here = dataset.present(split)
        source, path = here if here is not None else (description.splits[split][0], None)
        splits[split] = {
            "path": str(path) if path is not None else None,
            "file": source.file,
            "rows": source.rows,
            "note": source.note,
            "downloadable": any(each.url for each in description.splits[split]),
        }
    return {
        "name": dataset.name,
        "summary": description.summary,
        "licence": description.licence,
        "homepage": description.homepage,
        "task": description.task,
        "columns": dict(description.columns),
        "present": all(state["path"] is not None for state in splits.values()),
        "splits": splits,
    }
