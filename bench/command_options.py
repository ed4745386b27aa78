"""Options that several commands share, and what they come to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.preset import Choices
    from bench.runtime import Runtime

Config = Annotated[str, typer.Argument(help="Name of a preset (`molgraft list presets`), or a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Another value, as encoder.layers=3; repeatable.", metavar="A.B=VALUE")
]
Runs = Annotated[Path, typer.Option(help="Folder of run directories.")]
Data = Annotated[list[Path] | None, typer.Option(help="YAML file of a data set of your own; repeatable.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Threads = Annotated[int | None, typer.Option(help="Threads of torch.", min=1)]
Workers = Annotated[int, typer.Option(help="Processes that featurise molecules.", min=1)]
MaxRejected = Annotated[
    float, typer.Option(help="Greatest share of unusable rows; above it the run stops.", min=0, max=1)
]
Tracking = Annotated[str | None, typer.Option(help="MLflow address; `none` for no tracking.")]
MOST_REJECTED = 0.05
"""Where `--max-rejected` is not given."""
Offline = Annotated[bool, typer.Option("--offline", help="Download nothing.")]
MicroBatch = Annotated[
    int | None,
    typer.Option(help="Most examples per forward pass of training; the batch and its losses stay the same.", min=1),
]
AskingMicroBatch = Annotated[
    int | None,
    typer.Option(help="Most examples per forward pass of generation and of likelihoods.", min=1),
]
Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--activation-checkpointing/--no-activation-checkpointing",
        help="Compute the language model's activations twice rather than keep them; by default for large models on an "
        "accelerator.",
    ),
]
Synchronise = Annotated[
    bool,
    typer.Option("--synchronise-batch-norm", help="A trained batch norm norms by the molecules of all processes."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Limit = Annotated[int | None, typer.Option(help="Ask only so many examples, a seeded subset.", min=1)]
Ids = Annotated[str | None, typer.Option(help="Ask only these examples, ids separated by commas.")]
Scale = Annotated[
    str | None, typer.Option(help="Of a preset that has several: paper (as published), small or smoke (minutes).")
]
Fidelity = Annotated[
    str | None, typer.Option(help="paper or code: the side that is taken where a paper and its released code disagree.")
]
Switch = Annotated[
    list[str] | None,
    typer.Option(
        "--switch", help="One choice of a preset; `molgraft check` lists them. Repeatable.", metavar="NAME=SIDE"
    ),
]
ModelFolder = Annotated[
    Path | None, typer.Option("--llm", help="Folder of the language model, for an export that only names it.")
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Go on with runs that failed before.")]


def choices_of(scale: str | None, fidelity: str | None, switches: Sequence[str] | None) -> Choices:
    """The choices of a preset.

    Raises:
        ConfigError: a switch is not of the form name=side.
    """
    from bench.errors import ConfigError
    from bench.preset import Choices

    named = {}
    for switch in switches or ():
        name, separator, side = switch.partition("=")
        if not separator or not name or not side:
            raise ConfigError("--switch", f"{switch!r} is not of the form name=side")
        named[name] = side
    return Choices(scale=scale, fidelity=fidelity, switches=named)


def again_of(
    name: str,
    settings: Sequence[str] | None,
    choices: Choices,
    only: Sequence[str] | None,
    data: Sequence[Path] | None,
    max_rejected: float,
) -> tuple[str, ...]:
    """The words behind `molgraft study` by which the same runs come about again, wherever and however they are run.

    Args:
        name: of the study, or its file.
        settings: of `--set`.
        choices: scale, fidelity and switches.
        only: the cells, or patterns of them.
        data: files of data sets.
        max_rejected: greatest share of unusable rows.
    """
    chosen = (("--scale", choices.scale), ("--fidelity", choices.fidelity))
    several = (
        ("--switch", [f"{switch}={side}" for switch, side in choices.switches.items()]),
        ("--set", settings or ()),
        ("--only", only or ()),
        ("--data", map(str, data or ())),
        ("--max-rejected", [str(max_rejected)] if max_rejected != MOST_REJECTED else []),
    )
    words = [name, *(word for option, value in chosen if value is not None for word in (option, value))]
    return (*words, *(word for option, values in several for value in values for word in (option, value)))


def asked_of(limit: int | None, ids: str | None) -> list[str]:
    """The settings by which only some examples are asked."""
    chosen = [f"evaluation.limit={limit}"] if limit is not None else []
    names = list(dict.fromkeys(name.strip() for name in (ids or "").split(",") if name.strip()))
    return [*chosen, f"evaluation.ids={json.dumps(names)}"] if names else chosen


def runtime_of(
    runs: Path,
    device: str,
    threads: int | None,
    workers: int,
    max_rejected: float,
    tracking: str | None,
    offline: bool,
    quiet: bool,
    *,
    may_be_several: bool = False,
) -> Runtime:
    """How a command is executed.

    Raises:
        UserError: it was started as one of several processes and may not be, a folder of runs cannot be there, or the
            address of the tracking store is of no kind that can be used.
    """
    from bench.distributed import started
    from bench.errors import UserError
    from bench.runtime import Runtime
    from bench.tracking.address import address_of

    processes = started()
    if processes.several and not may_be_several:
        raise UserError(
            "started as one of several processes (WORLD_SIZE is set); only `molgraft run` trains on several, and "
            "leaves all else to one of them"
        )
    kind, _, number = device.partition(":")
    if processes.several and number:
        raise UserError(f"--device {device}: each of several processes has a device of its own; give --device {kind}")
    if kind == "cuda" and number:  # before torch looks: its trainer always takes the first device that it sees
        os.environ["CUDA_VISIBLE_DEVICES"] = number
        device = kind
    for place in (runs, *runs.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"--runs {runs}: {place} is a file; give a folder, which need not exist yet")
    runtime = Runtime(
        runs=runs,
        device=device,
        threads=threads,
        workers=workers,
        max_rejected=max_rejected,
        tracking=tracking,
        offline=offline,
        progress=not quiet,
        processes=processes,
    )
    address_of(runtime)  # before anything is prepared, which may take hours
    return runtime
