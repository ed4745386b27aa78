"""Loss over steps of training, stage after stage: learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from results.formats import counted
from results.plots.axes import as_float, is_number, left_out, legend, panels
from results.plots.output import describe, foot, name_axes
from results.plots.style import LIGHT, SMALL, Look, Theme, drawing, labels, look
from results.runs import ResultsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_TOGETHER = 6
"""Cells in one panel; more have a panel each, with all others behind."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """A loss at one step of one run.

    Args:
        name: of the cell.
        stage: of training; a run's rows name its stages in their order.
        step: within the stage.
        loss: nats per token.
        seed: of the run.
        kind: of the loss; that of training is the mean since the row before.
        kept: whether the weights of this step are those that the stage handed on.
    """

    name: str
    stage: str
    step: int
    loss: float | None
    seed: int = 0
    kind: Literal["validation", "training"] = "validation"
    kept: bool = False


def learning_curves(rows: Sequence[LossRow], *, stages: Sequence[str] = (), theme: Theme = LIGHT) -> Figure:
    """Curves of cells: a line through the mean over seeds at the steps that all seeds have, a band over their range.

    Stages stand one behind the other on the axis of steps, each with its name, in an order that is that of every run
    (`in_order`): a run without the first stage does not put its own stage before that. A ring is the step whose
    weights were kept; dots without markers are the training loss. Up to 6 cells share a panel; more have one each, in
    which the others are grey.

    Args:
        rows: of all cells.
        stages: all stages in their order, where rows alone do not tell it (`results.plots.rows.stage_order`).
        theme: light or dark.

    Raises:
        ResultsError: no row has a loss.
    """
    drawn = [row for row in rows if is_number(row.loss)]
    if not drawn:
        raise ResultsError(f"learning curves: none of {counted(len(rows), 'row')} has a loss")
    names = list(dict.fromkeys(row.name for row in drawn))
    shown = dict(zip(names, labels(names), strict=True))
    starts = _starts(drawn, stages)
    together = len(names) <= MOST_TOGETHER
    count, columns = (1, 1) if together else (len(names), 4)
    height = 3.7 if together else 0.7 + 1.45 * -(-count // columns)
    with drawing(theme, height=height) as figure:
        grid = panels(figure, count, columns)
        for place, name in enumerate(names):
            axes = grid[0 if together else place]
            looks = look(place if together else 0, theme)
            if not together:
                for other in names:
                    if other != name:
                        _background(axes, [row for row in drawn if row.name == other], starts, theme)
                axes.set_title(labels([name], 24)[0], fontsize=SMALL, loc="left")
            _curve(axes, [row for row in drawn if row.name == name], starts, looks, shown[name], theme, place)
        for axes in grid:
            _stages(axes, starts, theme, named=together)
        if together:
            legend(figure, grid[0])
        foot(figure, _notes(rows, drawn, list(starts), together))
        name_axes(figure, "step", "loss, nats per token")
        describe(figure, f"Loss over steps of {counted(len(names), 'cell')}. {_said(drawn, names)}")
    return figure


def in_order(runs: Iterable[Sequence[str]]) -> list[str]:
    """The stages of all runs in one order that is each run's own, as far as runs do not contradict each other.

    Args:
        runs: the stages of each run, in its order; runs may lack some, first ones too.
    """
    known = [list(dict.fromkeys(stages)) for stages in runs]
    left = list(dict.fromkeys(stage for stages in known for stage in stages))
    order: list[str] = []
    while left:
        behind = {stage for stages in known for stage in stages[1:]}
        following = next((stage for stage in left if stage not in behind), left[0])
        order.append(following)
        left.remove(following)
        known = [[stage for stage in stages if stage != following] for stages in known]
    return order


def _starts(rows: Sequence[LossRow], stages: Sequence[str]) -> dict[str, int]:
    """Where each stage begins on the axis that all share: behind the longest run of the stage before."""
    runs: dict[tuple[str, int], list[str]] = {}
    for row in rows:
        runs.setdefault((row.name, row.seed), []).append(row.stage)
    starts, end = {}, 0
    for stage in in_order([stages, *runs.values()]):
        if not any(row.stage == stage for row in rows):
            continue
        starts[stage] = end
        end += max(row.step for row in rows if row.stage == stage)
    return starts


def _by_seed(rows: Iterable[LossRow], stage: str, kind: str) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {}
    for row in rows:
        if row.stage == stage and row.kind == kind and is_number(row.loss):
            found.setdefault(row.seed, {})[row.step] = row.loss
    return found


def _shared(seeds: Mapping[int, Mapping[int, float]]) -> tuple[list[int], list[list[float]]]:
    """The steps that all seeds have, and their losses there."""
    steps = sorted(set.intersection(*(set(losses) for losses in seeds.values()))) if seeds else []
    return steps, [[losses[step] for losses in seeds.values()] for step in steps]


def _curve(
    axes: Axes,
    rows: Sequence[LossRow],
    starts: Mapping[str, int],
    looks: Look,
    shown: str,
    theme: Theme,
    place: int,
) -> None:
    for number, (stage, start) in enumerate(starts.items()):
        for kind in ("training", "validation"):
            seeds = _by_seed(rows, stage, kind)
            steps, losses = _shared(seeds)
            if not steps:
                continue
            across = [start + step for step in steps]
            mean = [sum(values) / len(values) for values in losses]
            if kind == "training":
                axes.plot(across, mean, color=looks.colour, linewidth=0.8, linestyle=":", alpha=0.9, zorder=2)
                continue
            if len(seeds) > 1:
                low, high = [min(values) for values in losses], [max(values) for values in losses]
                axes.fill_between(across, low, high, color=looks.colour, alpha=0.18, linewidth=0, zorder=1)
            axes.plot(
                across, mean, color=looks.colour, linestyle=looks.dashes, marker=looks.marker, markersize=4,
                markevery=max(1, len(across) // 12), zorder=3, label=shown, gid=f"curve-{place}-{number}",
            )  # fmt: skip
            shown = f"_{shown}"  # the legend leaves out what begins so: each cell stands in it once
        kept = _kept([row for row in rows if row.kept and row.stage == stage and row.kind == "validation"])
        axes.plot(
            [start + step for step, _ in kept], [loss for _, loss in kept], linestyle="none", marker="o", markersize=8,
            markerfacecolor="none", markeredgecolor=theme.ink, markeredgewidth=0.8, zorder=4,
        )  # fmt: skip


def _kept(rows: Sequence[LossRow]) -> list[tuple[int, float]]:
    """Where rings stand: on the mean where all seeds kept the same step, else on each seed's own loss."""
    losses = [as_float(row.loss) for row in rows]
    if rows and len({row.step for row in rows}) == 1:
        return [(rows[0].step, sum(losses) / len(losses))]
    return [(row.step, loss) for row, loss in zip(rows, losses, strict=True)]


def _background(axes: Axes, rows: Sequence[LossRow], starts: Mapping[str, int], theme: Theme) -> None:
    for stage, start in starts.items():
        steps, losses = _shared(_by_seed(rows, stage, "validation"))
        mean = [sum(values) / len(values) for values in losses]
        axes.plot([start + step for step in steps], mean, color=theme.faint, linewidth=0.6, zorder=0)


def _stages(axes: Axes, starts: Mapping[str, int], theme: Theme, *, named: bool) -> None:
    """Where stages begin, and which."""
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.grid(True, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8 if named else 4, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for stage, start in starts.items():
        if start:
            axes.axvline(start, color=theme.dim, linewidth=0.7, linestyle=(0, (2, 2)), zorder=0)
        if named and len(starts) > 1:
            axes.annotate(
                labels([stage], 16)[0], (start, 1), (0, 2), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", ha="left", va="bottom", fontsize=SMALL, color=theme.dim,
            )  # fmt: skip


def _notes(rows: Sequence[LossRow], drawn: Sequence[LossRow], stages: Sequence[str], together: bool) -> list[str]:
    notes = []
    if len(stages) > 1:
        notes.append(f"Stages follow each other: {', '.join(labels(list(stages), 16))}; steps are counted through.")
    seeds = max(len({row.seed for row in drawn if row.name == name}) for name in {row.name for row in drawn})
    if seeds > 1:
        notes.append("Lines: mean over seeds; bands: their range.")
    if any(row.kept for row in drawn):
        notes.append("Rings: weights that were kept.")
    if any(row.kind == "training" for row in drawn):
        notes.append("Dotted without markers: training loss.")
    if not together:
        notes.append("Grey: the other cells.")
    return notes + left_out(len(rows) - len(drawn), "loss that is not finite", "losses that are not finite")


def _said(drawn: Sequence[LossRow], names: Sequence[str]) -> str:
    last = {row.name: row for row in drawn if row.kind == "validation"}
    return " ".join(f"{name} ends at {last[name].loss:.4g}." for name in names if name in last)
