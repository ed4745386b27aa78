"""The plan of a study: the ordered list of its runs with their identities, made before any of them begins.

The run directories are the truth about what is done; a plan only says which runs there are to be, and in which order
they are best begun. It is kept beside the runs, so that workers on any machine, and whoever watches, read the same one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.config import RunConfig
from bench.errors import ConfigError, UserError, is_user_error
from bench.estimate import Work, work_of
from bench.parsing import build, to_mapping
from bench.prepare import Prepared, prepare
from bench.registry import Registry, registry
from bench.run_store import RunDirectory, read_json, write_json
from bench.runtime import Runtime
from bench.selection import Selection
from bench.study import Study
from results.runs import ResultsError
from results.tables.request import TableRequest
from tasks.data import Catalogue

PLAN_FILE = "plan.json"
_FOLDER = ".studies"


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run of a study.

    Args:
        cell: the alias of its cell.
        config: what is run, seed included.
        cell_id: identity of the run but for its seed.
        train_id: identity of its training, by which its folder is found.
        stage_ids: identity of every stage; runs with equal ones share the stage.
    """

    cell: str
    config: RunConfig
    cell_id: str
    train_id: str
    stage_ids: tuple[str, ...]

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.config.seed

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.cell}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs of a study in the order in which they are best begun.

    Args:
        study: its name.
        runs: each once.
        select: the rule by which one cell is chosen in the end.
        work: what there is to compute, by cell; for estimates.
        question: what the study asks, in words.
        tables: what is shown of it in the end.
        scale, fidelity: those of the preset that are in force; empty for a preset that has none.
        arguments: the words behind `molgraft study` that give these runs again; empty where it was not started so.
    """

    study: str
    runs: tuple[PlannedRun, ...]
    select: Selection = field(default_factory=Selection)
    work: Mapping[str, Work] = field(default_factory=dict)
    question: str = ""
    tables: tuple[TableRequest, ...] = ()
    scale: str = ""
    fidelity: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """Aliases, in the order of their first runs."""
        return tuple(dict.fromkeys(run.cell for run in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    def write(self, folder: Path) -> Path:
        """Writes the plan into the folder of its study, whole or not at all; returns the file."""
        file = folder / PLAN_FILE
        runs = [
            {
                "cell": run.cell,
                "cell_id": run.cell_id,
                "train_id": run.train_id,
                "stage_ids": list(run.stage_ids),
                "config": to_mapping(run.config),
            }
            for run in self.runs
        ]
        work = {cell: to_mapping(described) for cell, described in self.work.items()}
        about: dict[str, Any] = {
            "study": self.study,
            "question": self.question,
            "scale": self.scale,
            "fidelity": self.fidelity,
        }
        about |= {"arguments": list(self.arguments)} if self.arguments else {}
        tables = [table.to_mapping() for table in self.tables]
        write_json(file, {**about, "select": to_mapping(self.select), "tables": tables, "work": work, "runs": runs})
        return file

    @classmethod
    def read(cls, file: Path) -> Plan:
        """The plan that was written into a file.

        Raises:
            UserError: it is no plan, or one of another version of molgraft.
        """
        written, components = read_json(file), registry()
        try:
            return cls(
                written["study"],
                _read_runs(written["runs"], components),
                build(Selection, written["select"], components, "select"),
                {cell: build(Work, row, components, f"work.{cell}") for cell, row in written.get("work", {}).items()},
                str(written.get("question", "")),
                # A plan of an older version has none of these.
                tuple(TableRequest.from_mapping(table) for table in written.get("tables", ())),
                str(written.get("scale", "")),
                str(written.get("fidelity", "")),
                tuple(map(str, written.get("arguments", ()))),
            )
        except (KeyError, TypeError, ConfigError, ResultsError) as error:
            raise UserError(
                f"{file}: is no plan that this version of molgraft can read ({error}); start the study again, which "
                "writes it anew"
            ) from None


def study_folder(runtime: Runtime, name: str) -> Path:
    """Where a study keeps its plan, beside its runs."""
    return runtime.runs / _FOLDER / name


def plan_study(
    study: Study,
    cells: Mapping[str, RunConfig],
    runtime: Runtime,
    catalogue: Catalogue | None = None,
    *,
    max_runs: int | None = None,
    retry_failed: bool = False,
) -> Plan:
    """All runs of a study, after everything that they need before training has been prepared once.

    Runs are ordered by seed first: when every cell has had its first seed, there is a whole comparison to look at, and
    each further seed narrows it. Within a seed, the runs that train stages of which others have need come first, so
    that several workers have something to train and none has to wait for another one's stage.

    Args:
        study: its name, seeds and rule of selection.
        cells: configurations by alias, as `load_study` gives them.
        runtime: where and on what; data, features and small language models are made here where they are missing.
        catalogue: the data sets known by name.
        max_runs: refuse a plan with more runs to do than this.
        retry_failed: whether failed runs count among those.

    Raises:
        UserError: something that cells need is missing or unusable, two cells are the same run, or there is too much to
            do. Nothing was run.
    """
    total = len(cells) * len(study.seeds)
    over = {"done"} if retry_failed else {"done", "failed"}
    finished = _over(runtime, over) if max_runs is not None else 0
    if max_runs is not None and total - finished > max_runs:  # whatever is done: found out before data are prepared
        raise _too_many(study, cells, max_runs, f"at least {total - finished}" if finished else str(total))
    wanted = [replace(config, seed=seed) for seed in study.seeds for config in cells.values()]
    aliases = [alias for _ in study.seeds for alias in cells]
    runs: list[PlannedRun] = []
    work: dict[str, Work] = {}
    problems: dict[str, list[str]] = {}
    for alias, config in zip(aliases, runtime.tracked(wanted, "preparing", total), strict=True):
        if any(alias in broken for broken in problems.values()):
            continue  # it lacks for every seed what it lacks for the first
        try:
            prepared = prepare(config, runtime, catalogue)
            if alias not in work:
                work[alias] = work_of(prepared, runtime)
        except Exception as error:
            if not is_user_error(error):
                raise
            problems.setdefault(str(error), []).append(alias)
            continue
        runs.append(_planned(alias, config, prepared))
    if problems:
        found = "\n  ".join(f"cell {', '.join(broken)}: {problem}" for problem, broken in problems.items())
        raise UserError(f"study {study.name}: nothing was run, since some cells cannot be:\n  {found}")
    _refuse_same(runs)
    origins = [run.config.origin for run in runs if run.config.origin is not None]
    fidelities = {origin.fidelity for origin in origins}
    plan = Plan(
        study=study.name,
        runs=_ordered(runs),
        select=study.select,
        work=work,
        question=study.question,
        tables=study.tables,
        scale=study.scale or "",
        fidelity=fidelities.pop() if len(fidelities) == 1 else "",
    )
    if max_runs is not None:
        from bench.study_states import states_of

        to_do = sum(state.state not in over for state in states_of(plan, runtime))
        if to_do > max_runs:
            raise _too_many(study, cells, max_runs, str(to_do))
    _say_if_replaced(plan, runtime)
    return plan


def _planned(alias: str, config: RunConfig, prepared: Prepared) -> PlannedRun:
    # Not the prepared configuration, in which a pretraining has been replaced by the files that it made here.
    return PlannedRun(alias, config, prepared.cell, prepared.train_id, prepared.stage_ids)


def _ordered(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Seed by seed; within a seed, runs first whose first stage no earlier run has, then whose second, and so on."""
    known: set[str] = set()
    depth: dict[str, int] = {}
    for run in runs:
        new = [position for position, identity in enumerate(run.stage_ids) if identity not in known]
        depth[run.train_id] = new[0] if new else len(run.stage_ids)
        known.update(run.stage_ids)
    seeds = {seed: place for place, seed in enumerate(dict.fromkeys(run.seed for run in runs))}
    return tuple(sorted(runs, key=lambda run: (seeds[run.seed], depth[run.train_id])))  # stable: as declared otherwise


def _refuse_same(runs: Sequence[PlannedRun]) -> None:
    """Stops where two cells train the same model: they would be one run, and whichever came last would be its name."""
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        if run.train_id in seen:
            other = seen[run.train_id]
            differ = [
                path
                for path, value in to_mapping(run.config).items()
                if path not in ("name", "origin") and value != to_mapping(other.config)[path]
            ]
            raise UserError(
                f"cells {other.cell} and {run.cell} train the same model ({run.train_id}): they differ in "
                f"{', '.join(differ) or 'nothing'}, which changes no training. Take one out; to ask a trained model in "
                "several ways, run one cell and use `molgraft predict RUN --set ...`"
            )
        seen[run.train_id] = run


def _over(runtime: Runtime, over: Collection[str]) -> int:
    """How many runs in the folder, of whatever study, will not be done again."""
    return sum(RunDirectory(file.parent).status().state in over for file in runtime.runs.glob("*/status.json"))


def _too_many(study: Study, cells: Mapping[str, RunConfig], max_runs: int, to_do: str) -> UserError:
    return UserError(
        f"--max-runs {max_runs}: study {study.name} has {to_do} runs to do, of {len(cells)} cells with "
        f"{len(study.seeds)} seeds each. Allow more, take cells with --only, leave some out with `exclude`, or take "
        "fewer seeds (--set 'seeds=[0]')"
    )


def _say_if_replaced(plan: Plan, runtime: Runtime) -> None:
    """Says that another study of this name was planned here; its runs stay, and those of both are not repeated."""
    file = study_folder(runtime, plan.study) / PLAN_FILE
    if not file.exists():
        return
    try:
        earlier = {str(row["train_id"]) for row in read_json(file)["runs"]}
    except (UserError, KeyError, TypeError):
        earlier = set()
    mine = {run.train_id for run in plan.runs}
    if earlier != mine:
        runtime.say(
            f"A study named {plan.study} was planned in {runtime.runs} before, with other content: of its "
            f"{len(earlier)} runs, {len(earlier & mine)} are among the {len(mine)} of this one. This plan takes "
            "its place; its runs stay, and what both have in common is not done again."
        )


def _read_runs(rows: Sequence[Mapping[str, Any]], components: Registry) -> tuple[PlannedRun, ...]:
    """The runs; the seeds of a cell share all of its configuration, which takes a while to build."""
    built: dict[str, RunConfig] = {}
    runs = []
    for row in rows:
        seed, rest = row["config"]["seed"], {**row["config"], "seed": 0}
        key = json.dumps(rest, sort_keys=True)
        if key not in built:
            built[key] = build(RunConfig, rest, components)
        config = replace(built[key], seed=seed)
        runs.append(PlannedRun(row["cell"], config, row["cell_id"], row["train_id"], tuple(row["stage_ids"])))
    return tuple(runs)
