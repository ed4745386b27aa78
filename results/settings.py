"""What separates scores that may not stand in one row or rank, and what is told of them; and names of hardware.

Tables, the leaderboard, comparisons and reports all use `comparable` (or `settings_of`), so that two scores which one
of them compares are compared by all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from results.formats import counted

VERSIONS = frozenset(
    {
        *("ci95", "nltk", "numpy", "opsin", "py2opsin", "rapidfuzz", "rdkit", "scikit-learn", "scipy", "selfies"),
        *("sentencepiece", "tokenizers", "transformers"),
    }
)
"""Of what a score's `identity` names, what may differ between scores that are compared: versions of packages, and how
the interval of a single score is made. All else separates, also what a plug-in's metric names: the metrics and their
versions, the tokenizer, hashes of data, the positive label, the notation, limits of time.
"""


def settings_of(score: Mapping[str, Any]) -> dict[str, str]:
    """What scores must share to be compared, of all that the score says its numbers depend on."""
    return {str(key): str(value) for key, value in _identity(score).items() if key not in VERSIONS}


def versions_of(score: Mapping[str, Any]) -> dict[str, str]:
    """The versions that a score was made with, which may differ between scores that are compared."""
    return {str(key): str(value) for key, value in _identity(score).items() if key in VERSIONS}


def comparable(entry: Mapping[str, Any], score: Mapping[str, Any]) -> tuple[str, ...]:
    """What scores must share to stand beside each other: protocol, examples, what was left out, and settings.

    Args:
        entry: the evaluation, as a run's `result.json` has it.
        score: one of its scores, whole or decontaminated.

    Returns:
        A key; `entry["examples_id"]` is in it as "" where it is not known.
    """
    return (
        str(score["protocol"]),
        str(entry.get("examples_id") or ""),
        json.dumps(score.get("without"), sort_keys=True),
        json.dumps(settings_of(score), sort_keys=True),
    )


def left_out(score: Mapping[str, Any]) -> str:
    """In words, which of the examples that were asked a decontaminated score is not of; empty for a whole one.

    Such as `20 examples whose molecules are in chebi20/train (by inchikey)`; without the number where it is not known.
    """
    without = score.get("without")
    if without is None:
        return ""
    corpora = ", ".join(str(corpus.get("data")) for corpus in without.get("against", ()))
    asked, left = without.get("n"), without.get("n_left")
    examples = "examples" if asked is None or left is None else counted(asked - left, "example")
    return f"{examples} whose molecules are in {corpora} (by {without.get('by')})"


def version_notes(scores: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each package of which scores that stand together were made with several versions."""
    known: dict[str, dict[str, None]] = {}
    for score in scores:
        for name, version in versions_of(score).items():
            known.setdefault(name, {})[version] = None
    for name, found in known.items():
        if len(found) > 1 and name == "ci95":
            yield f"Intervals of single scores were made in several ways: {'; '.join(sorted(found))}."
        elif len(found) > 1:
            yield f"Scored with several versions of {name}: {', '.join(sorted(found))}."


def hardware_of(session: Mapping[str, Any]) -> str:
    """On what a session computed: its accelerator, or else its processor with the threads that it used.

    Args:
        session: of a run's manifest.

    Returns:
        "" where nothing is known.
    """
    accelerator = _accelerator(session.get("accelerator"))
    if accelerator:
        return accelerator
    processor, threads = session.get("processor"), session.get("threads")
    if not processor:
        return ""
    return f"{processor}, {threads} {'thread' if threads == 1 else 'threads'}" if threads else str(processor)


def machine_of(session: Mapping[str, Any]) -> str:
    """All that is known of a session's hardware: processor, cores, threads, accelerator; "" where nothing is."""
    cores, threads = session.get("cores"), session.get("threads")
    used = f"{threads} {'thread' if threads == 1 else 'threads'} used" if threads else ""
    counts = ", ".join(filter(None, (f"{cores} {'core' if cores == 1 else 'cores'}" if cores else "", used)))
    accelerator = _accelerator(session.get("accelerator"))
    parts = [str(session.get("processor") or ""), counts, accelerator]
    if not any(parts):
        return ""
    return "; ".join(part for part in [*parts[:2], accelerator or "no accelerator"] if part)


def _accelerator(described: Any) -> str:
    """Its name; it may be told with more, such as its memory."""
    if isinstance(described, Mapping):
        return ", ".join(str(value) for value in described.values() if value is not None)
    return str(described) if described else ""


def _identity(score: Mapping[str, Any]) -> Mapping[str, Any]:
    found = score.get("identity")
    return found if isinstance(found, Mapping) else {}
