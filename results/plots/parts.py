"""Parts of a test set by what is known of its molecules, and what cells do on each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from results.metrics import Directions
from results.plots.breakdown import PartRow
from results.plots.rows import Cells
from results.plots.style import LIGHT, Theme
from results.runs import ResultsError
from results.statistics import FEWEST_EXAMPLES
from results.tables.significance import PerExample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from results.statistics import Basis
    from results.tables.gather import Answer, Group

By = Literal["heavy atoms", "functional group", "scaffold", "molecule", "similarity to training molecules"]

_SIZES = (10, 20, 30, 40, 60)
_SIMILARITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_GROUPS = 14
_RESAMPLES = 1999
"""Of the interval of a part: there are many of them in a plot, and a bar needs no third digit."""

FEWEST_OF_PART = 5
"""Examples of a part that is drawn; fewer say nothing."""

_CALLED = {"words": "words of the answer", "invalid": "share of invalid answers"}
_SAID: Mapping[str, str] = {"scaffold": "novelty of the scaffold", "molecule": "novelty of the molecule"}

Parts = Mapping[str, Sequence[str]]
"""Example ids by part, in the order in which parts are drawn; an example may be in several, or in none."""


def parts_of(group: Group, by: By) -> dict[str, list[str]]:
    """The parts of the examples that a cell was asked.

    Of an example with several molecules the heavy atoms are added up, and it has the functional groups of all.

    Args:
        group: the cell's answers.
        by: `heavy atoms`: 1 to 10, 11 to 20 and so on; `functional group`: the 14 most frequent, which overlap;
            `scaffold` and `molecule`: seen in training or not; `similarity to training molecules`: Tanimoto, of the
            nearest one.

    Raises:
        ResultsError: facts of these examples (or their novelty against the training data) were not written.
    """
    from results.facts import example_facts, example_novelty

    if by in ("heavy atoms", "functional group"):
        facts = example_facts(group.answers)
        if not facts:
            raise ResultsError(f"by {by}: facts of these examples were not written; `molgraft score RUN` writes them")
        molecules = {name: row.get("molecules") or [] for name, row in facts.items()}
        return _by_size(molecules) if by == "heavy atoms" else _by_group(molecules)
    novelty = example_novelty(group.answers)
    if not novelty:
        raise ResultsError(
            f"by {by}: how new these examples are to the training data was not written; `molgraft score RUN` does that"
        )
    if by == "similarity to training molecules":
        return _by_similarity(novelty)
    seen: dict[str, list[str]] = {"seen in training": [], "not seen": []}
    for name, row in novelty.items():
        seen["seen in training" if row.get(f"{by}_seen") else "not seen"].append(name)
    return {part: names for part, names in seen.items() if names}


def part_rows(cells: Cells, quantity: str, by: By, *, intervals: bool = True) -> list[PartRow]:
    """A quantity of each cell on each part of its examples, with its interval over examples from 10 examples on.

    Args:
        cells: with their answers.
        quantity: a metric, which is computed over the part as it is over all; `words`, the mean number of words of an
            answer; `invalid`, the share of answers that count as invalid.
        by: as for `parts_of`.
        intervals: whether they are wanted, which are most of the work; a heat map draws none.

    Raises:
        ResultsError: facts are missing, or no cell has the quantity example by example.
    """
    from results.statistics import aligned

    scores = PerExample()
    rows: list[PartRow] = []
    for name, group in cells.items():
        bases = _bases(group, quantity, scores)
        if not bases:
            continue
        (seeds,) = aligned(bases)
        shared = set.intersection(*(set(ids) for ids, _ in bases))
        place = {example: number for number, example in enumerate(e for e in bases[0][0] if e in shared)}
        for part, examples in parts_of(group, by).items():
            places = [place[example] for example in examples if example in place]
            rows.append(_row(name, part, [basis.of(places) for basis in seeds], intervals=intervals))
    if not rows:
        raise ResultsError(f"{quantity} by {by}: no cell has it example by example; packed studies may lack answers")
    return rows


def reference_lengths(group: Group, by: By) -> list[PartRow]:
    """The mean number of words of the gold answers of each part, to stand beside those of the answers.

    Args:
        group: a cell's answers; where no run has kept its questions there are no rows.
        by: as for `parts_of`.

    Raises:
        ResultsError: what was asked has no captions: the length of labels, numbers and molecules says nothing.
    """
    if group.first.entry.get("answer") != "caption":
        raise ResultsError(f"words by {by}: the length of labels, numbers and molecules says nothing")
    files = ((answer.run, f"predictions/{answer.entry.get('predict_id')}.questions.jsonl") for answer in group.answers)
    asked = next((lines for run, file in files if (lines := run.lines(file))), [])
    words = {row["example_id"]: len(str(row["reference"]).split()) for row in asked}
    rows = []
    for part, names in parts_of(group, by).items():
        counts = [words[name] for name in names if name in words]
        if counts:
            rows.append(PartRow("reference", part, sum(counts) / len(counts), n=len(counts)))
    return rows


def breakdown_plot(
    cells: Cells, quantity: str, by: By, *, rows: Sequence[PartRow] = (), theme: Theme = LIGHT
) -> Figure:
    """The plot of a quantity by parts that have enough examples to say something.

    Args:
        cells: with their answers.
        quantity: as for `part_rows`.
        by: as for `parts_of`.
        rows: that are drawn before those of the cells, such as the words of the references.
        theme: light or dark.

    Raises:
        ResultsError: as `part_rows`; fewer than two parts have 5 examples; or no answer of any cell is invalid.
    """
    from results.plots.breakdown import MOST_TOGETHER, breakdown

    names = {row.name for row in rows} | set(cells)
    of_cells = part_rows(cells, quantity, by, intervals=len(names) <= MOST_TOGETHER)
    if quantity == "invalid" and not any(row.value for row in of_cells):
        raise ResultsError(f"invalid answers by {by}: there is none")
    kept = [row for row in (*rows, *of_cells) if row.n >= FEWEST_OF_PART]
    if len({row.part for row in kept}) < 2:
        raise ResultsError(f"{quantity} by {by}: fewer than two parts have {FEWEST_OF_PART} examples to compare")
    directions = Directions.of(answer.run for group in cells.values() for answer in group.answers)
    return breakdown(
        kept,
        quantity=_CALLED.get(quantity, quantity),
        by=_SAID.get(by, by),
        ordered=by in ("heavy atoms", "similarity to training molecules"),
        lower_is_better=quantity == "invalid" or directions.better(quantity) == "smaller",
        theme=theme,
    )


def _row(name: str, part: str, seeds: Sequence[Basis], *, intervals: bool) -> PartRow:
    import numpy as np

    from results.statistics import over_examples, value_of

    n = int(np.any([basis.known for basis in seeds], axis=0).sum())
    if intervals and n >= FEWEST_EXAMPLES:
        found = over_examples(seeds, resamples=_RESAMPLES)
        if found is not None:
            low, high = found.ci95 if found.ci95 is not None else (None, None)
            return PartRow(name, part, found.mean, low, high, found.n)
    value = float(np.mean([float(value_of(basis)) for basis in seeds])) if n else float("nan")
    return PartRow(name, part, None if value != value else value, n=n)


def _bases(group: Group, quantity: str, scores: PerExample) -> list[tuple[tuple[str, ...], Basis]]:
    if quantity == "words":
        return [found for answer in group.answers if (found := _of_answers(answer, _words))]
    if quantity == "invalid":
        return [found for answer in group.answers if (found := _invalid(answer))]
    return scores.bases(group, quantity)


def _of_answers(answer: Answer, value: Callable[[Mapping[str, Any]], float]) -> tuple[tuple[str, ...], Basis] | None:
    rows = answer.run.lines(f"predictions/{answer.entry.get('predict_id')}.jsonl")
    return _mean_basis({row["example_id"]: value(row) for row in rows}) if rows else None


def _words(row: Mapping[str, Any]) -> float:
    text = row.get("text")
    return float(len(str(row.get("raw") or "" if text is None else text).split()))


def _invalid(answer: Answer) -> tuple[tuple[str, ...], Basis] | None:
    from results.scores import example_scores

    found = example_scores(answer.run, answer.score, ())
    if found is None:
        return None
    return _mean_basis({example: float(example in found.invalid) for example in found.example_ids})


def _mean_basis(values: Mapping[str, float]) -> tuple[tuple[str, ...], Basis]:
    import numpy as np

    from results.statistics import Basis

    return tuple(values), Basis("mean", np.array([[value] for value in values.values()], dtype=np.float64))


def _by_size(molecules: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    names = [f"{low + 1} to {high}" for low, high in pairwise((0, *_SIZES))] + [f"over {_SIZES[-1]}"]
    found: dict[str, list[str]] = {name: [] for name in names}
    for example, parts in molecules.items():
        sizes = [part.get("atoms") for part in parts]
        if sizes and all(size is not None for size in sizes):  # RDKit cannot read every molecule of every data set
            total = sum(size for size in sizes if size is not None)
            found[names[sum(total > edge for edge in _SIZES)]].append(example)
    return {name: examples for name, examples in found.items() if examples}


def _by_group(molecules: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    has = {
        example: {str(group) for part in parts for group in part.get("groups") or ()}
        for example, parts in molecules.items()
    }
    counts = Counter(group for groups in has.values() for group in groups)
    frequent = sorted(counts, key=lambda group: (-counts[group], group))[:_MOST_GROUPS]
    return {group: [example for example, groups in has.items() if group in groups] for group in frequent}


def _by_similarity(novelty: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    edges = (0.0, *_SIMILARITIES)
    names = [f"{low:g} to {high:g}" for low, high in pairwise(edges)] + ["1"]
    names[-2] = f"{edges[-2]:g} to below 1"
    found: dict[str, list[str]] = {name: [] for name in names}
    for example, row in novelty.items():
        nearest = row.get("nearest")
        if nearest is not None:
            found[names[sum(nearest >= edge for edge in _SIMILARITIES)]].append(example)
    return {name: examples for name, examples in found.items() if examples}
