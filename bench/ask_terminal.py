"""A conversation in a terminal: the molecule drawn in characters, both answers side by side, and a few commands."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.conversation import Conversation, Exchange, Observation, as_mapping, molecule_mapping, most_attended
from bench.errors import UserError, is_user_error
from bench.run_store import write_text
from tasks.depiction import MOST_DRAWN, DepictedMolecule, as_svg
from tasks.drawing import as_text

_BAR = 20  # characters of a gate of 2
_HELP = """\
A line is a question about the molecule; an empty line is the run's own question. `{molecule}` in a question puts the
molecule there.
  /molecule SMILES  turn to a molecule, and begin anew
  /new              begin anew with the same molecule
  /draw             the molecule again
  /svg FILE         write its picture, with the attention of the last answer where there is any
  /history          what was said
  /help             this
  /quit             leave; so do Ctrl-D and Ctrl-C"""


class Screen:
    """What is shown of a conversation: text for people, or one line of JSON for each event.

    Answers are shown before the picture is written, so that none is lost where it cannot be written.

    Args:
        conversation: whose.
        out: where it is written.
        as_json: for programs.
        svg: a picture that is kept up to date.
    """

    def __init__(self, conversation: Conversation, out: TextIO, *, as_json: bool = False, svg: Path | None) -> None:
        self.conversation = conversation
        self.as_json = as_json
        self.svg = svg
        self._observed: Observation | None = None
        self._out = out
        width = None if out.isatty() else max(shutil.get_terminal_size((100, 24)).columns, 60)
        self._console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)

    def molecule(self) -> None:
        """The molecule, drawn where there is room."""
        molecule, self._observed = self._molecule(), None
        if self.as_json:
            self._line({"molecule": molecule_mapping(molecule), **self.picture_kept()})
            return
        self._show(molecule)
        self._keep_picture()

    def exchange(self, exchange: Exchange, *, shows_question: bool = False) -> None:
        """Both answers, and what the projector says; the question too where nobody has just typed it."""
        if self.as_json:
            self._line({**as_mapping(exchange), **self.picture_kept()})
            return
        self._tell(exchange, shows_question)
        self._keep_picture()

    def _show(self, molecule: DepictedMolecule) -> None:
        self.say(f"{molecule.canonical}  {molecule.formula}, {len(molecule.symbols)} atoms")
        drawing = as_text(molecule, max(self._console.width - 4, 20)) if self._can_draw() else None
        if drawing is not None:
            self.say("\n".join(f"  {line}" for line in drawing.split("\n")))
        elif molecule.is_drawn:
            self.say("  (no room for a drawing here; /svg FILE writes a picture)")
        else:
            self.say(f"  (no picture: it has more than {MOST_DRAWN} atoms)")

    def _tell(self, exchange: Exchange, shows_question: bool) -> None:
        if shows_question:
            self.say(f"\n> {exchange.question}")
        table = Table(expand=False, show_edge=False, pad_edge=False, padding=(0, 1))
        pairs = [("answer" if exchange.without_graph is None else "with the graph", exchange.answer)]
        pairs += [("without the graph", exchange.without_graph)] if exchange.without_graph is not None else []
        for heading, _ in pairs:
            table.add_column(heading, ratio=1, overflow="fold")
        table.add_row(*(Text((answer.text or "(nothing)") + _cut(answer.stop)) for _, answer in pairs))
        self._console.print(table)
        # What depends on the molecule alone is the same at every question.
        if exchange.observed != self._observed:
            for line in _observations(self._molecule(), exchange):
                self.say(line)
        self._observed = exchange.observed

    def notes(self) -> None:
        """What a person should know of the run."""
        if self.as_json:
            self._line({"notes": list(self.conversation.notes())})
            return
        for note in self.conversation.notes():
            self.say(note)

    def history(self) -> None:
        """All questions and answers."""
        self._observed = None
        if self.as_json:
            self._line({"history": [as_mapping(exchange) for exchange in self.conversation.exchanges]})
            return
        for exchange in self.conversation.exchanges:
            self._tell(exchange, shows_question=True)

    def new(self) -> None:
        """The same molecule from the beginning."""
        self.conversation.new()
        if self.as_json:
            self._line({"new": True})

    def error(self, message: str) -> None:
        """A mistake of the user's, after which the conversation goes on."""
        if self.as_json:
            self._line({"error": message})
        else:
            self.say(f"error: {message}")

    def say(self, text: str) -> None:
        """Text for people; programs get it as it is."""
        if self.as_json:
            self._line({"said": text})
            return
        self._console.print(Text(text), soft_wrap=True)

    def picture(self, file: Path) -> None:
        """Writes the molecule's picture, with the attention of the last answer.

        Raises:
            UserError: it cannot be written.
            TaskError: the molecule is too large.
        """
        exchanges = self.conversation.exchanges
        weights = exchanges[-1].observed.mean_on_atoms if exchanges else None
        try:
            write_text(file, as_svg(self._molecule(), weights) + "\n")
        except OSError as error:
            raise UserError(f"{file}: cannot be written: {error.strerror or error}") from None

    def picture_kept(self) -> dict[str, str]:
        """Writes the picture that is kept up to date; what a program is told where it could not be written."""
        if self.svg is None:
            return {}
        try:
            self.picture(self.svg)
        except Exception as error:
            if not is_user_error(error):
                raise
            return {"svg_error": str(error)}
        return {}

    def _keep_picture(self) -> None:
        if self.svg is not None and self._molecule().is_drawn:
            self.picture(self.svg)

    def _molecule(self) -> DepictedMolecule:
        if self.conversation.molecule is None:
            raise UserError("no molecule yet; name one with /molecule SMILES")
        return self.conversation.molecule

    def _line(self, event: Mapping[str, Any]) -> None:
        print(json.dumps(event, ensure_ascii=False), file=self._out, flush=True)

    def _can_draw(self) -> bool:
        try:
            "\u28ff\u2083".encode(self._console.encoding)
        except (UnicodeEncodeError, LookupError):
            return False
        return True


def converse(screen: Screen, lines: Iterator[str]) -> None:
    """Answers one line after the other, until `/quit` or the last one; a mistake is said and forgotten."""
    for line in lines:
        try:
            if not _obey(screen, line):
                return
        except Exception as error:
            if not is_user_error(error):
                raise
            screen.error(str(error))


def typed_lines(prompt: str = "> ") -> Iterator[str]:
    """Lines of standard input, with a prompt and editing where a person types them."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - input() then has editing and the lines typed before
    while True:
        try:
            yield input(prompt)
        except EOFError:
            print()
            return


def _obey(screen: Screen, line: str) -> bool:
    """Does what a line says; whether to go on."""
    conversation = screen.conversation
    command, _, rest = line.strip().partition(" ")
    if command in ("/quit", "/exit", "/q"):
        return False
    if not command.startswith("/"):
        # Before the first molecule a line can only be one: there is nothing else that could be asked about.
        if conversation.molecule is None:
            if line.strip():
                _turn_to(screen, line)
            else:
                screen.say("Name a molecule first, by its SMILES.")
            return True
        screen.exchange(conversation.ask(line))
        return True
    commands: dict[str, Callable[[], None]] = {
        "/molecule": lambda: _turn_to(screen, rest),
        "/new": screen.new,
        "/draw": screen.molecule,
        "/svg": lambda: _write(screen, rest),
        "/history": screen.history,
        "/help": lambda: screen.say(_HELP),
    }
    if command not in commands:
        raise UserError(f"{command[:40]!r} is no command; /help lists them")
    commands[command]()
    return True


def _turn_to(screen: Screen, smiles: str) -> None:
    screen.conversation.about(smiles)
    screen.molecule()


def _write(screen: Screen, rest: str) -> None:
    if not rest.strip():
        raise UserError("/svg needs the name of a file")
    file = Path(rest.strip()).expanduser()
    screen.picture(file)
    screen.say(f"written: {file}")


def _cut(stop: str) -> str:
    return " [...]" if stop == "length" else ""


def _observations(molecule: DepictedMolecule, exchange: Exchange) -> Iterator[str]:
    """Lines that say what the projector does: gates as bars, and the atoms that attention goes to."""
    for name, values in exchange.observed.gates.items():
        widest = max(map(len, values), default=0)
        yield f"{name}:"
        for level, value in values.items():
            bar = "█" * max(round(value * _BAR / max(2.0, *values.values())), 0)
            yield f"  {level:<{widest}}  {value:5.2f}  {bar}"
    for level, shares in exchange.observed.on_atoms.items():
        named = (f"{atom} {share:.0%}" for atom, share in most_attended(molecule, shares))
        yield f"attention, {level}: {', '.join(named)}"
