"""A study as it goes on: a picture in a terminal, or lines in a log file.

Only run directories are read, and nothing is written, so that a study can be watched whatever runs it, from any machine
that sees its folder, by several people at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from bench.live_picture import Picture
from bench.study_progress import Event, best_so_far, count, ended, events_between, newest, printable
from bench.study_states import RunState, StudyStates
from bench.time_left import time_left

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.runtime import Runtime

_BETWEEN_LOOKS = 1.0  # seconds
_BETWEEN_SUMMARIES = 300.0  # seconds, in a log file
_KEPT = 50  # events


class LiveView:
    """Shows where the runs of a study stand, from when it is entered until it is left.

    A thread of its own looks once a second, so that the view goes on while its process computes or waits.

    On a terminal it is a picture that changes. Elsewhere (a log file, CI, nohup) it is a line when a run begins, ends
    or fails, and a summary every five minutes. With `runtime.progress` off, only failures and the end are told.

    Args:
        plan: the study's runs.
        runtime: where they are, and the console to write on.
        question: what the study is to answer.
        workers: how many run at the same time; None where that is not known, and as many are taken to be at work as
            there are runs going on.
    """

    def __init__(self, plan: Plan, runtime: Runtime, *, question: str = "", workers: int | None = None) -> None:
        self._plan = plan
        self._runtime = runtime
        self._question = question
        self._workers = workers
        self._reader = StudyStates(plan, runtime)
        self._states: list[RunState] | None = None
        self._events: list[Event] = []
        self._note = ""
        self._looked = self._summarised = -math.inf
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again, daemon=True)

    @property
    def states(self) -> Sequence[RunState]:
        """What the last look found."""
        return self._states or ()

    def __enter__(self) -> LiveView:
        """Takes a first look, shows it, and goes on looking."""
        self.refresh(now=True)
        if self._runtime.bars:
            # Cleared in the end: what is to stay is printed then.
            self._live = Live(self._picture(), console=self._runtime.console, auto_refresh=False, transient=True)
            self._live.start(refresh=True)
        self._thread.start()
        return self

    def refresh(self, *, now: bool = False) -> None:
        """Looks again and shows what is new; at most once a second unless it is to be now.

        A folder that cannot be read for a moment, as on a network, stops nothing.
        """
        with self._lock:
            if not now and time.monotonic() - self._looked < _BETWEEN_LOOKS:
                return
            self._look()
            self._looked = time.monotonic()  # after it, so that slow looks leave time for other work
            if self._live is not None:
                self._live.update(self._picture(), refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Takes the picture away, and says how the study stands."""
        self._left.set()
        self._thread.join()
        if self._live is not None:
            self._live.stop()
            self._live = None
        self.refresh(now=True)
        self._say(f"{printable(self._plan.study)}: {count(self.states)}")

    def _look(self) -> None:
        before = self._states
        try:
            self._states = self._reader.now()
            self._note = ""
        except OSError as error:
            self._note = f"cannot be read at the moment: {error}"
            return
        fresh = list(events_between(before, self._states))
        self._events = newest([*self._events, *(event for event in fresh if event.is_end)], _KEPT)
        if not self._runtime.bars:
            self._tell(fresh)

    def _look_again_and_again(self) -> None:
        while not self._left.wait(_BETWEEN_LOOKS):
            self.refresh()

    def _picture(self) -> Picture:
        states = self.states
        return Picture(
            study=self._plan.study,
            question=self._question,
            states=states,
            counts=count(states),
            workers=self._workers,
            left=time_left(states, self._workers),
            best=best_so_far(states, self._plan.select),
            events=self._events,
            note=self._note,
        )

    def _tell(self, fresh: Sequence[Event]) -> None:
        """What is new, in a log file."""
        for event in fresh:
            if event.is_failure or self._runtime.progress:
                self._say(str(event))
        if self._runtime.progress and time.monotonic() - self._summarised > _BETWEEN_SUMMARIES:
            self._summarised = time.monotonic()
            left = time_left(self.states, self._workers)
            best = best_so_far(self.states, self._plan.select)
            parts = [
                f"{printable(self._plan.study)}: {count(self.states)}",
                f"{left} left" if left is not None and left.seconds else "",
                f"best so far {best}" if best else "",
            ]
            self._say(f"{time.strftime('%H:%M:%S')} {'; '.join(part for part in parts if part)}")

    def _say(self, line: str) -> None:
        self._runtime.console.print(Text(line), soft_wrap=True)


def watch(plan: Plan, runtime: Runtime, *, question: str = "") -> None:
    """Shows a study that others run, until none of its runs is left to be done or the reader has seen enough.

    Args:
        plan: its runs.
        runtime: where they are, and the console to write on.
        question: what it is to answer.
    """
    with LiveView(plan, runtime, question=question) as view:
        try:
            while any(state.state not in ("done", "failed") for state in view.states):
                time.sleep(_BETWEEN_LOOKS)
        except KeyboardInterrupt:
            pass  # the study goes on without its reader
    for state in view.states:
        if state.state == "failed" and runtime.bars:  # in a log file it stands already
            runtime.console.print(Text(f"{ended(state)}; {state.directory}/log.txt"), soft_wrap=True)
    best = best_so_far(view.states, plan.select)
    if best:
        runtime.console.print(Text(f"best so far {best}"), soft_wrap=True)
