"""What has to be known to read a table, a sentence or two each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.formats import counted, number
from results.settings import hardware_of, version_notes
from results.statistics import FEWEST_EXAMPLES

if TYPE_CHECKING:
    from results.tables.beside import Beside
    from results.tables.gather import Group
    from results.tables.model import Part
    from results.tables.request import TableRequest
    from results.tables.significance import Tests

_FEW = 20  # examples, below which a bootstrap interval is noticeably too narrow


@dataclass(frozen=True, slots=True)
class Noted:
    """What notes are made of.

    Args:
        request: of the table.
        groups: all that its rows stand for.
        parts: of the table.
        tests: None where nothing was tested.
        beside: published numbers.
        about: what the study's plan says.
        absent: protocols by which no run was scored.
    """

    request: TableRequest
    groups: Sequence[Group]
    parts: Sequence[Part]
    tests: Tests | None
    beside: Beside | None
    about: Mapping[str, Any]
    absent: Sequence[str]


def notes_of(noted: Noted) -> Iterator[str]:
    """All notes, the most important first."""
    yield from _limited(noted)
    yield from _values(noted)
    yield from _tests(noted)
    yield from _reliance(noted)
    yield from _undefined(noted)
    yield from _invalid(noted)
    yield from _weights(noted)
    yield from _seconds(noted)
    yield from _versions(noted)
    yield from _names(noted)
    yield from _published(noted)
    yield from noted.request.notes


def _limited(noted: Noted) -> Iterator[str]:
    limited = [part.n for part in noted.parts if part.limited]
    if limited:
        yield f"LIMITED: {min(limited):,} examples of the split were asked."
    for protocol in noted.absent:
        yield f"No run was scored by protocol {protocol}."
    if len(noted.parts) > 1:
        yield "Numbers compare within a part only: other parts have another protocol or other examples."


def _values(noted: Noted) -> Iterator[str]:
    shown = [value for part in noted.parts for row in part.rows for value in row.metrics.values() if value is not None]
    if any(value.n > 1 for value in shown):
        yield "Values are means over seeds" + (
            "; ± is their standard deviation (ddof 1), given from 3 seeds on."
            if any(value.sd is not None for value in shown)
            else "; there are fewer than 3, so that no deviation is given."
        )
    if any(value.ci95 is not None for value in shown):
        few = min(part.n for part in noted.parts if part.n >= FEWEST_EXAMPLES)
        yield (
            "Brackets: 95% bootstrap interval over examples, for the models as they were trained; another seed may lie "
            f"outside. None is given below {FEWEST_EXAMPLES} examples"
            + (f", and with {few} it is too narrow." if few < _FEW else ".")
        )


def _tests(noted: Noted) -> Iterator[str]:
    tests = noted.tests
    if tests is None:
        return
    if tests.family:
        bold = any(v.best for part in noted.parts for row in part.rows for v in row.metrics.values() if v is not None)
        said = (
            "Bold: better than the next best"
            if bold
            else "Nothing is bold, since no best value is better than the next"
        )
        yield f"{said} by {_test(tests)} (p < 0.05 after Holm's correction over {counted(tests.family, 'such test')})."
    reference = noted.request.reference
    if tests.versus and reference is not None:
        named = noted.request.label_of(reference)
        yield (
            f"Δ: the cell's value less that of {named}{_same_way(noted, reference)}, with its 95% interval, by "
            f"{_test(tests)}; p after Holm's correction over all {counted(tests.versus, 'difference')} (of all "
            "cells, metrics and parts). A star marks every value for which it is below 0.05."
        )
        if tests.effects is not None:
            low, high = (number(effect, 2, sign=True) for effect in tests.effects)
            yield (
                "Effects (Cohen's d_z: the difference in standard deviations of a single example's difference) are "
                f"{low if low == high else f'from {low} to {high}'}; the HTML and JSON forms have that of each."
            )
    elif reference is not None and not any(part.reference for part in noted.parts):
        yield f"Nothing is compared with {noted.request.label_of(reference)}, which has no such scores."
    for reason, metrics in tests.reasons.items():
        yield f"{', '.join(metrics)}: {reason.replace('`', '')}."
    for note in tests.notes:
        if "in one of the cells only" in note:
            yield f"Tests: {note}."


def _same_way(noted: Noted, reference: str) -> str:
    """Where the cell of reference has several rows, which of them is meant."""
    ways = {group.way for group in noted.groups if group.alias == reference}
    return ", asked in the same way" if len(ways) > 1 else ""


def _test(tests: Tests) -> str:
    if tests.two_way == {True}:
        return "a paired t test over the same examples and over seeds"
    if tests.two_way == {False}:
        return "a paired permutation test on the same examples, which is about these models and not about other seeds"
    return "a paired test on the same examples (over seeds too where both cells have 3)"


def _reliance(noted: Noted) -> Iterator[str]:
    found = [row.reliance for part in noted.parts for row in part.rows if row.reliance is not None]
    if not found:
        return
    swaps = sorted({str(swap) for g in noted.groups for a in g.answers if (swap := a.entry["reliance"].get("swap"))})
    words = f" ({', '.join(swaps)})" if swaps else ""
    yield (
        "Reliance: by how many nats per token the gold answer is likelier with its own graph than with another "
        f"molecule's{words}, over n examples that have a fitting partner; no interval "
        f"below {FEWEST_EXAMPLES}."
    )


def _undefined(noted: Noted) -> Iterator[str]:
    """Which metrics are undefined, in which cells and seeds, and why."""
    rows = [row for part in noted.parts for row in part.rows]
    nowhere: dict[str, list[str]] = {}
    absent: dict[tuple[str, str], list[str]] = {}
    partial: dict[tuple[str, str, str], list[str]] = {}
    for name in dict.fromkeys(name for row in rows for name in row.metrics):
        without = [row for row in rows if name in row.lacking]
        if without and all(row.metrics.get(name) is None for row in rows):
            reasons = dict.fromkeys(row.lacking[name] for row in without)
            nowhere.setdefault("; ".join(reasons), []).append(name)
            continue
        for row in without:
            absent.setdefault((row.name, row.lacking[name]), []).append(name)
        for row in rows:
            value = row.metrics.get(name)
            if value is not None and value.counted:
                partial.setdefault((row.name, value.counted, value.lacking), []).append(name)
    yield from (f"{', '.join(names)} {_are(names)} n/a: {why}." for why, names in nowhere.items())
    yield from (f"{', '.join(names)} of {cell} {_are(names)} n/a: {why}." for (cell, why), names in absent.items())
    for (cell, seeds, why), names in partial.items():
        yield (
            f"{', '.join(names)} of {cell}: a mean over {seeds} only ({why}), never marked as the best and in no test."
        )


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _invalid(noted: Noted) -> Iterator[str]:
    count = sum(answer.score.get("n_invalid", 0) for group in noted.groups for answer in group.answers)
    if count:
        yield f"{count:,} answers could not be parsed; what they count as is the protocol's rule (wrong by `strict`)."


def _weights(noted: Noted) -> Iterator[str]:
    runs = [answer.run for group in noted.groups for answer in group.answers]
    weights = sorted({str(w) for run in runs if (w := run.summary.get("scored_weights"))})
    if weights:
        yield f"Scored weights: {'; '.join(weights)}."
    select = noted.about.get("select")
    if isinstance(select, Mapping):
        metric = str(select.get("metric", "loss"))
        words = {"loss": "validation loss", "parameters": "trained parameters", "seconds": "seconds of training"}
        yield f"Cells are selected by {words.get(metric, f'{metric} on the validation split')}, never by test scores."


def _seconds(noted: Noted) -> Iterator[str]:
    hardware = {
        hardware_of(session)
        for run in (answer.run for group in noted.groups for answer in group.answers)
        if run.summary.get("training_seconds") is not None
        for session in run.manifest.get("sessions", ())[-1:]
    } - {""}
    if hardware:
        yield f"Seconds of training were measured on {'; '.join(sorted(hardware))}."


def _names(noted: Noted) -> Iterator[str]:
    for group in noted.groups:
        if group.other_aliases:
            yield f"{group.alias} was also run as {', '.join(group.other_aliases)}."
    external = [row.name for part in noted.parts for row in part.rows if row.external]
    if external:
        yield (
            f"{', '.join(dict.fromkeys(external))}: predictions of another system, scored here; nothing is known "
            "of its training."
        )


def _versions(noted: Noted) -> Iterator[str]:
    return version_notes(answer.score for group in noted.groups for answer in group.answers)


def _ways_of_published(noted: Noted) -> Iterator[str]:
    """Of cells that were asked in several ways, the row that has the published numbers."""
    for part in noted.parts:
        rows = Counter(row.cell for row in part.rows)
        for row in part.rows:
            if rows[row.cell] > 1 and row.published:
                label = noted.request.label_of(row.cell)
                yield (
                    f"{label} was asked in {rows[row.cell]} ways; its published numbers stand beside {row.name}, "
                    "asked as it was trained and configured."
                )


def _published(noted: Noted) -> Iterator[str]:
    if noted.beside is None:
        return
    yield f"Published: {noted.beside.source}. Differences (ours less published) are not tested."
    yield from _ways_of_published(noted)
    if noted.beside.reasons:
        yield f"Ours and the published numbers are not of the same kind: {'; '.join(noted.beside.reasons)}."
    scale = noted.about.get("scale")
    if scale and scale != "paper":
        yield (
            f"Ours are of scale {scale}, with other models and data than the published ones: differences say how far "
            "apart the two are, and nothing about the method."
        )
    for note in noted.beside.notes:
        yield f"Published table: {note.rstrip('.')}."
