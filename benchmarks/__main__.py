"""Measures one thing, or several: `python -m benchmarks NAME ... [--rounds N] [--check]`.

Each benchmark asserts that both sides give the same, then times them in turn in this process and prints the median of
the rounds' ratios. What was found is kept in `results/benchmarks/<machine>.json`. With `--check` it is compared with
half of each goal, so that a busy machine is told from a path that became slow.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import import_module

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: both sides are timed by the CPU time of one thread


PATHS = (
    "startup",
    "featurise",
    "collate",
    "store",
    "motifs",
    "encode-forward",
    "training-step",
    "generate",
    "score",
)
"""Benchmarks that yield comparisons, each a module of its name with a function `run(rounds)`."""
OTHERS = ("growth", "grid", "sharing", "featurise-everything", "systems", "paper-scale")
"""Measurements that need settings of their own."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("names", metavar="NAME", nargs="+", choices=(*PATHS, *OTHERS, "all"), help="all: every path")
    parser.add_argument(
        "--rounds", type=int, help="how often each side is timed: 9 times, or once for grid and sharing"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 where half of a goal is not reached")
    parser.add_argument("--attempts", type=int, default=1, help="with --check: measure again where it is not, so often")
    parser.add_argument("--limit", type=int, help="featurise-everything: at most so many molecules of each set")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="featurise-everything: processes")
    parser.add_argument("--preset", action="append", default=[], help="systems, paper-scale: only this; repeatable")
    parser.add_argument("--scale", default="paper", help="paper-scale: of the presets")
    parser.add_argument("--steps", type=int, default=20, help="paper-scale: of each stage")
    parser.add_argument("--no-write", action="store_true", help="keep nothing in results/benchmarks")
    options = parser.parse_args()
    names = PATHS if "all" in options.names else tuple(dict.fromkeys(options.names))
    missed = [name for name in names if not _is_reached(name, options)]
    if missed:
        print(f"half of a goal is not reached, or could not be told: {', '.join(missed)}")
    return 1 if missed else 0


def _is_reached(name: str, options: argparse.Namespace) -> bool:
    """Measures one thing, and again where `--check` is not content and there are attempts left."""
    for attempt in range(options.attempts):
        began = time.monotonic()
        status = _measured(name, options)
        print(f"  {name} took {time.monotonic() - began:.0f} s", flush=True)
        if status == 0:
            return True
        if attempt + 1 < options.attempts:
            print(f"  once more, {options.attempts - attempt - 1} left", flush=True)
    return False


def _measured(name: str, options: argparse.Namespace) -> int:
    """Measures one thing; 1 where `--check` finds it too slow."""
    from benchmarks.measure import report

    if name in PATHS:
        module = import_module(f"benchmarks.{name.replace('-', '_')}")
        return report(name, module.run(options.rounds or 9), check=options.check, write=not options.no_write)

    from benchmarks import everything, growth, paper_scale, sharing, systems

    if name == "growth":
        return growth.run(rounds=options.rounds, check=options.check, write=not options.no_write)
    if name == "featurise-everything":
        return everything.run(options.limit, options.workers, write=not options.no_write)
    if name == "paper-scale":
        return paper_scale.run(options.preset, scale=options.scale, steps=options.steps, check=options.check)
    if name in ("grid", "sharing"):
        return sharing.run(f"smoke-{name}", options.rounds or 1, check=options.check, write=not options.no_write)
    return systems.run(options.preset, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
