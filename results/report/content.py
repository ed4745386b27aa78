"""What a report shows, ready to be written as a page; `gather` fills it from stored runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from results.page import Markup
from results.report.examples import Browser
from results.report.provenance import Origin
from results.report.recipe import Difference
from results.report.sentences import Compared, Standing


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure.

    Args:
        title: what it shows, in a few words.
        svg: an element that may stand in a page.
        about: what a reader needs to know to read it.
    """

    title: str
    svg: Markup
    about: str = ""


@dataclass(frozen=True, slots=True)
class Reliance:
    """How much a cell uses the graph.

    Args:
        cell: its name.
        value: gain of the gold answer's log-likelihood from its own graph, nats per token; None where not measured.
        ci95: its interval over examples; None below 10 of them.
        p: that there is no gain, by swapping the two graphs of each example; corrected by Holm over the cells.
        detectable: the gain that would have been found with 80% power after correction.
        n: examples whose graph was swapped for one of equal size.
        left_out: examples without such a partner.
        reason: why there is no value.
        counted: `2 of 3 seeds` where it was not measured in all.
        control: what stands in the place of the graphs, at training or test, where they are not the real ones.
        changes: by metric, how much better the answers are with their own graph; mean over seeds.
    """

    cell: str
    value: float | None
    ci95: tuple[float, float] | None
    p: float | None
    detectable: float | None
    n: int
    left_out: int
    reason: str = ""
    counted: str = ""
    control: str = ""
    changes: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Invalid:
    """Answers of a cell that could not be parsed, or were cut off.

    Args:
        cell: its name.
        n: answers of all seeds.
        invalid: of these, how many could not be parsed.
        ended_by_length: how many ended at the most tokens that were allowed.
        reasons: why, with how often, the most frequent first.
    """

    cell: str
    n: int
    invalid: int
    ended_by_length: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that has no result."""

    cell: str
    seed: int | None
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class Part:
    """One way of asking: a task, a data set, a split and a protocol.

    Args:
        title: what the study calls it, or else all four.
        tables: as HTML.
        metric: that decides.
        standings: of the cells, best first.
        compared: each cell with the reference, or with the best one.
        reference: the cell that the study names, as it is called; None where there is none.
        caveats: what the answer does not say.
        plots: of the results.
        reliance: of the cells.
        reliance_plots: of the gains.
        examples: those that the page holds.
        invalid: answers that could not be parsed.
    """

    title: str
    tables: tuple[Markup, ...]
    metric: str
    standings: tuple[Standing, ...]
    compared: tuple[Compared, ...]
    reference: str | None
    caveats: tuple[str, ...]
    plots: tuple[Plot, ...]
    reliance: tuple[Reliance, ...]
    reliance_plots: tuple[Plot, ...]
    examples: Browser
    invalid: tuple[Invalid, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A study, ready to be written as a page.

    Args:
        study: its name.
        question: what it asks, in words; empty where it says nothing.
        parts: the first answers the question.
        cells: aliases.
        runs: how many there are, and how many of them are done.
        unfinished: runs without a result.
        differences: what cells differ in.
        common: settings that all have, as YAML.
        configs: of each cell, as YAML.
        prompts: by task, one that was asked, verbatim, with its answer.
        origins: where the numbers come from.
        identities: of the runs: cell, seed, training, state.
        commands: how to run it again.
        places: absolute paths that anything of this names, of which a page shows the last part only.
        about: scale, fidelity and the rule of selection, where the study has them.
        ranks: of cells over all parts, where there are enough of them.
    """

    study: str
    question: str
    parts: tuple[Part, ...]
    cells: tuple[str, ...]
    runs: tuple[int, int]
    unfinished: tuple[Unfinished, ...]
    differences: tuple[Difference, ...]
    common: str
    configs: Mapping[str, str]
    prompts: tuple[Mapping[str, Any], ...]
    origins: tuple[Origin, ...]
    identities: tuple[tuple[str, ...], ...]
    commands: tuple[str, ...]
    places: tuple[str, ...]
    about: Mapping[str, str]
    ranks: tuple[Plot, ...] = ()
