"""A study in MLflow: an experiment with one parent run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.tracking.address import Address
from bench.tracking.memberships import PlannedStudy

_ATTEMPTS = 5
_PARENT = "tags.`molgraft.kind` = 'study'"


class Experiment:
    """The experiment of a study with its parent run; both are made if they are missing.

    Args:
        client: of the store.
        address: of the store.
        study: its name.
        planned: what its plan says, where there is one.
    """

    def __init__(self, client: Any, address: Address, study: str, planned: PlannedStudy | None) -> None:
        self.client, self.address = client, address
        with address.alone():
            self._id = self._found_or_made(f"molgraft/{study}", address.artifacts(study))
            self._tags = {"molgraft.kind": "study", "mlflow.runName": study}
            parents = self.search(_PARENT)
            parent = self.earliest(parents) if parents else self.make(_PARENT, self._tags)
        self.parent: str = parent.info.run_id
        if len(parents) > 1:
            self._adopt()
        try:
            self._describe(parent, _described(study, planned))
        except Exception as error:
            if not was_taken_away(error):
                raise
            self._describe(self.client.get_run(self.present_parent()), _described(study, planned))

    def search(self, condition: str) -> list[Any]:
        """All active runs that meet a condition."""
        page = self.client.search_runs([self._id], condition)
        found = list(page)
        while page.token:
            page = self.client.search_runs([self._id], condition, page_token=page.token)
            found += page
        return found

    def make(self, condition: str, tags: Mapping[str, str], start: int | None = None) -> Any:
        """A new run, or one that was made meanwhile.

        Mirrors on machines without a common lock can make two of one identity at once. Each looks again afterwards, so
        that whoever comes last sees all, and the earliest stays.

        Args:
            condition: what the run's tags meet.
            tags: of the run.
            start: milliseconds since 1970; None for now.
        """
        started = int(time.time() * 1000) if start is None else start
        self.client.create_run(self._id, start_time=started, tags=dict(tags))
        return self.earliest(self.search(condition))

    def earliest(self, found: list[Any]) -> Any:
        """The one of several runs of one identity that all mirrors keep; the others are taken away."""
        first, *others = sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))
        for run in others:
            try:
                self.client.delete_run(run.info.run_id)
            except Exception as error:
                if not was_taken_away(error):  # which another mirror may have done just now
                    raise
        return first

    def present_parent(self) -> str:
        """The parent run; looked for again, or made, where another mirror or somebody has taken it away."""
        if self.client.get_run(self.parent).info.lifecycle_stage != "active":
            left = self.search(_PARENT)
            self.parent = (self.earliest(left) if left else self.make(_PARENT, self._tags)).info.run_id
        return self.parent

    def _describe(self, parent: Any, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            if parent.data.tags.get(key, "") != value:
                insisting(self.client.set_tag, parent.info.run_id, key, value)
        if parent.info.status != "FINISHED":  # a study ends when no more runs are added, which nobody announces
            self.client.set_terminated(parent.info.run_id)

    def _adopt(self) -> None:
        """Puts all children under the parent that is left."""
        for run in self.search("tags.`molgraft.kind` = 'run'"):
            if run.data.tags.get("mlflow.parentRunId") != self.parent:
                insisting(self.client.set_tag, run.info.run_id, "mlflow.parentRunId", self.parent)

    def _found_or_made(self, name: str, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another machine was faster, or it cannot be made
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)


def insisting(call: Callable[..., Any], *given: Any) -> None:
    """Calls MLflow, and again where another process wrote the same row at the same moment.

    MLflow looks whether a tag or a data set is there before it writes it, and fails if it comes to be in between.
    """
    for attempt in range(_ATTEMPTS):
        try:
            call(*given)
        except Exception as error:
            if "IntegrityError" not in str(error) and "UniqueViolation" not in str(error):
                raise
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.1))
        else:
            return


def was_taken_away(error: Exception) -> bool:
    """Whether a call failed because another mirror has deleted the run, the later one of two for one identity."""
    return "'active' state" in str(error)


def _described(study: str, planned: PlannedStudy | None) -> dict[str, str]:
    """Tags of the parent run."""
    tags = {"molgraft.study": study}
    if planned is None:
        return tags
    rule = ", ".join(f"{key} {value}" for key, value in planned.select.items() if value is not None)
    tags |= {"molgraft.runs": str(len(planned.runs)), "molgraft.select": rule}
    return tags | {"molgraft.question": planned.question, "mlflow.note.content": planned.question}
