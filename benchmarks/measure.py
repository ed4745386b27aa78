"""How two sides are timed, and where what was found is written."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
_PACKAGES = ("nltk", "numpy", "rapidfuzz", "rdkit", "rouge-score", "tokenizers", "torch", "torch-geometric")
_MOST_SPREAD = 1.5  # slowest by fastest round of the reference, beyond which a machine was too busy to be believed


@dataclass(frozen=True, kw_only=True)
class Result:
    """A comparison.

    Args:
        case: what was done.
        reference: what it was compared with.
        unit: what is counted per second.
        ours, theirs: the median rates.
        ratio, low, high: median and range of the rounds' ratios; above 1 where ours is faster.
        spread: slowest by fastest round of the reference.
        equal: what was found equal before the timing.
        least: the ratio that `--check` demands, half of the goal.
    """

    case: str
    reference: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    spread: float
    equal: str
    least: float


def compare(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    rounds: int,
    count: int,
    case: str,
    reference: str,
    unit: str,
    equal: str,
    least: float,
    clock: Callable[[], float] = time.process_time,
    is_warm: bool = False,
) -> Result:
    """Times both sides in turn, in the other order every other round, by CPU time of this process.

    Args:
        ours, theirs: do the work once.
        rounds: how often.
        count: units of work in one call.
        case, reference, unit, equal, least: as in `Result`.
        clock: another one, where work is done elsewhere too.
        is_warm: both sides were called just now.
    """
    if not is_warm:
        ours(), theirs()
    seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        for side in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            began = clock()
            side()
            seconds[side].append(clock() - began)
    ratios = [reference_s / our_s for our_s, reference_s in zip(seconds[ours], seconds[theirs], strict=True)]
    return Result(
        case=case,
        reference=reference,
        unit=unit,
        ours=round(count / statistics.median(seconds[ours]), 1),
        theirs=round(count / statistics.median(seconds[theirs]), 1),
        ratio=round(statistics.median(ratios), 2),
        low=round(min(ratios), 2),
        high=round(max(ratios), 2),
        spread=round(max(seconds[theirs]) / min(seconds[theirs]), 2),
        equal=equal,
        least=least,
    )


def report(name: str, results: Iterable[Result], *, check: bool, write: bool) -> int:
    """Prints and keeps results; 1 where `check` finds a ratio too low, or the machine too busy to say."""
    found, failed, steady = [], False, True
    for result in results:
        found.append(asdict(result))
        print(
            f"{result.case}: {result.ratio:.2f} [{result.low:.2f}-{result.high:.2f}] x {result.reference}; "
            f"{result.ours:,.0f} against {result.theirs:,.0f} {result.unit}/s; equal: {result.equal}",
            flush=True,
        )
        if result.spread > _MOST_SPREAD:
            print(f"  UNSTEADY: the reference's rounds differ by a factor of {result.spread}; run it again")
            failed, steady = True, False
        if result.ratio < result.least:
            print(f"  BELOW the least ratio, {result.least}")
            failed = True
    if write and steady:
        keep(name, {"results": found})
    return 1 if check and failed else 0


def keep(name: str, contents: Mapping[str, Any]) -> None:
    """Puts what a benchmark found into the file of this machine, beside that of the others."""
    hardware = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": round(_memory() / 2**30)}
    path = machine_file(".json")
    known = json.loads(path.read_text()) if path.exists() else {}
    about = {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "hardware": hardware}
    versions = {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}}
    known[name] = {**about, "versions": versions, **contents}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    print(f"kept in {path.relative_to(_RESULTS.parents[1])}")


def environment(**more: str) -> dict[str, str]:
    """That of this process, for another one, which may keep what it compiles; or every start would compile it all."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}, **more}


def machine_file(ending: str) -> Path:
    """The file of this machine with that ending."""
    named = re.sub(r"[^a-z0-9]+", "-", _cpu().lower()).strip("-")
    return _RESULTS / f"{named}-{os.cpu_count()}-cores{ending}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        listed = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", listed, re.MULTILINE)
    return named[1].strip() if named else platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
