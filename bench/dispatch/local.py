"""Worker processes of this machine: started, watched, replaced when they are killed, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import bench
from bench.dispatch.assignment import Assignment, with_threads
from bench.dispatch.base import CANNOT_WRITE, DISK, SPENT, Strikes
from bench.errors import UserError
from bench.run_store import read_json

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_LOOK = 0.1  # seconds between looks at the processes
_SHOWN = 15  # last lines of what a worker said that could not start
_UNLUCKY_STARTS = 10  # times that a worker is killed before its first run, until it is taken to be no accident
_ENDED = (0, 128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass
class _Slot:
    """A place for a worker, which several processes may fill one after the other."""

    name: str
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    unlucky: int = 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def accelerators(device: str) -> Sequence[str]:
    """The GPUs that workers can be dealt out to, as CUDA_VISIBLE_DEVICES names them."""
    if device not in {"auto", "cuda"}:
        return ()
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()] if torch.cuda.device_count() else ()
    return [str(number) for number in range(torch.cuda.device_count())]


def _last_words(log: Path) -> str:
    """What a worker said of the disk, which may have been too full for that as well."""
    lines = log.read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith(CANNOT_WRITE)), CANNOT_WRITE + "no space is left")


class LocalWorkers:
    """Several worker processes.

    Args:
        plan: what they work on.
        assignment: what they are told.
        runtime: the parent's.
        count: of processes.
        refresh: called now and then, for who shows how far the study is.
    """

    def __init__(
        self,
        plan: Plan,
        assignment: Assignment,
        runtime: Runtime,
        count: int,
        refresh: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._runtime = runtime
        self._refresh = refresh
        self._strikes = Strikes(runtime)
        self._signals: list[int] = []
        threads = assignment.settings.get("threads") or max(1, cores() // count)
        self._assignment = with_threads(assignment, threads)
        self._assignment.write()
        gpus = accelerators(runtime.device)
        self._slots = [
            _Slot(
                f"worker-{number + 1}",
                self._environment(threads, gpus[number % len(gpus)] if len(gpus) > 1 else None),
                assignment.folder / f"worker-{number + 1}.log",
            )
            for number in range(count)
        ]

    def run(self) -> str | None:
        """Works until nothing is left that any worker could do.

        Returns:
            What the disk said, where it ended the study.

        Raises:
            KeyboardInterrupt: by Ctrl-C, once the workers have written checkpoints and ended; by a second one at once.
            SystemExit: on SIGTERM, likewise.
            UserError: a worker cannot start; the message shows the last lines of what it said.
        """
        with self._listening():
            try:
                for slot in self._slots:
                    self._start(slot)
                disk = self._watch()
            finally:
                self._end_all()
        if self._signals:
            if self._signals[0] == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM)
            raise KeyboardInterrupt
        return disk

    def _watch(self) -> str | None:
        while not self._signals and any(slot.process for slot in self._slots):
            for slot in self._slots:
                ended, code = slot.process, slot.process.poll() if slot.process else None
                if ended is None or code is None:
                    continue
                slot.process = None
                if code == DISK:
                    return _last_words(slot.log)
                if code != 0:
                    self._replace(slot, ended.pid, code)
            self._refresh()
            time.sleep(_LOOK)
        return None

    def _replace(self, slot: _Slot, pid: int, code: int) -> None:
        """Starts another worker in the place of one that is gone, and says why."""
        if code == SPENT:
            self._runtime.say(f"{slot.name}: its GPU can do no more for this process; a new one goes on")
        elif code not in _ENDED:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            position = self._position_of(slot, pid)
            if position is None:
                self._refuse_hopeless(slot, code, how)
            else:
                planned = self._plan.runs[position]
                gave_up = self._strikes.died(planned, how)
                what = "it is given up" if gave_up else "another one goes on from its last checkpoint"
                self._runtime.say(f"{slot.name} ended ({how}) in {planned.label}: {what}")
        self._start(slot)

    def _position_of(self, slot: _Slot, pid: int) -> int | None:
        """The run that a worker was at; None where it was at none, or had not even begun to write what it is at."""
        file = self._assignment.folder / f"{slot.name}.worker.json"
        note = read_json(file) if file.exists() else {}
        return note["position"] if note.get("pid") == pid else None  # of the process before it, otherwise

    def _refuse_hopeless(self, slot: _Slot, code: int, how: str) -> None:
        slot.unlucky += 1
        if code > 0 or slot.unlucky >= _UNLUCKY_STARTS:
            lines = slot.log.read_text(errors="replace").splitlines()[-_SHOWN:]
            raise UserError("\n".join([f"{slot.name} cannot start ({how}); {slot.log} ends with:", *lines]))

    def _start(self, slot: _Slot) -> None:
        command = [sys.executable, "-m", "bench.dispatch.worker", str(self._assignment.file)]
        with slot.log.open("ab") as output:
            # A session of its own, for Ctrl-C must reach the workers through their parent, once.
            slot.process = subprocess.Popen(
                [*command, "--name", slot.name, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=slot.environment,
                start_new_session=True,
            )

    def _environment(self, threads: int, gpu: str | None) -> dict[str, str]:
        root = str(Path(bench.__file__).resolve().parents[1])
        paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        found.setdefault("OMP_NUM_THREADS", str(threads))
        return found if gpu is None else {**found, "CUDA_VISIBLE_DEVICES": gpu}

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While it lasts, Ctrl-C and SIGTERM are noted, and a second one of them kills the workers."""
        if threading.current_thread() is not threading.main_thread():  # only the main one is told of signals
            yield
            return

        def asked(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)
            if len(self._signals) > 1:
                for process in self._processes():
                    process.kill()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_all(self) -> None:
        """Has the workers that are left write checkpoints, and waits for them."""
        left = self._processes()
        if left:
            again = "; once more to end at once" if self._signals else ""
            self._runtime.say(f"{len(left)} workers write checkpoints and end{again} ...")
        for process in left:
            process.terminate()
        for process in left:
            process.wait()

    def _processes(self) -> list[subprocess.Popen[Any]]:
        return [slot.process for slot in self._slots if slot.process is not None and slot.process.poll() is None]
