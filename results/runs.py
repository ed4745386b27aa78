"""Reads finished and unfinished runs: from their folders, or from the packed form in which studies are committed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import orjson
import yaml

PACKED_STUDY = "study.json"
"""The file by which a folder is known as a packed study (`results.packed`)."""

PACKED_RUN = ".json.gz"
"""How the name of a packed run's file ends."""


SafeLoader: TypeAlias = "type[yaml.SafeLoader] | type[yaml.CSafeLoader]"

SAFE_LOADER: SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's safe loader: libyaml's where it was built in."""


class ResultsError(ValueError):
    """A folder or file that holds no results; the message is meant for the user."""

    is_user_error: ClassVar[bool] = True


class NothingScoredError(ResultsError):
    """No run has the scores that are asked for; other tables of the same study may have theirs."""


@dataclass(frozen=True)
class Run:
    """One run as its folder, or its packed file, tells it.

    Args:
        folder: the run directory; of a packed run, its file. It names the run, and nothing is read from it directly:
            `json` and `lines` read what lies in a run, packed or not.
        name: the alias of its cell.
        cell: what runs must share to be averaged.
        seed: its seed, where it is known.
        state: `done`, or where it stands.
        summary: what `result.json` says; empty for a run that is not done.
        error: the class of a failure.
        message: the failure in one line.
        packed: of a packed run, what its files hold, by their paths within the run.
    """

    folder: Path
    name: str
    cell: str
    seed: int | None
    state: str
    summary: Mapping[str, Any]
    error: str | None = None
    message: str | None = None
    packed: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def external(self) -> bool:
        """Whether these are predictions of another system, of which nothing but the answers is known."""
        return bool(self.summary.get("external", False))

    @property
    def identity(self) -> tuple[str, ...]:
        """What copies of a run share, wherever they lie: the identity of its training, or another system's answers."""
        known = self.summary.get("train_id")
        # One without a result has it in its folder's name, which is that of the packed file too.
        return (str(known), self.name if self.external else "") if known else (self.folder.name.partition(".json")[0],)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What the run was made from and with; empty where nothing is known."""
        return self.json("manifest.json") or {}

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty where there is none."""
        if self.packed is not None:
            return dict(self.packed.get("config.yaml") or {})
        file = self.folder / "config.yaml"
        return read_yaml(file) if file.exists() else {}

    def json(self, path: str) -> dict[str, Any] | None:
        """A JSON file of the run, such as `scores/<score_id>.json`; None where there is none.

        Raises:
            ResultsError: the file is not readable as a JSON object.
        """
        if self.packed is not None:
            content = self.packed.get(path)
            return None if content is None else dict(content)
        file = self.folder / path
        return read_json(file) if file.exists() else None

    def lines(self, path: str) -> list[dict[str, Any]]:
        """The rows of a JSONL file of the run, such as `predictions/<predict_id>.jsonl`; a torn last line is left out.

        Empty where there is no such file: packed runs hold predictions only if that was asked for.
        """
        if self.packed is not None:
            return list(self.packed.get(path) or ())
        file = self.folder / path
        # Not `splitlines`, which also splits at separators that JSON may hold unescaped (U+2028 and others).
        return [_loads(line) for line in file.read_bytes().split(b"\n")[:-1]] if file.exists() else []


def read_runs(sources: Sequence[Path], names: Mapping[Path, str] | None = None) -> list[Run]:
    """All runs in folders of runs, run directories, packed studies or packed runs, by name and seed; each once.

    Args:
        sources: folders, or files of packed runs.
        names: aliases of single run directories, where a run is known by another one than it was made under.

    Raises:
        ResultsError: a source does not exist, or there is no run in any.
    """
    found = distinct([run for source in sources for run in _runs_in(source, names or {})])
    if not found:
        raise ResultsError(f"{', '.join(map(str, sources))}: holds no run; `molgraft run` makes one")
    return sorted(found, key=lambda run: (run.name, run.seed if run.seed is not None else -1))


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Each run once, although it may have been read from several places: its folder, and a study that it is packed in.

    A copy would count as a further seed. It is left out where another one has all its answers: of equal ones the folder
    stays, and the first that was read.
    """
    folders = {run.folder.resolve(): run for run in reversed(runs)}
    once = [run for run in runs if folders[run.folder.resolve()] is run]
    same: dict[tuple[str, ...], list[Run]] = {}
    for run in once:
        same.setdefault(run.identity, []).append(run)
    kept = {id(run) for copies in same.values() for run in _without_copies(copies)}
    return [run for run in once if id(run) in kept]


def _without_copies(copies: Sequence[Run]) -> Iterator[Run]:
    known: list[set[str]] = []
    for run in sorted(copies, key=lambda run: (run.packed is not None, run.state != "done")):
        answers = {str(entry.get("predict_id")) for entry in run.summary.get("evaluations", ())}
        if not any(answers <= others for others in known):
            known.append(answers)
            yield run


def evaluations_of(run: Run, split: str) -> list[Mapping[str, Any]]:
    """A run's evaluations on a split, one for each way of asking: the complete one before a limited one."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for entry in run.summary.get("evaluations", ()):
        earlier = chosen.get(entry["evaluation_id"])
        # Fewer examples count as more limited.
        if entry["split"] == split and (earlier is None or entry["n"] > earlier["n"]):
            chosen[entry["evaluation_id"]] = entry
    return list(chosen.values())


def score_of(entry: Mapping[str, Any], protocol: str) -> Mapping[str, Any] | None:
    """An evaluation's scores under a protocol, named with or without its version."""
    return next(_by_protocol(entry.get("scores", ()), protocol), None)


def decontaminated_of(entry: Mapping[str, Any], protocol: str) -> list[Mapping[str, Any]]:
    """An evaluation's scores under a protocol on fewer examples; `without` says which training data they are not of."""
    return list(_by_protocol(entry.get("decontaminated", ()), protocol))


def reliance_gains(run: Run, entry: Mapping[str, Any]) -> dict[str, float]:
    """Per example, how much likelier the gold answer is with its own graph, in nats per token."""
    return {row["example_id"]: _gain(row) for row in reliance_measured(run, entry) if row["counts"]}


def reliance_measured(run: Run, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per example that was asked, what was measured with its own graph and with another, and whether it `counts`."""
    identity = (entry.get("reliance") or {}).get("reliance_id")
    return run.lines(f"reliance/{identity}.jsonl") if identity is not None else []


def loss_of(summary: Mapping[str, Any]) -> float | None:
    """Validation loss of the weights that a run hands on, nats per token; None where it trained nothing."""
    stages = summary.get("stages") or ()
    value = stages[-1]["validation"].get(str(stages[-1]["kept_step"])) if stages else None
    return None if value is None else float(value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ResultsError: the file cannot be read as one.
    """
    try:
        loaded = _loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ResultsError(f"{path}: holds no JSON object")
    return loaded


def safe_load(text: str, loader: SafeLoader = SAFE_LOADER) -> Any:
    """`yaml.safe_load`, eight times as fast where libyaml was built in: plain values only, and no Python object.

    Raises:
        yaml.YAMLError: the text is no YAML, or has a tag that stands for anything but a plain value.
    """
    return yaml.load(text, Loader=loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        ResultsError: the file cannot be read as one.
    """
    try:
        loaded = safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ResultsError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise ResultsError(f"{path}: holds no YAML mapping")
    return loaded


def _runs_in(source: Path, names: Mapping[Path, str]) -> list[Run]:
    if source.is_file() and source.name.endswith(PACKED_RUN):
        from results.packed import read_packed_run

        return [read_packed_run(source)]
    if not source.is_dir():
        raise ResultsError(f"{source}: no such folder of runs")
    if (source / PACKED_STUDY).exists():
        from results.packed import read_packed

        return read_packed(source)
    if (source / "status.json").exists():
        folders = [source]
    else:
        folders = sorted(status.parent for status in source.glob("*/status.json"))
    return [read_run(folder, names.get(folder.resolve(), names.get(folder))) for folder in folders]


def read_run(folder: Path, alias: str | None = None) -> Run:
    """The run in a run directory.

    Args:
        folder: the directory.
        alias: of its cell, where it is known by another one than it was made under.

    Raises:
        ResultsError: its result cannot be read.
    """
    try:
        status = read_json(folder / "status.json")
    except ResultsError:  # torn by a full disk or a power cut; the next session of the run writes it anew
        status = {}
    result, manifest = folder / "result.json", folder / "manifest.json"
    summary = read_json(result) if result.exists() else {}
    cell = summary.get("cell_id")
    if cell is None and manifest.exists():
        cell = read_json(manifest).get("cell_id")
    name, _, rest = folder.name.rpartition("-s")
    seed = rest.partition("-")[0]
    return Run(
        folder=folder,
        name=alias or summary.get("name") or name or folder.name,
        cell=str(cell if cell is not None else folder.name),
        seed=summary.get("seed", int(seed) if seed.isdigit() else None),
        state=status.get("state", "interrupted"),
        summary=summary,
        error=status.get("error"),
        message=status.get("message"),
    )


def _by_protocol(scores: Sequence[Mapping[str, Any]], protocol: str) -> Iterator[Mapping[str, Any]]:
    return (score for score in scores if protocol in (score["protocol"], score["protocol"].partition("@")[0]))


def _gain(row: Mapping[str, Any]) -> float:
    # Packed runs keep the gain itself, which would be lost in the rounding of two log-likelihoods.
    return float(row["gain"] if "gain" in row else (row["real"] - row["swapped"]) / row["tokens"])


def _loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)  # knows NaN and Infinity, which Python writes and JSON has not
