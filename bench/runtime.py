"""What changes no number: where things are kept, on what they are computed, and how much is said meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from bench.distributed import Processes
from bench.memo import Memo
from tasks.locations import cache_root

T = TypeVar("T")

_stderr = Console(stderr=True)


def _nothing() -> None:
    """What a heartbeat is by default; a function of a module, so that settings can be sent to other processes."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is executed.

    Args:
        runs: the folder of run directories.
        cache: features and small language models; `None` for `$MOLGRAFT_CACHE` or the user's cache folder.
        device: `auto` takes an accelerator where there is one.
        threads: of torch; None leaves its default.
        workers: processes for featurising.
        max_rejected: the greatest share of rows that may be left out before a run stops.
        tracking: MLflow's address; None for a store beside the runs, `none` for no tracking.
        offline: fetch nothing.
        progress: show progress bars.
        processes: that train together; one unless a launcher started several.
        micro_batch: most examples per forward pass of training; None for the stage's batch. Losses stay the same,
            but for dropout, which is drawn for each pass.
        asking_micro_batch: most examples per forward pass of generation and of likelihoods; None for the evaluation's
            batch. Batches and their padding stay, so that answers and likelihoods do, within rounding.
        after_oom: which of these two, `training` and `asking`, are limited because memory ran out before.
        activation_checkpointing: compute the language model's activations again in the backward pass; None for large
            models on an accelerator.
        synchronise_batch_norm: a trained batch norm norms by the rows of all processes.
        heartbeat: called with every item of work that is tracked.
        memo: what the runs of this process share; `dataclasses.replace` keeps it.
    """

    runs: Path = Path("runs")
    cache: Path | None = None
    device: str = "auto"
    threads: int | None = None
    workers: int = 1
    max_rejected: float = 0.05
    tracking: str | None = None
    offline: bool = False
    progress: bool = True
    processes: Processes = field(default_factory=Processes)
    micro_batch: int | None = None
    asking_micro_batch: int | None = None
    after_oom: frozenset[str] = frozenset()
    activation_checkpointing: bool | None = None
    synchronise_batch_norm: bool = False
    console: Console = field(default_factory=lambda: _stderr)
    heartbeat: Callable[[], None] = field(default=_nothing, repr=False, compare=False)
    memo: Memo = field(default_factory=Memo, repr=False, compare=False)

    def cache_folder(self, name: str) -> Path:
        """A folder for things that can be made again."""
        return (self.cache or cache_root()) / name

    def tracked(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """`items` with a progress bar on standard error, or a line where no bar can be shown."""
        if self.progress and not self.bars and total:
            self.say(f"  {what}: {total:,}")
        shown = track(items, description=what, total=total, console=self.console, disable=not self.bars, transient=True)
        for item in shown:
            self.heartbeat()
            yield item

    @property
    def bars(self) -> bool:
        """Whether progress bars are drawn: where they are wanted and a terminal can show them."""
        return self.progress and self.console.is_terminal

    def say(self, message: str) -> None:
        """A line to the person who waits, on standard error."""
        self.console.print(message, highlight=False, markup=False, soft_wrap=True)
