"""Commands that train models: `demo`, `run`, `check`, `pretrain-lm`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options
from bench.command_result import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.experiment import RunResult


def run(
    config: options.Config,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    limit: options.Limit = None,
    ids: options.Ids = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.", min=0)] = None,
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
    micro_batch: options.MicroBatch = None,
    asking_micro_batch: options.AskingMicroBatch = None,
    activation_checkpointing: options.Checkpointing = None,
    synchronise_batch_norm: options.Synchronise = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train, predict and score one configuration; what is done already is not done again.

    A run that was interrupted, by whatever, goes on when the same command is given again. Under `accelerate launch` or
    `torchrun` several processes train it together (docs/scaling.md).
    """
    from dataclasses import replace

    from bench.distributed import ended_together

    runtime = replace(
        options.runtime_of(runs, device, threads, workers, max_rejected, tracking, offline, quiet, may_be_several=True),
        micro_batch=micro_batch,
        asking_micro_batch=asking_micro_batch,
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
        overrides = [*(settings or ()), *seeded, *options.asked_of(limit, ids)]
        loaded = load_config(config, overrides, choices=options.choices_of(scale, fidelity, switches))
        catalogue = Catalogue(data or ())
        if not runtime.processes.leads:
            follow(loaded, runtime, catalogue=catalogue)
            return
        mirror = mirror_to(loaded.name, runtime)
        result = run_experiment(
            loaded, runtime, catalogue=catalogue, fresh=fresh, retry_failed=retry_failed, mirror=mirror
        )
    show(result.run.path, result.summary, as_json)


def demo(
    runs: options.Runs = Path("runs/demo"),
    tracking: options.Tracking = None,
    threads: options.Threads = 1,  # models this small gain little from a second one, and lose much on a busy machine
    quiet: options.Quiet = False,
) -> None:
    """Show the whole path in minutes on two cores, without a network: three cells, two seeds, one table, one answer.

    A graph encoder that is trained from scratch, no graph, and an encoder trained on other molecules' graphs. It is a
    positive control on easy data: descriptions follow from the structure by fixed rules.
    """
    from bench.demo import answer
    from bench.study import load_study, run_study

    loaded, cells = load_study("demo")
    runtime = options.runtime_of(runs, "cpu", threads, 1, 0.0, tracking, True, quiet)
    names = _names(run_study(loaded, cells, runtime))
    _print_table(names, "strict")
    typer.echo(answer(names))
    typer.echo(f"\nRuns, predictions and scores are in {runs}; `molgraft tables {runs}` prints the table again.")


def check(
    config: options.Config,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    data: options.Data = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Say what a run would be, without doing anything: settings, wiring, parameters, memory, steps, data, a prompt."""
    from bench.check import inspect
    from bench.check_report import report
    from bench.preset import described, resolve, told
    from tasks.data import Catalogue

    resolved = resolve(config, settings or (), choices=options.choices_of(scale, fidelity, switches))
    runtime = options.runtime_of(Path("runs"), "cpu", None, 1, 1.0, "none", offline, False)
    found = inspect(resolved.config, runtime, Catalogue(data or ()))
    if as_json:
        typer.echo(json.dumps({"preset": described(resolved), **found}, indent=1, ensure_ascii=False))
    else:
        typer.echo("\n".join([report(found), *told(resolved)]))
    if found["missing"]:
        raise typer.Exit(1)


def pretrain_lm(
    config: options.Config,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    data: options.Data = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    quiet: options.Quiet = False,
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

    loaded = load_config(config, settings or (), choices=options.choices_of(scale, fidelity, switches))
    if loaded.llm.name != TINY:
        raise ConfigError("llm.name", f"is {loaded.llm.name!r}; only {TINY!r} is made by molgraft")
    runtime = options.runtime_of(Path("runs"), device, threads, 1, 1.0, "none", False, quiet)
    located = small_language_model(loaded, Catalogue(data or ()), runtime)
    typer.echo(located.path)


def _names(results: Sequence[RunResult]) -> dict[Path, str]:
    """The folders of a study's runs and their cells' aliases, which may not be those that they were made under."""
    return {result.run.path: result.name for result in results}


def _print_table(names: Mapping[Path, str], protocol: str) -> None:
    from bench.command_tables import show
    from results.runs import read_runs
    from results.tables import build_table

    show(build_table(read_runs(list(names), names), protocol))
