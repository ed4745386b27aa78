"""Folders of runs written by hand, through the same functions that runs use: what views of a study are tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from conftest import QUICK

from bench.config import RunConfig
from bench.identity import content_hash, evaluation_id
from bench.plan import Plan, PlannedRun
from bench.preset import load_config
from bench.run_store import ErrorClass, RunDirectory, append_jsonl, write_json
from bench.selection import Selection
from bench.stage_log import StageOutcome

EXAMPLES = {"training": [64, 64], "validation": [16, 16], "evaluation": [12]}


def config_of(*overrides: str) -> RunConfig:
    """The run of seconds that other tests train too."""
    return load_config("demo", [*QUICK, *overrides])


def plan_of(
    cells: Sequence[str], seeds: Sequence[int], config: RunConfig, *, shared_align: bool = False, name: str = "by-hand"
) -> Plan:
    """A plan of cells that all have one configuration, but identities of their own.

    Args:
        cells, seeds: of the study.
        config: of every cell.
        shared_align: whether the first stage of a seed is the same in all cells.
        name: of the study.
    """
    runs = []
    for cell in cells:
        for seed in seeds:
            stages = [content_hash([cell, seed, stage.name]) for stage in config.stages]
            if shared_align:
                stages[0] = content_hash(["align", seed])
            seeded = replace(config, name=cell, seed=seed)
            runs.append(
                PlannedRun(
                    cell=cell,
                    config=seeded,
                    cell_id=content_hash([cell]),
                    train_id=stages[-1],
                    stage_ids=tuple(stages),
                )
            )
    return Plan(study=name, runs=tuple(runs), select=Selection())


def directory_of(runs: Path, planned: PlannedRun) -> RunDirectory:
    """Where a run has its folder."""
    return RunDirectory(runs / f"run-s{planned.seed}-{planned.train_id}")


def write_manifest(directory: RunDirectory) -> None:
    """As much of a manifest as a view reads."""
    write_json(directory.manifest_file, {"examples": EXAMPLES})


def write_steps(
    directory: RunDirectory, planned: PlannedRun, position: int, steps: int, seconds: float = 0.5, loss: float = 3.0
) -> None:
    """Steps 1 to `steps` of a stage, with the losses that it logged."""
    folder = directory.stage(position, planned.config.stages[position].name)
    rows = [{"step": step, "seconds": seconds, "tokens": 40 * step, "pid": 7} for step in range(1, steps + 1)]
    append_jsonl(folder / "steps.jsonl", rows, durable=False)
    logged = [{"step": 0, "validation_loss": loss + 1}, {"step": steps, "loss": loss}]
    append_jsonl(folder / "metrics.jsonl", logged, durable=False)


def finish_stage(
    directory: RunDirectory, planned: PlannedRun, position: int, seconds: float = 0.5, loss: float = 3.0
) -> None:
    """A stage with all its steps and its report."""
    stage = planned.config.stages[position]
    steps = stage.steps or 1
    write_steps(directory, planned, position, steps, seconds, loss)
    outcome = StageOutcome(
        steps, "last", steps, {"0": loss + 1, str(steps): loss}, loss, loss, 40 * steps, round(seconds * steps, 3)
    )
    write_json(
        directory.stage(position, stage.name) / "stage.json",
        {"stage_id": planned.stage_ids[position], "outcome": asdict(outcome)},
    )


def answer(directory: RunDirectory, examples: int) -> None:
    """So many predictions."""
    rows = [{"example_id": str(number), "text": "an answer"} for number in range(examples)]
    append_jsonl(directory.predictions_file("0123456789abcdef"), rows, durable=False)


def finish(runs: Path, planned: PlannedRun, loss: float = 3.0, seconds: float = 0.5) -> RunDirectory:
    """A run that is done, whose every step took so many seconds."""
    directory = directory_of(runs, planned)
    with directory.lock():
        write_manifest(directory)
        for position in range(len(planned.config.stages)):
            finish_stage(directory, planned, position, seconds, loss)
        answer(directory, sum(EXAMPLES["evaluation"]))
        write_result(directory, planned, loss)
        directory.set_status("done", "done")
    return directory


def write_result(directory: RunDirectory, planned: PlannedRun, loss: float) -> None:
    """As much of a result as a view reads."""
    protocols = planned.config.evaluation.protocols
    entries = [
        {
            "evaluation_id": evaluation_id(planned.config, task),
            "limited": True,
            "n": 12,
            "split": "test",
            "scores": [{"protocol": f"{protocol.name}@{protocol.version}", "metrics": {}} for protocol in protocols],
        }
        for task in planned.config.evaluation_tasks()
    ]
    stages = [{"kept_step": 6, "validation": {"6": loss}}]
    write_json(directory.result_file, {"evaluations": entries, "stages": stages})


def fail(runs: Path, planned: PlannedRun, kind: ErrorClass, message: str) -> RunDirectory:
    """A run that failed in its first stage."""
    directory = directory_of(runs, planned)
    with directory.lock():
        write_manifest(directory)
        write_steps(directory, planned, 0, 2)
        directory.set_status("failed", f"stage {planned.config.stages[0].name}", kind, message)
    return directory


@contextmanager
def at_work(runs: Path, planned: PlannedRun, steps: int = 3, seconds: float = 0.5) -> Iterator[RunDirectory]:
    """A run that is held, so many steps into its training."""
    directory = directory_of(runs, planned)
    with ExitStack() as held:
        held.enter_context(directory.lock())
        write_manifest(directory)
        left = steps
        for position, stage in enumerate(planned.config.stages):
            total = stage.steps or 1
            directory.set_status("running", f"stage {stage.name}")
            if left < total:
                if left:
                    write_steps(directory, planned, position, left, seconds)
                break
            finish_stage(directory, planned, position, seconds)
            left -= total
        else:
            directory.set_status("running", "generating")
        yield directory
