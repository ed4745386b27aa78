"""RDKit on text from anywhere: no molecule may hang or crash the command that reads it.

A SMILES of a hundred characters can keep RDKit busy for days (a uranium atom with sixty neighbours has more subgraphs
than a fingerprint can list), and one of a hundred thousand can exhaust its stack. Ordinary molecules are worked on in
this process, at full speed; those that `is_plain` does not vouch for are worked on in a child process, which is killed
after a time limit, when it takes too much memory, or when it has crashed, and started again for the next molecule. The
limit is on the processor's time where the system can set it, so that no score depends on what else a machine is doing.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import math
import os
import pickle
import queue
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any, TypeVar

T = TypeVar("T")

SECONDS_VARIABLE = "MOLGRAFT_RDKIT_SECONDS"
DEFAULT_SECONDS = 10.0
MEMORY_BYTES = 4 << 30  # address space of the child, where the system can limit it
_START_SECONDS = 300.0  # until the child has imported RDKit; long only on a machine that is busy with other things
_PATIENCE = (20, 60.0)  # times the limit, and seconds more, until a child is given up that does not use the processor
_HAS_TIMERS = sys.platform != "win32"

# What this process takes on itself. Molecules of these sizes took RDKit 4 s in the worst of the cases tried (a network
# of six-bonded sulphur), milliseconds as a rule; 98 % of the molecules of ChEBI-20 are below.
LONGEST = 600
MOST_CLOSURE_DIGITS = 32  # two for each ring
# RDKit bounds the valence of these elements, which keeps the number of subgraphs small; that of metals it does not.
_BOUNDED = "He|Be|Ne|Al|Si|Cl|Ar|Ga|Ge|As|Se|Br|Kr|Sn|Sb|Te|Xe|Pb|Bi|H|B|C|N|O|F|P|S|I|se|as|te|si|b|c|n|o|p|s"
_BRACKETED = re.compile(r"\[[^\]]*\]")
_UNBOUNDED_HUB = re.compile(  # an atom of unbounded valence that is followed by a branch or by a ring closure
    rf"(?:\[(?!\d*(?:{_BOUNDED})(?![a-z])[^\]]*\])[^\]]*\]|\[[^\]]*(?:[+-]\d|\+\+|--)[^\]]*\]|\*)[-=#$:/\\]?[(\d%]"
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What stands in the place of a value that RDKit could not give.

    Args:
        reason: why, in words that complete "this molecule ...".
    """

    reason: str


class Unreadable(ValueError):
    """Raised by a guarded function for a text that is no molecule; its message becomes the reason of a `Refusal`."""


def limit_seconds() -> float:
    """Processor time for one molecule: `$MOLGRAFT_RDKIT_SECONDS`, else 10 s; anything but a time is ignored."""
    try:
        chosen = float(os.environ.get(SECONDS_VARIABLE, DEFAULT_SECONDS))
    except ValueError:
        return DEFAULT_SECONDS
    return chosen if 0 < chosen < math.inf else DEFAULT_SECONDS


def parsed(smiles: str, seconds: float | None = None) -> str | Refusal:
    """The canonical SMILES of one molecule or of several joined by ".", or why there is none."""
    return call(canonical, smiles, seconds)


def call(function: Callable[[str], T], smiles: str, seconds: float | None = None) -> T | Refusal:
    """`function(smiles)`, or a `Refusal` where it raised an error, took too long, or crashed.

    Args:
        function: stands at the top of a module that can be imported, and returns what can be pickled.
        smiles: any text.
        seconds: the time limit; `limit_seconds()` by default. It binds only what `is_plain` does not vouch for.
    """
    if is_plain(smiles):
        return _attempt(function, smiles)
    kept: T | Refusal = _worker().call(function, smiles, limit_seconds() if seconds is None else seconds)
    return kept


def apply(function: Callable[[str], T], molecules: Iterable[str], seconds: float | None = None) -> list[T | Refusal]:
    """`call` for each of `molecules`, in order; the child starts while this process works on the ordinary ones."""
    listed = list(molecules)
    plain = [is_plain(smiles) for smiles in listed]
    if not all(plain):
        _worker().start()
    here = {row: _attempt(function, listed[row]) for row, safe in enumerate(plain) if safe}
    return [here[row] if safe else call(function, listed[row], seconds) for row, safe in enumerate(plain)]


def is_plain(smiles: str) -> bool:
    """Whether RDKit is sure to be done with a text in a few seconds, judged by its length, rings and metals."""
    if len(smiles) > LONGEST:
        return False
    outside = _BRACKETED.sub("", smiles) if "[" in smiles else smiles
    if sum(map(outside.count, "0123456789")) > MOST_CLOSURE_DIGITS:
        return False
    return ("[" not in smiles and "*" not in smiles) or _UNBOUNDED_HUB.search(smiles) is None


def canonical(smiles: str) -> str:
    """The canonical SMILES, unguarded.

    Raises:
        Unreadable: RDKit cannot parse it.
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return str(Chem.MolToSmiles(molecule(smiles)))


def molecule(smiles: str) -> Any:
    """RDKit's molecule, unguarded; as in all published scripts, text after white space is taken for its title.

    Raises:
        Unreadable: RDKit cannot parse it, or it holds a NUL character, at which RDKit may stop to read.
    """
    from rdkit import Chem, rdBase

    if "\0" in smiles:
        raise Unreadable("holds a NUL character")
    try:
        with rdBase.BlockLogs():
            found = Chem.MolFromSmiles(smiles)
    except UnicodeEncodeError:  # half of a surrogate pair
        found = None
    if found is None:
        raise Unreadable("cannot be parsed by RDKit")
    return found


def child_seconds() -> float:
    """CPU time that the child of this process has used, for benchmarks."""
    return _worker().used_seconds


def _attempt(function: Callable[[str], T], smiles: str) -> T | Refusal:
    """`function(smiles)`, its errors as refusals: RDKit raises a dozen types, and none of them may end a scoring."""
    try:
        return function(smiles)
    except Unreadable as error:
        return Refusal(str(error))
    except MemoryError:
        return Refusal("needs more memory than RDKit may take")
    except Exception as error:
        return Refusal(f"makes RDKit fail ({type(error).__name__}: {str(error).strip()[:200]})")


class _Worker:
    """A child process that works on one molecule at a time. Messages are pickles behind their length, both ways."""

    def __init__(self) -> None:
        self.used_seconds = 0.0
        self._before = 0.0  # used by children that have ended
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self) -> None:
        """Starts the child where none runs; does not wait for it."""
        with self._lock:
            if self._process is not None:
                return
            paths = [os.path.abspath(path or os.curdir) for path in sys.path]
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from tasks.metrics.guarded import _serve; _serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "OMP_NUM_THREADS": "1"},
            )
            self._ready = False
            self._replies = queue.SimpleQueue()
            threading.Thread(target=_collect, args=(self._process.stdout, self._replies), daemon=True).start()
            atexit.register(self.stop)

    def stop(self) -> None:
        """Ends the child."""
        with self._lock:
            process, self._process = self._process, None
            atexit.unregister(self.stop)
            self._before = self.used_seconds
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                with contextlib.suppress(OSError):  # what was not sent yet cannot be sent any more
                    process.stdin.close()

    def call(self, function: Callable[[str], Any], smiles: str, seconds: float) -> Any:
        """`function(smiles)` in the child, or why there is no value."""
        request = (function.__module__, function.__qualname__, smiles, seconds)
        with self._lock:
            try:
                self._send(request)
                reply = self._replies.get(timeout=_START_SECONDS)  # the function is at hand, imported
                if reply is not None:
                    wall = _PATIENCE[0] * seconds + _PATIENCE[1] if _HAS_TIMERS else seconds
                    reply = self._replies.get(timeout=wall)
            except queue.Empty:
                self.stop()
                return Refusal(f"takes RDKit longer than {seconds:g} s")
            except BaseException:  # an interrupt too: this molecule's reply must not be taken for the next one's
                self.stop()
                raise
            if reply is None:
                how = self._ended()
                if how == _OUT_OF_TIME:
                    return Refusal(f"takes RDKit longer than {seconds:g} s")
                return Refusal(f"makes RDKit crash ({how})")
            value, used = reply
            self.used_seconds = self._before + used
            return value

    def _send(self, request: Any) -> None:
        """Sends a request to the child, which is started where none runs or where the last has ended unasked.

        Raises:
            RuntimeError: it does not start.
        """
        for _ in range(2):
            self.start()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            try:
                if not self._ready and self._replies.get(timeout=_START_SECONDS) is not None:
                    self._ready = True
                if self._ready:
                    _send(process.stdin, request)
                    return
            except (OSError, queue.Empty):
                self._ready = False
            ended = self._ended()
        raise RuntimeError(f"the process in which RDKit is guarded does not start ({ended})")

    def _ended(self) -> str:
        """How the child ended; it is stopped where it has not."""
        process = self._process
        if process is None:
            return "it was stopped"
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self.stop()
        if code is None:
            return "no exit status"
        return f"signal {-code}" if code < 0 else f"exit status {code}"


_OUT_OF_TIME = f"signal {int(signal.SIGPROF)}" if _HAS_TIMERS else ""
_workers: dict[int, _Worker] = {}


def _worker() -> _Worker:
    """This process's own: a fork must not talk to the child of the process that it came from."""
    process = os.getpid()
    if process not in _workers:
        _workers.setdefault(process, _Worker())
    return _workers[process]


def _serve() -> None:
    """The child: reads requests until there are no more, or until RDKit ends it."""
    import time

    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not come between the replies
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":  # elsewhere the limit is unknown or without effect
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)  # ends this process also in the midst of RDKit
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted parent ends this process itself
    from rdkit import Chem  # noqa: F401 - so that no molecule's time goes into it

    _send(replies, "ready")
    functions: dict[tuple[str, str], Callable[[str], Any]] = {}
    while True:
        request = _receive(requests)
        if request is None:
            return
        module, name, smiles, seconds = request
        if (module, name) not in functions:
            functions[module, name] = getattr(importlib.import_module(module), name)
        _send(replies, "begun")
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, seconds)
            # For the case that the parent is killed and cannot kill this process.
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE[0] * seconds + 2 * _PATIENCE[1])
        value = _attempt(functions[module, name], smiles)
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        _send(replies, (value, time.process_time()))


def _collect(stream: IO[bytes], replies: queue.SimpleQueue[Any]) -> None:
    """Puts all messages of `stream` into `replies`, and None when it ends."""
    with stream:
        while (message := _receive(stream)) is not None:
            replies.put(message)
    replies.put(None)


def _send(stream: IO[bytes], message: Any) -> None:
    contents = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(struct.pack("<Q", len(contents)) + contents)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    """The next message, or None where the stream has ended, be it in the middle of one."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    (length,) = struct.unpack("<Q", head)
    contents = stream.read(length)
    return pickle.loads(contents) if len(contents) == length else None
