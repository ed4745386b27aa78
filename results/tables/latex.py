"""Tables as LaTeX, for the package booktabs (and graphicx where they are wide) and any engine."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

from results.tables.grid import Cell, Column, Grid

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "\u2212": "$-$",
    "\u00d7": r"$\times$",
    "Δ": r"$\Delta$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "…": r"\ldots{}",
    "\u2013": "--",
    "—": "---",
    "\u00a0": "~",
}
_SIGNED = re.compile(r"(?<![\w.)}-])-(?=\d)")
_MINUS = "\ue000"  # a private character, which no text keeps


_WIDEST = 8  # columns; what has more is scaled to the width of the text


def latex(caption: str, grid: Grid, notes: tuple[str, ...], label: str) -> str:
    """A `table` with a caption above, what belongs to a figure in a small line below it, and the notes under all."""
    count = len(grid.columns)
    is_wide = count > _WIDEST
    lines = [
        r"% needs \usepackage{booktabs}" + (r" and \usepackage{graphicx}" if is_wide else ""),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{tex(caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]+', '-', label)}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        *([r"\resizebox{\linewidth}{!}{%"] if is_wide else []),
        rf"\begin{{tabular}}{{l{'r' * (count - 1)}}}",
        r"\toprule",
        *_header(grid.columns),
    ]
    for section in grid.sections:
        lines.append(r"\midrule")
        if len(grid.sections) > 1:
            lines.append(rf"\multicolumn{{{count}}}{{l}}{{\textit{{{tex(section.title)}}}}} \\")
        for row in section.rows:
            lines.append(_line([_cell(cell) for cell in row]))
            if any(cell.below for cell in row):
                lines.append(_line([rf"{{\scriptsize {tex(cell.below)}}}" if cell.below else "" for cell in row]))
    lines += [r"\bottomrule", r"\end{tabular}}" if is_wide else r"\end{tabular}"]
    if notes:
        lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}", r"\scriptsize\raggedright"]
        lines += [rf"{tex(note)}\par" for note in notes]
        lines += [r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def tex(text: str) -> str:
    """Text that LaTeX sets as it is; what no font of it is sure to have becomes a question mark."""
    text = " ".join(text.split())
    # Before figures, a minus is no hyphen; two hyphens are no dash.
    text = _SIGNED.sub(_MINUS, "".join(_known(character) for character in text))
    escaped = "".join(_SPECIAL.get(character, character) for character in text)
    return escaped.replace("--", "-{}-{}").replace(_MINUS, "$-$").replace(" -{}-{} ", " -- ")


def _known(character: str) -> str:
    if character in _SPECIAL or " " <= character < "\x7f":
        return character
    # Letters with accents: every engine sets those of Latin scripts.
    is_latin = unicodedata.name(character, "").startswith("LATIN")
    return character if is_latin else "" if unicodedata.category(character).startswith("C") else "?"


def _header(columns: tuple[Column, ...]) -> list[str]:
    if not any(column.over for column in columns):
        return [_line([tex(column.heading) for column in columns])]
    above, rules, place = [], [], 1
    for over, group in groupby(columns, key=lambda column: column.over):
        width = len(list(group))
        if over:
            above.append(rf"\multicolumn{{{width}}}{{c}}{{{tex(over)}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        else:
            above += [""] * width
        place += width
    return [f"{' & '.join(above)} \\\\", "".join(rules), _line([tex(column.heading) for column in columns])]


def _line(cells: list[str]) -> str:
    # The end of a row looks for a star or a bracket after itself, also on the next line.
    first = f"{{}}{cells[0]}" if cells[0][:1] in ("[", "*") else cells[0]
    return f"{' & '.join([first, *cells[1:]])} \\\\"


def _cell(cell: Cell) -> str:
    return rf"\textbf{{{tex(cell.text)}}}" if cell.bold else tex(cell.text)
