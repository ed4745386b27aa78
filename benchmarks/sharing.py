"""What it saves that runs of a study share what they have in common: each of two grids, together and run by run.

`python -m benchmarks grid` takes `smoke-grid`, which has eight runs; `python -m benchmarks sharing` takes
`smoke-sharing`, which has eighteen smaller ones. On the one side every run is a `molgraft run` of its own. On the other
a process lives through all of them, as a worker of `molgraft study` does; what it takes to start it and to plan the
study counts too. Each side begins with an empty cache and keeps it: features and the small language model are made once
on each. The k-th run of both sides follow each other, in the other order each time, so that a busy moment of the
machine meets both. Their weights, predictions and scores must be the same, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measure import environment

MOST = {"smoke-grid": 0.74, "smoke-sharing": 0.60}
"""The studies, and the share of the time of independent runs that each may take: twice the goal for the grid."""

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Times:
    """Of a piece of work.

    Args:
        cpu: seconds of the processor, of all threads.
        wall: seconds that somebody waits.
    """

    cpu: float
    wall: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """Both sides of all runs.

    Args:
        runs: how many there are on each side.
        start: what the study takes before its first run.
        together, alone: per run, in the order of the plan.
    """

    runs: int
    start: Times
    together: tuple[Times, ...]
    alone: tuple[Times, ...]

    def ratio(self, clock: str = "cpu") -> float:
        """The time of the study by that of the independent runs."""
        study = sum(getattr(times, clock) for times in (self.start, *self.together))
        return float(study / sum(getattr(times, clock) for times in self.alone))

    def ratios(self) -> list[float]:
        """The same for each run, without the study's start."""
        return [ours.cpu / theirs.cpu for ours, theirs in zip(self.together, self.alone, strict=True)]


def run(study: str, rounds: int, *, check: bool, write: bool) -> int:
    """Times and compares; 1 where `check` finds that the study takes more than it may."""
    found = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            measured = _round(study, Path(folder), first_together=bool(number % 2))
        found.append(measured)
        singles = measured.ratios()
        print(
            f"round {number + 1}: a study of {measured.runs} runs takes {measured.ratio():.2f} of their processor time "
            f"({measured.ratio('wall'):.2f} of the time waited); per run {statistics.median(singles):.2f} "
            f"[{min(singles):.2f}-{max(singles):.2f}], starting and planning took {measured.start.cpu:.0f} s, a run "
            f"{statistics.median(t.cpu for t in measured.together):.1f} s in the study and "
            f"{statistics.median(t.cpu for t in measured.alone):.1f} s alone",
            flush=True,
        )
    ratios = [measured.ratio() for measured in found]
    middle = statistics.median(ratios)
    print(
        f"{study}: {middle:.2f} [{min(ratios):.2f}-{max(ratios):.2f}] of the time of independent runs, or "
        f"{1 / middle:.1f} x as fast; equal: weights, predictions, likelihoods and scores"
    )
    if write:
        from benchmarks.measure import keep

        keep(study, {"ratio": round(middle, 3), "rounds": [asdict(each) for each in found]})
    if middle > MOST[study]:
        print(f"  ABOVE the most that it may be, {MOST[study]:.2f}")
    return 1 if check and middle > MOST[study] else 0


def _round(name: str, folder: Path, *, first_together: bool) -> Round:
    study = _Study(name, folder / "together")
    try:
        configs = []
        for number, config in enumerate(study.configs):
            configs.append(folder / f"{number}.yaml")
            configs[-1].write_text(yaml.safe_dump(config, sort_keys=False))
        together: list[Times] = []
        alone: list[Times] = []
        for number, config in enumerate(configs):
            sides: list[Callable[[], None]] = [
                lambda number=number: together.append(study.run(number)),  # type: ignore[misc]
                lambda config=config: alone.append(_run_alone(config, folder / "alone")),  # type: ignore[misc]
            ]
            for side in sides if (number % 2 == 0) == first_together else reversed(sides):
                side()
    finally:
        study.close()
    _require_equal(folder / "together" / "runs", folder / "alone" / "runs", len(configs))
    return Round(runs=len(configs), start=study.start, together=tuple(together), alone=tuple(alone))


class _Study:
    """A process that lives through all runs of the study, told from here which is next."""

    def __init__(self, name: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sharing", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env=_environment(folder),
        )
        said = self._said()
        self.configs: list[Any] = said["configs"]
        self.start = Times(said["cpu"], said["wall"])

    def run(self, number: int) -> Times:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        said = self._said()
        return Times(said["cpu"], said["wall"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _said(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the study ended with {self._process.wait()}")
        return json.loads(line)


def _run_alone(config: Path, folder: Path) -> Times:
    """One run by the command that a user would give."""
    options = ("--runs", str(folder / "runs"), "--device", "cpu", "--threads", "1")
    command = [sys.executable, "-m", "bench.cli", "run", str(config), *options, "--offline", "--quiet"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=_ROOT, env=_environment(folder))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Times(round(cpu, 3), round(time.monotonic() - began, 3))


def _environment(folder: Path) -> dict[str, str]:
    return environment(MOLGRAFT_CACHE=str(folder / "cache"), OMP_NUM_THREADS="1")


def _require_equal(ours: Path, theirs: Path, count: int) -> None:
    """Stops where a run of the study came to anything else than the same run alone."""
    names = sorted(path.parent.name for path in ours.glob("*/result.json"))
    if names != sorted(path.parent.name for path in theirs.glob("*/result.json")) or len(names) != count:
        raise AssertionError(f"not the same {count} runs are done on both sides: {names}")
    for name in names:
        if (found := _outcome(ours / name)) != _outcome(theirs / name):
            differing = [file for file, value in _outcome(theirs / name).items() if found.get(file) != value]
            raise AssertionError(f"run {name} differs between the study and alone in {', '.join(differing) or 'files'}")


def _outcome(run_folder: Path) -> dict[str, str]:
    """Hashes of all that a run is for, and its result without times."""
    patterns = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")
    files: Iterable[Path] = (path for pattern in patterns for path in sorted(run_folder.glob(pattern)))
    found = {str(path.relative_to(run_folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    result = _without_times(json.loads((run_folder / "result.json").read_text()))
    return {**found, "result.json": json.dumps(result, sort_keys=True)}


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if not key.endswith("seconds")}
    return [_without_times(item) for item in value] if isinstance(value, list) else value


def _live(name: str, folder: Path) -> None:
    """The process of the study: plans it, and does whatever run it is told to."""
    began = time.monotonic()
    from bench.experiment import run as run_one
    from bench.parsing import to_mapping
    from bench.plan import plan_study
    from bench.runtime import Runtime
    from bench.study import load_study

    out, sys.stdout = sys.stdout, sys.stderr  # only answers go where they are read
    runtime = Runtime(runs=folder / "runs", device="cpu", threads=1, offline=True, progress=False)
    study, cells = load_study(name, runtime=runtime)
    plan = plan_study(study, cells, runtime)
    configs = [to_mapping(planned.config) for planned in plan.runs]
    wall, cpu = time.monotonic() - began, time.process_time()

    def answer(**said: object) -> None:
        print(json.dumps(said), file=out, flush=True)

    answer(configs=configs, cpu=round(cpu, 3), wall=round(wall, 3))
    for line in sys.stdin:
        began, used = time.monotonic(), time.process_time()
        run_one(plan.runs[int(line)].config, runtime)
        answer(cpu=round(time.process_time() - used, 3), wall=round(time.monotonic() - began, 3))


if __name__ == "__main__":
    _live(sys.argv[1], Path(sys.argv[2]))
