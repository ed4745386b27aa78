"""What benchmarks share that disturb a study: the same study that nobody disturbed, and what both came to."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_OUTCOME = ("stages/*/final.safetensors", "predictions/*", "reliance/*", "scores/*")

Findings = Mapping[str, bool]
"""What was looked at, in words, and whether it holds."""


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="smoke-matrix")
    parser.add_argument("--folder", type=Path, help="keep everything here; else in a temporary folder")
    return parser


def carried_out(given: argparse.Namespace, compare: Callable[[argparse.Namespace, Path], Findings]) -> int:
    """Compares in the folder that was asked for, and says what holds.

    Args:
        given: by `options_of`.
        compare: runs the study twice below the folder.

    Returns:
        1 unless everything holds.
    """
    if given.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            return carried_out(argparse.Namespace(**{**vars(given), "folder": Path(folder)}), compare)
    given.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("MOLGRAFT_CACHE", str(given.folder / "cache"))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    findings = compare(given, given.folder)
    for finding, holds in findings.items():
        print(f"{'ok    ' if holds else 'FAILED'} {finding}")
    return 0 if all(findings.values()) else 1


def command_of(study: str, runs: Path, *, workers: int = 1, settings: Sequence[str] = ()) -> list[str]:
    """Starts a study in a process of its own, so that its runs come to the same bits every time."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    fixed = ["--workers", str(workers), "--device", "cpu", "--threads", "1", "--offline", "--quiet"]
    return [sys.executable, "-m", "bench.cli", "study", study, *chosen, "--runs", str(runs), *fixed]


def run_undisturbed(study: str, runs: Path, settings: Sequence[str] = ()) -> None:
    """Runs a study by itself."""
    print(f"{study}, undisturbed", flush=True)
    command = command_of(study, runs, settings=settings)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def all_done(runs: Path, count: int) -> Iterator[tuple[str, bool]]:
    """Whether so many runs are done, and no other is there."""
    states = states_of(runs)
    yield f"all {count} runs are done ({in_words(states)})", states == {"done": count}


def equal_outcomes(undisturbed: Path, disturbed: Path) -> Iterator[tuple[str, bool]]:
    """Whether two folders of runs hold the same runs, and these came to the same bits."""
    expected, found = _outcomes(undisturbed), _outcomes(disturbed)
    files = [(run, name) for run, names in expected.items() for name in names]
    other = [f"{run}/{name}" for run, name in files if found.get(run, {}).get(name) != expected[run][name]]
    shown = f"; not {', '.join(other[:3])}{' and others' if len(other) > 3 else ''}" if other else ""
    finding = f"{len(files)} files of weights, answers and scores are equal bit for bit{shown}"
    yield finding, found == expected and all(expected.values()) and bool(expected)


def states_of(runs: Path) -> Counter[str]:
    """How many runs stand where."""
    return Counter(str(json.loads(path.read_text())["state"]) for path in runs.glob("*/status.json"))


def in_words(states: Mapping[str, int]) -> str:
    """Counts of states for people."""
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no run begun"


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _outcomes(runs: Path) -> Mapping[str, Mapping[str, str]]:
    """Hashes of all that runs are for."""
    return {
        file.parent.name: {
            str(path.relative_to(file.parent)): hashlib.sha256(path.read_bytes()).hexdigest()
            for pattern in _OUTCOME
            for path in sorted(file.parent.glob(pattern))
        }
        for file in runs.glob("*/result.json")
    }
