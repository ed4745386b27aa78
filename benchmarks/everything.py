"""All real molecules at hand under every feature scheme and every segmenter: nothing may crash, counts must add up."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.registry import registry
from benchmarks.measure import keep
from benchmarks.molecules import by_hash, sets
from encoders.base import FeatureScheme
from encoders.motifs import MotifScheme
from encoders.store import FeatureStore

_BATCH = 1_000
_REASONS = 3


def run(limit: int | None, workers: int, *, write: bool) -> int:
    """Featurises everything through a store and reads it back; 1 where counts do not add up.

    Args:
        limit: at most so many molecules of each set; None for all.
        workers: processes that featurise.
        write: whether the counts are kept.
    """
    schemes = _schemes()
    print(f"schemes: {', '.join(schemes)}")
    found: dict[str, Any] = {}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, listed in sets().items():
            molecules = by_hash(listed)[:limit]
            found[name] = {"rows": len(listed), "molecules": len(molecules), "schemes": {}}
            print(f"\n{name}: {len(listed):,} rows, {len(molecules):,} distinct molecules")
            for label, scheme in schemes.items():
                outcome = _outcome(Path(folder), scheme, molecules, workers)
                found[name]["schemes"][label] = outcome
                adds_up = (
                    outcome["accepted"] + outcome["rejected"]
                    == len(molecules)
                    == outcome["read_back"] + outcome["rejected"]
                )
                wrong += not adds_up
                reasons = "; ".join(f"{count:,} x {reason}" for reason, count in outcome["reasons"].items())
                print(
                    f"  {label:<40} {outcome['accepted']:>8,} accepted {outcome['rejected']:>6,} rejected "
                    f"{outcome['seconds']:>7.1f} s{'' if adds_up else '  DOES NOT ADD UP'}  {reasons}",
                    flush=True,
                )
    if write and limit is None:
        keep("featurise-everything", {"sets": found})
    return 1 if wrong else 0


def _schemes() -> Mapping[str, FeatureScheme]:
    """Every feature scheme with its defaults, and the motifs of every segmenter."""
    known = registry()
    found: dict[str, FeatureScheme] = {}
    for name, scheme in sorted(known.all("features").items()):
        if not issubclass(scheme, MotifScheme):
            found[name] = scheme()
    for name, segmenter in sorted(known.all("segmenter").items()):
        found[f"motifs of {name}"] = MotifScheme(segmenter=segmenter())
    lost = [*known.unavailable("features"), *known.unavailable("segmenter")]
    if lost:
        raise ImportError("; ".join(f"{each.origin}: {each.reason}" for each in lost))
    return found


def _outcome(root: Path, scheme: FeatureScheme, molecules: Sequence[str], workers: int) -> dict[str, Any]:
    began = time.perf_counter()
    store = FeatureStore.open_or_build(root, [scheme], molecules, workers=workers)
    seconds = time.perf_counter() - began
    accepted = list(store.row_of)
    parts = [accepted[start : start + _BATCH] for start in range(0, len(accepted), _BATCH)]
    batches = [store.batch(part) for part in parts]
    reasons = Counter(_kind(reason) for reason in store.rejected.values())
    columns = batches[0].columns if batches else {}
    return {
        "accepted": len(accepted),
        "rejected": len(store.rejected),
        "read_back": sum(batch.size for batch in batches),
        "rows": {name: sum(len(batch[name].values) for batch in batches) for name in columns},
        "reasons": dict(reasons.most_common(_REASONS)),
        "seconds": round(seconds, 1),
    }


def _kind(reason: str) -> str:
    """A reason without the number of the atom or bond, or of tokens or atoms in all."""
    return re.sub(r" has [\d,]+ (tokens|atoms)", r" has many \1", re.sub(r"^(atom|bond) \d+ has", r"\1 has", reason))
