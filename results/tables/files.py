"""Tables as files beside a packed study, and the check that they still follow from its runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from results.packed import StudyOnFile, altered, read_study
from results.runs import PACKED_STUDY, ResultsError
from results.scores import example_scores
from results.tables.forms import ENDINGS, as_file
from results.tables.model import Table
from results.tables.studies import study_tables

FOLDER = "tables"
"""Where a packed study has its tables."""

_ROUNDED = 2e-5  # relative; what values may differ by that are computed from rounded scores
_SHOWN = 5  # lines of a file that differ; the others are counted
_EXCERPT = 60


def table_files(tables: Sequence[Table]) -> dict[str, str]:
    """What the files of a study's tables hold, by name."""
    return {f"{table.name}{ending}": as_file(table, form) for table in tables for form, ending in ENDINGS.items()}


def write_tables(
    folder: Path, tell: Callable[[str], None] = lambda _: None, *, tables: Sequence[Table] | None = None
) -> list[Path]:
    """Writes the tables of a packed study anew, and removes those that it no longer has.

    Args:
        folder: of the packed study.
        tell: is told what is being done.
        tables: of the study as it is packed, where they are made already; their tests take seconds each.

    Raises:
        ResultsError: it cannot be read, or the files cannot be written.
    """
    contents = table_files(study_tables(read_study(folder), tell=tell) if tables is None else tables)
    place = folder / FOLDER
    try:
        place.mkdir(exist_ok=True)
        for file in _committed(place):
            if file.name not in contents:
                file.unlink()
        for name, text in contents.items():
            (place / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{place}: cannot be written: {error}") from None
    return [place / name for name in contents]


def deviations(folder: Path, tell: Callable[[str], None] = lambda _: None) -> Iterator[str]:
    """Where a packed study's tables do not follow from its runs, or its runs are not what was packed; a line each.

    Args:
        folder: of the packed study.
        tell: is told what is being done.
    """
    try:
        yield from altered(folder)
        study = read_study(folder)
        yield from _inconsistent(study)
        contents = table_files(study_tables(study, tell=tell))
    except ResultsError as error:
        yield str(error)
        return
    place = folder / FOLDER
    for name, text in contents.items():
        file = place / name
        if not file.exists():
            yield f"{file}: is missing; `molgraft tables {folder}` writes it"
        else:
            yield from _differences(file, file.read_text(encoding="utf-8", errors="replace"), text)
    for file in _committed(place):
        if file.name not in contents:
            yield f"{file}: is no table of this study by its {PACKED_STUDY}"


def _committed(place: Path) -> list[Path]:
    return sorted(file for file in place.glob("*") if file.suffix in ENDINGS.values())


def _differences(file: Path, committed: str, rebuilt: str) -> Iterator[str]:
    """The lines in which a file is not what the runs give."""
    if committed == rebuilt:
        return
    ours, theirs = committed.split("\n"), rebuilt.split("\n")
    found = []
    matcher = SequenceMatcher(None, ours, theirs, autojunk=False)
    for tag, start, end, other, other_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        for number in range(max(end - start, other_end - other)):
            here = ours[start + number] if start + number < end else None
            there = theirs[other + number] if other + number < other_end else None
            found.append(f"{file}:{min(start + number, end) + 1}: {_difference(here, there)}")
    yield from found[:_SHOWN]
    if len(found) > _SHOWN:
        yield f"{file}: {len(found) - _SHOWN} more lines differ"


def _difference(committed: str | None, rebuilt: str | None) -> str:
    if committed is None:
        return f"a line is missing: {_cut(rebuilt or '', 0)}"
    if rebuilt is None:
        return f"a line too many: {_cut(committed, 0)}"
    pairs = enumerate(zip(committed, rebuilt, strict=False))
    place = next((place for place, (a, b) in pairs if a != b), min(len(committed), len(rebuilt)))
    return f"has {_cut(committed, place)}, and the runs give {_cut(rebuilt, place)}"


def _cut(line: str, place: int) -> str:
    """A piece of a line around a place."""
    start = max(0, place - _EXCERPT // 3)
    piece = line[start : start + _EXCERPT]
    before, after = "…" if start else "", "…" if start + _EXCERPT < len(line) else ""
    return f"{before}{piece}{after}".join(("'", "'"))


def _inconsistent(study: StudyOnFile) -> Iterator[str]:
    """Runs whose metrics are not those that their own examples give."""
    from results.statistics import value_of

    for run in study.runs:
        for entry in run.summary.get("evaluations", ()):
            for score in (*entry.get("scores", ()), *entry.get("decontaminated", ())):
                found = example_scores(run, score)
                for name, basis in (found.basis if found is not None else {}).items():
                    stated, computed = score["metrics"][name].get("value"), float(value_of(basis))
                    if stated is None or _agree(stated, computed, basis.formula):
                        continue
                    yield (
                        f"{run.folder}: says {name} {stated:.6g} by {score['protocol']}, and its examples give "
                        f"{computed:.6g}"
                    )


def _agree(stated: float, computed: float, formula: str) -> bool:
    # What R2 is rounded by is a part of 1, however near to 0 it is itself.
    return math.isclose(stated, computed, rel_tol=_ROUNDED, abs_tol=_ROUNDED if formula == "r2" else 1e-12)
