"""Every preset of a published system at its smallest scale: `python -m benchmarks systems` trains and scores each.

Each is a run from nothing, through the command line as a user starts it; features and small language models are shared
by those that can. Exits with 1 where one fails, and with `--check` where all together take longer than 20 minutes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.parsing import load_mapping
from bench.shipped import shipped_files

GOAL_SECONDS = 20 * 60
_SHOWN = {"caption": "meteor", "molecule": "validity", "regression": "mae", "classification": "roc-auc"}


def systems() -> tuple[str, ...]:
    """Names of the presets that stand for a published system."""
    return tuple(name for name in shipped_files("presets") if "system" in load_mapping(name))


def run(names: Sequence[str] = (), *, check: bool = False) -> int:
    """Runs presets one after the other and prints a table as Markdown.

    Args:
        names: which; empty for all.
        check: whether taking longer than `GOAL_SECONDS` is a failure.
    """
    failed = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        print("| preset | seconds | trained | loss | reliance, nats a token | scores under `strict` |")
        print("|---|---:|---:|---:|---:|---|")
        for name in names or systems():
            start = time.monotonic()
            found = _run(name, Path(folder))
            if found is None:
                failed.append(name)
                continue
            print(_row(name, time.monotonic() - start, found), flush=True)
    seconds = time.monotonic() - began
    print(f"\nall: {seconds:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return int(bool(failed) or (check and seconds > GOAL_SECONDS))


def _run(name: str, folder: Path) -> dict[str, Any] | None:
    command = [
        sys.executable,
        "-m",
        "bench.cli",
        "run",
        name,
        "--scale",
        "smoke",
        "--runs",
        str(folder / "runs"),
        "--json",
    ]
    command += ["--device", "cpu", "--threads", "1", "--offline", "--tracking", "none", "--quiet"]
    environment = {**os.environ, "MOLGRAFT_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed:\n{done.stderr}", file=sys.stderr)
        return None
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _row(name: str, seconds: float, found: Mapping[str, Any]) -> str:
    trained = " + ".join(f"{stage['name']} {stage['seconds']:.0f} s" for stage in found["stages"])
    losses = " → ".join(f"{loss:.2f}" for loss in _losses(found["stages"][-1]["validation"]))
    return f"| `{name}` | {seconds:.0f} | {trained} | {losses} | {_reliance(found)} | {_scores(found)} |"


def _losses(validation: Mapping[str, float]) -> list[float]:
    ordered = [validation[step] for step in sorted(validation, key=int)]
    return [ordered[0], ordered[-1]]


def _reliance(found: Mapping[str, Any]) -> str:
    values = [entry["reliance"]["value"] for entry in found["evaluations"]]
    return ", ".join(f"{value:+.3f}" for value in values if value is not None) or "not measured"


def _scores(found: Mapping[str, Any]) -> str:
    shown = []
    for entry in found["evaluations"]:
        metric = _SHOWN[entry["answer"]]
        strict = next(score for score in entry["scores"] if score["protocol"].startswith("strict"))
        value = strict["metrics"].get(metric, {}).get("value")
        shown.append(f"{entry['task']} {metric} {'n/a' if value is None else format(value, '.3f')}")
    return ", ".join(shown)
