"""`molgraft pretrain-encoder`: a graph encoder trained on molecules alone, or on molecules and their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from bench.pretrain_encoder import PretrainingResult


def pretrain_encoder(
    config: Annotated[
        str,
        typer.Argument(
            help="multi-level, masking, contrastive or qformer (`molgraft list pretraining`), or a YAML file."
        ),
    ],
    settings: options.Set = None,
    seed: Annotated[int | None, typer.Option(help="The pretraining's seed.", min=0)] = None,
    runs: options.Runs = Path("runs"),
    data: options.Data = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier session left.")] = False,
    retry_failed: options.Retry = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    workers: options.Workers = 1,
    max_rejected: options.MaxRejected = 0.05,
    tracking: options.Tracking = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Pretrain a graph encoder; what is done already is not done again.

    Its weights end up in RUNS/pretraining/NAME/encoder.safetensors, which an encoder's setting `weights` takes. One
    that was interrupted, by whatever, goes on when the same command is given again.
    """
    from bench.pretrain_encoder import pretrain, pretraining_runtime
    from bench.pretraining_config import load_pretraining
    from bench.tracking import mirror_to
    from tasks.data import Catalogue

    seeded = [f"seed={seed}"] if seed is not None else []
    loaded = load_pretraining(config, [*(settings or ()), *seeded])
    given = options.runtime_of(runs, device, threads, workers, max_rejected, tracking, offline, quiet)
    runtime = pretraining_runtime(given)
    result = pretrain(
        loaded,
        runtime,
        catalogue=Catalogue(data or ()),
        fresh=fresh,
        retry_failed=retry_failed,
        mirror=mirror_to(loaded.name, runtime),
    )
    if as_json:
        typer.echo(json.dumps({"weights": str(result.weights), **result.summary}, ensure_ascii=False))
        return
    _show(result)


def _show(result: PretrainingResult) -> None:
    """What a pretraining came to."""
    summary = result.summary
    typer.echo(f"{result.run.path}: done, {summary['seconds']:.0f} s, {summary['steps']} steps")
    for part, counts in summary["counts"].items():
        told = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items() if count)
        if told:
            typer.echo(f"  {part}: {told}")
    measured = list(summary["validation"].items())
    for step, losses in (measured[0], measured[-1]) if measured else ():
        values = "  ".join(f"{name.removeprefix('validation_')} {value:.4f}" for name, value in losses.items())
        typer.echo(f"  validation at step {step}: {values}")
    retrieval = summary["retrieval"]
    for row in retrieval["by_pool"] if retrieval else ():
        typer.echo(f"  retrieval among {row['pool']:,}:")
        for direction in ("molecule_to_text", "text_to_molecule", "chance"):
            recalls = "  ".join(f"{depth.replace('_', ' ')} {value:.4f}" for depth, value in row[direction].items())
            typer.echo(f"    {direction.replace('_', ' ')}: {recalls}")
    typer.echo(f"  encoder: {{name: {summary['encoder']}, ..., weights: {result.weights}}}")
