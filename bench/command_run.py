"""Commands that train models: `demo`, `run`, `study`, `check`, `pretrain-lm`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.experiment import RunResult
    from bench.preset import Choices
    from bench.runtime import Runtime

_Config = Annotated[str, typer.Argument(help="Name of a preset (`molgraft list presets`), or a YAML file.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Another value, as encoder.layers=3; repeatable.", metavar="A.B=VALUE")
]
_Runs = Annotated[Path, typer.Option(help="Folder of run directories.")]
_Data = Annotated[list[Path] | None, typer.Option(help="YAML file of a data set of your own; repeatable.")]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
_Threads = Annotated[int | None, typer.Option(help="Threads of torch.", min=1)]
_Workers = Annotated[int, typer.Option(help="Processes that featurise molecules.", min=1)]
_MaxRejected = Annotated[
    float, typer.Option(help="Greatest share of unusable rows; above it the run stops.", min=0, max=1)
]
_Tracking = Annotated[str | None, typer.Option(help="MLflow address; `none` for no tracking.")]
_Offline = Annotated[bool, typer.Option("--offline", help="Download nothing.")]
_MicroBatch = Annotated[
    int | None,
    typer.Option(help="Most examples per forward pass of training; the batch and its losses stay the same.", min=1),
]
_Checkpointing = Annotated[
    bool | None,
    typer.Option(
        "--activation-checkpointing/--no-activation-checkpointing",
        help="Compute the language model's activations twice rather than keep them; by default for large models on an "
        "accelerator.",
    ),
]
_Synchronise = Annotated[
    bool,
    typer.Option("--synchronise-batch-norm", help="A trained batch norm norms by the molecules of all processes."),
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
_Limit = Annotated[int | None, typer.Option(help="Ask only so many examples, a seeded subset.", min=1)]
_Ids = Annotated[str | None, typer.Option(help="Ask only these examples, ids separated by commas.")]
_Scale = Annotated[
    str | None, typer.Option(help="Of a preset that has several: paper (as published), small or smoke (minutes).")
]
_Fidelity = Annotated[
    str | None, typer.Option(help="paper or code: the side that is taken where a paper and its released code disagree.")
]
_Switch = Annotated[
    list[str] | None,
    typer.Option(
        "--switch", help="One choice of a preset; `molgraft check` lists them. Repeatable.", metavar="NAME=SIDE"
    ),
]
_Retry = Annotated[bool, typer.Option("--retry-failed", help="Go on with runs that failed before.")]


def run(
    config: _Config,
    settings: _Set = None,
    scale: _Scale = None,
    fidelity: _Fidelity = None,
    switches: _Switch = None,
    limit: _Limit = None,
    ids: _Ids = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.", min=0)] = None,
    runs: _Runs = Path("runs"),
    data: _Data = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier session left.")] = False,
    retry_failed: _Retry = False,
    device: _Device = "auto",
    threads: _Threads = None,
    workers: _Workers = 1,
    max_rejected: _MaxRejected = 0.05,
    tracking: _Tracking = None,
    offline: _Offline = False,
    micro_batch: _MicroBatch = None,
    activation_checkpointing: _Checkpointing = None,
    synchronise_batch_norm: _Synchronise = False,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Train, predict and score one configuration; what is done already is not done again.

    A run that was interrupted, by whatever, goes on when the same command is given again. Under `accelerate launch` or
    `torchrun` several processes train it together (docs/scaling.md).
    """
    from dataclasses import replace

    from bench.distributed import ended_together

    runtime = replace(
        _runtime(runs, device, threads, workers, max_rejected, tracking, offline, quiet, may_be_several=True),
        micro_batch=micro_batch,
        activation_checkpointing=activation_checkpointing,
        synchronise_batch_norm=synchronise_batch_norm,
    )
    with ended_together(runtime.processes):
        from bench.experiment import follow
        from bench.experiment import run as run_experiment
        from bench.preset import load_config
        from bench.tracking import mirror_to
        from tasks.data import Catalogue

        runtime.processes.join()
        seeded = [f"seed={seed}"] if seed is not None else []
        overrides = [*(settings or ()), *seeded, *_asked(limit, ids)]
        loaded = load_config(config, overrides, choices=_choices(scale, fidelity, switches))
        catalogue = Catalogue(data or ())
        if not runtime.processes.leads:
            follow(loaded, runtime, catalogue=catalogue)
            return
        mirror = mirror_to(loaded.name, runtime)
        result = run_experiment(
            loaded, runtime, catalogue=catalogue, fresh=fresh, retry_failed=retry_failed, mirror=mirror
        )
    _show(result.run.path, result.summary, as_json)


def study(
    name: Annotated[str, typer.Argument(help="Name of a study (`molgraft list studies`), or a YAML file.")],
    settings: _Set = None,
    runs: _Runs = Path("runs"),
    data: _Data = None,
    retry_failed: _Retry = False,
    device: _Device = "auto",
    threads: _Threads = None,
    workers: _Workers = 1,
    max_rejected: _MaxRejected = 0.05,
    tracking: _Tracking = None,
    offline: _Offline = False,
    quiet: _Quiet = False,
) -> None:
    """Run every cell of a study with every seed, and print its table."""
    from bench.study import load_study, run_study
    from tasks.data import Catalogue

    loaded, cells = load_study(name, settings or ())
    runtime = _runtime(runs, device, threads, workers, max_rejected, tracking, offline, quiet)
    results = run_study(loaded, cells, runtime, catalogue=Catalogue(data or ()), retry_failed=retry_failed)
    _print_table(_names(results), next(iter(cells.values())).evaluation.protocols[0].name)


def demo(
    runs: _Runs = Path("runs/demo"),
    tracking: _Tracking = None,
    threads: _Threads = 1,  # models this small gain little from a second one, and lose much on a busy machine
    quiet: _Quiet = False,
) -> None:
    """Show the whole path in minutes on two cores, without a network: three cells, two seeds, one table, one answer.

    A graph encoder that is trained from scratch, no graph, and an encoder trained on other molecules' graphs. It is a
    positive control on easy data: descriptions follow from the structure by fixed rules.
    """
    from bench.demo import answer
    from bench.study import load_study, run_study

    loaded, cells = load_study("demo")
    runtime = _runtime(runs, "cpu", threads, 1, 0.0, tracking, True, quiet)
    names = _names(run_study(loaded, cells, runtime))
    _print_table(names, "strict")
    typer.echo(answer(names))
    typer.echo(f"\nRuns, predictions and scores are in {runs}; `molgraft tables {runs}` prints the table again.")


def check(
    config: _Config,
    settings: _Set = None,
    scale: _Scale = None,
    fidelity: _Fidelity = None,
    switches: _Switch = None,
    data: _Data = None,
    offline: _Offline = False,
    as_json: _Json = False,
) -> None:
    """Say what a run would be, without doing anything: settings, wiring, parameters, memory, steps, data, a prompt."""
    from bench.check import inspect
    from bench.check_report import report
    from bench.preset import described, resolve, told
    from tasks.data import Catalogue

    resolved = resolve(config, settings or (), choices=_choices(scale, fidelity, switches))
    runtime = _runtime(Path("runs"), "cpu", None, 1, 1.0, "none", offline, False)
    found = inspect(resolved.config, runtime, Catalogue(data or ()))
    if as_json:
        typer.echo(json.dumps({"preset": described(resolved), **found}, indent=1, ensure_ascii=False))
    else:
        typer.echo("\n".join([report(found), *told(resolved)]))
    if found["missing"]:
        raise typer.Exit(1)


def pretrain_lm(
    config: _Config,
    settings: _Set = None,
    scale: _Scale = None,
    fidelity: _Fidelity = None,
    switches: _Switch = None,
    data: _Data = None,
    device: _Device = "auto",
    threads: _Threads = None,
    quiet: _Quiet = False,
) -> None:
    """Make the small language model that a configuration with `llm: tiny` uses, and print its folder.

    It is made from the training text of the configuration's task, and kept in the cache under a hash of the text and
    the recipe; a run makes it by itself where it is missing.
    """
    from bench.config import TINY
    from bench.errors import ConfigError
    from bench.prepare import small_language_model
    from bench.preset import load_config
    from tasks.data import Catalogue

    loaded = load_config(config, settings or (), choices=_choices(scale, fidelity, switches))
    if loaded.llm.name != TINY:
        raise ConfigError("llm.name", f"is {loaded.llm.name!r}; only {TINY!r} is made by molgraft")
    runtime = _runtime(Path("runs"), device, threads, 1, 1.0, "none", False, quiet)
    located = small_language_model(loaded, Catalogue(data or ()), runtime)
    typer.echo(located.path)


def _choices(scale: str | None, fidelity: str | None, switches: Sequence[str] | None) -> Choices:
    from bench.errors import ConfigError
    from bench.preset import Choices

    named = {}
    for switch in switches or ():
        name, separator, side = switch.partition("=")
        if not separator or not name or not side:
            raise ConfigError("--switch", f"{switch!r} is not of the form name=side")
        named[name] = side
    return Choices(scale=scale, fidelity=fidelity, switches=named)


def _asked(limit: int | None, ids: str | None) -> list[str]:
    chosen = [f"evaluation.limit={limit}"] if limit is not None else []
    names = list(dict.fromkeys(name.strip() for name in (ids or "").split(",") if name.strip()))
    return [*chosen, f"evaluation.ids={json.dumps(names)}"] if names else chosen


def _runtime(
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
    from bench.distributed import started
    from bench.errors import UserError
    from bench.runtime import Runtime

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
    return Runtime(
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


def _names(results: Sequence[RunResult]) -> dict[Path, str]:
    """The folders of a study's runs and their cells' aliases, which may not be those that they were made under."""
    return {result.run.path: result.name for result in results}


def _print_table(names: Mapping[Path, str], protocol: str) -> None:
    from bench.command_tables import show
    from results.runs import read_runs
    from results.tables import build_table

    show(build_table(read_runs(list(names), names), protocol))


def _show(folder: Path, summary: dict[str, Any], as_json: bool) -> None:
    """What a run came to."""
    if as_json:
        typer.echo(json.dumps({"run": str(folder), **summary}, ensure_ascii=False))
        return
    typer.echo(f"{folder}: done, {summary['seconds']:.0f} s; {summary['scored_weights']} was scored")
    for part, count in summary["rejected"].items():
        if count:
            typer.echo(f"  {count} {part} rows were unusable; they are listed in {folder / 'rejected.csv'}")
    for entry in summary["evaluations"]:
        limited = ", LIMITED" if entry["limited"] else ""
        typer.echo(
            f"  {entry['task']} on {entry['data']} {entry['split']}, n = {entry['n']}{limited}{_how_asked(entry)}"
        )
        for score in entry["scores"]:
            values = "  ".join(f"{name} {_number(m)}" for name, m in score["metrics"].items())
            typer.echo(f"    {score['protocol']}: {values}  invalid {score['n_invalid']}")
            for name, metric in score["metrics"].items():
                if metric["value"] is None:
                    typer.echo(f"      {name} is n/a: {metric['reason']}")
        reliance = entry["reliance"]
        if reliance["value"] is not None:
            interval = "" if reliance["ci95"] is None else " [{:+.4f}, {:+.4f}]".format(*reliance["ci95"])
            left_out = f"; {reliance['left_out']} without an equal left out" if reliance["left_out"] else ""
            typer.echo(
                f"    reliance on the graph: {reliance['value']:+.4f} nats per token{interval}, graphs "
                f"swapped ({reliance['swap']}), n = {reliance['n']}{left_out}"
            )
            for protocol, changes in reliance["metrics"].items():
                shown = "  ".join(f"{name} {_change(change)}" for name, change in changes.items())
                typer.echo(f"    answers with their own graph less answers with the other, {protocol}: {shown}")
        else:
            typer.echo(f"    reliance on the graph: n/a, {reliance['reason']}")


def _how_asked(entry: dict[str, Any]) -> str:
    """What tells an evaluation of a run from its others."""
    graph = entry["graph_input"]["name"]
    text = (entry.get("text_input") or {}).get("name")
    parts = [f"graphs: {graph}"] if graph != "real" else []
    parts += [f"asked in: {text}"] if text else []
    return "".join(f", {part}" for part in parts)


def _change(change: dict[str, Any]) -> str:
    if change["value"] is None:
        return "n/a"
    interval = "" if change["ci95"] is None else " [{:+.4f}, {:+.4f}]".format(*change["ci95"])
    return f"{change['value']:+.4f}{interval}"


def _number(metric: dict[str, Any]) -> str:
    return "n/a" if metric["value"] is None else f"{metric['value']:.4f}"
