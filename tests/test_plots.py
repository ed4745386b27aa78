"""Plots: what is drawn is what was given, files are the same each time and refer to nothing, and all can be read."""

from __future__ import annotations

import hashlib
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import hypothesis
import matplotlib
import numpy as np
import plot_examples as examples
import pytest
from conftest import REPOSITORY
from hypothesis import strategies
from matplotlib.text import Text
from plot_examples import FIGURES, HOSTILE, drawn
from webdriver import is_absent

from results import plots
from results.page import Markup, document, own_file
from results.plots.axes import short_number, signed
from results.plots.heatmap import shade
from results.plots.style import label, labels, look
from results.runs import ResultsError

LINK = "{http://www.w3.org/1999/xlink}href"


@cache
def figure_of(name: str) -> Any:
    """An example, drawn once for all tests that only look at it."""
    return drawn(name)


@cache
def file_of(name: str) -> str:
    return plots.svg_file(figure_of(name))


@cache
def texts_of_example(name: str) -> list[tuple[Any, Any]]:
    return [(text, text.get_window_extent()) for text in texts_of(figure_of(name))]


def of_gid(figure: Any, gid: str) -> Any:
    (found,) = figure.findobj(lambda artist: artist.get_gid() == gid)
    return found


def texts_of(figure: Any) -> list[Any]:
    """All texts that can be seen."""
    figure.canvas.draw()
    hidden = set()
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            gap = 1e-9 * abs(limits[1] - limits[0])
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                # Ticks beyond the limits of an axis are kept for later and not drawn.
                if not min(limits) - gap <= tick.get_loc() <= max(limits) + gap:
                    hidden |= {tick.label1, tick.label2}
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


# Files


@pytest.mark.parametrize("name", [name for name in FIGURES if "many" not in name])
def test_equal_data_give_equal_bytes(name: str) -> None:
    again = drawn(name)
    assert plots.svg_file(again) == file_of(name)
    if "hostile" not in name:
        assert plots.png(again) == plots.png(drawn(name))


def test_bytes_are_equal_in_another_process_and_whatever_the_settings_of_a_notebook() -> None:
    chosen = ("cost", "gates", "reliance", "learning")
    script = (
        "import hashlib\nfrom plot_examples import drawn\nfrom results.plots import svg_file, png\n"
        f"for name in {chosen}: print(hashlib.sha256(svg_file(drawn(name)).encode() + png(drawn(name))).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests'}:{REPOSITORY}", "PYTHONHASHSEED": "77"}
    told = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    changed = {
        "font.size": 30,
        "lines.linewidth": 9,
        "axes.facecolor": "red",
        "svg.fonttype": "none",
        "axes.grid": True,
    }
    with matplotlib.rc_context(changed):
        ours = [hashlib.sha256(plots.svg_file(drawn(n)).encode() + plots.png(drawn(n))).hexdigest() for n in chosen]
    assert told.stdout.split() == ours


def test_settings_of_the_process_stay_and_no_window_toolkit_is_loaded() -> None:
    script = (
        "import matplotlib\nbefore = matplotlib.rcParams.copy()\nfrom plot_examples import drawn\n"
        "from results.plots import png, svg\nfor name in ('cost', 'sizes'): png(drawn(name)); svg(drawn(name))\n"
        "assert matplotlib.rcParams.copy() == before\nimport sys\nassert 'matplotlib.pyplot' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'tests'}:{REPOSITORY}"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_importing_plots_loads_nothing_heavy() -> None:
    script = "import sys, results.plots\nprint(sorted({'matplotlib', 'numpy', 'scipy'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FIGURES)
def test_an_svg_holds_no_script_no_style_and_no_reference_to_anything_outside(name: str) -> None:
    figure = figure_of(name)
    for text in (file_of(name), *([] if "many" in name else [plots.svg(figure)])):
        tree = ElementTree.fromstring(text)
        elements = list(tree.iter())
        kinds = {element.tag.rpartition("}")[2] for element in elements}
        assert kinds <= {"svg", "title", "g", "path", "use", "defs", "clipPath", "rect", "pattern"}
        ids = [element.get("id") for element in elements if element.get("id")]
        assert len(ids) == len(set(ids))
        for element in elements:
            assert element.get("style") is None
            assert not [key for key in element.attrib if key.startswith("on")]
            for key, value in element.items():
                if key == LINK or "url(" in value:
                    assert re.sub(r"^url\((.*)\)$", r"\1", value)[1:] in ids, (key, value)
                    assert value.startswith(("#", "url(#"))
        outside = set(re.findall(r"https?://[^\"' ]+", text))
        assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert "<!" not in text


def test_several_figures_fit_one_page() -> None:
    figures = [figure_of(name) for name in ("cost", "cost of one", "forest", "gates", "reliance")]
    page = "<body>" + "".join(plots.svg(figure) for figure in figures) + "</body>"
    ids = [element.get("id") for element in ElementTree.fromstring(page).iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert 'id="mine-figure_1"' in plots.svg(figures[0], "mine")
    assert "#figure" not in plots.svg(figures[0], "mine")


def test_a_figure_is_written_as_two_files_and_says_what_it_shows(tmp_path: Path) -> None:
    figure = figure_of("cost")
    files = plots.write(figure, tmp_path / "deep" / "bleu.2")
    assert [file.name for file in files] == ["bleu.2.svg", "bleu.2.png"]
    assert sorted(file.name for file in (tmp_path / "deep").iterdir()) == ["bleu.2.png", "bleu.2.svg"]
    assert files[1].read_bytes().startswith(b"\x89PNG")
    title = ElementTree.fromstring(files[0].read_text()).findtext("{http://www.w3.org/2000/svg}title")
    assert title == plots.described(figure)
    assert title.startswith("bleu-2 of 16 cells against trained parameters.")
    embedded = ElementTree.fromstring(plots.svg(figure))
    assert (embedded.get("role"), embedded.get("aria-label")) == ("img", plots.described(figure))


def test_neither_file_holds_a_date_a_version_or_a_path() -> None:
    figure = figure_of("forest")
    for content in (plots.svg_file(figure).encode(), plots.png(figure)):
        for unwanted in (b"atplotlib version", b"Software", b"dc:date", b"2026", str(REPOSITORY).encode()):
            assert unwanted not in content


@pytest.mark.parametrize("name", [name for name in FIGURES if "hostile" in name])
def test_what_a_cell_is_called_is_never_markup(name: str) -> None:
    figure = figure_of(name)
    for text in (plots.svg(figure), file_of(name)):
        assert "<img" not in text
        assert "<script" not in text
        ElementTree.fromstring(text)
    assert "onerror" in plots.described(figure)
    assert "\u202e" not in plots.described(figure)
    assert plots.png(figure).startswith(b"\x89PNG")


# Themes


def test_colours_of_a_figure_follow_the_page() -> None:
    light, dark = (plots.svg(drawn("learning", theme), "p") for theme in (plots.LIGHT, plots.DARK))
    # The same but for what stands where a page sets no variables, and ids that are made from it.
    told = [re.sub(r"-[mph][0-9a-f]{10}", "-id", re.sub(r", #\w{6}\)", ")", text)) for text in (light, dark)]
    assert told[0] == told[1]
    assert not re.findall(r'(?:fill|stroke)="#', light)
    used = set(re.findall(r"var\((--[\w-]+),", light))
    declared = set(re.findall(r"(--[\w-]+):", plots.page_css()))
    assert used <= declared
    assert {"--plot-ink", "--plot-paper", "--plot-series-1"} <= used


def test_the_dark_rules_hold_where_those_of_the_page_do() -> None:
    page = own_file(str(REPOSITORY / "results" / "page.py"), "page.css")
    for selector in (':root:not([data-theme="light"])', ':root[data-theme="dark"]', "prefers-color-scheme: dark"):
        assert selector in page
        assert selector in plots.page_css()
    assert "--ground" in page


@pytest.mark.skipif(is_absent(), reason="needs chromium and chromedriver")
def test_a_browser_draws_a_figure_in_the_colours_of_the_page(tmp_path: Path) -> None:
    from webdriver import Browser

    figures = Markup("".join(f"<figure>{plots.svg(figure_of(name))}</figure>" for name in ("cost", "cost, hostile")))
    (tmp_path / "page.html").write_text(document("Plots", figures, styles=[plots.page_css()]), encoding="utf-8")
    seen = "[...document.querySelectorAll('svg.plot [fill]')].map(e => getComputedStyle(e).fill)"
    with Browser() as browser:
        browser.open((tmp_path / "page.html").as_uri())
        light = browser.run(f"return {seen}")
        browser.click("#theme")
        dark = browser.run(f"return {seen}")
        for theme, colours in ((plots.LIGHT, light), (plots.DARK, dark)):
            expected = {
                f"rgb({', '.join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5))})" for c in (theme.ink, theme.dim)
            }
            assert expected <= set(colours)
        assert not set(light) & set(dark) - {"none"}
        assert browser.run("return document.querySelectorAll('img, svg script').length") == 0
        assert browser.complaints() == []


_SEEN_BY = {
    # Machado, Oliveira and Fernandes (2009), severity 1, on linear red, green and blue.
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def linear(colour: str) -> Any:
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(colour: Any) -> Any:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(colour, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK], ids=lambda theme: theme.name)
def test_colours_can_be_told_apart_and_seen(theme: plots.Theme) -> None:
    for matrix in _SEEN_BY.values():
        for a, b in combinations(theme.colours, 2):
            assert np.linalg.norm(lab(matrix @ linear(a)) - lab(matrix @ linear(b))) > 14
    assert all(contrast(colour, theme.paper) >= 3 for colour in theme.colours)
    assert all(contrast(colour, theme.paper) >= 4.5 for colour in (theme.ink, theme.dim))


def test_series_differ_in_more_than_colour() -> None:
    looks = [look(place, plots.LIGHT) for place in range(40)]
    assert len({(item.colour, item.marker) for item in looks}) == 40
    assert len({item.marker for item in looks[:11]}) == 11
    assert len({str(item.dashes) for item in looks[:5]}) == 5


def test_shades_of_a_heat_map_rise_in_grey_too() -> None:
    greys = [float(np.array(shade(value, (0, 1))) @ [0.2126, 0.7152, 0.0722]) for value in np.linspace(0, 1, 50)]
    assert all(low < high for low, high in pairwise(greys))


# Legibility


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_inside_the_figure_and_large_enough(name: str) -> None:
    whole = figure_of(name).bbox
    for text, box in texts_of_example(name):
        inside = whole.x0 - 1 <= box.x0 and box.x1 <= whole.x1 + 1 and whole.y0 - 1 <= box.y0 and box.y1 <= whole.y1 + 1
        assert inside, (text.get_text(), box, whole)
        assert text.get_fontsize() >= 5.5


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_another(name: str) -> None:
    # Of turned texts the boxes overlap although the letters do not.
    found = [(text.get_text(), box) for text, box in texts_of_example(name) if not text.get_rotation()]
    for (a, first), (b, second) in combinations(found, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(wide, high) < 2, (a, b)


@hypothesis.given(strategies.lists(strategies.text(max_size=80), max_size=12))
def test_labels_are_short_single_lines_and_equal_only_for_equal_names(names: list[str]) -> None:
    found = labels(names, 20)
    for a, b in combinations(range(len(names)), 2):
        assert (found[a] == found[b]) == (names[a] == names[b])
    for text in found:
        assert text
        assert len(text) <= 20 + len(" (12)")
        assert text.isprintable()


def test_names_keep_what_cells_differ_in() -> None:
    assert label("gin-linear") == "gin-linear"
    long = [f"the-same-long-beginning-of-a-name-that-says-much-{end}" for end in ("atoms", "graph")]
    assert [text[-5:] for text in labels(long)] == ["atoms", "graph"]
    assert labels(["a\nb", "a b"]) == ["a b (1)", "a b (2)"]
    assert label("\u5206\u5b50") == "\ufffd\ufffd"


def test_numbers_are_short() -> None:
    shown = [short_number(value) for value in (0, 850, 21_728, 1_200_000, 7e9, 999_960, 0.25)]
    assert shown == ["0", "850", "21.7k", "1.2M", "7B", "1M", "0.25"]
    assert [signed(value) for value in (0.0123, -0.5, 0.0, -0.0001)] == [
        "+0.012",
        "\N{MINUS SIGN}0.500",
        "0.000",
        "0.000",
    ]


# Score against cost


def points_of(figure: Any, filled: bool) -> list[tuple[float, float]]:
    end = "front" if filled else "rest"
    lines = figure.findobj(
        lambda artist: str(artist.get_gid()).startswith("points-") and artist.get_gid().endswith(end)
    )
    return sorted(point for line in lines for point in zip(*line.get_data(), strict=True))


@pytest.mark.parametrize("zeros", [False, True])
def test_points_stand_at_cost_and_score(zeros: bool) -> None:
    rows = [*examples.cost_rows(16, zeros=zeros), plots.CostRow("none", None, 0.9), plots.CostRow("nan", 1.0, math.nan)]
    figure = plots.score_against_cost(rows, metric="bleu-2", cost="seconds")
    front = plots.pareto_front(rows)
    assert points_of(figure, filled=True) == sorted((row.cost, row.value) for row in front)
    both = points_of(figure, filled=True) + points_of(figure, filled=False)
    assert sorted(both) == sorted((row.cost, row.value) for row in rows[:16])
    steps = list(zip(*of_gid(figure, "front").get_data(), strict=True))
    assert [point for point in steps if point in points_of(figure, filled=True)] == [(r.cost, r.value) for r in front]
    assert steps[-1] == (max(row.cost or 0 for row in rows[:16]), front[-1].value)
    assert any("Not drawn: 2 cells without a score or a cost." in text.get_text() for text in texts_of(figure))
    axes = figure.axes[0]
    assert axes.get_xscale() == ("symlog" if zeros else "log")
    assert ("(log scale with 0)" in axes.get_xlabel()) == zeros
    low, high = axes.get_xlim()
    assert all(low < x < high for x, _ in both)


def test_costs_within_a_decade_have_a_linear_axis() -> None:
    figure = plots.score_against_cost(
        [plots.CostRow("a", 2.0, 1.0), plots.CostRow("b", 9.0, 2.0)], metric="m", cost="seconds"
    )
    assert figure.axes[0].get_xscale() == "linear"
    nothing = plots.score_against_cost(
        [plots.CostRow("a", 0.0, 1.0), plots.CostRow("b", 0.0, 2.0)], metric="m", cost="seconds"
    )
    assert nothing.axes[0].get_xscale() == "linear"


def test_many_points_are_named_on_the_front_only() -> None:
    rows = examples.cost_rows(40)
    figure = plots.score_against_cost(rows, metric="bleu-2", cost="parameters")
    shown = [text.get_text() for text in texts_of(figure)]
    front = plots.pareto_front(rows)
    assert {row.name for row in front} <= set(shown)
    assert f"{40 - len(front)} points off the front not named" in shown


VALUES = strategies.one_of(strategies.none(), strategies.sampled_from([0.0, 1.0, 2.0, 3.0, math.nan, math.inf]))


@hypothesis.given(strategies.lists(strategies.tuples(VALUES, VALUES), max_size=14), strategies.booleans())
def test_the_front_has_the_rows_that_none_beats(pairs: list[tuple[float | None, float | None]], higher: bool) -> None:
    rows = [plots.CostRow(str(place), cost, value) for place, (cost, value) in enumerate(pairs)]
    sign = 1 if higher else -1
    valid = [
        (row, row.cost, sign * row.value)
        for row in rows
        if row.cost is not None and row.value is not None and math.isfinite(row.cost) and math.isfinite(row.value)
    ]

    def beaten(cost: float, value: float) -> bool:
        return any(c <= cost and v >= value and (c, v) != (cost, value) for _, c, v in valid)

    expected = [row.name for row, cost, value in valid if not beaten(cost, value)]
    front = plots.pareto_front(rows, higher_is_better=higher)
    assert sorted(row.name for row in front) == sorted(expected)
    assert [row.cost for row in front] == sorted(row.cost or 0.0 for row in front)


# Forest


def test_a_forest_shows_differences_intervals_and_which_are_significant() -> None:
    rows = [*examples.difference_rows(8), plots.DifferenceRow("none", None), plots.DifferenceRow("untested", 0.001)]
    figure = plots.forest(rows, metric="bleu-2", reference="gin-linear")
    drawn_rows = [row for row in rows if row.difference is not None]
    for place, row in enumerate(drawn_rows):
        marker = of_gid(figure, f"difference-{place}")
        assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (row.difference, place)
        filled = marker.get_markerfacecolor() != plots.LIGHT.paper
        assert filled == (row.p is not None and row.p < 0.05)
        if row.low is not None:
            assert tuple(of_gid(figure, f"interval-{place}").get_xdata()) == (row.low, row.high)
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [row.name for row in drawn_rows]
    assert axes.yaxis_inverted()
    low, high = axes.get_xlim()
    assert low < min(row.low or 0 for row in drawn_rows)
    assert high > max(row.high or 0 for row in drawn_rows)
    said = {text.get_text() for text in texts_of(figure)}
    assert {"← worse", "better →"} <= said
    errors = plots.forest(rows, metric="rmse", reference="gin", higher_is_better=False)
    assert {"← better", "worse →"} <= {text.get_text() for text in texts_of(errors)}


# Learning curves


def test_learning_curves_are_means_over_seeds_at_the_steps_that_all_have() -> None:
    rows = [
        *(plots.LossRow("a", "align", step, 2.0 - step / 10 + seed, seed) for seed in (0, 1) for step in (0, 5, 10)),
        plots.LossRow("a", "align", 7, 9.0, 1),
        *(plots.LossRow("a", "tune", step, 1.0 + seed, seed, kept=step == 4) for seed in (0, 1) for step in (0, 4)),
        plots.LossRow("a", "tune", 8, math.nan, 0),
        plots.LossRow("a", "tune", 8, 5.0, 1),
    ]
    figure = plots.learning_curves(rows)
    first, second = of_gid(figure, "curve-0-0"), of_gid(figure, "curve-0-1")
    assert list(first.get_xdata()) == [0, 5, 10]
    assert list(first.get_ydata()) == pytest.approx([2.5, 2.0, 1.5])
    assert list(second.get_xdata()) == [10, 14]
    assert list(second.get_ydata()) == [1.5, 1.5]
    (ring,) = [line for line in figure.axes[0].lines if line.get_markersize() == 8 and len(line.get_xdata())]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([14], [1.5])
    assert any("Not drawn: 1 loss that is not finite." in text.get_text() for text in texts_of(figure))


def test_many_cells_have_a_panel_each() -> None:
    assert len(plots.learning_curves(examples.loss_rows(6)).axes) == 1
    figure = plots.learning_curves(examples.loss_rows(7))
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(
        dict.fromkeys(r.name for r in examples.loss_rows(7))
    )


# Reliance


def test_reliance_shows_examples_and_their_mean() -> None:
    few, many = examples.reliance_rows(1, 40)[0], plots.RelianceRow("many", examples.reliance_rows(1, 900)[0].gains)
    figure = plots.reliance_per_example(
        [few, many, plots.RelianceRow("none", ()), plots.RelianceRow("nan", (math.nan,))]
    )
    points = of_gid(figure, "examples-0")
    assert sorted(points.get_xdata()) == sorted(few.gains)
    assert np.ptp(points.get_ydata()) < 0.4
    counts, edges, _ = of_gid(figure, "examples-1").get_data()
    shown = [gain for gain in many.gains if edges[0] <= gain <= edges[-1]]
    expected = np.histogram(shown, bins=edges)[0]
    assert 1 - np.asarray(counts) == pytest.approx(0.46 * expected / expected.max())
    for place, row in enumerate((few, many)):
        assert of_gid(figure, f"mean-{place}").get_xdata()[0] == pytest.approx(np.mean(row.gains))
    said = " ".join(text.get_text() for text in texts_of(figure)).replace("\n", " ")
    low, high = figure.axes[0].get_xlim()
    beyond = sum(not low <= gain <= high for gain in (*few.gains, *many.gains))
    assert f"Beyond the axis: {beyond} examples." in said
    assert "Not drawn: 2 cells without reliance." in said


def test_a_gain_of_exactly_zero_is_on_neither_side() -> None:
    figure = plots.reliance_per_example([plots.RelianceRow("control", (0.0,) * 200), examples.reliance_rows(1, 200)[0]])
    heights, edges, baseline = of_gid(figure, "examples-0").get_data()
    (bar,) = np.flatnonzero(np.asarray(heights) != baseline)
    assert edges[bar] == pytest.approx(-edges[bar + 1])


# Heat maps


def fields_of(figure: Any) -> dict[str, Any]:
    found = figure.findobj(lambda artist: str(artist.get_gid()).startswith("field-"))
    return {patch.get_gid(): patch for patch in found}


def test_gates_are_shaded_and_written() -> None:
    rows = [
        plots.GateRow("a", ("atom", "graph"), (1.5, 0.5), (0.1, 0.2)),
        plots.GateRow("b", ("motif", "graph"), (0.25, math.nan)),
    ]
    figure = plots.gate_heat_map(rows)
    fields = fields_of(figure)
    assert len(fields) == 2 * 3
    for gid, value in {"field-0-0-0": 1.5, "field-0-0-1": 0.5, "field-0-1-2": 0.25}.items():
        assert fields[gid].get_facecolor()[:3] == pytest.approx(shade(value, (0.0, 1.5)))
        assert not fields[gid].get_hatch()
    assert all(fields[gid].get_hatch() for gid in ("field-0-0-2", "field-0-1-0", "field-0-1-1"))
    said = {text.get_text() for text in texts_of(figure)}
    assert {"1.50 ± 0.10", "0.50 ± 0.20", "0.25", "atom", "graph", "motif"} <= said


def test_uneven_gates_are_refused() -> None:
    with pytest.raises(ResultsError, match="a has not as many values as levels"):
        plots.gate_heat_map([plots.GateRow("a", ("atom", "graph"), (1.0,))])


def test_confusion_counts_every_answer_once() -> None:
    rows = [
        plots.AnswerRow("a", "Yes", "Yes", 6),
        plots.AnswerRow("a", "Yes", "No", 3),
        plots.AnswerRow("a", "Yes", None),
        plots.AnswerRow("a", "No", "No", 5),
        plots.AnswerRow("a", "No", "perhaps", 5),
    ]
    figure = plots.confusion(rows)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["No", "Yes"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["No", "Yes", "perhaps", "(none)"]
    written = [text.get_text() for text in axes.texts]
    assert written == ["50%\n5", "0%\n0", "50%\n5", "0%\n0", "30%\n3", "60%\n6", "0%\n0", "10%\n1"]
    assert fields_of(figure)["field-0-1-1"].get_facecolor()[:3] == pytest.approx(shade(0.6, (0, 1)))
    assert plots.described(figure) == "Confusion of answers. a: 11 of 20 answers right."


def test_rare_answers_are_put_together() -> None:
    rows = examples.answer_rows(1, [f"class {number}" for number in range(14)])
    figure = plots.confusion(rows)
    counts = [int(text.get_text().partition("\n")[2].replace(",", "")) for text in figure.axes[0].texts]
    assert len(counts) == 11 * 12
    assert sum(counts) == sum(row.count for row in rows)


# Ranks


def test_ranks_are_drawn_to_scale_and_cells_that_do_not_differ_are_joined() -> None:
    rows = [
        plots.RankRow("a", 1.0),
        plots.RankRow("b", 2.0),
        plots.RankRow("c", 2.5),
        plots.RankRow("d", 4.5),
        plots.RankRow("none", math.nan),
    ]
    figure = plots.critical_difference_diagram(rows, 1.2, blocks=9)
    axes = figure.axes[0]
    points = sorted(float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o")
    width = (points[-1] - points[0]) / 3.5
    assert [(x - points[0]) / width + 1 for x in points] == pytest.approx([1.0, 2.0, 2.5, 4.5])
    joined = figure.findobj(lambda artist: str(artist.get_gid()).startswith("joined-"))
    ends = sorted(tuple((x - points[0]) / width + 1 for x in line.get_xdata()) for line in joined)
    assert [end for pair in ends for end in pair] == pytest.approx([1.0, 2.0, 2.0, 2.5], abs=0.08)
    said = {text.get_text() for text in texts_of(figure)}
    assert {"a   1.00", "b   2.00", "2.50   c", "4.50   d", "critical difference 1.20"} <= said


# Breakdown


@pytest.mark.parametrize("upright", [True, False])
def test_parts_show_their_values_and_sizes(upright: bool) -> None:
    parts = ("1 to 10", "11 to 20") if upright else tuple(f"a functional group {n}" for n in range(9))
    rows = [
        *examples.part_rows(3, parts),
        plots.PartRow("gin-a", "empty", None),
        plots.PartRow("gin-b", parts[0], math.nan),
    ]
    figure = plots.breakdown(rows, quantity="bleu-2", by="heavy atoms")
    given = [row for row in rows if row.value is not None and math.isfinite(row.value)]
    for place, name in enumerate(dict.fromkeys(row.name for row in given)):
        line = of_gid(figure, f"parts-{place}")
        values, across = (line.get_ydata(), line.get_xdata()) if upright else (line.get_xdata(), line.get_ydata())
        assert list(values) == [row.value for row in given if row.name == name]
        assert np.rint(across).tolist() == list(range(len(parts)))
    ticks = figure.axes[0].get_xticklabels() if upright else figure.axes[0].get_yticklabels()
    assert [re.sub(r"\s+", " ", tick.get_text()) for tick in ticks] == [
        f"{part} n = {100 + 7 * place}" for place, part in enumerate(parts)
    ]


def test_many_cells_make_a_heat_map() -> None:
    rows = examples.part_rows(8, ("small", "large"))
    figure = plots.breakdown(rows, quantity="bleu-2", by="size")
    written = [text.get_text() for text in figure.axes[0].texts]
    assert written == [f"{row.value:.3f}" for row in rows]


# What has nothing to draw


def nothing() -> Iterator[Any]:
    yield (
        "against seconds: none of 1 cell has both",
        lambda: plots.score_against_cost([plots.CostRow("a", 1.0, None)], metric="m", cost="seconds"),
    )
    yield "none of 0 cells has both", lambda: plots.score_against_cost([], metric="m", cost="seconds")
    yield (
        "a cost is 0 or more; below that is a",
        lambda: plots.score_against_cost([plots.CostRow("a", -1.0, 1.0)], metric="m", cost="seconds"),
    )
    yield (
        "none of 1 cell has one",
        lambda: plots.forest([plots.DifferenceRow("a", math.nan)], metric="m", reference="b"),
    )
    yield "none of 0 rows has a loss", lambda: plots.learning_curves([])
    yield "none of 1 row has a loss", lambda: plots.learning_curves([plots.LossRow("a", "b", 0, math.inf)])
    yield "none of 1 cell has examples that count", lambda: plots.reliance_per_example([plots.RelianceRow("a", ())])
    yield "none of 0 rows has any; the projectors `dynamic`", lambda: plots.gate_heat_map([])
    yield (
        "compares two cells or more, and 1 has a rank",
        lambda: plots.critical_difference_diagram([plots.RankRow("a", 1.0)], 1.0),
    )
    yield "there are no answers to count", lambda: plots.confusion([plots.AnswerRow("a", "b", "c", 0)])
    yield "25 cells, and 24 at most have room", lambda: plots.confusion(examples.answer_rows(25, ["a"]))
    yield (
        "m by size: none of 1 part has a value",
        lambda: plots.breakdown([plots.PartRow("a", "b", None)], quantity="m", by="size"),
    )


@pytest.mark.parametrize(("message", "draw"), list(nothing()))
def test_nothing_to_draw_is_refused_with_the_reason(message: str, draw: Any) -> None:
    with pytest.raises(ResultsError, match=re.escape(message)):
        draw()


def test_equal_values_and_single_ones_are_drawn() -> None:
    same = [plots.CostRow(name, 100.0, 0.5) for name in "abc"]
    assert len(points_of(plots.score_against_cost(same, metric="m", cost="c"), filled=True)) == 3
    assert len(fields_of(plots.gate_heat_map(examples.gate_rows(1)))) == 2
    ranks = [plots.RankRow("a", 1.5), plots.RankRow("b", 1.5)]
    assert plots.critical_difference_diagram(ranks, 0.0).axes
    assert plots.forest([plots.DifferenceRow("a", 0.0, 0.0, 0.0, 1.0)], metric="m", reference="b").axes
    assert len(examples.rank_rows(40)) == 40
    assert HOSTILE not in plots.svg(drawn("cost, hostile"))
