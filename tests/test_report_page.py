"""The page of a report in a real browser: what it says, that it works, and that no text of a run becomes markup."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_study import HOSTILE, HOSTILE_SVG, IMAGE, Written, write_study
from webdriver import Browser, is_absent

from results.report import as_html, build_report, read_source

PHONE, DESKTOP = 390, 1280
ENTER = "\ue007"
SCREENSHOTS = "MOLGRAFT_BROWSER"
"""A folder, where somebody wants to look at the page."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose every text is hostile: names of cells, its question, prompts, answers, SMILES, facts, settings."""
    runs = tmp_path_factory.mktemp("runs")
    extra = {
        "m001": {"reference": HOSTILE, "answer": HOSTILE, "prompt": HOSTILE},
        "m002": {"molecules": [HOSTILE]},
        "m003": {"answer": "word " * 3000},
    }
    cells = {"good": 0.9, IMAGE: 0.6, "poor": 0.5}
    tables = [{"title": f"All metrics {IMAGE}"}, {"title": "METEOR alone", "metrics": ["meteor"], "reference": "poor"}]
    gains = {"good": 0.05, IMAGE: 0.0}
    study = Written(cells, n=60, extra=extra, gains=gains, tables=tables, question=f"Is it better? {HOSTILE}")
    folders = write_study(runs, study)
    poison(runs, folders)
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(as_html(build_report(read_source(study.name, runs))), encoding="utf-8")
    return file


def poison(runs: Path, folders: list[Path]) -> None:
    """Hostile texts in what a run says of itself, a hostile depiction, and a run that failed with a hostile message."""
    import gzip
    import json

    manifest = json.loads((folders[0] / "manifest.json").read_text())
    manifest["sessions"][0]["processor"] = HOSTILE
    manifest["prompts"][0]["prompt"] = HOSTILE
    (folders[0] / "manifest.json").write_text(json.dumps(manifest))
    config = json.loads((folders[0] / "config.yaml").read_text())
    config["projector"][HOSTILE] = HOSTILE
    (folders[0] / "config.yaml").write_text(json.dumps(config))
    (folders[-1] / "result.json").unlink()
    status = {"state": "failed", "error": "oom", "message": HOSTILE}
    (folders[-1] / "status.json").write_text(json.dumps(status))
    (facts,) = (runs / ".examples").glob("*.jsonl.gz")
    rows = [json.loads(line) for line in gzip.decompress(facts.read_bytes()).splitlines()]
    for row in rows:
        if row["example_id"] == "m001":
            row["molecules"][0] |= {"svg": HOSTILE_SVG, "groups": [HOSTILE], "smiles": HOSTILE}
    text = "".join(json.dumps(row) + "\n" for row in rows)
    facts.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def driver() -> None:
    """Wherever there is a chromedriver; CI must have one."""
    if is_absent():
        pytest.skip("there is no chromedriver")


@pytest.fixture(params=[("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE), ("dark", PHONE)], ids=str)
def opened(request: pytest.FixtureRequest, driver: None, page: Path) -> Iterator[tuple[Browser, str, int]]:
    scheme, width = request.param
    with Browser(dark=scheme == "dark") as browser:
        resize(browser, width, 1000)
        browser.open(page.as_uri())
        browser.wait_for("document.querySelectorAll('#cards article').length > 0")
        yield browser, scheme, width


def resize(browser: Browser, width: int, height: int) -> None:
    """Also narrower than a window may be."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
    browser._call("POST", f"{browser._session}/goog/cdp/execute", command)


def is_dark(browser: Browser) -> bool:
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", background)[:3])) < 300


def text_of(browser: Browser, selector: str) -> str:
    return str(browser.run(f"return document.querySelector({selector!r}).textContent"))


def test_the_page_is_whole_at_every_width_in_both_themes(opened: tuple[Browser, str, int], tmp_path: Path) -> None:
    browser, scheme, width = opened
    assert is_dark(browser) == (scheme == "dark")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return document.querySelectorAll('#results-0 svg.plot').length") >= 5
    headings = browser.run("return [...document.querySelectorAll('h2')].map((h) => h.textContent)")
    assert [heading.startswith("Results: ") for heading in headings[:2]] == [True, True]
    assert headings[2:] == [
        "Is the graph used?",
        "Examples",
        "What failed",
        "Recipe",
        "Provenance",
        "Run it again",
    ]
    anchors = "return [...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))"
    assert browser.run(anchors)
    chosen = os.environ.get(SCREENSHOTS)
    if chosen and Path(chosen).is_dir():
        height = int(browser.run("return document.documentElement.scrollHeight"))
        resize(browser, width, min(height, 15_000))
        browser.screenshot(Path(chosen) / f"report-{scheme}-{width}.png")
    assert browser.complaints() == []
    assert not [url for url in browser.requested() if not url.startswith(("file:", "data:"))]


def test_no_text_of_a_run_becomes_markup(opened: tuple[Browser, str, int]) -> None:
    browser, _, _ = opened
    browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
    assert HOSTILE.split("\u2028")[0] in text_of(browser, ".question")
    assert IMAGE in text_of(browser, "#results-0")
    for section in ("failures", "recipe", "provenance"):
        assert IMAGE in text_of(browser, f"#{section}")
    # The hostile example, by every cell: prompt, reference, answer, SMILES, groups, depiction.
    browser.type_into("#find-example", "m001")
    browser.wait_for("document.querySelectorAll('#cards article').length == 1")
    for cell in range(3):
        browser.run(
            f"const s = document.getElementById('which-cell'); s.value = {cell}; s.dispatchEvent(new Event('change'))"
        )
        browser.run("for (const one of document.querySelectorAll('details')) one.open = true")
        shown = text_of(browser, "#cards article")
        assert shown.count(IMAGE) >= 5
    strange = "script:not([type]), iframe, object, embed, link[rel=stylesheet], [onerror], [onload], foreignObject"
    assert browser.run(f"return document.querySelectorAll('main :is({strange})').length") == 0
    assert browser.run("return [...document.images].every((i) => i.src.startsWith('data:image/svg+xml,'))")
    drawn = browser.run("return decodeURIComponent(document.querySelector('#cards img').src)")
    assert "<path" in drawn
    for word in ("script", "onload", "href", "example.invalid", "foreignObject", "style>"):
        assert word not in drawn
    browser.wait_for("[...document.images].every((i) => i.complete)")
    assert browser.run("return document.querySelector('#cards img').naturalWidth") > 0
    assert browser.complaints() == []
    assert not [url for url in browser.requested() if not url.startswith(("file:", "data:"))]


def test_the_theme_switch_turns_page_and_depictions(opened: tuple[Browser, str, int]) -> None:
    browser, scheme, _ = opened
    before = browser.run("return document.querySelector('#cards img').src")
    ink = browser.run("return getComputedStyle(document.querySelector('svg.plot text, svg.plot path')).color")
    browser.click("#theme")
    assert is_dark(browser) == (scheme != "dark")
    assert browser.run("return document.querySelector('#cards img').src") != before
    assert browser.run("return getComputedStyle(document.querySelector('svg.plot')).color") != ink
    browser.click("#theme")
    assert is_dark(browser) == (scheme == "dark")
    assert browser.run("return document.querySelector('#cards img').src") == before


def names_shown(browser: Browser) -> list[str]:
    found: list[str] = browser.run("return [...document.querySelectorAll('#cards h3')].map((h) => h.textContent)")
    return found


def choose(browser: Browser, control: str, label: str) -> None:
    """By its text, as somebody who reads the page would."""
    found = browser.run(
        f"const s = document.getElementById('{control}');"
        f"const o = [...s.options].find((o) => o.textContent.startsWith({label!r}));"
        "if (!o) return false; s.value = o.value; s.dispatchEvent(new Event('change')); return true"
    )
    assert found, label


def test_examples_can_be_browsed(driver: None, page: Path) -> None:
    with Browser() as browser:
        browser.open(page.as_uri())
        browser.wait_for("document.querySelectorAll('#cards article').length == 6")
        worst = names_shown(browser)
        values = browser.run("return [...document.querySelectorAll('#cards .chips .main')].map((c) => c.textContent)")
        scores = [float(value.split()[-1]) for value in values]
        assert scores == sorted(scores)
        browser.type_into(".turn button:last-child", ENTER)
        browser.wait_for("document.querySelectorAll('#cards article').length == 4")
        assert not set(worst) & set(names_shown(browser))
        assert text_of(browser, ".status").startswith("Examples 7\u201310 of 10. Answers are those of seed 0")
        browser.type_into(".turn button:first-child", ENTER)
        browser.wait_for("document.querySelectorAll('#cards article').length == 6")
        assert names_shown(browser) == worst
        assert "nearest training molecule: Tanimoto 0." in text_of(browser, "#cards article")
        choose(browser, "which-list", "Best answers")
        best = names_shown(browser)
        assert not set(worst) & set(best)
        choose(browser, "which-list", "Drawn at random")
        drawn = names_shown(browser)
        choose(browser, "which-cell", IMAGE)
        assert names_shown(browser) == drawn  # the list is kept, and of all cells the same
        choose(browser, "which-list", "Most helped by their own graph")
        gains = browser.run("return [...document.querySelectorAll('#cards .chips')].map((c) => c.textContent)")
        assert all("nats/token" in gain for gain in gains)
        assert browser.run("return document.querySelectorAll('#cards .answer mark').length") > 0  # both answers differ
        choose(browser, "which-part", "METEOR alone")
        chosen = browser.run("return document.querySelector('#cards .chips .main').textContent")
        assert chosen.startswith("meteor")
        choose(browser, "which-cell", "poor")  # its graph was never swapped
        lists = browser.run("return [...document.getElementById('which-list').options].map((o) => o.textContent)")
        assert not [name for name in lists if "graph" in name]
        assert browser.complaints() == []


def test_a_long_answer_is_cut_and_says_so(driver: None, page: Path) -> None:
    with Browser() as browser:
        browser.open(page.as_uri())
        browser.wait_for("document.querySelectorAll('#cards article').length > 0")
        browser.type_into("#find-example", "m003")
        browser.wait_for("document.querySelectorAll('#cards article').length == 1")
        assert "[cut: 11,000 more letters]" in text_of(browser, "#cards article")
        assert "too long to be shown whole" in text_of(browser, "#examples")
