"""The smoke benchmark: the demonstration's study from nothing, with the answers that it must give.

Run it by `make smoke`, or `python -m benchmarks.smoke`. It trains its small language model and its features anew, in a
temporary folder, and exits with 1 where an answer is not what a working harness gives.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from bench.runtime import Runtime
from bench.study import load_study, run_study
from results.runs import read_runs
from results.tables import Row, as_text, build_table

_LIMIT_SECONDS = 300.0


def main() -> int:
    """Runs the study, prints its table, and says which expectations hold."""
    began = time.monotonic()
    study, cells = load_study("demo")
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(
            runs=Path(folder) / "runs", cache=Path(folder) / "cache", device="cpu", threads=1, offline=True
        )
        results = run_study(study, cells, runtime)
        again = time.monotonic()
        run_study(study, cells, runtime)
        repeated = time.monotonic() - again
        names = {result.run.path: result.name for result in results}
        table = build_table(read_runs(list(names), names), "strict")
    seconds = again - began
    print(as_text(table, "markdown"))
    rows = {row.name: row for row in table.rows}
    expectations = {
        "the graph is used: its interval lies above 0": _low(rows["graph"]) > 0,
        "a model trained on shuffled graphs does not use them: its interval does not": _low(rows["trained-on-shuffled"])
        <= 0,
        "the graph lowers the loss": _loss(rows["graph"]) < _loss(rows["no-graph"]),
        "every cell has both seeds": all(len(row.seeds) == 2 for row in table.rows),
        f"it took less than {_LIMIT_SECONDS:.0f} s ({seconds:.0f} s)": seconds < _LIMIT_SECONDS,
        f"a second start repeats nothing ({repeated:.1f} s)": repeated < seconds / 5,
    }
    for expectation, holds in expectations.items():
        print(f"{'ok    ' if holds else 'FAILED'} {expectation}")
    return 0 if all(expectations.values()) else 1


def _low(row: Row) -> float:
    if row.reliance is None or row.reliance.ci95 is None:
        raise ValueError(f"cell {row.name} has no interval of reliance")
    return row.reliance.ci95[0]


def _loss(row: Row) -> float:
    if row.loss is None:
        raise ValueError(f"cell {row.name} has no loss")
    return row.loss.mean


if __name__ == "__main__":
    sys.exit(main())
