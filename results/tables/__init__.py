"""Tables of cells: one row per cell, means over its seeds, what they depend on in the caption and in notes."""

from results.tables.build import build_table, requested_table
from results.tables.forms import ENDINGS, FORMATS, as_file, as_text, caption_of, cells_of
from results.tables.grid import grid_of
from results.tables.model import Part, Row, Table, Value
from results.tables.request import RowRequest, TableRequest

__all__ = [
    "ENDINGS",
    "FORMATS",
    "Part",
    "Row",
    "RowRequest",
    "Table",
    "TableRequest",
    "Value",
    "as_file",
    "as_text",
    "build_table",
    "caption_of",
    "cells_of",
    "grid_of",
    "requested_table",
]
