"""`molgraft ask`: a conversation about a molecule with a trained model, in the terminal or on a local page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench import command_options as options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.conversation import Conversation


def ask(
    folder: Annotated[Path, typer.Argument(help="Run directory, or exported folder.", metavar="RUN")],
    smiles: Annotated[str | None, typer.Option(help="The molecule.", metavar="SMILES")] = None,
    question: Annotated[
        list[str] | None,
        typer.Option(help='Ask this and leave; repeatable, in turns. "" is the run\'s own question.'),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Keep the molecule's picture in this file.", metavar="FILE")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer.", min=1)] = None,
    remember: Annotated[
        bool | None,
        typer.Option(
            "--remember/--forget",
            help="Whether earlier turns stand in the prompt; by default where the chat format marks who speaks.",
        ),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Serve a local page instead (extra `web`).")] = False,
    host: Annotated[str, typer.Option(help="Address that the page is served at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the page; 0 takes a free one.", min=0, max=65535)] = 7860,
    llm: options.ModelFolder = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    offline: options.Offline = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars and no notes.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for a program to read, a line per event.")
    ] = False,
) -> None:
    """Talk to a trained model about a molecule: answers with its graph and without, and what the projector observes.

    Without --question it is a conversation: type questions, /help for the rest.
    """
    from bench.errors import UserError

    if web and (question or as_json):
        raise UserError("--web serves a page; it goes with neither --question nor --json")
    if question is not None and smiles is None:
        raise UserError("--question needs a molecule to be about; give its --smiles")
    interactive = not web and question is None
    try:
        conversation = _open(folder, llm, device, threads, offline, quiet, max_new_tokens, remember)
        if web:
            from bench.ask_page import serve

            serve(conversation, folder, smiles, host, port)
        elif interactive:
            _talk(conversation, smiles, svg, quiet, as_json)
        else:
            _answer(conversation, smiles or "", question or (), svg, quiet, as_json)
    except KeyboardInterrupt:
        if not (interactive or web):
            raise
        typer.echo("", err=True)


def _open(
    folder: Path,
    llm: Path | None,
    device: str,
    threads: int | None,
    offline: bool,
    quiet: bool,
    max_new_tokens: int | None,
    remember: bool | None,
) -> Conversation:
    from bench.command_options import runtime_of
    from bench.conversation import Conversation
    from bench.opened import open_model

    runtime = runtime_of(folder.parent, device, threads, 1, 1.0, "none", offline, quiet)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return Conversation(open_model(folder, runtime, llm=llm), max_new_tokens=max_new_tokens, remembers=remember)


def _answer(
    conversation: Conversation, smiles: str, questions: Sequence[str], svg: Path | None, quiet: bool, as_json: bool
) -> None:
    """Asks and leaves."""
    import json

    from bench.ask_terminal import Screen
    from bench.conversation import as_mapping, molecule_mapping
    from bench.errors import UserError

    screen = Screen(conversation, sys.stdout, svg=svg)
    molecule = conversation.about(smiles)
    if as_json:
        exchanges = [as_mapping(conversation.ask(question)) for question in questions]
        notes, failure = list(conversation.notes()), screen.picture_kept()
        said = {"molecule": molecule_mapping(molecule), "notes": notes, "exchanges": exchanges, **failure}
        typer.echo(json.dumps(said))
        # That a molecule is too large for a picture is no mistake: without --json it is said and passed over, too.
        if failure and molecule.is_drawn:
            raise UserError(failure["svg_error"])
        return
    if not quiet:
        screen.notes()
    screen.molecule()
    for question in questions:
        screen.exchange(conversation.ask(question), shows_question=True)


def _talk(conversation: Conversation, smiles: str | None, svg: Path | None, quiet: bool, as_json: bool) -> None:
    """Answers what is typed, until it ends."""
    from bench.ask_terminal import Screen, converse, typed_lines

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text are said to be so, and are no end
    screen = Screen(conversation, sys.stdout, as_json=as_json, svg=svg)
    if not quiet or as_json:
        screen.notes()
    if smiles is not None:
        conversation.about(smiles)
        screen.molecule()
    elif not as_json and not quiet:
        screen.say("Name a molecule by its SMILES, such as CC(=O)Oc1ccccc1C(=O)O; /help says the rest.")
    converse(screen, typed_lines())
