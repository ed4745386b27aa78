"""How to run a study again: the commands, from what the study and its runs have recorded."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from results.packed import StudyOnFile
from results.page import Markup, as_script_data, escape

# Of two levels at least: `/data` says nothing of anybody.
_PLACE = re.compile(r"(?:file://)?(?:[A-Za-z]:[\\/]|/)[^\0\n]*[\\/][^\0\n]+")
_IN_TEXT = re.compile(r"""(?<![\w.:/~])(?:"(/[^"\n]+)"|'(/[^'\n]+)'|(/(?:[\w.+@-]+/)+[\w.+@-]*))""")


def commands_of(study: StudyOnFile) -> Iterator[str]:
    """The lines of a shell that repeat a study: the commit, the study with all that was chosen, its report."""
    sessions = [session for run in study.runs for session in run.manifest.get("sessions", ())]
    commits = dict.fromkeys((session.get("git") or {}).get("commit") for session in sessions)
    known = [shlex.quote(str(commit)) for commit in commits if commit]
    if len(known) == 1:
        yield f"git checkout {known[0]}"
    elif known:
        yield f"git checkout {known[0]}   # or {' or '.join(known[1:])}: runs were made with several"
    yield "pip install -c constraints.txt -e ."
    if not (study.about or study.question):
        yield "molgraft run CONFIG.yaml --seed SEED   # with a configuration from above, for each of its seeds"
        yield "molgraft report runs"
        return
    given = study.about.get("arguments")
    if isinstance(given, list | tuple) and given:
        words = [str(word) for word in given]
        # What the study or its preset chose by itself, another version may choose otherwise.
        scale = study.about.get("scale")
        words += ["--scale", str(scale)] if scale and "--scale" not in words else []
        yield f"molgraft study {shlex.join(words)}"
    else:
        chosen = [word for key in ("scale", "fidelity") if study.about.get(key) for word in _option(key, study.about)]
        yield f"molgraft study {shlex.join([study.name, *chosen])}   # its name, or the file that describes it"
        yield "# What else it was started with (--set, --only, --switch, --data) was not recorded by that version of"
        yield "# molgraft: hold its plan (--dry-run) against the configurations and identities above."
    yield f"molgraft report {shlex.quote(study.name)}"


def places_of(study: StudyOnFile, texts: Iterable[str] = ()) -> tuple[str, ...]:
    """Absolute paths that a study, its runs or some texts name, the longest first: a page shows their last part only.

    They are of the machine that was used, say who used it, and lead nowhere else.
    """
    given = [str(word) for word in study.about.get("arguments") or ()]
    found = {place for told in (given, *(run.config for run in study.runs)) for place in _places(told)}
    for run in study.runs:
        described = {key: value for key, value in run.manifest.items() if key not in ("sessions", "prompts")}
        found |= {*_places(described), *_places(_asked(run.summary))}
    # `--set a.b=/some/file` is no path but has one.
    for text in (*given, *texts):
        found |= {next(filter(None, match.groups())) for match in _IN_TEXT.finditer(text)}
    return tuple(sorted((place for place in found if _last(place) != place), key=lambda place: (-len(place), place)))


def without_places(written: Markup, places: Iterable[str]) -> Markup:
    """HTML, or JSON of a page, in which `/home/somebody/data.yaml` is `…/data.yaml`."""
    text = str(written)
    for place in places:
        short = f"\N{HORIZONTAL ELLIPSIS}/{_last(place)}"
        for write in (escape, lambda value: as_script_data(value)[1:-1]):
            text = text.replace(write(place), write(short))
    return Markup(text)


def _option(key: str, about: Mapping[str, Any]) -> tuple[str, str]:
    return f"--{key}", str(about[key])


def _places(told: Any) -> Iterator[str]:
    """Strings that are absolute paths, in whatever holds them."""
    if isinstance(told, Mapping):
        told = list(told.values())
    if isinstance(told, list | tuple):
        for value in told:
            yield from _places(value)
    elif isinstance(told, str) and _PLACE.fullmatch(told):
        yield told


def _asked(summary: Mapping[str, Any]) -> list[Any]:
    """What runs were asked, and what scores depend on; not what they answered."""
    return [
        [entry.get("data"), [score.get("identity") for score in entry.get("scores", ())]]
        for entry in summary.get("evaluations", ())
    ]


def _last(place: str) -> str:
    return re.split(r"[\\/]", place.rstrip("\\/"))[-1] or place
