"""Numbers that papers print, each with where it was read and how far it can be trusted."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from results.runs import ResultsError

Status = Literal["verified", "second source", "abstract", "inferred", "memory"]
"""How a number was obtained: read where it was published (or measured here), in another paper, in an abstract, put
together from what was read, or remembered."""

STATUSES: tuple[Status, ...] = get_args(Status)

Kind = Literal["paper", "repository", "abstract", "note", "measured"]
"""What printed it: a paper, a repository, an abstract, someone's note of a paper, or nobody: it was measured."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_LETTERS: Mapping[Status, str] = {
    "verified": "",
    "second source": "S",
    "abstract": "A",
    "inferred": "I",
    "memory": "M",
}

_MEANINGS: Mapping[Status, str] = {
    "verified": "read where it was published",
    "second source": "read in a second source, not where it was first published",
    "abstract": "read in an abstract, without its table",
    "inferred": "put together from what could be read, and not certain",
    "memory": "from memory, not checked; not to be quoted",
}


class PublishedError(ResultsError):
    """A published table, row or column that there is not, or a file of them that cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedMetric:
    """One column of a printed table.

    Args:
        key: what it is told by within its table: `part/metric`, as `caption/bleu-4` or `property/mae:homo`.
        metric: molgraft's name, without what it is of (`mae`).
        of: the part of the data that it is of (`homo`); empty for all.
        printed: the column's head in the paper.
        task: molgraft's task, or None where molgraft does not ask this.
        data: the data set, in words.
        dataset: molgraft's name of it; None where molgraft has no such set.
        same_examples: whether the examples of that split are the paper's.
        split: whose answers were scored.
        n: how many examples; None where it is not known.
        protocol: molgraft's nearest protocol, of the paper's own rows; None where there is none.
        protocol_note: what remains different, or why there is none.
        scale: what a printed number is divided by to be on molgraft's scale (100 for percents).
        unit: of values on molgraft's scale; empty for a share between 0 and 1.
        outside: why a metric that the protocol does not have stands here all the same; empty for none.
        defined: what a metric is that molgraft does not have; empty for molgraft's own.
    """

    key: str
    metric: str
    of: str
    printed: str
    task: str | None
    data: str
    dataset: str | None
    same_examples: bool
    split: str
    n: int | None
    protocol: str | None
    protocol_note: str
    scale: int
    unit: str
    outside: str
    defined: str

    @property
    def name(self) -> str:
        """The metric with what it is of: `mae:homo`, or `bleu-4`."""
        return f"{self.metric}:{self.of}" if self.of else self.metric


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedFigure:
    """One number of a printed table.

    Args:
        table: identity of the table.
        row: its row's name.
        column: what it is a value of.
        printed: as it stands in the paper, its digits kept; `-` where there is none, `n/a` where the paper says so.
        value: on molgraft's scale; None where the paper has none.
        text: the value on molgraft's scale with the paper's digits, no more; empty for none.
        sd: what the paper puts behind ±, on the same scale; papers seldom say what it is.
        approximate: the paper gives it as about so much.
        status: how it was obtained.
        suspect: why it may be wrong; None where nothing speaks against it.
        protocol: molgraft's nearest protocol of this row; None where it is not known.
        kind: what printed it.
        note: what must be known of its row.
    """

    table: str
    row: str
    column: PublishedMetric
    printed: str
    value: float | None
    text: str
    sd: float | None
    approximate: bool
    status: Status
    suspect: str | None
    protocol: str | None
    kind: Kind
    note: str

    @property
    def verified(self) -> bool:
        """Whether it may be shown without a mark."""
        return self.status == "verified" and self.suspect is None and not self.approximate

    @property
    def mark(self) -> str:
        """What has to stand behind the number wherever it is shown; empty only for a verified one.

        A letter tells how it was obtained (`legend` says what it means), a question mark that it is suspect.
        """
        signs = _LETTERS[self.status] + ("?" if self.suspect else "")
        return f" [{signs}]" if signs else ""

    @property
    def shown(self) -> str:
        """The number on molgraft's scale, with its mark; `n/a` where there is none."""
        return self._marked(self.text)

    @property
    def shown_as_printed(self) -> str:
        """The number as the paper has it, with its mark; `n/a` where there is none."""
        return self._marked(self.printed.removeprefix("~"))

    def _marked(self, text: str) -> str:
        if self.value is None:
            return "n/a"
        return f"{'about ' if self.approximate else ''}{text}{self.mark}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One row of a printed table.

    Args:
        name: as in the paper, without signs of footnotes.
        llm: its language model, or how it was tuned, as the paper says it; empty where it does not.
        figures: by the column's key; columns that the paper leaves without such a row are not there.
        note: what must be known of it; empty for nothing.
        predictions: files of its released predictions below the data folder, by part of the table.
    """

    name: str
    llm: str
    figures: Mapping[str, PublishedFigure]
    note: str
    predictions: Mapping[str, str]

    @property
    def values(self) -> dict[str, float | None]:
        """Numbers on molgraft's scale, by the column's key."""
        return {key: figure.value for key, figure in self.figures.items()}

    @property
    def suspect(self) -> dict[str, str]:
        """Why numbers may be wrong, by the column's key."""
        return {key: figure.suspect for key, figure in self.figures.items() if figure.suspect is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Direction:
    """What is said of a comparison whose numbers could not be had.

    Args:
        task: molgraft's task; None for all, or for one that molgraft does not ask.
        metric: molgraft's name; None where it is not said.
        best: the row that is said to be best; None where it is not about that.
        says: the statement.
    """

    task: str | None
    metric: str | None
    best: str | None
    says: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """One printed table; its columns may ask several things.

    Args:
        id: `<file>/<table>`, as `llamo/table4`.
        paper: the system.
        reference: where it was published.
        source: what was read of it.
        table: which table of the paper.
        title: what it is about.
        kind: what printed it.
        llm: the language model of all rows that name no other.
        status: how its numbers were obtained, where no column or row says otherwise.
        how_verified: what was done to be sure of them.
        metrics: its columns.
        rows: its rows.
        directions: what is said in words.
        defects: what is known to be wrong with it, or unlike what it seems.
    """

    id: str
    paper: str
    reference: str
    source: str
    table: str
    title: str
    kind: Kind
    llm: str
    status: Status
    how_verified: str
    metrics: tuple[PublishedMetric, ...]
    rows: tuple[PublishedRow, ...]
    directions: tuple[Direction, ...]
    defects: tuple[str, ...]

    @property
    def caption(self) -> str:
        """Which table it is, and what was read: `LLaMo (arXiv ...), Table 4: ...`."""
        return f"{self.paper} ({self.reference}), {self.table}: {self.title}"

    def row(self, name: str) -> PublishedRow:
        """A row by its name.

        Raises:
            PublishedError: there is no such row; with those that there are.
        """
        found = {row.name: row for row in self.rows}
        if name not in found:
            raise PublishedError(unknown(f"{self.id}: row", name, found))
        return found[name]


def legend(figures: Iterable[PublishedFigure]) -> list[str]:
    """Sentences that explain the marks of these figures; they belong wherever the figures are shown."""
    shown = [figure for figure in figures if figure.value is not None]
    letters = {figure.status for figure in shown} - {"verified"}
    sentences = [f"[{_LETTERS[status]}]: {_MEANINGS[status]}." for status in STATUSES if status in letters]
    reasons = {f"{f.row}, {f.column.printed}: {f.suspect}": None for f in shown if f.suspect is not None}
    return sentences + [f"[?]: suspect. {reason}." for reason in reasons]


def unknown(what: str, name: str, known: Collection[str]) -> str:
    """A message about a name that there is not, with those that there are."""
    near = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"{what} {name!r}: there is none.{meant} There are: {', '.join(map(repr, known)) or 'none'}."
