"""The examples that a page holds: which are chosen, and what is told of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.depictions import sanitised
from results.page import as_script_data
from results.report.answers import CellAnswers

PER_LIST = 10
"""Examples of each list of each cell, by default."""
MOST_BYTES = 6_000_000
"""Of all examples of a page; a page stays below 10 MB with its plots, and a browser opens it at once."""
LONGEST_TEXT = 4_000
"""Letters of an answer or a reference; what is longer is cut, and says so."""
_LONGEST_SMILES = 1_000

WORST, BEST, DEPENDENT, MISLED, RANDOM, INVALID = "worst", "best", "dependent", "misled", "random", "invalid"
LISTS = {
    WORST: "Worst answers",
    BEST: "Best answers",
    DEPENDENT: "Most helped by their own graph",
    MISLED: "Most hurt by their own graph",
    RANDOM: "Drawn at random",
    INVALID: "Answers that could not be parsed",
}


@dataclass(frozen=True, slots=True)
class Browser:
    """The examples of one part of a page.

    Args:
        data: what the page's script reads.
        n: how many examples were asked.
        embedded: how many of them the page holds.
        asked_for: examples of each list.
        reached: examples of each list that found room.
        cut: how many texts were too long to be shown whole.
        without: what is missing, in words.
    """

    data: Mapping[str, Any]
    n: int
    embedded: int
    asked_for: int
    reached: int
    cut: int
    without: tuple[str, ...]


def choose(
    cells: Sequence[CellAnswers], metric: str, *, smaller_is_better: bool = False, per_list: int = PER_LIST
) -> dict[str, dict[str, list[str]]]:
    """By cell and list, the examples to be shown, those first that belong there most; ties by their names.

    `random` is the same for all cells and depends on nothing but the examples' names: best and worst answers are no
    picture of what a model usually says.

    Args:
        cells: that were asked the same examples.
        metric: by which answers are good or bad.
        smaller_is_better: whether a small value is good.
        per_list: at most so many.
    """
    names = sorted({example for cell in cells for example in _names(cell)})
    drawn = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:per_list]
    return {cell.cell: _lists(cell, metric, smaller_is_better, per_list, drawn) for cell in cells}


def browser(
    cells: Sequence[CellAnswers],
    metric: str,
    facts: Mapping[str, Mapping[str, Any]],
    *,
    smaller_is_better: bool = False,
    per_list: int = PER_LIST,
    most_bytes: int = MOST_BYTES,
) -> Browser:
    """The examples of a page, with what every cell answered to each of them.

    The first of every list come first, then the second, and so on until there is no more room.

    Args:
        cells: as `choose`.
        metric: as `choose`.
        facts: by example, what is known of its molecules.
        smaller_is_better: as `choose`.
        per_list: as `choose`.
        most_bytes: room for examples as JSON.
    """
    lists = choose(cells, metric, smaller_is_better=smaller_is_better, per_list=per_list)
    texts = _Texts()
    rows: dict[str, dict[str, Any]] = {}
    used, rank, full = 0, 0, False
    while rank < per_list and not full:
        wanted = dict.fromkeys(
            names[rank] for by_list in lists.values() for names in by_list.values() if rank < len(names)
        )
        for name in wanted:
            if name in rows:
                continue
            before = texts.size
            row = _row(name, cells, facts.get(name, {}), texts)
            size = len(as_script_data(row)) + texts.size - before
            if used + size > most_bytes:
                full = True
                break
            rows[name] = row
            used += size
        if not full:
            rank += 1
    kept = {
        cell: {kind: [name for name in names if name in rows] for kind, names in by_list.items()}
        for cell, by_list in lists.items()
    }
    data = {
        "lists": [[key, title] for key, title in LISTS.items()],
        "cells": [{"name": cell.cell, "seed": cell.seed, "seeds": cell.n_seeds} for cell in cells],
        "metric": metric,
        "smaller": smaller_is_better,
        "chosen": kept,
        "examples": rows,
        "texts": texts.texts,
    }
    n = len({example for cell in cells for example in _names(cell)})
    return Browser(data, n, len(rows), per_list, rank, texts.cut, tuple(_without(cells, facts, rows)))


def _names(cell: CellAnswers) -> list[str]:
    named: dict[str, None] = dict.fromkeys(cell.questions)
    for values in (cell.own, *cell.scores.values()):
        named |= dict.fromkeys(values)
    return list(named)


def _lists(
    cell: CellAnswers, metric: str, smaller_is_better: bool, per_list: int, drawn: Sequence[str]
) -> dict[str, list[str]]:
    scores = cell.scores.get(metric, {})
    good = -1.0 if smaller_is_better else 1.0

    def ordered(
        values: Mapping[str, float], sign: float, wanted: Callable[[float], bool] = lambda _: True
    ) -> list[str]:
        return sorted((n for n, v in values.items() if wanted(v)), key=lambda n: (sign * values[n], n))[:per_list]

    found = {
        WORST: ordered(scores, good),
        BEST: ordered(scores, -good),
        DEPENDENT: ordered(cell.gains, -1.0, lambda gain: gain > 0),
        MISLED: ordered(cell.gains, 1.0, lambda gain: gain < 0),
        RANDOM: list(drawn),
        INVALID: sorted(cell.invalid)[:per_list],
    }
    return {kind: names for kind, names in found.items() if names}


def _row(
    name: str,
    cells: Sequence[CellAnswers],
    facts: Mapping[str, Any],
    texts: _Texts,
) -> dict[str, Any]:
    """All that a page tells of an example; texts are places in the list of texts."""
    question = next((cell.questions[name] for cell in cells if name in cell.questions), None)
    molecules = [_molecule(molecule) for molecule in facts.get("molecules", ()) if isinstance(molecule, Mapping)]
    if not molecules and question is not None:
        molecules = [{"smiles": smiles[:_LONGEST_SMILES]} for smiles in question.molecules]
    answers = [_answer(name, cell, texts) for cell in cells]
    row: dict[str, Any] = {"molecules": molecules, "answers": answers}
    if question is not None:
        row["reference"] = texts.place(question.reference)
    # Cells may have been trained on different data. Most are not, so that each distinct one is told once.
    told: list[dict[str, Any]] = []
    for cell, answer in zip(cells, answers, strict=True):
        if answer is not None and name in cell.novelty:
            known = {key: cell.novelty[name].get(key) for key in ("molecule_seen", "scaffold_seen", "nearest")}
            if known not in told:
                told.append(known)
            answer["novelty"] = told.index(known)
    if told:
        row["novelty"] = told
    return row


def _molecule(known: Mapping[str, Any]) -> dict[str, Any]:
    svg = known.get("svg")
    drawn = sanitised(svg) if isinstance(svg, str) else None
    described = {
        "smiles": str(known.get("smiles", ""))[:_LONGEST_SMILES],
        "atoms": known.get("atoms"),
        "groups": [str(group) for group in known.get("groups") or ()],
    }
    return described if drawn is None else {**described, "svg": drawn}


def _answer(name: str, cell: CellAnswers, texts: _Texts) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    scores = {metric: round(values[name], 4) for metric, values in cell.scores.items() if name in values}
    if scores:
        found["scores"] = scores
    if name in cell.questions:
        found["prompt"] = texts.place(cell.questions[name].prompt)
    for key, answers in (("own", cell.own), ("swapped", cell.swapped)):
        if name in answers:
            found[key] = texts.place(answers[name].text)
            if answers[name].ended_by_length:
                found[f"{key}-cut"] = True
    if name in cell.gains:
        found["gain"] = round(cell.gains[name], 4)
    if name in cell.invalid:
        found["invalid"] = cell.invalid[name]
    return found or None


class _Texts:
    """Texts, each once: cells are asked the same, and small models answer much alike."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.size = 0
        self.cut = 0
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        if text not in self._places:
            self._places[text] = len(self.texts)
            shown = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
            if len(text) > LONGEST_TEXT:
                shown = f"{shown[:LONGEST_TEXT]} [cut: {len(text) - LONGEST_TEXT:,} more letters]"
                self.cut += 1
            self.texts.append(shown)
            self.size += len(as_script_data(shown))
        return self._places[text]


def _without(
    cells: Sequence[CellAnswers], facts: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    missing = []
    packed = any(cell.is_packed for cell in cells)
    silent = [cell.cell for cell in cells if not cell.own]
    if silent:
        which = "no run" if len(silent) == len(cells) else f"none of {', '.join(silent)}"
        missing.append(
            f"Answers are stored with {which}: packed runs keep scores, and answers only where that was asked for."
        )
    again = "`molgraft tables STUDY --pack FOLDER` where the runs are"
    if not facts and packed:
        missing.append(
            f"There are no depictions: facts of these examples were not packed. {again} packs them; for runs of older "
            "versions `molgraft score RUN` has to write them before."
        )
    elif not facts:
        missing.append(
            "There are no depictions: facts of these examples were not written; `molgraft score RUN` writes them."
        )
    elif packed:
        undrawn = sum(not any("svg" in molecule for molecule in row["molecules"]) for row in rows.values())
        if undrawn:
            missing.append(
                f"{undrawn:,} of these {len(rows):,} examples have no depiction, since not all are packed; {again}, "
                "with `--molecules all`, packs every one."
            )
    return missing
