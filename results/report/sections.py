"""The sections of a report as HTML. All that a run says of itself goes through `fill`, and so is text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from results.formats import counted, p_value, plain, probability, signed
from results.metrics import HIDDEN
from results.page import Markup, fill, join
from results.report import sentences
from results.report.content import Part, Reliance, Report
from results.report.markup import NOTHING, folded, items, plots, section, table
from results.report.provenance import Origin
from results.report.sentences import Compared

_MOST_NAMED = 5
"""Cells that a sentence names; the table below has all."""


def heading(report: Report) -> Markup:
    """The study's name, how far it is, and what it was run as."""
    total, done = report.runs
    said = [f"{counted(len(report.cells), 'cell')}, {done} of {counted(total, 'run')} done"]
    said += [f"{what} {value}" for what, value in report.about.items()]
    return fill('<h1>{}</h1><p class="dim">{}</p>', report.study, " · ".join(said))


def answer_box(report: Report) -> Markup:
    """The question, and what was found."""
    asked = fill('<p class="question">{}</p>', report.question) if report.question else Markup("")
    if not report.parts:
        return join([asked, Markup('<div class="card answer-box"><p class="found">There is no score yet.</p></div>')])
    first, *others = report.parts
    found = [fill('<p class="found">{}</p>', headline(first))]
    found += [fill('<p class="also"><b>{}.</b> {}</p>', part.title, headline(part)) for part in others]
    found.append(items(list(dict.fromkeys(caveat for part in report.parts for caveat in part.caveats))))
    return join([asked, fill('<div class="card answer-box">{}</div>', join(found))])


def headline(part: Part) -> str:
    """What a part found, in words."""
    return sentences.answer(part.standings, part.compared, reference=part.reference, metric=part.metric)


def results(number: int, part: Part) -> Markup:
    """Table, comparisons and plots of one way of asking."""
    pieces: list[Markup] = [*part.tables]
    pieces += comparisons(part)
    pieces += plots(part.plots)
    return section(f"results-{number}", f"Results: {part.title}", pieces)


def comparisons(part: Part) -> Iterator[Markup]:
    """Every comparison with its test, and the same in words."""
    if not part.compared:
        return
    to_what = part.reference if part.reference is not None else part.standings[0].cell if part.standings else ""
    yield fill("<h3>Differences in {} from {}</h3>", part.metric, sentences.quoted(to_what))
    header = ("cell", "difference", "95% interval", "p", "found with 80% power", "examples", "seeds", "says")
    reasons = {item.reason for item in part.compared}
    common = reasons.pop() if len(reasons) == 1 else ""  # said once, below
    several = len({item.other for item in part.compared}) > 1  # the cell of reference was asked in several ways
    yield table(header, [_comparison_row(item, common, several=several) for item in part.compared], numeric=range(1, 7))
    yield fill("<p class='small dim'>{}</p>", " ".join(_how_compared(part.compared, common)))
    words = join(fill("<li>{}</li>", sentences.comparison(item)) for item in part.compared)
    yield fill("<details><summary>The same in words</summary><ul class='words'>{}</ul></details>", words)


def _how_compared(compared: Sequence[Compared], common: str) -> Iterator[str]:
    if common:
        yield f"{common[0].upper()}{common[1:]}."
    yield "Both cells answered the same examples, and differences are taken within examples."
    tests = list(dict.fromkeys(item.test for item in compared if item.test))
    if tests:
        yield f"Test: {'; '.join(tests)}. Intervals: 95%, not corrected."
    correction = next((item.correction for item in compared if item.correction), "")
    if correction:
        yield (
            f"p is corrected ({correction}), and so is the power; a bold value in the table is tested against the next "
            "best only."
        )
    yield (
        "“Found with 80% power” is the smallest true difference that as many examples would have shown four times in "
        "five: where none is shown, smaller ones may exist."
    )
    if any(item.p is not None and not item.is_over_seeds for item in compared):
        yield "What varies between trainings is not in p or the interval."


def reliance(report: Report) -> Markup:
    """Whether the graph is used, by cell."""
    pieces: list[Markup] = [
        Markup(
            "<p>Each molecule's graph is swapped for that of another molecule, of equal size where the run says so. "
            "What the gold answer loses in log-likelihood is what the model read from its own graph: 0 for one that "
            "cannot tell one graph from another.</p>"
        )
    ]
    for part in report.parts:
        if len(report.parts) > 1:
            pieces.append(fill("<h3>{}</h3>", part.title))
        pieces.append(fill("<ul class='words'>{}</ul>", join(fill("<li>{}</li>", s) for s in _on_reliance(part))))
        measured = [row for row in part.reliance if row.value is not None]
        if measured:
            changed = dict.fromkeys(name for row in measured for name in row.changes or ())
            names = [name for name in changed if name not in HIDDEN]
            header = ("cell", "nats per token", "95% interval", "p after Holm", "examples", "left out", *names)
            body = [_reliance_row(row, names) for row in measured]
            pieces.append(table(header, body, numeric=range(1, len(header))))
            if names:
                pieces.append(
                    Markup(
                        "<p class='small dim'>Under the names of metrics: mean change per example from the answer "
                        "under a swapped graph to that under its own graph.</p>"
                    )
                )
        pieces += plots(part.reliance_plots)
    return section("reliance", "Is the graph used?", pieces)


def examples(report: Report) -> Markup:
    """Where the page's script builds the browser of examples, and what it holds."""
    pieces: list[Markup] = []
    for part in report.parts:
        held = part.examples
        which = f"{part.title}: " if len(report.parts) > 1 else ""
        text = f"{which}the page holds {held.embedded:,} of {held.n:,} examples"
        if held.embedded:
            lists = "the worst and the best, those most helped and most hurt by their own graph"
            text += (
                f": of each cell the first {held.asked_for} of {lists}, and as many drawn at random, the same for all"
            )
        if held.reached < held.asked_for and held.embedded:
            text += f"; the page's size allowed for the first {held.reached} of each list and some of the next"
        pieces.append(fill("<p>{}.</p>", f"{text[0].upper()}{text[1:]}"))
        if held.cut:
            pieces.append(fill("<p class='small dim'>{} too long to be shown whole.</p>", _texts_are(held.cut)))
        pieces += [fill("<p class='note'>{}</p>", missing) for missing in held.without]
    pieces.append(
        Markup('<div id="browser"><noscript><p>The browser of examples needs JavaScript.</p></noscript></div>')
    )
    return section("examples", "Examples", pieces)


def failures(report: Report) -> Markup:
    """Runs without a result, and answers that could not be parsed."""
    pieces: list[Markup] = []
    if report.unfinished:
        rows = [
            (run.cell, NOTHING if run.seed is None else str(run.seed), run.state, run.message)
            for run in report.unfinished
        ]
        pieces.append(Markup("<h3>Runs without a result</h3>"))
        pieces.append(table(("cell", "seed", "state", "message"), rows))
    else:
        done = report.runs[1]
        pieces.append(fill("<p>{}.</p>", "The one run is done" if done == 1 else f"All {done} runs are done"))
    for part in report.parts:
        told = [row for row in part.invalid if row.invalid or row.ended_by_length]
        pieces.append(fill("<h3>Answers: {}</h3>", part.title) if len(report.parts) > 1 else Markup("<h3>Answers</h3>"))
        if not told:
            pieces.append(Markup("<p>Every answer could be parsed, and none was cut off.</p>"))
            continue
        answers = [
            (
                row.cell,
                f"{row.n:,}",
                f"{row.invalid:,}",
                f"{row.ended_by_length:,}",
                "; ".join(f"{why} ({times:,})" for why, times in row.reasons) or NOTHING,
            )
            for row in told
        ]
        header = ("cell", "answers", "not parsed", "cut off at the most tokens", "reasons")
        pieces.append(table(header, answers, numeric=(1, 2, 3)))
    return section("failures", "What failed", pieces)


def recipe(report: Report) -> Markup:
    """What cells differ in, what they share, and the whole of each."""
    pieces: list[Markup] = []
    if report.differences:
        header = ("cell", *(difference.path for difference in report.differences))
        rows = [
            (cell, *(difference.short.get(cell, NOTHING) for difference in report.differences))
            for cell in report.configs
        ]
        pieces.append(Markup("<p>What the cells differ in; all else is the same.</p>"))
        pieces.append(table(header, rows, classes="recipe wrap"))
        pieces += _spelled_out(report)
    elif len(report.configs) > 1:
        pieces.append(Markup("<p>The configurations of all cells are the same.</p>"))
    elif report.configs:
        pieces.append(Markup("<p>There is one cell.</p>"))
    else:
        pieces.append(Markup("<p>No configuration is stored with these runs.</p>"))
    if report.common and len(report.configs) > 1:
        pieces.append(folded("What all cells share", report.common))
    whole = [folded(f"Configuration of {cell}", text) for cell, text in report.configs.items()]
    if len(whole) > 1:
        title = f"The whole configuration of each of {len(whole)} cells"
        whole = [fill("<details><summary>{}</summary>{}</details>", title, join(whole))]
    pieces += whole
    for prompt in report.prompts:
        asked = f"{prompt.get('prompt', '')}{prompt.get('answer', '')}"
        title = f"An example, verbatim ({prompt.get('task', '?')}, {prompt.get('example_id', '?')})"
        pieces.append(folded(title, asked))
    return section("recipe", "Recipe", pieces)


def provenance(report: Report) -> Markup:
    """Where the numbers come from."""
    pieces: list[Markup] = []
    if any(line.warns for line in report.origins):
        pieces.append(
            Markup('<p class="note">Runs differ in what is marked, or cannot be traced to a commit by it.</p>')
        )
    lines = join(fill("<dt>{}</dt><dd>{}</dd>", line.what, _origin(line)) for line in report.origins)
    pieces.append(fill('<dl class="facts">{}</dl>', lines))
    if not report.origins:
        pieces.append(Markup("<p>No manifest is stored with these runs.</p>"))
    listing = table(("cell", "seed", "training", "state"), report.identities)
    pieces.append(fill("<details><summary>All runs with their identities</summary>{}</details>", listing))
    return section("provenance", "Provenance", pieces)


def again(report: Report) -> Markup:
    """How to run it again."""
    text = "\n".join(report.commands)
    return section(
        "again",
        "Run it again",
        [
            fill("<pre tabindex='0'>{}</pre>", text),
            Markup(
                "<p class='small dim'>What is done already is found by its identity and not done again. Floating-point "
                "results can differ in their last digits between machines and versions; the versions above are those "
                "that were used. Of absolute paths only the last part is shown: they are of the machine that was used."
                "</p>"
            ),
        ],
    )


def _comparison_row(item: Compared, common: str, *, several: bool) -> tuple[object, ...]:
    says, mark = "no difference shown", "dim"
    if item.p is None:
        says = "no test"
    elif item.is_shown:
        says, mark = ("better", "good") if item.is_better else ("worse", "bad")
    ends = NOTHING if item.ci95 is None else f"{signed(item.ci95[0])} to {signed(item.ci95[1])}"
    return (
        f"{item.cell} (from {item.other})" if several else item.cell,
        NOTHING if item.difference is None else signed(item.difference),
        ends,
        _p(item.p),
        NOTHING if item.detectable is None else plain(item.detectable),
        f"{item.n:,}",
        " and ".join(map(str, dict.fromkeys(seeds for seeds in item.seeds if seeds))),
        fill('<span class="{}">{}</span>{}', mark, says, f": {item.reason}" if item.reason != common else ""),
    )


def _on_reliance(part: Part) -> Iterator[str]:
    measured = [row for row in part.reliance if row.value is not None]
    left = [row for row in part.reliance if row.value is None]
    used = [row for row in measured if _is_shown(row) and (row.value or 0) > 0]
    hurt = [row for row in measured if _is_shown(row) and (row.value or 0) < 0]
    unclear = [row for row in measured if not _is_shown(row)]
    if used:
        yield f"The graph is used by {_cells(used, measured)}."
    if hurt:
        yield f"It misleads {_cells(hurt, measured)}: another graph makes the gold answer likelier."
    if unclear:
        known = sorted(row.detectable for row in unclear if row.detectable)
        sizes = plain(known[0]) if known else ""
        if len(known) > 1 and plain(known[-1]) != sizes:
            sizes += f" to {plain(known[-1])}"
        power = f"; gains above {sizes} would have been found with 80% power" if known else ""
        yield f"No use could be shown for {_cells(unclear, measured)}{power}."
    if left:
        yield f"Not measured for {sentences.listed([sentences.quoted(row.cell) for row in left])}{_reasons(left)}."
    if measured:
        yield (
            "In brackets: gain in nats per token, with p of a permutation test that swaps the two graphs of each "
            f"example, after Holm over {counted(len(measured), 'cell')}."
        )


def _cells(rows: Sequence[Reliance], of: Sequence[Reliance]) -> str:
    """The cells, those that gain most first; as many as a sentence bears."""
    ordered = sorted(rows, key=lambda row: row.value or 0.0, reverse=True)
    named = [_gain(row) for row in ordered[:_MOST_NAMED]]
    if len(ordered) > _MOST_NAMED:
        return f"{len(rows)} of {len(of)} cells: {sentences.listed([*named, f'{len(ordered) - _MOST_NAMED} more'])}"
    return sentences.listed(named)


def _is_shown(row: Reliance) -> bool:
    return row.p is not None and row.p < sentences.LEVEL


def _gain(row: Reliance) -> str:
    control = f"; a control: {row.control}" if row.control else ""
    p = f", {probability(row.p)}" if row.p is not None else ""
    size = ", ".join(filter(None, (counted(row.n, "example"), row.counted)))
    return f"{sentences.quoted(row.cell)} ({signed(row.value or 0.0)}{p}, {size}{control})"


def _reasons(rows: Sequence[Reliance]) -> str:
    reasons = list(dict.fromkeys(row.reason for row in rows if row.reason))
    return f" ({'; '.join(reasons)})" if reasons else ""


def _reliance_row(row: Reliance, names: Sequence[str]) -> tuple[object, ...]:
    ends = NOTHING if row.ci95 is None else f"{signed(row.ci95[0])} to {signed(row.ci95[1])}"
    changes = row.changes or {}
    told = (signed(changes[name]) if name in changes else NOTHING for name in names)
    about = "; ".join(filter(None, (row.control and f"control: {row.control}", row.counted)))
    name = f"{row.cell} ({about})" if about else row.cell
    return (name, signed(row.value or 0.0), ends, _p(row.p), f"{row.n:,}", f"{row.left_out:,}", *told)


def _p(value: float | None) -> str:
    return NOTHING if value is None else p_value(value)


def _spelled_out(report: Report) -> Iterator[Markup]:
    """Components that the table only names, with all of their settings that differ."""
    lines = []
    for difference in report.differences:
        full = {difference.short[cell]: text for cell, text in difference.values.items()}
        lines += [
            fill("<dt>{}: {}</dt><dd>{}</dd>", difference.path, short, text)
            for short, text in full.items()
            if text != short
        ]
    if lines:
        yield fill(
            "<details><summary>What these names stand for</summary><dl class='facts'>{}</dl></details>", join(lines)
        )


def _origin(line: Origin) -> Markup:
    values = join(map(str, line.values), between="<br>") if line.what != "Packages" else join([", ".join(line.values)])
    return fill('<span class="bad">differs: </span>{}' if line.warns and len(line.values) > 1 else "{}", values)


def _texts_are(n: int) -> str:
    return "One text is" if n == 1 else f"{n:,} texts are"
