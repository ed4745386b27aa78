"""One trial: its runs, one per seed, what is reported to the pruner meanwhile, and what the trial came to."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from bench.errors import DeviceLostError, RunBusyError, StoppedEarlyError, is_user_error
from bench.identity import evaluation_id
from bench.run_store import RunDirectory, is_disk_error, read_jsonl
from bench.search.claims import RETRY_OF, SESSIONS
from bench.search.parts import WILCOXON
from bench.search.storage import is_storage_error
from bench.selection import figure_of
from bench.session import nobody

if TYPE_CHECKING:
    from optuna.study import Study

    from bench.config import RunConfig
    from bench.runtime import Runtime
    from bench.search.claims import Claimed
    from bench.search.definition import Definition
    from bench.session import Mirror, Validated
    from tasks.data import Catalogue

RUNS, SAME_AS, FIGURES = "runs", "same_as", "figures"
ERROR, REASON, STOPPED_AT = "error", "reason", "stopped_at"
PARAMETERS, SECONDS = "parameters", "seconds"
_REACHED, _ENDED = "reached", "ended"

DOES_NOT_FIT, REFUSED = "does not fit", "refused"

_LOOK = 0.5  # seconds between looks at a run that another process is at
_DEATHS = 10  # of workers at one trial, without its coming any further


class _FailedError(Exception):
    """The trial has no value."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class Trials:
    """Works on the trials of a search.

    Args:
        definition: of the search.
        study: of Optuna.
        runtime: where and on what.
        catalogue: the data sets known by name.
        mirror: for tracking.
    """

    definition: Definition
    study: Study
    runtime: Runtime
    catalogue: Catalogue
    mirror: Mirror

    def work_on(self, claimed: Claimed) -> None:
        """Sees a trial to its end, or to where it is pruned or fails; only then is the storage told.

        Whatever ends the process, and a full disk, leaves it running there, and another worker goes on with it.

        Raises:
            OSError: the disk is full or may not be written.
            DeviceLostError: the GPU is not there any more.
        """
        from optuna.trial import TrialState

        trial = claimed.trial
        try:
            self._refuse_hopeless(claimed)
            values = self._values(claimed)
        except StoppedEarlyError as error:
            trial.set_user_attr(REASON, str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
        except _FailedError as error:
            trial.set_user_attr(ERROR, error.kind)
            trial.set_user_attr(REASON, str(error))
            # What does not fit together is a fact about the space, which the sampler is to learn from.
            state = TrialState.PRUNED if error.kind == DOES_NOT_FIT else TrialState.FAIL
            self.study.tell(trial, state=state)
        except BaseException as error:  # asked to end, or the disk's or the storage's fault: nobody died at the trial
            with suppress(Exception):  # the storage may be what failed
                self._note_end(claimed, type(error).__name__)
            raise
        else:
            self.study.tell(trial, values)

    def _values(self, claimed: Claimed) -> list[float]:
        if STOPPED_AT in claimed.attributes:  # its worker was killed before it could tell
            raise StoppedEarlyError(f"stopped early, at {claimed.attributes[STOPPED_AT]}")
        configs = self._configs(claimed)
        figures: dict[str, list[float]] = {}
        costs = {PARAMETERS: 0.0, SECONDS: 0.0}
        for position, config in enumerate(configs):
            summary = self._summary(claimed, config, position)
            figures[str(config.seed)] = self._figures(config, summary)
            costs[PARAMETERS] = summary["parameters"]["trained_sum"]
            costs[SECONDS] += summary["training_seconds"]
            claimed.trial.set_user_attr(FIGURES, figures)
            if self.definition.search.pruner.name == WILCOXON:
                self.report(claimed, position, figures[str(config.seed)][0])
                if position + 1 < len(configs) and claimed.trial.should_prune():
                    self.stop(claimed, f"seed {config.seed}, the {position + 1}. of {len(configs)}")
        for name, cost in costs.items():
            claimed.trial.set_user_attr(name, round(cost, 2))
        return [math.fsum(column) / len(column) for column in zip(*figures.values(), strict=True)]

    def _configs(self, claimed: Claimed) -> Sequence[RunConfig]:
        """The run of each seed, if the values of the trial go together."""
        from bench.model import wire

        try:
            seeds = self.definition.search.seeds
            configs = [self.definition.config(claimed.number, claimed.values, seed) for seed in seeds]
            wire(configs[0].encoder, configs[0].projector)
        except Exception as error:
            if is_user_error(error):
                raise _FailedError(DOES_NOT_FIT, str(error)) from None
            raise
        return configs

    def _summary(self, claimed: Claimed, config: RunConfig, position: int) -> Mapping[str, Any]:
        """What a run of the trial came to, after training whatever of it is not there yet."""
        from bench.experiment import run, run_directory
        from bench.prepare import prepare

        directory = watcher = None
        try:
            prepared = prepare(config, self.runtime, self.catalogue)
            with self._only_one(prepared.train_id):
                directory = run_directory(prepared, self.runtime)
                self._note_run(claimed, directory)
                if position == 0 and self._is_watched:
                    watcher = _Watcher(self, claimed, config, directory)
                while True:
                    try:
                        summary = run(
                            config,
                            self.runtime,
                            catalogue=self.catalogue,
                            retry_failed=RETRY_OF in claimed.attributes,
                            mirror=self.mirror,
                            watch=watcher or nobody,
                        ).summary
                        break
                    except RunBusyError:  # another command's; what it comes to is ours too
                        time.sleep(_LOOK)
            if watcher is not None:
                watcher.repeat()
            return summary
        except StoppedEarlyError as error:
            if watcher is not None and watcher.lost is not None:
                raise watcher.lost from error
            raise
        except Exception as error:
            failure = self._failure(error, directory)
            if failure is None:
                raise
            raise failure from error

    @contextmanager
    def _only_one(self, train_id: str) -> Iterator[None]:
        """Waits while another process is at the same run, which need not have a folder yet.

        Without, two trials of equal values that begin at once would make two, each under its own name; so would a
        study's worker, which claims its runs in the same way.
        """
        folder = self.runtime.runs / ".claims"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"run-{train_id}.lock"):
            yield

    @property
    def _is_watched(self) -> bool:
        return len(self.definition.rules) == 1 and self.definition.search.pruner.name != WILCOXON

    def _failure(self, error: Exception, directory: RunDirectory | None) -> _FailedError | None:
        """What an error of a run is to the trial; None where it is one of the disk, the storage or the GPU."""
        kind = getattr(error, "molgraft_class", None)
        if kind == "disk" or (not is_user_error(error) and is_disk_error(error, self.runtime.runs)):
            return None
        if is_storage_error(error) or isinstance(error, DeviceLostError):
            return None
        status = directory.status() if directory is not None else None
        if status is not None and status.state == "failed":
            return _FailedError(status.error or "error", status.message or str(error))
        return _FailedError(REFUSED if is_user_error(error) else kind or "error", f"{type(error).__name__}: {error}")

    def _figures(self, config: RunConfig, summary: Mapping[str, Any]) -> list[float]:
        """The figures of a run that the trial is judged by."""
        asked = {evaluation_id(config, task) for task in config.evaluation_tasks()}
        figures = []
        for rule in self.definition.rules:
            figure = figure_of(summary, rule, asked=asked)
            if figure is None:
                raise _FailedError("no figure", f"the run with seed {config.seed} has no {rule.metric}")
            figures.append(figure)
        return figures

    def _note_run(self, claimed: Claimed, directory: RunDirectory) -> None:
        """Writes down which run belongs to the trial, and which earlier trial had the same."""
        known = list(claimed.attributes.get(RUNS, []))
        if directory.path.name in known:
            return
        claimed.trial.set_user_attr(RUNS, [*known, directory.path.name])
        if SAME_AS in claimed.attributes:
            return
        for other in self.study.get_trials(deepcopy=False):
            shared = directory.path.name in other.user_attrs.get(RUNS, [])
            if shared and other.number < claimed.number and other.number != claimed.attributes.get(RETRY_OF):
                claimed.trial.set_user_attr(SAME_AS, other.number)
                return

    def report(self, claimed: Claimed, step: int, value: float) -> None:
        """Tells the pruner, and whoever looks at the search, how a trial is doing."""
        frozen = self.study._storage.get_trial(claimed.trial._trial_id)
        if step not in frozen.intermediate_values:  # a run that goes on may pass a validation again
            claimed.trial.report(value, step)

    def stop(self, claimed: Claimed, where: str) -> None:
        """Ends a trial, which stays so if this process is killed before it can tell.

        Raises:
            StoppedEarlyError: always.
        """
        claimed.trial.set_user_attr(STOPPED_AT, where)
        raise StoppedEarlyError(f"stopped early, at {where}")

    def _refuse_hopeless(self, claimed: Claimed) -> None:
        """Gives up a trial that takes its workers with it, which lack of memory does, before it ends for all.

        One death says nothing: a machine is switched off, somebody kills a process. Sessions that were asked to end, by
        SIGTERM or Ctrl-C, did not die.
        """
        reached = self._reached(claimed)
        sessions = list(claimed.attributes[SESSIONS])
        sessions[-1] = {**sessions[-1], _REACHED: reached}
        claimed.trial.set_user_attr(SESSIONS, sessions)
        idle = 0
        for session in reversed(sessions[:-1]):
            if session.get(_REACHED) != reached:
                break
            idle += _ENDED not in session
        if idle >= _DEATHS:
            raise _FailedError("killed", f"{idle} workers in a row died at it without coming further")

    def _note_end(self, claimed: Claimed, how: str) -> None:
        """Writes down that this session ended itself, and did not die."""
        sessions = list(claimed.attributes[SESSIONS])
        sessions[-1] = {**sessions[-1], _ENDED: how}
        claimed.trial.set_user_attr(SESSIONS, sessions)

    def _reached(self, claimed: Claimed) -> str:
        """How far the runs of a trial have come."""
        kept = (
            "stages/*/checkpoints/checkpoint-*",
            "stages/*/stage.json",
            "scores/*",
            "result.json",
            "predictions/*",
            "reliance/*",
        )
        folders = [self.runtime.runs / name for name in claimed.attributes.get(RUNS, [])]
        there = sorted(
            (str(path.relative_to(folder)), path.stat().st_size if path.is_file() else 0)
            for folder in folders
            for pattern in kept
            for path in folder.glob(pattern)
        )
        return hashlib.sha256(json.dumps(there).encode()).hexdigest()[:8]


class _Watcher:
    """Reports the validations of a run, and ends its training where the pruner sees no hope in it.

    The losses are reported as they are where the objective is to become small, and with the other sign where it is to
    become large, for pruners go by its direction.
    """

    def __init__(self, trials: Trials, claimed: Claimed, config: RunConfig, directory: RunDirectory) -> None:
        self._trials = trials
        self._claimed = claimed
        self._config = config
        self._directory = directory
        self._sign = 1 if trials.definition.rules[0].direction == "min" else -1
        self._stage = -1
        self.lost: Exception | None = None

    def __call__(self, seen: Validated) -> None:
        """Takes note of a validation.

        Raises:
            StoppedEarlyError: the pruner sees no hope, or the storage is lost (`lost` says how): the run itself has
                not failed, and can be gone on with.
        """
        try:
            self._look(seen)
        except Exception as error:
            if not is_storage_error(error):
                raise
            self.lost = error
            raise StoppedEarlyError("the storage of the search is lost") from error

    def _look(self, seen: Validated) -> None:
        if seen.position != self._stage:
            self._stage = seen.position
            self.repeat()
        if seen.step == 0:  # the same as the last of the stage before
            return
        step = seen.steps_before + seen.step
        self._trials.report(self._claimed, step, self._sign * seen.loss)
        if self._claimed.trial.should_prune():
            self._trials.stop(self._claimed, f"step {step}, validation loss {seen.loss:.4f}")

    def repeat(self) -> None:
        """Reports what the run tells nobody: validations of earlier sessions and of stages that another run trained."""
        before = 0
        for position, stage in enumerate(self._config.stages):
            rows = read_jsonl(self._directory.stage(position, stage.name) / "metrics.jsonl")
            for row in rows:
                loss = row.get("validation_loss")
                if loss is not None and row["step"] > 0:
                    self._trials.report(self._claimed, before + row["step"], self._sign * loss)
            before += max((row["step"] for row in rows), default=0)
