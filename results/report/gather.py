"""What a report shows, read from stored runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.metrics import Directions
from results.packed import StudyOnFile, read_study
from results.report import figures, recipe
from results.report.again import commands_of, places_of
from results.report.chosen import requests_of
from results.report.content import Part, Report, Unfinished
from results.report.parts import build_part
from results.report.provenance import origins
from results.runs import PACKED_RUN, PACKED_STUDY, NothingScoredError, ResultsError, Run, read_runs

Tracked = Callable[[Sequence[Any], str], Iterable[Any]]
"""Shows how far a loop over some items is; told what it is about."""


def read_source(source: str | Path, runs: Path = Path("runs")) -> StudyOnFile:
    """A study by its name, a packed one by its folder; or runs that no study holds together, as if one did.

    Args:
        source: name of a study, folder of a packed one, folder of runs, run directory, or file of a packed run.
        runs: where a study of that name was run.

    Raises:
        ResultsError: there is neither.
    """
    path = Path(source)
    is_name = path.name == str(source) and (runs / ".studies" / path.name / "plan.json").exists()
    is_loose = path.is_dir() or path.name.endswith(PACKED_RUN)
    if is_name or not is_loose or (path / PACKED_STUDY).exists():
        return read_study(source, runs)
    found = read_runs([path])
    cells = tuple(dict.fromkeys(run.name for run in found))
    name = found[0].name if len(found) == 1 else path.resolve().name
    return StudyOnFile(name, "", (), tuple(found), cells, (), {})


def build_report(
    study: StudyOnFile,
    *,
    metric: str | None = None,
    compare_to: str | None = None,
    per_list: int | None = None,
    tracked: Tracked = lambda items, _: items,
) -> Report:
    """A report of a study.

    Args:
        study: with its runs.
        metric: that decides; None for the first of each table.
        compare_to: the cell that all others are compared with; None for the one that the study names, or the best.
        per_list: examples of each list of each cell; None for the default.
        tracked: for progress bars.

    Raises:
        ResultsError: the study has no such metric or cell, or a file cannot be read.
    """
    if compare_to is not None and compare_to not in study.cells:
        raise ResultsError(f"{compare_to}: no cell of {study.name}; there are {', '.join(study.cells)}")
    requests = requests_of(study)
    share = 1 / max(1, len(requests))
    parts: list[Part] = []
    lacking: list[Unfinished] = []
    for request in tracked(requests, "tables, tests and plots"):
        wanted = request if compare_to is None else replace(request, reference=compare_to)
        try:
            parts.append(build_part(study, wanted, metric=metric, per_list=per_list, share=share))
        except NothingScoredError as error:
            title = request.title.rstrip(".") or request.name or f"{request.task} on {request.data}"
            lacking.append(Unfinished(title, None, "no scores yet", str(error)))
    if metric is not None and requests and all(part.metric != metric for part in parts):
        raise ResultsError(f"--metric {metric}: no table has it; there are {', '.join(dict.fromkeys(_metrics(study)))}")
    unfinished = (*lacking, *_unfinished(study))
    configs = _configs(study)
    done = [run for run in study.runs if run.state == "done"]
    scores = [score for run in done for entry in run.summary["evaluations"] for score in entry.get("scores", ())]
    labels = dict.fromkeys(standing.cell for part in parts for standing in part.standings)
    ranks = figures.of_ranks([_larger_is_better(part, study.directions) for part in parts], list(labels))
    return Report(
        study=study.name,
        question=" ".join(study.question.split()),
        parts=tuple(parts),
        cells=study.cells,
        runs=(len(study.runs) + len(study.missing), len(done)),
        unfinished=unfinished,
        differences=tuple(recipe.differences(configs)),
        common=recipe.as_yaml(recipe.settings_in_common(configs)) if configs else "",
        configs={cell: recipe.as_yaml(config) for cell, config in configs.items()},
        prompts=tuple(_prompts(study.runs)),
        origins=tuple(origins(study.runs, scores)),
        identities=tuple(_identities(study)),
        commands=tuple(commands_of(study)),
        places=places_of(study, _told(study, parts, unfinished)),
        about=_about(study.about),
        ranks=ranks,
    )


def _larger_is_better(part: Part, directions: Directions) -> dict[str, float]:
    sign = -1 if directions.better(part.metric) == "smaller" else 1
    return {standing.cell: sign * standing.value for standing in part.standings if not standing.counted}


def _metrics(study: StudyOnFile) -> Iterator[str]:
    for run in study.runs:
        for entry in run.summary.get("evaluations", ()):
            for score in entry.get("scores", ()):
                yield from score["metrics"]


def _told(study: StudyOnFile, parts: Sequence[Part], unfinished: Sequence[Unfinished]) -> Iterator[str]:
    """Sentences in which a path may stand: what the study asks, messages of failures, reasons, titles."""
    yield study.question
    yield from (run.message for run in unfinished)
    for part in parts:
        yield part.title
        yield from (row.reason for row in part.reliance)
        yield from (reason for row in part.invalid for reason, _ in row.reasons)


def _configs(study: StudyOnFile) -> dict[str, Mapping[str, Any]]:
    """The configuration of each cell, by its alias, without what tells its runs apart."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in study.runs:
        if run.config and run.name not in found:
            found[run.name] = {**run.config, "name": run.name}
    return found


def _unfinished(study: StudyOnFile) -> Iterator[Unfinished]:
    for run in study.runs:
        if run.state != "done":
            state = f"{run.state} ({run.error})" if run.error else run.state
            yield Unfinished(run.name, run.seed, state, run.message or "")
    for cell, seed in study.missing:
        yield Unfinished(cell, seed, "not begun", "")


def _prompts(runs: Sequence[Run]) -> Iterator[Mapping[str, Any]]:
    """Of each task the first example that any run shows."""
    told = set()
    for run in runs:
        for prompt in run.manifest.get("prompts", ()):
            if prompt.get("task") not in told:
                told.add(prompt.get("task"))
                yield prompt


def _identities(study: StudyOnFile) -> Iterator[tuple[str, ...]]:
    for run in study.runs:
        identity = run.summary.get("train_id") or run.manifest.get("train_id") or run.folder.name.rpartition("-")[2]
        yield (
            run.name,
            recipe.ABSENT if run.seed is None else str(run.seed),
            str(identity).removesuffix(PACKED_RUN),
            run.state,
        )
    for cell, seed in study.missing:
        yield cell, str(seed), recipe.ABSENT, "not begun"


def _about(about: Mapping[str, Any]) -> dict[str, str]:
    found = {key: str(about[key]) for key in ("scale", "fidelity") if about.get(key)}
    select = about.get("select")
    if isinstance(select, Mapping) and select.get("metric"):
        found["a cell is selected by"] = "validation loss" if select["metric"] == "loss" else str(select["metric"])
    return found
