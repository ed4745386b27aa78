"""`molgraft export`: a trained run as a folder that loads again by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import command_options as options


def export(
    run: Annotated[Path, typer.Argument(help="Run directory.", metavar="RUN")],
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="What it becomes; exported/RUN where it is not given.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge adapters into the language model.")] = False,
    with_llm: Annotated[
        bool, typer.Option("--with-llm", help="Put the language model into the folder even where a name would do.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Of what is exported, as hubs name it (apache-2.0).")
    ] = None,
    data: options.Data = None,
    device: options.Device = "cpu",
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write a trained run into one folder: adapters, projector, encoder, tokenizer, settings, and a card.

    The folder loads again by its path on another machine, without the run and its data, and answers as the run did.
    """
    import json

    from bench.export import Wanted, export_run
    from bench.runtime import Runtime
    from tasks.data import Catalogue

    folder = folder or Path("exported") / run.resolve().name
    runtime = Runtime(device=device, offline=offline, progress=not quiet)
    manifest = export_run(run, folder, runtime, Wanted(merge, with_llm, licence), Catalogue(data or ()))
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **manifest}, ensure_ascii=False))
        return
    size = sum(file["bytes"] for file in manifest["files"].values())
    typer.echo(f"{folder}: {len(manifest['files'])} files, {size / 1e6:,.1f} MB; what it is, is in its README.md")
    if not manifest["llm"]["shipped"]:
        typer.echo(f"  the language model is not in it, but named: {manifest['llm']['origin']} (--with-llm puts it in)")
    if manifest["llm"]["merged"]:
        typer.echo(f"  merging changed logits by {manifest['llm']['merged']['largest_difference']:.1e} of the largest")
