"""`molgraft reproduce`: a study from nothing to its tables, with published numbers beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options
from bench.command_study import DryRun, MaxRuns, Only, Workers

if TYPE_CHECKING:
    from bench.dispatch.base import Outcome
    from bench.plan import Plan

Name = Annotated[str, typer.Argument(help="Name of a ready study (`molgraft list studies`), or a YAML file.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder of the packed study and its tables; by default reproduced/NAME."),
]


def reproduce(
    name: Name,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    only: Only = None,
    runs: options.Runs = Path("runs"),
    data: options.Data = None,
    output: Output = None,
    workers: Workers = None,
    max_runs: MaxRuns = None,
    dry_run: DryRun = False,
    retry_failed: options.Retry = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_rejected: options.MaxRejected = options.MOST_REJECTED,
    tracking: options.Tracking = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a study, and write its tables with the published numbers beside ours.

    Every cell is run with every seed as by `molgraft study`, whose runs are not repeated; after a kill the same
    command goes on. Then the study is packed into a folder (scores of every example, no weights), with its
    tables as Markdown, LaTeX, HTML and JSON; `molgraft tables FOLDER --check` holds the one against the other. It ends
    with 1 if runs have failed or are missing; the tables show them as such.
    """
    import time
    from dataclasses import replace

    from bench.device import settled
    from bench.dispatch.base import Options
    from bench.dispatch.start import run_plan
    from bench.plan import plan_study, study_folder
    from bench.plan_report import show_plan
    from bench.study import load_study
    from tasks.data import Catalogue

    began = time.monotonic()
    how = Options(engine="local", workers=workers or 1)
    runtime = settled(options.runtime_of(runs, device, threads, how.workers, max_rejected, tracking, offline, quiet))
    chosen = options.choices_of(scale, fidelity, switches)
    study, cells = load_study(name, settings or (), runtime, choices=chosen, only=only or ())
    plan = plan_study(study, cells, runtime, Catalogue(data or ()), max_runs=max_runs, retry_failed=retry_failed)
    plan = replace(plan, arguments=options.again_of(name, settings, chosen, only, data, max_rejected))
    show_plan(plan, runtime, workers=how.workers, retry_failed=retry_failed)
    if dry_run:
        return
    plan.write(study_folder(runtime, study.name))
    outcome = run_plan(plan, runtime, how, data=data or (), retry_failed=retry_failed, question=study.question)
    if outcome.done:
        _write(plan, runtime.runs, output or Path("reproduced") / study.name)
    for line in _told(plan, outcome):
        typer.echo(line, err=True)
    typer.echo(
        f"{len(outcome.done)} of {len(plan.runs)} runs are done, {time.monotonic() - began:.0f} s in this session"
    )
    if not outcome.complete:
        raise typer.Exit(1)


def _write(plan: Plan, runs: Path, folder: Path) -> None:
    """Packs the study and writes its tables, and shows them."""
    from bench.command_tables import show
    from results.packed import pack, read_study
    from results.tables.files import write_tables
    from results.tables.studies import study_tables

    packed = pack(read_study(plan.study, runs), folder)
    tables = study_tables(read_study(folder))
    for table in tables:
        show(table)
        typer.echo()
    count = sum(file.parent.name == "runs" for file in packed)
    examples = len(packed) - 1 - count
    typer.echo(f"wrote {packed[0]}, {count} runs and facts about {examples} sets of examples")
    for file in write_tables(folder, tables=tables):
        typer.echo(f"wrote {file}")


def _told(plan: Plan, outcome: Outcome) -> list[str]:
    """What is not done, and what to do about it."""
    lines = [f"failed: {run.named}" for run in outcome.failed] + [f"missing: {run.named}" for run in outcome.missing]
    if outcome.disk is not None:
        lines.append(f"error: {outcome.disk}. Nothing is lost; make room, then give the same command again")
    elif outcome.failed:
        lines.append("failed runs are tried again with --retry-failed")
    if not outcome.done and not outcome.complete:
        lines.append(f"study {plan.study} has no finished run, so that there is no table")
    return lines
