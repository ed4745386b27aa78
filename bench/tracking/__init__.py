"""MLflow as a mirror of run directories; the only package that imports mlflow.

Mirroring is a function of what is on disk, so it can be repeated at any time: what MLflow has already is skipped, and a
store can be rebuilt from nothing. A failure here never stops a run.

A study is an experiment with one parent run, and each of its runs a child. Identities stand in tags, since MLflow
chooses the ids of runs itself; of two that were made for one identity, all mirrors keep the same one.
"""

from bench.tracking.mirror import mirror_to
from bench.tracking.synchronise import Synchronised, synchronise

__all__ = ["Synchronised", "mirror_to", "synchronise"]
