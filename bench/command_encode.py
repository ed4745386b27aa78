"""`molgraft encode`: embeddings of a table's molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import command_options as options


def encode(
    file: Annotated[
        Path, typer.Argument(help="CSV, TSV or JSONL file with a column of SMILES; may be gzipped.", metavar="INPUT")
    ],
    encoder: Annotated[str, typer.Option(help="Name of an encoder (`molgraft list encoders`).")],
    smiles_column: Annotated[str, typer.Option(help="Column of the SMILES.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")],
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint: of `molgraft pretrain-encoder`, or a published one.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the encoder, as layers=3 or scheme=ogb9; repeatable.", metavar="K=V"),
    ] = None,
    level: Annotated[list[str] | None, typer.Option(help="Write only this level; repeatable.")] = None,
    batch_size: Annotated[int, typer.Option(help="Molecules at once.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="Of the weights, where none are loaded.", min=0)] = 0,
    device: options.Device = "auto",
    workers: Annotated[int, typer.Option(help="Processes that featurise molecules.", min=1)] = 1,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Write molecules as an encoder sees them, at every level, to one .npz file.

    For each level L the file holds L (rows, width) and L.ptr (molecules + 1,), and input_index says which rows of the
    input were kept. Rejected rows go to OUTPUT.rejected.csv with line and reason.
    """
    import json

    from bench.encode import choose_encoder, encode_table, rejected_file
    from bench.errors import UserError
    from bench.runtime import Runtime
    from tasks.table_files import read_table

    if output.suffix != ".npz":
        raise UserError(f"--output {output}: must end in .npz")
    chosen = choose_encoder(encoder, settings or (), weights)
    runtime = Runtime(device=device, workers=workers, offline=offline, progress=not quiet)
    found = encode_table(
        chosen,
        read_table(file),
        smiles_column,
        output,
        runtime,
        levels=level or (),
        batch_size=batch_size,
        seed=seed,
    )
    if weights is None and not quiet:
        runtime.say(f"no --weights: encoder {encoder} is as seed {seed} initialises it")
    if found.rejected:
        runtime.say(f"{len(found.rejected):,} rows rejected; they are listed in {rejected_file(output)}")
    if as_json:
        shapes = {name: list(shape) for name, shape in found.shapes.items()}
        described = {"output": str(output), "kept": found.kept, "rejected": len(found.rejected), "levels": shapes}
        typer.echo(json.dumps(described))
        return
    typer.echo(f"{output}: {found.kept:,} molecules, {len(found.rejected):,} rejected")
    for name, (rows, width) in found.shapes.items():
        typer.echo(f"  {name}: {rows:,} x {width}")
