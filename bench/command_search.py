"""`molgraft search`: Optuna over any settings of a preset, by several processes, here or on many machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from bench.search import Definition, SearchResult

Name = Annotated[str, typer.Argument(help="Name of a search (`molgraft list searches`), or a YAML file.")]
Trials = Annotated[
    int | None, typer.Option(help="How many in all, instead of the file's; the first is the preset.", min=1)
]
Workers = Annotated[
    int, typer.Option(help="Processes that each do one trial after the other; start more on other machines.", min=1)
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Where trials are kept: a journal file (by default RUNS/.searches/NAME/journal.log), or the URL of a "
        "database, as postgresql://user:password@host/name (pip install 'molgraft\\[postgres]').",
        metavar="FILE|URL",
        envvar="MOLGRAFT_SEARCH_STORAGE",
    ),
]
Timeout = Annotated[float | None, typer.Option(help="Seconds after which this command begins no further trial.", min=1)]
Test = Annotated[bool, typer.Option("--test/--no-test", help="Ask the selected configuration on test in the end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be searched, and leave.")]


def search(
    name: Name,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    trials: Trials = None,
    workers: Workers = 1,
    storage: Storage = None,
    timeout: Timeout = None,
    test: Test = True,
    dry_run: DryRun = False,
    runs: options.Runs = Path("runs"),
    data: options.Data = None,
    retry_failed: options.Retry = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_rejected: options.MaxRejected = 0.05,
    tracking: options.Tracking = None,
    offline: options.Offline = False,
    micro_batch: options.MicroBatch = None,
    asking_micro_batch: options.AskingMicroBatch = None,
    activation_checkpointing: options.Checkpointing = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Search a space of settings by validation, and ask the configuration that is selected on test, once.

    Trial 0 is the preset itself. A search that was stopped, however it was, goes on when the same command is given
    again; given on several machines with one --storage and one folder of runs, they share the trials. It ends with 0 if
    all trials are ended and none failed, and with 1 else, naming those that did.
    """
    from dataclasses import replace

    from bench.search import load_search, run_search

    runtime = replace(
        options.runtime_of(runs, device, threads, workers, max_rejected, tracking, offline, quiet),
        micro_batch=micro_batch,
        asking_micro_batch=asking_micro_batch,
        activation_checkpointing=activation_checkpointing,
    )
    chosen = options.choices_of(scale, fidelity, switches)
    definition = load_search(name, settings or (), chosen, trials=trials, timeout=timeout)
    if dry_run:
        typer.echo(_planned(definition))
        return
    runtime.say(_planned(definition))
    result = run_search(
        definition,
        runtime,
        data=data or (),
        workers=workers,
        storage=storage,
        retry_failed=retry_failed,
        test=test,
    )
    if as_json:
        typer.echo(json.dumps(result.described(), indent=1, ensure_ascii=False))
    else:
        _show(result)
    if result.failed or not result.complete or result.best is None:
        raise typer.Exit(1)


def _planned(definition: Definition) -> str:
    """What is searched, in lines."""
    search = definition.search
    seeds = f", seeds {', '.join(map(str, search.seeds))}" if len(search.seeds) > 1 else ""
    lines = [
        f"search {search.name}: {search.question}".rstrip(": "),
        f"  {search.trials} trials of {search.extends}{seeds}; sampler {search.sampler.name}, "
        f"pruner {search.pruner.name}; {'; '.join(rule.described for rule in definition.rules)}",
    ]
    for parameter in definition.space.parameters:
        own = definition.preset_values.get(parameter.path)
        preset = "" if own is None else f" (the preset: {own})"
        scale = ", logarithmic" if parameter.log else ""
        when = "".join(f", with {path} {' or '.join(aliases)}" for path, aliases in parameter.when.items())
        lines.append(f"  {parameter.path}: {parameter.described}{scale}{when}{preset}")
    return "\n".join(lines)


def _show(result: SearchResult) -> None:
    from bench.search.outcome import markdown

    definition = result.definition
    typer.echo(markdown(result.rows, definition))
    if result.best is not None:
        rules = "; ".join(rule.described for rule in definition.rules)
        typer.echo(f"\n* selected, by {rules}: trial {result.best.number}")
    if result.front:
        numbers = ", ".join(str(row.number) for row in result.front)
        typer.echo(f"Pareto front: trials {numbers}; the first objective decides among them")
    for name, shares in result.importance.items():
        listed = ", ".join(f"{path} {share:.2f}" for path, share in shares.items())
        typer.echo(f"what mattered to {name} (PED-ANOVA): {listed}")
    for row in result.failed:
        typer.echo(f"trial {row.number} failed: {row.note}; --retry-failed tries it again")
    for note in result.notes:
        typer.echo(note)
    typer.echo(f"in {result.folder}: {', '.join(file.name for file in result.files)}")
    if result.tested:
        _show_test(result)


def _show_test(result: SearchResult) -> None:
    from bench.command_tables import show
    from results.runs import read_runs
    from results.tables import build_table

    typer.echo("\nThe selected configuration on test:")
    names = {tested.run.path: tested.name for tested in result.tested}
    assert result.best is not None
    asked = result.definition.test_config(result.best.number, result.best.values, 0)  # trials may ask in another way
    for protocol in asked.evaluation.protocols:
        show(build_table(read_runs(list(names), names), protocol.name, "test"))
