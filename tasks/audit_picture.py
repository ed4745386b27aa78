"""The leakage matrix as a picture: one cell for each evaluation set and corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.audit_keys import Level
from tasks.audit_report import MARK, SUBSTITUTE, marked
from tasks.base import TaskError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_WIDTH, _CELL_HEIGHT = 0.72, 0.34  # inches: two lines of 7 pt, which is readable on paper
_POINTS = 7.0
_DOTS = 300  # per inch, as printers want
_WIDEST = 12_000  # pixels; larger pictures are refused by many viewers
_DARK = 0.65  # share from which on white letters read better

_TITLES: Mapping[Level, str] = {
    "canonical": "canonical SMILES",
    "inchikey": "first block of the InChIKey",
    "scaffold": "Bemis-Murcko scaffold",
}


def draw(report: Mapping[str, Any], folder: Path, *, level: Level = "inchikey") -> list[Path]:
    """Writes `audit.svg` and `audit.png` into `folder`: counts as numbers, shares of the evaluation set as colours.

    A colour grows darker with the share, so that a print without colour says the same.

    Args:
        report: of `tasks.audit.audit`.
        folder: must exist.
        level: the key whose share gives the colour; the numbers are those of canonical SMILES and of first blocks.

    Returns:
        The files; none where the report has no matrix.

    Raises:
        TaskError: matplotlib is not installed, or a file cannot be written.
    """
    if not report["leakage"]:
        return []
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TaskError("the picture needs matplotlib: pip install matplotlib") from error

    # A fixed salt and no date: equal reports give equal files.
    with matplotlib.rc_context({"font.size": _POINTS, "svg.fonttype": "none", "svg.hashsalt": "molgraft"}):
        figure = Figure(layout="constrained")
        _paint(figure, report, level)
        paths = [folder / "audit.svg", folder / "audit.png"]
        try:
            figure.savefig(paths[0], metadata={"Date": None})
            dots = min(_DOTS, _WIDEST / max(figure.get_size_inches()))
            figure.savefig(paths[1], dpi=dots, metadata={"Software": None})
        except OSError as error:
            raise TaskError(f"cannot write {folder}: {error.strerror or error}") from error
    return paths


def _paint(figure: Figure, report: Mapping[str, Any], level: Level) -> None:
    evaluations = [each["name"] for each in report["evaluations"]]
    corpora = [each["name"] for each in report["corpora"]]
    cells = {(each["evaluation"], each["corpus"]): each for each in report["leakage"]}
    labels = [marked(each) for each in report["corpora"]]
    width = _CELL_WIDTH * len(corpora) + 0.08 * max(map(len, evaluations)) + 1.2
    height = _CELL_HEIGHT * len(evaluations) + 0.055 * max(map(len, labels)) + 0.9
    figure.set_size_inches(max(width, 4.5), max(height, 2.2))
    axes = figure.subplots()
    shares = [[share(cells[evaluation, corpus], level) for corpus in corpora] for evaluation in evaluations]
    image = axes.imshow(
        [[value or 0.0 for value in row] for row in shares], cmap="Blues", vmin=0, vmax=1, aspect="auto"
    )
    for row, evaluation in enumerate(evaluations):
        for column, corpus in enumerate(corpora):
            value = shares[row][column]
            colour = "white" if value is not None and value > _DARK else "black"
            shown = cells[evaluation, corpus]["shared"]
            axes.text(column, row, _text(shown, value), ha="center", va="center", color=colour, fontsize=_POINTS - 1)
    axes.set_xticks(range(len(corpora)), labels, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(evaluations)), evaluations)
    axes.set_xticks([column - 0.5 for column in range(1, len(corpora))], minor=True)
    axes.set_yticks([row - 0.5 for row in range(1, len(evaluations))], minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel(f"corpus ({MARK} {SUBSTITUTE})" if any(label.endswith(MARK) for label in labels) else "corpus")
    axes.set_ylabel("evaluation set")
    axes.set_title(
        "Molecules of evaluation sets found in corpora\n"
        f"numbers: canonical SMILES / first block of the InChIKey; colour: share by {_TITLES[level]}",
        fontsize=_POINTS + 1,
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1.0], labels=["0 %", "25 %", "50 %", "75 %", "100 %"])


def share(cell: Mapping[str, Any], level: Level) -> float | None:
    """The part of an evaluation set's keys that a corpus holds; by canonical SMILES where `level` was not compared."""
    used = level if cell["shared"][level] is not None else "canonical"
    shared, total = cell["shared"][used], cell["unique"][used]
    return shared / total if total and shared is not None else None


def _text(shared: Mapping[str, int | None], value: float | None) -> str:
    if value is None:
        return "-"
    counts = " / ".join(f"{shared[level]:,}" for level in ("canonical", "inchikey") if shared[level] is not None)
    return f"{counts}\n{100 * value:.1f} %"
