"""Reads one metric's values by example out of score files, of which a leaderboard needs thousands."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.runs import ResultsError, Run
from results.scores import example_scores

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Float32Array = npt.NDArray[np.float32]

_SAME = 1e-9  # relative; a mean that was summed in another order is the same mean
_ROOM = 16  # bytes between a key and the bracket of its value: a colon and white space


class ExampleReader:
    """Values by example of one metric after the other, as float32.

    Score files of 3,300 examples hold a megabyte, of which one metric is a twentieth. Only what stands before the
    metric's values is read, and only the values are taken as numbers. Runs of one test set share one tuple of ids.
    """

    def __init__(self) -> None:
        self._ids: dict[bytes, tuple[str, ...]] = {}

    def read(
        self, run: Run, score: Mapping[str, Any], metric: str
    ) -> tuple[tuple[str, ...], Float32Array, bool] | None:
        """The examples, their values (NaN where there is none), and whether the metric is their mean.

        None where the run does not have them.

        Raises:
            ResultsError: a score file is not readable.
        """
        import numpy as np

        stated = score.get("metrics", {}).get(metric, {}).get("value")
        if stated is None or "score_id" not in score:
            return None
        found = (
            None
            if run.packed is not None
            else self._of_file(run.folder / "scores" / f"{score['score_id']}.json", metric)
        )
        if found is None:
            scores = example_scores(run, score, (metric,))
            if scores is None or metric not in scores.values:
                return None
            ids, values = scores.example_ids, np.asarray(scores.values[metric], dtype=np.float64)
        else:
            ids, values = found
        if len(ids) != len(values):
            raise ResultsError(f"{run.folder}: {len(values)} values of {metric} for {len(ids)} examples")
        scored = values[~np.isnan(values)]
        # A packed run keeps its values rounded, so that their mean is not the stated one to the last digit.
        tolerance = _SAME if run.packed is None else 1e-5
        is_mean = len(scored) > 0 and abs(float(scored.mean()) - stated) <= tolerance * max(1.0, abs(stated))
        return ids, values.astype(np.float32), is_mean

    def _of_file(self, file: Path, metric: str) -> tuple[tuple[str, ...], npt.NDArray[np.float64]] | None:
        """Out of a file as runs write it; None where it is missing or written in another way."""
        import numpy as np
        import orjson

        try:
            found = _parts(file, metric)
        except FileNotFoundError:
            return None
        if found is None:
            return None
        try:
            # None becomes NaN.
            return self._shared_ids(found[0]), np.array(orjson.loads(found[1]), dtype=np.float64)
        except (ValueError, TypeError):
            return None

    def _shared_ids(self, text: bytes) -> tuple[str, ...]:
        import orjson

        key = hashlib.sha256(text).digest()
        if key not in self._ids:
            loaded = tuple(orjson.loads(text[: text.rindex(b"]") + 1]))
            # The same ids written in another way are the same ids.
            self._ids[key] = next((known for known in self._ids.values() if known == loaded), loaded)
        return self._ids[key]


def _parts(file: Path, metric: str) -> tuple[bytes, bytes] | None:
    """Of a score file what stands from the ids to `per_example`, and the list of one metric's values.

    The values are numbers and null, so that the next bracket ends them. A key of `per_example` cannot be mistaken:
    within a JSON text quotation marks are escaped, and what follows the name is a colon and a bracket.
    """
    with file.open("rb") as source:
        if not os.fstat(source.fileno()).st_size:
            return None
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as text:
            table = _key(text, "per_example", b"{", 0)
            ids = _key(text, "example_ids", b"[", 0)
            if table is None or ids is None or ids > table:
                return None
            values = _key(text, metric, b"[", table)
            end = -1 if values is None else text.find(b"]", values)
            return None if end < 0 else (text[ids:table], text[values : end + 1])


def _key(text: mmap.mmap, name: str, opening: bytes, start: int) -> int | None:
    """Where the value of a key begins whose value opens with a bracket of that kind."""
    key = json.dumps(name).encode()
    place = text.find(key, start)
    while place >= 0:
        after = place + len(key)
        opened = text.find(opening, after)
        if opened >= 0 and opened - after < _ROOM and text[after:opened].strip() == b":":
            return opened
        place = text.find(key, after)
    return None
