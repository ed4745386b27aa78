"""Runs a search from wherever it stands to its selected configuration, and asks that one on test, once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from bench.dispatch.assignment import new_folder, settings_of
from bench.errors import RunBusyError, UserError
from bench.provenance import without_password
from bench.run_store import write_json, write_text
from bench.search.outcome import TrialRow, as_csv, describe, front, rows_of, selected, write_preset
from bench.search.storage import SearchFolder, loss_is_told, open_storage, open_study

if TYPE_CHECKING:
    from optuna.study import Study

    from bench.experiment import RunResult
    from bench.runtime import Runtime
    from bench.search.definition import Definition
    from tasks.data import Catalogue

_LOOK = 0.5  # seconds between looks at what is done, and at runs that others are at


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Where a search stands.

    Args:
        definition: of the search.
        folder: with the journal, the table, the plots and the selected configuration.
        rows: every trial.
        complete: whether all trials that were asked for are ended.
        best: the selected trial; None where none is complete.
        tested: the selected configuration on test, a run for each seed; empty where it was not asked.
        importance: of each setting for each objective, as shares of 1; empty where nothing can be said.
        notes: what is missing, and why.
        files: that were written.
    """

    definition: Definition
    folder: Path
    rows: tuple[TrialRow, ...]
    complete: bool
    best: TrialRow | None
    tested: tuple[RunResult, ...] = ()
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def failed(self) -> list[TrialRow]:
        """Trials that failed and were not tried again with success."""
        again = {row.retry_of for row in self.rows}
        return [row for row in self.rows if row.state == "failed" and row.number not in again]

    @property
    def front(self) -> list[TrialRow]:
        """Of several objectives, the trials that no other beats in all; empty where there is one objective."""
        return front(self.rows, self.definition) if len(self.definition.rules) > 1 else []

    def described(self) -> dict[str, Any]:
        """The same for a program."""
        search = self.definition.search
        return {
            "name": search.name,
            "question": search.question,
            "rules": [rule.described for rule in self.definition.rules],
            "folder": str(self.folder),
            "complete": self.complete,
            "best": None if self.best is None else describe(self.best, self.definition),
            "front": [row.number for row in self.front],
            "tested": {str(result.summary["seed"]): str(result.run.path) for result in self.tested},
            "importance": {name: dict(shares) for name, shares in self.importance.items()},
            "trials": [describe(row, self.definition) for row in self.rows],
            "notes": list(self.notes),
            "files": [str(file) for file in self.files],
        }


def run_search(
    definition: Definition,
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    data: Sequence[Path] = (),
    workers: int = 1,
    storage: str | None = None,
    retry_failed: bool = False,
    test: bool = True,
) -> SearchResult:
    """Does what of a search is not done yet. The same call goes on with one that was stopped, however that was.

    Args:
        definition: from `load_search`.
        runtime: where and on what.
        catalogue: the data sets known by name, for one worker; None for those of `data` and all that molgraft knows.
        data: YAML files of further data sets, for worker processes.
        workers: processes; with 1, trials are done in this one.
        storage: a journal file or the URL of a database; None for a journal in the folder of the search.
        retry_failed: queue trials that failed once more; they come on top of those that were asked for. A test that
            failed is asked again, too.
        test: ask the selected configuration on test when all trials are ended.

    Raises:
        UserError: the preset cannot be run, the storage cannot be used, it holds another search, or a catalogue is
            given to several workers.
        OSError: the disk is full or may not be written.
    """
    from bench.device import settled
    from bench.tracking.address import address_of
    from tasks.data import Catalogue

    address_of(runtime)  # refused before anything is prepared
    if workers > 1 and catalogue is not None:
        raise UserError(f"{workers} workers read data sets from files: give `data` in place of `catalogue`")

    runtime, catalogue = settled(runtime), catalogue or Catalogue(list(data))
    folder = SearchFolder(runtime.runs, definition.search.name)
    folder.prepare()
    with loss_is_told(storage):
        opened = open_storage(storage, folder)
        study = open_study(definition, opened, folder)
        if retry_failed:
            _queue_again(definition, opened, folder, runtime)
        progress = _Progress(study, definition, runtime)
        progress.look()
        if not progress.all_ended:
            _prepare(definition, runtime, catalogue, test)
            until = None if definition.search.timeout is None else time.time() + definition.search.timeout
            _work(definition, storage, runtime, catalogue, data, workers, until, progress.look)
            progress.look(at_once=True)
        with FileLock(folder.path / "finish.lock"):  # several commands may end at the same time
            result = _finished(definition, study, folder, storage)
            if result.best is not None and result.complete and test:
                tested = _tested(result.best, definition, runtime, catalogue, retry_failed)
                result = replace(result, tested=tested)
                _write(result, storage)
            return result


def _work(
    definition: Definition,
    storage: str | None,
    runtime: Runtime,
    catalogue: Catalogue,
    data: Sequence[Path],
    workers: int,
    until: float | None,
    after: Callable[[], None],
) -> None:
    if workers == 1:
        from bench.search.worker import work
        from bench.session import ended_by_sigterm

        with ended_by_sigterm():  # between runs too, so that the trial can say that nobody died at it
            work(definition, storage, runtime, catalogue, until=until, after=after)
        return
    from bench.search.starter import SearchWorkers
    from bench.search.worker import Orders

    orders = Orders(
        source=str(definition.source),
        overrides=definition.overrides,
        choices=asdict(definition.chosen),
        trials=definition.search.trials,
        fingerprint=definition.fingerprint,
        storage=storage,
        until=until,
        runs=str(runtime.runs),
        cache=None if runtime.cache is None else str(runtime.cache),
        settings=settings_of(runtime),
        data=tuple(str(path) for path in data),
    )
    # One for each command: what a process said last must not be what another machine's said.
    folder = new_folder(SearchFolder(runtime.runs, definition.search.name).path)
    SearchWorkers(orders, folder, runtime, workers, after).run()


def _prepare(definition: Definition, runtime: Runtime, catalogue: Catalogue, test: bool) -> None:
    """Makes the preset's data, features and small language model, or finds out here that it cannot be run.

    What many trials need is then there before several workers would make it, and a mistake that all trials share ends
    the search, and not every trial. So does one that only the test would find out, after all trials.
    """
    from bench.prepare import prepare

    seed = definition.search.seeds[0]
    prepare(definition.config(0, definition.preset_values, seed), runtime, catalogue)
    if test:
        prepare(definition.test_config(0, definition.preset_values, seed), runtime, catalogue)


def _queue_again(definition: Definition, storage: Any, folder: SearchFolder, runtime: Runtime) -> None:
    from bench.search.claims import Claims

    again = Claims(definition, storage, folder).enqueue_retries()
    if again:
        runtime.say(f"tried again: trial{'s' if len(again) > 1 else ''} {', '.join(map(str, again))}")


def _finished(definition: Definition, study: Study, folder: SearchFolder, storage: str | None) -> SearchResult:
    """Selects and writes what is known before test is asked, which may fail."""
    from bench.search.plots import draw, importance_of

    rows = rows_of(study, definition)
    best = selected(rows, definition)
    ended = _all_ended(rows, definition)
    files = [folder.path / "trials.csv"]
    write_text(files[0], as_csv(rows, definition))
    plots, notes = draw(rows, study, definition, folder.path)
    importance, _ = importance_of(study, definition)
    if best is None:
        notes.append("nothing is selected: no trial is complete")
    else:
        write_preset(best, definition, folder.best_file)
        files.append(folder.best_file)
    if best is not None and not ended:
        notes.append("test is asked once all trials are ended; the same command goes on")
    result = SearchResult(
        definition, folder.path, tuple(rows), ended, best, (), importance, tuple(notes), (*files, *plots)
    )
    _write(result, storage)
    return result


def _write(result: SearchResult, storage: str | None) -> None:
    shown = None if storage is None else without_password(storage)
    described = {**result.described(), "storage": shown, "written": round(time.time(), 2)}
    write_json(result.folder / "search.json", described)


def _tested(
    best: TrialRow, definition: Definition, runtime: Runtime, catalogue: Catalogue, retry_failed: bool
) -> tuple[RunResult, ...]:
    """Asks the runs of the selected trial on test; nothing is trained for it."""
    from bench.experiment import run
    from bench.tracking import mirror_to

    mirror = mirror_to(definition.search.name, runtime)
    results = []
    for seed in definition.search.seeds:
        config, is_told = definition.test_config(best.number, best.values, seed), False
        while True:
            try:
                results.append(run(config, runtime, catalogue=catalogue, retry_failed=retry_failed, mirror=mirror))
                break
            except RunBusyError:
                if not is_told:
                    runtime.say(f"another process asks trial {best.number}, seed {seed}, on test; waiting for it ...")
                is_told = True
                time.sleep(_LOOK)
    return tuple(results)


def _all_ended(rows: Sequence[TrialRow], definition: Definition) -> bool:
    asked = sum(row.retry_of is None for row in rows) >= definition.search.trials
    return asked and not any(row.state in ("running", "waiting") for row in rows)


class _Progress:
    """Says which trials have ended since it looked last."""

    def __init__(self, study: Study, definition: Definition, runtime: Runtime) -> None:
        self._study = study
        self._definition = definition
        self._runtime = runtime
        self._seen: set[int] | None = None
        self._looked = 0.0
        self.all_ended = False

    def look(self, *, at_once: bool = False) -> None:
        """Looks at the storage, at most every now and then but where it is to be at once."""
        if not at_once and time.monotonic() - self._looked < _LOOK and self._seen is not None:
            return
        rows = rows_of(self._study, self._definition)
        self._looked = time.monotonic()
        ended = [row for row in rows if row.state in ("complete", "pruned", "failed")]
        self.all_ended = _all_ended(rows, self._definition)
        fresh = [row for row in ended if self._seen is not None and row.number not in self._seen]
        if self._seen is None and ended and not self.all_ended:
            self._runtime.say(f"{len(ended)} of {self._definition.search.trials} trials are there already")
        self._seen = {row.number for row in ended}
        best = selected(rows, self._definition) if fresh else None
        for row in fresh:
            name = self._definition.figures[0]
            figure = f"{name} {row.figures[0]:.6g}" if row.figures is not None else row.state
            why = f" ({row.note})" if row.note else ""
            so_far = f"; best so far {best.figures[0]:.6g}, trial {best.number}" if best and best.figures else ""
            place = f"[{len(ended)}/{self._definition.search.trials}]"
            self._runtime.say(f"{place} trial {row.number}: {figure}{why}{so_far}")
