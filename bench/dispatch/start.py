"""Sees a plan done, by whichever engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench.dispatch.assignment import Assignment, environment_of, new_folder, notes_of, plugins_of, settings_of
from bench.dispatch.base import SPENT, Options, Outcome, outcome_of, refuse_unknown
from bench.live import LiveView
from bench.plan import Plan, study_folder
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.study_states import RunState, states_of
from tasks.data import Catalogue
from tasks.locations import cache_root


def run_plan(
    plan: Plan,
    runtime: Runtime,
    options: Options | None = None,
    *,
    data: Sequence[Path] = (),
    retry_failed: bool = False,
    question: str = "",
) -> Outcome:
    """Does what is missing of a plan, together with whoever else works on it in the same folder.

    Args:
        plan: the runs, in the order in which they are taken.
        runtime: where, and on what.
        options: which engine, and how many workers; None for this process.
        data: YAML files of further data sets.
        retry_failed: try runs again that have failed before.
        question: what the study is to answer, for who watches.

    Raises:
        KeyboardInterrupt: by Ctrl-C, when the workers have ended.
        SystemExit: on SIGTERM, likewise.
        UserError: an engine cannot be used here, or its workers cannot start.
    """
    options = options or Options()
    refuse_unknown(options.engine)
    states = states_of(plan, runtime)
    positions = tuple(range(len(plan.runs)))
    again = tuple(sorted(_with_scores_missing(positions, states, runtime, Catalogue(data))))
    retried = {n: states[n].updated for n in positions if retry_failed and states[n].state == "failed"}
    over = {n for n in positions if states[n].state in {"done", "failed"}} - {*again, *retried}
    folder = new_folder(study_folder(runtime, plan.study))
    assignment = Assignment(
        study=plan.study,
        plan_file=plan.write(folder).resolve(),
        folder=folder.resolve(),
        positions=positions,
        again=again,
        retried=retried,
        runs=runtime.runs.resolve(),
        cache=(runtime.cache or cache_root()).resolve(),  # every machine's own would be another small language model
        settings=settings_of(runtime),
        data=tuple(path.resolve() for path in data),
        plugins=plugins_of(),
        directory=Path.cwd(),
        environment=environment_of(),
    )
    assignment.write()
    disk, is_work_left = None, over != set(positions)
    if is_work_left:
        with LiveView(plan, runtime, question=question, workers=options.workers or None) as view:
            disk = _execute(plan, assignment, runtime, options, len(positions) - len(over), view.refresh)
    return outcome_of(
        plan,
        assignment,
        runtime,
        notes_of(assignment.folder),
        disk=disk,
        detached=options.detach and is_work_left,
    )


def _execute(
    plan: Plan, assignment: Assignment, runtime: Runtime, options: Options, left: int, refresh: Callable[[], None]
) -> str | None:
    """Does the work that is left; what the disk said, where it ended the study."""
    if options.engine == "local" and options.workers == 1:
        code, disk = _in_this_process(plan, assignment, runtime, refresh)
        if code != SPENT:
            return disk
    options = replace(options, workers=min(options.workers, left))  # more would find nothing to do
    if options.engine == "local":
        from bench.dispatch.local import LocalWorkers

        return LocalWorkers(plan, assignment, runtime, options.workers, refresh).run()
    if options.engine == "ray":
        from bench.dispatch.ray_engine import run_on_ray

        return run_on_ray(plan, assignment, runtime, options, refresh)
    from bench.dispatch.slurm import run_on_slurm

    return run_on_slurm(plan, assignment, runtime, options, refresh)


def _in_this_process(
    plan: Plan, assignment: Assignment, runtime: Runtime, refresh: Callable[[], None]
) -> tuple[int, str | None]:
    from bench.dispatch.worker import Worker
    from bench.session import ended_by_sigterm

    quiet = replace(runtime, progress=False)  # its bars would be drawn over the picture of the study
    with ended_by_sigterm():
        worker = Worker(assignment, "worker", plan=plan, runtime=quiet, refresh=refresh)
        return worker.work(), worker.disk


def _with_scores_missing(
    positions: Sequence[int], states: Sequence[RunState], runtime: Runtime, catalogue: Catalogue
) -> Iterator[int]:
    """Finished runs of which something is asked that their results lack, such as a protocol that has changed."""
    from bench.evaluation import score_missing
    from bench.prepare import prepare

    by_cell: dict[str, list[int]] = {}
    for position in positions:
        if states[position].state == "done":
            by_cell.setdefault(states[position].planned.cell, []).append(position)
    for same in by_cell.values():
        # What is asked depends on the seed by identities alone, so that data are read once for all seeds of a cell.
        prepared = prepare(states[same[0]].planned.config, runtime, catalogue)
        for position in same:
            planned, folder = states[position].planned, states[position].directory
            config = replace(prepared.config, seed=planned.seed)
            mine = replace(prepared, config=config, stage_ids=planned.stage_ids, train_id=planned.train_id)
            if folder is not None and score_missing(mine, RunDirectory(folder)):
                yield position
