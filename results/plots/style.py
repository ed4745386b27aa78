"""How plots look: two themes, series that differ in more than colour, and names that fit and mean nothing else."""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

WIDTH = 7.2
"""Inches: two columns of a journal (183 mm)."""

TEXT, SMALL = 8.5, 7.5
"""Points. Journals ask for at least 5 to 7 at the printed size."""

_LONGEST_NAME = 34
_POSITIONS: tuple[Literal["original"], Literal["active"]] = ("original", "active")

# matplotlib keeps its settings in one place for the whole process, so two threads must not change them at once.
_SETTINGS = threading.RLock()


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of a figure. No two fields of a theme are equal, so that a colour tells which field it is.

    Args:
        name: `light` or `dark`.
        paper: background.
        ink: text, and marks that need no colour.
        dim: secondary text.
        grid: lines that guide the eye.
        faint: curves that stand behind others.
        band: areas behind marks.
        colours: of series; Okabe and Ito's palette, which the colour-blind tell apart, without its yellow, and darkened
            (on dark paper lightened) until each has a contrast of 3 to 1 with the paper.
    """

    name: str
    paper: str
    ink: str
    dim: str
    grid: str
    faint: str
    band: str
    colours: tuple[str, ...]


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1b1b1b",
    dim="#595959",
    grid="#e3e3e3",
    faint="#c2c2c2",
    band="#f0f0f0",
    colours=("#0064a0", "#c48000", "#12805f", "#c8629b", "#9c3206", "#4599d3", "#3c3c3c"),
)
DARK = Theme(
    name="dark",
    paper="#111418",
    ink="#ececec",
    dim="#b0b4ba",
    grid="#2b3038",
    faint="#5b616b",
    band="#1f242b",
    colours=("#3f97dc", "#f2b632", "#22ab80", "#ef9fcb", "#e0622a", "#b5e2fb", "#7f848c"),
)
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


@dataclass(frozen=True, slots=True)
class Look:
    """How one series of several is drawn; its colour, its marker and its dashes each tell it from the others."""

    colour: str
    marker: str
    dashes: Any


_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)))


def look(place: int, theme: Theme) -> Look:
    """The look of the series at a place; 7 colours, 11 markers and 5 dashes repeat together after 385."""
    return Look(
        theme.colours[place % len(theme.colours)],
        _MARKERS[place % len(_MARKERS)],
        _DASHES[place % len(_DASHES)],
    )


@contextmanager
def settings(theme: Theme = LIGHT) -> Iterator[None]:
    """matplotlib's own defaults with our changes, whatever the user's matplotlibrc or notebook has set."""
    import matplotlib

    ours = {
        "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine has the same
        "font.size": TEXT,
        "axes.labelsize": TEXT,
        "axes.titlesize": TEXT,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "legend.handlelength": 2.2,
        "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        "text.usetex": False,
        "text.hinting": "none",  # hinted letters are wider or narrower by resolution, and the layout must hold for all
        "axes.formatter.useoffset": False,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "axes.grid": False,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.3,
        "lines.markersize": 5,
        "hatch.linewidth": 0.6,
        "path.simplify": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "molgraft",
        "savefig.bbox": None,
        "figure.dpi": 100,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "savefig.facecolor": "auto",
        "axes.edgecolor": theme.dim,
        "axes.labelcolor": theme.ink,
        "text.color": theme.ink,
        "xtick.color": theme.dim,
        "ytick.color": theme.dim,
        "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink,
        "grid.color": theme.grid,
        "hatch.color": theme.faint,
    }
    with _SETTINGS, matplotlib.rc_context():
        defaults: dict[str, Any] = {
            key: value for key, value in matplotlib.rcParamsDefault.items() if not _is_of_process(key)
        }
        current: Any = matplotlib.rcParams  # its type lists the keys of one version of matplotlib
        current.update(defaults | ours)
        yield


def _is_of_process(key: str) -> bool:
    """Settings of windows and backends, which no plot depends on and which must not be touched."""
    return key.startswith(("backend", "interactive", "toolbar", "webagg", "date", "tk.", "timezone", "keymap"))


@contextmanager
def drawing(theme: Theme, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """An empty figure, laid out so that nothing overlaps; for the time that it is drawn on, our settings hold."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with settings(theme):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        layout_of(figure).set(w_pad=0.07, h_pad=0.05)
        yield figure
        _clean(figure)
        settle(figure)


def settle(figure: Figure) -> None:
    """Lays the figure out for good.

    Where things stand would else depend on the resolution and on how often the figure was drawn before, since every
    drawing begins where the one before ended.
    """
    for _ in range(2):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        # The layout's solver sums in an order that changes from run to run, and with it the last digits.
        for which in _POSITIONS:
            left, bottom, width, height = axes.get_position(original=which == "original").bounds
            axes.set_position((round(left, 5), round(bottom, 5), round(width, 5), round(height, 5)), which=which)


def _clean(figure: Figure) -> None:
    """Takes out of all texts what the font cannot show: plug-ins and data sets too name what plots show."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        lines = text.get_text().split("\n")
        cleaned = "\n".join(_shown(line) for line in lines)
        if cleaned != text.get_text():
            text.set_text(cleaned)


def layout_of(figure: Figure) -> ConstrainedLayoutEngine:
    """What lays a figure out."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    return engine


def theme_of(figure: Figure) -> Theme:
    """The theme that a figure was drawn in."""
    from matplotlib.colors import to_hex

    return DARK if to_hex(figure.get_facecolor()) == DARK.paper else LIGHT


def labels(names: Sequence[str], longest: int = _LONGEST_NAME) -> list[str]:
    """The names as they are drawn: one line each, short enough, of characters that the font has; equal only if equal.

    What is cut out of a long name is its middle, since names of cells differ at their ends; where two long names become
    equal by it, each gets a number.
    """
    shown = [_short(_printable(name), longest) for name in names]
    meant: dict[str, dict[str, int]] = {}
    for short, name in zip(shown, names, strict=True):
        places = meant.setdefault(short, {})
        places.setdefault(name, len(places) + 1)
    return [
        f"{short} ({meant[short][name]})" if len(meant[short]) > 1 else short
        for short, name in zip(shown, names, strict=True)
    ]


def label(name: str, longest: int = _LONGEST_NAME) -> str:
    """One name as it is drawn."""
    return labels([name], longest)[0]


def one_line(text: str) -> str:
    """Text without line breaks, control characters and marks that turn the direction of writing."""
    kept = (" " if unicodedata.category(c) in ("Zl", "Zp", "Cc") else c for c in text)
    visible = "".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Cn", "Co"))
    return " ".join(visible.split())


def _printable(name: str) -> str:
    return _shown(one_line(name)) or "(no name)"


def _shown(text: str) -> str:
    known = _characters()
    return "".join(c if ord(c) in known and c.isprintable() else "\ufffd" for c in text)


@cache
def _characters() -> frozenset[int]:
    """What the font can show; any other character would be an empty box and a warning on every drawing."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def _short(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    head = (longest - 1) * 3 // 5
    return f"{name[:head].rstrip()}…{name[len(name) - (longest - 1 - head) :].lstrip()}"


def width_of(text: str, size: float = SMALL) -> float:
    """How wide a line of text is drawn, in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def twice(names: Sequence[str]) -> list[str]:
    """The names that stand there more than once."""
    return [name for name, times in Counter(names).items() if times > 1]
