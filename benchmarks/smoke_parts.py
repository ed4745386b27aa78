"""The smoke benchmark of the parts: every encoder and every projector trains, answers and is scored once.

Run it by `make smoke`, or `python -m benchmarks.smoke_parts`. Encoders and projectors are paired so that each occurs;
a run is some dozen steps on the bundled data, and must lower the loss that it starts from.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.config import RunConfig
from bench.experiment import run
from bench.matrix import Matrix, wiring_matrix
from bench.preset import load_config
from bench.registry import Registry
from bench.runtime import Runtime

_LIMIT_SECONDS = 240.0
_SETTINGS = (
    "limits={train: 128, validation: 24}",
    "evaluation.limit=12",
    "evaluation.reliance_answers=false",
    "evaluation.generation={max_new_tokens: 16, batch_size: 12}",
    "llm.tiny={vocabulary: 500, width: 64, layers: 2, heads: 2, context: 512, steps: 40, block: 64}",
    "stages=[{name: tune, trains: {encoder: full, projector: full, llm: lora}, optimiser: {lr: 3e-3}, steps: 16, "
    "batch_size: 8}]",
)


def main() -> int:
    """Runs one pair after the other, and says which expectations hold."""
    components = Registry()
    matrix = wiring_matrix(components)
    base = load_config("demo", _SETTINGS, components)
    began, failed = time.monotonic(), []
    pairs = list(covering_pairs(matrix))
    print("| encoder | projector | seconds | loss before | loss after | answers |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(
            runs=Path(folder) / "runs",
            cache=Path(folder) / "cache",
            device="cpu",
            threads=1,
            offline=True,
            tracking="none",
            progress=False,
        )
        for encoder, projector in pairs:
            start = time.monotonic()
            summary = run(_pair(base, components, matrix, encoder, projector), runtime).summary
            losses = [summary["stages"][0]["validation"][step] for step in ("0", "16")]
            answers = summary["evaluations"][0]["n"]
            shown = " | ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {encoder} | {projector} | {time.monotonic() - start:.0f} | {shown} | {answers} |", flush=True)
            if not (losses[1] < losses[0] and answers == 12):
                failed.append(f"{encoder} with {projector}")
    seconds = time.monotonic() - began
    expectations = {
        f"every pair lowers its loss and answers{': not ' + ', '.join(failed) if failed else ''}": not failed,
        "every encoder occurs": {encoder for encoder, _ in pairs} == set(components.all("encoder")),
        "every projector occurs": {projector for _, projector in pairs} == set(components.all("projector")),
        f"it took less than {_LIMIT_SECONDS:.0f} s ({seconds:.0f} s)": seconds < _LIMIT_SECONDS,
    }
    for expectation, holds in expectations.items():
        print(f"{'ok    ' if holds else 'FAILED'} {expectation}")
    return 0 if all(expectations.values()) else 1


def covering_pairs(matrix: Matrix) -> Iterator[tuple[str, str]]:
    """Pairs that fit, in which every encoder and every projector occurs; projectors that fit few choose first."""
    projectors = sorted(next(iter(matrix.values())), key=lambda name: (len(_partners(matrix, name)), name))
    left = set(matrix)
    for projector in projectors:
        partners = _partners(matrix, projector)
        encoder = next((name for name in partners if name in left), partners[0])
        left.discard(encoder)
        yield encoder, projector
    for encoder in sorted(left):
        yield encoder, next(name for name in projectors if matrix[encoder][name].settings is not None)


def _partners(matrix: Matrix, projector: str) -> list[str]:
    """The encoders that fit it, first those that fit little else."""
    fitting = [name for name, row in matrix.items() if row[projector].settings is not None]
    return sorted(fitting, key=lambda name: (sum(fit.settings is not None for fit in matrix[name].values()), name))


def _pair(base: RunConfig, components: Registry, matrix: Matrix, encoder: str, projector: str) -> RunConfig:
    small = components.get("encoder", encoder).small(), components.get("projector", projector).small()
    fitted = replace(small[1], **(matrix[encoder][projector].settings or {}))
    return replace(base, name=f"{encoder}-{projector}", encoder=small[0], projector=fitted)


if __name__ == "__main__":
    sys.exit(main())
