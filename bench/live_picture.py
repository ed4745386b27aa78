"""What a study's live view shows, laid out line by line so that it fits any terminal.

States are told by a symbol and a word, never by colour alone. Text of others (names, messages) is made printable and
never read as markup.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from bench.run_store import State
from bench.study_progress import Counts, Event, doing, losses, newest, place, printable, share_done
from bench.study_states import RunState
from bench.time_left import TimeLeft, in_words

_SYMBOLS: dict[State, tuple[str, str, str]] = {  # symbol, style, word
    "done": ("✓", "green", "done"),
    "running": ("●", "bold cyan", "running"),
    "failed": ("✗", "bold red", "failed"),
    "interrupted": ("‖", "yellow", "interrupted"),
    "planned": ("·", "dim", "waiting"),
}
_IN_ASCII = {"…": "~", "✓": "+", "●": ">", "✗": "x", "‖": "=", "·": ".", "━": "#", "╌": "-"}
_MATRIX = 60  # runs; of more, each is shown by its symbol only
_EVENTS = 12
_NAMED = 9  # seeds; so many are only counted
_BAR = 8  # columns, at least where there is room
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Picture:
    """A study at one moment.

    Args:
        study, question: what it is called, and what it is to answer.
        states: of all runs, in the plan's order.
        counts: of them.
        workers: that were started; None where that is not known.
        left: how long it will take.
        best: the best so far, in words.
        events: how runs ended, oldest first.
        note: something the reader should know first.
    """

    study: str
    question: str
    states: Sequence[RunState]
    counts: Counts
    workers: int | None
    left: TimeLeft | None
    best: str
    events: Sequence[Event]
    note: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as the terminal has, but for the one that the cursor stands on."""
        drawn = _Drawn(self, options.max_width, options.ascii_only)
        yield from drawn.lines(max(8, console.height - 1))


class _Drawn:
    """A picture for a terminal of a certain width."""

    def __init__(self, picture: Picture, width: int, ascii_only: bool) -> None:
        self._p = picture
        self._width = width
        self._ascii = ascii_only

    def lines(self, height: int) -> Iterator[Text]:
        """At most so many lines: what goes on and what failed come before what is at rest."""
        top, ended = self._top(), len(self._p.events)
        running = [state for state in self._p.states if state.state == "running"]
        room = height - len(top)
        for_events = min(ended, _EVENTS, max(2, room // 5))
        for_running = min(max(1, len(running)), max(2, room // 3))
        spare = room - (for_events + 1 if for_events else 0) - (for_running + 1 if for_running else 0) - 1
        matrix = self._matrix(max(0, spare))
        # What the matrix leaves is for the other two.
        free = spare - len(matrix)
        for_running, free = _more(for_running, len(running), free)
        for_events, free = _more(for_events, min(ended, _EVENTS), free)
        shown = top
        for block in (matrix, self._running(running, for_running), self._events(for_events)):
            shown = [*shown, Text(), *block] if block else shown
        for line in shown[:height]:
            line.truncate(self._width, overflow="ellipsis")
            line.no_wrap = True
            if self._ascii:  # letter by letter, so that styles stay where they are
                plain = (_IN_ASCII.get(letter, letter if letter.isascii() else "?") for letter in line.plain)
                line.plain = "".join(plain)
            yield line

    def _top(self) -> list[Text]:
        p = self._p
        lines = [self._head()]
        if p.question:
            lines.append(Text(printable(" ".join(p.question.split())), "italic"))
        if p.note:
            lines.append(Text(printable(p.note), "bold red"))
        lines += self._counts()
        if p.best:
            lines.append(Text.assemble(("best so far", "bold"), f"{_GAP}{p.best}"))
        return lines

    def _counts(self) -> list[Text]:
        lines = [""]
        for part in self._p.counts.parts:
            longer = f"{lines[-1]}, {part}" if lines[-1] else part
            if cell_len(longer) < self._width or not lines[-1]:
                lines[-1] = longer
            else:
                lines[-1:] = [f"{lines[-1]},", part]
        return [Text(line) for line in lines]

    def _head(self) -> Text:
        p = self._p
        # Runs that go on count by the share that is done, so that the bar of a study of few long runs moves too.
        done = p.counts.done + sum(share_done(state) or 0.0 for state in p.states if state.state == "running")
        share = done / max(1, p.counts.total)
        at_work = f"{p.workers} workers" if p.workers and p.workers > 1 else f"{p.workers} worker" if p.workers else ""
        name = Text.assemble(
            (printable(p.study), "bold"), f"{_GAP}{p.counts.total} runs{f', {at_work}' if at_work else ''}{_GAP}"
        )
        left = f"{_GAP}{p.left} left" if p.left is not None and p.left.seconds else ""
        end = Text.assemble(f"{share:.0%}", (left, "bold"))
        room = min(40, self._width - cell_len(name.plain) - cell_len(end.plain) - 1)
        return Text.assemble(name, Text.assemble(self._bar(share, room), " ") if room >= 6 else "", end)

    def _bar(self, share: float, width: int) -> Text:
        full = min(width, int(share * width))
        return Text.assemble(("━" * full, "cyan"), ("╌" * (width - full), "dim"))

    def _matrix(self, room: int) -> list[Text]:
        """Cells by seeds: in words where there is room, else by symbols, else only the cells that matter now."""
        cells: dict[str, dict[int, RunState]] = {}
        for state in self._p.states:
            cells.setdefault(state.planned.cell, {})[state.planned.seed] = state
        seeds = list(dict.fromkeys(state.planned.seed for state in self._p.states))
        if room < 3 or not cells:
            return []
        if len(self._p.states) <= _MATRIX:
            found = self._in_words(cells, seeds, room)
            if found:
                return found
        return self._in_symbols(cells, seeds, room)

    def _in_words(self, cells: dict[str, dict[int, RunState]], seeds: list[int], room: int) -> list[Text]:
        heads = [f"seed {seed}" for seed in seeds]
        words = {(cell, seed): self._word(state) for cell, row in cells.items() for seed, state in row.items()}
        column = max(*(cell_len(word.plain) for word in words.values()), *map(len, heads)) + len(_GAP)
        label = min(max(cell_len(printable(cell)) for cell in cells), 32) + len(_GAP)
        panel = label + column * len(seeds)
        most = min(len(cells), (self._width + 2) // (panel + 2))  # side by side
        if not most or -(-len(cells) // most) + 1 > room:
            return []
        roomy = (n for n in range(1, most + 1) if -(-len(cells) // n) + 1 <= room * 2 // 3)
        rows = -(-len(cells) // next(roomy, most))
        head = Text(" " * label + "".join(set_cell_size(name, column) for name in heads), "dim")
        lines = [_joined([head.copy() for _ in range(-(-len(cells) // rows))], panel + 2)]
        names = list(cells)
        for row in range(rows):
            parts = []
            for cell in names[row::rows]:
                part = Text(_fit(printable(cell), label - len(_GAP)) + _GAP)
                for seed in seeds:
                    part.append_text(_padded(words.get((cell, seed), Text()), column))
                parts.append(part)
            lines.append(_joined(parts, panel + 2))
        return lines

    def _word(self, state: RunState) -> Text:
        symbol, style, word = _SYMBOLS[state.state]
        if state.state == "running":
            share = share_done(state)
            word = "running" if share is None else f"{share:.0%}" if share < 1 else "answers"
        elif state.error is not None:
            word = state.error
        return Text(f"{symbol} {word}", style)

    def _in_symbols(self, cells: dict[str, dict[int, RunState]], seeds: list[int], room: int) -> list[Text]:
        label = min(max(cell_len(printable(cell)) for cell in cells), 24)
        panel = label + 1 + len(seeds)
        panels = max(1, (self._width + 2) // (panel + 2))
        fitting = panels * (room - 1)  # a line says what symbols mean
        names, rest = list(cells), ""
        if len(names) > fitting:
            fitting = panels * (room - 2)
            names.sort(key=lambda cell: min(_urgency(state) for state in cells[cell].values()))  # else as planned
            hidden = [state for cell in names[fitting:] for state in cells[cell].values()]
            names = [cell for cell in cells if cell in set(names[:fitting])]
            done = sum(state.state == "done" for state in hidden)
            rest = f"and {len(cells) - len(names)} more cells, {done} of their {len(hidden)} runs done"
        if not names:
            return [Text(rest, "dim")]
        rows = -(-len(names) // panels)
        lines = []
        for row in range(rows):
            parts = []
            for cell in names[row::rows]:
                part = Text(_fit(printable(cell), label) + " ")
                for seed in seeds:
                    state = cells[cell].get(seed)
                    part.append(*(_SYMBOLS[state.state][:2] if state is not None else (" ", "")))
                parts.append(part)
            lines.append(_joined(parts, panel + 2))
        if rest:
            lines.append(Text(rest, "dim"))
        present = {state.state for state in self._p.states}
        legend = (f"{symbol} {word}" for state, (symbol, _, word) in _SYMBOLS.items() if state in present)
        named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) < _NAMED else f"{len(seeds)} seeds"
        columns = f"{named}:{_GAP}" if len(seeds) > 1 else ""
        return [*lines, Text(columns + _GAP.join(legend), "dim")]

    def _running(self, running: Sequence[RunState], room: int) -> list[Text]:
        """A line per run that goes on, in the plan's order; the last line counts those that have no room."""
        if not room:
            return []
        if not running:
            starting = "; workers take a while to start" if self._p.workers else ""
            is_over = all(state.state in ("done", "failed") for state in self._p.states)
            return [] if is_over else [Text(f"no run is going on at the moment{starting}", "dim")]
        shown = running if len(running) <= room else running[: room - 1]
        hosts = {state.host for state in running}
        rows = [_row(state) for state in shown]
        lines = [self._line(row, rows) for row in rows]
        if len(shown) < len(running):
            on = f" on {len(hosts)} hosts" if len(hosts) > 1 else ""
            lines.append(Text(f"and {len(running) - len(shown)} more running{on}", "dim"))
        return lines

    def _line(self, row: _Row, rows: Sequence[_Row]) -> Text:
        """One of several lines whose columns stand below each other."""
        what = max((cell_len(other.what) for other in rows if other.total), default=0)
        steps, seconds, names, longest, places = (
            max(cell_len(text) for text in texts)
            for texts in zip(*((r.steps, r.seconds, r.cell + r.seed, r.losses, r.place) for r in rows), strict=True)
        )
        # Where there is little room the bar is short, then losses are left out, then names are cut, then places.
        spare = self._width - (what + 1 + 1 + steps + len(_GAP) + seconds + len(_GAP)) - 1
        losses = longest + len(_GAP) if spare >= names + places + longest + 2 * len(_GAP) + _BAR else 0
        spare -= losses
        name = min(names, max(16, spare - places - 2 * len(_GAP) - _BAR))
        spare -= name + len(_GAP)
        at = min(places, max(0, spare - _BAR))
        bar = max(0, min(30, spare - at))
        head = f"{_fit(row.cell, name - len(row.seed))}{row.seed}" + _GAP
        end = f"{row.seconds:>{seconds}}{_GAP}{_fit_end(row.place, at) if at >= 6 else ''}"
        if not row.total:  # nothing to count: the words have the room of the bar
            middle = _fit(row.what, what + 1 + bar + 1 + steps + losses) + _GAP
            return Text.assemble((head, "bold"), middle, (end, "dim"))
        shown = _fit(row.losses, losses - len(_GAP)) + _GAP if losses else ""
        return Text.assemble(
            (head, "bold"),
            _fit(row.what, what) + " ",
            self._bar(row.share, bar),
            f" {row.steps:>{steps}}{_GAP}{shown}",
            (end, "dim"),
        )

    def _events(self, room: int) -> list[Text]:
        lines = []
        for event in newest(self._p.events, room):
            symbol, style, _ = _SYMBOLS[event.state.state]
            lines.append(Text.assemble((f"{symbol} ", style), (str(event), style if event.is_failure else "")))
        return lines


@dataclass(frozen=True, slots=True)
class _Row:
    cell: str
    seed: str
    what: str
    share: float
    total: int | None
    steps: str
    losses: str
    seconds: str
    place: str


def _row(state: RunState) -> _Row:
    what, done, total = doing(state)
    steps = f"{done}/{total}" if total else ""
    return _Row(
        printable(state.planned.cell),
        f" seed {state.planned.seed}",
        what,
        done / total if total else 0.0,
        total,
        steps,
        losses(state),
        in_words(state.seconds),
        place(state),
    )


def _urgency(state: RunState) -> int:
    return ("running", "failed", "interrupted", "planned", "done").index(state.state)


def _more(given: int, wanted: int, free: int) -> tuple[int, int]:
    extra = max(0, min(wanted - given, free))
    return given + extra, free - extra


def _fit(text: str, width: int) -> str:
    """Text of a width in columns: cut with an ellipsis, or filled up."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


def _fit_end(text: str, width: int) -> str:
    """Text of a width in columns, of which the end matters most."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def _padded(text: Text, width: int) -> Text:
    padded = text.copy()
    padded.append(" " * max(0, width - cell_len(text.plain)))
    return padded


def _joined(parts: Sequence[Text], width: int) -> Text:
    line = Text()
    for part in parts:
        line.append_text(_padded(part, width))
    line.rstrip()
    return line
