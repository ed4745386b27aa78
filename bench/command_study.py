"""`molgraft study`: every cell of a study with every seed, here or on many machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bench.dispatch.base import Options, Outcome
    from bench.plan import Plan
    from bench.runtime import Runtime

_ENGINE = "local (processes of this machine), ray (a Ray cluster; pip install 'molgraft\\[ray]') or slurm (jobs that "
_ENGINE += "submitit submits; pip install 'molgraft\\[slurm]')."

Name = Annotated[str, typer.Argument(help="Name of a study (`molgraft list studies`), or a YAML file.")]
Only = Annotated[
    list[str] | None, typer.Option(help="Only this cell, or cells of a pattern such as 'gin-*'; repeatable.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes that each do one run after the other, or SLURM jobs; molecules are featurised by as many "
        "before. By default 1; with Ray, as many runs at a time as fit.",
        min=1,
    ),
]
Engine = Annotated[str, typer.Option(help=_ENGINE)]
Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster: `auto`, HOST:PORT or ray://...; else one is started here.")
]
CpusPerRun = Annotated[int | None, typer.Option(help="Cores of a run on Ray or SLURM; by default 1.", min=1)]
GpusPerRun = Annotated[
    float | None, typer.Option(help="GPUs of a run on Ray or SLURM; by default 1 with --device cuda.", min=0)
]
Slurm = Annotated[
    list[str] | None,
    typer.Option(
        help="A setting of the jobs, as partition=gpu or timeout_min=600 (docs/studies.md); repeatable.",
        metavar="KEY=VALUE",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="Submit SLURM jobs and leave; the same command looks again.")]
MaxRuns = Annotated[int | None, typer.Option(help="Refuse a study with more runs to do than this.", min=0)]
Watch = Annotated[bool, typer.Option("--watch", help="Only look on, at a study that is started elsewhere.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan with what it is estimated to cost, and leave.")]


def study(
    name: Name,
    settings: options.Set = None,
    scale: options.Scale = None,
    fidelity: options.Fidelity = None,
    switches: options.Switch = None,
    only: Only = None,
    runs: options.Runs = Path("runs"),
    data: options.Data = None,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    cpus_per_run: CpusPerRun = None,
    gpus_per_run: GpusPerRun = None,
    slurm: Slurm = None,
    detach: Detach = False,
    max_runs: MaxRuns = None,
    dry_run: DryRun = False,
    watch: Watch = False,
    retry_failed: options.Retry = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_rejected: options.MaxRejected = options.MOST_REJECTED,
    tracking: options.Tracking = None,
    offline: options.Offline = False,
    micro_batch: options.MicroBatch = None,
    asking_micro_batch: options.AskingMicroBatch = None,
    activation_checkpointing: options.Checkpointing = None,
    synchronise_batch_norm: options.Synchronise = False,
    quiet: options.Quiet = False,
) -> None:
    """Run every cell of a study with every seed, and print its tables.

    The plan is shown first, with what it is estimated to cost. What is done already is not done again, so a study that
    was interrupted goes on when the same command is given once more; given twice at a time, both share the work. It
    ends with 0 if all runs are done, and with 1 if some have failed or are missing, which it names.
    """
    how = _options(
        engine, workers, address, cpus_per_run, gpus_per_run, slurm or (), detach
    )  # refused at once if wrong
    from dataclasses import replace

    from bench.device import settled
    from bench.dispatch.start import run_plan
    from bench.plan import plan_study, study_folder
    from bench.plan_report import show_plan
    from bench.study import load_study
    from tasks.data import Catalogue

    runtime = replace(
        options.runtime_of(runs, device, threads, workers or 1, max_rejected, tracking, offline, quiet),
        micro_batch=micro_batch,
        asking_micro_batch=asking_micro_batch,
        activation_checkpointing=activation_checkpointing,
        synchronise_batch_norm=synchronise_batch_norm,
    )
    if watch:
        _look_on(name, runtime)
        return
    if how.engine == "local":  # elsewhere each machine has its own
        runtime = settled(runtime)
    chosen = options.choices_of(scale, fidelity, switches)
    loaded, cells = load_study(name, settings or (), runtime, choices=chosen, only=only or ())
    plan = plan_study(loaded, cells, runtime, Catalogue(data or ()), max_runs=max_runs, retry_failed=retry_failed)
    again = options.again_of(name, settings, chosen, only, data, max_rejected)
    plan = replace(plan, arguments=(*again, *(["--synchronise-batch-norm"] if synchronise_batch_norm else [])))
    show_plan(plan, runtime, workers=how.workers or 1, retry_failed=retry_failed)
    if dry_run:
        return
    plan.write(study_folder(runtime, loaded.name))
    outcome = run_plan(plan, runtime, how, data=data or (), retry_failed=retry_failed, question=loaded.question)
    _show(plan, outcome, runtime)
    if not outcome.complete and not outcome.detached:
        raise typer.Exit(1)


def _look_on(name: str, runtime: Runtime) -> None:
    """Shows a study as it was started, until it ends.

    Raises:
        UserError: no such study was started with this folder of runs.
    """
    from bench.errors import UserError
    from bench.live import watch
    from bench.parsing import find_config, read_yaml
    from bench.plan import PLAN_FILE, Plan, study_folder

    described = read_yaml(find_config(name, folder="studies"))
    file = study_folder(runtime, str(described.get("name"))) / PLAN_FILE
    if not file.exists():
        raise UserError(f"--watch: no study {described.get('name')} was started with --runs {runtime.runs}")
    watch(Plan.read(file), runtime, question=str(described.get("question", "")))


def _options(
    engine: str,
    workers: int | None,
    address: str | None,
    cpus: int | None,
    gpus: float | None,
    slurm: Sequence[str],
    detach: bool,
) -> Options:
    """How runs are executed, where the options fit together.

    Raises:
        UserError: there is no such engine, an option is one of another engine's, or is not of the form KEY=VALUE.
    """
    from bench.dispatch.base import Options, refuse_unknown
    from bench.errors import UserError

    refuse_unknown(engine)
    wrong = [
        option
        for option, given, right in (
            ("--address", address is not None, engine == "ray"),
            ("--cpus-per-run", cpus is not None, engine != "local"),
            ("--gpus-per-run", gpus is not None, engine != "local"),
            ("--slurm", bool(slurm), engine == "slurm"),
            ("--detach", detach, engine == "slurm"),
        )
        if given and not right
    ]
    if wrong:
        raise UserError(f"{', '.join(wrong)}: says nothing to --engine {engine}")
    at_a_time = workers if workers is not None else 0 if engine == "ray" else 1
    return Options(
        engine=engine,  # type: ignore[arg-type] # looked at above
        workers=at_a_time,
        address=address,
        cpus_per_run=cpus,
        gpus_per_run=gpus,
        slurm=_slurm(slurm),
        detach=detach,
    )


def _slurm(settings: Sequence[str]) -> Mapping[str, Any]:
    import yaml

    from bench.errors import UserError

    found = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator or not key or not value:
            raise UserError(f"--slurm {setting}: is not of the form KEY=VALUE, as partition=gpu")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[key] = value
    return found


def _show(plan: Plan, outcome: Outcome, runtime: Runtime) -> None:
    """The tables of what is done, the cell that the study's rule selects, and what is not done."""
    if outcome.done:
        _show_tables(plan, runtime)
        for line in _selected(plan, runtime):
            typer.echo(line)
    if outcome.detached:
        typer.echo(f"{len(outcome.done)} of {len(plan.runs)} runs are done; the jobs go on")
        return
    for what, runs in (("failed", outcome.failed), ("missing", outcome.missing)):
        for run in runs:
            typer.echo(f"{what}: {run.named}", err=True)
    if outcome.disk is not None:
        typer.echo(
            f"error: {outcome.disk}. {len(outcome.done)} of {len(plan.runs)} runs are done and nothing is lost; make "
            "room, then give the same command again",
            err=True,
        )
    elif outcome.failed:
        typer.echo("failed runs are tried again with --retry-failed", err=True)


def _selected(plan: Plan, runtime: Runtime) -> Iterator[str]:
    """The cell that the study's rule selects, and those that it could not consider; nothing of a single cell."""
    from bench.selection import selected
    from bench.study_states import states_of

    if len({run.cell for run in plan.runs}) > 1:
        yield from selected(plan.select, states_of(plan, runtime)).lines()


def _show_tables(plan: Plan, runtime: Runtime) -> None:
    """The tables that the study requests, as `molgraft tables STUDY` prints them."""
    from bench.command_tables import show, telling
    from results.packed import read_study
    from results.runs import ResultsError
    from results.tables.studies import study_tables

    try:
        with telling() as tell:
            tables = study_tables(read_study(plan.study, runtime.runs), tell=tell)
    except ResultsError as error:  # of runs that are done all the same
        typer.echo(f"no table: {error}")
        return
    for table in tables:
        show(table)
