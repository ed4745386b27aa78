"""Worker processes of a search on this machine: started, watched, replaced when they are killed, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import bench
from bench.dispatch.base import CANNOT_WRITE, DISK, SPENT
from bench.dispatch.local import accelerators, cores
from bench.errors import UserError
from bench.search.worker import AT_TRIAL, USERS_MISTAKE, Orders

if TYPE_CHECKING:
    from bench.runtime import Runtime

_LOOK = 0.1  # seconds between looks at the processes
_SHOWN = 15  # last lines of what a worker said that cannot go on
_UNLUCKY = 10  # deaths for each worker before it is at a trial, until they are taken to be no accident
_ENDED = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass
class _Slot:
    """A place for a worker, which several processes may fill one after the other."""

    name: str
    orders: Orders
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    begun: int = 0  # where in the log this process began to write

    def said(self) -> list[str]:
        """What the process has written, in lines."""
        with self.log.open("rb") as file:
            file.seek(self.begun)
            return file.read().decode(errors="replace").splitlines()

    def last_words(self, beginning: str) -> str | None:
        """What it said in the end behind these words; None where it did not come to that."""
        lines = self.said()
        for number in reversed(range(len(lines))):
            if lines[number].startswith(beginning):
                return "\n".join(lines[number:]).removeprefix(beginning)
        return None


class SearchWorkers:
    """Several worker processes.

    Args:
        orders: what they are told.
        folder: where what they say is kept.
        runtime: the parent's.
        count: of processes.
        refresh: called now and then, for who shows how far the search is.
    """

    def __init__(
        self, orders: Orders, folder: Path, runtime: Runtime, count: int, refresh: Callable[[], None] = lambda: None
    ) -> None:
        self._runtime = runtime
        self._refresh = refresh
        self._signals: list[int] = []
        self._deaths = 0
        threads = orders.settings.get("threads") or max(1, cores() // count)
        orders = replace(orders, settings={**orders.settings, "threads": threads})
        gpus = accelerators(runtime.device)
        folder.mkdir(parents=True, exist_ok=True)
        self._slots = [
            _Slot(
                f"worker-{number + 1}",
                orders,
                _environment(threads, gpus[number % len(gpus)] if len(gpus) > 1 else None),
                folder / f"worker-{number + 1}.log",
            )
            for number in range(count)
        ]

    def run(self) -> None:
        """Works until the workers find nothing more to do.

        Raises:
            KeyboardInterrupt: by Ctrl-C, once the workers have written checkpoints and ended; by a second one at once.
            SystemExit: on SIGTERM, likewise.
            UserError: a worker cannot go on; the message is its own.
            OSError: the disk is full or may not be written.
        """
        with self._listening():
            try:
                for slot in self._slots:
                    self._start(slot)
                while not self._signals and any(slot.process for slot in self._slots):
                    for slot in self._slots:
                        self._look_at(slot)
                    self._refresh()
                    time.sleep(_LOOK)
            finally:
                self._end_all()
        if self._signals:
            if self._signals[0] == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM)
            raise KeyboardInterrupt

    def _look_at(self, slot: _Slot) -> None:
        code = slot.process.poll() if slot.process else None
        if code is None or slot.process is None:
            return
        self._let_go(slot)
        if code == 0:
            return
        if code == USERS_MISTAKE:
            raise UserError(slot.last_words("error: ") or f"{slot.name} cannot go on; see {slot.log}")
        if code == DISK:
            error = OSError(slot.last_words(CANNOT_WRITE) or "no space is left")  # not even to say so
            error.molgraft_class = "disk"  # type: ignore[attr-defined] # what the command line tells by
            raise error
        if code == SPENT:
            self._runtime.say(f"{slot.name}: its GPU can do no more for this process; a new one goes on")
            self._start(slot)
            return
        if code in _ENDED:  # somebody asked it to
            self._start(slot)
            return
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        trial = slot.last_words(AT_TRIAL)  # which gives itself up when too many have died at it
        self._deaths += trial is None
        if code > 0 or self._deaths > _UNLUCKY * len(self._slots):
            said = slot.said()[-_SHOWN:]
            raise UserError("\n".join([f"{slot.name} cannot go on ({how}); {slot.log} ends with:", *said]))
        where = "" if trial is None else f" at trial {trial.split()[0]}, which is gone on with"
        self._runtime.say(f"{slot.name} was killed ({how}){where}")
        self._start(slot)

    def _start(self, slot: _Slot) -> None:
        with slot.log.open("ab") as output:
            slot.begun = output.tell()
            # A session of its own, for Ctrl-C must reach the workers through their parent, once.
            slot.process = subprocess.Popen(
                [sys.executable, "-m", "bench.search.worker"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=slot.environment,
                start_new_session=True,
            )
        assert slot.process.stdin is not None
        with suppress(BrokenPipeError):  # it was killed at once, which is seen at the next look
            slot.process.stdin.write(slot.orders.written().encode())
            slot.process.stdin.flush()

    def _let_go(self, slot: _Slot) -> None:
        assert slot.process is not None
        if slot.process.stdin is not None:
            with suppress(BrokenPipeError):
                slot.process.stdin.close()
        slot.process = None

    def _end_all(self) -> None:
        """Has the workers that are left write checkpoints, and waits for them."""
        left = [slot for slot in self._slots if slot.process is not None]
        if left:
            again = "; once more to end at once" if self._signals else ""
            self._runtime.say(f"{len(left)} workers write checkpoints and end{again} ...")
        for slot in left:
            assert slot.process is not None
            slot.process.terminate()
        for slot in left:
            assert slot.process is not None
            slot.process.wait()
            self._let_go(slot)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While it lasts, Ctrl-C and SIGTERM are noted, and a second one of them kills the workers."""
        if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
            yield
            return

        def asked(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)
            if len(self._signals) > 1:
                for slot in self._slots:
                    if slot.process is not None:
                        slot.process.kill()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _environment(threads: int, gpu: str | None) -> dict[str, str]:
    root = str(Path(bench.__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    found.setdefault("OMP_NUM_THREADS", str(threads))
    found.setdefault("TRANSFORMERS_VERBOSITY", "error")
    return found if gpu is None else {**found, "CUDA_VISIBLE_DEVICES": gpu}
