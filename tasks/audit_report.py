"""An audit as tables: for a terminal, and as Markdown to be kept beside the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PLACES = 20
"""Places that the Markdown lists of each defect of a data set; the JSON has more."""

_UNKNOWN = "-"

MARK = "*"
SUBSTITUTE = "a substitute for an official file that is not here"

NOTE = (
    "Molecules are compared by three keys: the canonical SMILES (the same molecule), the first block of the InChIKey "
    "(the same but for stereo, isotopes and protonation), and the Bemis-Murcko scaffold without stereo (the same "
    "series; molecules without rings have none). Cells with a slash give them in this order. A shared count is one of "
    "distinct keys; duplicates are rows beyond the first of each key."
)


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts. The first column names the row; the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def grids(report: Mapping[str, Any]) -> list[Grid]:
    """The tables of a report that have rows."""
    found = [_molecules(report), _labels(report), _reactions(report), _splits(report), _matrix(report)]
    return [grid for grid in found if grid.rows]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown: its tables, the places of defects, and the files that were read."""
    lines = ["# Data audit", "", f"{NOTE} RDKit {report['keys']['rdkit']}.", ""]
    for grid in grids(report):
        lines += [f"## {grid.title}", "", *_table(grid), ""]
    places = list(_places(report))
    if places:
        lines += [
            "## Places",
            "",
            "Lines are those of the files as they are (unpacked), a header included.",
            "",
            *places,
        ]
    lines += ["## Files", "", *_table(_files(report), numbers=False), ""]
    if report["skipped"]:
        lines += ["## Not here", "", *(f"- {each['data']}: {each['reason']}" for each in report["skipped"]), ""]
    return "\n".join(lines)


def _molecules(report: Mapping[str, Any]) -> Grid:
    counted = ("rows", "unparsable", "empty", "duplicates", "several fragments", "salts", "single atoms")
    columns = ("molecules", *counted, "isotopes", "explicit H", "doubled \\", "no InChIKey")
    rows = []
    for data in report["data"]:
        for role, found in data["molecules"].items():
            counts = [data["rows"], found["unparsable"], found["empty"], _pair(found["duplicates"].values())]
            names = ("several_fragments", "salts", "single_atoms", "isotopes", "explicit_hydrogens")
            counts += [found[name] for name in (*names, "doubled_backslashes", "without_inchikey")]
            rows.append((_column(data["data"], role, data["molecules"]), *map(_number, counts)))
    return Grid("Molecules", columns, tuple(rows))


def _labels(report: Mapping[str, Any]) -> Grid:
    columns = ("label", "rows", "empty", '"None"', "repeated texts", "molecules with other labels")
    rows = []
    for data in report["data"]:
        for role, found in data["labels"].items():
            conflicts = _pair(found["conflicts"].values()) if found["conflicts"] else None
            kind = " (text)" if found["text"] else ""
            counts = (data["rows"], found["empty"], found["no_value"], found["repeated_texts"], conflicts)
            rows.append((f"{data['data']}: {role}{kind}", *map(_number, counts)))
    return Grid("Labels and texts", columns, tuple(rows))


def _reactions(report: Mapping[str, Any]) -> Grid:
    rows = [
        (f"{data['data']}: {name.replace('_', ' ')}", _number(count))
        for data in report["data"]
        if data["reactions"]
        for name, count in data["reactions"].items()
    ]
    return Grid("Reactions", ("reactions", "rows"), tuple(rows))


def _splits(report: Mapping[str, Any]) -> Grid:
    columns = ("shared by two splits", "canonical", "first block", "scaffold", "share of the second (first block)")
    rows = []
    for data in report["data"]:
        for pair in data["splits"]:
            shared = [pair["shared"].get(level) for level in ("canonical", "inchikey", "scaffold")]
            level = "inchikey" if "inchikey" in pair["unique"] else "canonical"
            total = pair["unique"][level][1]
            share = f"{100 * pair['shared'][level] / total:.1f} %" if total else _UNKNOWN
            what = f" ({pair['what'].replace('_', ', ')})" if len(data["molecules"]) > 1 else ""
            name = f"{data['data']}{what}: {pair['splits'][0]} and {pair['splits'][1]}"
            rows.append((name, *map(_number, shared), share))
    return Grid("Splits of one data set", columns, tuple(rows))


def _matrix(report: Mapping[str, Any]) -> Grid:
    names = [each["name"] for each in report["corpora"]]
    cells = {(each["evaluation"], each["corpus"]): _pair(each["shared"].values()) for each in report["leakage"]}
    rows = [
        (each["name"], _pair(each["unique"].values()), *(cells[each["name"], name] for name in names))
        for each in report["evaluations"]
        if names
    ]
    title = "Leakage: molecules of evaluation sets found in corpora (canonical / first block / scaffold)"
    if any(each["substitute"] for each in report["corpora"]):
        title += f"; {MARK} {SUBSTITUTE}"
    return Grid(title, ("evaluation set", "distinct", *map(marked, report["corpora"])), tuple(rows))


def marked(part: Mapping[str, Any]) -> str:
    """A part's name, with a mark where its rows are not those of the official file."""
    return f"{part['name']}{MARK}" if part["substitute"] else str(part["name"])


def _files(report: Mapping[str, Any]) -> Grid:
    used = [
        (each["file"], each["sha256"], each["note"])
        for part in (*report["data"], *report["evaluations"], *report["corpora"])
        for each in part["files"]
    ]
    return Grid("Files", ("file", "sha256", "note"), tuple(sorted(set(used))))


def _places(report: Mapping[str, Any]) -> Iterator[str]:
    for data in report["data"]:
        by_defect: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for place in data["places"]:
            by_defect.setdefault((place["defect"], place["role"]), []).append(place)
        for (defect, role), places in by_defect.items():
            yield f"### {data['data']}, {role}: {defect}"
            yield ""
            for place in places[:_PLACES]:
                detail = f" ({_clean(place['detail'], 200)})" if place["detail"] else ""
                yield f"- {place['file']}:{place['line']}: `{_clean(place['value'])}`{detail}"
            total = data["counts"].get(f"{defect}, {role}", len(places))
            if total > _PLACES:
                yield f"- and {total - _PLACES:,} more"
            yield ""
        if data["refused"]:
            yield f"### {data['data']}: refused by the reader"
            yield ""
            for place in data["refused"][:_PLACES]:
                yield f"- {place['file']}:{place['line']}: `{_clean(place['value'])}` ({place['reason']})"
            yield ""


def _table(grid: Grid, *, numbers: bool = True) -> list[str]:
    lines = [_line(grid.columns), "|---|" + ("---:|" if numbers else "---|") * (len(grid.columns) - 1)]
    return [*lines, *map(_line, grid.rows)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _column(data: str, role: str, roles: Mapping[str, Any]) -> str:
    return f"{data}: {role}" if len(roles) > 1 else data


def _pair(values: Iterable[int | None]) -> str:
    """Counts by level; levels that were not compared are left out at the end."""
    texts = [_number(value) for value in values]
    while len(texts) > 1 and texts[-1] == _UNKNOWN:
        texts.pop()
    return " / ".join(texts)


def _number(value: int | str | None) -> str:
    if value is None:
        return _UNKNOWN
    return f"{value:,}" if isinstance(value, int) else value


def _clean(value: str, limit: int = 100) -> str:
    """A value on one line of Markdown, cut where it is long; backslashes stay as many as they are."""
    line = " ".join(value.replace("`", "'").splitlines()) or " "
    return line if len(line) <= limit else line[: limit - 1] + "…"
