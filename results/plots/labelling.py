"""Names beside points, each where it covers nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from results.plots.style import SMALL, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

# Directions and distances in points, nearest first, beside before above and below.
_PLACES = [
    (dx * far, dy * far)
    for far in (7, 12, 20, 30)
    for dx, dy in ((1, 0), (-1, 0), (0.7, 0.8), (-0.7, 0.8), (0.7, -0.8), (-0.7, -0.8), (0, 1), (0, -1))
]
_LEADER_FROM = 14
"""Points, sideways and upwards together; a nearer name needs no line to its point."""
_MARK = 4.5
"""Half the width of a point that must stay visible, in points."""


Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Named:
    """A point and its name; names of `strong` ones are bold."""

    name: str
    x: float
    y: float
    strong: bool = False


def place_names(
    figure: Figure, axes: Axes, points: Sequence[Named], lines: Sequence[Line] = (), wanted: int | None = None
) -> int:
    """Writes the names beside their points, the first ones first; returns how many points stay without a name.

    Taken are all points, lines that are level or upright, the names already written, and whatever lies outside of the
    axes. A strong name that finds no place so may cross a line. A name further away has a hairline to its point. The
    layout is settled here, since places depend on it.

    Args:
        figure, axes: finished but for the names.
        points: all points.
        lines: by their ends.
        wanted: how many of the points, from the first, are to be named; None for all.
    """
    from matplotlib.transforms import Bbox

    settle(figure)
    dot = figure.dpi / 72
    centres = [(float(x), float(y)) for x, y in axes.transData.transform([(point.x, point.y) for point in points])]
    mark = _MARK * dot
    taken = [Bbox.from_extents(x - mark, y - mark, x + mark, y + mark) for x, y in centres]
    crossed = []
    for line in lines:
        (left, bottom), (right, top) = axes.transData.transform(line)
        crossed.append(
            Bbox.from_extents(
                min(left, right) - dot, min(bottom, top) - dot, max(left, right) + dot, max(bottom, top) + dot
            )
        )
    unnamed = 0
    for place, (point, centre) in enumerate(zip(points, centres, strict=True)):
        if wanted is not None and place >= wanted:
            unnamed += 1
            continue
        written = _first_free(axes, point, centre, [*taken, *crossed], dot)
        if written is None and point.strong:  # it matters more than a line that it crosses
            written = _first_free(axes, point, centre, taken, dot, on_paper=True)
        if written is None:
            unnamed += 1
        else:
            taken.append(written)
    return unnamed


def _first_free(
    axes: Axes, point: Named, centre: tuple[float, float], taken: list[Bbox], dot: float, *, on_paper: bool = False
) -> Bbox | None:
    """Writes a name and returns what it covers; None, and nothing written, where it would cover something anywhere.

    `on_paper` puts a piece of paper under the name, which hides the lines that it crosses.
    """
    from matplotlib.transforms import Bbox

    text = axes.annotate(
        point.name, (point.x, point.y), (0, 0), textcoords="offset points", fontsize=SMALL, ha="left", va="center",
        fontweight="bold" if point.strong else "normal", annotation_clip=False, zorder=5,
    )  # fmt: skip
    if on_paper:
        text.set_bbox({"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.6})
    size = text.get_window_extent()
    width, height = size.width, size.height
    frame = axes.get_window_extent()
    for dx, dy in _PLACES:
        # The name begins right of the point, ends left of it, or is centred above or below.
        shift = 0.0 if dx > 0 else -width if dx < 0 else -width / 2
        x, y = centre[0] + dx * dot + shift, centre[1] + dy * dot
        box = Bbox.from_extents(x, y - height / 2, x + width, y + height / 2)
        inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        if inside and not any(box.overlaps(other) for other in taken):
            # Aligned by the side that faces the point, since widths of letters differ a little between resolutions.
            text.set_horizontalalignment("left" if dx > 0 else "right" if dx < 0 else "center")
            text.set_position((dx, dy))
            if abs(dx) + abs(dy) > _LEADER_FROM:
                axes.annotate(
                    "", (point.x, point.y), (dx, dy), textcoords="offset points", zorder=2,
                    arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": text.get_color(), "alpha": 0.6,
                                "shrinkA": 0, "shrinkB": 4},
                )  # fmt: skip
            return box.padded(2 * dot)
    text.remove()
    return None
