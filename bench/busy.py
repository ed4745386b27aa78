"""A run that another process is at, found out before anything is prepared for it."""

from __future__ import annotations

from typing import Any

import yaml

from bench.config import RunConfig
from bench.errors import UserError
from bench.parsing import to_mapping
from bench.run_store import RunDirectory, read_json
from bench.runtime import Runtime
from tasks.data import Catalogue


def refuse_busy(config: RunConfig, runtime: Runtime, catalogue: Catalogue) -> None:
    """Stops where another process is at a run of this name and seed, these settings and these data.

    A run's folder is only known once its identity is, after its data are read. This looks at what is known before, to
    spare who starts a run twice the waiting; what it does not see, the run's lock refuses later.

    Raises:
        RunBusyError: one is.
    """
    for folder in sorted(runtime.runs.glob(f"{config.name}-s{config.seed}-*")):
        directory = RunDirectory(folder)
        if directory.status().state == "running" and _is_same(config, directory, catalogue):
            raise directory.busy()


def _is_same(config: RunConfig, directory: RunDirectory, catalogue: Catalogue) -> bool:
    try:
        settings = directory.config_file.read_text(encoding="utf-8")
        data: dict[str, dict[str, Any]] = read_json(directory.manifest_file)["data"]
        if settings != yaml.safe_dump(to_mapping(config), sort_keys=False):
            return False
        for name, written in data.items():
            known, _, split = name.rpartition("/")
            if catalogue.get(known).source(split).sha256 != written["sha256"]:  # type: ignore[arg-type]
                return False
    except (OSError, KeyError, UserError):
        return False
    except Exception as error:
        if not getattr(error, "is_user_error", False):
            raise
        return False  # data that cannot be read are told of when they are read
    return True
