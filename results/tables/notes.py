"""What has to be known to read a table, a sentence or two each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.tables.significance import FEWEST_EXAMPLES

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
        yield f"{said} by {_test(tests)} (p < 0.05 after Holm's correction over {_count(tests.family, 'such test')})."
    reference = noted.request.reference
    if tests.versus and reference is not None:
        yield (
            f"Δ: the cell's value less that of {noted.request.label_of(reference)}, with its 95% interval, by "
            f"{_test(tests)}; p after Holm's correction over all {_count(tests.versus, 'difference')}. A star marks "
            "every value for which it is below 0.05."
        )
    elif reference is not None:
        yield f"Nothing is compared with {noted.request.label_of(reference)}, which has no such scores."
    for reason in dict.fromkeys(tests.reasons.values()):
        named = ", ".join(metric for metric, why in tests.reasons.items() if why == reason)
        yield f"{named}: {reason.replace('`', '')}."
    for note in tests.notes:
        if "in one of the cells only" in note:
            yield f"Tests: {note}."


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
    reasons: dict[str, str] = {}
    for answer in (answer for group in noted.groups for answer in group.answers):
        for name, estimate in answer.score["metrics"].items():
            if estimate.get("value") is None:
                reasons[name] = estimate.get("reason", "undefined")
    # What follows a colon is where it was looked for: that machine's matter.
    yield from (f"{name} is n/a: {reason.split(': ')[0].rstrip('.')}." for name, reason in reasons.items())


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
    hardware = set()
    for run in (answer.run for group in noted.groups for answer in group.answers):
        if run.summary.get("training_seconds") is None:
            continue
        for session in run.manifest.get("sessions", ())[-1:]:
            accelerator = session.get("accelerator")
            name = accelerator.get("name", accelerator) if isinstance(accelerator, Mapping) else accelerator
            threads = session.get("threads")
            cores = f"{session.get('processor')}" + (f", {_count(threads, 'thread')}" if threads else "")
            hardware.add(str(name) if name else cores)
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


def _published(noted: Noted) -> Iterator[str]:
    if noted.beside is None:
        return
    yield f"Published: {noted.beside.source}. Differences (ours less published) are not tested."
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


def _count(number: int, of: str) -> str:
    return f"{number:,} {of}{'' if number == 1 else 's'}"
