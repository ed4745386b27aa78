"""How long a leaderboard of thousands of runs takes: to build, to open in a browser, to sort, and how much memory.

`python benchmarks/leaderboard_scale.py FOLDER [--runs 2000] [--examples 3300]` makes run folders in the format of real
ones (result, manifest, status and score files with values by example and what metrics are computed from), builds the
page as `molgraft leaderboard` does in a process of its own, and opens it in Chromium where chromedriver is found.
Folders that are there are taken as they are.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

METRICS = ("bleu-2", "bleu-4", "rouge-1", "rouge-2", "rouge-l", "meteor")
ENCODERS, PROJECTORS = (
    ("gin", "moleculestm", "hierarchical", "gat"),
    ("linear", "qformer", "multilevel", "resampler", "fusion"),
)
SECONDS, BYTES = 20.0, 10**9
"""What building 2,000 runs of 3,300 examples may take."""

REPEATS = 4  # of a sort, of which the fastest counts: other programs of the machine are not what is measured


def make_runs(folder: Path, runs: int, examples: int) -> None:
    """Writes run folders; scores are random with a difficulty that the runs share, as those of real runs are."""
    random = np.random.default_rng(7)
    difficulty = random.beta(4, 3, examples)
    ids = [f"{number}" for number in range(100_000, 100_000 + examples)]
    for number in range(runs):
        identity = f"{number:016x}"
        path = folder / f"cell-{number:04d}-s0-{identity}"
        (path / "scores").mkdir(parents=True)
        skill = random.normal(0, 0.03)
        values = {
            name: np.clip(difficulty + skill + random.normal(0, 0.15, examples), 0, 1).tolist() for name in METRICS
        }
        summary = _summary(identity, values, examples)
        basis: dict[str, Any] = {name: {"formula": "mean"} for name in METRICS[2:]}
        for order in (2, 4):
            rows = random.integers(0, 60, (examples, 2 * order + 2)).tolist()
            basis[f"bleu-{order}"] = {"formula": f"bleu-{order}", "rows": rows}
        parts = {"summary": summary, "example_ids": ids, "per_example": values, "basis": basis, "invalid": {}}
        lines = ",\n".join(f'"{name}": {json.dumps(part)}' for name, part in parts.items())
        (path / "scores" / f"{identity}.json").write_text(f"{{\n{lines}\n}}\n")
        _write(path / "result.json", _result(number, identity, summary, examples))
        _write(path / "manifest.json", {"train_id": identity, "cell_id": identity, "data": {}, "sessions": []})
        _write(path / "status.json", {"state": "done", "phase": "done", "error": None, "message": None})


def _summary(identity: str, values: dict[str, list[float]], examples: int) -> dict[str, Any]:
    estimates = {}
    for name, by_example in values.items():
        mean = float(np.mean(by_example))
        estimates[name] = {"value": mean, "ci95": [mean - 0.008, mean + 0.008]}
    rules = {"metrics": " ".join(f"{name}@1" for name in METRICS), "tokenizer": "words", "numpy": "2.4.6"}
    return {
        "protocol": "strict@1",
        "score_id": identity,
        "n": examples,
        "n_invalid": 0,
        "metrics": estimates,
        "identity": rules,
    }


def _result(number: int, identity: str, summary: dict[str, Any], examples: int) -> dict[str, Any]:
    evaluation = {
        "task": "caption", "answer": "caption", "data": "chebi20", "split": "test", "n": examples, "limited": False,
        "evaluation_id": "e" * 16, "examples_id": "a" * 16, "graph_input": {"name": "real"}, "text_input": None,
        "prompt": None, "generation": {"max_new_tokens": 256, "beams": 1}, "predict_id": identity, "scores": [summary],
        "observed": {}, "reliance": {"value": 0.01 + number % 7 / 100, "ci95": None},
    }  # fmt: skip
    trained = 1_000_000 * (1 + number % 40)
    return {
        "name": f"cell-{number:04d}",
        "seed": 0,
        "cell_id": identity,
        "train_id": identity,
        "encoder": ENCODERS[number % len(ENCODERS)],
        "projector": PROJECTORS[number % len(PROJECTORS)],
        "llm": ("galactica-125m", "galactica-1.3b", "vicuna-7b")[number % 3],
        "text_input": "smiles",
        "graph_input": {"train": "real", "test": "real"},
        "parameters": {"total": {"llm": 10**8, "projector": trained}, "trained": {}, "trained_sum": trained},
        "stages": [{"name": "tune", "steps": 1000, "tokens": 10**6, "validation": {}, "kept_step": 0}],
        "training_seconds": 60.0 * (1 + number % 90),
        "evaluations": [evaluation],
    }


def _write(file: Path, value: object) -> None:
    file.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def build(folder: Path, page: Path) -> tuple[float, float, int]:
    """Wall and processor seconds and the most memory in bytes of a process that builds the page, start included."""
    started = time.perf_counter()
    command = [sys.executable, str(Path(__file__).resolve()), str(folder), "--build", str(page)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    processor, memory = said.split()[-2:]
    return time.perf_counter() - started, float(processor), int(memory)


def _build_here(folder: Path, page: Path) -> None:
    from results.leaderboard import as_html, build
    from results.runs import read_runs

    page.write_text(as_html(build(read_runs([folder]))), encoding="utf-8")
    print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def browse(page: Path) -> dict[str, float]:
    """Milliseconds in Chromium: until the table can be used, of sorts, of a search, and of a comparison."""
    from webdriver import Browser

    with Browser(width=1280, height=1000) as browser:
        browser.open(page.resolve().as_uri())
        browser.wait_for("document.documentElement.dataset.ready")
        opened = browser.run("return performance.getEntriesByName('ready')[0].startTime")
        parsed = browser.run("return performance.getEntriesByType('navigation')[0].domInteractive")
        # Until the changed rows are laid out, as a reader waits for them.
        timed = (
            "const begun = performance.now(); {} ; document.getElementById('rows').getBoundingClientRect();"
            "return performance.now() - begun"
        )
        press = "document.querySelector('#rows thead button[data-key=\"{}\"]').click()"
        sorts = [
            min(browser.run(timed.format(press.format(key))) for _ in range(REPEATS))
            for key in ("rouge-l", "name", "trained", "bleu-2")
        ]
        typed = (
            "const box = document.getElementById('search'); box.value = 'qformer vicuna';"
            "box.dispatchEvent(new Event('input'))"
        )
        searched = browser.run(timed.format(typed))
        browser.run("document.getElementById('reset').click()")
        browser.wait_for("document.getElementById('count').textContent && !document.getElementById('search').value")
        browser.wait_for("document.querySelectorAll('#rows tbody input').length > 1")
        boxes = "const boxes = document.querySelectorAll('#rows tbody input'); boxes[0].click(); boxes[1].click();"
        browser.run(f"{boxes} window.begun = performance.now(); document.getElementById('compare').click()")
        browser.run(
            "new MutationObserver(() => { if (document.getElementById('verdict')) window.done ??= performance.now(); })"
            ".observe(document.getElementById('comparison-body'), { childList: true })"
        )
        browser.wait_for("window.done || document.getElementById('verdict')")
        compared = browser.run("return (window.done ?? performance.now()) - window.begun")
        return {"parsed": parsed, "usable": opened, "sort": max(sorts), "search": searched, "compare": compared}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--examples", type=int, default=3300)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.build is not None:
        _build_here(given.folder, given.build)
        return 0
    if not given.folder.exists():
        make_runs(given.folder, given.runs, given.examples)
    size = sum(file.stat().st_size for file in given.folder.rglob("*.json"))
    page = given.folder.parent / f"{given.folder.name}.html"
    seconds, processor, memory = build(given.folder, page)
    print(
        f"runs on disk {size / 1e6:,.0f} MB; built in {seconds:.1f} s ({processor:.1f} s of a processor) with "
        f"{memory / 1e6:,.0f} MB; page {page.stat().st_size / 1e6:.1f} MB"
    )
    if shutil.which("chromedriver"):
        print("; ".join(f"{what} {ms:,.0f} ms" for what, ms in browse(page).items()))
    return int(seconds > SECONDS or memory > BYTES)


if __name__ == "__main__":
    sys.exit(main())
