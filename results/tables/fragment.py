"""Tables as HTML: a fragment for a page, in which every text is escaped, and a page of its own."""

from __future__ import annotations

from itertools import groupby

from results.page import Markup, escape, fill, join
from results.tables.grid import Cell, Column, Grid

STYLE = """
.molgraft-table { overflow-x: auto; margin: 1.5rem 0; }
.molgraft-table table { border-collapse: collapse; font-size: 0.9rem; }
.molgraft-table caption { caption-side: top; text-align: left; padding-bottom: 0.6rem; }
.molgraft-table thead tr:first-child > * { border-top: 2px solid currentColor; }
.molgraft-table thead tr:last-child > * { border-bottom: 1px solid currentColor; }
.molgraft-table tbody:last-child tr:last-child > * { border-bottom: 2px solid currentColor; }
.molgraft-table th, .molgraft-table td { padding: 0.25rem 0.6rem; text-align: right; vertical-align: top; }
.molgraft-table thead tr:first-child th:first-child, .molgraft-table tbody th { text-align: left; }
.molgraft-table td { font-variant-numeric: tabular-nums; white-space: nowrap; }
.molgraft-table td:nth-child(2) { white-space: normal; min-width: 5rem; }
.molgraft-table th[scope="row"] { font-weight: normal; min-width: 10rem; }
.molgraft-table th[scope="rowgroup"] { font-style: italic; font-weight: normal; border-top: 1px solid currentColor; }
.molgraft-table th[scope="colgroup"] { text-align: center; border-bottom: 1px solid currentColor; }
.molgraft-table small { display: block; opacity: 0.8; }
.molgraft-table .notes { font-size: 0.85rem; max-width: 60rem; }
"""
"""What a page needs so that tables look like tables; colours are those of the page."""


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{}</title>
<style>{}{}</style>
{}
</html>
"""

_PAGE_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 1rem; }
"""


def html_fragment(caption: str, grid: Grid, notes: tuple[str, ...]) -> Markup:
    """A `div` with the table and its notes."""
    bodies = []
    for section in grid.sections:
        title = Markup("")
        if len(grid.sections) > 1:
            title = fill('<tr><th scope="rowgroup" colspan="{}">{}</th></tr>\n', len(grid.columns), section.title)
        rows = (fill("<tr>{}</tr>", join(_cells(row))) for row in section.rows)
        bodies.append(fill("<tbody>\n{}{}\n</tbody>", title, join(rows, "\n")))
    listed = join(fill("<li>{}</li>", note) for note in notes)
    return fill(
        '<div class="molgraft-table" role="region" tabindex="0" aria-label="{}">\n<table>\n<caption>{}</caption>\n'
        "<thead>\n{}\n</thead>\n{}\n</table>\n{}</div>",
        caption,
        caption,
        _header(grid.columns),
        join(bodies, "\n"),
        fill('<ul class="notes">{}</ul>\n', listed) if notes else "",
    )


def html_page(title: str, fragment: Markup) -> str:
    """A page that shows a table and needs nothing else.

    It is no `document` of `results.page`: committed tables would all be out of date whenever that page's looks change.
    """
    return fill(_PAGE, title, Markup(_PAGE_STYLE), Markup(STYLE), fragment)


def _header(columns: tuple[Column, ...]) -> Markup:
    if not any(column.over for column in columns):
        return fill("<tr>{}</tr>", join(fill('<th scope="col">{}</th>', column.heading) for column in columns))
    above: list[Markup] = []
    below: list[Markup] = []
    for over, group in groupby(columns, key=lambda column: column.over):
        members = list(group)
        if over:
            above.append(fill('<th scope="colgroup" colspan="{}">{}</th>', len(members), over))
            below += [fill('<th scope="col">{}</th>', column.heading) for column in members]
        else:
            above += [fill('<th scope="col" rowspan="2">{}</th>', column.heading) for column in members]
    return fill("<tr>{}</tr>\n<tr>{}</tr>", join(above), join(below))


def _cells(row: tuple[Cell, ...]) -> list[Markup]:
    first, *others = row
    return [fill('<th scope="row">{}</th>', first.text), *(_cell(cell) for cell in others)]


def _cell(cell: Cell) -> Markup:
    text = fill("<strong>{}</strong>", cell.text) if cell.bold else escape(cell.text)
    below = join(fill("<small>{}</small>", text) for text in (cell.below, cell.more) if text)
    sort = fill(' data-value="{}"', f"{cell.sort:.8g}") if cell.sort is not None else Markup("")
    return fill("<td{}>{}{}</td>", sort, text, below)
