"""Published recipes with random weights at full size: `python -m benchmarks paper-scale` takes some steps of each.

Needs an accelerator for the recipes of 7B; peak memory then stands beside the estimate of `molgraft check`, and with
`--check` a difference of more than 15% is a failure. On a CPU (`--scale smoke`) only the speed is shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.check import inspect
from bench.config import RunConfig
from bench.experiment import run as run_experiment
from bench.preset import Choices, load_config
from bench.run_store import RunDirectory, read_jsonl
from bench.runtime import Runtime
from benchmarks.systems import systems
from tasks.data import Catalogue

TOLERANCE = 0.15  # of the estimate
_GIB = 1 << 30
_EXAMPLES = 2000  # of each training task; reading and featurising all of them tells nothing about a step
_ASKED = 16


def run(names: Sequence[str] = (), *, scale: str = "paper", steps: int = 20, check: bool = False) -> int:
    """Runs presets one after the other and prints a table as Markdown.

    Args:
        names: which; empty for all that stand for a published system.
        scale: of the presets; language models other than molgraft's own get random weights.
        steps: of each stage.
        check: whether a peak further than `TOLERANCE` from its estimate is a failure.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, torch {torch.__version__}, {steps} steps\n")
    print("| preset | stage | peak, GiB | estimate, GiB | peak / estimate | seconds a step | tokens a second |")
    print("|---|---|---:|---:|---:|---:|---:|")
    failed = False
    for name in names or systems():
        try:
            config = load_config(name, _shortened(name, scale, steps), choices=Choices(scale=scale))
            for row in _stages(config, device):
                failed |= row["ratio"] is not None and abs(row["ratio"] - 1) > TOLERANCE
                print(_line(name, row), flush=True)
        except Exception as error:  # the next one may still fit
            failed = True
            print(f"| `{name}` | failed: {type(error).__name__}: {str(error).splitlines()[0]} | | | | | |", flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    return int(failed and check)


def _shortened(name: str, scale: str, steps: int) -> list[str]:
    config = load_config(name, choices=Choices(scale=scale))
    settings = [f"limits={{train: {_EXAMPLES}, validation: {_ASKED}}}", f"evaluation.limit={_ASKED}"]
    settings += [] if config.llm.name == "tiny" else ["llm.weights=random"]
    for stage in config.stages:
        at = f"stages.{stage.name}"
        settings += [f"{at}.epochs=null", f"{at}.steps={steps}", f"{at}.validate_every=0"]
    return settings


def _stages(config: RunConfig, device: str) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(runs=Path(folder), device=device, tracking="none", offline=True, max_rejected=1.0)
        runtime = replace(runtime, activation_checkpointing=True)
        estimated = {stage["name"]: stage["memory_gib"] for stage in inspect(config, runtime, Catalogue())["stages"]}
        peaks = _Peaks(device)
        result = run_experiment(config, runtime, mirror=peaks)
        peaks(result.run)
        return [
            _measured(result.run, position, stage.name, peaks.of.get(f"stage {stage.name}"), estimated[stage.name])
            for position, stage in enumerate(config.stages)
        ]


class _Peaks:
    """The most memory that was allocated in each phase of a run; called whenever its phase may have changed."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._phase = ""
        self.of: dict[str, float] = {}

    def __call__(self, directory: RunDirectory) -> None:
        phase = directory.status().phase
        if self._device != "cuda" or phase == self._phase:
            return
        self.of[self._phase] = torch.cuda.max_memory_allocated() / _GIB
        torch.cuda.reset_peak_memory_stats()
        self._phase = phase


def _measured(
    run: RunDirectory, position: int, stage: str, peak: float | None, estimate: dict[str, float] | None
) -> dict[str, Any]:
    rows = read_jsonl(run.stage(position, stage) / "steps.jsonl")
    tokens = [later["tokens"] - earlier["tokens"] for earlier, later in pairwise(rows)]
    seconds = [row["seconds"] for row in rows[1:]]  # the first step also makes the optimiser's state
    expected = estimate["peak_checkpointed"] if estimate is not None else None
    return {
        "stage": stage,
        "peak": peak,
        "estimate": expected,
        "ratio": peak / expected if peak and expected else None,
        "seconds": median(seconds) if seconds else None,
        "speed": sum(tokens) / sum(seconds) if sum(seconds) else None,
    }


def _line(name: str, row: dict[str, Any]) -> str:
    shown = [
        f"{row[key]:{form}}" if row[key] is not None else "n/a"
        for key, form in (("peak", ".2f"), ("estimate", ".2f"), ("ratio", ".3f"), ("seconds", ".3f"), ("speed", ",.0f"))
    ]
    return f"| `{name}` | {row['stage']} | {' | '.join(shown)} |"
