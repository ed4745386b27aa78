"""Several processes that train one run together: who leads, what they tell each other, and how all of them end.

They are started by `accelerate launch` or `torchrun`. The first of them, the leader, alone writes: the run directory,
its lock and status, logs, the MLflow mirror and predictions. Before training the others wait for the leader without
limit, through the launcher's key-value store, so that a long preparation runs into no timeout; after training they
leave.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import ConfigError, Failure, UserError, failure_of, is_user_error

if TYPE_CHECKING:
    from bench.config import Stage

T = TypeVar("T")

_TIMEOUT = timedelta(hours=2)  # of a collective; the longest that the others wait for is a checkpoint being written
_POLL = 0.1  # seconds
_LAST_WORDS = 3.0  # seconds in which a process that fails tells the others why
_LAUNCHED = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"),
)
_NEEDED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class PeerLostError(RuntimeError):
    """Another process of the run has ended; `kind` is the class of its failure, None for an interruption."""

    def __init__(self, message: str, kind: Failure | None = None) -> None:
        super().__init__(message)
        self.kind = kind


class EndedElsewhereError(UserError):
    """Another process has ended the run, and said why."""


@dataclass(eq=False)
class Processes:
    """The processes of a run as one of them sees them; by default there is but one.

    Args:
        rank: which one this is; 0 leads.
        world: how many there are.
        local_rank: which one of this machine's, and so which of its GPUs is this process's.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    _store: Any = field(default=None, repr=False)
    _launcher: Any = field(default=None, repr=False)
    _agreements: int = field(default=0, repr=False)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def join(self) -> None:
        """Finds the others' key-value store, which is all that is needed before training."""
        if not self.several or self._store is not None:
            return
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        self._launcher, _, _ = next(rendezvous("env://", timeout=_TIMEOUT))
        self._store = distributed.PrefixStore("molgraft", self._launcher)  # type: ignore[attr-defined]

    def meet(self, device: str) -> None:
        """Makes ready what training needs to exchange tensors.

        Args:
            device: `cpu` or `cuda`; processes on CPUs talk by gloo, those on NVIDIA GPUs by NCCL.
        """
        if not self.several:
            return
        from torch import distributed

        # Every process has loaded the model; a user's own configuration may say that one does, and hands it on.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
        if not distributed.is_initialized():
            # Both, since what is agreed upon by the way (a signal, a loss) lies in the CPU's memory.
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            distributed.init_process_group(
                backend, store=self._launcher, rank=self.rank, world_size=self.world, timeout=_TIMEOUT
            )

    def part(self) -> None:
        """Ends the exchange, after which each goes its own way."""
        if not self.several:
            return
        from torch import distributed

        distributed.destroy_process_group()

    def agreed(self, work: Callable[[], T]) -> T:
        """What the leader finds; the others wait for it however long it takes. The value must be JSON's.

        Every process calls this equally often and in the same order.

        Raises:
            EndedElsewhereError: the leader failed instead.
        """
        if not self.several:
            return work()
        from torch.distributed import DistError

        key = f"agreed/{self._agreements}"
        self._agreements += 1
        try:
            if self.leads:
                value = work()
                self._store.set(key, json.dumps(value))
                return value
            found: T = json.loads(self._awaited(key))
            return found
        except DistError as error:
            raise PeerLostError(f"the launcher of this run has ended ({str(error).splitlines()[0]})") from error

    def first(self, work: Callable[[], T]) -> T:
        """The same work in every process, in the leader before the others, who then find its files."""
        if not self.several:
            return work()
        if not self.leads:
            self.agreed(lambda: None)
            with alone():
                return work()
        with alone():
            value = work()
        self.agreed(lambda: None)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if not self.several:
            return flag
        import torch
        from torch import distributed

        found = torch.tensor([int(flag)])
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return bool(found.item())

    def gathered(self, value: T) -> Sequence[T]:
        """Every process's value, by rank."""
        if not self.several:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def wait_for_all(self) -> None:
        """Goes on once every process has come here."""
        self.gathered(None)

    def tell(self, error: BaseException) -> bool:
        """Tells the others why this process ends; whether it is the first to have something to say."""
        if self._store is None:
            return True
        words = {"message": str(error), "user": is_user_error(error), "kind": _kind_of(error)}
        try:
            first: bool = self._store.add("told", 1) == 1
            if first:
                self._store.set("failed", json.dumps(words))
            return first
        except RuntimeError:  # the store was the launcher's, which is gone
            return True

    def lost(self, error: BaseException) -> PeerLostError:
        """What became of a process without which no more can be exchanged, in its own words if it had any."""
        deadline = time.monotonic() + _LAST_WORDS
        try:
            while time.monotonic() < deadline:
                if self._store.check(["failed"]):
                    words = json.loads(self._store.get("failed"))
                    return PeerLostError(f"in another process: {words['message']}", words["kind"])
                time.sleep(_POLL)
        except RuntimeError:
            pass
        reason = str(error).splitlines()[0]
        return PeerLostError(
            f"another process of this run has ended without a word ({reason}); the same command goes on from the last "
            "checkpoint"
        )

    def _awaited(self, key: str) -> str:
        while not self._store.check([key]):
            if self._store.check(["failed"]):
                words = json.loads(self._store.get("failed"))
                raise EndedElsewhereError(words["message"]) if words["user"] else PeerLostError(words["message"])
            time.sleep(_POLL)
        value: bytes = self._store.get(key)
        return value.decode()


ALONE = Processes()
"""One process, as most runs have."""


def started() -> Processes:
    """The processes that a launcher has started this one among.

    Raises:
        UserError: the launcher's settings are not whole.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes()
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {world}, but {', '.join(missing)} is not set; start several processes by `accelerate "
            "launch` or `torchrun`"
        )
    # DDP's advice on parameters that are unused at times would come from every process.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    return Processes(int(os.environ["RANK"]), world, int(os.environ["LOCAL_RANK"]))


@contextmanager
def ended_together(processes: Processes) -> Iterator[None]:
    """Tells the others how this process ends if it does not end well; only the first that fails says so to the user."""
    try:
        yield
    except BaseException as error:
        if processes.several:
            said = isinstance(error, EndedElsewhereError) or not processes.tell(error)
            error.molgraft_told = said  # type: ignore[attr-defined] # the command line then keeps silent
        raise


@contextmanager
def alone() -> Iterator[None]:
    """Hides the other processes from libraries that would wait for them, while one process does something alone."""
    hidden = {name: os.environ.pop(name) for name in _LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def exchanging(processes: Processes) -> Iterator[None]:
    """Around what processes exchange: an error of the connection means that another process has ended.

    Raises:
        PeerLostError: it has.
    """
    if not processes.several:
        yield
        return
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        words = str(error)
        told = any(sign in words for sign in ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer"))
        if isinstance(error, PeerLostError) or not (told or isinstance(error, distributed.DistError)):
            raise
        raise processes.lost(error) from error


def _kind_of(error: BaseException) -> Failure | None:
    """The class of a failure; None for an interruption."""
    return error.kind if isinstance(error, PeerLostError) else failure_of(error)


@dataclass(frozen=True, slots=True)
class Share:
    """How a forward pass of a stage is cut up.

    Args:
        size: examples of one process's forward pass, at most.
        passes: forward passes of one process in the place of one.
    """

    size: int
    passes: int


def share_of(stage: Stage, world: int, micro_batch: int | None) -> Share:
    """The share of a stage's batch that falls to one process, and to one forward pass.

    The batch stays the stage's whatever the number of processes, so that a run's identity does not depend on it.

    Raises:
        ConfigError: the batch cannot be divided among the processes.
    """
    if stage.batch_size % world:
        nearest = stage.batch_size - stage.batch_size % world or world
        raise ConfigError(
            f"stages.{stage.name}.batch_size",
            f"is {stage.batch_size}, which does not divide among {world} processes; start as many processes as divide "
            f"it, or set a multiple of {world} (such as {nearest}), which makes another run",
        )
    own = stage.batch_size // world
    size = own if micro_batch is None else max(n for n in range(1, min(own, micro_batch) + 1) if own % n == 0)
    return Share(size, own // size)
