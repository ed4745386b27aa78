"""The command `molgraft`. Each command's module imports what it needs when it is called, so that help is instant."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench import (
    command_ask,
    command_compare,
    command_data,
    command_doctor,
    command_encode,
    command_export,
    command_leaderboard,
    command_list,
    command_predict,
    command_pretrain_encoder,
    command_probe,
    command_report,
    command_reproduce,
    command_run,
    command_score,
    command_search,
    command_study,
    command_sync,
    command_tables,
)
from bench.errors import is_user_error

_INTERRUPTED = 130

app = typer.Typer(
    name="molgraft",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # its boxes and colours take longer to import than all of the rest that help needs
    help="Compare language models that read molecular graphs, part by part, and measure what the graph is worth.",
)
app.command("demo")(command_run.demo)
app.command("run")(command_run.run)
app.command("predict")(command_predict.predict)
app.command("ask")(command_ask.ask)
app.command("probe")(command_probe.probe)
app.command("check")(command_run.check)
app.command("study")(command_study.study)
app.command("reproduce")(command_reproduce.reproduce)
app.command("search")(command_search.search)
app.command("sync")(command_sync.sync)
app.command("pretrain-lm")(command_run.pretrain_lm)
app.command("pretrain-encoder")(command_pretrain_encoder.pretrain_encoder)
app.command("encode")(command_encode.encode)
app.command("export")(command_export.export)
app.command("score")(command_score.score)
app.command("tables")(command_tables.tables)
app.command("compare")(command_compare.compare)
app.command("leaderboard")(command_leaderboard.leaderboard)
app.command("report")(command_report.report)
app.command("list")(command_list.list_)
app.add_typer(command_data.app, name="data")
app.command("doctor")(command_doctor.doctor)


@app.callback()
def settings(
    plugins: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose *.py files add encoders, projectors, tasks, metrics or protocols; repeatable."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> None:
    """Settings of every command."""
    if version:
        from bench.provenance import package_version

        typer.echo(f"molgraft {package_version('molgraft')}")
        raise typer.Exit
    if plugins:
        from bench.registry import PLUGINS_VARIABLE

        os.environ[PLUGINS_VARIABLE] = os.pathsep.join(str(folder.resolve()) for folder in plugins)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; a user's mistake ends in one line and exit status 2, a failure in status 1."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice is about calls that the user did not make
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        given = list(arguments) if arguments is not None else None
        status = app(args=given, prog_name="molgraft", standalone_mode=False)
        if status == _INTERRUPTED:  # typer turns the interrupt itself into this
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` for one, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    from bench.run_store import is_disk_error

    if getattr(error, "molgraft_told", False):  # another process of this run has said it
        return 2 if is_user_error(error) else 1
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a wrong option; click's, which typer carries within
        error.show()
        return int(error.exit_code)
    if is_user_error(error):
        print(f"error: {error}", file=sys.stderr)
        return 2
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    kind = getattr(error, "molgraft_class", None)
    if kind == "disk" or is_disk_error(error, Path()):
        print(
            f"error: cannot write: {error}{notes}. Make room or choose another --runs; then run again.", file=sys.stderr
        )
        return 1
    log = getattr(error, "molgraft_log", None)
    if kind is not None and log is not None:
        print(f"failed: {type(error).__name__}: {error}{notes}. The traceback is in {log}.", file=sys.stderr)
        return 1
    traceback.print_exception(error)
    print("This is a mistake in molgraft, not yours; please report it with the lines above.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    main()
