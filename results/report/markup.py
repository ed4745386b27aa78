"""Pieces that sections of a report are made of: tables, figures, folded texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from results.page import Markup, fill, join
from results.report.content import Plot

NOTHING = "\N{EN DASH}"


def section(identity: str, title: str, pieces: Sequence[object]) -> Markup:
    """A part of the page."""
    return fill('<section id="{}"><h2>{}</h2>{}</section>', identity, title, join(pieces))


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Collection[int] = (), classes: str = "wrap"
) -> Markup:
    """A table whose first column names the rows; it scrolls by itself where it is too wide."""
    head = join(_cell(name, "col", place in numeric) for place, name in enumerate(header))
    body = join(
        fill(
            "<tr>{}</tr>",
            join(_cell(cell, "row" if place == 0 else "", place in numeric) for place, cell in enumerate(row)),
        )
        for row in rows
    )
    return fill(
        '<div class="scroll" tabindex="0"><table class="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>',
        classes,
        head,
        body,
    )


def _cell(value: object, scope: str, is_number: bool) -> Markup:
    kind = ' class="number"' if is_number else ""
    if scope:
        return fill('<th scope="{}"{}>{}</th>', scope, Markup(kind), value)
    return fill("<td{}>{}</td>", Markup(kind), value)


def plots(shown: Sequence[Plot]) -> Iterator[Markup]:
    """Figures, side by side where there is room."""
    if shown:
        figures = join(
            fill('<figure tabindex="0"><h3>{}</h3>{}{}</figure>', plot.title, plot.svg, _caption(plot.about))
            for plot in shown
        )
        yield fill('<div class="plots">{}</div>', figures)


def folded(title: str, text: str) -> Markup:
    """A text behind its title, until somebody asks for it."""
    return fill("<details><summary>{}</summary><pre tabindex='0'>{}</pre></details>", title, text)


def _caption(text: str) -> Markup:
    return fill("<figcaption>{}</figcaption>", text) if text else Markup("")


def items(texts: Sequence[str]) -> Markup:
    """A list; nothing of no texts."""
    return fill("<ul>{}</ul>", join(fill("<li>{}</li>", text) for text in texts)) if texts else Markup("")
