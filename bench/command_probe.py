"""`molgraft probe`: what the soft tokens of a run carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import command_options as options


def probe(
    folder: Annotated[Path, typer.Argument(help="Directory of a finished run.", metavar="RUN")],
    limit: Annotated[int, typer.Option(help="Training molecules to fit on.", min=50)] = 2_000,
    data: options.Data = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Say what linear probes find in a run's soft tokens, beside what its answers say.

    A fact that a probe finds and the answers do not name is lost in the language model; one that no probe finds, before
    it.
    """
    import json

    from bench.runtime import Runtime
    from bench.soft_token_probe import probe_run
    from tasks.data import Catalogue

    runtime = Runtime(device=device, offline=offline, progress=not quiet)
    found = probe_run(folder, runtime, catalogue=Catalogue(data or ()), limit=limit)
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{'fact':<17}{'measure':<9}{'probe':>8}{'untrained':>11}{'answers':>9}{'gold':>7}")
    for name, row in found["facts"].items():
        said = "".join(
            f"{'' if row.get(key) is None else format(row[key], '.2f'):>{width}}"
            for key, width in (("answers", 9), ("references", 7))
        )
        typer.echo(f"{name:<17}{row['measure']:<9}{row['value']:>8.2f}{row['initial']:>11.2f}{said}")
    typer.echo("answers, gold: balanced accuracy of naming the group; 0.50 is chance")
