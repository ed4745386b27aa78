"""`molgraft sync`: MLflow brought up to date with the runs on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench import command_options as options


def sync(
    studies: Annotated[list[str] | None, typer.Argument(help="Names of studies; all if none is given.")] = None,
    runs: options.Runs = Path("runs"),
    tracking: options.Tracking = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Bring MLflow up to date with the runs on disk, or make it again from nothing.

    The runs are the truth, so that nothing is lost with MLflow's database; doing it twice changes nothing.
    """
    from dataclasses import asdict

    from bench.errors import UserError
    from bench.runtime import Runtime
    from bench.tracking import synchronise

    if not runs.is_dir():
        raise UserError(f"--runs {runs}: there is no such folder")
    done = synchronise(Runtime(runs=runs, tracking=tracking, progress=not quiet), studies or ())
    if as_json:
        typer.echo(json.dumps(asdict(done), ensure_ascii=False))
    else:
        shown = done.created + done.updated + done.unchanged + done.elsewhere
        typer.echo(f"{done.tracking}: {shown} runs of {len(done.studies)} studies")
        typer.echo(
            f"  {done.created} new, {done.updated} updated, {done.unchanged} unchanged; {done.points} values were sent"
        )
        if done.elsewhere:
            typer.echo(f"  {done.elsewhere} left alone, since another folder of runs has more of them")
        for line in done.failed:
            typer.echo(f"  failed: {line}", err=True)
    if done.failed:
        raise typer.Exit(1)
