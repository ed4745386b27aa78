"""Figures as files and in pages: equal data give equal bytes, and nothing in them refers to anything outside."""

from __future__ import annotations

import hashlib
import re
from html import escape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from results.plots.style import DARK, LIGHT, SMALL, Theme, layout_of, one_line, settings, theme_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
"""Of the PNG: 1,440 pixels at two columns of a journal."""

_INCHES_A_LINE = 0.145
_INCHES_OF_A_NAME = 0.18


def write(figure: Figure, path: str | Path) -> tuple[Path, Path]:
    """Writes `<path>.svg` and `<path>.png`, and says where; the folder is made.

    Letters are written as outlines, so that the figure looks the same wherever it is opened and needs no font; what it
    shows is said in words in the SVG's `<title>`. Neither file holds a date, a version or the name of a machine: with
    the same matplotlib, equal data give equal bytes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = (path.with_name(path.name + ".svg"), path.with_name(path.name + ".png"))
    for file, content in zip(files, (svg_file(figure).encode(), png(figure)), strict=True):
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_bytes(content)
        unfinished.replace(file)
    return files


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 200 dots per inch."""
    buffer = BytesIO()
    with settings(theme_of(figure)):
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg_file(figure: Figure) -> str:
    """The figure as an SVG document of its own."""
    body = _drawn(figure)
    title = f"<title>{escape(described(figure))}</title>"
    opened = body.index(">") + 1
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body[:opened]}\n{title}{body[opened:]}'


def svg(figure: Figure, prefix: str | None = None) -> str:
    """The figure as an `<svg>` element to stand in an HTML page.

    Its ids begin with `prefix`, by default made from what is drawn, so that several figures fit one page. It holds no
    style sheet and no `style` attribute, so that it neither changes the page around it nor is stopped by a content
    security policy. The colours of its theme are CSS variables, with the theme's own as they stand where the page sets
    none: with `page_css` one figure is light and dark as the page is. What is drawn on a scale of colours keeps them.
    """
    body = _drawn(figure)
    prefix = prefix or f"plot-{hashlib.sha256(body.encode()).hexdigest()[:12]}"
    body = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for name, colour in _variables(theme_of(figure)).items():
        body = re.sub(rf'="{colour}"', f'="var({name}, {colour})"', body)
    said = escape(described(figure), quote=True)
    return body.replace("<svg ", f'<svg class="plot" role="img" aria-label="{said}" ', 1)


def page_css() -> str:
    """The style sheet of figures that stand in a page of `results.page`: their colours follow the page's theme."""
    light, dark = (_declared(_variables(theme) | {"--plot-paper": "var(--ground)"}) for theme in (LIGHT, DARK))
    return (
        f":root {{ {light} }}\n"
        f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{ {dark} }} }}\n'
        f':root[data-theme="dark"] {{ {dark} }}\n'
        "svg.plot { max-width: 100%; height: auto; }\n"
    )


def describe(figure: Figure, text: str) -> None:
    """Keeps what a figure shows in words, for whoever cannot see it."""
    figure.set_label(one_line(text))


def described(figure: Figure) -> str:
    """What a figure shows, in words."""
    return str(figure.get_label())


def foot(figure: Figure, notes: list[str]) -> None:
    """Writes notes below everything else and makes the figure higher by as much."""
    import textwrap

    theme = theme_of(figure)
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(" ".join(notes), width=int(width / 0.0585))
    if not lines:
        return
    added = len(lines) * _INCHES_A_LINE + 0.06
    figure.set_size_inches(width, height + added)
    share = added / (height + added)
    layout_of(figure).set(rect=(0, share, 1, 1 - share))
    figure.text(
        0.05 / width, share, "\n".join(lines), fontsize=SMALL, color=theme.dim, ha="left", va="top", linespacing=1.3
    )


def name_axes(figure: Figure, across: str, down: str) -> None:
    """Names the axes that all panels share; after `foot`, above which the lower name stands."""
    # The layout places such names itself, but at the edges of the figure, where the notes stand.
    left, bottom, width, height = layout_of(figure).get()["rect"]
    beside, below = _INCHES_OF_A_NAME / figure.get_figwidth(), _INCHES_OF_A_NAME / figure.get_figheight()
    layout_of(figure).set(rect=(left + beside, bottom + below, width - beside, height - below))
    figure.text(left + beside + (width - beside) / 2, bottom + below, across, ha="center", va="top")
    figure.text(left + beside, bottom + below + (height - below) / 2, down, ha="right", va="center", rotation=90)


def _variables(theme: Theme) -> dict[str, str]:
    named = {field: getattr(theme, field) for field in ("paper", "ink", "dim", "grid", "faint", "band")}
    series = {f"series-{place + 1}": colour for place, colour in enumerate(theme.colours)}
    return {f"--plot-{name}": colour for name, colour in (named | series).items()}


def _declared(variables: dict[str, str]) -> str:
    return " ".join(f"{name}: {value};" for name, value in variables.items())


_UNWANTED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_EMPTY = re.compile(r"<defs>\s*</defs>")
_LONG = re.compile(r"(\.\d{3})\d+")  # thousandths of a point are enough, and a third less to write
_STYLE = re.compile(r' style="([^"]*)"')


def _drawn(figure: Figure) -> str:
    """matplotlib's SVG without its prolog, comments, metadata and style sheets."""
    buffer = BytesIO()
    with settings(theme_of(figure)):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = _EMPTY.sub("", _UNWANTED.sub("", buffer.getvalue().decode())).strip()
    text = _STYLE.sub(lambda found: _attributes(found.group(1)), text)
    text = _LONG.sub(r"\1", text)
    # matplotlib says this in a style sheet for all elements, which in a page would be all elements of the page.
    text = text.replace("<svg ", '<svg stroke-linejoin="round" stroke-linecap="butt" ', 1)
    return re.sub(r"\s*\n\s*", "\n", text) + "\n"


def _attributes(style: str) -> str:
    pairs = (part.partition(":")[::2] for part in style.split(";") if part.strip())
    return "".join(f' {name.strip()}="{value.strip()}"' for name, value in pairs)
