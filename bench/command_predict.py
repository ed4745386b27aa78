"""`molgraft predict`: a trained run, or an exported folder, asked something else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from bench.runtime import Runtime

_AnyFile = typer.Option(help="A SMILES in each line: ask about these instead.", metavar="FILE", dir_okay=False)


def predict(
    folder: Annotated[Path, typer.Argument(help="Run directory, or exported folder.", metavar="RUN")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another value below `evaluation` or `graph_input.test`.", metavar="A.B=VALUE"),
    ] = None,
    limit: options.Limit = None,
    ids: options.Ids = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test.")] = None,
    smiles: Annotated[Path | None, _AnyFile] = None,
    question: Annotated[
        str | None, typer.Option(help="With --smiles: `{molecule}` is where it stands; else the run's own question.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Of an exported folder, where predictions and scores go (predictions/RUN); with --smiles, the file "
            "of answers (FILE.answers.jsonl).",
        ),
    ] = None,
    data: options.Data = None,
    llm: options.ModelFolder = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    max_rejected: options.MaxRejected = 0.05,
    offline: options.Offline = False,
    asking_micro_batch: options.AskingMicroBatch = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Ask a trained run something else: another split, other examples, another generation, other protocols.

    Of a folder that `molgraft export` wrote, predictions and scores go elsewhere. With --smiles, a run or such a folder
    answers one question about each molecule of a file, without any data set.
    """
    from dataclasses import replace

    from bench.command_options import asked_of, runtime_of
    from bench.command_result import show
    from bench.errors import UserError
    from bench.experiment import evaluate_run
    from bench.exported import is_exported
    from bench.exported_predict import predict_exported
    from tasks.data import Catalogue

    runtime = replace(
        runtime_of(folder.parent, device, threads, 1, max_rejected, "none", offline, quiet),
        asking_micro_batch=asking_micro_batch,
    )
    chosen = [f"evaluation.split={split}"] if split else []
    overrides = [*(settings or ()), *chosen, *asked_of(limit, ids)]
    if smiles is not None:
        if overrides:
            raise UserError(
                "--smiles asks about the molecules of a file; --set, --limit, --ids and --split do not go with it"
            )
        _answer(folder, smiles, question, output, llm, runtime, as_json)
        return
    if question is not None:
        raise UserError("--question needs molecules to be about; give a file of them by --smiles")
    catalogue = Catalogue(data or ())
    if is_exported(folder):
        place = output or Path("predictions") / folder.resolve().name
        result = predict_exported(folder, place, runtime, overrides, catalogue=catalogue, llm=llm)
    elif llm is not None:
        raise UserError(f"--llm: {folder} is no exported folder; a run names its language model itself")
    elif output is not None:
        raise UserError("-o: predictions of a run are kept in its own folder; it is for exported folders and --smiles")
    else:
        result = evaluate_run(folder, runtime, overrides, catalogue=catalogue)
    show(result.run.path, result.summary, as_json)


def _answer(
    folder: Path,
    molecules: Path,
    question: str | None,
    output: Path | None,
    llm: Path | None,
    runtime: Runtime,
    as_json: bool,
) -> None:
    import json

    import torch

    from bench.opened import open_model
    from bench.smiles_answers import answer_smiles, read_smiles, refuse_place

    if runtime.threads:
        torch.set_num_threads(runtime.threads)
    count = len(read_smiles(molecules))  # before a large model is loaded for a file that cannot be used
    place = output or Path(f"{molecules.name}.answers.jsonl")
    refuse_place(place, molecules)
    failed = answer_smiles(open_model(folder, runtime, llm=llm), folder, molecules, question, place)
    if as_json:
        typer.echo(json.dumps({"output": str(place), "answers": count - failed, "refused": failed}))
        return
    typer.echo(f"{place}: {count - failed} answers")
    if failed:
        several = "" if failed == 1 else "s"
        typer.echo(f"  {failed} molecule{several} could not be asked about; the reason stands in their lines")
