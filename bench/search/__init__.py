"""Searches: Optuna over any settings of a configuration, by worker processes that may be killed at any time.

`load_search` reads a search file and refuses what cannot be; `run_search` runs it. The trials are kept in a journal
file or in a database, and what belongs to each trial is trained by `bench.experiment.run`, so that nothing is trained
twice and nothing is lost. Optuna is imported in this package only, and only when a search runs.
"""

from __future__ import annotations

from bench.search.definition import Definition, load_search
from bench.search.run import SearchResult, run_search

__all__ = ["Definition", "SearchResult", "load_search", "run_search"]
