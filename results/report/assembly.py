"""The page of a report: its sections in the order in which a reviewer asks for them."""

from __future__ import annotations

from results.page import Markup, as_script_data, document, escape, fill, join, own_file
from results.report import sections
from results.report.again import without_places
from results.report.content import Report
from results.report.markup import plots, section

# Marks that turn the direction of writing: one in the name of a run would mirror the sentence that it stands in.
_TURNING = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}")


def as_html(report: Report) -> str:
    """One self-contained page; it opens from disk and fetches nothing."""
    from results.plots.output import page_css
    from results.tables.fragment import STYLE

    body = [
        sections.heading(report),
        sections.answer_box(report),
    ]
    parts = [sections.results(number, part) for number, part in enumerate(report.parts)]
    if report.ranks:
        parts.append(section("ranks", "All that was asked", list(plots(report.ranks))))
    rest = [
        sections.reliance(report),
        sections.examples(report),
        sections.failures(report),
        sections.recipe(report),
        sections.provenance(report),
        sections.again(report),
    ]
    titles = [(f"results-{number}", part.title) for number, part in enumerate(report.parts)]
    body += [_contents(titles if len(titles) > 1 else [(key, "Results") for key, _ in titles]), *parts, *rest]
    held = [{"title": part.title, **part.examples.data} for part in report.parts]
    page = document(
        f"{report.study}: report",
        without_places(join(body), report.places),
        styles=(STYLE, page_css(), own_file(__file__, "report.css")),
        scripts=(own_file(__file__, "report.js"),),
        data={"examples": without_places(as_script_data(held), report.places)},
        description=without_places(escape(report.question), report.places),
        footer=_footer(),
    )
    return page.translate(_TURNING)


def _contents(results: list[tuple[str, str]]) -> Markup:
    fixed = [
        ("reliance", "Is the graph used?"),
        ("examples", "Examples"),
        ("failures", "What failed"),
        ("recipe", "Recipe"),
        ("provenance", "Provenance"),
        ("again", "Run it again"),
    ]
    links = join(fill('<li><a href="#{}">{}</a></li>', key, title) for key, title in [*results, *fixed])
    return fill('<nav class="contents" aria-label="Contents"><ol>{}</ol></nav>', links)


def _footer() -> Markup:
    return Markup(
        "<p>Made by <code>molgraft report</code> from stored runs; every figure follows from their files. This "
        "page is one file and fetches nothing.</p>"
    )
