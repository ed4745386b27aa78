"""The forms that a table comes in."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from results.runs import ResultsError
from results.tables.fragment import html_fragment, html_page
from results.tables.grid import grid_of
from results.tables.latex import latex
from results.tables.markdown import markdown
from results.tables.model import Table

FORMATS = ("markdown", "latex", "html", "json")

ENDINGS = {"markdown": ".md", "latex": ".tex", "html": ".html", "json": ".json"}
"""How files of each form are named."""

_DIGITS = 8  # of numbers in JSON: what two machines' arithmetic differs in lies far behind


def as_text(table: Table, form: str) -> str:
    """The table in one of `FORMATS`; LaTeX needs the package booktabs, and HTML is a fragment for a page.

    Raises:
        ResultsError: the form is unknown.
    """
    if form == "json":
        described = {**asdict(table), "protocol": table.protocol}
        del described["directions"]  # which name the runs' folders: those of this machine
        return json.dumps(_rounded(described), indent=1, ensure_ascii=False)
    grid, caption = grid_of(table), caption_of(table)
    if form == "markdown":
        return markdown(caption, grid, table.notes)
    if form == "latex":
        return latex(caption, grid, table.notes, table.name)
    if form == "html":
        return html_fragment(caption, grid, table.notes)
    raise ResultsError(f"form {form!r}: unknown; it is one of {', '.join(FORMATS)}")


def as_file(table: Table, form: str) -> str:
    """What a file of the table holds; HTML is a whole page."""
    if form == "html":
        return html_page(
            table.title or caption_of(table), html_fragment(caption_of(table), grid_of(table), table.notes)
        )
    return as_text(table, form) + "\n"


def caption_of(table: Table) -> str:
    """What every number of the table depends on."""
    title = f"{table.title.rstrip('.')}. " if table.title else ""
    if len(table.parts) == 1:
        return f"{title}{table.asked}, {table.split} split, {table.parts[0].title}."
    return f"{title}{table.asked}, {table.split} split."


def cells_of(table: Table) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and the rows of all parts as they are shown, each in one line."""
    grid = grid_of(table)
    rows = [[cell.line for cell in row] for section in grid.sections for row in section.rows]
    return [column.name for column in grid.columns], rows


def _rounded(value: Any) -> Any:
    """Numbers with so many digits as a table may be checked by; what is none becomes null."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value
