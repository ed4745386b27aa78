"""MLflow made again from run directories, or brought up to date with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.errors import UserError
from bench.run_store import RunDirectory
from bench.runtime import Runtime
from bench.tracking.address import address_of, in_one_line
from bench.tracking.contents import has_begun
from bench.tracking.memberships import run_directories
from bench.tracking.store import Store


@dataclass(frozen=True, slots=True)
class Synchronised:
    """What it took to bring MLflow up to date. A run that belongs to two studies is counted twice.

    Args:
        tracking: the address, without a password.
        studies: by name, how many runs each has on disk.
        created: runs that were not in MLflow.
        updated: runs that lacked something there.
        unchanged: runs of which MLflow had everything.
        elsewhere: runs that MLflow has from another folder of runs, finished or still going on as far as is known here.
        points: values of metrics that were sent.
        failed: folders of runs that could not be read or sent, each with the reason.
    """

    tracking: str
    studies: dict[str, int]
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    elsewhere: int = 0
    points: int = 0
    failed: tuple[str, ...] = ()


def synchronise(runtime: Runtime, studies: Sequence[str] = ()) -> Synchronised:
    """Brings MLflow up to date with all runs on disk; from an empty store it makes everything again.

    Doing it twice changes nothing. Runs of which MLflow knows but the disk does not are left as they are.

    Args:
        runtime: its `runs` and its `tracking`.
        studies: only these; all if empty.

    Raises:
        UserError: tracking is off, the store cannot be reached, or no run belongs to a study that was named.
    """
    address = address_of(runtime)
    if address is None:
        raise UserError("--tracking none: there is nothing to bring up to date; give an address")
    store = Store(address)
    shown = address.without_secrets(address.uri)
    chosen, failed = _chosen(store, runtime, studies)
    done = Synchronised(shown, _counted(chosen), failed=failed)
    if not chosen:
        return done
    try:
        with address.bounded():
            for study in done.studies:
                store.experiment(study)
    except Exception as error:
        raise UserError(f"MLflow at {shown}: {address.without_secrets(in_one_line(error))}") from error
    for directory, names in runtime.tracked(chosen, "runs", len(chosen)):
        done = _with(done, store, directory, names)
    return done


def _chosen(
    store: Store, runtime: Runtime, studies: Sequence[str]
) -> tuple[list[tuple[RunDirectory, tuple[str, ...]]], tuple[str, ...]]:
    """Runs with the studies in which they are to be shown, and which could not be read."""
    found, failed = [], []
    known: set[str] = set()
    for directory in run_directories(runtime.runs):
        try:
            if not has_begun(directory):
                continue
            names = store.studies_of(directory)
        except (UserError, LookupError, OSError) as error:
            failed.append(f"{directory.path}: {in_one_line(error)}")
            continue
        known |= set(names)
        wanted = tuple(name for name in names if not studies or name in studies)
        if wanted:
            found.append((directory, wanted))
    missing = [name for name in studies if name not in known]
    if missing:
        there = ", ".join(sorted(known)) or "none"
        raise UserError(f"{missing[0]}: no run in {runtime.runs} belongs to such a study; there are {there}")
    return found, tuple(failed)


def _counted(chosen: Sequence[tuple[RunDirectory, tuple[str, ...]]]) -> dict[str, int]:
    names = sorted(name for _, studies in chosen for name in studies)
    return {name: names.count(name) for name in names}


def _with(done: Synchronised, store: Store, directory: RunDirectory, names: Sequence[str]) -> Synchronised:
    """The counts after one more run; one that cannot be shown does not keep the others from it."""
    try:
        changes = store.show(directory, names).values()
    except Exception as error:
        reason = store.address.without_secrets(in_one_line(error))
        return replace(done, failed=(*done.failed, f"{directory.path}: {reason}"))
    finally:
        store.forget(directory)
    return replace(
        done,
        created=done.created + sum(change.created for change in changes),
        updated=done.updated + sum(change.is_one and not change.created for change in changes),
        unchanged=done.unchanged + sum(not change.is_one and not change.elsewhere for change in changes),
        elsewhere=done.elsewhere + sum(change.elsewhere for change in changes),
        points=done.points + sum(change.points for change in changes),
    )
