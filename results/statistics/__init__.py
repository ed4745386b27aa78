"""Statistics of scores: spreads, intervals, paired tests, ranks and power. scipy does the mathematics.

Each function says what it assumes; `docs/statistics.md` says in plain words which one a table uses and when.
"""

from results.statistics.counts import McNemar, Wins, mcnemar, wins
from results.statistics.formulas import FORMULAS, Basis, value_of
from results.statistics.paired import PairedResult, aligned, mean_over_examples, over_examples, paired
from results.statistics.permutation import permutation_test
from results.statistics.power import achieved_power, detectable_difference, examples_needed
from results.statistics.ranks import Friedman, cliques, critical_difference, friedman, holm
from results.statistics.resampling import RESAMPLES, SEED
from results.statistics.spread import (
    FEWEST_EXAMPLES,
    FEWEST_SEEDS,
    Interval,
    Spread,
    averaged_per_example,
    over_seeds,
    seed_interval,
)

__all__ = [
    "FEWEST_EXAMPLES",
    "FEWEST_SEEDS",
    "FORMULAS",
    "RESAMPLES",
    "SEED",
    "Basis",
    "Friedman",
    "Interval",
    "McNemar",
    "PairedResult",
    "Spread",
    "Wins",
    "achieved_power",
    "aligned",
    "averaged_per_example",
    "cliques",
    "critical_difference",
    "detectable_difference",
    "examples_needed",
    "friedman",
    "holm",
    "mcnemar",
    "mean_over_examples",
    "over_examples",
    "over_seeds",
    "paired",
    "permutation_test",
    "seed_interval",
    "value_of",
    "wins",
]
