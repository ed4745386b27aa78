"""An exported model asked as its run was, or something else, and scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.evaluation import ask, score
from bench.experiment import RunResult, refuse_other_settings
from bench.exported import exported_config, exported_llm, read_manifest
from bench.opened import open_model
from bench.prepare import Prepared, prepare, rejections_csv
from bench.run_store import RunDirectory, write_json, write_text
from bench.runtime import Runtime
from tasks.data import Catalogue


def predict_exported(
    folder: Path,
    output: Path,
    runtime: Runtime,
    overrides: Sequence[str] = (),
    *,
    catalogue: Catalogue | None = None,
    llm: Path | None = None,
) -> RunResult:
    """Asks an exported model what its run was asked, or something else, and scores the answers.

    Args:
        folder: the exported folder, which stays as it is.
        output: where predictions, scores and the result are written; what is there already is not made again.
        runtime: where and on what.
        overrides: settings below `evaluation` and `graph_input.test`.
        catalogue: the data sets known by name.
        llm: the folder of the language model, for an exported folder that only names it.

    Raises:
        UserError: the folder cannot be loaded, a setting is not one of these, or the data are not at hand.
    """
    refuse_other_settings(overrides)
    began = time.monotonic()
    manifest = read_manifest(folder)
    config = exported_config(folder, manifest, overrides)
    opened = open_model(folder, runtime, llm=llm)
    located = exported_llm(folder, config, manifest, runtime, llm)
    # What was trained is loaded as it is, so that neither training data nor what training started from is read.
    asked = replace(
        config,
        stages=(),
        pretraining=(),
        released=None,
        llm=replace(config.llm, name=str(located.path), revision=None, weights="pretrained"),
    )
    found = prepare(asked, runtime, catalogue)
    merged = bool(manifest["llm"]["merged"])  # whose answers may differ in the last digit, and are not the run's
    prepared = replace(
        found,
        config=config,
        llm=located,
        stage_ids=tuple(manifest["stage_ids"]),
        train_id=manifest["train_id"] + ("-merged" if merged else ""),
        cell=manifest["cell_id"],
    )
    trained = opened.reading(prepared.store)
    layout = replace(trained.layout, style=config.asked_as, text_input=config.asked_in)  # with the overrides
    trained = replace(trained, layout=layout)
    directory = RunDirectory(output)
    with directory.lock():
        write_text(output / "rejected.csv", rejections_csv(prepared.rejections))
        ask(trained, prepared, directory, runtime)
        entries = score(prepared, directory, runtime)
        summary = _summary(folder, prepared, entries, time.monotonic() - began)
        write_json(directory.result_file, summary)
    return RunResult(directory, config.name, summary)


def _summary(folder: Path, prepared: Prepared, entries: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "name": prepared.config.name,
        "seed": prepared.config.seed,
        "train_id": prepared.train_id,
        "exported": str(folder),
        "scored_weights": f"the export {folder}",
        "evaluations": entries,
        "rejected": {part: len(rows) for part, rows in prepared.rejections.items()},
        "seconds": round(seconds, 2),
    }
