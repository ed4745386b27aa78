"""The leaderboard as one page: what stands on it before its script begins, and the data."""

from __future__ import annotations

from typing import Any

from results.formats import counted
from results.leaderboard.board import BUDGETS, Leaderboard
from results.leaderboard.embedding import examples_as_data, rows_as_data
from results.page import Markup, document, escape, fill, join, own_file
from results.statistics import FEWEST_EXAMPLES

_LABELS = {
    "bleu-2": "BLEU-2",
    "bleu-4": "BLEU-4",
    "bleu": "BLEU",
    "rouge-1": "ROUGE-1",
    "rouge-2": "ROUGE-2",
    "rouge-l": "ROUGE-L",
    "meteor": "METEOR",
    "exact": "Exact",
    "levenshtein": "Levenshtein",
    "maccs": "MACCS",
    "rdk": "RDK",
    "morgan": "Morgan",
    "validity": "Validity",
    "roc-auc": "ROC-AUC",
    "accuracy": "Accuracy",
    "f1": "F1",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "parse-rate": "Parse rate",
}
"""How the field writes a metric's name."""

_EXPLAINED = fill(
    "<p>Intervals hold 95%: over examples (bootstrap) for a single run, over seeds (Student's t) from three runs on; "
    "below {} examples there are none. ± is the standard deviation over seeds. A mean over some of its seeds only says "
    "of how many; it has no rank and takes part in no test. Answers that cannot be read count as the protocol says. "
    "<i>Reliance</i> is how much likelier the gold answer is with its own molecule's graph than with another's, in "
    "nats per token. <i>External</i> rows are predictions of another system, of whose training nothing is known.</p>"
    "<p>Made by <code>molgraft leaderboard</code>. The page holds all that it shows, and asks no server.</p>",
    FEWEST_EXAMPLES,
)

_MOST_UNSCORED = 200  # runs without scores that are listed by name


def as_html(leaderboard: Leaderboard, title: str = "Leaderboard") -> str:
    """The page. It holds all its data and works from disk.

    Args:
        leaderboard: what it shows.
        title: of the page, as text.
    """
    scripts = "\n".join(own_file(__file__, name) for name in ("paired.js", "comparison.js", "rows.js", "table.js"))
    return document(
        title,
        _body(leaderboard, title),
        styles=[own_file(__file__, "leaderboard.css")],
        scripts=[scripts],
        data={
            "boards": rows_as_data(leaderboard),
            "examples": examples_as_data(leaderboard),
            "words": _words(leaderboard),
        },
        description="Molecular graph encoders grafted onto language models, compared on the same examples.",
        footer=_footer(leaderboard),
    )


def _words(leaderboard: Leaderboard) -> dict[str, Any]:
    metrics = {name for board in leaderboard.boards for name in board.metrics}
    labels = {name: _LABELS.get(name, name) for name in sorted(metrics)}
    return {"metrics": labels, "budgets": BUDGETS, "fewestExamples": FEWEST_EXAMPLES}


def _body(leaderboard: Leaderboard, title: str) -> Markup:
    rows = sum(len(board.rows) for board in leaderboard.boards)
    return join(
        (
            fill(
                '<h1>{}</h1><p class="lead">{} on {}. Rows share a board only if they were asked the same examples and '
                "scored by the same protocol; only rows of one board are ranked or compared.</p>",
                title,
                counted(rows, "row"),
                counted(len(leaderboard.boards), "board"),
            ),
            Markup(
                "<noscript><p class='note'>This page sorts and filters by its own script, which is switched off here. "
                "<code>molgraft leaderboard --csv</code> prints the same as a table.</p></noscript>"
            ),
            Markup(own_file(__file__, "leaderboard.html")),
        )
    )


def _footer(leaderboard: Leaderboard) -> Markup:
    pieces = [_EXPLAINED]
    if leaderboard.unscored:
        shown = leaderboard.unscored[:_MOST_UNSCORED]
        more = len(leaderboard.unscored) - len(shown)
        items = join(fill("<li><code>{}</code> {}</li>", name, state) for name, state in shown)
        pieces.append(
            fill(
                "<details><summary>{} without scores</summary><ul>{}{}</ul></details>",
                counted(len(leaderboard.unscored), "run"),
                items,
                fill("<li>and {:,} more</li>", more) if more else escape(""),
            )
        )
    return join(pieces)
