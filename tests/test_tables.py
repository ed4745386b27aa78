"""Tables: what is compared with what, what is bold, what is said beside it, and forms that no name can break."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from answered_runs import answered_run, plan_file, protocol_of
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.cli import _status
from bench.run_store import RunDirectory, write_json
from bench.scores import score_predictions
from results.formats import decimals_of, number
from results.leaderboard import build
from results.packed import read_study
from results.published import figure
from results.runs import ResultsError, read_runs
from results.scores import example_scores
from results.statistics import aligned, holm, over_examples, paired
from results.tables import TableRequest, as_file, as_text, build_table, cells_of, requested_table
from results.tables.latex import tex
from results.tables.markdown import plain
from results.tables.studies import study_tables
from tasks.decontamination import Decontamination

N = 120


def right(share: float, seed: int, n: int = N) -> list[str]:
    """Answers to `golds` of which a share is right."""
    generator = random.Random(seed)
    return [gold if generator.random() < share else "no" if gold == "yes" else "yes" for gold in golds(n)]


def golds(n: int = N) -> list[str]:
    return ["yes" if place % 3 else "no" for place in range(n)]


def labelled(runs: Path, name: str, shares: Sequence[float], **options: Any) -> list[Path]:
    """Runs of one cell that classify, a seed for each share of right answers."""
    kept = {"kind": "classification", "task": "property", **options}
    return [
        answered_run(runs, name, seed, golds(), right(share, hash_of(name) + seed), **kept)
        for seed, share in enumerate(shares)
    ]


def hash_of(name: str) -> int:
    return sum(map(ord, name))


def by_name(table: Any, part: int = 0) -> dict[str, Any]:
    return {row.name: row for row in table.parts[part].rows}


def shown(table: Any) -> dict[str, dict[str, str]]:
    header, body = cells_of(table)
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


# What is bold


def test_the_best_is_bold_where_it_is_significantly_better(tmp_path: Path) -> None:
    labelled(tmp_path, "good", [0.95])
    labelled(tmp_path, "poor", [0.6])
    table = build_table(read_runs([tmp_path]), "strict")
    rows = by_name(table)
    assert rows["good"].metrics["accuracy"].mean > rows["poor"].metrics["accuracy"].mean
    assert rows["good"].metrics["accuracy"].best
    assert not rows["poor"].metrics["accuracy"].best
    assert f"**{rows['good'].metrics['accuracy'].mean:.3f}**" in as_text(table, "markdown")
    assert rf"\textbf{{{rows['good'].metrics['accuracy'].mean:.3f}}}" in as_text(table, "latex")
    assert f"<strong>{rows['good'].metrics['accuracy'].mean:.3f}</strong>" in as_text(table, "html")


def test_nothing_is_bold_where_the_best_may_be_chance(tmp_path: Path) -> None:
    labelled(tmp_path, "one", [0.80])
    labelled(tmp_path, "other", [0.81])
    labelled(tmp_path, "worst", [0.5])
    table = build_table(read_runs([tmp_path]), "strict")
    assert not any(value.best for row in table.rows for value in row.metrics.values() if value is not None)
    assert "**" not in as_text(table, "markdown")
    assert any(note.startswith("Nothing is bold") for note in table.notes)


def test_bold_follows_from_the_paired_test_and_holm(tmp_path: Path) -> None:
    labelled(tmp_path, "one", [0.86])
    labelled(tmp_path, "other", [0.74])
    runs = read_runs([tmp_path])
    table = build_table(runs, "strict")
    scores = {run.name: example_scores(run, run.summary["evaluations"][0]["scores"][0]) for run in runs}
    ps = {}
    for metric in table.metrics:
        one, other = (scores[name] for name in ("one", "other"))
        assert one is not None and other is not None  # noqa: PT018
        if metric in one.basis and metric in other.basis:
            ps[metric] = paired([one.basis[metric]], [other.basis[metric]]).p
    tested = {metric: p for metric, p in ps.items() if p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    assert len(adjusted) >= 2
    for metric, p in adjusted.items():
        means = {row.name: row.metrics[metric].mean for row in table.rows}
        best = "one" if table.directions.is_better(metric, means["one"], means["other"]) else "other"
        assert by_name(table)[best].metrics[metric].best == (p < 0.05)


def test_errors_are_better_when_they_are_smaller(tmp_path: Path) -> None:
    references = [f"{place / 7:.3f}" for place in range(60)]
    for name, error in (("near", 0.01), ("far", 2.0)):
        answers = [f"{float(gold) + error * (1 + place % 3):.4f}" for place, gold in enumerate(references)]
        answered_run(tmp_path, name, 0, references, answers, kind="regression", task="property-regression")
    rows = by_name(build_table(read_runs([tmp_path]), "strict"))
    assert rows["near"].metrics["mae"].best
    assert rows["near"].metrics["rmse"].best
    assert rows["near"].metrics["r2"].best
    assert not rows["far"].metrics["mae"].best


def test_from_three_seeds_on_tests_are_over_seeds_too(tmp_path: Path) -> None:
    # On the examples alone the first is better; over its seeds it varies as much as the two differ.
    labelled(tmp_path, "varying", [0.99, 0.65, 0.95])
    labelled(tmp_path, "steady", [0.74, 0.75, 0.76])
    runs = read_runs([tmp_path])
    table = build_table(runs, "strict", metrics=["accuracy"])
    assert not any(row.metrics["accuracy"].best for row in table.rows)
    assert any("over seeds" in note for note in table.notes if "bold" in note)
    models = build_table([run for run in runs if run.seed in (0, 2)], "strict", metrics=["accuracy"])
    assert by_name(models)["varying"].metrics["accuracy"].best
    assert any("not about other seeds" in note for note in models.notes)


def test_without_scores_of_examples_there_is_no_test_and_the_table_says_so(tmp_path: Path) -> None:
    for folder in [*labelled(tmp_path, "one", [0.9]), *labelled(tmp_path, "other", [0.5])]:
        for file in folder.glob("scores/*.json"):
            stored = json.loads(file.read_text())
            del stored["basis"], stored["per_example"]
            file.write_text(json.dumps({**stored, "per_example": {}}))
    table = build_table(read_runs([tmp_path]), "strict")
    assert not any(value.best for row in table.rows for value in row.metrics.values() if value is not None)
    assert any("no paired test" in note and "accuracy" in note for note in table.notes)


# Intervals


def test_a_cell_has_the_interval_of_its_score_or_that_over_all_its_seeds(tmp_path: Path) -> None:
    labelled(tmp_path, "single", [0.8])
    labelled(tmp_path, "several", [0.8, 0.7])
    runs = read_runs([tmp_path])
    rows = by_name(build_table(runs, "strict"))
    (single,) = (run for run in runs if run.name == "single")
    stated = single.summary["evaluations"][0]["scores"][0]["metrics"]["accuracy"]["ci95"]
    assert rows["single"].metrics["accuracy"].ci95 == tuple(stated)
    bases = []
    for run in runs:
        if run.name == "several":
            found = example_scores(run, run.summary["evaluations"][0]["scores"][0])
            assert found is not None
            bases.append((found.example_ids, found.basis["accuracy"]))
    expected = over_examples(aligned(bases)[0], resamples=2000)
    assert expected is not None
    assert rows["several"].metrics["accuracy"].ci95 == expected.ci95


def test_below_ten_examples_there_is_no_interval(tmp_path: Path) -> None:
    answers = ["yes"] * 9
    answered_run(tmp_path, "few", 0, golds(9), answers, kind="classification", task="property")
    (row,) = build_table(read_runs([tmp_path]), "strict").rows
    assert row.metrics["accuracy"].mean == pytest.approx(6 / 9)
    assert row.metrics["accuracy"].ci95 is None


# Against a cell of reference


def test_differences_from_the_cell_of_reference(tmp_path: Path) -> None:
    labelled(tmp_path, "base", [0.6])
    labelled(tmp_path, "better", [0.95])
    labelled(tmp_path, "same", [0.6])
    table = build_table(read_runs([tmp_path]), "strict", reference="base")
    rows = by_name(table)
    assert rows["base"].metrics["accuracy"].versus is None
    found = rows["better"].metrics["accuracy"].versus
    assert found.difference == pytest.approx(
        rows["better"].metrics["accuracy"].mean - rows["base"].metrics["accuracy"].mean
    )
    assert found.ci95[0] < found.difference < found.ci95[1]
    assert found.is_significant
    assert found.adjusted >= found.p
    assert not rows["same"].metrics["accuracy"].versus.is_significant
    cells = shown(table)
    first = next(name for name in table.metrics if rows["base"].metrics[name] is not None)
    assert cells["better"][f"{first} Δ"].startswith("+")
    assert cells["base"][f"{first} Δ"] == ""
    assert "*" in cells["better"]["accuracy"]
    assert "*" not in cells["same"]["accuracy"]
    with pytest.raises(ResultsError, match="reference 'nobody': no run is of a cell of that name; there are base"):
        build_table(read_runs([tmp_path]), "strict", reference="nobody")


# Parts: only what compares stands together


def test_decontaminated_scores_are_a_part_of_their_own(tmp_path: Path) -> None:
    folders = [*labelled(tmp_path, "one", [0.9]), *labelled(tmp_path, "other", [0.5])]
    description = {"by": "inchikey", "match": "any", "against": [{"data": "chebi20/train"}], "n": N, "n_left": N - 20}
    leaked = Decontamination(leaked=[place < 20 for place in range(N)], description=description)
    for folder in folders:
        result = json.loads((folder / "result.json").read_text())
        (entry,) = result["evaluations"]
        strict = protocol_of("strict")
        fewer = score_predictions(RunDirectory(folder), entry["predict_id"], "classification", strict, leaked)
        write_json(folder / "result.json", {**result, "evaluations": [{**entry, "decontaminated": [fewer]}]})
    table = build_table(read_runs([tmp_path]), "strict")
    whole, clean = table.parts
    assert (whole.n, whole.without) == (N, "")
    assert clean.n == N - 20
    assert clean.without == "20 examples whose molecules are in chebi20/train (by inchikey)"
    assert [board.without for board in build(read_runs([tmp_path])).boards] == ["", clean.without]
    assert [row.name for row in clean.rows] == ["one", "other"]
    assert clean.rows[0].metrics["accuracy"].best
    text = as_text(table, "markdown")
    assert (
        "**protocol strict@1, 100 examples, without 20 examples whose molecules are in chebi20/train (by inchikey)**"
        in text
    )
    assert "Numbers compare within a part only" in text
    assert as_text(table, "latex").count(r"\multicolumn") == 2
    assert as_text(table, "html").count('scope="rowgroup"') == 2


def test_of_several_versions_of_a_protocol_the_newest_counts(tmp_path: Path) -> None:
    labelled(tmp_path, "new", [0.9])
    (old,) = labelled(tmp_path, "old", [0.9])
    text = (old / "result.json").read_text().replace('"strict@1"', '"strict@0"')
    (old / "result.json").write_text(text)
    table = build_table(read_runs([tmp_path]), "strict")
    assert table.protocol == "strict@1"
    assert shown(table)["old"]["seeds"] == "0, 1 not scored so"
    assert by_name(build_table(read_runs([tmp_path]), "strict@0"))["old"].metrics["accuracy"] is not None


def test_scores_with_another_tokenizer_do_not_stand_beside_each_other(tmp_path: Path) -> None:
    (one,) = labelled(tmp_path, "one", [0.9])
    labelled(tmp_path, "other", [0.8])
    result = json.loads((one / "result.json").read_text())
    result["evaluations"][0]["scores"][0]["identity"]["tokenizer-sha256"] = "another"
    write_json(one / "result.json", result)
    table = build_table(read_runs([tmp_path]), "strict")
    assert [[row.name for row in part.rows] for part in table.parts] == [["one"], ["other"]] or [
        [row.name for row in part.rows] for part in table.parts
    ] == [["other"], ["one"]]


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    labelled(tmp_path, "one", [0.9])
    runs = read_runs([tmp_path])
    assert build_table(runs, "strict", metrics=["f1", "accuracy"]).metrics == ("f1", "accuracy")
    with pytest.raises(ResultsError, match="metric 'bleu': the runs have none of that name; they have"):
        build_table(runs, "strict", metrics=["bleu"])


def test_the_wrong_split_is_told_with_what_there_is(tmp_path: Path) -> None:
    labelled(tmp_path, "one", [0.9], split="validation")
    with pytest.raises(ResultsError, match="scored were answers on the validation split"):
        build_table(read_runs([tmp_path]), "strict")


# Names


def test_equal_names_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for cell, layers in (("a", 2), ("b", 5)):
        config = {"encoder": {"name": "gin", "layers": layers, "width": 16}}
        labelled(tmp_path, "demo", [0.8], cell=cell, config=config)
    labelled(tmp_path, "demo", [0.8, 0.8], cell="a", config={"encoder": {"name": "gin", "layers": 2, "width": 16}})
    names = {row.name for row in build_table(read_runs([tmp_path]), "strict").rows}
    assert names == {"demo (encoder.layers 2)", "demo (encoder.layers 5)"}


def test_only_where_no_setting_differs_a_name_has_a_piece_of_identity(tmp_path: Path) -> None:
    for cell in ("first-cell", "other-cell"):
        labelled(tmp_path, "demo", [0.8], cell=cell)
    assert {row.name for row in build_table(read_runs([tmp_path]), "strict").rows} == {
        "demo (cell first-ce)",
        "demo (cell other-ce)",
    }


def test_a_cell_is_named_as_most_of_its_runs_are(tmp_path: Path) -> None:
    for seed, name in enumerate(("zeta", "alpha", "zeta")):
        answered_run(tmp_path, name, seed, golds(), right(0.8, seed), kind="classification", cell="one")
    table = build_table(read_runs([tmp_path]), "strict")
    assert [row.name for row in table.rows] == ["zeta"]
    assert "zeta was also run as alpha." in table.notes


# Studies


def study_of(runs: Path, tables: Sequence[dict[str, Any]] = ()) -> Any:
    (runs / "broken-s0-bad").mkdir(parents=True)
    status = {"state": "failed", "error": "oom", "message": "out of memory"}
    write_json(runs / "broken-s0-bad" / "status.json", status)
    one = labelled(runs, "one", [0.9, 0.9])
    other = labelled(runs, "other", [0.6, 0.6])
    cells = {"other": [*other, None], "broken": [runs / "broken-s0-bad"], "one": one, "planned": [None, None]}
    plan_file(runs, "mine", cells, tables=tables)
    return read_study("mine", runs)


def test_a_study_s_table_has_all_its_cells_in_its_order(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    assert study.missing == (("other", 2), ("planned", 0), ("planned", 1))
    (table,) = study_tables(study)
    assert [row.name for row in table.rows] == ["other", "broken", "one", "planned"]
    cells = shown(table)
    assert cells["other"]["seeds"] == "2, 1 not begun"
    assert cells["broken"]["seeds"] == "0, 1 failed (oom)"
    assert cells["planned"]["seeds"] == "0, 2 not begun"
    assert cells["broken"]["accuracy"] == "n/a"
    assert any("selected by validation loss, never by test scores" in note for note in table.notes)


def test_a_study_s_table_is_as_it_was_requested(tmp_path: Path) -> None:
    request = {
        "name": "labels",
        "title": "Which is better",
        "task": "property",
        "metrics": ["accuracy"],
        "cells": ["one", "other"],
        "reference": "other",
        "rows": {"one": {"label": "The One"}},
        "notes": ["Trained for minutes."],
    }
    (table,) = study_tables(study_of(tmp_path, [request]))
    assert (table.name, table.title, table.metrics) == ("labels", "Which is better", ("accuracy",))
    assert [row.name for row in table.rows] == ["The One", "other"]
    assert table.rows[0].metrics["accuracy"].versus is not None
    assert "Trained for minutes." in table.notes
    assert as_text(table, "markdown").startswith("Which is better. property on bundled, test split")
    assert r"\label{tab:labels}" in as_text(table, "latex")


def test_published_numbers_stand_beside_ours(tmp_path: Path) -> None:
    text = "The molecule is an acyclic compound. It contains one amide group."
    references = [f"{text} It has {place} carbon atoms." for place in range(12)]
    folders: dict[str, list[Path | None]] = {"waiting": [None]}
    for name, answer in (("ours", text), ("plain", "The molecule is nothing.")):
        folders[name] = [answered_run(tmp_path, name, 0, references, [answer] * 12)]
    rows = {"ours": {"label": "MGProj", "published": "MGProj"}, "waiting": {"published": "MGProj w/o motif"}}
    request = {"task": "caption", "metrics": ["bleu-4", "meteor", "rouge-l"], "published": "llamo/table4", "rows": rows}
    plan_file(tmp_path, "beside", folders, tables=[request])
    (table,) = study_tables(read_study("beside", tmp_path))
    printed = figure("llamo/table4", "MGProj", "bleu-4", task="caption")
    found = by_name(table)["MGProj"].metrics["bleu-4"]
    published = by_name(table)["MGProj"].published
    assert published.keys() == {"bleu-4", "meteor"}
    assert published["bleu-4"].value == printed.value
    assert published["bleu-4"].difference == pytest.approx(found.mean - printed.value)
    cells = shown(table)
    assert cells["MGProj"]["bleu-4 published"] == printed.shown
    assert cells["MGProj"]["bleu-4 difference"] == f"{found.mean - printed.value:+.3f}"
    assert cells["plain"]["bleu-4 published"] == ""
    assert float(cells["waiting"]["bleu-4 published"].split()[0]) > 0  # though there is none of ours yet
    assert cells["waiting"]["bleu-4 difference"] == ""
    assert "rouge-l published" not in cells["plain"]
    notes = " ".join(table.notes)
    assert "Differences (ours less published) are not tested" in notes
    assert "published over" in notes or "published on" in notes
    latex = as_text(table, "latex")
    assert r"\cmidrule(lr)" in latex
    widths = {
        len(line.split(" & ")) for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    }
    assert widths == {len(cells_of(table)[0])}
    assert 'scope="colgroup" colspan="3">bleu-4' in as_text(table, "html")


def test_a_study_without_scores_says_so(tmp_path: Path) -> None:
    plan_file(tmp_path, "empty", {"one": [None]})
    with pytest.raises(ResultsError, match="0 of its runs are done, and none has scores yet"):
        study_tables(read_study("empty", tmp_path))
    with pytest.raises(ResultsError, match=r"nix: no study of that name was run in .* \(there are: empty\)"):
        read_study("nix", tmp_path)


# Numbers


@given(st.floats(-1e300, 1e300) | st.just(math.nan) | st.just(math.inf), st.integers(0, 6), st.booleans())
def test_a_number_is_short_and_true(value: float, decimals: int, sign: bool) -> None:
    written = number(value, decimals, sign=sign)
    assert len(written) <= 15
    if math.isfinite(value):
        assert float(written) == pytest.approx(value, rel=0.006, abs=0.51 * 10**-decimals)
        assert not written.startswith("-0") or float(written) != 0
    else:
        assert written == "n/a"


def test_a_column_has_as_many_digits_as_mean_something() -> None:
    assert decimals_of([0.4, 0.0004], share=True) == 3
    assert decimals_of([34.5, 120.0], share=False) == 1
    assert decimals_of([0.0044, 0.5], share=False) == 5
    assert decimals_of([], share=False) == 3
    assert number(0.0044, 5) == "0.00440"
    assert number(1.2345e42, 3) == "1.23e+42"
    assert number(-0.0001, 3, sign=True) == "0.000"


def test_an_absurd_answer_does_not_fill_the_page(tmp_path: Path) -> None:
    references = [str(place) for place in range(20)]
    answered_run(tmp_path, "a", 0, references, ["1e42", *references[1:]], kind="regression")
    cell = shown(build_table(read_runs([tmp_path]), "strict"))["a"]["mae"]
    assert cell.startswith("5.00e+40")
    assert len(cell) < 40


# Forms that no name can break

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</td></table><script>alert(1)</script>",
    "a|b||c",
    "[x](javascript:alert(1))",
    "**bold** _it_ `code` ~~gone~~",
    r"\input{/etc/passwd} \end{tabular} $x$ % & # _ ^ ~ {",
    "&lt;b&gt; &amp; &#60;",
    "line\nbreak\r\n| x |",
    "a -- b --- c \"q\" 'r' ``t``",
    "中文 Ünïcode ✓ \u202e reversed \x00 \x1b[31m",
    "![i](http://example.org/i.png)",
    "- 1. # > + *",
)


class Elements(HTMLParser):
    """What elements and texts HTML has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def hostile_table(runs: Path, names: Sequence[str]) -> Any:
    for place, name in enumerate(names):
        (folder,) = labelled(runs, f"cell{place}", [0.5 + place / 30])
        result = json.loads((folder / "result.json").read_text())
        write_json(folder / "result.json", {**result, "name": name})
    return requested_table(read_runs([runs]), TableRequest(title=names[0], notes=tuple(names)))


def elements(html: str) -> Elements:
    found = Elements()
    found.feed(html)
    return found


def test_html_shows_every_name_as_text(tmp_path: Path) -> None:
    table = hostile_table(tmp_path, HOSTILE)
    found = elements(as_text(table, "html"))
    assert found.tags <= {
        *("div", "table", "caption", "thead", "tbody", "tr", "th", "td", "small", "strong", "ul", "li")
    }
    assert found.attributes <= {"class", "role", "tabindex", "aria-label", "scope", "colspan", "rowspan", "data-value"}
    for name in HOSTILE:
        assert name in found.texts
    page = as_file(table, "html")
    assert "<img" not in page
    assert "default-src 'none'" in page
    assert 'href="http' not in page


def test_markdown_shows_every_name_as_text(tmp_path: Path) -> None:
    table = hostile_table(tmp_path, HOSTILE)
    rendered = (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(as_text(table, "markdown"))
    )
    found = elements(rendered)
    assert found.tags <= {"p", "table", "thead", "tbody", "tr", "th", "td", "strong", "ul", "li"}
    texts = [" ".join(text.split()) for text in found.texts]
    for name in HOSTILE:
        wanted = " ".join(name.replace("\x00", "\ufffd").split())
        assert any(wanted in text for text in texts), name
    assert rendered.count("<tr>") == 1 + len(HOSTILE)


@given(st.text(max_size=60))
def test_text_survives_markdown(text: str) -> None:
    joined = " ".join(text.split()).replace("\x00", "\ufffd")
    source = f"| a | b |\n|---|---|\n| x{plain(text)} | y |\n"
    rendered = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(source)
    found = elements(rendered)
    assert found.tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert f"x{joined}".strip() in {"".join(found.texts[place : place + 1]) for place in range(len(found.texts))}


COMMAND = re.compile(
    r"\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textasciigrave|textquotedbl|dag|ddag|"
    r"ldots)\{\}|\\[&%$#_{}]|\$(?:\\pm|-|\\times|\\Delta|\\uparrow|\\downarrow|\\leq|\\geq)\$|-\{\}"
)


@given(st.text(max_size=60))
def test_latex_holds_nothing_but_known_commands_and_harmless_characters(text: str) -> None:
    left = COMMAND.sub("", tex(text))
    assert not re.search(r"[\\&%$#_{}^\"`<>|\x00-\x1f\x7f]", left), left
    assert "~" not in left.replace("~", "", text.count("\u00a0"))


def test_latex_rows_have_as_many_cells_as_columns(tmp_path: Path) -> None:
    table = hostile_table(tmp_path, HOSTILE)
    latex = as_text(table, "latex")
    columns = len(cells_of(table)[0])
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + 2 * len(HOSTILE)
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == columns - 1
        assert not row.startswith(("[", "*"))
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")
    assert re.findall(r"\\(begin|end)\{(\w+)\}", latex) == [
        *(("begin", "table"), ("begin", "tabular"), ("end", "tabular")),
        *(("begin", "minipage"), ("end", "minipage"), ("end", "table")),
    ]
    assert r"\input" not in latex


def test_json_has_the_same_figures(tmp_path: Path) -> None:
    labelled(tmp_path, "one", [0.9, 0.8, 0.7])
    table = build_table(read_runs([tmp_path]), "strict")
    found = json.loads(as_text(table, "json"))
    assert found["protocol"] == "strict@1"
    value = found["parts"][0]["rows"][0]["metrics"]["accuracy"]
    expected = table.rows[0].metrics["accuracy"]
    assert expected is not None
    assert value["mean"] == pytest.approx(expected.mean, rel=1e-7)
    assert value["sd"] == pytest.approx(expected.sd, rel=1e-7)
    assert value["n"] == 3


# The command


def test_the_command_writes_the_form_of_the_file_s_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(tmp_path / "runs", "one", [0.9])
    labelled(tmp_path / "runs", "other", [0.5])
    where = str(tmp_path / "runs")
    for ending, begins in ((".md", "property on"), (".tex", "% needs "), (".html", "<!doctype"), (".json", "{")):
        assert _status(["tables", where, "-o", str(tmp_path / f"t{ending}")]) == 0
        assert (tmp_path / f"t{ending}").read_text().lower().startswith(begins.lower())
    capsys.readouterr()
    assert _status(["tables", where, "--compare-to", "other", "--metrics", "accuracy,f1"]) == 0
    assert "Δ" in capsys.readouterr().out
    assert _status(["tables", where, "--format", "docx"]) == 2
    assert "markdown, latex, html, json" in capsys.readouterr().err


def test_the_command_knows_studies_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(tmp_path)
    assert _status(["tables", "mine", "--runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.index("other") < out.index("broken") < out.index("planned")
    assert _status(["tables", "mine", "--runs", str(tmp_path), "--protocol", "molt5"]) == 2
    assert "no run was scored by protocol 'molt5'" in capsys.readouterr().err


def test_external_predictions_are_marked_and_compared(tmp_path: Path) -> None:
    labelled(tmp_path, "ours", [0.6])
    (other,) = labelled(tmp_path, "theirs", [0.95])
    result = json.loads((other / "result.json").read_text())
    (entry,) = result["evaluations"]
    entry = {**entry, "graph_input": None, "generation": None, "reliance": {"value": None, "reason": "external"}}
    nothing = dict.fromkeys(("seed", "parameters", "training_seconds", "encoder", "projector", "llm"))
    left = {key: result[key] for key in ("name", "cell_id")}
    write_json(other / "result.json", {**left, **nothing, "external": True, "stages": [], "evaluations": [entry]})
    table = build_table(read_runs([tmp_path]), "strict")
    rows = by_name(table)
    assert rows["theirs"].external
    assert rows["theirs"].metrics["accuracy"].best
    cells = shown(table)
    assert cells["theirs (external)"]["seeds"] == cells["theirs (external)"]["trained parameters"] == "n/a"
    assert any("theirs: predictions of another system" in note for note in table.notes)


def test_the_plots_of_a_table_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    for name, share in (("one", 0.9), ("other", 0.6)):
        labelled(runs, name, [share], gains=[share - 0.5 + place / 100 for place in range(30)])
    drawn = tmp_path / "drawn"
    assert _status(["tables", str(runs), "--plots", str(drawn)]) == 0
    names = {"differences", "learning", "parameters", "reliance", "seconds"}
    assert {file.name for file in drawn.iterdir()} == {
        f"table-{name}.{end}" for name in names for end in ("svg", "png")
    }
    assert "no plot gates:" in capsys.readouterr().err
