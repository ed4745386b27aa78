"""Tables as Markdown (the dialect of GitHub)."""

from __future__ import annotations

import re

from results.tables.grid import Cell, Grid, Section

# What could begin markup, a link, an element or an entity. An underscore within a word begins nothing.
_BEGINNING = re.compile(r"^(\d{0,9})(?=[#>+=.)-])")  # of a line, that would be one of a heading, a list or a quotation
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=#?\w+;)")


def markdown(caption: str, grid: Grid, notes: tuple[str, ...]) -> str:
    """A caption, a grid for each section, and the notes as a list."""
    blocks = [_line(caption)]
    for section in grid.sections:
        if len(grid.sections) > 1:
            blocks.append(f"**{plain(section.title)}**")
        blocks.append(_grid(grid, section))
    if notes:
        blocks.append("\n".join(f"- {_line(note)}" for note in notes))
    return "\n\n".join(blocks)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    joined = " ".join(text.split())
    # These two as entities, since a backslash before them is honoured by fewer readers of Markdown.
    return _MARKUP.sub(lambda found: {"<": "&lt;", "&": "&amp;"}.get(found.group(), f"\\{found.group()}"), joined)


def _line(text: str) -> str:
    return _BEGINNING.sub(r"\1\\", plain(text))


def _grid(grid: Grid, section: Section) -> str:
    headings = [f"{column.over} {column.heading}".strip() for column in grid.columns]
    body = [[_cell(cell) for cell in row] for row in section.rows]
    table = [[plain(heading) for heading in headings], *body]
    widths = [max(3, *(len(row[place]) for row in table)) for place in range(len(headings))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table
    ]
    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def _cell(cell: Cell) -> str:
    # The brackets of an interval begin no link: nothing in parentheses follows them.
    text = f"**{plain(cell.text)}**" if cell.bold else plain(cell.text)
    return f"{text} {cell.below}".strip()
