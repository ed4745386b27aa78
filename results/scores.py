"""Scores example by example, and what metrics are made of: for paired tests, resampling and parts of a test set."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from results.runs import Run
    from results.statistics.formulas import Basis

    FloatArray = npt.NDArray[np.float64]

NO_BASIS = "no paired test: scored by an older version; `molgraft score RUN` adds what it needs"
"""What to say of a metric that has a value and no basis."""

_SAME = 1e-9  # relative; a mean that was summed in another order is the same mean


@dataclass(frozen=True, slots=True)
class ExampleScores:
    """The scores of one evaluation under one protocol, example by example.

    Args:
        example_ids: in the order of all arrays.
        values: by metric, `(n,)`; NaN for an example without a value. Metrics of the whole set only have none.
        basis: by metric, the rows from which it is computed over any set of examples. Metrics that were scored by an
            older version and are no mean have none: `NO_BASIS` is what to say of them.
        invalid: by example, why its answer counts as invalid.
    """

    example_ids: tuple[str, ...]
    values: Mapping[str, FloatArray]
    basis: Mapping[str, Basis]
    invalid: Mapping[str, str]


def example_scores(run: Run, score: Mapping[str, Any], metrics: Collection[str] | None = None) -> ExampleScores | None:
    """The scores of a run example by example; None where the file is missing.

    Args:
        run: whose scores.
        score: which, as `score_of` or `decontaminated_of` gives it.
        metrics: those that are wanted, None for all; the fewer, the less memory.

    Raises:
        ResultsError: the file cannot be read.
    """
    stored = run.json(f"scores/{score['score_id']}.json") if "score_id" in score else None
    if stored is None:
        return None
    known = stored.get("per_example", {})
    values = {name: _array(known[name]) for name in known if metrics is None or name in metrics}
    basis = {}
    for name, estimate in score.get("metrics", {}).items():
        if metrics is None or name in metrics:
            found = _basis(stored, name, values.get(name), estimate.get("value"))
            if found is not None:
                basis[name] = found
    return ExampleScores(tuple(stored["example_ids"]), values, basis, stored.get("invalid", {}))


def _basis(stored: Mapping[str, Any], name: str, values: FloatArray | None, value: float | None) -> Basis | None:
    from results.statistics.formulas import Basis

    if "basis" not in stored:  # of an older version
        return Basis("mean", values[:, None]) if values is not None and _is_mean(values, value) else None
    described = stored["basis"].get(name)
    if described is None:
        return None
    rows = _rows(described) if "rows" in described or "columns" in described else values
    if rows is None:
        return None
    groups = described.get("groups")
    return Basis(described["formula"], rows.reshape(len(rows), -1), None if groups is None else tuple(groups))


def _is_mean(values: FloatArray, value: float | None) -> bool:
    """Whether a metric that says nothing of how it is made is the mean of its examples."""
    import numpy as np

    scored = values[~np.isnan(values)]
    return value is not None and len(scored) > 0 and math.isclose(float(scored.mean()), value, rel_tol=_SAME)


def _rows(described: Mapping[str, Any]) -> FloatArray:
    """`(n, k)`, from rows as score files have them or from columns as packed runs have them."""
    import numpy as np

    if "columns" in described:
        return np.stack([_array(column) for column in described["columns"]], axis=1)
    rows: Sequence[Sequence[float | None] | None] = described["rows"]
    width = max((len(row) for row in rows if row is not None), default=1)
    empty = [math.nan] * width
    return np.array([empty if row is None else row for row in rows], dtype=np.float64).reshape(len(rows), width)


def _array(values: Sequence[float | None]) -> FloatArray:
    import numpy as np

    return np.array(values, dtype=np.float64)  # None becomes NaN
