"""One worker of a search: claims a trial, works on it, and looks for the next, until none is left.

`python -m bench.search.worker` reads what it is told as a line of JSON from its input, and ends when that is closed: by
the parent, or by the system when the parent is killed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.dispatch.base import CANNOT_WRITE, DISK, SPENT
from bench.errors import UserError, is_user_error
from bench.run_store import is_disk_error

if TYPE_CHECKING:
    from bench.runtime import Runtime
    from bench.search.claims import Claims
    from bench.search.definition import Definition
    from bench.search.trial import Trials
    from tasks.data import Catalogue

_LOOK = 0.5  # seconds between looks at trials that others hold
USERS_MISTAKE = 2
AT_TRIAL = "at trial "


class SpentError(UserError):
    """This process can do no further trial on its GPU, a new one can."""


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a worker process is told. It is never written to disk, for an address may hold a password.

    Args:
        source, overrides, choices, trials: see `load_search`.
        fingerprint: of the search as the parent read it.
        storage: see `open_storage`.
        until: when no further trial is begun, in seconds since 1970; None for never.
        runs, cache: see `Runtime`.
        settings: the other fields of `Runtime` that workers share.
        data: YAML files of further data sets.
    """

    source: str
    overrides: tuple[str, ...] = ()
    choices: dict[str, Any] = field(default_factory=dict)
    trials: int
    fingerprint: str
    storage: str | None
    until: float | None
    runs: str
    cache: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    data: tuple[str, ...] = ()

    def written(self) -> str:
        """As a line."""
        return json.dumps(asdict(self)) + "\n"


def work(
    definition: Definition,
    storage: str | None,
    runtime: Runtime,
    catalogue: Catalogue,
    *,
    until: float | None = None,
    before: Callable[[int], None] = lambda number: None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Works on trials in this process until all are ended, or no more may be begun.

    Args:
        definition: of the search.
        storage: see `open_storage`.
        runtime: where and on what.
        catalogue: the data sets known by name.
        until: when no further trial is begun, in seconds since 1970.
        before: called with the number of each trial.
        after: called after each trial.

    Raises:
        OSError: the disk is full or may not be written.
        UserError: the storage cannot be used, or is lost while it is.
        SpentError: after an assertion that failed on the GPU, as for an index out of range.
    """
    from bench.search.claims import Claims
    from bench.search.storage import SearchFolder, loss_is_told, open_storage
    from bench.search.trial import Trials
    from bench.tracking import mirror_to

    folder = SearchFolder(runtime.runs, definition.search.name)
    folder.prepare()
    with loss_is_told(storage):
        claims = Claims(definition, open_storage(storage, folder), folder)
        claims.enqueue_preset()
        trials = Trials(definition, claims.study, runtime, catalogue, mirror_to(definition.search.name, runtime))
        while _did_one(claims, trials, before, begins=until is None or time.time() < until):
            _tidy()
            after()


def _did_one(claims: Claims, trials: Trials, before: Callable[[int], None], *, begins: bool) -> bool:
    """Works on one trial, or waits a little for one; False where there is nothing more to do."""
    with claims.next(begin=begins) as claimed:
        if not isinstance(claimed, str):
            before(claimed.number)
            trials.work_on(claimed)
            return True
    if claimed == "nothing" or not begins:
        return False
    time.sleep(_LOOK)  # their holders may be killed
    return True


def _tidy() -> None:
    """Gives back what a model took, for another process may share the accelerator."""
    from bench.dispatch.worker import accelerator_is_broken

    gc.collect()
    if accelerator_is_broken():
        raise SpentError("the GPU can do no more for this process; the same command goes on")


def _obey(orders: Orders) -> int:
    from bench.preset import Choices
    from bench.runtime import Runtime
    from bench.search.definition import load_search
    from tasks.data import Catalogue

    definition = load_search(orders.source, orders.overrides, Choices(**orders.choices), trials=orders.trials)
    if definition.fingerprint != orders.fingerprint:
        raise UserError(f"{orders.source} was changed while the search was being started; start it again")
    cache = None if orders.cache is None else Path(orders.cache)
    runtime = Runtime(runs=Path(orders.runs), cache=cache, progress=False, **orders.settings)
    catalogue = Catalogue([Path(p) for p in orders.data])
    work(definition, orders.storage, runtime, catalogue, until=orders.until, before=_say_trial)
    return 0


def _say_trial(number: int) -> None:
    """Tells the parent, which reads the log when this process has died."""
    print(f"{AT_TRIAL}{number}", flush=True)


def _end_with_the_parent() -> None:
    while os.read(0, 1024):  # not by `sys.stdin`, whose lock the interpreter would wait for when it ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Reads the orders and obeys them; the exit status."""
    signal.signal(signal.SIGTERM, _end)
    told: Mapping[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        return _obey(Orders(**{**told, "overrides": tuple(told["overrides"]), "data": tuple(told["data"])}))
    except SpentError:
        return SPENT
    except Exception as error:
        if is_user_error(error):
            print(f"error: {error}", file=sys.stderr)
            return USERS_MISTAKE
        if getattr(error, "molgraft_class", None) == "disk" or is_disk_error(error, Path(told["runs"])):
            with suppress(OSError):  # the disk may be too full for that as well
                print(f"{CANNOT_WRITE}{error}", file=sys.stderr, flush=True)
            return DISK
        raise
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
