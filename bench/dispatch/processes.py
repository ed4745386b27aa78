"""Worker processes of this machine: started, looked at, replaced, ended together; what they do is not known here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

import bench

if TYPE_CHECKING:
    from bench.runtime import Runtime

_LOOK = 0.1  # seconds between looks at the processes
_SHOWN = 15  # last lines of what a worker said that cannot go on
ASKED_TO_END = (128 + signal.SIGTERM, 128 + signal.SIGINT)
"""How a process ends that somebody asked to end, and that has written a checkpoint."""

Next = Literal["another", "none", "stop"]
"""What follows a process that ended: another one in its place, nothing, or the end of all of them."""


@dataclass
class Slot:
    """A place for a worker, which several processes may fill one after the other.

    Args:
        name: of the worker.
        command: what is started, behind the interpreter.
        orders: what it reads from its input, which stays open as long as this process lives; None for no input.
        environment: of the process.
        log: where all of them write.
        process: the one that is there now.
        begun: where in the log it began to write.
    """

    name: str
    command: Sequence[str]
    orders: str | None
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    begun: int = 0

    def start(self) -> None:
        """Fills the place."""
        with self.log.open("ab") as output:
            self.begun = output.tell()
            # A session of its own, for Ctrl-C must reach the workers through their parent, once.
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                stdin=subprocess.DEVNULL if self.orders is None else subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(self.environment),
                start_new_session=True,
            )
        if self.process.stdin is not None and self.orders is not None:
            with suppress(BrokenPipeError):  # it was killed at once, which is seen at the next look
                self.process.stdin.write(self.orders.encode())
                self.process.stdin.flush()

    def let_go(self) -> None:
        """Empties the place, whose process has ended."""
        if self.process is not None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process = None

    def said(self) -> list[str]:
        """The lines that the last process of this place wrote."""
        with self.log.open("rb") as file:
            file.seek(self.begun)
            return file.read().decode(errors="replace").splitlines()

    def why(self, how: str, what: str) -> str:
        """A message with the last of what it said, for who must find out why it ended in this way."""
        return "\n".join([f"{self.name} cannot {what} ({how}); {self.log} ends with:", *self.said()[-_SHOWN:]])

    def last_words(self, beginning: str) -> str | None:
        """What it wrote last behind these words, to the end; None where it did not come to that."""
        lines = self.said()
        for number in reversed(range(len(lines))):
            if lines[number].startswith(beginning):
                return "\n".join(lines[number:]).removeprefix(beginning)
        return None


class Processes:
    """Several worker processes with a GPU and some cores each.

    Args:
        count: how many.
        command: of each, behind the interpreter, by its name.
        orders: see `Slot`.
        folder: where what they say is kept.
        threads: of each.
        runtime: the parent's.
        refresh: called now and then, for who shows how far they are.
    """

    def __init__(
        self,
        count: int,
        command: Callable[[str], Sequence[str]],
        orders: str | None,
        folder: Path,
        threads: int,
        runtime: Runtime,
        refresh: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._refresh = refresh
        self._signals: list[int] = []
        gpus = accelerators(runtime.device)
        folder.mkdir(parents=True, exist_ok=True)
        self.slots = [
            Slot(
                name,
                command(name),
                orders,
                _environment(threads, gpus[number % len(gpus)] if len(gpus) > 1 else None),
                folder / f"{name}.log",
            )
            for number, name in enumerate(f"worker-{number + 1}" for number in range(count))
        ]

    def run(self, ended: Callable[[Slot, int, int], Next]) -> None:
        """Has them work until none is left.

        Args:
            ended: told of a process that ended: its place, its number and its exit status; says what follows.

        Raises:
            KeyboardInterrupt: by Ctrl-C, once the workers have written checkpoints and ended; by a second one at once.
            SystemExit: on SIGTERM, likewise.
        """
        with self._listening():
            try:
                for slot in self.slots:
                    slot.start()
                self._watch(ended)
            finally:
                self._end_all()
        if self._signals:
            if self._signals[0] == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM)
            raise KeyboardInterrupt

    def _watch(self, ended: Callable[[Slot, int, int], Next]) -> None:
        while not self._signals and any(slot.process for slot in self.slots):
            for slot in self.slots:
                process, code = slot.process, slot.process.poll() if slot.process else None
                if process is None or code is None:
                    continue
                slot.let_go()
                follows = ended(slot, process.pid, code)
                if follows == "stop":
                    return
                if follows == "another":
                    slot.start()
            self._refresh()
            time.sleep(_LOOK)

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
        for slot in self.slots:
            if slot.process is not None:
                slot.process.wait()
                slot.let_go()

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [slot.process for slot in self.slots if slot.process is not None and slot.process.poll() is None]


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


def how_it_ended(code: int) -> str:
    """An exit status in words."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _environment(threads: int, gpu: str | None) -> dict[str, str]:
    root = str(Path(bench.__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    found.setdefault("OMP_NUM_THREADS", str(threads))
    found.setdefault("TRANSFORMERS_VERBOSITY", "error")
    return found if gpu is None else {**found, "CUDA_VISIBLE_DEVICES": gpu}
