"""MLflow at an address: its experiments, and the runs in them that this process shows."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.run_store import RunDirectory
from bench.tracking.address import Address
from bench.tracking.child import Change, Child
from bench.tracking.contents import config_of, manifest_of
from bench.tracking.experiment import Experiment
from bench.tracking.memberships import Memberships


class Store:
    """MLflow at an address, for all studies that are mirrored there; reached when the first run is shown.

    Args:
        address: of the store.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.studies = Memberships(address.runs)
        self._client: Any = None
        self._experiments: dict[str, Experiment] = {}
        self._children: dict[tuple[Path, str], Child] = {}

    def show(self, directory: RunDirectory, only: Collection[str] = ()) -> dict[str, Change]:
        """Brings a run up to date in each of its studies.

        Args:
            directory: of the run, with its manifest.
            only: these of its studies; all if empty.

        Raises:
            Exception: whatever the store's client raises.
        """
        with self.address.bounded():
            return {
                study: self._shown(directory, study)
                for study in self.studies_of(directory)
                if not only or study in only
            }

    def _shown(self, directory: RunDirectory, study: str) -> Change:
        try:
            return self._child(directory, study).show()
        except Exception:
            # Somebody may have taken the study or its parent run away: the next time all is looked for again.
            self._experiments.pop(study, None)
            for key in [key for key in self._children if key[1] == study]:
                del self._children[key]
            raise

    def forget(self, directory: RunDirectory) -> None:
        """Keeps no longer in memory what MLflow has of a run; shown again, it is asked for."""
        for key in [key for key in self._children if key[0] == directory.path]:
            del self._children[key]

    def studies_of(self, directory: RunDirectory) -> tuple[str, ...]:
        """The studies that a run belongs to."""
        train_id = manifest_of(directory)["train_id"]
        return self.studies.of(directory, train_id, str(config_of(directory)["name"]))

    def experiment(self, study: str) -> Experiment:
        """The experiment of a study, made if it is missing; what killed processes left in it is set right."""
        if study not in self._experiments:
            planned = self.studies.planned().get(study)
            experiment = Experiment(self._connected(), self.address, study, planned)
            self._note_killed(experiment)
            self._experiments[study] = experiment
        return self._experiments[study]

    def _child(self, directory: RunDirectory, study: str) -> Child:
        key = (directory.path, study)
        if key not in self._children:
            self._children[key] = Child(self.experiment(study), directory)
        return self._children[key]

    def _connected(self) -> Any:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            from mlflow import MlflowClient

            # It would announce each table that it makes, and show a traceback for each failure.
            logging.getLogger("mlflow").setLevel(logging.CRITICAL)
            # Processes that make the tables of a fresh store at once crash each other.
            with self.address.alone():
                self._client = MlflowClient(self.address.timed)
        return self._client

    def _note_killed(self, experiment: Experiment) -> None:
        """Runs that were killed say RUNNING for ever, since a killed process says nothing.

        They are told by the lock of their folder, where it is seen from here; a copy of it proves nothing.
        """
        runs = self.address.runs.resolve()
        for run in experiment.search("attributes.status = 'RUNNING'"):
            if run.data.tags.get("molgraft.kind") != "run":
                continue
            place = Path(run.data.tags.get("molgraft.directory", run.info.run_name))
            folders = (runs / place.name, runs / "pretraining" / place.name)
            here = [RunDirectory(folder) for folder in folders if (folder / "manifest.json").is_file()]
            if here and here[0].status().state != "running":
                with suppress(UserError, LookupError, OSError):  # one that cannot be read shall keep no other back
                    Child(experiment, here[0]).show()
                continue
            is_ours = run.data.tags.get("molgraft.host") == socket.gethostname() and runs in place.parents
            if not here and is_ours and not place.exists():  # thrown away since
                experiment.client.set_terminated(run.info.run_id, "KILLED")
