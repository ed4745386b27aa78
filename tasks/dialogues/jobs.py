"""The second step's work: one generation for each molecule that has none, several at once where a model is asked."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.base import TaskError
from tasks.dialogues.base import Exemplar, Generator, Reply, Subject, TransientError
from tasks.dialogues.cache import ReplyCache
from tasks.dialogues.endpoint import Endpoint, Stopped

_LOST_IN_A_ROW = 5  # molecules without an answer, with nothing between: the endpoint is down

Report = Callable[[int], None]
"""Told how many jobs are done."""


@dataclass(frozen=True, slots=True)
class Job:
    """A conversation to be generated, and the key under which it is kept."""

    key: str
    subject: Subject
    exemplars: tuple[Exemplar, ...]


def run_jobs(
    generator: Generator, jobs: Sequence[Job], cache: ReplyCache, parallel: int, report: Report
) -> dict[str, str]:
    """Generate what the cache lacks, each key once, and keep every reply as it comes.

    On an interrupt, or an error that ends all, no further request is made, and answers under way are still awaited and
    kept; a second interrupt leaves at once.

    Returns:
        key -> message, for those that got no answer in spite of all retries. They are not kept, so that a later run
        asks again.

    Raises:
        TaskError: no request can succeed, or the endpoint does not answer any more.
    """
    missing = list({job.key: job for job in jobs if cache.get(job.key) is None}.values())
    report(len(jobs) - len(missing))
    if not missing:
        return {}
    if not generator.remote:
        for done, job in enumerate(missing, start=len(jobs) - len(missing) + 1):
            cache.add(job.key, generator.generate(job.subject, job.exemplars))
            report(done)
        return {}
    return _Pool(generator, missing, cache, parallel).run(report, len(jobs) - len(missing))


class _Pool:
    """Worker threads that ask, and one thread, the caller's, that writes."""

    def __init__(self, generator: Generator, jobs: Sequence[Job], cache: ReplyCache, parallel: int) -> None:
        self._generator = generator
        self._cache = cache
        self._stop = generator.stop if isinstance(generator, Endpoint) else threading.Event()
        self._stop.clear()
        self._todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            self._todo.put(job)
        self._left = len(jobs)
        self._lock = threading.Lock()
        self._lost_in_a_row = 0
        self._done: queue.SimpleQueue[tuple[Job, Reply | Exception] | None] = queue.SimpleQueue()
        # Daemons, so that a second interrupt need not wait for a slow server.
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(min(parallel, len(jobs)))]

    def run(self, report: Report, before: int) -> dict[str, str]:
        """Start, collect, and on any error collect what is under way before it is passed on."""
        lost: dict[str, str] = {}
        in_a_row = 0
        most = self._most_in_a_row()
        for worker in self._workers:
            worker.start()
        try:
            while self._left:
                job, outcome = self._next()
                self._left -= 1
                if isinstance(outcome, Reply):
                    self._cache.add(job.key, outcome)
                    in_a_row = 0
                elif isinstance(outcome, TransientError):
                    lost[job.key] = str(outcome)
                    in_a_row += 1
                    if in_a_row >= most and self._left:
                        raise TaskError(
                            f"{in_a_row} molecules in a row got no answer, the last because of: {outcome}. "
                            "What is done is kept; the same command goes on from here"
                        )
                else:
                    raise outcome
                before += 1
                report(before)
        except BaseException:
            self._wind_up()
            raise
        return lost

    def _next(self) -> tuple[Job, Reply | Exception]:
        while True:
            try:
                found = self._done.get(timeout=0.2)  # without a timeout, an interrupt would wait for the next answer
            except queue.Empty:
                continue
            if found is not None:
                return found

    def _wind_up(self) -> None:
        """Make no further request, and keep the answers to those under way."""
        self._stop.set()
        under_way = sum(worker.is_alive() for worker in self._workers)
        if under_way:
            print(
                f"waiting for at most {under_way} answers under way; interrupt again to leave at once", file=sys.stderr
            )
        while any(worker.is_alive() for worker in self._workers) or not self._done.empty():
            try:
                found = self._done.get(timeout=0.2)
            except queue.Empty:
                continue
            if found is not None and isinstance(found[1], Reply):
                self._cache.add(found[0].key, found[1])

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                job = self._todo.get_nowait()
            except queue.Empty:
                return
            try:
                outcome: Reply | Exception = self._generator.generate(job.subject, job.exemplars)
            except Stopped:
                return
            except Exception as error:  # whatever it is, the thread that collects raises it
                outcome = error
            with self._lock:  # workers stop of themselves: the thread that writes may be far behind
                self._lost_in_a_row = self._lost_in_a_row + 1 if isinstance(outcome, TransientError) else 0
                if self._lost_in_a_row >= self._most_in_a_row() and not self._todo.empty():
                    self._stop.set()
                self._done.put((job, outcome))

    def _most_in_a_row(self) -> int:
        return max(_LOST_IN_A_ROW, len(self._workers))
