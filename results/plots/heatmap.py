"""Tables of shaded fields with their numbers in them; drawn as shapes, so that they stay sharp and hold no picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from results.plots.axes import is_number
from results.plots.style import SMALL, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Not black and white themselves, which in a page would turn with the theme; fields keep their shade, and so does this.
_ON_LIGHT, _ON_DARK = "#010101", "#fefefe"
_NAME = "cividis"  # rises evenly in lightness, for all eyes and in grey print
_LOWEST, _HIGHEST = 0.10, 1.0
_SMALLEST = 5.5
"""Points; where fields have no room for numbers as large as this, they have none."""


def shade_fields(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    written: Callable[[int, int], str],
    limits: tuple[float, float],
    theme: Theme,
    field: tuple[float, float],
    panel: int = 0,
) -> None:
    """Draws a table of values, the first row at the top.

    Args:
        axes: where.
        values: rows of columns; a field without a value is hatched.
        written: what stands in the field of a row and a column.
        limits: the values of the darkest and of the lightest field.
        theme: light or dark.
        field: width and height of a field in inches, by which the size of its text is chosen.
        panel: number of the axes among several, for the ids of fields.
    """
    from matplotlib.patches import Rectangle

    columns = max(len(row) for row in values)
    texts = [[written(r, c) for c in range(len(row))] for r, row in enumerate(values)]
    size = _size_of_text([text for row in texts for text in row], field)
    for r, row in enumerate(values):
        for c, value in enumerate(row):
            shape: dict[str, Any] = {"linewidth": 0.6, "edgecolor": theme.paper, "gid": f"field-{panel}-{r}-{c}"}
            if is_number(value):
                colour = shade(value, limits)
                axes.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, facecolor=colour, **shape))
                ink = _ON_LIGHT if _lightness(colour) > 0.4 else _ON_DARK
            else:
                axes.add_patch(Rectangle((c - 0.5, r - 0.5), 1, 1, facecolor=theme.paper, hatch="////", **shape))
                ink = theme.ink
            if size is not None and texts[r][c]:
                axes.text(
                    c, r, texts[r][c], ha="center", va="center_baseline", fontsize=size, color=ink, linespacing=1.15
                )
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shade(value: float, limits: tuple[float, float]) -> tuple[float, float, float]:
    """The colour of a value, red, green and blue from 0 to 1."""
    from matplotlib import colormaps

    low, high = limits
    share = 0.5 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))
    red, green, blue, _ = colormaps[_NAME](_LOWEST + share * (_HIGHEST - _LOWEST))
    return float(red), float(green), float(blue)


def colour_bar(figure: Figure, axes: Any, limits: tuple[float, float], name: str, theme: Theme) -> None:
    """The scale of shades beside the axes, in steps that are shapes too."""
    from matplotlib.ticker import MaxNLocator

    bar = figure.colorbar(_scale(limits), ax=axes, aspect=28, pad=0.02, fraction=0.05)
    bar.set_label(name, color=theme.ink)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))


def turn_names(axes: Axes, names: Sequence[str], *, turned: bool) -> None:
    """Names of columns below them, turned where they are too long to stand beside each other."""
    rotation: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(range(len(names)), labels=list(names), **rotation)


def _scale(limits: tuple[float, float]) -> Any:
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low, high = limits
    steps = [shade(float(value), (0.0, 1.0)) for value in np.linspace(0, 1, 24)]
    return ScalarMappable(Normalize(low, high if high > low else low + 1.0), ListedColormap(steps))


def _size_of_text(texts: Sequence[str], field: tuple[float, float]) -> float | None:
    lines = [line for text in texts for line in text.split("\n")]
    longest = max(map(len, lines), default=0)
    if longest == 0:
        return None
    high = max(text.count("\n") + 1 for text in texts)
    fitting = min(SMALL, 72 * field[0] * 0.9 / (0.62 * longest), 72 * field[1] * 0.85 / (1.2 * high))
    return fitting if fitting >= _SMALLEST else None


def _lightness(colour: tuple[float, float, float]) -> float:
    """Relative luminance by its definition in sRGB, brought to an even scale."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return math.sqrt(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
