"""A study that is killed ten times at random moments, against the same one that nobody disturbs.

    python -m benchmarks.kill_study [--study smoke-matrix] [--kills 10] [--seed 0] [--workers 2] [--set A.B=VALUE ...]

It ends with 1 unless every run was done, came to the same bits, and stands in MLflow once with a whole history.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.undisturbed import (
    Findings,
    all_done,
    carried_out,
    command_of,
    equal_outcomes,
    in_words,
    options_of,
    rows_of,
    run_undisturbed,
    states_of,
)

_SPREAD = 10.0  # seconds at least, or each kill falls where a worker has only begun
_EXPERIMENT = "molgraft/{study}"


@dataclass
class Kills:
    """What was killed, and when.

    Args:
        generator: of the moments and the victims.
        left: how many are still to come.
        spread: seconds within which the next one falls once a worker is at a run.
        startup: seconds that a command needs until its workers are.
    """

    generator: random.Random
    left: int
    spread: float
    startup: float
    told: list[str] = field(default_factory=list)

    def wait(self, parent: subprocess.Popen[bytes], runs: Path) -> None:
        """Until the next kill is due, or the command ends; every fifth or so falls while processes start."""
        if self.generator.random() < 0.2:
            spread = self.startup
        else:
            spread = self.spread
            while parent.poll() is None and not _at_work(runs, parent.pid):
                time.sleep(0.1)
        due = time.monotonic() + self.generator.uniform(0.0, spread)
        while parent.poll() is None and time.monotonic() < due:
            time.sleep(0.05)

    def strike(self, parent: subprocess.Popen[bytes], runs: Path) -> None:
        """Kills a worker, the parent, or all of them at once."""
        workers = [pid for pid in _workers(runs) if _is_child(pid, parent.pid)]
        what = self.generator.choice(("worker", "worker", "parent", "all") if workers else ("parent",))
        victims = {"worker": [self.generator.choice(workers)] if workers else [], "parent": [parent.pid]}
        chosen = victims.get(what, [*workers, parent.pid])
        for pid in chosen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.left -= 1
        self.told.append(what)
        killed = f"{what} ({', '.join(map(str, chosen))})"
        print(f"  kill {len(self.told)}: {killed}; {in_words(states_of(runs))}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs both, compares them, and prints what happened."""
    parser = options_of(__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], dest="settings", help="settings of all cells")
    return carried_out(parser.parse_args(arguments), _compare)


def _compare(given: argparse.Namespace, folder: Path) -> Findings:
    undisturbed, disturbed = folder / "undisturbed", folder / "disturbed"
    began = time.monotonic()
    run_undisturbed(given.study, undisturbed, given.settings)
    seconds = time.monotonic() - began
    print(f"  {seconds:.0f} s; {in_words(states_of(undisturbed))}", flush=True)
    starts, took = _disturbed(given, disturbed, seconds)
    print(f"  {took:.0f} s in {starts} starts; {in_words(states_of(disturbed))}", flush=True)
    study = json.loads(next(disturbed.glob(".studies/*/plan.json")).read_text())["study"]
    return dict([*_findings(undisturbed, disturbed), *_mirrored(disturbed, study)])


def _disturbed(given: argparse.Namespace, runs: Path, seconds: float) -> tuple[int, float]:
    """Starts the study until it is done, killing what it consists of; how many starts, and how long it took."""
    print(f"{given.study}, --workers {given.workers}, {given.kills} kills by seed {given.seed}", flush=True)
    began, starts = time.monotonic(), 0
    spread = max(seconds / given.workers / (given.kills + 2), _SPREAD)
    kills = Kills(random.Random(given.seed), given.kills, spread, startup=0.0)
    while True:
        starts += 1
        started = time.monotonic()
        known = set(_workers(runs))
        command = command_of(given.study, runs, workers=given.workers, settings=given.settings)
        with (runs.parent / "said.txt").open("ab") as output:
            parent = subprocess.Popen(command, stdout=output, stderr=output)
        if kills.startup == 0.0:  # found out once
            while parent.poll() is None and not set(_workers(runs)) - known:
                time.sleep(0.1)
            kills.startup = time.monotonic() - started
        while kills.left and parent.poll() is None:
            kills.wait(parent, runs)
            if parent.poll() is None:
                kills.strike(parent, runs)
                time.sleep(0.2)
        code = parent.wait()
        if code == 0:
            break
        if code != -signal.SIGKILL:
            raise SystemExit(f"the study ended with {code}: see {runs.parent / 'said.txt'}")
    if kills.left:
        print(f"  the study was done before the last {kills.left} kills")
    return starts, time.monotonic() - began


def _findings(undisturbed: Path, disturbed: Path) -> Iterator[tuple[str, bool]]:
    """What holds of the runs themselves."""
    planned = {row["train_id"] for row in json.loads(next(disturbed.glob(".studies/*/plan.json")).read_text())["runs"]}
    folders = Counter(path.parent.name.rpartition("-")[2] for path in disturbed.glob("*/status.json"))
    yield from all_done(disturbed, len(planned))
    yield "each is in one folder", folders == Counter(planned)
    yield from equal_outcomes(undisturbed, disturbed)
    repeated, total = _repeated_steps(disturbed)
    yield f"steps were repeated only after kills: {repeated} of {total}", repeated < total
    unhurt = _repeated_steps(undisturbed)[0]
    yield "the undisturbed study repeated no step", unhurt == 0


def _repeated_steps(runs: Path) -> tuple[int, int]:
    """Optimiser steps that were done again, and all; a stage that several runs share has one log, copied."""
    logs = {file.read_bytes(): file for file in runs.glob("*/stages/*/steps.jsonl")}
    steps = [[row["step"] for row in rows_of(file)] for file in logs.values()]
    return sum(len(done) - len(set(done)) for done in steps), sum(map(len, steps))


def _mirrored(runs: Path, study: str) -> Iterator[tuple[str, bool]]:
    """What holds of MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(_EXPERIMENT.format(study=study))
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    states = Counter(run.info.status for run in found)
    yield f"MLflow has no run RUNNING ({dict(states)})", set(states) == {"FINISHED"}
    children = [run for run in found if run.data.tags.get("molgraft.kind") == "run"]
    names = Counter(run.info.run_name for run in children)
    yield f"MLflow has each of {len(names)} runs once", names == Counter(path.parent.name for path in _results(runs))
    points, wrong = 0, []
    for child in children:
        for key, expected in _curves(runs / child.info.run_name).items():
            history = client.get_metric_history(child.info.run_id, key)
            points += len(history)
            if sorted((point.step, point.value) for point in history) != sorted(expected.items()):
                wrong.append(f"{child.info.run_name} {key}")
    yield (
        f"{points} points of its histories are those of the logs{': not ' + ', '.join(wrong) if wrong else ''}",
        (not wrong and points > 0),
    )


def _curves(run: Path) -> Mapping[str, Mapping[int, float]]:
    """Losses by step as a run's own logs have them."""
    found: dict[str, dict[int, float]] = {}
    for file in run.glob("stages/*/metrics.jsonl"):
        stage = file.parent.name.partition("-")[2]
        for row in rows_of(file):
            for key in ("loss", "validation_loss"):
                if row.get(key) is not None:
                    found.setdefault(f"{stage}/{key}", {})[row["step"]] = row[key]
    return found


def _results(runs: Path) -> list[Path]:
    return list(runs.glob("*/result.json"))


def _workers(runs: Path) -> list[int]:
    """Processes that say of themselves that they are, or were, workers."""
    return [int(note["pid"]) for note in _notes(runs)]


def _at_work(runs: Path, parent: int) -> bool:
    """Whether a worker of this command is at a run."""
    return any(note["position"] is not None and _is_child(int(note["pid"]), parent) for note in _notes(runs))


def _notes(runs: Path) -> Iterator[Mapping[str, Any]]:
    for file in runs.glob(".studies/*/workers/*/*.worker.json"):
        try:
            yield json.loads(file.read_text())
        except (ValueError, FileNotFoundError):
            continue


def _is_child(pid: int, parent: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(parent)
    except (FileNotFoundError, ProcessLookupError):
        return False


if __name__ == "__main__":
    sys.exit(main())
