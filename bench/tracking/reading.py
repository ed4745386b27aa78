"""Runs out of an MLflow store, for whoever has the store and not the folder of runs."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bench.errors import UserError
from bench.runtime import Runtime
from bench.tracking.address import Address, address_of, in_one_line
from results.runs import ResultsError, Run, read_json, read_run

_PAGE = 1000  # runs per request
_SPLITS = ("train", "validation", "test")
_PROTOCOL = re.compile(r"(.+)\.(\d+)")  # `strict.1`, since MLflow takes no `@` in a name


def read_tracked(tracking: str, runs: Path = Path("runs"), *, prefer_folders: bool = True) -> list[Run]:
    """All runs that a store knows, each once, by name and seed.

    A run whose directory is on this machine is read from there, since the directory is the truth. Of others the result
    is read among the store's files; where these are out of reach, scores are what the store's metrics say, without
    intervals and without knowing which examples they are of.

    Args:
        tracking: the address: `sqlite:///FILE`, `postgresql://...` or `http://...`.
        runs: the folder of runs beside which a store of files lies.
        prefer_folders: off, only the store is read.

    Raises:
        UserError: the store cannot be reached or knows no run.
    """
    address = address_of(Runtime(runs=runs, tracking=tracking, progress=False))
    if address is None:
        raise UserError("--tracking none: give the address of a store")
    shown = address.without_secrets(tracking)
    if address.kind == "sqlite" and not Path(re.sub(r"^sqlite[^/]*:///", "", tracking)).is_file():
        raise UserError(f"--tracking {shown}: there is no such file")
    try:
        with address.bounded():
            tracked = list(_tracked(address))
            found = [_run(client, run, prefer_folders) for client, run in tracked]
    except (UserError, ResultsError):
        raise
    except Exception as error:
        raise UserError(f"MLflow at {shown}: {address.without_secrets(in_one_line(error))}") from error
    if not found:
        raise UserError(f"--tracking {shown}: the store knows no run; `molgraft sync` fills it")
    return sorted(found, key=lambda run: (run.name, run.seed if run.seed is not None else -1))


def _tracked(address: Address) -> Iterator[tuple[Any, Any]]:
    """The client with each run; of one that several studies have, the first."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    client = MlflowClient(address.timed)
    experiments = [one.experiment_id for one in client.search_experiments(filter_string="name LIKE 'molgraft/%'")]
    seen: set[tuple[str, str]] = set()
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, "tags.`molgraft.kind` = 'run'", max_results=_PAGE, page_token=token)
        for run in page:
            key = (run.data.tags["molgraft.train_id"], run.data.tags.get("molgraft.directory", ""))
            if key not in seen:
                seen.add(key)
                yield client, run
        token = page.token
        if not token:
            return


def _run(client: Any, tracked: Any, prefer_folders: bool) -> Run:
    tags: Mapping[str, str] = tracked.data.tags
    folder = Path(tags.get("molgraft.directory") or tracked.info.run_name)
    if prefer_folders and _is_of(folder, tags["molgraft.train_id"]):
        return read_run(folder)
    state = tags.get("molgraft.status", "interrupted")
    failed = tracked.info.status == "FAILED"
    summary = _result(client, tracked) if state == "done" else {}
    params: Mapping[str, str] = tracked.data.params
    seed = tags.get("molgraft.seed", "")
    return Run(
        folder=Path(folder.name),
        name=str(summary.get("name") or params.get("name") or folder.name),
        cell=tags.get("molgraft.cell_id", folder.name),
        seed=int(seed) if seed.isdigit() else None,
        state="failed" if failed else state,
        summary=summary,
        error=state if failed else None,
        message=tags.get("molgraft.message") or None,
        # Nothing else of the run lies in a folder, and a folder of that name here would be another run's.
        packed={},
    )


def _is_of(folder: Path, train_id: str) -> bool:
    """Whether a directory of this machine holds the run: by its identity, since machines have folders of one name."""
    try:
        return bool(read_json(folder / "manifest.json").get("train_id") == train_id)
    except ResultsError:
        return False


def _result(client: Any, tracked: Any) -> Mapping[str, Any]:
    """What the run's result says; where its file is out of reach, what the store's metrics say."""
    scheme, _, path, _, _ = urlsplit(tracked.info.artifact_uri)
    try:
        if scheme in ("", "file"):
            return read_json(Path(unquote(path)) / "result.json")
        with tempfile.TemporaryDirectory() as place:
            return read_json(Path(client.download_artifacts(tracked.info.run_id, "result.json", place)))
    except Exception:  # of as many kinds as there are stores of files
        return _of_metrics(tracked.data.metrics, tracked.data.params)


def _of_metrics(metrics: Mapping[str, float], params: Mapping[str, str]) -> Mapping[str, Any]:
    """A result with the scores that metrics are called by: `split/task/data[/control]/strict.1/bleu-2`."""
    entries: dict[tuple[str, ...], dict[str, Any]] = {}
    for key, value in metrics.items():
        asked, named = _name_of_score(key)
        if named is None:
            continue
        entry = entries.setdefault(asked, _entry(*asked))
        protocol, metric = named
        scores = {score["protocol"]: score for score in entry["scores"]}
        if protocol not in scores:
            entry["scores"].append({"protocol": protocol, "metrics": {}, "identity": {}})
            scores[protocol] = entry["scores"][-1]
        scores[protocol]["metrics"][metric] = {"value": value, "ci95": None}
    for (split, task, data, control), entry in entries.items():
        asked_as = "/".join((split, task, data) if control == "real" else (split, task, data, control))
        entry["reliance"] = {"value": metrics.get(f"{asked_as}/reliance")}
    return {
        "name": params.get("name"),
        **{part: params.get(f"{part}.name") for part in ("encoder", "projector", "llm", "text_input")},
        "evaluations": list(entries.values()),
    }


def _name_of_score(key: str) -> tuple[tuple[str, str, str, str], tuple[str, str] | None]:
    """What was asked (split, task, data, control), and protocol and metric; None in their place for other metrics."""
    match key.split("/"):
        case [split, task, data, written, metric]:
            control = "real"
        case [split, task, data, control, written, metric]:
            pass
        case _:
            return ("", "", "", ""), None
    named = _PROTOCOL.fullmatch(written)
    is_score = named is not None and split in _SPLITS and control != "reliance"
    return (split, task, data, control), ("@".join(named.groups()), metric) if named and is_score else None


def _entry(split: str, task: str, data: str, control: str) -> dict[str, Any]:
    return {
        "task": task,
        "data": data,
        "split": split,
        "n": 0,
        "limited": False,
        "evaluation_id": f"{task}/{data}/{split}/{control}",
        "examples_id": None,
        "graph_input": {"name": control},
        "scores": [],
        "reliance": {"value": None},
    }
