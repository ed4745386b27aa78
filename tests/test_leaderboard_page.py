"""The leaderboard's page in a real browser: it sorts, filters, compares, turns dark, and asks nobody for anything."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scored_runs import random_values, scored_run
from webdriver import Browser, is_absent

from results.leaderboard import Leaderboard, as_html, build
from results.runs import read_runs
from results.scores import example_scores
from results.statistics import paired

MINUS = "\u2212"
NOTHING = "\u2013"
HOSTILE = "<img src=x onerror=alert(1)>"
LONG = "an-encoder-with-a-name-that-goes-on-and-on/and-a-projector-with-another-that-does-not-end-either-" * 2
WITH_BROWSER = "MOLGRAFT_BROWSER"
N = 400
SKILLS = {"gin-linear": 0.06, "gin-qformer": 0.05, HOSTILE: 0.04, "text only": 0.0}

needs_browser = pytest.mark.skipif(is_absent(), reason="opens a real browser, which needs Chromium and chromedriver")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Captions by four cells of several seeds, the predictions of another system, and a regression."""
    folder = tmp_path_factory.mktemp("runs")
    for number, (name, skill) in enumerate(SKILLS.items()):
        for seed in range(1 if name == "text only" else 3):
            values = {"rouge-l": random_values(N, 50 + seed), "meteor": random_values(N, 10 * number + seed, skill)}
            summary = {
                "encoder": name.partition("-")[0],
                "projector": "linear",
                "llm": "tiny" if number else "Galactica-1.3b",
                "parameters": {"total": {"llm": 10**7}, "trained_sum": 10 ** (number + 3)},
            }
            scored_run(folder, name, values, seed=seed, summary=summary)
    other = {"meteor": random_values(N, 77, 0.2), "rouge-l": random_values(N, 78)}
    unknown: dict[str, Any] = {"external": True, "seed": None, "encoder": None, "projector": None, "llm": None}
    scored_run(folder, LONG, other, summary={**unknown, "parameters": None, "stages": None, "training_seconds": None})
    few = {"mae": [0.5, 2.0, 10.0, None], "rmse": [0.25, 4.0, 100.0, None]}
    asked = {"task": "property-regression", "answer": "regression", "data": "esol", "examples_id": "esol"}
    for name, shift in (("small", 0.0), ("large", 1.0)):
        shifted = {metric: [v if v is None else v + shift for v in column] for metric, column in few.items()}
        scored_run(folder, name, shifted, entry=asked)
    failed = folder / "broken-s0-1"
    failed.mkdir()
    (failed / "status.json").write_text(json.dumps({"state": "failed", "error": "nan"}))
    return folder


@pytest.fixture(scope="module")
def leaderboard(runs: Path) -> Leaderboard:
    return build(read_runs([runs]))


@pytest.fixture(scope="module")
def page(runs: Path, leaderboard: Leaderboard) -> Path:
    file = runs.parent / "leaderboard.html"
    file.write_text(as_html(leaderboard, f"Leaderboard {HOSTILE}"), encoding="utf-8")
    return file


@pytest.fixture
def browser(page: Path) -> Iterator[Browser]:
    with Browser(width=1280, height=1000) as opened:
        show(opened, page)
        yield opened
        quiet(opened, page)


def show(browser: Browser, page: Path, fragment: str = "") -> None:
    browser.open("about:blank")
    browser.open(page.as_uri() + fragment)
    browser.wait_for("document.documentElement.dataset.ready")


def quiet(browser: Browser, page: Path) -> None:
    """No error or warning in the console, and no request but for the page itself."""
    assert browser.complaints() == []
    asked = [url for url in browser.requested() if not url.startswith(("data:", "blob:", "about:"))]
    assert {url.partition("#")[0] for url in asked} == {page.as_uri()}


def names(browser: Browser) -> list[str]:
    found: list[str] = browser.run("return [...document.querySelectorAll('#rows .called')].map(e => e.textContent)")
    return found


def pictures_of(otherwise: Path) -> Path:
    """Where pictures for people go: the folder that is named, if one is."""
    chosen = Path(os.environ.get(WITH_BROWSER, ""))
    return chosen if chosen.is_dir() and chosen.name else otherwise


def texts(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(
        f"return [...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
    )
    return found


def choose(browser: Browser, select: str, value: str) -> None:
    browser.run(
        f"const one = document.getElementById({json.dumps(select)}); one.value = {json.dumps(value)};"
        "if (one.value !== arguments[0] && one.selectedIndex < 0) throw new Error('no such option');"
        "one.dispatchEvent(new Event('change'))"
    )


@needs_browser
def test_rows_are_ranked_and_sorted_by_any_column(browser: Browser) -> None:
    assert names(browser) == [LONG, "gin-linear", "gin-qformer", HOSTILE, "text only"]
    assert texts(browser, "#rows .rank")[1:] == ["1", "2", "3", "4", "5"]
    assert browser.run("return document.querySelector('[aria-sort]').textContent") == "METEOR"
    browser.click("#rows thead button[data-key=trained]")
    assert browser.run("return document.querySelector('[data-key=trained]').parentElement.ariaSort") == "ascending"
    assert names(browser) == ["gin-linear", "gin-qformer", HOSTILE, "text only", LONG]  # what is unknown comes last
    browser.click("#rows thead button[data-key=trained]")
    assert names(browser) == ["text only", HOSTILE, "gin-qformer", "gin-linear", LONG]
    assert texts(browser, "#rows .rank")[1:] == ["5", "4", "3", "2", "1"]  # still by METEOR
    assert len(browser.run("return [...document.querySelectorAll('[aria-sort]')].map(e => e.ariaSort)")) == 1
    browser.click("#rows thead button[data-key=rouge-l]")
    assert "ranked by ROUGE-L, larger is better" in texts(browser, "#count")[0]
    assert texts(browser, "#rows .rank")[1] == "1"
    browser.click("#rows thead button[data-key=name]")
    assert names(browser) == [HOSTILE, LONG, "gin-linear", "gin-qformer", "text only"]


@needs_browser
def test_rows_are_filtered_and_the_address_keeps_the_view(browser: Browser, page: Path) -> None:
    browser.type_into("#search", "gin qf")
    assert names(browser) == ["gin-qformer"]
    assert texts(browser, "#count")[0].startswith("1 of 5 rows")
    assert texts(browser, "#rows .rank")[1] == "3"  # among all rows, not among those that are shown
    browser.click("#reset")
    browser.wait_for("document.querySelectorAll('#rows tbody tr').length === 5")
    choose(browser, "llm", "Galactica-1.3b")
    assert names(browser) == ["gin-linear"]
    choose(browser, "llm", "")
    choose(browser, "origin", "external")
    assert names(browser) == [LONG]
    assert texts(browser, "#rows .badge") == ["external"]
    choose(browser, "origin", "")
    browser.type_into("#most", "100k")
    assert names(browser) == ["gin-linear", "gin-qformer", HOSTILE]
    browser.type_into("#most", "x")
    assert browser.run("return document.getElementById('most').getAttribute('aria-invalid')") == "true"
    assert len(names(browser)) == 5
    browser.run(
        "const most = document.getElementById('most'); most.value = '10K'; most.dispatchEvent(new Event('input'))"
    )
    browser.click("#rows thead button[data-key=rouge-l]")
    shown = names(browser)
    assert len(shown) == 2
    browser.wait_for("location.hash.includes('most=10K') && location.hash.includes('sort=-rouge-l')")
    fragment = browser.run("return location.hash")
    show(browser, page, fragment)
    assert names(browser) == shown
    assert "ranked by ROUGE-L" in texts(browser, "#count")[0]


@needs_browser
def test_each_board_is_ranked_by_its_own(browser: Browser) -> None:
    choose(browser, "task", "property-regression")
    assert texts(browser, "#board-title") == ["property-regression on esol, test"]
    assert names(browser) == ["small", "large"]  # errors: the smaller is the better
    assert texts(browser, "#rows thead button")[:3] == ["Name", "MAE", "RMSE"]
    assert "ranked by MAE, smaller is better" in texts(browser, "#count")[0]
    choose(browser, "task", "caption")
    assert texts(browser, "#board-title") == ["caption on bundled, test"]
    assert texts(browser, ".foot details li") == ["broken-s0-1 nan"]


@needs_browser
def test_hostile_names_are_text(browser: Browser) -> None:
    assert browser.run("return document.title") == f"Leaderboard {HOSTILE}"
    assert texts(browser, "h1") == [f"Leaderboard {HOSTILE}"]
    assert HOSTILE in names(browser)
    compare(browser, HOSTILE, LONG)
    assert texts(browser, ".sides dd") == [HOSTILE, LONG]
    assert browser.run("return document.querySelectorAll('img').length") == 0
    handlers = "[...e.attributes].some(a => a.name.startsWith('on'))"
    assert browser.run(f"return [...document.querySelectorAll('*')].some(e => {handlers})") is False


def compare(browser: Browser, first: str, second: str) -> str:
    for name in (first, second):
        wanted = json.dumps(f"Compare {name}")
        browser.run(f"[...document.querySelectorAll('#rows input')].find(e => e.ariaLabel === {wanted}).click()")
    browser.click("#compare")
    browser.wait_for("document.querySelector('#comparison[open] #verdict')")
    return texts(browser, "#verdict")[0]


@needs_browser
def test_the_paired_test_is_that_of_the_statistics(browser: Browser, runs: Path) -> None:
    """Of all pairs of rows, difference, p, interval and counts, but for the chance of 9,999 resamples."""
    cells: dict[str, list[Any]] = {}
    for run in read_runs([runs]):
        entries = run.summary.get("evaluations", [])
        if entries and entries[0]["task"] == "caption":
            scores = example_scores(run, entries[0]["scores"][0])
            assert scores is not None
            cells.setdefault(run.name, []).append(scores.basis["meteor"])
    compare(browser, "gin-linear", "text only")
    browser.click("#close")
    for first, second in itertools.combinations(cells, 2):
        browser.click("#clear")
        said = compare(browser, first, second)
        browser.click("#close")
        numbers = re.search(r"METEOR (\S+), 95% interval (\S+) to (\S+), p (=|≤) (\d\.\d+)", said)
        assert numbers is not None, said
        difference, low, high = (float(numbers[place].replace(MINUS, "-")) for place in (1, 2, 3))
        ours = paired(cells[first], cells[second])
        assert ours.ci95 is not None
        assert ours.p is not None
        assert difference == pytest.approx(ours.difference, abs=6e-4)
        assert (low, high) == pytest.approx(ours.ci95, abs=1.2e-3)
        # Five standard errors of the difference of two shares of 10,000.
        assert abs(float(numbers[5]) - ours.p) < 5 * (2 * max(ours.p, 1e-4) * (1 - ours.p) / 1e4) ** 0.5 + 5e-4
        better = ours.p < 0.05
        assert said.startswith("A is better" if better and difference > 0 else "A is worse" if better else "No diff")


@needs_browser
def test_few_examples_are_tested_exactly(browser: Browser) -> None:
    choose(browser, "task", "property-regression")
    said = compare(browser, "small", "large")
    # Three of four examples have values; all differ by 1: 2 of 8 sign patterns are as extreme.
    one = f"{MINUS}1.000"
    shared = "the 3 of 4 examples that have a value in both"
    assert said == f"No difference is shown between A and B on {shared}: MAE {one}, p = 0.250."  # and no interval
    assert texts(browser, "#comparison-body > div > p")[1].startswith("Of these 3 examples A is better on 3, B on 0")


def compared_rows(browser: Browser) -> dict[str, list[str]]:
    """The lines of the comparison's first table."""
    cells = "[...document.querySelectorAll('#comparison table')[0].rows].map(r => [...r.cells].map(c => c.textContent))"
    lines: list[list[str]] = browser.run(f"return {cells}")
    return {name: values for name, *values in lines[1:]}


@needs_browser
def test_missing_examples_and_seeds_are_said(tmp_path: Path) -> None:
    """Rows are compared on the examples that both have, and a mean of some seeds has no place."""
    easy, hard, seeds = [0.1003 + n / 1000 for n in range(20)], [1.0] * 20, (0, 1, 2)
    asked = {"task": "property-regression", "answer": "regression"}
    columns = {
        "easy": [*easy, *[None] * 20],
        "whole": [*(value / 2 for value in easy), *hard],
        "alike": [*(value + 0.01 * (-1) ** n for n, value in enumerate(easy)), *hard],
        "worse": [*(3 * value for value in easy), *hard],
        "other half": [*[None] * 20, *hard],
    }
    for name, column in columns.items():
        scored_run(tmp_path, name, {"mae": column}, corpus={"r2": 0.5}, entry=asked)
    for seed in seeds:
        undefined = {"mae": None, "r2": None} if seed == 1 else {"r2": 0.9}
        scored_run(tmp_path, "lucky", {"mae": [0.01] * 40}, corpus=undefined, seed=seed, entry=asked)
    file = tmp_path / "missing.html"
    file.write_text(as_html(build(read_runs([tmp_path]))), encoding="utf-8")
    with Browser(width=1280, height=1000) as browser:
        show(browser, file)
        browser.screenshot(pictures_of(tmp_path) / "leaderboard-missing.png")
        assert names(browser) == ["easy", "whole", "alike", "worse", "other half", "lucky"]
        assert texts(browser, "#rows .rank")[1:] == ["1", "2↑", "3≈", "4", "5?", f"{NOTHING}?"]
        marks = browser.run("return [...document.querySelectorAll('#rows .level')].map(e => e.ariaLabel)")
        shared = "on the 20 examples that have a value in both"
        assert marks == [
            f"better than the first: 0.055 against 0.110 {shared}",
            f"not told apart from the first: 0.110 against 0.110 {shared}",
            *["not tested against the first"] * 2,
        ]
        (said,) = texts(browser, "#level")
        assert "The first is told apart" not in said
        for part in ("≈ not told", "↑ better", "? not tested", "Ranks are by each row's own mean"):
            assert part in said
        assert texts(browser, "#board-notes li") == [
            "Means of some seeds only have no rank and take part in no test: lucky in r2, mae: 2 of 3 seeds "
            "(seed 1: no answer is a number)."
        ]
        verdict = compare(browser, "easy", "whole")
        assert verdict.startswith(
            "A is worse than B on the 20 of 40 examples that have a value in both: MAE +0.055, 95%"
        )
        lines = compared_rows(browser)
        assert lines["MAE (smaller is better)"] == ["0.110", "0.527", f"{MINUS}0.418"]
        assert lines["MAE on the 20 of 40 examples that have a value in both"] == ["0.110", "0.055", "+0.055"]
        assert texts(browser, "#comparison td.ahead") == ["0.055"]  # what was tested, not the means of other examples
        browser.screenshot(pictures_of(tmp_path) / "leaderboard-missing-compare.png")
        browser.click("#close")
        browser.click("#clear")
        assert compare(browser, "easy", "other half") == "No example has a value in both rows."
        browser.click("#close")
        browser.click("#clear")
        verdict = compare(browser, "easy", "lucky")
        assert verdict == "No paired test: MAE is of 2 of 3 seeds only (seed 1: no answer is a number)."
        assert compared_rows(browser)["R²"] == ["0.500", "0.900 (2 of 3 seeds)", NOTHING]
        browser.click("#close")
        for _ in range(2):  # last in either direction, for it has no place
            browser.click("#rows thead button[data-key=r2]")
            assert names(browser)[-1] == "lucky"
            assert texts(browser, "#rows .rank")[-1] == NOTHING
        assert texts(browser, "#rows tbody tr:last-child td.number small") == ["2 of 3 seeds"] * 2
        quiet(browser, file)


@needs_browser
def test_a_row_that_was_not_tested_is_not_said_to_be_told_apart(tmp_path: Path) -> None:
    scored_run(tmp_path, "best", {"meteor": [0.9] * 20})
    scored_run(tmp_path, "worse", {"meteor": [0.1] * 20})
    for file in scored_run(tmp_path, "unknown", {"meteor": [0.5] * 20}).glob("scores/*.json"):
        file.unlink()
    page = tmp_path / "untested.html"
    page.write_text(as_html(build(read_runs([tmp_path]))), encoding="utf-8")
    with Browser(width=1280, height=1000) as browser:
        show(browser, page)
        assert texts(browser, "#rows .rank")[1:] == ["1", "2?", "3"]
        (said,) = texts(browser, "#level")
        assert said.startswith("The first is told apart from 1 of 2 other rows by a paired test of METEOR")
        assert "? not tested" in said


@needs_browser
def test_all_of_it_works_by_keyboard(browser: Browser) -> None:
    def press(key: str, times: int = 1) -> None:
        code = {"Tab": "\ue004", "Enter": "\ue007", "Space": "\ue00d", "Escape": "\ue00c"}[key]
        strokes = [{"type": kind, "value": code} for _ in range(times) for kind in ("keyDown", "keyUp")]
        browser.act([{"type": "key", "id": "keyboard", "actions": strokes}])

    def focused() -> str:
        described: str = browser.run(
            "const e = document.activeElement; return e.id || e.dataset.key || e.ariaLabel || e.tagName"
        )
        return described

    visited = []
    for _ in range(40):
        press("Tab")
        visited.append(focused())
        if visited[-1] == f"Compare {LONG}":
            break
    assert visited[0] == "A"  # the link that skips to the content
    assert [name for name in visited if name in ("theme", "task", "search", "csv", "scroll", "meteor")] == [
        "theme", "task", "search", "csv", "scroll", "meteor",
    ]  # fmt: skip
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert browser.run(outline) == "solid"
    press("Space")
    press("Tab", 2)
    assert focused() == "Compare gin-linear"
    press("Space")
    browser.run("document.getElementById('clear').focus()")
    press("Tab")
    assert focused() == "compare"
    press("Enter")
    browser.wait_for("document.querySelector('#comparison[open] #verdict')")
    assert focused() == "close"
    press("Escape")
    assert browser.run("return document.getElementById('comparison').open") is False
    assert focused() == "compare"
    browser.run("document.querySelector('[data-key=meteor]').focus()")
    press("Enter")
    assert focused() == "meteor"
    assert names(browser)[0] == "text only"


@needs_browser
def test_every_control_has_a_name_and_every_text_a_contrast(browser: Browser) -> None:
    unnamed = browser.run(
        "return [...document.querySelectorAll('button, input, select, [role=region], dialog, table, nav')].filter(e => "
        "!e.labels?.length && !e.ariaLabel && !e.textContent.trim() && !e.getAttribute('aria-labelledby'))"
        ".map(e => e.outerHTML)"
    )
    assert unnamed == []
    compare(browser, "gin-linear", "text only")
    for scheme in ("light", "dark"):
        browser.run(f"document.documentElement.dataset.theme = '{scheme}'")
        assert browser.run(CONTRASTS) == []


# The texts whose contrast to what is behind them is below WCAG's AA (4.5, or 3 where they are large).
CONTRASTS = """
const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (colour) => colour.slice(0, 3).map((v) => linear(v / 255))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => {
  for (; e; e = e.parentElement) {
    const found = rgb(getComputedStyle(e).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), wrong = [];
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const e = node.parentElement, style = getComputedStyle(e);
  if (!node.textContent.trim() || !e.checkVisibility()) continue;
  if (e.closest('script, style, .unseen, :disabled, .skip')) continue;
  const [a, b] = [light(rgb(style.color)), light(behind(e))].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if ((a + 0.05) / (b + 0.05) < (isLarge ? 3 : 4.5)) wrong.push([node.textContent, style.color, behind(e).join()]);
}
return wrong;
"""


@needs_browser
def test_what_is_downloaded_is_what_is_shown(browser: Browser) -> None:
    browser.run(
        "window.texts = []; const make = URL.createObjectURL; URL.createObjectURL = (blob) => {"
        "blob.text().then((text) => window.texts.push(text)); return make(blob); }"
    )
    browser.type_into("#search", "gin")
    browser.click("#csv")
    browser.wait_for("window.texts.length === 1")
    head, *lines = browser.run("return window.texts[0]").splitlines()
    assert head.startswith("rank,name,rouge-l,rouge-l sd,rouge-l low,rouge-l high,rouge-l seeds,meteor,")
    assert [line.split(",")[:2] for line in lines] == [["2", "gin-linear"], ["3", "gin-qformer"]]


@needs_browser
def test_the_theme_is_the_systems_until_another_is_chosen(page: Path) -> None:
    def is_dark(browser: Browser) -> bool:
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", background)[:3])) < 300

    for dark in (False, True):
        with Browser(dark=dark, width=1280, height=1000) as browser:
            show(browser, page)
            assert is_dark(browser) == dark
            pressed = "return document.getElementById('theme').getAttribute('aria-pressed')"
            assert browser.run(pressed) == str(dark).lower()
            browser.click("#theme")
            assert is_dark(browser) == (not dark)
            assert browser.run(pressed) == str(not dark).lower()
            show(browser, page)
            assert is_dark(browser) == (not dark)  # remembered
            quiet(browser, page)


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), list(itertools.product((390, 1280), ("light", "dark"))))
def test_it_fits_a_phone_and_a_desk(page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    """Nothing is wider than the window; pictures of it are for people."""
    pictures = pictures_of(tmp_path)
    with Browser(dark=scheme == "dark", width=1280, height=1000) as browser:
        browser.resize(width, 1400 if width < 500 else 1000)
        show(browser, page)
        assert browser.run("return innerWidth") == width
        assert browser.run("return document.documentElement.scrollWidth") <= width
        browser.screenshot(pictures / f"leaderboard-{width}-{scheme}.png")
        compare(browser, "gin-linear", LONG)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        edges = (
            "const box = document.getElementById('comparison').getBoundingClientRect(); return [box.left, box.right]"
        )
        left, right = browser.run(edges)
        assert 0 <= left < right <= width
        browser.screenshot(pictures / f"leaderboard-{width}-{scheme}-compare.png")
        quiet(browser, page)


@needs_browser
def test_many_rows_are_paged(tmp_path: Path) -> None:
    for number in range(120):
        scored_run(tmp_path, f"run {number:03d}", {"meteor": [number / 200, number / 200]}, cell=f"cell {number}")
    file = tmp_path / "many.html"
    file.write_text(as_html(build(read_runs([tmp_path]))), encoding="utf-8")
    with Browser(width=1280, height=1000) as browser:
        show(browser, file)
        assert len(names(browser)) == 50
        assert names(browser)[0] == "run 119"
        assert texts(browser, "#page") == ["1 of 3"]
        browser.click("#after")
        assert names(browser)[0] == "run 069"
        browser.click("#after")
        assert len(names(browser)) == 20
        assert browser.run("return document.getElementById('after').disabled") is True
        browser.wait_for("location.hash.includes('page=3')")
        show(browser, file, browser.run("return location.hash"))
        assert names(browser)[0] == "run 019"
        browser.type_into("#search", "run 00")
        assert len(names(browser)) == 11  # 000 to 009, and 100
        assert browser.run("return document.getElementById('pages').hidden") is True
        quiet(browser, file)


@needs_browser
def test_the_benchmark_of_many_runs_works(tmp_path: Path) -> None:
    program = Path(__file__).parents[1] / "benchmarks" / "leaderboard_scale.py"
    command = [sys.executable, str(program), str(tmp_path / "runs"), "--runs", "12", "--examples", "40"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r"built in [\d.]+ s .*page [\d.]+ MB", done.stdout)
    assert re.search(r"usable [\d,]+ ms; sort [\d,]+ ms; search [\d,]+ ms; compare [\d,]+ ms", done.stdout)


@needs_browser
def test_cells_that_came_to_the_same_have_no_axis(tmp_path: Path) -> None:
    for name, seed in itertools.product(("one", "two"), (0, 1)):  # two seeds have no interval
        scored_run(tmp_path, name, {"meteor": [0.5, 0.5]}, seed=seed, cell=name)
    file = tmp_path / "equal.html"
    file.write_text(as_html(build(read_runs([tmp_path]))), encoding="utf-8")
    with Browser(width=1280, height=1000) as browser:
        show(browser, file)
        assert texts(browser, "#spread-head") == ["METEOR, 95%"]
        assert names(browser) == ["one", "two"]
        quiet(browser, file)
