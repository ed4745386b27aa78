"""Searches whose workers and parents are killed at random moments, on a journal file and on PostgreSQL.

    python -m benchmarks.kill_search [--trials 60] [--workers 4] [--kills 12] [--seed 0] [--storage journal|postgresql]

It ends with 1 unless every trial is there once and ended, the first is the preset, and no step of training was done
but from the last checkpoint on.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from subprocess import Popen

    from test_search_kills import Search

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the small search and the server are the tests'

_LONGEST = 3600  # seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a search on each storage, kills what belongs to it, and says what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=12, help="of workers and parents, for each storage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--storage", choices=("journal", "postgresql"), action="append", help="repeatable; else both")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import postgres

    reason = postgres.missing()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-search-")))
        for kind in given.storage or ("journal", "postgresql"):
            if kind == "postgresql" and reason is not None:
                print(f"postgresql: left out: {reason}")
                continue
            address = stack.enter_context(postgres.running()).url if kind == "postgresql" else None
            print(f"{kind}: {given.trials} trials, {given.workers} workers, {given.kills} kills", flush=True)
            try:
                _survive(folder / kind, folder / "cache", address, given)
            except AssertionError as error:
                print(f"{kind}: FAILED: {error}")
                return 1
    return 0


def _wait_for_the_next(
    search: Search, process: Popen[bytes], kills: int, given: argparse.Namespace, drawn: random.Random
) -> None:
    """Kills are spread over the search: each comes soon after a number of trials ended, every fifth at any moment."""
    if drawn.random() < 0.2:
        time.sleep(drawn.uniform(0, 30))
        return
    due = kills * given.trials / (given.kills + 1)
    while process.poll() is None and sum(row.state != "running" for row in search.rows()) < due:
        time.sleep(0.5)
    time.sleep(drawn.uniform(0, 10))


def _survive(folder: Path, cache: Path, address: str | None, given: argparse.Namespace) -> None:
    from test_search_kills import Search, check_whole, is_alive, wait_until, workers_of

    folder.mkdir()
    drawn, kills, begun = random.Random(given.seed), [], time.monotonic()
    with Search(folder, cache, address, given.trials, given.workers) as search:
        process = search.start()
        while process.poll() is None:
            assert time.monotonic() - begun < _LONGEST, search.said.read_text()
            if len(kills) == given.kills:
                process.wait(_LONGEST)
                break
            _wait_for_the_next(search, process, len(kills), given, drawn)
            workers = workers_of(process.pid)
            if process.poll() is not None or not workers:
                continue
            what = drawn.choice(("worker", "worker", "workers", "parent"))
            victims = {"worker": [drawn.choice(workers)], "workers": workers, "parent": [process.pid]}[what]
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            kills.append(what)
            ended = Counter(row.state for row in search.rows())
            print(f"  kill {len(kills)}: {what}; {dict(ended)}", flush=True)
            if what == "parent":
                process.wait(60)
                wait_until(lambda left=workers: not any(is_alive(pid) for pid in left))
                process = search.start()
        assert process.returncode == 0, search.said.read_text()
        rows = search.rows()
    check_whole(search, rows, given.trials)
    sessions = Counter(row.sessions for row in rows)
    states = Counter(row.state for row in rows)
    print(
        f"  whole: trials 0 to {given.trials - 1}, {dict(states)}; {len(kills)} kills ({dict(Counter(kills))}); "
        f"{sum(n for s, n in sessions.items() if s > 1)} trials were gone on with by others; trial 0 is the preset; "
        f"{time.monotonic() - begun:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
