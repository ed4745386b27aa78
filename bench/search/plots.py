"""Pictures of a search: how it went on, what mattered, and what quality costs. Colours are those of Okabe and Ito."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.run_store import write_bytes
from bench.search.outcome import TrialRow, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.study import Study

    from bench.search.definition import Definition

_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_SIZE = (6.4, 4.0)  # inches
_DPI = 150
_FEWEST = 10  # complete trials, until anything is said of what mattered


def draw(rows: Sequence[TrialRow], study: Study, definition: Definition, folder: Path) -> tuple[list[Path], list[str]]:
    """Draws what can be drawn, each picture as SVG and PNG.

    Returns:
        The files, and why a picture is missing.
    """
    complete = [row for row in rows if row.figures is not None]
    files: list[Path] = []
    missing: list[str] = []
    if not complete:
        return files, ["no plots: no trial is complete"]
    for position, figure in enumerate(definition.figures):
        name = "history" if len(definition.rules) == 1 else f"history-{_as_file(figure)}"
        files += _saved(folder / name, partial(_history, rows=rows, definition=definition, position=position))
    found, reason = importance_of(study, definition)
    if reason:
        missing.append(f"no plot of what mattered: {reason}")
    for name, shares in found.items():
        place = folder / ("importance" if len(definition.rules) == 1 else f"importance-{_as_file(name)}")
        files += _saved(place, partial(_importance, shares=shares, metric=name))
    if len(definition.rules) == 2:
        files += _saved(folder / "pareto", partial(_pareto, rows=rows, definition=definition))
    return files, missing


def importance_of(study: Study, definition: Definition) -> tuple[dict[str, dict[str, float]], str | None]:
    """How much each setting mattered to each objective, as shares of 1; or why nothing can be said.

    By PED-ANOVA (Watanabe et al., arXiv 2304.10255), Optuna's default.
    """
    import optuna

    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < _FEWEST:
        return {}, f"{len(complete)} trials are complete, and {_FEWEST} are needed"
    found = {}
    for position, (figure, rule) in enumerate(zip(definition.figures, definition.rules, strict=True)):
        # PED-ANOVA looks at what the best trials have in common, and takes the smallest figures of a target for best.
        sign = 1 if rule.direction == "min" else -1
        if len({trial.values[position] for trial in complete}) < 2:
            return {}, f"all trials have the same {figure}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                shares = optuna.importance.get_param_importances(
                    study, target=lambda t, k=position, s=sign: s * t.values[k] if t.values else float("nan")
                )
            except (ValueError, RuntimeError) as error:
                return {}, " ".join(str(error).split())
        if not shares:
            return {}, "no setting is there in all trials"
        found[figure] = {path: float(share) for path, share in shares.items()}
    return found, None


def _history(axes: Axes, rows: Sequence[TrialRow], definition: Definition, position: int) -> None:
    rule = definition.rules[position]
    complete = [(row.number, row.figures[position]) for row in rows if row.figures is not None]
    numbers, figures = zip(*complete, strict=True)
    best: list[float] = []
    for figure in figures:
        best.append(figure if not best or rule.better(figure, best[-1]) else best[-1])
    axes.scatter(numbers, figures, s=22, color=_BLUE, label="trial", zorder=3)
    axes.step(numbers, best, where="post", color=_ORANGE, linewidth=1.6, label="best so far")
    if numbers[0] == 0:
        axes.axhline(figures[0], color=_GREY, linewidth=1, linestyle="--", label="the preset")
    others = [row.number for row in rows if row.state in ("pruned", "failed")]
    if others:  # on the lower edge, for they have no figure
        axes.scatter(
            others,
            [0.01] * len(others),
            s=26,
            marker="x",
            color=_GREEN,
            transform=axes.get_xaxis_transform(),
            label="pruned or failed",
        )
    axes.set_xlabel("trial")
    axes.set_ylabel(definition.figures[position])
    axes.set_title(f"{definition.search.name}: {rule.described}", fontsize=9)
    axes.legend(fontsize=8)


def _importance(axes: Axes, shares: Mapping[str, float], metric: str) -> None:
    ordered = sorted(shares.items(), key=lambda item: item[1])
    axes.barh([path for path, _ in ordered], [share for _, share in ordered], color=_BLUE)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of what mattered to {metric} (PED-ANOVA)")
    axes.tick_params(axis="y", labelsize=8)


def _pareto(axes: Axes, rows: Sequence[TrialRow], definition: Definition) -> None:
    first, second = definition.rules
    best = {row.number for row in front(rows, definition)}
    complete = [row for row in rows if row.figures is not None]
    for is_best, colour, marker, label in ((False, _GREY, "o", "trial"), (True, _ORANGE, "D", "Pareto front")):
        points = [row.figures for row in complete if (row.number in best) == is_best and row.figures is not None]
        if points:
            axes.scatter(
                [p[1] for p in points], [p[0] for p in points], s=28, color=colour, marker=marker, label=label, zorder=3
            )
    line = sorted((row.figures[1], row.figures[0]) for row in complete if row.number in best and row.figures)
    axes.plot([x for x, _ in line], [y for _, y in line], color=_ORANGE, linewidth=1)
    axes.set_xlabel(f"{definition.figures[1]} ({'smaller' if second.direction == 'min' else 'larger'} is better)")
    axes.set_ylabel(f"{definition.figures[0]} ({'smaller' if first.direction == 'min' else 'larger'} is better)")
    axes.set_title(definition.search.name, fontsize=9)
    axes.legend(fontsize=8)


def _saved(stem: Path, drawn: Callable[[Axes], None]) -> list[Path]:
    import matplotlib
    from matplotlib.figure import Figure

    files = []
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "molgraft"}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        drawn(axes)
        for kind in ("svg", "png"):
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {}
            figure.savefig(buffer, format=kind, dpi=_DPI, metadata=metadata)
            file = stem.with_name(f"{stem.name}.{kind}")
            write_bytes(file, buffer.getvalue())
            files.append(file)
    return files


def _as_file(metric: str) -> str:
    return metric.replace("/", "-").replace("@", "-").replace(" ", "-")
