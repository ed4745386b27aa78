"""The committed form of a study: what tables, plots and reports need of its runs, in files that a repository can hold.

A packed study is a folder with `study.json` (its question, its tables, its runs and where they came from),
`runs/<run>.json.gz`, and `examples/<examples_id>.json.gz` with what is known of the molecules that runs were asked
about (`results.packed_examples`). `pack` (in `results.packing`) writes one, `molgraft tables STUDY --pack FOLDER` calls
it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from results.metrics import Directions
from results.packed_examples import FOLDER
from results.packing import FORMAT, pack
from results.runs import PACKED_RUN, PACKED_STUDY, ResultsError, Run, read_json, read_run
from results.tables.request import TableRequest

__all__ = ["StudyOnFile", "altered", "pack", "packed_studies", "read_packed", "read_packed_run", "read_study"]

_PLANS = ".studies"
_PLAN = "plan.json"


@dataclass(frozen=True)
class StudyOnFile:
    """A study as files tell it.

    Args:
        name: of the study.
        question: what it is to answer, in words.
        requests: the tables that it wants.
        runs: those that there are, named by the aliases of their cells; cell by cell in the study's order, by seed.
        cells: aliases of all cells, in the study's order.
        missing: cell and seed of every run that nobody has begun.
        about: all else that its plan or its packed form says: scale, fidelity, select, provenance.
        folder: of a packed study.
    """

    name: str
    question: str
    requests: tuple[TableRequest, ...]
    runs: tuple[Run, ...]
    cells: tuple[str, ...]
    missing: tuple[tuple[str, int], ...]
    about: Mapping[str, Any]
    folder: Path | None = None

    @property
    def request(self) -> TableRequest:
        """The first of its tables; one with all defaults where it wants none in particular."""
        return self.requests[0] if self.requests else TableRequest()

    @cached_property
    def directions(self) -> Directions:
        """Which values of metrics are better, as its runs declare it."""
        return Directions.of(self.runs)


def read_study(source: str | Path, runs: Path = Path("runs")) -> StudyOnFile:
    """A study by its name, whose runs are in `runs`, or a packed study by its folder.

    Args:
        source: name or folder.
        runs: the folder of run directories in which a study of that name was run.

    Raises:
        ResultsError: there is no such study, or it cannot be read.
    """
    folder = Path(source)
    if (folder / PACKED_STUDY).exists():
        return _packed_study(folder)
    plan = runs / _PLANS / str(source) / _PLAN
    if not plan.exists():
        known = sorted(file.parent.name for file in runs.glob(f"{_PLANS}/*/{_PLAN}"))
        raise ResultsError(
            f"{source}: no study of that name was run in {runs} (there are: {', '.join(known) or 'none'}), and no "
            f"folder with a {PACKED_STUDY}"
        )
    return _planned_study(plan, runs)


def read_packed(folder: Path) -> list[Run]:
    """The runs of a packed study, named by the aliases of their cells.

    Raises:
        ResultsError: a file is missing or cannot be read.
    """
    return list(_packed_study(folder).runs)


def read_packed_run(file: Path) -> Run:
    """One packed run.

    Raises:
        ResultsError: the file is no packed run of a version that is known here.
    """
    try:
        content = orjson.loads(gzip.decompress(file.read_bytes()))
        if content["format"] != FORMAT:
            raise ResultsError(f"{file}: has format {content['format']}, and this version of molgraft reads {FORMAT}")
        files = _unpacked(content["files"], content["columns"])
        return Run(folder=file, summary=files.pop("result.json", {}), packed=files, **content["run"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{file}: is no packed run: {error}") from None


def packed_studies(folder: Path) -> list[Path]:
    """Folders of packed studies: `folder` itself, or those that lie in it."""
    if (folder / PACKED_STUDY).exists():
        return [folder]
    return sorted(file.parent for file in folder.glob(f"*/{PACKED_STUDY}"))


def altered(folder: Path) -> Iterator[str]:
    """What of a packed study is not as it was packed, a line each: changed, missing and foreign files."""
    listed = set()
    described = read_json(folder / PACKED_STUDY)
    for row in (*described.get("runs", ()), *described.get("examples", ())):
        if row.get("file") is None:
            continue
        listed.add(row["file"])
        file = folder / row["file"]
        if not file.exists():
            yield f"{file}: is missing"
        elif hashlib.sha256(file.read_bytes()).hexdigest() != row["sha256"]:
            yield f"{file}: is not what was packed (its sha256 is another one than {PACKED_STUDY} has)"
    for what, place in (("run", "runs"), ("file about examples", FOLDER)):
        for file in sorted(folder.glob(f"{place}/*{PACKED_RUN}")):
            if file.relative_to(folder).as_posix() not in listed:
                yield f"{file}: is no {what} of this study by its {PACKED_STUDY}"


def _packed_study(folder: Path) -> StudyOnFile:
    file = folder / PACKED_STUDY
    described = read_json(file)
    if described.get("format") != FORMAT:
        raise ResultsError(f"{file}: has format {described.get('format')}, and this version of molgraft reads {FORMAT}")
    try:
        runs = [
            replace(read_packed_run(folder / row["file"]), name=row["cell"])
            for row in described["runs"]
            if row.get("file") is not None
        ]
        missing = tuple((row["cell"], row["seed"]) for row in described["runs"] if row.get("file") is None)
        cells = tuple(described["cells"])
        about = {key: value for key, value in described.items() if key not in _STUDY_KEYS}
        return StudyOnFile(
            described["study"],
            described["question"],
            _requests(described),
            tuple(_ordered(runs, cells)),
            cells,
            missing,
            about,
            folder,
        )
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{file}: is no packed study: {error!r}") from None


_STUDY_KEYS = frozenset({"format", "study", "question", "tables", "cells", "runs", "work", "examples"})


def _planned_study(file: Path, runs: Path) -> StudyOnFile:
    plan = read_json(file)
    # By their identities, with which their folders' names end: a run may have been made under another alias.
    folders = {status.parent.name.rpartition("-")[2]: status.parent for status in sorted(runs.glob("*/status.json"))}
    try:
        rows = [(row["cell"], int(row["config"]["seed"]), row["train_id"]) for row in plan["runs"]]
        name, question = plan["study"], str(plan.get("question", ""))
    except (KeyError, TypeError) as error:
        raise ResultsError(f"{file}: is no plan of a study: {error!r}") from None
    cells = tuple(dict.fromkeys(plan.get("cells") or (cell for cell, _, _ in rows)))
    found = [read_run(folders[identity], cell) for cell, _, identity in rows if identity in folders]
    missing = tuple((cell, seed) for cell, seed, identity in rows if identity not in folders)
    about = {key: value for key, value in plan.items() if key not in _STUDY_KEYS}
    return StudyOnFile(name, question, _requests(plan), tuple(_ordered(found, cells)), cells, missing, about)


def _requests(described: Mapping[str, Any]) -> tuple[TableRequest, ...]:
    return tuple(TableRequest.from_mapping(request) for request in described.get("tables") or ())


def _ordered(runs: Sequence[Run], cells: Sequence[str]) -> list[Run]:
    place = {cell: number for number, cell in enumerate(cells)}
    return sorted(runs, key=lambda run: (place.get(run.name, len(place)), run.seed if run.seed is not None else -1))


def _unpacked(files: Mapping[str, Any], columns: Sequence[Any]) -> dict[str, Any]:
    """Files as live runs have them, with their columns in their places; equal columns stay one object."""
    found: dict[str, Any] = {}
    for path, content in files.items():
        if path.startswith("scores/"):
            found[path] = {
                "example_ids": columns[content["example_ids"]],
                "per_example": {name: columns[place] for name, place in content["per_example"].items()},
                "basis": {name: _basis(described, columns) for name, described in content["basis"].items()},
                "invalid": content["invalid"],
            }
        elif isinstance(content, dict) and content.keys() == {"rows"}:
            names = list(content["rows"])
            values = [columns[content["rows"][name]] for name in names]
            found[path] = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        else:
            found[path] = content
    return found


def _basis(described: Mapping[str, Any], columns: Sequence[Any]) -> dict[str, Any]:
    if "columns" not in described:
        return dict(described)
    basis = {"formula": described["formula"], "columns": [columns[place] for place in described["columns"]]}
    return basis if described.get("groups") is None else {**basis, "groups": columns[described["groups"]]}
