"""Where numbers come from: code, versions, machines, data and weights of all runs, and what differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from results.runs import Run
from results.settings import machine_of

_LETTERS = 12  # of a hash that is shown; the whole one stands in the manifest


@dataclass(frozen=True, slots=True)
class Origin:
    """One line of the provenance.

    Args:
        what: what is told.
        values: all that occur; several mean that runs differ.
        warns: whether several, or this one, should make a reader careful.
    """

    what: str
    values: tuple[str, ...]
    warns: bool = False


def origins(runs: Sequence[Run], scores: Sequence[Mapping[str, Any]] = ()) -> list[Origin]:
    """The provenance of all runs together.

    Args:
        runs: of the study.
        scores: as results have them, for versions of metrics and tokenizers.
    """
    manifests = [run.manifest for run in runs if run.manifest]
    sessions = [session for manifest in manifests for session in manifest.get("sessions", ())]
    found = [
        _line("molgraft", _versions(sessions), warns_if_several=True),
        _line("Commit", _commits(sessions), warns_if_several=True),
        _uncommitted(sessions),
        _line("Language model", _models(manifests)),
        _line("Data", _data(manifests)),
        _line("Weights read", _weights(manifests)),
        _line("Scores", _identities(scores), warns_if_several=True),
        _line("Machine", _machines(sessions)),
        _line("Python", _pythons(sessions)),
        _line("Packages", _packages(sessions)),
        _line("Selection of weights", (str(m["scored_weights"]) for m in manifests if m.get("scored_weights"))),
        _line("Worked on", _times(sessions)),
        _line("Training", _cost(runs)),
    ]
    return [line for line in found if line.values]


def _line(what: str, values: Iterator[str] | Sequence[str], *, warns_if_several: bool = False) -> Origin:
    distinct = tuple(dict.fromkeys(values))
    return Origin(what, distinct, warns_if_several and len(distinct) > 1)


def _versions(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (str(session["molgraft"]) for session in sessions if session.get("molgraft"))


def _commits(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    commits = ((session.get("git") or {}).get("commit") for session in sessions)
    return (str(commit) for commit in commits if commit)


def _uncommitted(sessions: Sequence[Mapping[str, Any]]) -> Origin:
    """Whether the code was as committed. Null in a manifest stands for no change where the commit is known."""
    states = [session["git"].get("uncommitted_changes") for session in sessions if session.get("git")]
    changed = sum(bool(state) for state in states)
    if not states:
        return Origin("Uncommitted changes", ("unknown: not run from a git checkout",) if sessions else (), True)
    if changed:
        return Origin("Uncommitted changes", (f"in {changed} of {len(states)} sessions",), True)
    return Origin("Uncommitted changes", ("none",))


def _models(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for manifest in manifests:
        llm = manifest.get("llm") or {}
        if llm:
            extras = [str(llm[key]) for key in ("weights", "revision") if llm.get(key) not in (None, "pretrained")]
            if llm.get("quantisation") not in (None, "none"):
                extras.append(str(llm["quantisation"]))
            identity = f"identity {llm['identity']}" if llm.get("identity") else ""
            yield ", ".join(filter(None, [str(llm.get("origin", "?")), identity, *extras]))


def _data(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for manifest in manifests:
        for name, part in (manifest.get("data") or {}).items():
            if isinstance(part, Mapping) and part.get("sha256"):
                yield f"{name}: sha256 {str(part['sha256'])[:_LETTERS]}…"


def _weights(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for manifest in manifests:
        for part, files in (manifest.get("files") or {}).items():
            for file in files or ():
                yield f"{part}: {_file(file)}"
        for pretrained in manifest.get("pretrained") or ():
            yield f"pretrained here: {_file(pretrained)}"


def _file(described: Any) -> str:
    if not isinstance(described, Mapping):
        return str(described)
    name = next((str(described[key]) for key in ("file", "path", "name", "origin") if described.get(key)), "")
    name = name.rpartition("/")[2]
    sha = described.get("sha256") or described.get("identity")
    return f"{name} sha256 {str(sha)[:_LETTERS]}…" if sha else name or "unnamed"


def _identities(scores: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for score in scores:
        known = score.get("identity") or {}
        parts = [f"{key} {_cut(str(value))}" for key, value in known.items()]
        yield f"{score.get('protocol', '?')}: {'; '.join(parts)}" if parts else str(score.get("protocol", "?"))


def _cut(value: str) -> str:
    is_hash = len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
    return f"{value[:_LETTERS]}…" if is_hash else value


def _machines(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return filter(None, map(machine_of, sessions))


def _pythons(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    return (f"{session.get('python', '?')} on {session.get('platform', '?')}" for session in sessions)


def _packages(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each package once, with all versions that occur."""
    versions: dict[str, dict[str, None]] = {}
    for session in sessions:
        for name, version in (session.get("packages") or {}).items():
            if name != "molgraft" and version is not None:
                versions.setdefault(name, {})[str(version)] = None
    return [f"{name} {' and '.join(found)}" for name, found in versions.items()]


def _times(sessions: Sequence[Mapping[str, Any]]) -> list[str]:
    begun = sorted(str(session["time"]) for session in sessions if session.get("time"))
    ended = sorted(
        str(s["end"]["time"]) for s in sessions if isinstance(s.get("end"), Mapping) and s["end"].get("time")
    )
    if not begun:
        return []
    until = f" to {ended[-1]}" if ended else ""
    return [f"{begun[0]}{until}, in {len(sessions)} sessions"]


def _cost(runs: Sequence[Run]) -> list[str]:
    seconds = [
        float(run.summary["training_seconds"]) for run in runs if run.summary.get("training_seconds") is not None
    ]
    if not seconds:
        return []
    total = sum(seconds)
    shown = (
        f"{total:,.0f} s" if total < 600 else f"{total / 60:,.0f} min" if total < 36_000 else f"{total / 3600:,.1f} h"
    )
    return [f"{shown} in all, of {len(seconds)} runs; a stage that several runs have in common counts for each"]
