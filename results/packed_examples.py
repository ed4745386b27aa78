"""What a packed study holds of its examples' molecules: one small file for all runs that were asked the same examples.

Columns, of each molecule once: SMILES, heavy atoms, functional groups; how new examples are to those who were trained
on certain data; and depictions, which are most of the bytes. Neither questions nor answers are in it.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import orjson

from results.depictions import compacted, sanitised
from results.runs import ResultsError

FOLDER: Final = "examples"
"""Within a packed study."""

FORMAT: Final = 1

Molecules = Literal["none", "plain", "shown", "all"]
"""What is packed of molecules: nothing; all but depictions; depictions of the examples that a report shows; all."""

_ENDING = ".json.gz"
_NEW = ("scaffold_seen", "molecule_seen", "nearest")
_DIGITS = 6

Known = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PackedExamples:
    """What a packed study knows of the examples of one evaluation.

    Args:
        facts: by example, `molecules` with `smiles`, `atoms`, `groups` and `svg` (None where none was packed).
        novelty: by the name of the file that an evaluation names, then by example.
    """

    facts: Known
    novelty: Mapping[str, Known]


def as_molecules(text: str) -> Molecules | None:
    """What somebody wants to be packed; None for what is none of the four."""
    return text if text in get_args(Molecules) else None  # type: ignore[return-value] # looked at


def examples_file(examples_id: str) -> str | None:
    """The name of the file for such examples; None for what is no file's name, as somebody may have written it."""
    name = f"{examples_id}{_ENDING}"
    return name if examples_id and Path(name).name == name and not name.startswith(".") else None


def packed_facts(facts: Known, novelty: Mapping[str, Known], depicted: Container[str]) -> bytes:
    """A file's content; the same bytes each time.

    Args:
        facts: by example, as `results.facts.example_facts` gives them; empty where they are not known.
        novelty: by file name, as `results.facts.example_novelty` gives it.
        depicted: examples whose depictions are kept.
    """
    names = list(facts) or list(dict.fromkeys(name for known in novelty.values() for name in known))
    content: dict[str, Any] = {"format": FORMAT, "example_ids": names}
    if facts:
        content |= _columns(facts, depicted)
    content["novelty"] = {
        file: {what: [_rounded(known.get(name, {}).get(what)) for name in names] for what in _NEW}
        for file, known in sorted(novelty.items())
    }
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode("utf-8", "replace"), compresslevel=9, mtime=0)


def read_examples(file: Path) -> PackedExamples:
    """What a file holds.

    Raises:
        ResultsError: it is no such file, or of another version.
    """
    try:
        content = orjson.loads(gzip.decompress(file.read_bytes()))
        if content["format"] != FORMAT:
            raise ResultsError(f"{file}: has format {content['format']}, and this version of molgraft reads {FORMAT}")
        names = content["example_ids"]
        return PackedExamples(
            facts=_facts(content, names) if "smiles" in content else {},
            novelty={name: _novelty(columns, names) for name, columns in content["novelty"].items()},
        )
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"{file}: holds no facts about examples: {error!r}") from None


def _columns(facts: Known, depicted: Container[str]) -> dict[str, Any]:
    known: dict[str, Mapping[str, Any]] = {}
    of_examples: list[list[int]] = []
    pictures: dict[str, str] = {}
    places: dict[str, int] = {}
    for name, row in facts.items():
        molecules = [molecule for molecule in row.get("molecules") or () if isinstance(molecule, Mapping)]
        for molecule in molecules:
            smiles = str(molecule.get("smiles", ""))
            places.setdefault(smiles, len(places))
            known.setdefault(smiles, molecule)
            svg = molecule.get("svg")
            if name in depicted and isinstance(svg, str) and (kept := sanitised(svg)):
                pictures[str(places[smiles])] = compacted(kept)
        of_examples.append([places[str(molecule.get("smiles", ""))] for molecule in molecules])
    has = [molecule.get("groups") for molecule in known.values()]
    groups = sorted({str(group) for named in has if isinstance(named, list) for group in named})
    return {
        # Of most data sets each example has one molecule of its own.
        "molecules": None if of_examples == [[place] for place in range(len(facts))] else of_examples,
        "smiles": list(known),
        "atoms": [_count(molecule.get("atoms")) for molecule in known.values()],
        "group_names": groups,
        "groups": [_flags(named, groups) for named in has],
        "depictions": pictures,
    }


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _flags(has: Any, names: list[str]) -> int | None:
    """Which of some names something has, as bits."""
    return None if not isinstance(has, list) else sum(1 << names.index(name) for name in {str(name) for name in has})


def _facts(content: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    group_names, pictures = content["group_names"], content["depictions"]
    molecules = [
        {
            "smiles": smiles,
            "atoms": atoms,
            "groups": None if flags is None else [name for bit, name in enumerate(group_names) if flags >> bit & 1],
            "svg": pictures.get(str(place)),
        }
        for place, (smiles, atoms, flags) in enumerate(
            zip(content["smiles"], content["atoms"], content["groups"], strict=True)
        )
    ]
    of_examples = content["molecules"] or [[place] for place in range(len(names))]
    return {
        name: {"example_id": name, "molecules": [molecules[place] for place in places]}
        for name, places in zip(names, of_examples, strict=True)
    }


def _novelty(columns: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    rows = zip(names, *(columns[what] for what in _NEW), strict=True)
    found = {name: dict(zip(_NEW, values, strict=True)) for name, *values in rows}
    return {name: row for name, row in found.items() if any(value is not None for value in row.values())}


def _rounded(value: Any) -> float | bool | None:
    """A flag or a similarity; of what a foreign file has in its place nothing."""
    if isinstance(value, bool):
        return value
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, int | float) and math.isfinite(value) else None
