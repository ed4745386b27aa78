"""Pretraining of a graph encoder: trained, exported as a checkpoint that training reads, and tried at retrieval."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save
from torch import Tensor

from bench.device import device_of
from bench.parsing import to_mapping
from bench.pretraining_config import FOLDER, PretrainingConfig
from bench.pretraining_data import PreparedPretraining, prepare_pretraining
from bench.pretraining_loop import Pretrainer
from bench.retrieval import retrieval_figures
from bench.run_store import RunDirectory, is_whole, read_json, read_jsonl, write_bytes, write_json, write_text
from bench.runtime import Runtime
from bench.session import Log, Mirror, recorded, refuse_failed
from bench.session_account import begin_session, end_session
from tasks.data import Catalogue

ENCODER_FILE = "encoder.safetensors"
"""The pretrained encoder: what an encoder's `weights` takes."""

HEADS_FILE = "objective.safetensors"


@dataclass(frozen=True, slots=True)
class PretrainingResult:
    """A finished pretraining: its folder, and what `result.json` says."""

    run: RunDirectory
    summary: dict[str, Any]

    @property
    def weights(self) -> Path:
        """The encoder's checkpoint."""
        return self.run.path / ENCODER_FILE


def pretraining_runtime(runtime: Runtime) -> Runtime:
    """The same runtime with a folder of pretrainings in the folder of runs, and one MLflow store for both."""
    tracking = runtime.tracking or f"sqlite:///{(runtime.runs / 'mlflow.db').resolve()}"
    return replace(runtime, runs=runtime.runs / FOLDER, tracking=tracking)


def pretrain(
    config: PretrainingConfig,
    runtime: Runtime,
    *,
    catalogue: Catalogue | None = None,
    fresh: bool = False,
    retry_failed: bool = False,
    mirror: Mirror = lambda _: None,
) -> PretrainingResult:
    """Does whatever of a pretraining is not done yet.

    Args:
        config: the pretraining.
        runtime: where and on what; its `runs` is the folder of pretrainings (`pretraining_runtime`).
        catalogue: the data sets known by name.
        fresh: throw away what an earlier session left.
        retry_failed: try one again that failed by NaN, lack of memory or an error.
        mirror: for tracking.

    Raises:
        UserError: the configuration or its data cannot be used, it is being worked on, or it failed before.
    """
    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    prepared = prepare_pretraining(config, runtime, catalogue)
    existing = sorted(runtime.runs.glob(f"*-{prepared.identity}"))
    named = runtime.runs / f"{config.name}-s{config.seed}-{prepared.identity}"
    directory = RunDirectory(existing[0] if existing else named)
    if not runtime.processes.leads:  # of the several that train a run, the leader has just done it, and alone writes
        return PretrainingResult(directory, read_json(directory.result_file))
    with directory.lock():
        if fresh:
            _empty(directory.path)
        refuse_failed(directory, retry_failed)
        if directory.status().state == "done" and is_whole(directory.path / ENCODER_FILE):
            mirror(directory)
            return PretrainingResult(directory, read_json(directory.result_file))
        with recorded(directory, mirror):
            return PretrainingResult(directory, _work(prepared, directory, runtime, mirror))


def _work(prepared: PreparedPretraining, directory: RunDirectory, runtime: Runtime, mirror: Mirror) -> dict[str, Any]:
    log = Log(directory, mirror)
    _describe(prepared, directory)
    begin_session(directory, directory.found)
    log.status("running", "pretraining")
    log.write(f"session begins; {prepared.identity}")
    folder = directory.stage(0, "pretrain")
    pretrainer = Pretrainer(prepared, folder, device_of(runtime))
    pretrainer.train(runtime, heartbeat=lambda: log.status("running", "pretraining"))
    _export(pretrainer, directory)
    retrieval: dict[str, Any] | None = None
    if prepared.retrieval:
        log.status("running", "retrieval")
        retrieval = retrieval_figures(*pretrainer.embedded(prepared.retrieval))
    summary = _summary(pretrainer, directory, retrieval)
    write_json(directory.result_file, summary)
    log.write("session ends; done")
    end_session(directory, "done", "done")
    log.status("done", "done")
    shutil.rmtree(pretrainer.checkpoints, ignore_errors=True)  # they only served to resume
    return summary


def _describe(prepared: PreparedPretraining, directory: RunDirectory) -> None:
    """The resolved configuration, what the pretraining is made from, and what was left out."""
    if directory.manifest_file.exists():  # what it was made from stays; a later session only adds itself
        return
    write_text(directory.config_file, yaml.safe_dump(to_mapping(prepared.config), sort_keys=False))
    rejected = [[row.file, row.line, row.value, row.reason] for row in prepared.rejections]
    write_json(directory.path / "rejected.json", rejected)
    write_json(
        directory.manifest_file,
        {
            "train_id": prepared.identity,
            "cell_id": prepared.cell,
            "data": prepared.sources,
            "counts": prepared.counts,
            "features": [f"{scheme.name}@{scheme.version}" for scheme in prepared.config.encoder.features()],
            "text": None if prepared.text is None else prepared.text.identity,
            "sessions": [],
        },
    )


def _export(pretrainer: Pretrainer, directory: RunDirectory) -> None:
    """The encoder under exactly its module's names; the heads and a tokenizer of our own making beside it."""
    prepared = pretrainer.prepared
    first = read_json(directory.manifest_file)["sessions"][0]
    described = {
        "encoder": to_mapping(prepared.config.encoder),
        "objective": to_mapping(prepared.config.objective),
        "data": prepared.sources,
        "steps": prepared.config.steps,
        "seed": prepared.config.seed,
        "pretraining": prepared.identity,
        "molgraft": first["molgraft"],
        "commit": (first["git"] or {}).get("commit"),
    }
    # One entry only: safetensors writes several in an order that changes from one time to the next.
    metadata = {"molgraft": json.dumps(described, sort_keys=True)}
    write_bytes(directory.path / HEADS_FILE, save(_portable(pretrainer.heads_state())))
    if prepared.text is not None and prepared.text.folder is None:
        tokenizer = prepared.text.reader.tokenizer.backend_tokenizer.to_str()
        write_text(directory.path / "tokenizer.json", tokenizer)
    write_bytes(directory.path / ENCODER_FILE, save(_portable(pretrainer.encoder.state_dict()), metadata=metadata))


def _summary(pretrainer: Pretrainer, directory: RunDirectory, retrieval: dict[str, Any] | None) -> dict[str, Any]:
    prepared, config = pretrainer.prepared, pretrainer.config
    rows = read_jsonl(pretrainer.metrics_file)
    training = [_without_step(row) for row in rows if "loss" in row]
    validation = {str(row["step"]): _without_step(row) for row in rows if "validation_loss" in row}
    text = sum(p.numel() for name, p in pretrainer.heads.named_parameters() if name.startswith("text_model."))
    heads = sum(parameter.numel() for parameter in pretrainer.heads.parameters()) - text
    parameters = {"encoder": sum(p.numel() for p in pretrainer.encoder.parameters()), "text": text, "heads": heads}
    return {
        "name": config.name,
        "seed": config.seed,
        "train_id": prepared.identity,
        "cell_id": prepared.cell,
        "encoder": config.encoder.name,
        "objective": config.objective.name,
        "steps": config.steps,
        "epochs": round(config.steps * min(config.batch_size, len(prepared.training)) / len(prepared.training), 3),
        "counts": prepared.counts,
        "parameters": parameters,
        "training": {"first": training[0], "last": training[-1]} if training else {},
        "validation": validation,
        "retrieval": retrieval,
        "figures": _figures(retrieval),
        "weights": ENCODER_FILE,
        "seconds": directory.status().seconds,
    }


def _figures(retrieval: dict[str, Any] | None) -> dict[str, float]:
    """What MLflow shows: recall among all pairs."""
    if retrieval is None:
        return {}
    among_all = retrieval["by_pool"][-1]
    directions = ("molecule_to_text", "text_to_molecule")
    return {f"retrieval/{d}/{depth}": value for d in directions for depth, value in among_all[d].items()}


def _without_step(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "step"}


def _portable(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _empty(folder: Path) -> None:
    for item in folder.iterdir():
        if item.name != "lock":
            shutil.rmtree(item) if item.is_dir() else item.unlink()
